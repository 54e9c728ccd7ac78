//! Commands inside a container, and the healthcheck that its image brings: both are the engine's own.
//!
//! The engine cannot be told to kill a command. One that nobody waits for any more is killed by its number on the
//! node where that is possible; else it goes on until it ends by itself, with the container at the latest.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ExecConfig, HealthStatusEnum};
use bollard::query_parameters::{InspectContainerOptions, ResizeExecOptions};
use futures::StreamExt as _;
use hostler_kit::Tasks;
use hostler_model::{Exit, FailureCode, UnitId};
use rustix::process::{Pid, Signal};

use super::ContainerRuntime;
use super::engine::{Attempt as _, Refused};
use super::places::Place;
use crate::exec::{Input, Typed, not_running};
use crate::{
    ExecCommand, Execution, NativeHealth, NativeVerdict, RuntimeError, Stream, TerminalSize,
};

const RESIZE_TRIES: u32 = 10;
const RESIZE_PAUSE: Duration = Duration::from_millis(20);
/// For as long as the pause comes to five seconds.
const KILL_TRIES: u32 = 100;
const END_PAUSE: Duration = Duration::from_millis(50);

type Output = Pin<Box<dyn futures::Stream<Item = Result<LogOutput, Error>> + Send>>;

impl Place {
    pub(crate) async fn begin(
        self,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        let has_terminal = command.terminal.is_some();
        let env = command
            .env
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let size = command
            .terminal
            .map(|it| vec![it.rows.into(), it.columns.into()]);
        let options = ExecConfig {
            attach_stdin: Some(command.input),
            attach_stdout: Some(true),
            attach_stderr: Some(!has_terminal),
            tty: Some(has_terminal),
            console_size: size,
            cmd: Some(command.words.clone()),
            env: Some(env.collect()),
            user: command.user.clone(),
            working_dir: command.directory.clone(),
            ..ExecConfig::default()
        };
        let created = self.docker.create_exec(&self.container, options).await;
        let exec = created.or_refused(|refused| self.not_begun(refused))?;
        let options = StartExecOptions {
            tty: has_terminal,
            ..StartExecOptions::default()
        };
        let started = self.docker.start_exec(&exec.id, Some(options)).await;
        let started =
            started.or_refused(|refused| refused.unsatisfiable(FailureCode::CommandNotRunnable))?;
        let (output, input) = match started {
            // When its connection is half closed, the engine leaves a terminal altogether.
            StartExecResults::Attached { output, input } if has_terminal => {
                (Some(output), Some(Box::pin(Typed(input)) as Input))
            }
            StartExecResults::Attached { output, input } => (Some(output), Some(input as Input)),
            StartExecResults::Detached => (None, None),
        };
        let mut begun = Command {
            docker: self.docker,
            tasks: self.tasks,
            container: self.container,
            exec: exec.id,
            input: input.filter(|_| command.input),
            output,
            has_terminal,
            has_ended: false,
        };
        // Engines before 1.42 begin every terminal without a size.
        if let Some(size) = command.terminal {
            begun.resize(size).await?;
        }
        Ok(Box::new(begun))
    }

    fn not_begun(&self, refused: Refused) -> RuntimeError {
        if refused.is_conflict() {
            not_running(self.unit)
        } else if refused.is_not_found() {
            RuntimeError::NotFound(self.unit)
        } else {
            refused.unsatisfiable(FailureCode::CommandNotRunnable)
        }
    }
}

/// A command under way.
struct Command {
    docker: Docker,
    tasks: Tasks,
    container: String,
    exec: String,
    input: Option<Input>,
    output: Option<Output>,
    has_terminal: bool,
    has_ended: bool,
}

#[async_trait]
impl Execution for Command {
    fn input(&mut self) -> Option<Input> {
        self.input.take()
    }

    async fn resize(&mut self, size: TerminalSize) -> Result<(), RuntimeError> {
        if !self.has_terminal {
            return Ok(());
        }
        let size = ResizeExecOptions {
            h: i32::from(size.rows),
            w: i32::from(size.columns),
        };
        // The engine answers the start before the command has its terminal, and one that has just ended has none any
        // more, which is no failure of anybody.
        for _ in 0..RESIZE_TRIES {
            let resized = self.docker.resize_exec(&self.exec, size.clone()).await;
            if resized.attempt()?.is_ok() {
                break;
            }
            tokio::time::sleep(RESIZE_PAUSE).await;
        }
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<(Stream, Vec<u8>)>, RuntimeError> {
        let Some(output) = &mut self.output else {
            return Ok(None);
        };
        let piece = output.next().await.transpose().or_down()?;
        Ok(piece.map(|piece| match piece {
            LogOutput::StdErr { message } => (Stream::Stderr, message.to_vec()),
            LogOutput::StdOut { message }
            | LogOutput::Console { message }
            | LogOutput::StdIn { message } => (Stream::Stdout, message.to_vec()),
        }))
    }

    async fn end(&mut self) -> Result<Exit, RuntimeError> {
        self.input = None;
        // The engine closes the output when the command ends.
        while self.output().await?.is_some() {}
        let ended = loop {
            let seen = self.docker.inspect_exec(&self.exec).await.or_down()?;
            if seen.running != Some(true) {
                break seen;
            }
            // It has closed its outputs, or is about to be told as ended.
            tokio::time::sleep(END_PAUSE).await;
        };
        self.has_ended = true;
        let code = ended.exit_code.and_then(|code| i32::try_from(code).ok());
        Ok(code.map_or(Exit::Unknown, Exit::Code))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let (docker, container) = (self.docker.clone(), self.container.clone());
        let exec = std::mem::take(&mut self.exec);
        self.tasks.spawn_until_stop("kill a command", async move {
            if let Err(why) = kill(&docker, &container, &exec).await {
                tracing::debug!(container, why, "a command goes on inside the container");
            }
        });
    }
}

/// Until the engine says that it has ended: one that has only just begun has no number yet.
async fn kill(docker: &Docker, container: &str, exec: &str) -> Result<(), String> {
    let mut last = Ok(());
    for _ in 0..KILL_TRIES {
        last = match kill_once(docker, container, exec).await {
            Ok(true) => return Ok(()),
            Ok(false) => Ok(()),
            Err(why) => Err(why),
        };
        tokio::time::sleep(END_PAUSE).await;
    }
    last
}

/// Answers whether it had ended already.
async fn kill_once(docker: &Docker, container: &str, exec: &str) -> Result<bool, String> {
    let state = docker.inspect_exec(exec).await.map_err(|e| e.to_string())?;
    if state.running != Some(true) {
        return Ok(true);
    }
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(Pid::from_raw).ok_or("it has no number")?;
    // The number is the engine's. Where that is another machine, or another namespace, it is not this process.
    let cgroups = tokio::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))
        .await
        .map_err(|error| error.to_string())?;
    if !cgroups.contains(container) {
        return Err("its number is another's on this machine".to_owned());
    }
    let killed = rustix::process::kill_process(pid, Signal::KILL);
    killed.map(|()| false).map_err(|error| error.to_string())
}

#[async_trait]
impl NativeHealth for ContainerRuntime {
    async fn native_verdict(&self, id: UnitId) -> Result<NativeVerdict, RuntimeError> {
        let container = self.inner.container(id).await?;
        let docker = self.inner.engine.docker().await?;
        let answer = docker
            .inspect_container(&container, None::<InspectContainerOptions>)
            .await
            .or_refused(|refused| refused.of_unit(id))?;
        let Some(health) = answer.state.and_then(|state| state.health) else {
            return Ok(NativeVerdict::Absent);
        };
        let last = health.log.unwrap_or_default().pop();
        let said = last.and_then(|last| last.output).unwrap_or_default();
        Ok(match health.status {
            Some(HealthStatusEnum::HEALTHY) => NativeVerdict::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => NativeVerdict::Unhealthy(said.trim().to_owned()),
            Some(HealthStatusEnum::STARTING) => NativeVerdict::Undecided,
            Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => NativeVerdict::Absent,
        })
    }
}

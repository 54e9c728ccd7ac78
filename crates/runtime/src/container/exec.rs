//! Commands inside a container, and the healthcheck that its image brings: both are the engine's own.
//!
//! The engine cannot be told to kill a command. One that nobody waits for any more is killed by its number on the
//! node where that is possible; else it goes on until it ends by itself, with the container at the latest.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::HealthStatusEnum;
use bollard::query_parameters::InspectContainerOptions;
use futures::StreamExt as _;
use hostler_model::{Exit, FailureCode, UnitId};
use rustix::process::{Pid, Signal};

use super::engine::Attempt as _;
use super::{ContainerRuntime, Inner};
use crate::exec::not_running;
use crate::{
    Exec, ExecCommand, Execution, FoundState, NativeHealth, NativeVerdict, RuntimeError, Stream,
};

type Output = Pin<Box<dyn futures::Stream<Item = Result<LogOutput, Error>> + Send>>;

#[async_trait]
impl Exec for ContainerRuntime {
    async fn begin(
        &self,
        id: UnitId,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        let inner = &self.inner;
        let container = inner.container(id).await?;
        let seen = inner.inspect(id, &container).await?;
        if !matches!(seen.found.state, FoundState::Running { .. }) {
            return Err(not_running(id));
        }
        let docker = inner.engine.docker().await?;
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.words.clone()),
            ..CreateExecOptions::default()
        };
        let created = docker.create_exec(&container, options).await.attempt()?;
        let exec = created.map_err(|refused| {
            if refused.is_conflict() {
                not_running(id)
            } else {
                refused.of_unit(id)
            }
        })?;
        let options = StartExecOptions::default();
        let started = docker.start_exec(&exec.id, Some(options)).await.attempt()?;
        let started = started.map_err(|refused| RuntimeError::Unsatisfiable {
            code: FailureCode::CommandNotRunnable,
            message: refused.message,
        })?;
        let output = match started {
            StartExecResults::Attached { output, .. } => Some(output),
            StartExecResults::Detached => None,
        };
        Ok(Box::new(Command {
            inner: Arc::clone(inner),
            docker,
            container,
            exec: exec.id,
            output,
            has_ended: false,
        }))
    }
}

/// A command under way.
struct Command {
    inner: Arc<Inner>,
    docker: Docker,
    container: String,
    exec: String,
    output: Option<Output>,
    has_ended: bool,
}

#[async_trait]
impl Execution for Command {
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
        // The engine closes the output when the command ends.
        while self.output().await?.is_some() {}
        let ended = self.docker.inspect_exec(&self.exec).await.or_down()?;
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
        self.inner
            .tasks
            .spawn_until_stop("kill a command", async move {
                if let Err(why) = kill(&docker, &container, &exec).await {
                    tracing::debug!(container, why, "a command goes on inside the container");
                }
            });
    }
}

async fn kill(docker: &Docker, container: &str, exec: &str) -> Result<(), String> {
    let state = docker.inspect_exec(exec).await.map_err(|e| e.to_string())?;
    if state.running != Some(true) {
        return Ok(());
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
    rustix::process::kill_process(pid, Signal::KILL).map_err(|error| error.to_string())
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

//! Commands inside a unit of the process driver: a process group of their own in the unit's cgroup, brought
//! there by the shim's program (see `command` in `hostler_shim`). Killed as a group when nobody waits for them any more,
//! and by the kernel when the agent's thread that began it ends: begin none on a thread that does not last.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use hostler_model::{Exit, UnitId};
use hostler_shim::record::UnitDir;
use hostler_shim::{COMMAND_VARIABLE, CommandOrder};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr};

use super::ProcessRuntime;
use super::terminal::Terminal;
use crate::exec::{Input, Typed, no_parts, not_running};
use crate::{Exec, ExecCommand, Execution, FoundState, RuntimeError, Stream, TerminalSize, disk};

/// Output that is taken at once.
const PIECE: usize = 16 * 1024;

#[async_trait]
impl Exec for ProcessRuntime {
    async fn begin(
        &self,
        id: UnitId,
        part: Option<&str>,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        no_parts(part)?;
        self.is_running(id).await?;
        let order = CommandOrder {
            command: command.clone(),
            is_inner: false,
            parent: i32::try_from(std::process::id()).ok(),
        };
        let begun = serde_json::to_string(&order)
            .map_err(std::io::Error::from)
            .and_then(|order| self.spawn(id, command, order));
        let begun = begun.map_err(|source| disk::error("run a command in the unit", source))?;
        Ok(Box::new(begun))
    }
}

impl ProcessRuntime {
    pub(super) async fn is_running(&self, id: UnitId) -> Result<(), RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let seen = disk::off_thread("look at the unit", move || inner.look(id)).await?;
        match seen.ok_or(RuntimeError::NotFound(id))?.state {
            FoundState::Running { .. } => Ok(()),
            FoundState::Prepared | FoundState::Exited { .. } => Err(not_running(id)),
        }
    }

    fn spawn(&self, id: UnitId, asked: &ExecCommand, order: String) -> std::io::Result<Command> {
        let shim = &self.inner.shim;
        let mut command = tokio::process::Command::new(&shim.program);
        command
            .args(&shim.args)
            .arg(UnitDir::of(&self.inner.dir, id).path())
            .env_clear()
            .env(COMMAND_VARIABLE, order);
        let terminal = match asked.terminal {
            None => {
                let input = if asked.input {
                    Stdio::piped()
                } else {
                    Stdio::null()
                };
                command
                    .process_group(0)
                    .stdin(input)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                None
            }
            // It leads a session, and so a group, as soon as it has its terminal.
            Some(size) => {
                let (terminal, theirs) = Terminal::open(size)?;
                let handle = |of: &OwnedFd| of.try_clone().map(Stdio::from);
                command
                    .stdin(handle(&theirs)?)
                    .stdout(handle(&theirs)?)
                    .stderr(handle(&theirs)?);
                Some(terminal)
            }
        };
        let child = command.spawn()?;
        Ok(Command::of(child, terminal, asked.input))
    }
}

/// A command under way.
struct Command {
    child: Child,
    /// None once it was waited for: its number may be another's then.
    process: Option<Pid>,
    input: Option<Input>,
    stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    stderr: Option<ChildStderr>,
    terminal: Option<Terminal>,
}

impl Command {
    fn of(mut child: Child, terminal: Option<Terminal>, has_input: bool) -> Self {
        let process = child.id().and_then(|pid| i32::try_from(pid).ok());
        let (input, stdout): (Option<Input>, Option<Pin<Box<dyn AsyncRead + Send>>>) =
            match &terminal {
                Some(terminal) => (
                    has_input.then(|| Box::pin(Typed(Box::pin(terminal.clone()))) as Input),
                    Some(Box::pin(terminal.clone())),
                ),
                None => (
                    child.stdin.take().map(|input| Box::pin(input) as Input),
                    match child.stdout.take() {
                        Some(output) => Some(Box::pin(output)),
                        None => None,
                    },
                ),
            };
        Self {
            process: process.and_then(Pid::from_raw),
            input,
            stdout,
            stderr: child.stderr.take(),
            child,
            terminal,
        }
    }
}

#[async_trait]
impl Execution for Command {
    fn input(&mut self) -> Option<Input> {
        self.input.take()
    }

    async fn resize(&mut self, size: TerminalSize) -> Result<(), RuntimeError> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        terminal
            .resize(size)
            .map_err(|source| disk::error("resize a terminal", source))
    }

    async fn output(&mut self) -> Result<Option<(Stream, Vec<u8>)>, RuntimeError> {
        while self.stdout.is_some() || self.stderr.is_some() {
            // Reading is cancel-safe: the arm that loses has read nothing.
            let (stream, read) = tokio::select! {
                read = piece(&mut self.stdout), if self.stdout.is_some() => (Stream::Stdout, read),
                read = piece(&mut self.stderr), if self.stderr.is_some() => (Stream::Stderr, read),
            };
            let bytes = read.map_err(|source| disk::error("read a command's output", source))?;
            if !bytes.is_empty() {
                return Ok(Some((stream, bytes)));
            }
            match stream {
                Stream::Stdout => self.stdout = None,
                Stream::Stderr | Stream::Notice => self.stderr = None,
            }
        }
        Ok(None)
    }

    async fn end(&mut self) -> Result<Exit, RuntimeError> {
        (self.input, self.stdout, self.stderr) = (None, None, None);
        self.terminal = None;
        let status = self.child.wait().await;
        let status = status.map_err(|source| disk::error("wait for a command", source))?;
        self.process = None;
        Ok(exit_of(status))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(process) = self.process {
            // It may have ended by itself in between, or not lead a group yet; the runtime collects it either way.
            let _ = rustix::process::kill_process_group(process, Signal::KILL);
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
    }
}

async fn piece(pipe: &mut Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let Some(pipe) = pipe else {
        return Ok(Vec::new());
    };
    let mut bytes = vec![0; PIECE];
    let read = pipe.read(&mut bytes).await?;
    bytes.truncate(read);
    Ok(bytes)
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

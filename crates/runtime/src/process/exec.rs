//! Commands inside a unit of the process driver: a process group of their own in the unit's cgroup, brought
//! there by the shim's program (see `command` in `hostler_shim`). Killed as a group when nobody waits for them any more.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use hostler_model::{Exit, UnitId};
use hostler_shim::COMMAND_VARIABLE;
use hostler_shim::record::UnitDir;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::ProcessRuntime;
use crate::exec::not_running;
use crate::{Exec, ExecCommand, Execution, FoundState, RuntimeError, Stream, disk};

/// Output that is taken at once.
const PIECE: usize = 8 * 1024;

#[async_trait]
impl Exec for ProcessRuntime {
    async fn begin(
        &self,
        id: UnitId,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let seen = disk::off_thread("look at the unit", move || inner.look(id)).await?;
        match seen.ok_or(RuntimeError::NotFound(id))?.state {
            FoundState::Running { .. } => {}
            FoundState::Prepared | FoundState::Exited { .. } => return Err(not_running(id)),
        }
        let failed = |source| disk::error("run a command in the unit", source);
        let words = serde_json::to_string(&command.words).map_err(|error| failed(error.into()))?;
        let shim = &self.inner.shim;
        let mut child = tokio::process::Command::new(&shim.program)
            .args(&shim.args)
            .arg(UnitDir::of(&self.inner.dir, id).path())
            .env_clear()
            .env(COMMAND_VARIABLE, words)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let group = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        Ok(Box::new(Command {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            group,
        }))
    }
}

/// A command under way.
struct Command {
    child: Child,
    /// None once it was waited for: its number may be another's then.
    group: Option<Pid>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

#[async_trait]
impl Execution for Command {
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
        (self.stdout, self.stderr) = (None, None);
        let status = self.child.wait().await;
        let status = status.map_err(|source| disk::error("wait for a command", source))?;
        self.group = None;
        Ok(exit_of(status))
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended by itself in between; the runtime collects it either way.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
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

//! Running a command inside a unit: beside its main process, as the same user, in the same directory,
//! environment and limits.
//!
//! ```text
//!   Exec::begin(unit, command) ──► Execution ──output, output, …, none──► end ──► how it ended
//!                                     └── dropped before: the command is killed
//! ```
//!
//! [`Execution`] is all that callers see of a command under way, so that one with an input, a terminal and its
//! size is a matter of more verbs there and more fields in [`ExecCommand`]. [`run`] is for those who only want
//! the end and a bounded piece of the output, such as health checks.

use std::time::Duration;

use async_trait::async_trait;
use hostler_model::{Exit, FailureCode, UnitId};

use crate::{RuntimeError, Stream};

/// Runs commands inside running units.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Begins a command. It changes nothing of the unit's runs, and ends with the unit at the latest. A program
    /// that is not there may be told as an exit of 126 or 127, as shells do.
    ///
    /// # Errors
    /// `unit-not-found`, `unit-not-running`, and what keeps the driver from beginning.
    async fn begin(
        &self,
        id: UnitId,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError>;
}

/// What is to be run inside a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExecCommand {
    /// Program and arguments.
    pub words: Vec<String>,
}

/// A command that was begun. Dropping it kills the command, as far as the driver can.
#[async_trait]
pub trait Execution: Send {
    /// The next piece of output, in the order of its stream; none once there is no more.
    async fn output(&mut self) -> Result<Option<(Stream, Vec<u8>)>, RuntimeError>;

    /// How it ended; waits for that. Output that was not taken is dropped.
    async fn end(&mut self) -> Result<Exit, RuntimeError>;
}

/// How a command ended, and the beginning of what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecDone {
    pub exit: Exit,
    pub output: Vec<u8>,
    /// More was written than is kept.
    pub is_cut: bool,
}

impl ExecCommand {
    /// The command without an input.
    #[must_use]
    pub const fn new(words: Vec<String>) -> Self {
        Self { words }
    }
}

/// Runs a command to its end and keeps at most so many bytes of its output, of both streams together. After
/// `limit` it is killed, and the answer is `TimedOut`.
///
/// # Errors
/// As [`Exec::begin`].
pub async fn run(
    exec: &dyn Exec,
    id: UnitId,
    command: &ExecCommand,
    (limit, most): (Duration, usize),
) -> Result<ExecDone, RuntimeError> {
    let mut done = ExecDone {
        exit: Exit::TimedOut,
        output: Vec::new(),
        is_cut: false,
    };
    let running = async {
        let mut execution = exec.begin(id, command).await?;
        while let Some((_, bytes)) = execution.output().await? {
            let room = most - done.output.len();
            done.is_cut |= bytes.len() > room;
            done.output.extend(bytes.into_iter().take(room));
        }
        execution.end().await
    };
    match tokio::time::timeout(limit, running).await {
        Ok(exit) => done.exit = exit?,
        Err(_) => done.is_cut = true,
    }
    Ok(done)
}

/// Nothing can be run inside a unit that does not run.
pub(crate) fn not_running(id: UnitId) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::UnitNotRunning,
        message: format!("unit {id} does not run"),
    }
}

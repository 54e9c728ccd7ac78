//! Running a command inside a unit: beside its main process, as the same user, in the same directory,
//! environment and limits.
//!
//! ```text
//!   Exec::begin(unit, command) ──► Execution ──output, output, …, none──► end ──► how it ended
//!                                     │ └── input: taken once, written to beside the output
//!                                     └── dropped before: the command is killed
//! ```
//!
//! [`Execution`] is all that callers see of a command under way. [`run`] is for those who only want the end and a
//! bounded piece of the output, such as health checks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hostler_model::{ExecCommand, Exit, FailureCode, TerminalSize, UnitId};
use tokio::io::AsyncWrite;

use crate::{RuntimeError, Stream};

/// Runs commands inside running units.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Begins a command. It changes nothing of the unit's runs, and ends with the unit at the latest. A program
    /// that is not there may be told as an exit of 126 or 127, as shells do.
    ///
    /// # Errors
    /// `unit-not-found`, `unit-not-running`, `part-not-found`, and what keeps the driver from beginning.
    async fn begin(
        &self,
        id: UnitId,
        part: Option<&str>,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError>;
}

/// Where the input of a command is written. The input ends when this is shut down and then dropped: a terminal, a
/// pipe and an engine each need another of the two.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A command that was begun. Dropping it kills the command, as far as the driver can.
#[async_trait]
pub trait Execution: Send {
    /// Its input, for the first who asks; none for a command without.
    fn input(&mut self) -> Option<Input>;

    /// Its terminal has this size from now on; nothing happens where there is none.
    async fn resize(&mut self, size: TerminalSize) -> Result<(), RuntimeError>;

    /// The next piece of output, in the order of its stream; none once there is no more. What a terminal shows is
    /// standard output. Cancel-safe.
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
        let mut execution = exec.begin(id, None, command).await?;
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

/// A unit that is one thing has no parts to choose from.
pub(crate) fn no_parts(part: Option<&str>) -> Result<(), RuntimeError> {
    match part {
        None => Ok(()),
        Some(part) => Err(RuntimeError::Unsatisfiable {
            code: FailureCode::PartNotFound,
            message: format!("the copy has no part `{part}`: it is one thing"),
        }),
    }
}

/// The input of a terminal, which has no end of its own: it is typed.
pub(crate) struct Typed(pub(crate) Input);

/// Ends the input where it is typed at the beginning of a line.
const END_OF_INPUT: &[u8] = &[4];

impl AsyncWrite for Typed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(context, END_OF_INPUT).map_ok(|_| ())
    }
}

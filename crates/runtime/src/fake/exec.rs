//! Commands inside units of the fake, and their healthchecks.

use async_trait::async_trait;
use hostler_model::{Exit, UnitId};
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::FakeRuntime;
use super::machine::number;
use crate::exec::{Input, no_parts, not_running};
use crate::{
    Exec, ExecCommand, Execution, FoundState, NativeHealth, NativeVerdict, RuntimeError, Stream,
    TerminalSize,
};

/// Input that waits to be read.
const UNREAD: usize = 4 * 1024;

#[async_trait]
impl Exec for FakeRuntime {
    async fn begin(
        &self,
        id: UnitId,
        part: Option<&str>,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        no_parts(part)?;
        self.is_running(id)?;
        let (program, arguments) = command
            .words
            .split_first()
            .map_or(("", &[][..]), |words| (words.0.as_str(), words.1));
        let told = self.machine.command(program);
        let does = match (told, program) {
            (Some((exit, line)), _) => Does::Ends(exit, vec![line]),
            (None, "exit") => Does::Ends(Exit::Code(number(arguments.first())), Vec::new()),
            (None, "print-exit") => Does::Ends(
                Exit::Code(number(arguments.first())),
                arguments[1..].to_vec(),
            ),
            (None, "cat") => Does::Echoes,
            (None, "sizes") => Does::TellsSizes { is_due: true },
            (None, _) => Does::RunsOn,
        };
        let (input, read) = match command.input {
            true => {
                let (input, read) = tokio::io::duplex(UNREAD);
                (Some(Box::pin(input) as Input), Some(read))
            }
            false => (None, None),
        };
        Ok(Box::new(Command {
            does,
            input,
            read,
            terminal: command.terminal,
        }))
    }
}

impl FakeRuntime {
    pub(super) fn is_running(&self, id: UnitId) -> Result<(), RuntimeError> {
        let found = self.machine.observe(self.kind)?;
        let found = found.into_iter().find(|found| found.id == id);
        match found.ok_or(RuntimeError::NotFound(id))?.state {
            FoundState::Running { .. } => Ok(()),
            FoundState::Prepared | FoundState::Exited { .. } => Err(not_running(id)),
        }
    }
}

/// What a command does.
enum Does {
    Ends(Exit, Vec<String>),
    /// Until its input ends.
    Echoes,
    /// The same, and it has a size to tell.
    TellsSizes {
        is_due: bool,
    },
    RunsOn,
}

/// A command under way.
struct Command {
    does: Does,
    input: Option<Input>,
    read: Option<DuplexStream>,
    terminal: Option<TerminalSize>,
}

impl Command {
    /// The next piece of its input, none at the end.
    async fn piece(&mut self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; UNREAD];
        let count = self.read.as_mut()?.read(&mut bytes).await.ok()?;
        bytes.truncate(count);
        (count > 0).then_some(bytes)
    }
}

#[async_trait]
impl Execution for Command {
    fn input(&mut self) -> Option<Input> {
        self.input.take()
    }

    async fn resize(&mut self, size: TerminalSize) -> Result<(), RuntimeError> {
        self.terminal = self.terminal.and(Some(size));
        Ok(())
    }

    async fn output(&mut self) -> Result<Option<(Stream, Vec<u8>)>, RuntimeError> {
        let piece = match &mut self.does {
            Does::Ends(_, lines) if lines.is_empty() => None,
            Does::Ends(_, lines) => Some(format!("{}\n", lines.remove(0)).into_bytes()),
            Does::Echoes => self.piece().await,
            Does::TellsSizes { is_due } => {
                if !std::mem::take(is_due) && self.piece().await.is_none() {
                    return Ok(None);
                }
                let size = self.terminal.unwrap_or(TerminalSize {
                    rows: 0,
                    columns: 0,
                });
                Some(format!("{} {}\n", size.rows, size.columns).into_bytes())
            }
            Does::RunsOn => std::future::pending().await,
        };
        Ok(piece.map(|piece| (Stream::Stdout, piece)))
    }

    async fn end(&mut self) -> Result<Exit, RuntimeError> {
        self.input = None;
        while !matches!(self.does, Does::Ends(..)) && self.output().await?.is_some() {}
        match self.does {
            Does::Ends(exit, _) => Ok(exit),
            Does::Echoes | Does::TellsSizes { .. } => Ok(Exit::Code(0)),
            Does::RunsOn => std::future::pending().await,
        }
    }
}

#[async_trait]
impl NativeHealth for FakeRuntime {
    async fn native_verdict(&self, id: UnitId) -> Result<NativeVerdict, RuntimeError> {
        let found = self.machine.observe(self.kind)?;
        match found.iter().any(|found| found.id == id) {
            true => Ok(self.machine.native_verdict()),
            false => Err(RuntimeError::NotFound(id)),
        }
    }
}

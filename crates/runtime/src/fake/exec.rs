//! Commands inside units of the fake, and their healthchecks.

use async_trait::async_trait;
use hostler_model::{Exit, UnitId};

use super::FakeRuntime;
use super::machine::number;
use crate::exec::not_running;
use crate::{
    Exec, ExecCommand, Execution, FoundState, NativeHealth, NativeVerdict, RuntimeError, Stream,
};

#[async_trait]
impl Exec for FakeRuntime {
    async fn begin(
        &self,
        id: UnitId,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        let found = self.machine.observe(self.kind)?;
        let found = found.into_iter().find(|found| found.id == id);
        if !matches!(
            found.ok_or(RuntimeError::NotFound(id))?.state,
            FoundState::Running { .. }
        ) {
            return Err(not_running(id));
        }
        let (program, arguments) = command
            .words
            .split_first()
            .map_or(("", &[][..]), |words| (words.0.as_str(), words.1));
        let told = self.machine.command(program);
        let (exit, lines) = match (told, program) {
            (Some((exit, line)), _) => (Some(exit), vec![line]),
            (None, "exit") => (Some(Exit::Code(number(arguments.first()))), Vec::new()),
            (None, "print-exit") => (
                Some(Exit::Code(number(arguments.first()))),
                arguments[1..].to_vec(),
            ),
            (None, _) => (None, Vec::new()),
        };
        Ok(Box::new(Command { exit, lines }))
    }
}

/// A command under way; one without an exit never ends.
struct Command {
    exit: Option<Exit>,
    lines: Vec<String>,
}

#[async_trait]
impl Execution for Command {
    async fn output(&mut self) -> Result<Option<(Stream, Vec<u8>)>, RuntimeError> {
        if !self.lines.is_empty() {
            let line = format!("{}\n", self.lines.remove(0));
            return Ok(Some((Stream::Stdout, line.into_bytes())));
        }
        match self.exit {
            Some(_) => Ok(None),
            None => std::future::pending().await,
        }
    }

    async fn end(&mut self) -> Result<Exit, RuntimeError> {
        match self.exit {
            Some(exit) => Ok(exit),
            None => std::future::pending().await,
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

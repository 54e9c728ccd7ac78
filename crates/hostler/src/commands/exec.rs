//! `exec`: a command inside a copy. Its output is ours, its input too if that is asked for, and it ends as it ends.

use std::io::IsTerminal as _;

use hostler_wire::api::{ErrandExit, ErrandWord, ExecQuery, output};
use hostler_wire::client::{ErrandMessage, ErrandReceiver, ErrandSender};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::terminal::{self, Terminal};
use super::{Remote, copy};
use crate::args::ExecArgs;
use crate::compose::Signals;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::status::ExitStatus;

/// How shells tell a signal.
const SIGNALLED: i32 = 128;

pub(crate) async fn exec(remote: &Remote<'_>, args: ExecArgs) -> Result<ExitStatus, Failure> {
    let is_handed_over = args.tty && args.interactive;
    if is_handed_over && !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "stdin is no terminal that could be handed over",
            "leave --tty out",
        ));
    }
    let copy = copy::pick(remote, &args.workload, args.copy.slot).await?;
    let size = args.tty.then(Terminal::size).flatten();
    let query = ExecQuery {
        command: args.command,
        input: args.interactive,
        terminal: args.tty,
        rows: size.map(|(rows, _)| rows),
        columns: size.map(|(_, columns)| columns),
        user: args.user,
        env: args
            .env
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect(),
        directory: args.workdir,
        part: args.copy.part,
    };
    let (sender, receiver) = remote.client.exec(&copy.id, &query).await?;
    let mut signals = Signals::new()?;
    let sizes = args.tty.then(window_changes).transpose()?;
    // From here on every way out leads through the end of this function, so that the terminal comes back.
    let _terminal = is_handed_over.then(Terminal::hand_over).transpose()?;
    tokio::select! {
        biased;
        ended = hear(receiver, remote.printer) => ended,
        failure = say(sender, args.interactive, sizes) => Err(failure),
        number = signals.number() => Ok(ExitStatus::Command(code_of(SIGNALLED + number))),
    }
}

fn window_changes() -> Result<Signal, Failure> {
    signal(SignalKind::window_change()).map_err(|error| {
        Failure::failed(
            format!("cannot listen to signals: {error}"),
            "raise the limit of open files",
        )
    })
}

/// Writes what the command writes, until it has ended; nothing comes behind that.
async fn hear(mut receiver: ErrandReceiver, printer: &Printer) -> Result<ExitStatus, Failure> {
    while let Some(message) = receiver.next().await? {
        match message {
            ErrandMessage::Bytes(bytes) => match bytes.split_first() {
                Some((&output::STDERR, bytes)) => printer.error_bytes(bytes),
                Some((_, bytes)) => printer.bytes(bytes),
                None => {}
            },
            ErrandMessage::Word(ErrandWord::Exit(exit)) => {
                return status_of(&exit).ok_or_else(unknown);
            }
            ErrandMessage::Word(_) => {}
        }
        if printer.is_closed() {
            // As a command whose reader has gone.
            return Ok(ExitStatus::Done);
        }
    }
    Err(unknown())
}

fn status_of(exit: &ErrandExit) -> Option<ExitStatus> {
    let code = exit
        .code
        .or_else(|| exit.signal.map(|signal| SIGNALLED + signal))?;
    Some(ExitStatus::Command(code_of(code)))
}

fn unknown() -> Failure {
    Failure::failed(
        "nobody saw how the command ended",
        "look what it has done, and run it again",
    )
}

fn code_of(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Says what comes on stdin and how large the terminal is. Answers if that cannot be said any more; why the errand is
/// over is told to who hears.
async fn say(mut sender: ErrandSender, has_input: bool, mut sizes: Option<Signal>) -> Failure {
    let mut input = has_input.then(terminal::input);
    loop {
        let said = tokio::select! {
            bytes = next(&mut input) => match bytes {
                Some(bytes) => sender.bytes(bytes).await,
                None => {
                    input = None;
                    sender.word(&ErrandWord::EndOfBytes).await
                }
            },
            () = changed(&mut sizes) => match Terminal::size() {
                Some((rows, columns)) => sender.word(&ErrandWord::Resize { rows, columns }).await,
                None => Ok(()),
            },
        };
        if said.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn next(
    input: &mut Option<tokio::sync::mpsc::Receiver<bytes::Bytes>>,
) -> Option<bytes::Bytes> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn changed(sizes: &mut Option<Signal>) {
    match sizes {
        Some(sizes) => {
            sizes.recv().await;
        }
        None => std::future::pending().await,
    }
}

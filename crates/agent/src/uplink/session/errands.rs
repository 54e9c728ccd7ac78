//! Errands: what somebody wants done inside a unit, carried out over a bulk stream that leads both ways.
//!
//! ```text
//!   asked ──may it, can it?──► begun ──► words to the unit   (hear: input, sizes, end of input)
//!      └── no: End with a code   └─────► words of the unit   (tell: output, its end, then End)
//! ```
//!
//! The two run side by side, so that neither waits for the other; each holds one piece. Whoever asked and is gone
//! ends both, and what was begun with them. What can fail is told as the code of the End.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use futures::{Stream, StreamExt as _};
use hostler_model::{Errand, ExecCommand, FailureCode, Task, TerminalSize, UnitId};
use hostler_runtime::{Archive, Execution, Input, Runtime, RuntimeError, Stream as Output};
use hostler_wire::session::v1;
use hostler_wire::session::v1::bulk_frame::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::bulk::{Gone, end_of, send};
use super::convert;
use crate::permit::Guardian;

/// Bytes in one frame.
const PIECE: usize = 32 * 1024;
/// How long whoever listens on a port of this machine may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An errand that was asked for.
pub(super) struct Asked {
    /// Where it is to be done, if there is such a unit.
    pub(super) place: Option<(UnitId, Arc<dyn Runtime>)>,
    pub(super) errand: Errand,
    pub(super) guardian: Arc<Guardian>,
}

/// Where the words of the errand go.
type Out = mpsc::Sender<v1::BulkFrame>;
/// Where they come from.
type In = Pin<Box<dyn Stream<Item = Frame> + Send>>;

/// Why an errand is over before its end.
enum Broken {
    Gone,
    Failed(RuntimeError),
}

impl From<RuntimeError> for Broken {
    fn from(error: RuntimeError) -> Self {
        Self::Failed(error)
    }
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Carries it out, to its end or until nobody waits for it any more.
pub(super) async fn carry_out(asked: Asked, mut frames: Streaming<v1::BulkFrame>, out: Out) {
    let (said, words) = mpsc::channel(1);
    let hearing = async move {
        // A stream that broke has nobody at its end either. What a newer server adds says nothing here.
        while let Ok(Some(frame)) = frames.message().await {
            if let Some(word) = frame.frame {
                // It ends before the stream that asked for it, and hears no more then.
                let _ = said.send(word).await;
            }
        }
    };
    let (mut hearing, mut doing) = (pin!(hearing), pin!(finish(asked, words, out)));
    tokio::select! {
        biased;
        () = &mut doing => {
            // Whoever leaves first takes words with it that are still under way: the end, above all. A slow reader
            // takes its time; one that is gone ends the stream with its connection.
            hearing.await;
        }
        () = &mut hearing => doing.await,
    }
}

async fn finish(asked: Asked, words: mpsc::Receiver<Frame>, out: Out) {
    let words = ReceiverStream::new(words).boxed();
    let ended = tokio::select! {
        biased;
        ended = Box::pin(attempt(asked, words, &out)) => ended,
        () = out.closed() => Err(Broken::Gone),
    };
    let end = match ended {
        Ok(()) => v1::End::default(),
        Err(Broken::Failed(error)) => end_of(&error),
        Err(Broken::Gone) => return,
    };
    // Whoever is gone by now needs no end.
    let _ = send(&out, Frame::End(end)).await;
}

async fn attempt(asked: Asked, words: In, out: &Out) -> Result<(), Broken> {
    let Errand { part, task } = asked.errand;
    let (unit, runtime) = asked.place.ok_or_else(not_here)?;
    asked.guardian.judge_task(&task).await?;
    let unsupported = || unsupported(&*runtime, &task);
    let part = part.as_deref();
    match &task {
        Task::Exec(command) => {
            let inside = runtime.exec().ok_or_else(unsupported)?;
            let execution = inside.begin(unit, part, command).await?;
            exec(execution, command, words, out).await
        }
        Task::Forward { port } => {
            let ports = runtime.ports().ok_or_else(unsupported)?;
            let address = ports.address(unit, part, *port).await?;
            let connecting = TcpStream::connect(address);
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            forward(
                connected.map_err(|why| no_listener(*port, &why))?,
                words,
                out,
            )
            .await
        }
        Task::ReadFiles { path } => {
            let files = runtime.files().ok_or_else(unsupported)?;
            read_files(files.read(unit, part, path).await?, words, out).await
        }
        Task::WriteFiles { path } => {
            let files = runtime.files().ok_or_else(unsupported)?;
            send(out, Frame::Begun(v1::Begun {})).await?;
            files.write(unit, part, path, archive(words)).await?;
            Ok(())
        }
    }
}

async fn exec(
    mut execution: Box<dyn Execution>,
    command: &ExecCommand,
    words: In,
    out: &Out,
) -> Result<(), Broken> {
    send(out, Frame::Begun(v1::Begun {})).await?;
    let (size, sizes) = watch::channel(command.terminal);
    let input = execution.input();
    tokio::select! {
        biased;
        ended = tell_output(execution, sizes, out) => ended,
        gone = hear(words, input, &size, None) => Err(gone.into()),
    }
}

async fn tell_output(
    mut execution: Box<dyn Execution>,
    mut sizes: watch::Receiver<Option<TerminalSize>>,
    out: &Out,
) -> Result<(), Broken> {
    loop {
        // Both only wait; what lost is asked again.
        let piece = tokio::select! {
            Ok(()) = sizes.changed() => {
                let size = *sizes.borrow_and_update();
                if let Some(size) = size {
                    execution.resize(size).await?;
                }
                continue;
            }
            piece = execution.output() => piece?,
        };
        let Some((stream, piece)) = piece else { break };
        for piece in piece.chunks(PIECE) {
            let frame = match stream {
                Output::Stderr => Frame::ErrorBytes(piece.to_vec()),
                Output::Stdout | Output::Notice => Frame::Bytes(piece.to_vec()),
            };
            send(out, frame).await?;
        }
    }
    let exit = execution.end().await?;
    send(out, Frame::Exited(convert::exit(exit))).await?;
    Ok(())
}

async fn forward(connection: TcpStream, words: In, out: &Out) -> Result<(), Broken> {
    send(out, Frame::Begun(v1::Begun {})).await?;
    let (mut read, write) = connection.into_split();
    let (ended, mut has_ended) = watch::channel(false);
    let (size, _sizes) = watch::channel(None);
    let telling = async {
        let mut piece = vec![0; PIECE];
        // A connection that broke is over as one that ended.
        while let Ok(count @ 1..) = read.read(&mut piece).await {
            let bytes = piece.iter().take(count).copied().collect();
            send(out, Frame::Bytes(bytes)).await?;
        }
        send(out, Frame::EndOfBytes(v1::EndOfBytes {})).await?;
        // The other direction may go on.
        let _ = has_ended.wait_for(|has_ended| *has_ended).await;
        Ok(())
    };
    tokio::select! {
        biased;
        told = telling => told,
        gone = hear(words, Some(Box::pin(write)), &size, Some(&ended)) => Err(gone.into()),
    }
}

/// Hands on what is said, until nobody is there to say anything. Says so when no more bytes come, or are taken.
async fn hear(
    mut words: In,
    mut input: Option<Input>,
    size: &watch::Sender<Option<TerminalSize>>,
    ended: Option<&watch::Sender<bool>>,
) -> Gone {
    while let Some(word) = words.next().await {
        match word {
            Frame::Bytes(bytes) => {
                if let Some(to) = &mut input
                    && to.write_all(&bytes).await.is_err()
                {
                    // It reads no more; what is still said is dropped.
                    input = None;
                }
            }
            Frame::EndOfBytes(_) => {
                if let Some(mut to) = input.take() {
                    let _ = to.shutdown().await;
                }
            }
            Frame::Resize(to) => {
                size.send_replace(Some(convert::terminal_size(&to)));
            }
            _ => {}
        }
        if input.is_none()
            && let Some(ended) = ended
        {
            ended.send_replace(true);
        }
    }
    Gone
}

async fn read_files(mut archive: Archive, mut words: In, out: &Out) -> Result<(), Broken> {
    send(out, Frame::Begun(v1::Begun {})).await?;
    let telling = async {
        while let Some(piece) = archive.next().await {
            for piece in piece?.chunks(PIECE) {
                send(out, Frame::Bytes(piece.to_vec())).await?;
            }
        }
        Ok(())
    };
    // Nothing is to be said here.
    let gone = async { while words.next().await.is_some() {} };
    tokio::select! {
        biased;
        told = telling => told,
        () = gone => Err(Broken::Gone),
    }
}

/// The archive that is said. Without its end it broke off.
fn archive(words: In) -> Archive<io::Error> {
    let pieces = stream::try_unfold(words, async |mut words| {
        loop {
            match words.next().await {
                Some(Frame::Bytes(bytes)) => return Ok(Some((Bytes::from(bytes), words))),
                Some(Frame::EndOfBytes(_)) => return Ok(None),
                Some(_) => {}
                None => {
                    let sentence = "the archive broke off";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, sentence));
                }
            }
        }
    });
    pieces.boxed()
}

fn not_here() -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::UnitNotRunning,
        message: "the copy is not on its node yet, or not any more".to_owned(),
    }
}

fn unsupported(runtime: &dyn Runtime, task: &Task) -> RuntimeError {
    let kind = runtime.kind();
    let (code, message) = match task {
        Task::Exec(_) => (
            FailureCode::ExecUnsupported,
            format!("no command can be run inside a {kind}"),
        ),
        Task::Forward { .. } => (
            FailureCode::ForwardUnsupported,
            format!("the ports of a {kind} cannot be reached this way"),
        ),
        Task::ReadFiles { .. } | Task::WriteFiles { .. } => (
            FailureCode::CopyUnsupported,
            format!("no files can be copied from and to a {kind}"),
        ),
    };
    RuntimeError::Unsatisfiable { code, message }
}

fn no_listener(port: u16, why: &io::Error) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::PortUnreachable,
        message: format!("nothing of the copy answers on port {port}: {why}"),
    }
}

//! Bulk transfers: logs and errands, on a second connection, so that they never stand in the way of a beat.
//!
//! The connection is opened when the first transfer is asked for and kept for a while after the last. A
//! transfer is as slow as its reader: it holds one batch of lines, or one piece, and no more.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use hostler_kit::Tasks;
use hostler_model::{Code, UnitId};
use hostler_runtime::{LogLine, LogQuery, Runtime, RuntimeError};
use hostler_wire::session::v1;
use hostler_wire::session::v1::bulk_frame::Frame;
use hostler_wire::session::v1::session_client::SessionClient;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::convert;
use super::errands::{Asked, carry_out};
use crate::dial::{Dial, Server};
use crate::uplink::channel::{MOST_STREAMS, SignsOfLife, connect, failure};

/// Logs, and errands, at once; a control plane that asks for more is refused.
const MOST_TRANSFERS: usize = MOST_STREAMS as usize / 2;
/// Bytes of lines in one frame; the longest line fits beside it into one message.
const BATCH_BYTES: usize = 60 * 1024;
/// What a line costs in a frame beside its text.
const LINE_ENVELOPE_BYTES: usize = 32;
/// Frames that may wait to be sent.
const WAITING_FRAMES: usize = 2;
/// How long the connection is kept when it is not used.
const KEPT: Duration = Duration::from_secs(60);
/// How long the other side may take to hear that there is no room for a transfer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

type Lines = BoxStream<'static, Result<LogLine, RuntimeError>>;

/// The second connection.
pub(super) struct Bulk {
    line: Arc<Line>,
    logs: Arc<Semaphore>,
    /// They may last for days, and logs are not to wait for that.
    errands: Arc<Semaphore>,
    tasks: Tasks,
}

/// What a transfer is to bring.
pub(super) enum Job {
    /// A log; without a source, only the news that there is none.
    Logs {
        source: Option<(UnitId, Arc<dyn Runtime>)>,
        query: LogQuery,
    },
    Errand(Box<Asked>),
}

struct Line {
    server: Server,
    dial: Arc<dyn Dial>,
    channel: Mutex<Option<Channel>>,
    /// Counts its uses, so that it can be seen whether there was one.
    uses: AtomicU64,
}

impl Bulk {
    pub(super) fn new(server: Server, dial: Arc<dyn Dial>, tasks: Tasks) -> Self {
        let line = Line {
            server,
            dial,
            channel: Mutex::new(None),
            uses: AtomicU64::new(0),
        };
        Self {
            line: Arc::new(line),
            logs: Arc::new(Semaphore::new(MOST_TRANSFERS)),
            errands: Arc::new(Semaphore::new(MOST_TRANSFERS)),
            tasks,
        }
    }

    /// Does what a ticket is for.
    pub(super) fn open(&self, ticket: String, job: Job) {
        let (name, room) = match &job {
            Job::Logs { .. } => ("log transfer", &self.logs),
            Job::Errand(_) => ("errand", &self.errands),
        };
        let permit = Arc::clone(room).try_acquire_owned().ok();
        if permit.is_none() {
            tracing::warn!(
                name,
                most = MOST_TRANSFERS,
                "too many transfers at once; refusing one"
            );
        }
        let job = permit.is_some().then_some(job);
        let (line, tasks) = (Arc::clone(&self.line), self.tasks.clone());
        self.tasks.spawn_until_stop(name, async move {
            if let Err(problem) = Box::pin(transfer(&line, ticket, job)).await {
                tracing::debug!(name, problem, "transfer ended early");
            }
            drop(permit);
            let uses = line.uses.load(Ordering::Relaxed);
            tasks.spawn_until_stop("transfer line", async move {
                tokio::time::sleep(KEPT).await;
                line.close_unless_used(uses).await;
            });
        });
    }
}

impl Line {
    async fn channel(&self) -> Result<Channel, String> {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.channel.lock().await;
        if let Some(channel) = kept.as_ref() {
            return Ok(channel.clone());
        }
        let channel = connect(&self.server, &self.dial, SignsOfLife::Pings).await?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    async fn close_unless_used(&self, uses: u64) {
        if self.uses.load(Ordering::Relaxed) == uses {
            self.channel.lock().await.take();
        }
    }

    /// The connection broke; the next transfer opens a new one.
    async fn forget(&self) {
        self.channel.lock().await.take();
    }
}

/// Without a job it only says that there is no room for it.
async fn transfer(line: &Line, ticket: String, job: Option<Job>) -> Result<(), String> {
    let (sender, frames) = mpsc::channel(WAITING_FRAMES);
    let mut client = SessionClient::new(line.channel().await?);
    let opening = async {
        let answers = client.bulk(ReceiverStream::new(frames)).await?;
        Ok::<_, tonic::Status>(answers.into_inner())
    };
    let ended = match job {
        None => {
            let refusing = tell(opening, refuse(sender, ticket));
            let refused = tokio::time::timeout(REFUSAL_TIMEOUT, refusing).await;
            refused.unwrap_or(Ok(()))
        }
        Some(Job::Logs { source, query }) => {
            tell(opening, feed(sender, ticket, source, query)).await
        }
        Some(Job::Errand(asked)) => {
            // There is room for the first frame.
            let _ = send(&sender, Frame::Ticket(ticket)).await;
            match opening.await {
                Ok(words) => {
                    carry_out(*asked, words, sender).await;
                    Ok(())
                }
                Err(status) => Err(status),
            }
        }
    };
    match ended {
        Ok(()) => Ok(()),
        Err(status) if status.code() == tonic::Code::Cancelled => Ok(()),
        Err(status) => {
            line.forget().await;
            Err(failure(&status))
        }
    }
}

/// Feeds a call on which only this side says something, and waits until it has ended, however slow its reader is.
async fn tell(
    opening: impl Future<Output = Result<Streaming<v1::BulkFrame>, tonic::Status>>,
    feeding: impl Future<Output = ()>,
) -> Result<(), tonic::Status> {
    let call = async { listen(opening.await?).await };
    let (mut call, mut feeding) = (pin!(call), pin!(feeding));
    // The call ends early when the reader has had enough; the feeding is then dropped, which only closes its files.
    tokio::select! {
        biased;
        ended = &mut call => ended,
        () = &mut feeding => call.await,
    }
}

/// Sends the ticket, and why nothing else comes.
async fn refuse(sender: mpsc::Sender<v1::BulkFrame>, ticket: String) {
    let end = v1::End {
        code: Code::Overloaded.as_str().to_owned(),
        message: format!("the node has {MOST_TRANSFERS} such transfers under way already"),
    };
    if send(&sender, Frame::Ticket(ticket)).await.is_ok() {
        // A reader that has gone needs no end.
        let _ = send(&sender, Frame::End(end)).await;
    }
}

/// Waits until the other side ends the call; it says nothing.
async fn listen(mut answers: Streaming<v1::BulkFrame>) -> Result<(), tonic::Status> {
    while answers.message().await?.is_some() {}
    Ok(())
}

/// Sends the ticket, the lines and the end.
async fn feed(
    sender: mpsc::Sender<v1::BulkFrame>,
    ticket: String,
    source: Option<(UnitId, Arc<dyn Runtime>)>,
    query: LogQuery,
) {
    if send(&sender, Frame::Ticket(ticket)).await.is_err() {
        return;
    }
    let lines = match source {
        Some((unit, runtime)) => runtime.logs(unit, query).await,
        None => Err(RuntimeError::NoLog),
    };
    let end = match lines {
        Ok(lines) => send_lines(&sender, lines).await,
        Err(error) => Ok(end_of(&error)),
    };
    if let Ok(end) = end {
        // A reader that has gone needs no end.
        let _ = send(&sender, Frame::End(end)).await;
    }
}

/// The reader has gone.
pub(super) struct Gone;

async fn send_lines(
    sender: &mpsc::Sender<v1::BulkFrame>,
    mut lines: Lines,
) -> Result<v1::End, Gone> {
    let mut carried = None;
    loop {
        let (batch, end) = gather(&mut lines, &mut carried).await;
        if !batch.is_empty() {
            send(sender, Frame::LogLines(v1::LogLines { lines: batch })).await?;
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

/// Waits for a line and takes along whatever else is there already, as far as it fits into one frame. The
/// line that does not is carried over.
async fn gather(
    lines: &mut Lines,
    carried: &mut Option<LogLine>,
) -> (Vec<v1::LogLine>, Option<v1::End>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut next = match carried.take() {
        Some(line) => Some(Ok(line)),
        None => lines.next().await,
    };
    loop {
        match next {
            Some(Ok(line)) => {
                let size = line.text.len() + LINE_ENVELOPE_BYTES;
                if bytes + size > BATCH_BYTES && !batch.is_empty() {
                    *carried = Some(line);
                    return (batch, None);
                }
                bytes += size;
                batch.push(convert::log_line(line));
            }
            Some(Err(error)) => return (batch, Some(end_of(&error))),
            None => return (batch, Some(v1::End::default())),
        }
        match lines.next().now_or_never() {
            Some(ready) => next = ready,
            None => return (batch, None),
        }
    }
}

pub(super) fn end_of(error: &RuntimeError) -> v1::End {
    v1::End {
        // A driver has no other reason not to know it.
        code: match error {
            RuntimeError::NotFound(_) => Code::UnitNotRunning.as_str(),
            other => other.code(),
        }
        .to_owned(),
        message: error.to_string(),
    }
}

pub(super) async fn send(sender: &mpsc::Sender<v1::BulkFrame>, frame: Frame) -> Result<(), Gone> {
    sender
        .send(v1::BulkFrame { frame: Some(frame) })
        .await
        .map_err(|_| Gone)
}

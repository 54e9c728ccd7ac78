//! How the control plane reaches a node through its session: a wake that becomes one delivery, and logs and
//! errands over bulk streams that the node opens on request.
//!
//! Owned by the node's `Attachment` for as long as its conversation lives. What can fail: a node that does
//! not open the stream in time, or whose stream breaks, is answered with `node-unreachable`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hostler_control::{Link, LogRecord, LogRequest, Told, Tunnel, Tunnels};
use hostler_model::{Code, Errand, Refusal, UnitId};
use hostler_wire::session::v1::{self, bulk_frame, open, server_message};
use tokio::sync::Notify;
use tonic::Streaming;

use super::convert;
use super::stream::Answers;
use super::tickets::{Tickets, Transfer};

/// How long a node may take to open a transfer.
const OPENING: Duration = Duration::from_secs(10);
/// How long a node may take to begin an errand; an engine may have to look at many containers first.
const BEGINNING: Duration = Duration::from_secs(30);
/// How long a node may be silent within a transfer that does not follow.
const BETWEEN_FRAMES: Duration = Duration::from_secs(30);

/// One node's session, as the control plane holds it.
pub(super) struct SessionLink {
    pub woken: Notify,
    pub answers: Answers,
    pub tickets: Arc<Tickets>,
}

type Lines = BoxStream<'static, Result<LogRecord, Refusal>>;

#[async_trait]
impl Link for SessionLink {
    fn wake(&self) {
        self.woken.notify_one();
    }

    async fn logs(&self, unit: UnitId, query: LogRequest) -> Result<Lines, Refusal> {
        let request = open::Request::Logs(convert::log_request(unit, query));
        let transfer = self.transfer(request).await?;
        Ok(lines(transfer, query.follow))
    }

    fn tunnels(&self) -> Option<&dyn Tunnels> {
        Some(self)
    }
}

#[async_trait]
impl Tunnels for SessionLink {
    async fn open(&self, unit: UnitId, errand: Errand) -> Result<Tunnel, Refusal> {
        let request = open::Request::Errand(convert::errand(unit, errand));
        let Transfer { mut frames, said } = self.transfer(request).await?;
        let begun = tokio::time::timeout(BEGINNING, next_frame(&mut frames)).await;
        match begun.map_err(|_| unreachable("it did not begin in time"))?? {
            bulk_frame::Frame::Begun(_) => Ok(Tunnel {
                said,
                told: told(frames),
            }),
            bulk_frame::Frame::End(end) => Err(convert::end(end)),
            _ => Err(unreachable("it broke the contract")),
        }
    }
}

impl SessionLink {
    /// Asks the node for a transfer and waits for it.
    async fn transfer(&self, request: open::Request) -> Result<Transfer, Refusal> {
        let mut ticket = self.tickets.mint();
        let open = v1::Open {
            ticket: ticket.text.clone(),
            request: Some(request),
        };
        let told = self.answers.send(server_message::Message::Open(open)).await;
        told.map_err(|_| unreachable("its session has ended"))?;
        match tokio::time::timeout(OPENING, &mut ticket.transfer).await {
            Ok(Ok(transfer)) => Ok(transfer),
            Ok(Err(_)) | Err(_) => Err(unreachable("it did not open the transfer in time")),
        }
    }
}

/// What the node says of an errand, to its end. At most one frame is held; the node waits in the stream's window. It
/// may be silent for ever: the connection's pings notice a dead node.
fn told(frames: Streaming<v1::BulkFrame>) -> BoxStream<'static, Result<Told, Refusal>> {
    stream::try_unfold(Some(frames), async |frames| {
        let Some(mut frames) = frames else {
            return Ok(None);
        };
        loop {
            let told = match next_frame(&mut frames).await? {
                bulk_frame::Frame::End(end) if end.code.is_empty() => return Ok(None),
                bulk_frame::Frame::End(end) => return Err(convert::end(end)),
                frame => convert::told(frame),
            };
            // What a newer agent adds is not for this server.
            if let Some(told) = told {
                return Ok(Some((told, Some(frames))));
            }
        }
    })
    .boxed()
}

async fn next_frame(frames: &mut Streaming<v1::BulkFrame>) -> Result<bulk_frame::Frame, Refusal> {
    loop {
        let frame = frames.message().await;
        let frame = frame.map_err(|_| unreachable("the transfer broke"))?;
        let frame = frame.ok_or_else(|| unreachable("the transfer broke off"))?;
        if let Some(frame) = frame.frame {
            return Ok(frame);
        }
    }
}

/// The lines of a transfer. At most one frame is held; the node waits in the stream's window.
fn lines(transfer: Transfer, follow: bool) -> Lines {
    let start = Reading {
        transfer,
        ready: VecDeque::new(),
        follow,
        is_over: false,
    };
    stream::unfold(start, Reading::next).boxed()
}

struct Reading {
    transfer: Transfer,
    ready: VecDeque<v1::LogLine>,
    follow: bool,
    is_over: bool,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<LogRecord, Refusal>, Self)> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((Ok(convert::log_record(line)), self));
            }
            if self.is_over {
                return None;
            }
            if let Err(refusal) = self.read().await {
                self.is_over = true;
                return Some((Err(refusal), self));
            }
        }
    }

    /// Reads one frame.
    async fn read(&mut self) -> Result<(), Refusal> {
        let frame = self.transfer.frames.message();
        // A transfer that follows may be silent for ever; the connection's pings notice a dead node.
        let frame = if self.follow {
            frame.await
        } else {
            let frame = tokio::time::timeout(BETWEEN_FRAMES, frame).await;
            frame.map_err(|_| unreachable("it fell silent within the transfer"))?
        };
        let frame = frame.map_err(|_| unreachable("the transfer broke"))?;
        match frame.and_then(|frame| frame.frame) {
            Some(bulk_frame::Frame::LogLines(lines)) => self.ready.extend(lines.lines),
            Some(bulk_frame::Frame::End(end)) if end.code.is_empty() => self.is_over = true,
            Some(bulk_frame::Frame::End(end)) => return Err(convert::end(end)),
            Some(_) => {}
            None => return Err(unreachable("the transfer broke off")),
        }
        Ok(())
    }
}

fn unreachable(why: &str) -> Refusal {
    let sentence = format!("the node cannot be reached for this: {why}");
    Refusal::new(
        Code::NodeUnreachable,
        sentence,
        "look at `hostler node ls`, and try again",
    )
}

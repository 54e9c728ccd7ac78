//! WebSockets, and room for them. Those that tell a log are carried here: the client says nothing; what it says all the
//! same is not read. Those of errands are carried in `tunnel`.
//!
//! ```text
//!   asked ──room?──► upgraded ──► telling ──end──► 1000      ──problem──► 1011
//!             └─ refused (503)       ├──server stops──► 1001
//!                                    └──client is gone, or takes nothing for a minute──► dropped
//! ```
//!
//! A client that is slow holds up nobody: its log waits in the relay, which skips lines and marks the gap. Each
//! socket is a task of the server's family. What can fail: the upgrade, or that too many are open.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_control::{Control, Tunnel};
use hostler_model::{Code, Refusal};
use hostler_wire::api::{self, LogLine, LogStream};
use http::header;
use http::request::Parts;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::logs::Part;
use super::refuse::Failure;
use super::tunnel;
use crate::access::Warrant;

/// Sockets that are open at once; an upgraded connection counts for no other limit.
const MOST_SOCKETS: usize = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(api::stream::KEEP_ALIVE_SECONDS);
/// How long a client may take nothing.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// The client has nothing to say beyond pongs.
const MOST_HEARD: usize = 1024;
/// The largest message of one that sends bytes.
const MOST_TALKED: usize = 64 << 10;
/// What waits to be written to the connection.
const WRITE_BYTES: usize = 16 << 10;

/// Room for sockets.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_SOCKETS)))
    }
}

/// A request that wants to become a socket.
pub(super) struct Socket(WebSocketUpgrade);

/// One that has its room.
pub(super) struct Entered {
    upgrade: WebSocketUpgrade,
    permit: OwnedSemaphorePermit,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"event": "line", "data": …}`: the events of the stream with their names.
    Json,
    /// The text alone, with its line break; Hostler's own words begin with `-- `.
    Text,
}

/// Why a socket is closed.
#[derive(Debug, Clone)]
pub(super) struct Close {
    code: u16,
    reason: String,
}

impl Close {
    pub(super) const NORMAL: u16 = 1000;
    pub(super) const AWAY: u16 = 1001;
    pub(super) const POLICY: u16 = 1008;
    pub(super) const ERROR: u16 = 1011;
    /// What is asked for does not exist: 404 in the range that is ours to define.
    pub(super) const UNKNOWN: u16 = 4404;
    /// A control frame has no more.
    const REASON_BYTES: usize = 123;

    pub(super) fn new(code: u16, reason: &str) -> Self {
        let mut reason = reason.to_owned();
        let end = (0..=Self::REASON_BYTES.min(reason.len()))
            .rev()
            .find(|&end| reason.is_char_boundary(end));
        reason.truncate(end.unwrap_or(0));
        Self { code, reason }
    }

    pub(super) fn frame(self) -> Message {
        Message::Close(Some(CloseFrame {
            code: self.code,
            reason: self.reason.into(),
        }))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Socket {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Failure> {
        if !parts.headers.contains_key(header::UPGRADE) {
            return Ok(None);
        }
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        upgrade
            .map(|upgrade| Some(Self(upgrade)))
            .map_err(|rejection| Failure::bad(rejection.body_text()))
    }
}

impl Room {
    /// Takes room for one, if there is any.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.0).try_acquire_owned();
        permit.map_err(|_| {
            let sentence = format!("{MOST_SOCKETS} sockets and copies are open already");
            let advice = "close some, or read the stream of events instead";
            Failure(Refusal::new(Code::Overloaded, sentence, advice))
        })
    }
}

impl Socket {
    /// Takes its room, if there is any, for a client that says nothing.
    pub(super) fn enter(self, room: &Room) -> Result<Entered, Failure> {
        self.enter_hearing(room, MOST_HEARD)
    }

    /// The same for one that sends bytes.
    pub(super) fn enter_talking(self, room: &Room) -> Result<Entered, Failure> {
        self.enter_hearing(room, MOST_TALKED)
    }

    fn enter_hearing(self, room: &Room, most: usize) -> Result<Entered, Failure> {
        let permit = room.take()?;
        Ok(Entered {
            upgrade: self
                .0
                .max_message_size(most)
                .max_frame_size(most)
                .write_buffer_size(WRITE_BYTES),
            permit,
        })
    }
}

impl Entered {
    /// Tells the parts to their end.
    pub(super) fn tell(
        self,
        parts: BoxStream<'static, Part>,
        form: Form,
        control: &Control,
    ) -> Response {
        let (permit, tasks) = (self.permit, control.tasks().clone());
        self.upgrade.on_upgrade(async move |socket| {
            let told = tell(socket, parts, form, tasks.clone());
            tasks.spawn("log socket", async move {
                told.await;
                drop(permit);
            });
        })
    }

    /// Carries a tunnel to its end.
    pub(super) fn carry(
        self,
        tunnel: Tunnel,
        how: (tunnel::Form, Warrant),
        control: &Control,
    ) -> Response {
        let (permit, tasks) = (self.permit, control.tasks().clone());
        self.upgrade.on_upgrade(async move |socket| {
            let carried = tunnel::carry(socket, tunnel, how, tasks.clone());
            tasks.spawn("errand socket", async move {
                carried.await;
                drop(permit);
            });
        })
    }

    /// Says why there is nothing to tell.
    pub(super) fn close(self, why: Close) -> Response {
        let permit = self.permit;
        self.upgrade.on_upgrade(async move |mut socket| {
            let _ = tokio::time::timeout(SEND_PATIENCE, socket.send(why.frame())).await;
            drop(permit);
        })
    }
}

async fn tell(
    mut socket: WebSocket,
    mut parts: BoxStream<'static, Part>,
    form: Form,
    tasks: hostler_kit::Tasks,
) {
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let close = loop {
        // Every arm is cancel-safe: the streams are only borrowed.
        let frame = tokio::select! {
            () = tasks.stopping() => break Close::new(Close::AWAY, "the server stops"),
            heard = socket.recv() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
            _ = alive.tick() => Message::Ping(Vec::new().into()),
            part = parts.next() => match part {
                Some(Part::Line(line)) => Message::Text(of_line(&line, form).into()),
                Some(Part::Problem(problem)) => {
                    let close = Close::new(Close::ERROR, &problem.code);
                    if form == Form::Json {
                        let _ = send(&mut socket, event(api::stream::PROBLEM, &problem)).await;
                    }
                    break close;
                }
                Some(Part::End) | None => break Close::new(Close::NORMAL, "the log is complete"),
            },
        };
        if !send(&mut socket, frame).await {
            return;
        }
    };
    send(&mut socket, close.frame()).await;
}

/// Says whether the client took it.
async fn send(socket: &mut WebSocket, frame: Message) -> bool {
    let sent = tokio::time::timeout(SEND_PATIENCE, socket.send(frame)).await;
    matches!(sent, Ok(Ok(())))
}

fn of_line(line: &LogLine, form: Form) -> String {
    match form {
        Form::Json => json!({"event": api::stream::LINE, "data": line}).to_string(),
        Form::Text if line.stream == LogStream::Notice => format!("-- {}\n", line.text),
        Form::Text if line.partial => line.text.clone(),
        Form::Text => format!("{}\n", line.text),
    }
}

fn event(name: &str, data: &impl serde::Serialize) -> Message {
    Message::Text(json!({"event": name, "data": data}).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_frames_of_either_form_and_reasons_fit_their_frame() {
        let mut line = LogLine {
            at: "2026-01-31T08:00:00.000Z".to_owned(),
            stream: LogStream::Stdout,
            text: "one".to_owned(),
            partial: false,
            run: 1,
            slot: 0,
            copy: "x".to_owned(),
        };
        assert_eq!(of_line(&line, Form::Text), "one\n");
        let json: serde_json::Value = serde_json::from_str(&of_line(&line, Form::Json)).unwrap();
        assert_eq!(
            (&json["event"], &json["data"]["text"]),
            (&"line".into(), &"one".into())
        );
        line.partial = true;
        assert_eq!(of_line(&line, Form::Text), "one");
        line.stream = LogStream::Notice;
        assert_eq!(of_line(&line, Form::Text), "-- one\n");
        assert_eq!(Close::new(1000, &"é".repeat(100)).reason.len(), 122);
        assert_eq!(Close::new(1000, "short").reason, "short");
    }
}

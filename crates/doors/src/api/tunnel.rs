//! A tunnel over a WebSocket. Binary messages are bytes; text messages are words as `ErrandWord` has them.
//!
//! ```text
//!   client ── bytes, resize, end-of-bytes ──► hear ──► the tunnel       one message each is held; who takes
//!   client ◄── bytes, end-of-bytes, exit ─── tell ◄── the tunnel        nothing holds up its own tunnel only
//!                                              │
//!      1000 at the end; 1011 behind a problem; 1008 for what makes no sense; 1001 when the server stops
//! ```
//!
//! The two directions are apart, so that a client which reads nothing for a while can still be typing. A client that
//! is gone ends the tunnel, and with it what is done inside the copy.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hostler_control::{Said, Told, Tunnel};
use hostler_kit::Tasks;
use hostler_model::{Exit, Refusal, TerminalSize};
use hostler_wire::api::{ErrandExit, ErrandWord, output, stream};
use tokio::sync::mpsc;

use super::refuse::problem;
use super::socket::Close;
use crate::access::Warrant;

const KEEP_ALIVE: Duration = Duration::from_secs(stream::KEEP_ALIVE_SECONDS);
/// How long a client may take to read the last word.
const LAST_PATIENCE: Duration = Duration::from_secs(20);
/// How long a client may take to answer a close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How bytes for the client are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Plain,
    /// Behind one byte that says which output they are of.
    Streams,
}

/// Carries words both ways until the errand or the client ends, or the client may not have it any more.
pub(super) async fn carry(
    socket: WebSocket,
    tunnel: Tunnel,
    (form, stay): (Form, Warrant),
    tasks: Tasks,
) {
    let (mut to_client, mut from_client) = socket.split();
    let Tunnel { said, told } = tunnel;
    // The first that completes ends the tunnel; what the other held is of no use then.
    let close = tokio::select! {
        biased;
        close = tell(&mut to_client, told, form) => close,
        close = hear(&mut from_client, said) => close,
        () = tasks.stopping() => Some(Close::new(Close::AWAY, "the server stops")),
        refusal = stay.over() => tell_refusal(&mut to_client, refusal).await,
    };
    if let Some(close) = close {
        // A client that has gone needs no close.
        let _ = tokio::time::timeout(LAST_PATIENCE, to_client.send(close.frame())).await;
        // A connection that ends with something unread takes along what the client has not read yet.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, async {
            while let Some(Ok(_)) = from_client.next().await {}
        })
        .await;
    }
}

/// Hands on what the client says. Answers once it has nothing to say any more, with what it is to be told.
async fn hear(from: &mut SplitStream<WebSocket>, said: mpsc::Sender<Said>) -> Option<Close> {
    while let Some(Ok(message)) = from.next().await {
        match heard(message) {
            Ok(ControlFlow::Continue(words)) => {
                for word in words {
                    if said.send(word).await.is_err() {
                        // The errand is over; how it ended is being told.
                        return std::future::pending().await;
                    }
                }
            }
            Ok(ControlFlow::Break(())) => return None,
            Err(problem) => return Some(Close::new(Close::POLICY, problem)),
        }
    }
    None
}

fn heard(message: Message) -> Result<ControlFlow<(), Vec<Said>>, &'static str> {
    let words = match message {
        Message::Binary(bytes) => pieces(bytes),
        Message::Text(text) => match serde_json::from_str(&text) {
            Ok(ErrandWord::Resize { rows, columns }) => {
                vec![Said::Resize(TerminalSize { rows, columns })]
            }
            Ok(ErrandWord::EndOfBytes) => vec![Said::EndOfBytes],
            Ok(ErrandWord::Exit(_) | ErrandWord::Problem(_)) => {
                return Err("this word is the server's");
            }
            Err(_) => return Err("a text message is a word that the server knows"),
        },
        Message::Ping(_) | Message::Pong(_) => Vec::new(),
        Message::Close(_) => return Ok(ControlFlow::Break(())),
    };
    Ok(ControlFlow::Continue(words))
}

fn pieces(mut bytes: Bytes) -> Vec<Said> {
    let mut words = Vec::new();
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(Tunnel::PIECE));
        words.push(Said::Bytes(piece));
    }
    words
}

/// Tells the client what is told, to its end.
async fn tell(
    to: &mut SplitSink<WebSocket, Message>,
    mut told: BoxStream<'static, Result<Told, Refusal>>,
    form: Form,
) -> Option<Close> {
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Both only wait. What is sent waits for the client as long as its connection stands.
        let message = tokio::select! {
            _ = alive.tick() => Message::Ping(Bytes::new()),
            told = told.next() => match told {
                Some(Ok(told)) => shown(told, form),
                Some(Err(refusal)) => return tell_refusal(to, refusal).await,
                None => return Some(Close::new(Close::NORMAL, "it has ended")),
            },
        };
        to.send(message).await.ok()?;
    }
}

/// A refusal as the last word; its close is behind it.
async fn tell_refusal(to: &mut SplitSink<WebSocket, Message>, refusal: Refusal) -> Option<Close> {
    let problem = problem(refusal);
    let close = Close::new(Close::ERROR, &problem.code);
    let word = word(&ErrandWord::Problem(problem));
    let sending = tokio::time::timeout(LAST_PATIENCE, to.send(word));
    sending.await.ok()?.ok()?;
    Some(close)
}

fn shown(told: Told, form: Form) -> Message {
    match told {
        Told::Bytes(bytes) => Message::Binary(marked(bytes, output::STDOUT, form)),
        Told::ErrorBytes(bytes) => Message::Binary(marked(bytes, output::STDERR, form)),
        Told::EndOfBytes => word(&ErrandWord::EndOfBytes),
        Told::Exited(exit) => word(&ErrandWord::Exit(exit_of(exit))),
    }
}

fn marked(bytes: Bytes, mark: u8, form: Form) -> Bytes {
    match form {
        Form::Plain => bytes,
        Form::Streams => {
            let mut marked = BytesMut::with_capacity(bytes.len() + 1);
            marked.extend_from_slice(&[mark]);
            marked.extend_from_slice(&bytes);
            marked.freeze()
        }
    }
}

const fn exit_of(exit: Exit) -> ErrandExit {
    let (code, signal) = match exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
        Exit::OutOfMemory | Exit::Unknown | Exit::TimedOut | Exit::Unhealthy => (None, None),
    };
    ErrandExit { code, signal }
}

fn word(word: &ErrandWord) -> Message {
    Message::Text(serde_json::to_string(word).unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: Message) -> Vec<Said> {
        match heard(message) {
            Ok(ControlFlow::Continue(words)) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn large_messages_go_in_pieces_and_nonsense_is_named() {
        let whole = Bytes::from(vec![7; Tunnel::PIECE + 1]);
        let words = said(Message::Binary(whole.clone()));
        let expected = [whole.slice(..Tunnel::PIECE), whole.slice(Tunnel::PIECE..)];
        assert_eq!(words, expected.map(Said::Bytes));
        let text = r#"{"event":"resize","data":{"rows":2,"columns":3}}"#;
        let size = TerminalSize {
            rows: 2,
            columns: 3,
        };
        assert_eq!(said(Message::Text(text.into())), [Said::Resize(size)]);
        for text in ["", "{}", r#"{"event":"exit","data":{"code":0}}"#] {
            assert!(heard(Message::Text(text.into())).is_err(), "{text}");
        }
        assert_eq!(heard(Message::Close(None)), Ok(ControlFlow::Break(())));
    }

    #[test]
    fn output_is_marked_where_there_are_several() {
        let error = Told::ErrorBytes(Bytes::from_static(b"x"));
        let message = shown(error.clone(), Form::Streams);
        assert_eq!(message, Message::Binary(Bytes::from_static(b"\x02x")));
        let message = shown(error, Form::Plain);
        assert_eq!(message, Message::Binary(Bytes::from_static(b"x")));
    }
}

//! What the targets share: the programs to be asked, without a network and with a clock that never waits, and the
//! way in which an input is written.
//!
//! - `doors` is a control plane in memory behind all its listeners, with a little of everything in it; `node` is an
//!   agent that serves; `plane` is a control plane that answers an agent.
//! - `input` reads requests as text, `message` the messages of gRPC: a mutation leaves lengths right.
//! - `line` is a listener with TLS, spoken to in bytes.
//! - `offline` makes sure that no input makes this process dial.
//!
//! What one input leaves behind, the next one meets, until a program is replaced by a fresh one. So a finding may
//! need what came before it; the programs draw no randomness and no time of their own.

mod doors;
mod input;
mod line;
mod message;
mod node;
mod offline;
mod plane;

use std::cell::RefCell;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

pub use self::input::{asks, calls};
pub use self::line::speak_to_listener;
pub use self::plane::answer_agent;

/// Longest that any answer may take, in time that passes at once when there is nothing to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a body that streams on is read, likewise.
const GLANCE: Duration = Duration::from_secs(2);
/// Most inputs that one program is asked: what they leave behind slows it down.
const LIFE: u32 = 512;
/// The moment at which every program begins, 2026-01-01, in milliseconds.
const BEGINNING: u64 = 1_767_225_600_000;

/// A program that is asked, and what keeps it alive.
struct Program {
    runtime: Runtime,
    /// What it serves, under the name of each listener.
    routers: Vec<(&'static str, Router)>,
    /// Words that stand in an input for what only this run knows, such as `{token}`.
    words: Vec<(String, String)>,
    asked: u32,
    _alive: Box<dyn std::any::Any>,
}

/// Asks the control plane everything that the input says.
pub fn ask_doors(input: &[u8], read: Read, judge: Judge) {
    thread_local!(static DOORS: RefCell<Option<Program>> = const { RefCell::new(None) });
    DOORS.with_borrow_mut(|doors| ask(doors, doors::open, input, read, judge));
}

/// Asks the agent everything that the input says.
pub fn ask_node(input: &[u8], read: Read, judge: Judge) {
    thread_local!(static NODE: RefCell<Option<Program>> = const { RefCell::new(None) });
    NODE.with_borrow_mut(|node| ask(node, node::open, input, read, judge));
}

/// Reads requests, each with the listener that it goes to.
pub type Read = fn(&[u8]) -> Vec<(String, Request<Body>)>;
/// Panics for an answer that no request may get: the path, and the answer.
pub type Judge = fn(&str, &Response<Vec<u8>>);

fn ask(held: &mut Option<Program>, open: fn() -> Program, input: &[u8], read: Read, judge: Judge) {
    if held.as_ref().is_some_and(|program| program.asked >= LIFE) {
        *held = None;
    }
    let program = held.get_or_insert_with(open);
    program.asked += 1;
    let input = input::fill(input, &program.words);
    for (listener, request) in read(&input) {
        let path = format!("{} {}", request.method(), request.uri());
        judge(&path, &program.answer(&listener, request));
    }
}

/// The status that gRPC tells beside or behind the body, with its words.
pub fn grpc_status(answer: &Response<Vec<u8>>) -> (&str, &str) {
    let text = |name| answer.headers().get(name).and_then(|it| it.to_str().ok());
    let status = text("grpc-status").unwrap_or("0");
    (status, text("grpc-message").unwrap_or_default())
}

/// No call may end with `UNKNOWN` or `INTERNAL`, but that tonic tells bytes that are no message as INTERNAL.
pub fn judge_call(path: &str, answer: &Response<Vec<u8>>) {
    let (status, words) = grpc_status(answer);
    let is_no_message = words.contains("decode");
    assert!(
        !["2", "13"].contains(&status) || is_no_message,
        "{path}: {status} {words}"
    );
}

impl Program {
    fn new(
        runtime: Runtime,
        routers: Vec<(&'static str, Router)>,
        alive: impl std::any::Any,
    ) -> Self {
        Self {
            runtime,
            routers,
            words: Vec::new(),
            asked: 0,
            _alive: Box::new(alive),
        }
    }

    /// The answer and what came of its body, with its trailers. An unknown listener is the first one.
    fn answer(&self, listener: &str, request: Request<Body>) -> Response<Vec<u8>> {
        let named = self.routers.iter().find(|(name, _)| *name == listener);
        let (_, router) = named.unwrap_or(&self.routers[0]);
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(PATIENCE, router.clone().oneshot(request));
            let Ok(answer) = answered.await.expect("an answer in time");
            let (mut head, mut body) = answer.into_parts();
            let mut bytes = Vec::new();
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(GLANCE, body.frame()).await {
                match frame.into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(frame) => head
                        .headers
                        .extend(frame.into_trailers().unwrap_or_default()),
                }
            }
            Response::from_parts(head, bytes)
        })
    }
}

/// One thread, and time that passes at once when nobody has anything to do.
fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true);
    builder.build().expect("a runtime")
}

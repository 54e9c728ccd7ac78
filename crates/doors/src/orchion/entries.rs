//! The fleet's event log in Orchion's words, and its two ways out that stay open: the LogStreamer service and the
//! gateway's server-sent events.
//!
//! A reader begins with what happens next, as the contract has it. It pulls from the bounded log: one that is too slow
//! finds a gap and is told so, and holds nobody up. The streams end when the server does, and when who reads
//! them may not any more.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{self, Sse};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use hostler_control::Control;
use hostler_control::fleet::State;
use hostler_kit::Tasks;
use hostler_model::{Event, Level};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::log_streamer_server::LogStreamer;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Request, Response, Status};

use super::{Door, picture};
use crate::access::{Warrant, Who};

/// Entries that one look at the log takes.
const CHUNK: usize = 256;
/// Entries of the list.
const RECENT: usize = 100;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const OURS: &str = "orchestrator";

/// One entry, whichever way it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    at: u64,
    level: Level,
    source: String,
    message: String,
    fields: BTreeMap<String, String>,
}

/// An entry as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Written<'a> {
    id: String,
    timestamp: u64,
    level: &'static str,
    source: &'a str,
    message: &'a str,
    fields: &'a BTreeMap<String, String>,
}

/// A reader at the end of the log.
struct Tail {
    control: Control,
    newest: watch::Receiver<u64>,
    after: u64,
    ready: VecDeque<Entry>,
}

/// What an event stream says next.
struct Told {
    tail: Tail,
    beat: Interval,
    is_greeted: bool,
}

impl Entry {
    fn of(state: &State, event: &Event) -> Self {
        let node = event.subject.node.map(|node| picture::id(state, node));
        let source = match &node {
            Some(id) if event.actor.starts_with("node/") => format!("node-agent:{id}"),
            _ => OURS.to_owned(),
        };
        let workload = event.subject.workload.map(|id| id.to_string());
        let assignment = event.subject.assignment.map(|id| id.to_string());
        let fields = [
            ("kind", Some(event.kind.as_str().to_owned())),
            ("actor", Some(event.actor.clone())),
            ("node", node),
            ("workload", workload),
            ("assignment", assignment),
        ];
        let named = fields.into_iter();
        Self {
            at: event.at.as_millis(),
            level: event.level,
            source,
            message: event.message.clone(),
            fields: named
                .filter_map(|(key, value)| Some((key.to_owned(), value?)))
                .collect(),
        }
    }

    /// Events were forgotten before this reader came to them.
    fn gap(at: u64, missed: u64) -> Self {
        Self {
            at,
            level: Level::Warning,
            source: OURS.to_owned(),
            message: format!("{missed} entries are left out: this reader is too slow"),
            fields: BTreeMap::new(),
        }
    }

    fn id(&self) -> String {
        format!("{}-{}", self.at, self.source)
    }

    fn written(&self, warning: &'static str) -> Written<'_> {
        Written {
            id: self.id(),
            timestamp: self.at,
            level: match self.level {
                Level::Info => "info",
                Level::Warning => warning,
            },
            source: &self.source,
            message: &self.message,
            fields: &self.fields,
        }
    }

    fn into_wire(self) -> v1::LogEntry {
        let level = match self.level {
            Level::Info => v1::LogLevel::Info,
            Level::Warning => v1::LogLevel::Warn,
        };
        v1::LogEntry {
            id: self.id(),
            timestamp: i64::try_from(self.at).unwrap_or(i64::MAX),
            level: level.into(),
            source: self.source,
            message: self.message,
            fields: self.fields.into_iter().collect(),
        }
    }
}

impl Tail {
    fn start(control: &Control) -> Self {
        let mut newest = control.watch_events();
        let after = *newest.borrow_and_update();
        Self {
            control: control.clone(),
            newest,
            after,
            ready: VecDeque::new(),
        }
    }

    /// The next entry, once it is there. Cancel-safe: what was read is kept.
    async fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(entry);
            }
            self.newest.borrow_and_update();
            self.read();
            if self.ready.is_empty() && self.newest.changed().await.is_err() {
                return None;
            }
        }
    }

    fn read(&mut self) {
        let (events, _) = self.control.events(Some(self.after), CHUNK);
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let missed = first.sequence.saturating_sub(self.after + 1);
        if missed > 0 {
            self.ready
                .push_back(Entry::gap(first.at.as_millis(), missed));
        }
        self.after = last.sequence;
        let view = self.control.view();
        let entries = events.iter().map(|event| Entry::of(&view, event));
        self.ready.extend(entries);
    }
}

impl Told {
    /// What dashboards read: a greeting, each entry, and a sign of life now and then. Cancel-safe.
    async fn next(mut self) -> Option<(sse::Event, Self)> {
        if !self.is_greeted {
            self.is_greeted = true;
            return Some((sse::Event::default().data(r#"{"type": "connected"}"#), self));
        }
        let body = tokio::select! {
            biased;
            entry = self.tail.next() => json!({"type": "log", "entry": entry?.written("warning")}),
            _ = self.beat.tick() => {
                let now = self.tail.control.clock().wall_millis() / 1000;
                json!({"type": "keepalive", "timestamp": now})
            }
        };
        Some((sse::Event::default().data(body.to_string()), self))
    }
}

/// The newest entries, the oldest first, with the level words of the editor's extension.
pub(super) fn recent(control: &Control) -> String {
    let (events, _) = control.events(None, RECENT);
    let view = control.view();
    let entries: Vec<Entry> = events.iter().map(|event| Entry::of(&view, event)).collect();
    drop(view);
    let written: Vec<_> = entries.iter().map(|entry| entry.written("warn")).collect();
    serde_json::to_string(&written).unwrap_or_default()
}

/// The entries from now on, as server-sent events, for as long as they may be read.
pub(super) fn events(
    control: &Control,
    stay: Warrant,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>> + use<>> {
    let start = tokio::time::Instant::now() + KEEP_ALIVE;
    let mut beat = tokio::time::interval_at(start, KEEP_ALIVE);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let told = Told {
        tail: Tail::start(control),
        beat,
        is_greeted: false,
    };
    // The contract has no last word here.
    let events = stream::unfold(told, Told::next).take_until(Box::pin(stay.over()));
    Sse::new(until_the_end(events, control.tasks().clone()).map(Ok))
}

fn until_the_end<T>(events: impl Stream<Item = T>, tasks: Tasks) -> impl Stream<Item = T> {
    events.take_until(Box::pin(async move { tasks.stopping().await }))
}

#[tonic::async_trait]
impl LogStreamer for Door {
    type StreamLogsStream = BoxStream<'static, Result<v1::StreamLogsResponse, Status>>;

    async fn stream_logs(
        &self,
        request: Request<v1::StreamLogsRequest>,
    ) -> Result<Response<Self::StreamLogsStream>, Status> {
        let who = request.extensions().get().unwrap_or(&Who::Nobody);
        let stay = self.access.warrant(who);
        let entries = stream::unfold(Tail::start(&self.control), |mut tail| async {
            let entry = Some(tail.next().await?.into_wire());
            Some((Ok(v1::StreamLogsResponse { entry }), tail))
        });
        let entries = until_the_end(entries, self.control.tasks().clone());
        let entries = stay.limit(entries, |refusal| {
            Err(Status::unauthenticated(refusal.sentence))
        });
        Ok(Response::new(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_control::fake::{FakeMachine, FakeNode};
    use hostler_control::fleet::{Expect, Verb};
    use hostler_control::{ControlConfig, Parts};
    use hostler_kit::{SeededEntropy, SimulatedClock};
    use hostler_model::Actor;
    use hostler_store::MemoryStore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_too_slow_is_told_what_it_misses() {
        let clock = Arc::new(SimulatedClock::starting_at(1_700_000_000_000));
        let parts = Parts {
            store: Arc::new(MemoryStore::new(clock.clone())),
            clock,
            entropy: Arc::new(SeededEntropy::new(1)),
            tasks: Tasks::new(),
        };
        let config = ControlConfig {
            event_capacity: 4,
            ..ControlConfig::default()
        };
        let control = Control::start(config, parts).await.unwrap();
        let machine = FakeMachine::named("box");
        let node = FakeNode::join(&control, machine).await.unwrap().id();
        let mut tail = Tail::start(&control);
        for round in 0..10 {
            let expect = Expect::Any;
            let verb = match round % 2 {
                0 => Verb::Cordon { node, expect },
                _ => Verb::Uncordon { node, expect },
            };
            let actor = Actor::User("anna".to_owned());
            control.submit(actor, verb).await.unwrap();
        }
        let gap = tail.next().await.unwrap();
        assert_eq!((gap.level, gap.source.as_str()), (Level::Warning, OURS));
        let (newest, _) = control.events(None, 4);
        let first = newest[0].sequence;
        assert!(
            gap.message.contains("entries are left out"),
            "{}",
            gap.message
        );
        for event in &newest {
            assert_eq!(tail.next().await.unwrap().message, event.message);
        }
        assert_eq!(tail.after, first + 3, "nothing but the newest is held");
        control.tasks().shut_down(KEEP_ALIVE).await.unwrap();
    }
}

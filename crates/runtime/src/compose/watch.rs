//! How one learns that something happened to a project's container. A look at a container is kept until an event
//! tells of it; while the events do not come, nothing is kept.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use hostler_kit::{Backoff, SystemEntropy};
use tokio::sync::{Notify, watch};

use super::state::Piece;
use super::{Inner, LABEL_OWNER, lock};

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Wakes those who wait, and remembers what has not changed.
pub(super) struct Watch {
    wake: Notify,
    /// Goes up with every event, for those who follow logs.
    version: watch::Sender<u64>,
    is_watching: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Whether events come, so that what is kept can be believed.
    is_live: bool,
    /// By the engine's id.
    looks: HashMap<String, Look>,
}

#[derive(Default)]
struct Look {
    /// How many events came; a look that began before the last is not kept.
    events: u64,
    seen: Option<(String, Piece)>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            version: watch::Sender::new(0),
            is_watching: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }
}

impl Watch {
    pub(super) async fn wake(&self) {
        self.wake.notified().await;
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn touch(&self) {
        self.version.send_modify(|version| *version += 1);
        self.wake.notify_one();
    }

    /// What was seen when the engine's word for the container was the same, and the count of events.
    pub(super) fn recall(&self, container: &str, word: &str) -> (Option<Piece>, u64) {
        let mut kept = lock(&self.kept);
        let look = kept.looks.entry(container.to_owned()).or_default();
        let seen = look.seen.as_ref().filter(|(then, _)| then == word);
        (seen.map(|(_, piece)| piece.clone()), look.events)
    }

    pub(super) fn keep(&self, word: String, piece: &Piece, events: u64) {
        let mut kept = lock(&self.kept);
        let is_live = kept.is_live;
        let look = kept.looks.entry(piece.container.clone()).or_default();
        if is_live && look.events == events {
            look.seen = Some((word, piece.clone()));
        }
    }

    /// Forgets containers that are gone.
    pub(super) fn retain(&self, containers: &HashSet<String>) {
        lock(&self.kept)
            .looks
            .retain(|id, _| containers.contains(id));
    }

    fn forget(&self, container: &str) {
        let mut kept = lock(&self.kept);
        let look = kept.looks.entry(container.to_owned()).or_default();
        look.events += 1;
        look.seen = None;
    }

    fn set_live(&self, is_live: bool) {
        let mut kept = lock(&self.kept);
        kept.is_live = is_live;
        for look in kept.looks.values_mut() {
            look.events += 1;
            look.seen = None;
        }
    }
}

impl Inner {
    /// Begins to listen to the engine's events, once.
    pub(super) fn watch_events(self: &Arc<Self>) {
        if self.watch.is_watching.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks
            .spawn_until_stop("watch compose events", async move {
                let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
                loop {
                    if inner.listen().await {
                        backoff.reset();
                    }
                    inner.watch.set_live(false);
                    // Whoever waits should see for himself that the engine is down, or back.
                    inner.watch.touch();
                    tokio::time::sleep(backoff.next(&SystemEntropy)).await;
                }
            });
    }

    /// Listens until the connection ends. Answers whether it ever began.
    async fn listen(&self) -> bool {
        let Ok(docker) = self.engine.docker().await else {
            return false;
        };
        let label = format!("{LABEL_OWNER}={}", self.owner);
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![label]),
        ]);
        // From a second that is surely past on: what happens before the engine has the request is told too.
        let since = self.now().as_millis() / 1000;
        let options = EventsOptions {
            since: Some(since.to_string()),
            filters: Some(filters),
            ..EventsOptions::default()
        };
        // A stream of events is silent both when all is quiet and when nobody answers.
        if docker.version().await.is_err() {
            return false;
        }
        let mut events = docker.events(Some(options));
        self.watch.set_live(true);
        self.watch.touch();
        while let Some(Ok(event)) = events.next().await {
            if let Some(container) = event.actor.and_then(|actor| actor.id) {
                self.watch.forget(&container);
            }
            self.watch.touch();
        }
        true
    }
}

//! How one learns that something happened to a container of ours, for each driver over an engine.
//!
//! A look at a container is kept until an event says that something happened to it, so that a hundred
//! containers do not cost a hundred looks at each change. While the events do not come, nothing is kept.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use hostler_kit::{Backoff, SystemEntropy, Tasks};
use hostler_model::Timestamp;
use tokio::sync::{Notify, watch};

use super::engine::Engine;
use crate::turns::lock;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Wakes those who wait, and remembers what has not changed.
pub(crate) struct Watch<K, T> {
    wake: Notify,
    /// Goes up with every event, for those who follow logs.
    version: watch::Sender<u64>,
    is_watching: AtomicBool,
    kept: Mutex<Kept<K, T>>,
}

struct Kept<K, T> {
    /// Whether events come, so that what is kept can be believed.
    is_live: bool,
    looks: HashMap<K, Look<T>>,
}

struct Look<T> {
    /// How many events came; a look that began before the last is not kept.
    events: u64,
    seen: Option<(String, T)>,
}

impl<T> Default for Look<T> {
    fn default() -> Self {
        Self {
            events: 0,
            seen: None,
        }
    }
}

impl<T> Look<T> {
    fn forget(&mut self) {
        self.events += 1;
        self.seen = None;
    }
}

impl<K, T> Default for Watch<K, T> {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            version: watch::Sender::new(0),
            is_watching: AtomicBool::new(false),
            kept: Mutex::new(Kept {
                is_live: false,
                looks: HashMap::new(),
            }),
        }
    }
}

impl<K: Eq + Hash + Clone, T: Clone> Watch<K, T> {
    pub(crate) async fn wake(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn touch(&self) {
        self.version.send_modify(|version| *version += 1);
        self.wake.notify_one();
    }

    /// What was seen when the engine's word was the same, and the count of events.
    pub(crate) fn recall(&self, key: &K, word: &str) -> (Option<T>, u64) {
        let mut kept = lock(&self.kept);
        let look = kept.looks.entry(key.clone()).or_default();
        let seen = look.seen.as_ref().filter(|(then, _)| then == word);
        (seen.map(|(_, seen)| seen.clone()), look.events)
    }

    pub(crate) fn keep(&self, key: &K, (word, seen): (String, &T), events: u64) {
        let mut kept = lock(&self.kept);
        let is_live = kept.is_live;
        let look = kept.looks.entry(key.clone()).or_default();
        if is_live && look.events == events {
            look.seen = Some((word, seen.clone()));
        }
    }

    /// What is known of it may have changed.
    pub(crate) fn forget(&self, key: &K) {
        let mut kept = lock(&self.kept);
        kept.looks.entry(key.clone()).or_default().forget();
    }

    /// Forgets all but what is still there.
    pub(crate) fn retain(&self, is_there: impl Fn(&K) -> bool) {
        lock(&self.kept).looks.retain(|key, _| is_there(key));
    }

    fn set_live(&self, is_live: bool) {
        let mut kept = lock(&self.kept);
        kept.is_live = is_live;
        kept.looks.values_mut().for_each(Look::forget);
    }
}

/// Whoever listens to an engine.
#[async_trait]
pub(crate) trait Listener: Send + Sync + 'static {
    type Key: Eq + Hash + Clone + Send;
    type Seen: Clone + Send;

    fn watch(&self) -> &Watch<Self::Key, Self::Seen>;

    fn engine(&self) -> &Engine;

    fn wall(&self) -> Timestamp;

    /// The label that is asked for; none for the events of everybody's containers.
    fn label(&self) -> Option<String>;

    async fn hear(&self, event: EventMessage);
}

/// Begins to listen to the engine's events, once.
pub(crate) fn listen<L: Listener>(listener: &Arc<L>, tasks: &Tasks, name: &'static str) {
    if listener.watch().is_watching.swap(true, Ordering::Relaxed) {
        return;
    }
    let listener = Arc::clone(listener);
    tasks.spawn_until_stop(name, async move {
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        loop {
            if until_the_end(&*listener).await {
                backoff.reset();
            }
            listener.watch().set_live(false);
            // Whoever waits should see for himself that the engine is down, or back.
            listener.watch().touch();
            tokio::time::sleep(backoff.next(&SystemEntropy)).await;
        }
    });
}

/// Listens until the connection ends. Answers whether it ever began.
async fn until_the_end<L: Listener>(listener: &L) -> bool {
    let Ok(docker) = listener.engine().docker().await else {
        return false;
    };
    let mut filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
    if let Some(label) = listener.label() {
        filters.insert("label".to_owned(), vec![label]);
    }
    // From a second that is surely past on: what happens before the engine has the request is told too.
    let since = listener.wall().as_millis() / 1000;
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
    listener.watch().set_live(true);
    listener.watch().touch();
    while let Some(Ok(event)) = events.next().await {
        listener.hear(event).await;
    }
    true
}

//! What the owner task, the keepers and the sessions share: the view, the live table, the event ring, the
//! signals.
//!
//! Only the owner task calls the verbs that change the view. Nothing is awaited under a lock. The lock of
//! a node may be taken while the view is held, never the other way round; all other locks are leaves.
//! Nothing here can fail.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hostler_fleet::{Change, LeaseRules, State};
use hostler_model::{Event, Node, NodeId, Refusal, Timestamp};
use hostler_store::{Revision, StoreError};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::{Decided, Request};
use crate::black_box::BlackBox;
use crate::events::EventRing;
use crate::live::{LiveEntry, LiveTable};
use crate::load::Loaded;
use crate::metrics::Metrics;
use crate::syncs::Syncs;
use crate::{ControlConfig, Parts, refusals};

/// What the owner task, the keepers and the sessions share.
pub(crate) struct Shared {
    pub(crate) config: ControlConfig,
    pub(crate) parts: Parts,
    pub(crate) metrics: Metrics,
    pub(crate) live: LiveTable,
    pub(crate) syncs: Syncs,
    pub(crate) black_box: BlackBox,
    pub(crate) signals: Signals,
    view: RwLock<State>,
    pub(crate) events: EventRing,
    pub(crate) inbox: mpsc::Sender<Request>,
    pub(crate) leading: AtomicBool,
    pub(crate) store_ok: AtomicBool,
    /// The uptime in milliseconds at which the commit under way began; `u64::MAX` without one.
    pub(crate) commit_began: AtomicU64,
    pub(crate) revision: AtomicU64,
    pub(crate) newest_event: watch::Sender<u64>,
    pub(crate) changes: watch::Sender<u64>,
    /// Counts commits after which somebody may not be let in any more.
    pub(crate) departures: watch::Sender<u64>,
    pub(crate) ended: CancellationToken,
    /// Held for reading while a secret is sealed and recorded, for writing while a key goes.
    pub(crate) secrets: tokio::sync::RwLock<()>,
    /// Why the store failed the last commit; none once it takes one again.
    store_trouble: Mutex<Option<String>>,
    #[cfg(feature = "fake")]
    pub(crate) journal: std::sync::OnceLock<mpsc::UnboundedSender<crate::fake::Journaled>>,
}

/// What wakes the keepers; none carries data.
#[derive(Default)]
pub(crate) struct Signals {
    /// Any commit.
    pub(crate) placement: Notify,
    pub(crate) drain: Notify,
    /// A connection broke: these nodes are suspected at once.
    pub(crate) broken: Mutex<BTreeSet<NodeId>>,
    pub(crate) broke: Notify,
    /// Counts commits after which a copy might fit that did not fit before.
    pub(crate) room: AtomicU64,
}

impl Shared {
    pub(crate) fn new(config: ControlConfig, parts: Parts, inbox: mpsc::Sender<Request>) -> Self {
        Self {
            events: EventRing::new(config.event_capacity),
            config,
            parts,
            metrics: Metrics::default(),
            live: LiveTable::default(),
            syncs: Syncs::default(),
            black_box: BlackBox::default(),
            signals: Signals::default(),
            view: RwLock::default(),
            inbox,
            leading: AtomicBool::new(true),
            store_ok: AtomicBool::new(true),
            commit_began: AtomicU64::new(u64::MAX),
            revision: AtomicU64::new(0),
            newest_event: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            departures: watch::Sender::new(0),
            ended: CancellationToken::new(),
            secrets: tokio::sync::RwLock::default(),
            store_trouble: Mutex::default(),
            #[cfg(feature = "fake")]
            journal: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn view(&self) -> impl Deref<Target = State> + '_ {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task that ends at its next await when this server decides no longer.
    pub(crate) fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ended = self.ended.clone();
        self.parts.tasks.spawn(name, async move {
            ended.run_until_cancelled_owned(task).await;
        });
    }

    pub(crate) fn set_store_ok(&self, is_ok: bool) {
        self.store_ok.store(is_ok, Ordering::Release);
    }

    pub(crate) fn begin_commit(&self) {
        let began = millis(self.parts.clock.uptime());
        self.commit_began.store(began, Ordering::Release);
    }

    pub(crate) fn end_commit(&self) {
        self.commit_began.store(u64::MAX, Ordering::Release);
    }

    /// Whether the store has answered lately, and is not about to leave a commit unanswered.
    pub(crate) fn is_store_ok(&self) -> bool {
        let began = self.commit_began.load(Ordering::Acquire);
        let waits = millis(self.parts.clock.uptime()).saturating_sub(began);
        self.store_ok.load(Ordering::Acquire) && waits < millis(self.config.leader_ttl / 2)
    }

    /// Nothing is decided from here on.
    pub(crate) fn over(&self) {
        self.leading.store(false, Ordering::Release);
    }

    pub(crate) fn note_store(&self, trouble: Option<&StoreError>) {
        *self.lock_trouble() = trouble.map(ToString::to_string);
    }

    /// The refusal of whoever was not answered in time: it says why, if that is known.
    pub(crate) fn unanswered(&self) -> Refusal {
        match &*self.lock_trouble() {
            Some(trouble) => refusals::store_fails(trouble),
            None => refusals::outcome_unknown(),
        }
    }

    fn lock_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.store_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the keepers and whatever else was started here.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// The records were read anew.
    pub(crate) fn replace(&self, loaded: Loaded) {
        self.events.fill(loaded.events);
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        *view = loaded.state;
        self.revision.store(loaded.revision, Ordering::Release);
        drop(view);
        self.newest_event.send_replace(self.events.newest());
        self.tell_change();
        self.tell_departure();
        let connected = self.live.all().into_iter().map(|entry| entry.node);
        self.wake_links(&connected.collect());
    }

    /// A batch is durable: it goes into the view, and whoever it concerns is woken.
    pub(crate) fn publish(&self, changes: &[Change], revision: Revision) {
        let concerned = self.apply(changes, revision);
        let fresh: Vec<Arc<Event>> = changes.iter().filter_map(event_of).collect();
        if !fresh.is_empty() {
            self.events.append(fresh);
            self.newest_event.send_replace(self.events.newest());
        }
        if changes.iter().any(may_make_room) {
            self.signals.room.fetch_add(1, Ordering::AcqRel);
            self.signals.drain.notify_one();
        }
        self.tell_change();
        if changes.iter().any(is_departure) {
            self.tell_departure();
        }
        self.signals.placement.notify_one();
        self.wake_links(&concerned);
        self.forget_gone(changes);
    }

    /// The caller hears what was decided.
    pub(crate) fn tell(&self, decided: Decided) {
        #[cfg(feature = "fake")]
        if let Some(journal) = self.journal.get() {
            // Nobody reads it any more.
            let _ = journal.send(crate::fake::Journaled::of(&decided));
        }
        decided.request.tell(decided.result);
    }

    pub(crate) fn tell_change(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn tell_departure(&self) {
        self.departures
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The nodes whose intent or commands the changes touch.
    fn apply(&self, changes: &[Change], revision: Revision) -> BTreeSet<NodeId> {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut concerned = Vec::new();
        for change in changes {
            match change {
                Change::PutAssignment(assignment) => concerned.push(assignment.node),
                Change::PutCommand(command) => concerned.push(command.node),
                Change::RemoveAssignment(id) => {
                    concerned.extend(view.assignment(*id).map(|assignment| assignment.node));
                }
                // Who has a copy that names it gets the new value.
                Change::PutSecret(secret) => {
                    let users = view.users_of_secret(&secret.name);
                    let copies = users.flat_map(|workload| view.assignments_of(workload.id));
                    concerned.extend(copies.map(|copy| copy.node));
                }
                _ => {}
            }
            view.apply(change);
        }
        // Before anybody sees the changes: whoever has read the view finds a revision at least as new.
        self.revision.store(revision, Ordering::Release);
        drop(view);
        concerned.into_iter().collect()
    }

    fn wake_links(&self, nodes: &BTreeSet<NodeId>) {
        for node in nodes {
            let entry = self.live.get(*node);
            let link = entry.and_then(|entry| entry.lock().session().map(|s| Arc::clone(&s.link)));
            if let Some(link) = link {
                link.wake();
            }
        }
    }

    /// A node that was removed has no session and no lease any more.
    fn forget_gone(&self, changes: &[Change]) {
        for change in changes {
            let gone = match change {
                Change::PutNode(node) if node.is_gone() => node.id,
                Change::RemoveNode(id) => *id,
                _ => continue,
            };
            if let Some(entry) = self.live.get(gone) {
                if let Some(session) = entry.lock().session() {
                    session.closed.cancel();
                }
                self.live.forget(gone);
            }
        }
    }

    pub(crate) fn not_deciding(&self) -> Refusal {
        if self.parts.tasks.is_stopping() {
            refusals::stopping()
        } else {
            refusals::not_leader()
        }
    }

    /// The node's lease. One that this server has not heard of yet begins full, with time to come back.
    pub(crate) fn awaited(&self, node: &Node, now: Duration) -> Arc<LiveEntry> {
        let rules = self.config.lease_of(node.contract);
        // A new lease begins with twice its window.
        let window = rules.window.max(self.config.reconnect / 2);
        let patient = LeaseRules {
            window,
            most: rules.most.max(window * 2),
            ..rules
        };
        self.live.entry(node.id, patient, now)
    }

    pub(crate) fn now(&self) -> (Duration, Timestamp) {
        let clock = &self.parts.clock;
        (clock.uptime(), Timestamp::from_millis(clock.wall_millis()))
    }
}

fn event_of(change: &Change) -> Option<Arc<Event>> {
    match change {
        Change::Append(event) => Some(Arc::clone(event)),
        _ => None,
    }
}

/// Whether it takes away what somebody was let in by.
fn is_departure(change: &Change) -> bool {
    match change {
        Change::PutToken(_) | Change::RemoveToken(_) | Change::RemoveNode(_) => true,
        Change::PutNode(node) => node.is_gone(),
        _ => false,
    }
}

fn may_make_room(change: &Change) -> bool {
    match change {
        Change::PutNode(_) | Change::RemoveNode(_) | Change::RemoveAssignment(_) => true,
        Change::PutAssignment(assignment) => assignment.outcome.is_some() || assignment.fenced,
        _ => false,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

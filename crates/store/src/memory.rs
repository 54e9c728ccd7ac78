//! The store in memory: for tests and simulations.
//!
//! It keeps state and can be told to fail (see [`Fault`] and [`Gate`]). Deterministic: no threads, no real
//! time, no order that is not the caller's. The state belongs to the store and is gone with it; clones of
//! its `Arc` are how a test lets a control plane crash and come back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hostler_kit::Clock;

use crate::admission;
use crate::faults::{AskedFor, Fault, Faults, Gate};
use crate::history::{self, Change, HistoryBound, Journal, Record};
use crate::leases::Leases;
use crate::{
    CommitError, Entry, Guard, Key, LeaseError, LeaseToken, Limits, Listing, Page, Revision, Store,
    StoreError, Watch, Write,
};

/// An ordered map with the whole contract of [`Store`], but for durability.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    limits: Limits,
    state: Mutex<State>,
    journal: Arc<Journal>,
    faults: Faults,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, (Bytes, Revision)>,
    revision: Revision,
    leases: Leases,
}

impl MemoryStore {
    /// An empty store with the limits and the history of the engine on disk.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_limits(clock, Limits::default())
    }

    /// An empty store that takes commits up to `limits`.
    #[must_use]
    pub fn with_limits(clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self::with_history(clock, limits, HistoryBound::default())
    }

    /// An empty store that forgets as early as `bound` says.
    #[must_use]
    pub fn with_history(clock: Arc<dyn Clock>, limits: Limits, bound: HistoryBound) -> Self {
        Self {
            clock,
            limits,
            state: Mutex::default(),
            journal: Arc::new(Journal::starting_at(0, bound)),
            faults: Faults::none(),
        }
    }

    /// Lets the fault strike the next commit; several strike one commit each, in order.
    pub fn fail_next(&self, fault: Fault) {
        self.faults.ask(fault);
    }

    /// Makes commits wait, or lets them go on.
    pub fn set_gate(&self, gate: Gate) {
        self.faults.set_gate(gate);
    }

    /// How many commits wait at the gate.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.faults.waiting()
    }

    /// Takes every lease from its holder, as the death of a whole process does.
    pub fn revoke_leases(&self) {
        self.lock().leases.revoke_all();
    }

    fn apply(&self, writes: Vec<Write>, guards: &[Guard]) -> Result<Revision, CommitError> {
        admission::check_writes(self.limits, &writes)?;
        let mut state = self.lock();
        state.check(guards, self.clock.uptime())?;
        if writes.is_empty() {
            return Ok(state.revision);
        }
        state.revision += 1;
        let revision = state.revision;
        let changes = writes
            .into_iter()
            .map(|write| state.write(write, revision))
            .collect();
        self.journal.prepare(Record { revision, changes });
        self.journal.publish();
        Ok(revision)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, guards: &[Guard], now: Duration) -> Result<(), CommitError> {
        let written_at = |key: &str| Ok(self.entries.get(key).map(|(_, revision)| *revision));
        let checked: Result<_, StoreError> =
            admission::check_guards(guards, &self.leases, now, written_at);
        checked?
    }

    fn write(&mut self, write: Write, revision: Revision) -> Change {
        match write {
            Write::Put { key, value } => {
                let before = self.entries.insert(key.clone(), (value.clone(), revision));
                Change {
                    key,
                    before,
                    after: Some(value),
                }
            }
            Write::Delete { key } => {
                let before = self.entries.remove(&key);
                Change {
                    key,
                    before,
                    after: None,
                }
            }
        }
    }

    fn entries_under(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = Result<Entry, StoreError>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| Ok(to_entry(key, entry)))
    }
}

fn to_entry(key: &str, (value, revision): &(Bytes, Revision)) -> Entry {
    Entry {
        key: key.to_owned(),
        value: value.clone(),
        revision: *revision,
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self
            .lock()
            .entries
            .get(key)
            .map(|entry| to_entry(key, entry)))
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let state = self.lock();
        let revision = page.at.unwrap_or(state.revision);
        let after = page.after.as_deref();
        let overlay = self
            .journal
            .undo((revision, state.revision), prefix, after)?;
        let present = state.entries_under(prefix, after);
        let (entries, more) = history::first_page(present, overlay, history::page_limit(&page))?;
        Ok(Listing {
            entries,
            revision,
            more,
        })
    }

    async fn commit(
        &self,
        writes: Vec<Write>,
        guards: Vec<Guard>,
    ) -> Result<Revision, CommitError> {
        self.faults.pass(Gate::BeforeCommit).await;
        let fault = self.faults.strike();
        match fault {
            Some(Fault::CommitFails) => return Err(asked_for().into()),
            Some(Fault::LeaderLost) => self.revoke_leases(),
            Some(Fault::CommitUnknown) | None => {}
        }
        let outcome = self.apply(writes, &guards);
        self.faults.pass(Gate::AfterCommit).await;
        if fault == Some(Fault::CommitUnknown) {
            Err(asked_for().into())
        } else {
            outcome
        }
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.journal.watch(prefix, from)
    }

    async fn lease(
        &self,
        name: &str,
        ttl: Duration,
        token: Option<&LeaseToken>,
    ) -> Result<LeaseToken, LeaseError> {
        let now = self.clock.uptime();
        self.lock()
            .leases
            .take(name, (now, ttl), token)
            .ok_or(LeaseError::Held)
    }

    async fn release(&self, token: &LeaseToken) -> Result<(), StoreError> {
        self.lock().leases.release(token);
        Ok(())
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

fn asked_for() -> StoreError {
    StoreError::Unavailable(Box::new(AskedFor))
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.journal.close();
    }
}

//! What the tasks of this uplink share: the workloads, the history, whether the node drains.
//!
//! The records on disk are written before the workloads in memory change, by whoever holds the turn of that workload;
//! each lock here is held for a moment only and never across a wait.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_model::spec::{Kind, WorkloadSpec};
use hostler_model::{AssignmentId, Intent, IntentItem, StopCause, Timestamp, UnitId};
use hostler_runtime::Guest;
use hostler_wire::persys::agent;
use hostler_wire::persys::agent::ActualState;
use prost::Message as _;
use tokio::sync::{Notify, oneshot, watch};

use super::actions::Actions;
use super::figures::Counts;
use super::follow::Trouble;
use super::host::Looks;
use super::records::{Desired, Record, Records};
use super::states::{self, Shown};
use super::{Persys, spec};
use crate::config::{AgentConfig, LedgerIo, Parts};
use crate::reconcile::{Handle, Input, Wanted};
use crate::show::Picture;

/// Workloads whose changes may be under way at once.
const TURNS: usize = 64;

/// A workload as the node knows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workload {
    pub(super) record: Record,
    pub(super) kind: Kind,
    pub(super) unit: UnitId,
    /// None if it can no longer be read.
    pub(super) spec: Option<Arc<WorkloadSpec>>,
}

/// Since when a workload is as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mark {
    pub(super) actual: ActualState,
    pub(super) since: Timestamp,
}

pub(super) struct Core {
    pub(super) config: AgentConfig,
    pub(super) persys: Persys,
    pub(super) parts: Parts,
    pub(super) handle: Handle,
    records: Records,
    workloads: Mutex<BTreeMap<String, Workload>>,
    turns: Vec<tokio::sync::Mutex<()>>,
    pub(super) actions: Mutex<Actions>,
    pub(super) marks: Mutex<BTreeMap<String, Mark>>,
    pub(super) troubles: Mutex<BTreeMap<String, Trouble>>,
    pub(super) guests: Mutex<BTreeMap<String, Guest>>,
    pub(super) counts: Mutex<Counts>,
    pub(super) looks: Mutex<Looks>,
    is_draining: AtomicBool,
    /// A record changed, which the picture need not show.
    pub(super) nudge: Notify,
    /// Set once the reconciler was told what the records say.
    pub(super) has_begun: watch::Sender<bool>,
    /// Held by whoever may still write a record; let go of when the agent stops.
    alive: Mutex<Option<Arc<watch::Sender<()>>>>,
}

impl Workload {
    /// A record whose request, or what it asks for, cannot be read any more has no spec.
    pub(super) fn of(record: Record) -> Self {
        let request = STANDARD
            .decode(&record.request)
            .ok()
            .and_then(|bytes| agent::ApplyWorkloadRequest::decode(&bytes[..]).ok());
        let read = request.as_ref().map(spec::read).and_then(Result::ok);
        let (kind, spec) = match read {
            Some((kind, spec)) => (kind, Some(Arc::new(spec))),
            None => (Kind::Container, None),
        };
        let unit = UnitId {
            assignment: spec::assignment_of(&record.id),
            generation: record.generation,
        };
        Self {
            record,
            kind,
            unit,
            spec,
        }
    }

    /// Whether it is to run, and the node lets it.
    pub(super) fn is_wanted(&self) -> bool {
        self.record.desired == Desired::Running && self.record.given_up.is_none()
    }

    /// What the reconciler is told of it.
    pub(super) fn wanted(&self) -> Wanted {
        let cause = match self.record.desired {
            Desired::Deleted => StopCause::Deleted,
            Desired::Running | Desired::Stopped => StopCause::Stopped,
        };
        let intent = if self.is_wanted() {
            Intent::Run
        } else {
            Intent::Stop { cause }
        };
        let unit = self.unit;
        let Some(spec) = &self.spec else {
            return Wanted::Unreadable { unit, intent };
        };
        Wanted::Item(Box::new(IntentItem {
            unit,
            workload: spec::workload_of(&self.record.id),
            workload_name: spec.name.clone(),
            slot: 0,
            intent,
            revision: self.record.generation,
            spec: Arc::clone(spec),
            is_finished: false,
        }))
    }
}

impl Core {
    /// The storage drivers that work here.
    pub(super) fn storage(&self) -> Vec<String> {
        let facts = self.handle.storage().into_iter();
        let working = facts.filter(|fact| fact.available);
        working.map(|fact| fact.driver).collect()
    }

    pub(super) fn new(
        config: AgentConfig,
        persys: Persys,
        parts: Parts,
        handle: Handle,
        alive: Arc<watch::Sender<()>>,
    ) -> Self {
        let records = Records::of(&config.data_dir);
        let loaded = records.load().into_iter().map(Workload::of);
        let workloads = loaded.map(|it| (it.record.id.clone(), it)).collect();
        Self {
            config,
            persys,
            parts,
            handle,
            records,
            workloads: Mutex::new(workloads),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            actions: Mutex::default(),
            marks: Mutex::default(),
            troubles: Mutex::default(),
            guests: Mutex::default(),
            counts: Mutex::default(),
            looks: Mutex::default(),
            is_draining: AtomicBool::new(false),
            nudge: Notify::new(),
            has_begun: watch::Sender::new(false),
            alive: Mutex::new(Some(alive)),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.parts.clock.wall_millis())
    }

    pub(super) fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.handle.picture.borrow())
    }

    /// Whether the scheduler asked the node to take nothing new.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Takes the scheduler's word; answers whether it is news.
    pub(super) fn set_draining(&self, is_draining: bool) -> bool {
        self.is_draining.swap(is_draining, Ordering::Relaxed) != is_draining
    }

    pub(super) fn workload(&self, id: &str) -> Option<Workload> {
        lock(&self.workloads).get(id).cloned()
    }

    pub(super) fn workloads(&self) -> Vec<Workload> {
        lock(&self.workloads).values().cloned().collect()
    }

    /// The workload that has this assignment under another id, if there is one.
    pub(super) fn namesake(&self, id: &str) -> Option<String> {
        let unit = spec::assignment_of(id);
        let workloads = lock(&self.workloads);
        let other = workloads
            .values()
            .find(|it| it.unit.assignment == unit && it.record.id != id);
        other.map(|it| it.record.id.clone())
    }

    pub(super) fn show(&self, workload: &Workload, picture: &Picture) -> (Shown, Timestamp) {
        let shown = states::show(workload, picture);
        let mark = lock(&self.marks).get(&workload.record.id).copied();
        let since = mark.filter(|mark| mark.actual == shown.actual);
        let since = since.map_or(workload.record.changed_at, |mark| mark.since);
        (shown, since)
    }

    /// The turn to change a workload; a request and what follows from an older one never cross.
    pub(super) async fn turn(&self, id: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let bytes = *spec::assignment_of(id).as_bytes();
        self.turns[usize::from(bytes[15]) % TURNS].lock().await
    }

    /// Puts a record on the disk and tells the reconciler. The caller holds its turn.
    pub(super) async fn keep(&self, record: Record) -> io::Result<Workload> {
        let (records, kept) = (self.records.clone(), record.clone());
        self.at_disk(move || records.keep(&kept)).await?;
        let workload = Workload::of(record);
        let wanted = vec![workload.wanted()];
        lock(&self.workloads).insert(workload.record.id.clone(), workload.clone());
        self.tell(wanted, Vec::new()).await;
        self.nudge.notify_one();
        Ok(workload)
    }

    /// Forgets a workload of which nothing is left. The caller holds its turn.
    pub(super) async fn forget(&self, workload: &Workload) -> io::Result<()> {
        let (records, id) = (self.records.clone(), workload.record.id.clone());
        self.at_disk(move || records.forget(&id)).await?;
        let id = &workload.record.id;
        lock(&self.workloads).remove(id);
        lock(&self.marks).remove(id);
        lock(&self.guests).remove(id);
        lock(&self.troubles).remove(id);
        self.tell(Vec::new(), vec![workload.unit.assignment]).await;
        Ok(())
    }

    /// The record is what counts, so nobody waits for the reconciler's own ledger.
    async fn tell(&self, items: Vec<Wanted>, removed: Vec<AssignmentId>) {
        let (done, _) = oneshot::channel();
        let input = Input::Increment {
            revision: 0,
            items,
            removed,
            done,
        };
        // The reconciler ends only when everything does.
        let _ = self.handle.inputs.send(input).await;
    }

    /// The agent stops: no record is written from now on.
    pub(super) fn let_go(&self) {
        lock(&self.alive).take();
    }

    async fn at_disk(
        &self,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let alive = lock(&self.alive).clone();
        let Some(alive) = alive else {
            return Err(io::Error::other("the agent is stopping"));
        };
        let done = match self.config.ledger_io {
            LedgerIo::Inline => work(),
            LedgerIo::Threads => tokio::task::spawn_blocking(work)
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error))),
        };
        drop(alive);
        done
    }
}

/// A panic while it was held leaves nothing half done: each change is one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(request: String) -> Record {
        Record {
            id: "web".to_owned(),
            revision: "r1".to_owned(),
            desired: Desired::Running,
            generation: 3,
            created_at: Timestamp::default(),
            changed_at: Timestamp::default(),
            request,
            given_up: None,
            last_error: None,
        }
    }

    #[test]
    fn a_record_whose_request_cannot_be_read_keeps_what_runs() {
        let workload = Workload::of(record("%".to_owned()));
        assert_eq!(workload.spec, None);
        let intent = Intent::Run;
        let unit = workload.unit;
        assert_eq!(unit.generation, 3);
        assert_eq!(workload.wanted(), Wanted::Unreadable { unit, intent });
    }

    proptest! {
        #[test]
        fn no_record_makes_the_reading_fail_badly(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = Workload::of(record(STANDARD.encode(&bytes)));
            let _ = Workload::of(record(String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

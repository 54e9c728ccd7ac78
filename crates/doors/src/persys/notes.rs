//! What is told of workloads and shown under this contract alone: usage, addresses, and how often they were tried.
//! In memory only; a note of a workload that is gone goes with the next heartbeat.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hostler_control::fleet::State;
use hostler_model::{NodeId, Timestamp, WorkloadId};
use hostler_wire::persys::control;

/// What is noted of one workload.
#[derive(Debug, Clone, Default)]
pub(super) struct Note {
    pub usage: Option<control::WorkloadUsageSnapshot>,
    /// Of a virtual machine.
    pub address: String,
    /// How often it was applied since it last ran.
    pub attempts: u32,
    /// When it is tried again; nothing if it is not.
    pub next_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    by_workload: Mutex<BTreeMap<WorkloadId, Note>>,
}

impl Notes {
    pub(super) fn of(&self, workload: WorkloadId) -> Note {
        self.lock().get(&workload).cloned().unwrap_or_default()
    }

    pub(super) fn write(&self, workload: WorkloadId, write: impl FnOnce(&mut Note)) {
        write(self.lock().entry(workload).or_default());
    }

    /// The samples of a heartbeat, of workloads that the node owns.
    pub(super) fn take_usage(&self, view: &State, node: NodeId, told: &control::HeartbeatRequest) {
        let embedded = told.workload_statuses.iter().filter_map(|status| {
            let usage = status.usage.as_ref()?;
            Some((status.workload_id.as_str(), usage))
        });
        let listed = told
            .workload_usage
            .iter()
            .map(|usage| (usage.workload_id.as_str(), usage));
        let mut notes = self.lock();
        for (id, usage) in embedded.chain(listed) {
            if let Some(workload) = super::want::owned(view, node, id) {
                notes.entry(workload).or_default().usage = Some(usage.clone());
            }
        }
        notes.retain(|workload, _| view.workload(*workload).is_some());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WorkloadId, Note>> {
        self.by_workload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

//! How far the data of each replica has come, as it tells every second. In memory only: a new server hears it
//! again within a second. Bounded by the replicas that stand by.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hostler_fleet::State;
use hostler_model::{NodeId, Refusal, ReplicaId, Timestamp};

use crate::refusals;

/// Beyond so many entries those of replicas that have ended are dropped.
const SWEEP_AT: usize = 256;

/// What a replica told of its data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SyncBeat {
    pub at: Timestamp,
    pub latency_ms: f64,
    /// Percent.
    pub progress: f64,
}

/// The last word of each replica.
#[derive(Default)]
pub(crate) struct Syncs(Mutex<BTreeMap<ReplicaId, SyncBeat>>);

impl Syncs {
    pub(crate) fn beat(
        &self,
        view: &State,
        node: NodeId,
        replica: ReplicaId,
        beat: SyncBeat,
    ) -> Result<(), Refusal> {
        let record = view.node(node).filter(|node| !node.is_gone());
        record.ok_or_else(|| refusals::node_not_found(node))?;
        if !stands_by(view, node, replica) {
            return Err(refusals::no_such_replica(node));
        }
        let mut syncs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if syncs.len() >= SWEEP_AT {
            let standing: Vec<ReplicaId> = view
                .rentals()
                .flat_map(|rental| rental.standing_by().map(|replica| replica.id))
                .collect();
            syncs.retain(|replica, _| standing.contains(replica));
        }
        syncs.insert(replica, beat);
        Ok(())
    }

    pub(crate) fn get(&self, replica: ReplicaId) -> Option<SyncBeat> {
        let syncs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.get(&replica).copied()
    }
}

fn stands_by(view: &State, node: NodeId, replica: ReplicaId) -> bool {
    view.rental(node)
        .and_then(|rental| rental.replica(replica))
        .is_some_and(|replica| replica.status.is_open())
}

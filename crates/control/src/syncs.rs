//! How far the data of each replica has come, as it tells every second. In memory only: a new server hears it
//! again within a second. Bounded by the replicas that stand by.

use std::collections::{BTreeMap, BTreeSet};
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
pub(crate) struct Syncs(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    beats: BTreeMap<ReplicaId, SyncBeat>,
    /// How many entries the last sweep allows before the next.
    most: usize,
}

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
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.hear((replica, beat), || {
            view.rentals()
                .flat_map(|rental| rental.standing_by().map(|replica| replica.id))
                .collect()
        });
        Ok(())
    }

    pub(crate) fn get(&self, replica: ReplicaId) -> Option<SyncBeat> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.beats.get(&replica).copied()
    }
}

impl Heard {
    /// A sweep leaves room for as many beats as it looked at, so that a beat costs little however many stand by.
    fn hear(
        &mut self,
        (replica, beat): (ReplicaId, SyncBeat),
        standing: impl FnOnce() -> BTreeSet<ReplicaId>,
    ) {
        self.beats.insert(replica, beat);
        if self.beats.len() > self.most.max(SWEEP_AT) {
            let standing = standing();
            self.beats.retain(|replica, _| standing.contains(replica));
            self.most = 2 * self.beats.len();
        }
    }
}

fn stands_by(view: &State, node: NodeId, replica: ReplicaId) -> bool {
    view.rental(node)
        .and_then(|rental| rental.replica(replica))
        .is_some_and(|replica| replica.status.is_open())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(number: u32) -> ReplicaId {
        ReplicaId::mint(Timestamp::from_millis(1_700_000_000_000), number.into())
    }

    #[test]
    fn those_that_have_ended_are_dropped_and_many_that_stand_by_are_seldom_looked_through() {
        let beat = SyncBeat {
            at: Timestamp::default(),
            latency_ms: 1.0,
            progress: 2.0,
        };
        let (mut heard, mut sweeps) = (Heard::default(), 0);
        let all: BTreeSet<ReplicaId> = (0..1_000).map(replica).collect();
        for _ in 0..10 {
            for id in &all {
                heard.hear((*id, beat), || {
                    sweeps += 1;
                    all.clone()
                });
            }
        }
        assert_eq!((heard.beats.len(), sweeps), (1_000, 2));
        let left: BTreeSet<ReplicaId> = (0..10).map(replica).collect();
        for number in 1_000..3_000 {
            heard.hear((replica(number), beat), || left.clone());
        }
        assert!(heard.beats.len() <= 1_100, "{}", heard.beats.len());
        assert_eq!(heard.beats.get(&replica(3)), Some(&beat));
    }
}

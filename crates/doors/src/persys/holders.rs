//! Who speaks to each node now: the task that dials it, or the stream that it holds. What is said to a node that
//! nobody holds is dropped: whoever comes next looks for itself, and has tried nothing yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_model::{NodeId, WorkloadId};
use hostler_wire::persys::control;
use tokio::sync::mpsc;

/// Words that wait for a holder; more are dropped, for they only hurry it.
const WAITING: usize = 16;

/// A word to whoever speaks to a node.
#[derive(Debug)]
pub(super) enum Say {
    /// Something may have changed: look at once.
    Look,
    /// The node's heartbeat told of these.
    Statuses(Vec<control::WorkloadStatus>),
}

#[derive(Debug, Default)]
pub(super) struct Holders {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    number: u64,
    by_node: BTreeMap<NodeId, Holder>,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    sender: mpsc::Sender<Say>,
    /// What is to be tried again at once, as if it had never failed: it was promised, so no full queue drops it.
    retries: BTreeSet<WorkloadId>,
}

/// The right to be spoken to; dropping it gives it up.
pub(super) struct Holding {
    all: Arc<Holders>,
    node: NodeId,
    number: u64,
}

impl Holders {
    /// The newest holder is the one that is spoken to.
    pub(super) fn hold(self: &Arc<Self>, node: NodeId) -> (Holding, mpsc::Receiver<Say>) {
        let (sender, says) = mpsc::channel(WAITING);
        let mut held = self.lock();
        held.number += 1;
        let number = held.number;
        let holder = Holder {
            number,
            sender,
            retries: BTreeSet::new(),
        };
        held.by_node.insert(node, holder);
        drop(held);
        let holding = Holding {
            all: Arc::clone(self),
            node,
            number,
        };
        (holding, says)
    }

    pub(super) fn is_held(&self, node: NodeId) -> bool {
        self.lock().by_node.contains_key(&node)
    }

    /// Whether somebody took the word.
    pub(super) fn tell(&self, node: NodeId, say: Say) -> bool {
        let held = self.lock();
        let holder = held.by_node.get(&node);
        holder.is_some_and(|holder| holder.sender.try_send(say).is_ok())
    }

    pub(super) fn retry(&self, node: NodeId, workload: WorkloadId) {
        if let Some(holder) = self.lock().by_node.get_mut(&node) {
            holder.retries.insert(workload);
        }
    }

    /// What was asked for since the last call.
    pub(super) fn take_retries(&self, node: NodeId) -> BTreeSet<WorkloadId> {
        let mut held = self.lock();
        let holder = held.by_node.get_mut(&node);
        holder.map_or_else(BTreeSet::new, |holder| std::mem::take(&mut holder.retries))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = self.all.lock();
        if held
            .by_node
            .get(&self.node)
            .is_some_and(|holder| holder.number == self.number)
        {
            held.by_node.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::Timestamp;

    use super::*;

    #[test]
    fn retries_outlast_a_full_queue_and_are_taken_once() {
        let at = Timestamp::from_millis(1);
        let node = NodeId::mint(at, 1);
        let holders = Arc::<Holders>::default();
        let (_holding, _says) = holders.hold(node);
        while holders.tell(node, Say::Look) {}
        let asked: BTreeSet<_> = (1..100).map(|n| WorkloadId::mint(at, n)).collect();
        for workload in &asked {
            holders.retry(node, *workload);
        }
        assert_eq!(holders.take_retries(node), asked);
        assert!(holders.take_retries(node).is_empty());
    }
}

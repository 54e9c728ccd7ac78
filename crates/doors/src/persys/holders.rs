//! Who speaks to each node now: the task that dials it, or the stream that it holds. What is said to a node that
//! nobody holds is dropped: whoever comes next looks for itself.

use std::collections::BTreeMap;
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
    /// Try the workload again at once, as if it had never failed.
    Retry(WorkloadId),
}

#[derive(Debug, Default)]
pub(super) struct Holders {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    number: u64,
    by_node: BTreeMap<NodeId, (u64, mpsc::Sender<Say>)>,
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
        held.by_node.insert(node, (number, sender));
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
        let sender = self.lock().by_node.get(&node).map(|(_, it)| it.clone());
        sender.is_some_and(|sender| sender.try_send(say).is_ok())
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
            .is_some_and(|(number, _)| *number == self.number)
        {
            held.by_node.remove(&self.node);
        }
    }
}

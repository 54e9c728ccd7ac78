//! Faults that [`MemoryStore`](crate::MemoryStore) can be told to have: the ways in which a real engine
//! fails its caller.
//!
//! Owned by the store they belong to; tests reach them through its methods. Faults strike commits one by
//! one, in the order in which they were asked for; a [`Gate`] stays until it is opened.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

/// What happens to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is changed, and `Unavailable` is answered.
    CommitFails,
    /// The commit happens, and `Unavailable` is answered.
    CommitUnknown,
    /// Just before the commit every lease is taken from its holder, so a leader guard fails.
    LeaderLost,
}

/// Where commits wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Nowhere.
    Open,
    /// Before they happen. A commit whose future is dropped here never happens.
    BeforeCommit,
    /// After they happened and before they are answered, as in a crash between the two.
    AfterCommit,
}

/// What was answered in place of the truth.
#[derive(Debug, thiserror::Error)]
#[error("a fault was asked for")]
pub(crate) struct AskedFor;

#[derive(Debug)]
pub(crate) struct Faults {
    next: Mutex<VecDeque<Fault>>,
    gate: watch::Sender<Gate>,
    waiting: AtomicUsize,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self {
            next: Mutex::default(),
            gate: watch::Sender::new(Gate::Open),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) fn ask(&self, fault: Fault) {
        self.next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(fault);
    }

    pub(crate) fn strike(&self) -> Option<Fault> {
        self.next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    pub(crate) fn set_gate(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Waits while the gate is closed here.
    pub(crate) async fn pass(&self, here: Gate) {
        if *self.gate.borrow() != here {
            return;
        }
        let _counted = Waiting::count(&self.waiting);
        let mut gate = self.gate.subscribe();
        // The sender lives in self, so the channel cannot close while this waits.
        let _ = gate.wait_for(|gate| *gate != here).await;
    }
}

/// Counts a waiting commit for as long as its future lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

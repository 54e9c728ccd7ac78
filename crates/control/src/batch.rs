//! What is decided and not yet durable: verbs with their callers, and the changes that they make together.
//!
//! Owned by the owner task. A batch never grows beyond what the store takes in one commit.

use std::sync::Arc;

use hostler_fleet::{Change, Moment, Reply, Verb};
use hostler_model::{Actor, Refusal};
use hostler_store::Limits;
use tokio::sync::oneshot;

use crate::records;

/// A verb and who waits for it.
pub(crate) struct Request {
    pub(crate) actor: Actor,
    pub(crate) verb: Verb,
    pub(crate) answer: oneshot::Sender<Result<Reply, Refusal>>,
}

/// A request with what was decided, to be told when everything before it is durable.
pub(crate) struct Decided {
    pub(crate) request: Request,
    /// What the decision saw beside the state, for the journal.
    #[cfg_attr(
        not(feature = "fake"),
        expect(dead_code, reason = "only the journal reads it")
    )]
    pub(crate) moment: Moment,
    pub(crate) result: Result<Reply, Refusal>,
}

/// The changes of one decision, weighed.
#[derive(Default)]
pub(crate) struct Load {
    changes: Vec<Change>,
    bytes: usize,
}

#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) decided: Vec<Decided>,
    /// Shared with the commit that is under way.
    pub(crate) changes: Arc<Vec<Change>>,
    bytes: usize,
}

impl Request {
    /// Nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// A caller that went away is not an error.
    pub(crate) fn tell(self, result: Result<Reply, Refusal>) {
        let _ = self.answer.send(result);
    }
}

impl Load {
    /// The changes of one decision; `None` if the store cannot take them at once.
    pub(crate) fn of(changes: Vec<Change>, limits: Limits) -> Option<Self> {
        let bytes = changes
            .iter()
            .map(records::weight)
            .fold(0, usize::saturating_add);
        let fits = changes.len() <= limits.writes && bytes <= limits.bytes;
        let fits = fits && changes.iter().all(records::is_key_short);
        fits.then_some(Self { changes, bytes })
    }

    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl Batch {
    /// Whether the load can join without the batch outgrowing one commit.
    pub(crate) fn takes(&self, load: &Load, limits: Limits) -> bool {
        self.changes.len() + load.changes.len() <= limits.writes
            && self.bytes + load.bytes <= limits.bytes
    }

    /// Adds what was decided. The batch must not be in flight.
    pub(crate) fn add(&mut self, decided: Decided, load: Load) {
        self.decided.push(decided);
        self.bytes += load.bytes;
        Arc::make_mut(&mut self.changes).extend(load.changes);
    }

    /// Tells every caller no.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for decided in self.decided {
            decided.request.tell(Err(refusal.clone()));
        }
    }
}

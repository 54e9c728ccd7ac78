//! What is decided and not yet durable: verbs with their callers, and the changes that they make together.
//!
//! Owned by the owner task. A batch never grows beyond what the store takes in one commit.

use std::sync::Arc;

use hostler_fleet::{Change, Reply, Verb};
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
    pub(crate) result: Result<Reply, Refusal>,
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

impl Batch {
    /// Whether the changes can join without the batch outgrowing one commit.
    pub(crate) fn takes(&self, changes: &[Change], limits: Limits) -> bool {
        self.changes.len() + changes.len() <= limits.writes
            && self.bytes.saturating_add(weight(changes)) <= limits.bytes
    }

    /// Adds what was decided. The batch must not be in flight.
    pub(crate) fn add(&mut self, decided: Decided, changes: Vec<Change>) {
        self.decided.push(decided);
        self.bytes = self.bytes.saturating_add(weight(&changes));
        Arc::make_mut(&mut self.changes).extend(changes);
    }

    /// Tells every caller what was decided.
    pub(crate) fn answer(self) {
        for decided in self.decided {
            decided.request.tell(decided.result);
        }
    }

    /// Tells every caller no.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for decided in self.decided {
            decided.request.tell(Err(refusal.clone()));
        }
    }
}

/// Whether the changes of one decision can be committed at all.
pub(crate) fn is_committable(changes: &[Change], limits: Limits) -> bool {
    changes.iter().all(records::is_key_short) && Batch::default().takes(changes, limits)
}

fn weight(changes: &[Change]) -> usize {
    changes
        .iter()
        .map(records::weight)
        .fold(0, usize::saturating_add)
}

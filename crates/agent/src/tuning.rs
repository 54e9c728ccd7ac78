//! What the node's owner may change while an agent runs. Plain data behind a watch: whoever uses it reads it anew each
//! time, and the session opens again when what it has told is not so any more.

use hostler_model::Resources;
use tokio::sync::watch;

use crate::care::Care;

/// What an agent can be told anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Kept for the machine itself.
    pub reserved: Resources,
    /// When the node counts as short of something, and when things are deleted.
    pub care: Care,
}

/// The latest of it, for one of the agent's tasks.
#[derive(Debug, Clone)]
pub(crate) struct Tuned(watch::Receiver<Tuning>);

impl Tuned {
    /// The sender's end is what an [`Agent`](crate::Agent) tunes by.
    pub(crate) fn new(tuning: Tuning) -> (watch::Sender<Tuning>, Self) {
        let (sender, receiver) = watch::channel(tuning);
        (sender, Self(receiver))
    }

    pub(crate) fn now(&self) -> Tuning {
        *self.0.borrow()
    }

    /// Completes when something has changed since this or [`Self::reserves_other_than`] completed last; never when nobody
    /// can change anything any more. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Completes when something else is reserved than that. Cancel-safe.
    pub(crate) async fn reserves_other_than(&mut self, reserved: Resources) {
        if self
            .0
            .wait_for(|now| now.reserved != reserved)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
impl Tuned {
    /// Of an agent that nobody tunes.
    pub(crate) fn untouched() -> Self {
        Self::new(Tuning::default()).1
    }
}

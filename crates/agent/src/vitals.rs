//! What an agent tells about itself to whoever asks on its own machine. Read-only, and always the latest.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::show::Picture;
use crate::status::AgentStatus;

/// A look at a running agent. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vitals {
    pub(crate) status: watch::Receiver<AgentStatus>,
    pub(crate) picture: watch::Receiver<Arc<Picture>>,
    /// Closes when the last task has ended.
    pub(crate) ended: watch::Receiver<()>,
}

impl Vitals {
    /// Whether the agent still works.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.ended.has_changed().is_ok()
    }

    /// How it stands with the control plane.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.status.borrow().clone()
    }

    /// How many units are in each state, by the state's word.
    #[must_use]
    pub fn units(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for unit in self.picture.borrow().units.values() {
            *counts.entry(unit.state.as_str()).or_default() += 1;
        }
        counts
    }

    /// The kinds of workloads whose engine does not answer.
    #[must_use]
    pub fn down(&self) -> Vec<&'static str> {
        let picture = self.picture.borrow();
        picture.down.iter().map(|kind| kind.as_str()).collect()
    }
}

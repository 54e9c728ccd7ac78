//! How an agent stands with its control plane, in a form for people and for waiting on.

use std::fmt;

use hostler_model::NodeId;
use tokio::sync::watch;

/// How an agent stands with its control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentStatus {
    /// No session; trying to open one. What runs goes on running.
    Connecting {
        /// Why the last try failed; none before the first has.
        problem: Option<String>,
    },
    /// A member of the fleet, following its intent.
    Joined { node_id: NodeId },
    /// A member of the fleet of a foreign control plane, under the id that it goes by there.
    Registered { id: String },
    /// The control plane said no. What runs goes on running, and the agent asks again.
    Refused {
        code: String,
        sentence: String,
        advice: String,
    },
    /// A member of the fleet whose mass-stop guard holds the intent back until an operator accepts it.
    Held {
        node_id: NodeId,
        reason: String,
        would_stop: u32,
    },
}

impl AgentStatus {
    /// Wakes those who wait if it is news.
    pub(crate) fn show(self, to: &watch::Sender<Self>) {
        to.send_if_modified(|status| {
            let is_new = *status != self;
            *status = self;
            is_new
        });
    }
}

impl fmt::Display for AgentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { problem: None } => f.write_str("connecting"),
            Self::Connecting {
                problem: Some(problem),
            } => write!(f, "connecting: {problem}"),
            Self::Joined { node_id } => write!(f, "joined as {node_id}"),
            Self::Registered { id } => write!(f, "registered as {id}"),
            Self::Refused { code, sentence, .. } => write!(f, "refused: {sentence} ({code})"),
            Self::Held { reason, .. } => write!(f, "joined, intent held back: {reason}"),
        }
    }
}

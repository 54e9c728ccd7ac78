//! What the agent of the spot contract is told when it starts. Plain data.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::prices::Prices;
use super::replica::Replica;

/// What the spot contract's own files say.
#[derive(Clone)]
pub struct Spot {
    pub client_token: String,
    pub logical_agent_id: String,
    pub instance: Instance,
    pub agent_version: String,
    /// Holds `agent_id.txt` and `data/agent_state.json`.
    pub root: PathBuf,
    pub timers: Timers,
    /// Where prices come from; none are reported without.
    pub prices: Option<Arc<dyn Prices>>,
    /// Set on a manual replica.
    pub replica: Option<Replica>,
}

/// The cloud machine, as the file describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Instance {
    pub id: String,
    pub kind: String,
    pub region: String,
    pub az: String,
    pub ami_id: String,
    /// `spot`, `ondemand` or `unknown`.
    pub mode: String,
    /// What the machine itself says, if left out.
    pub hostname: Option<String>,
    pub private_ip: Option<String>,
    pub public_ip: Option<String>,
}

/// How often each thing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat: Duration,
    pub commands: Duration,
    pub config: Duration,
    pub pricing: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            commands: Duration::from_secs(15),
            config: Duration::from_secs(60),
            pricing: Duration::from_secs(300),
        }
    }
}

impl fmt::Debug for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        f.debug_struct("Spot")
            .field("logical_agent_id", &self.logical_agent_id)
            .field("instance", &self.instance)
            .field("root", &self.root)
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// The pool that a spot instance is of.
    pub(super) fn pool(&self) -> Option<String> {
        (self.mode == "spot").then(|| format!("{}.{}", self.kind, self.az))
    }
}

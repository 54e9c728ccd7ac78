//! The uplinks: how the agent speaks to its control plane, one folder per wire contract. Each owns nothing but
//! its connection: what it tells comes from the reconciler's picture, what it is told goes to the reconciler.
//! Losing the control plane loses nothing and stops nothing.

mod session;

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{AgentConfig, Parts};
use crate::dial::Server;
use crate::ledger::Identity;
use crate::reconcile::Handle;
use crate::status::AgentStatus;

/// What an uplink is made of.
pub(crate) struct Setup {
    pub(crate) config: AgentConfig,
    pub(crate) parts: Parts,
    pub(crate) server: Server,
    pub(crate) identity: Identity,
    pub(crate) handle: Handle,
    /// Let go of when the uplink ends.
    pub(crate) alive: Arc<watch::Sender<()>>,
}

/// Starts the task. It ends when the tasks are told to stop.
pub(crate) fn start(setup: Setup) -> watch::Receiver<AgentStatus> {
    session::start(setup)
}

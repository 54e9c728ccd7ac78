//! The compositions: which engine stands behind which seam, for the control plane and for the agent.

pub(crate) mod agent_door;
mod backups;
mod control_plane;
mod first_admin;
mod node_agent;
mod notify;
mod passed;
mod shim;
mod signals;

pub(crate) use control_plane::ControlPlane;
pub(crate) use node_agent::{
    MachineId, NodeAgent, NodeAgentConfig, compose_runtime, container_runtime, holdings,
    usual_guard, vm_runtime, with_volumes,
};
pub(crate) use notify::Notify;
pub(crate) use passed::Passed;
pub(crate) use shim::shim;
pub(crate) use signals::{Signals, Wish};

use std::time::Duration;

use hostler_kit::Tasks;

/// How long everything may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(10);

/// Ends a family of tasks; units on the node run on.
pub(crate) async fn shut_down(tasks: &Tasks) {
    if let Err(left) = tasks.shut_down(GRACE).await {
        tracing::warn!(left, "some tasks did not end in time");
    }
}

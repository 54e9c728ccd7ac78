//! Commands: durable one-off orders to a node, acknowledged by id, their effect at most once.

use serde::{Deserialize, Serialize};

use crate::{CommandId, NodeId, PoolId, StoreEpoch, Timestamp};

/// What the node is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CommandKind {
    /// Follow the control plane's intent again although the mass-stop guard held it back.
    AcceptIntent {
        /// The store epoch whose intent the operator accepts.
        epoch: StoreEpoch,
    },
    /// Delete the kept logs and directories of units that have finished.
    Cleanup,
    /// Delete what nothing needs: images, ended units, data of deleted workloads.
    Collect {
        /// Only say what would go.
        #[serde(default)]
        dry_run: bool,
        /// Also data of copies that are elsewhere now, although their workloads live on.
        #[serde(default)]
        data: bool,
    },
    /// Tell which containers run that Hostler did not make, and the spec that each would become, as JSON.
    ListAdoptable {
        /// Only those of these names; all if there are none.
        #[serde(default)]
        names: Vec<String>,
    },
    /// Move to another rented machine.
    Switch {
        to: SwitchTarget,
        /// The machine that it is to move off, as the author saw it.
        #[serde(default)]
        machine: Option<String>,
        /// How long the old machine is kept; 0 keeps it, none leaves it to the agent.
        #[serde(default)]
        terminate_wait_seconds: Option<u32>,
        /// Why, for people.
        #[serde(default)]
        reason: String,
    },
    /// End the rented machine.
    Terminate {
        #[serde(default)]
        machine: Option<String>,
        #[serde(default)]
        terminate_wait_seconds: Option<u32>,
        #[serde(default)]
        reason: String,
    },
}

/// Where a switch leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchTarget {
    Spot(PoolId),
    OnDemand,
}

/// How far a command has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum CommandState {
    /// Waiting for the node to take it and answer.
    Pending,
    /// The node did it.
    Done {
        /// When the answer was recorded.
        at: Timestamp,
        /// What the node said.
        result: String,
    },
    /// The node could not do it.
    Failed {
        /// When the answer was recorded.
        at: Timestamp,
        /// Why, in the node's words.
        error: String,
    },
}

/// A durable order to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Names the order; the node does one id at most once.
    pub id: CommandId,
    /// Who is to do it.
    pub node: NodeId,
    /// What is to be done.
    pub kind: CommandKind,
    /// The larger goes first; among equals the older.
    #[serde(default)]
    pub priority: u32,
    /// Who ordered it.
    #[serde(default)]
    pub author: String,
    /// The author's own id of the request: the same one again is the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// When it was ordered.
    pub created_at: Timestamp,
    /// How far it has come.
    pub state: CommandState,
}

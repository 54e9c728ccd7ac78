//! Commands: durable one-off orders to a node, acknowledged by id, their effect at most once.

use serde::{Deserialize, Serialize};

use crate::{CommandId, NodeId, StoreEpoch, Timestamp};

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
    /// When it was ordered.
    pub created_at: Timestamp,
    /// How far it has come.
    pub state: CommandState,
}

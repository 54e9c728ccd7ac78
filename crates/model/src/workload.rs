//! Workloads: what a user wants, and the revisions that it went through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::spec::WorkloadSpec;
use crate::{Foreign, NodeId, Rollout, Timestamp, WorkloadId};

/// What a user wants: a spec, a desired state and how many copies (in the spec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub id: WorkloadId,
    /// Unique among the workloads that are not being deleted.
    pub name: String,
    pub spec: Arc<WorkloadSpec>,
    pub desired: Desired,
    /// Goes up by one when the spec or the desired state changes, and never otherwise: the ETag.
    pub revision: u64,
    /// The revision that first had the part of the present spec that makes a running copy differ. Copies with
    /// another template are outdated; a change of count or placement alone outdates none, and going back to
    /// what copies still run outdates only the others.
    pub template: u64,
    /// How often a restart of every copy was asked for. Copies with a smaller number are outdated.
    #[serde(default)]
    pub restart: u64,
    /// Present while outdated copies are being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The last generation given to a copy; the next one is larger. Fences copies of one slot.
    pub generation: u64,
    /// The node with the data of each slot, where that is on the node's own disk: a copy goes back there if it can.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub homes: BTreeMap<u32, NodeId>,
    /// What it is under another contract, if it came through one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Arc<Foreign>>,
    /// The schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<WorkloadId>,
    /// Of a schedule, the last due moment that was decided about; of a job that a schedule made, its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Whether the copies are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    Running,
    Stopped,
    /// Being deleted: the record goes when the last copy is gone from its node.
    Deleted,
}

/// One step of a workload's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub workload: WorkloadId,
    pub number: u64,
    pub spec: Arc<WorkloadSpec>,
    /// What came through another contract for this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Arc<Foreign>>,
    pub desired: Desired,
    pub at: Timestamp,
    pub actor: String,
    /// Why there is this revision, if that is no plain change: `rolled back to revision 3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    /// A person or program, by the name of its token; `anonymous` without login.
    User(String),
    /// A background reconciler of the control plane, by name.
    Keeper(String),
    /// A node's agent, by node name.
    Node(String),
}

impl Workload {
    /// How many copies run beside the counted ones.
    #[must_use]
    pub fn spares(&self) -> u32 {
        self.rollout.as_ref().map_or(0, |rollout| rollout.spares)
    }
}

impl Desired {
    /// The word on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

impl Actor {
    /// The name alone.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Keeper(name) | Self::Node(name) => name,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user/{name}"),
            Self::Keeper(name) => write!(f, "keeper/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
        }
    }
}

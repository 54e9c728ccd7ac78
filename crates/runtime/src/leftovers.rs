//! What drivers have on the node's disk beside their units: images that were fetched, data that is kept after a copy
//! has gone, and what was left of work that was broken off. Each driver tells of its own, which is what it made or
//! fetched itself; what others made is neither told nor touched.

use std::path::PathBuf;

use async_trait::async_trait;
use hostler_model::{AssignmentId, Timestamp, WorkloadId};

use crate::RuntimeError;

/// Tells what a driver has beside its units, and deletes single things of it.
#[async_trait]
pub trait Leftovers: Send + Sync {
    /// Where it lies on this machine, if that is elsewhere than the agent's own data; none also if it is not known.
    async fn place(&self) -> Option<PathBuf>;

    /// Everything, also what is needed. An engine that does not answer is an error, never an empty list.
    async fn leftovers(&self) -> Result<Vec<Leftover>, RuntimeError>;

    /// Deletes one thing, if nothing needs it by now. What is not here any more counts as deleted. Dropped half-way,
    /// or with the agent, it can be asked for again.
    async fn discard(&self, kind: LeftoverKind, name: &str) -> Result<Discarded, RuntimeError>;
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub kind: LeftoverKind,
    /// Names it among those of its driver and kind; for people, too.
    pub name: String,
    /// What would come free at most; 0 if that is not known.
    pub bytes: u64,
    /// When it came to be: for data, when it was first there that a unit could store any.
    pub made_at: Timestamp,
    /// When it was of use last.
    pub used_at: Timestamp,
    /// Why it may not go; none if nothing needs it.
    pub needed: Option<String>,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftoverKind {
    /// It can be fetched again.
    Image,
    /// Nobody will ever look for it.
    Debris,
    /// What a copy stored: it is nowhere else.
    Data {
        assignment: AssignmentId,
        /// None where nothing says whose it is.
        workload: Option<WorkloadId>,
    },
    /// A managed volume with what copies of that workload stored. The name is that of its storage driver and its own.
    Volume { workload: WorkloadId },
    /// Likewise on a server or in a cluster: other nodes may use it, and it takes nothing of this node.
    SharedVolume { workload: WorkloadId },
}

/// What became of a discard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discarded {
    Gone,
    /// Something needs it now, or it is not ours: why.
    Stays(String),
}

impl LeftoverKind {
    /// The word for people.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Debris => "debris",
            Self::Data { .. } => "data",
            Self::Volume { .. } | Self::SharedVolume { .. } => "volume",
        }
    }
}

//! Workloads as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Assignment;

/// What a user wants, and how far it is true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Workload {
    pub id: String,
    pub name: String,
    /// `process`, `container`, …
    pub kind: String,
    pub desired: Desired,
    /// How far it is true, in one word.
    pub status: WorkloadStatus,
    /// Goes up by one when the spec or the desired state changes: the ETag.
    pub revision: u64,
    /// How many copies are wanted.
    pub count: u32,
    /// How many copies run, by their node's last word.
    #[serde(default)]
    pub running: u32,
    /// How many wanted copies have no node yet.
    #[serde(default)]
    pub pending: u32,
    /// The spec as it was applied, with defaults filled in.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
    pub created_at: String,
    pub updated_at: String,
    /// Its copies, also those that are stopping; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Vec<Assignment>>,
}

/// Whether the copies are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    Running,
    Stopped,
    Deleted,
    #[serde(other)]
    Unknown,
}

/// How far what is wanted is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkloadStatus {
    /// All wanted copies run.
    Running,
    /// Some run, or one fails and is tried again.
    Degraded,
    /// None runs yet.
    Pending,
    /// Copies are being stopped.
    Stopping,
    Stopped,
    /// All copies have ended well and rest.
    Finished,
    /// Copies have ended badly and rest.
    Failed,
    #[serde(other)]
    Unknown,
}

/// One step of a workload's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    pub revision: u64,
    pub desired: Desired,
    pub at: String,
    /// Who made it.
    pub actor: String,
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
}

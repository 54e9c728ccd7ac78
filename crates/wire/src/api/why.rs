//! Why copies are pending.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why copies of a workload have no node: every reason of every node, grouped so that a large fleet stays
/// readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    pub workload: String,
    pub workload_name: String,
    /// How many copies are pending.
    pub pending: u32,
    /// One sentence.
    pub summary: String,
    /// Nodes that refuse for the same reasons, the nearest to fitting first.
    #[serde(default)]
    pub nodes: Vec<NodeGroup>,
    /// Nodes of groups that are left out.
    #[serde(default)]
    pub omitted: u32,
    /// The smallest change that would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Nodes that refuse for the same reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeGroup {
    /// Some of their names.
    pub names: Vec<String>,
    /// How many they are in all.
    pub count: u32,
    /// All reasons at once.
    pub reasons: Vec<Reason>,
}

/// One reason against a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// For programs, such as `memory-short`.
    pub code: String,
    /// For a person, such as `256MiB of memory short`.
    pub sentence: String,
}

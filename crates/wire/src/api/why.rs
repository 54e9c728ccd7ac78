//! Why copies do not run as wanted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why copies of a workload have no node, or have one and do not run: every reason, grouped so that a large
/// fleet stays readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    pub workload: String,
    pub workload_name: String,
    /// How many copies are pending.
    pub pending: u32,
    /// One sentence.
    pub summary: String,
    /// What holds for the workload as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Reason>,
    /// Copies that have a node and do not run, by reason, the most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyGroup>,
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

/// Copies that do not run for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyGroup {
    /// Some of them, such as `web.0 on box-1`.
    pub names: Vec<String>,
    /// How many they are in all.
    pub count: u32,
    /// How often one of them was started, at most.
    pub runs: u32,
    pub reason: Reason,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The last lines of the first run of a crash loop, of one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
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

/// One reason against a node or a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// For programs, such as `memory-short`.
    pub code: String,
    /// For a person, such as `256MiB of memory short`.
    pub sentence: String,
}

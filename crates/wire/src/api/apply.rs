//! Applying specs, and asking beforehand what that would do.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Why, is_false};

/// How to apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ApplyQuery {
    /// Check and answer, but change nothing.
    #[serde(skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Refuse with `no-placement` unless every missing copy fits now.
    #[serde(skip_serializing_if = "is_false")]
    pub require_placement: bool,
}

/// What applying one document did. The answer lists one per document, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyResult {
    pub id: String,
    pub name: String,
    /// The workload's revision now.
    pub revision: u64,
    /// False if the same spec was there already.
    pub changed: bool,
    /// True if the workload is new.
    pub created: bool,
}

/// What applying would do now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// One per document, in their order.
    pub workloads: Vec<PlannedWorkload>,
}

/// What applying one document would do now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedWorkload {
    pub name: String,
    pub action: Action,
    /// The revision that the plan is based on; absent if the workload is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Which keys of the spec would change, in their order.
    #[serde(default)]
    pub changes: Vec<PlannedChange>,
    /// Whether running copies would be replaced.
    #[serde(default)]
    pub restarts_copies: bool,
    /// How they would be replaced, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
    /// Where new copies would run beside the old ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<PlannedPlacement>,
    /// Where copies would be placed in the end; those that are replaced in place are left out.
    #[serde(default)]
    pub placements: Vec<PlannedPlacement>,
    /// How many copies would be stopped without a successor.
    #[serde(default)]
    pub stops: u32,
    /// Why some copies would stay pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Why>,
}

/// What would happen to the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Create,
    Update,
    Unchanged,
    #[serde(other)]
    Unknown,
}

/// One key of the spec that would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedChange {
    /// Such as `container.image`.
    pub path: String,
    /// Null if the key is new.
    #[schema(value_type = Option<Object>)]
    pub from: serde_json::Value,
    /// Null if the key goes.
    #[schema(value_type = Option<Object>)]
    pub to: serde_json::Value,
}

/// Where a copy would be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedPlacement {
    pub slot: u32,
    pub node: String,
    pub node_name: String,
}

//! Secrets as the API shows them: everything but their values, which no route gives.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A secret of the fleet, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Secret {
    pub name: String,
    /// Counts up with each new value.
    pub version: u64,
    /// When this version was given.
    pub created_at: String,
    /// Which key it is sealed with.
    pub key: String,
    /// The workloads whose specs name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
}

/// How a secret is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct SecretQuery {
    /// Restart the workloads that name it, each as its update rule says.
    pub restart: bool,
}

/// What became of a value that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretSet {
    pub name: String,
    pub version: u64,
    /// The workloads that restart now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarted: Vec<String>,
    /// The workloads that name it and do not restart, each with why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_restarted: Vec<String>,
}

/// How a change of the key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rekeyed {
    /// How many secrets are sealed with the new key now.
    pub resealed: u64,
    /// How many are under a key that the server has not, and stay as they are.
    pub unopened: u64,
}

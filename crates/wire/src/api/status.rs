//! The control plane about itself.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What goes into a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BackupQuery {
    /// Also the fleet's keys: whoever has the archive then can speak as this fleet and read its secrets.
    #[serde(default)]
    pub keys: bool,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Of the server.
    pub version: String,
    /// Of the REST API: `v1`.
    pub api: String,
    /// Of the session contract with agents.
    pub session: SessionVersions,
}

/// The versions of the session contract that the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionVersions {
    pub lowest: u32,
    pub highest: u32,
}

/// `GET /healthz`: the process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Live {
    /// `ok`.
    pub status: String,
}

/// `GET /readyz`: whether requests can be served now; with status 503 if not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    pub ready: bool,
    pub checks: Vec<Check>,
}

/// One thing that must be well for the server to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// Such as `store`.
    pub name: String,
    pub ok: bool,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// `GET /health`: the superset of what MIaaS and the spot manager answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `healthy`, or `unhealthy` with status 503.
    pub status: String,
    #[serde(default)]
    pub timestamp: String,
    /// Whether the store answers: `connected` or `unavailable`.
    #[serde(default)]
    pub database: String,
    #[serde(default)]
    pub version: String,
    /// Whether an engine decides about rented machines.
    #[serde(default)]
    pub decision_engine_loaded: bool,
}

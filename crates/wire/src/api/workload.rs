//! Workloads as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Assignment, PlannedChange};

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
    /// How many copies run, by their node's last word; one with a health check only while that is passed.
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
    /// Why there is the present revision, if that is no plain change: `rolled back to revision 3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Present while copies of an older form are being replaced, or wait for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// How its copies stand, in a bounded form; `GET /api/v1/assignments?workload=` lists them one by one.
    #[serde(default)]
    pub standing: Standing,
}

/// How far a rollout has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// The revision that is rolled out.
    pub revision: u64,
    /// The revision that a rollback leads to.
    pub from: u64,
    pub stage: RolloutStage,
    /// How many counted copies have the new form.
    pub renewed: u32,
    /// Of these, those that are known to be healthy.
    pub healthy: u32,
    /// How many counted copies still have another form.
    pub outdated: u32,
    /// New copies that run beside the counted ones, and the healthy ones of these.
    pub beside: u32,
    pub beside_healthy: u32,
    /// Whether it goes no further without a person.
    pub needs_person: bool,
    /// All that in one line.
    pub summary: String,
}

/// What a rollout does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStage {
    /// New copies run beside the old ones until they are promoted.
    Canary,
    /// Copies are replaced, a few at a time.
    Rolling,
    /// It has stopped.
    Failed,
    #[serde(other)]
    Unknown,
}

/// Where to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct RollbackQuery {
    /// The revision whose spec is applied again; the one before the rollout, or the last that differs, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// How the copies of a workload stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Standing {
    /// Copies that have a node and are to run.
    pub wanted: u32,
    /// Of these, those of the present spec that run or have ended well.
    pub settled: u32,
    /// Of these, those of the present spec that have ended badly for good.
    pub failed: u32,
    /// Of these, those that run an older spec or wait for a restart.
    pub outdated: u32,
    /// Copies that are to stop and have not.
    pub stopping: u32,
    /// How often wanted copies were started again, in all.
    pub restarts: u32,
    /// How a run of a copy that is not settled has ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// Why it has failed: what became of the copies that ended badly for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// On how many nodes the wanted copies are.
    pub node_count: u32,
    /// Names of some of these nodes; left out of lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Some wanted copies that are not settled, those that have ended badly for good first; left out of lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Assignment>,
    /// Stands for this answer: with `wait` and this as `after`, a request is answered once something differs.
    /// Left out of lists.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mark: String,
}

/// Whether to wait for news of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WaitQuery {
    /// Answer after so many milliseconds at the latest, 20000 at most; at once unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    /// Wait while the `standing.mark` of the answer is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
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
    /// Copies of an older spec run until those of the present one take their place.
    Updating,
    /// None runs yet.
    Pending,
    /// Copies are being stopped.
    Stopping,
    Stopped,
    /// All copies have ended well and rest.
    Finished,
    /// Copies have ended badly and rest.
    Failed,
    /// It runs nothing itself: jobs are made from it at the moments of its schedule.
    Scheduled,
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
    /// Why there is this revision, if that is no plain change: `rolled back to revision 3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Which keys of the spec differ from the revision before; nothing if that is not kept.
    #[serde(default)]
    pub changes: Vec<PlannedChange>,
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
}

//! Jobs as the API shows them: a workload that runs to completion, or a schedule that makes such.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Desired, WorkloadStatus};

/// A job or a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: String,
    pub name: String,
    pub desired: Desired,
    /// `finished` and `failed` are for good; `scheduled` is a schedule's.
    pub status: WorkloadStatus,
    /// Why it has failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many copies run at the same time.
    pub count: u32,
    /// Copies that run, that have ended well, and that have ended badly for good.
    pub running: u32,
    pub succeeded: u32,
    pub failed: u32,
    /// When its last copy ended, once all have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// A schedule's cron expression, and the time zone that it is read in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// A schedule's next due moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<String>,
    /// The name of the schedule that made the job, and the moment that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    pub created_at: String,
}

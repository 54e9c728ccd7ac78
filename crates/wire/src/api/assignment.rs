//! Copies of workloads as the API shows them.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Resources, is_false};

/// One copy of a workload on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Assignment {
    pub id: String,
    /// The last eight digits of the id: enough to tell copies apart on a screen.
    pub short: String,
    pub workload: String,
    pub workload_name: String,
    /// Which copy: 0 to count − 1.
    pub slot: u32,
    pub node: String,
    pub node_name: String,
    /// The fencing number: larger wins within a slot.
    pub generation: u64,
    /// The workload revision whose spec it runs.
    pub revision: u64,
    pub intent: Intent,
    /// Why it is to stop: `stopped`, `deleted`, `scaled-down`, `updated`, `drained`, `replaced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The node's last word.
    pub state: AssignmentState,
    /// What it is made of, such as the services of a compose project; empty if it is one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// How often it was started in this generation.
    #[serde(default)]
    pub runs: u32,
    /// How it ended for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// It runs an older spec than the workload has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_outdated: bool,
    pub created_at: String,
    pub claims: Claims,
    /// What it uses, by its node's last look; none while it does not run, or where that is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UnitUsage>,
}

/// What a running copy uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnitUsage {
    /// Thousandths of a core, of late.
    pub milli_cpu: u64,
    /// Processor time since its run began, in milliseconds of one core.
    pub cpu_ms: u64,
    pub memory_bytes: u64,
    /// Bytes since its run began, read from disks; left out where that is not known, as the three that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Written to disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// From the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// To the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
}

/// What the fleet wants of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    Run,
    Stop,
    #[serde(other)]
    Unknown,
}

/// What a node last said of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssignmentState {
    pub word: StateWord,
    /// For a person: how far an image is pulled, why a start failed, why the node's word is old.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The stable code of a failure, such as `image-unavailable`; `/docs/errors/<code>` explains it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The broader reason of a failure or of a bad end: `image-pull-failed`, `image-not-found`,
    /// `insufficient-resources`, `network-error`, `storage-error`, `invalid-spec`, `runtime-error` or
    /// `vm-boot-failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What would help against the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// When it began to run, or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// How the last run ended: `exit code 1`, `signal 9`, `out of memory`, `timed out`, `unhealthy`,
    /// `unknown exit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// What its health check says while it runs: `starting`, `healthy`, `unhealthy`. None without a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Set while it ends early again and again: how that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crash_loop: Option<CrashLoop>,
}

/// How the first of several short runs in succession ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CrashLoop {
    /// As in [`AssignmentState::exit`].
    pub exit: String,
    pub at: String,
    /// Which run that was, from 1.
    pub run: u32,
    /// The last lines that it wrote.
    #[serde(default)]
    pub log: Vec<String>,
}

/// A named part of a copy, by its node's last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AssignmentPart)]
pub struct Part {
    pub name: String,
    /// `waiting`, `running`, `unhealthy` or `exited`.
    pub state: String,
    /// How it ended, as in [`AssignmentState::exit`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
}

/// The word for what a copy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StateWord {
    /// Placed; its node has not said anything of it yet.
    Assigned,
    Preparing,
    Starting,
    Running,
    /// It ended and will be started again.
    Waiting,
    /// The same, after several short runs in succession.
    CrashLooping,
    /// It could not be prepared or started, and is tried again.
    Failed,
    Stopping,
    /// It ended for good.
    Finished,
    /// Not on the node any more.
    Gone,
    /// Its node is silent: it may well run.
    #[serde(other)]
    Unknown,
}

/// The end of a copy whose restart policy is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// As in [`AssignmentState::exit`].
    pub exit: String,
    /// The exit code, where it ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    pub at: String,
    /// How often it was started in all.
    pub runs: u32,
}

/// What a copy takes from its node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Claims {
    pub resources: Resources,
    /// Ports of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    pub number: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// Which assignments to list; both together narrow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct AssignmentFilter {
    /// Id, id prefix or name of a workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Id, id prefix or name of a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

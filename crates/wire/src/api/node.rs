//! Nodes as the API shows them: a superset of MIaaS's list entry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A machine with an agent. The first keys are MIaaS's, the others are ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    pub id: String,
    /// Unique among the nodes that are not gone.
    pub name: String,
    /// The address other machines of the fleet would use; empty if the agent found none.
    #[serde(default)]
    pub ip: String,
    pub capabilities: Capabilities,
    /// When the control plane last heard from it, in seconds since 1970.
    pub last_seen: f64,
    /// MIaaS's word: whether it is believed alive.
    pub status: NodeStatus,
    /// As of the last beat; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Our word, finer than `status`.
    pub state: NodeState,
    /// Counts what people change (labels, admission): the ETag.
    #[serde(default)]
    pub revision: u64,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Through which contract its agent speaks: `session`, `miaas`, …
    #[serde(default)]
    pub contract: String,
    #[serde(default)]
    pub facts: NodeFacts,
    /// Room for copies in all.
    #[serde(default)]
    pub capacity: Resources,
    /// Room that no copy has claimed.
    #[serde(default)]
    pub free: Resources,
    /// How many copies it has, finished ones too.
    #[serde(default)]
    pub copies: u32,
    pub joined_at: String,
    /// When an operator removed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<String>,
    /// Why the agent's mass-stop guard holds our intent back, while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// What it is short of: `memory`, `disk`, `inodes`, `pids`. While it is, nothing new is placed there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pressure: Vec<String>,
    /// How far a drain has come, while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainState>,
    /// Absent for a node that has not beaten since the control plane started, or is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// How far its clock was ahead of the server's when its session opened, in milliseconds, if its agent told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// The rented machine that the node is on, if its agent told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
}

/// A rented machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Instance {
    pub provider: String,
    /// The provider's id.
    pub id: String,
    /// Such as `t3.medium`.
    #[serde(rename = "type")]
    pub instance_type: String,
    pub zone: String,
    /// How it is paid for: `spot`, `on-demand` or `unknown`.
    pub market: String,
}

/// MIaaS's picture of a machine. The keys without a value are written as null.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Capabilities {
    /// `linux`, `windows` or `darwin`.
    pub os: String,
    pub cpu_count: u32,
    pub mem_mb: u64,
    pub disk_mb: Option<u64>,
    /// As the agent wrote them; by convention `{id, model, mem_mb}`.
    #[schema(value_type = Vec<Object>)]
    pub gpus: Vec<serde_json::Value>,
    /// As the agent wrote it; by convention `{version, available}`.
    #[schema(value_type = Option<Object>)]
    pub docker: Option<serde_json::Value>,
    /// As the agent wrote it; by convention `{version, available}`.
    #[schema(value_type = Option<Object>)]
    pub k8s: Option<serde_json::Value>,
}

/// MIaaS's figures of a beat.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Metrics {
    /// Percent of all cores.
    pub cpu_usage: f64,
    /// Percent of the main memory.
    pub mem_usage: f64,
    pub disk_free_mb: u64,
    pub running_containers: Vec<String>,
}

/// MIaaS's word for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeStatus {
    Online,
    Offline,
    #[serde(other)]
    Unknown,
}

/// Our word for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It has joined, and waits for a person to let it in.
    Pending,
    /// Registered; has not yet said what runs on it.
    Joining,
    Ready,
    /// Its connection broke or its beats are late.
    Suspect,
    /// Its lease ran out.
    Lost,
    /// Takes no new copies.
    Cordoned,
    /// Its copies move away.
    Draining,
    /// No process of ours is left on it.
    Drained,
    /// Removed; kept as history.
    Gone,
    #[serde(other)]
    Unknown,
}

/// What the agent found out about its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NodeFacts {
    pub hostname: String,
    /// As `uname -m` says it.
    pub arch: String,
    pub kernel: String,
    /// Changes when the machine boots.
    pub boot_id: String,
    pub agent_version: String,
    pub addresses: Vec<String>,
    pub runtimes: Vec<RuntimeFact>,
    /// Where managed volumes can come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<StorageFact>,
    pub disks: Vec<DiskFact>,
    /// What an agent of another contract said of its machine, in that contract's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub foreign: Option<serde_json::Value>,
}

/// A driver, and whether it can work on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RuntimeFact {
    /// The kind of workload: `process`, `container`, …
    pub kind: String,
    pub available: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Why it cannot work, or what it cannot do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A storage driver of managed volumes, and whether it can work on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct StorageFact {
    /// `local`, `nfs` or `ceph-rbd`.
    pub driver: String,
    pub available: bool,
    /// Why it cannot work.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DiskFact {
    pub mount: String,
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// What a node has or a copy claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of one core.
    pub milli_cpu: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// A node's right to be believed alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// Since the last beat.
    pub age_ms: u64,
    /// At this age the node is lost.
    pub window_ms: u64,
    /// The usual time between two beats of a node whose agent chooses it, once there were enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing_ms: Option<u64>,
    /// While those beats come too rarely for the lease: the interval that its agent should keep at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advised_ms: Option<u64>,
}

/// How far a drain has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainState {
    /// When it began.
    pub since: String,
    /// Copies that have not ended there yet.
    pub left: u32,
}

/// Which nodes to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct NodeFilter {
    /// Only those that are gone (`true`), or only those that are not (`false`); all unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<bool>,
}

/// Sets labels, and removes those with null.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct LabelPatch(pub BTreeMap<String, Option<String>>);

/// What to delete on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct GcWish {
    /// Only say what would go, and why the rest stays.
    pub dry_run: bool,
    /// Also data that no copy on the node uses although its workload lives on.
    pub data: bool,
}

/// Which containers of a node are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptableQuery {
    /// Their names; all that Hostler did not make if there are none.
    #[serde(default)]
    pub names: Vec<String>,
}

/// A durable order to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Command {
    pub id: String,
    pub node: String,
    /// Such as `accept-intent` or `cleanup`.
    pub kind: String,
    pub created_at: String,
    pub state: CommandState,
}

/// How far a command has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandState {
    pub word: CommandProgress,
    /// When the node's answer was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The node's answer: its result, or its error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The word for how far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CommandProgress {
    Pending,
    Done,
    Failed,
    #[serde(other)]
    Unknown,
}

//! Nodes: machines with an agent.
//!
//! A node's state is two independent questions, both persisted, and one word for people:
//!
//! ```text
//!   liveness   Joining ──► Alive ◄──► Suspect ──► Lost          admission  Open ◄──► Cordoned
//!                 │          ▲  ▲                   │                       │ ▲
//!                 │          └──┼───────────────────┘ (beats again)         ▼ │
//!                 └─────────────┘                                       Draining ──► Drained
//!   and at any time ──► gone (removed by an operator; the record stays as history)
//! ```
//!
//! - *Joining*: registered, has not yet said what it observes. Nothing is placed on it.
//! - *Alive*: its lease holds.
//! - *Suspect*: its connection broke or its beats are late. Nothing new is placed on it, nothing is moved.
//! - *Lost*: its lease ran out. Its copies are replaced by their disconnect rule.
//! - *Open*, *Cordoned*: whether new copies may come. *Draining*: its copies move away. *Drained*: no
//!   process of ours is left on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::{Kind, ManagedVolume, WorkloadSpec};
use crate::{Bytes, Contract, NodeId, Pressure, Resources, Timestamp, UnitId};

/// Longest name of a node: that of a DNS name.
const LONGEST_NAME: usize = 253;

/// Whether a node may be called that.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(is_plain)
}

/// A machine with an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// Unique among the nodes that are not gone; usually the host name.
    pub name: String,
    /// The contract through which the agent speaks to us.
    pub contract: Contract,
    /// What the agent found out about its machine.
    pub facts: NodeFacts,
    /// Room for copies: what the machine has, less what is kept for the machine itself.
    pub capacity: Resources,
    pub labels: BTreeMap<String, String>,
    pub liveness: Liveness,
    pub admission: Admission,
    /// The cloud machine behind the node, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    pub joined_at: Timestamp,
    /// Set when an operator removed the node; the record stays as history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// Set while the agent's mass-stop guard holds our intent back: why, in the agent's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_back: Option<String>,
    /// What the node is short of, as its agent says.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub pressure: BTreeSet<Pressure>,
    /// The newest authority that the node has said it believes, by the print of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub believes: Option<String>,
    /// What its agent said last by which its machine is told from one with a copy of its disk. Shown to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Counts changes of this record that a person made (labels, admission): the ETag.
    #[serde(default)]
    pub revision: u64,
}

/// Whether a node is believed alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Liveness {
    Joining,
    Alive,
    Suspect,
    Lost {
        /// When it was judged lost.
        since: Timestamp,
    },
}

/// Whether a node takes new copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    Open,
    /// It has joined, and waits for a person to let it in.
    Pending,
    Cordoned,
    Draining {
        since: Timestamp,
    },
    Drained {
        since: Timestamp,
    },
}

/// The one word for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    Pending,
    Joining,
    Ready,
    Suspect,
    Lost,
    Cordoned,
    Draining,
    Drained,
    Gone,
}

/// What the agent found out about its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFacts {
    pub hostname: String,
    /// Lower-case platform name: `linux`, `windows`, `darwin`.
    pub os: String,
    /// As `uname -m` says it: `x86_64`, `aarch64`.
    pub arch: String,
    pub kernel: String,
    pub cpu_count: u32,
    pub memory: Bytes,
    pub disks: Vec<Disk>,
    /// The address other machines of the fleet would use, first; others behind it.
    pub addresses: Vec<String>,
    /// Changes when the machine boots.
    pub boot_id: String,
    pub agent_version: String,
    pub runtimes: Vec<RuntimeFact>,
    /// The storage drivers of managed volumes, beside `local`, which every node has.
    pub storage: Vec<StorageFact>,
    /// What a foreign agent said of its machine, as JSON in its own contract's words: kept to be shown as it
    /// was written, and read by the door of that contract alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<String>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    pub mount: String,
    pub total: Bytes,
    pub free: Bytes,
}

/// A driver and whether it can work on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeFact {
    pub kind: Kind,
    pub available: bool,
    /// Version of the engine behind the driver; empty if there is none.
    #[serde(default)]
    pub version: String,
    /// Why it cannot work, or what it cannot do; empty if all is well.
    #[serde(default)]
    pub note: String,
}

/// A storage driver of managed volumes, and whether it can work on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageFact {
    pub driver: String,
    pub available: bool,
    /// Why it cannot work; empty if all is well.
    #[serde(default)]
    pub note: String,
}

/// What a node uses at the moment of a beat. Never persisted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// Percent of all cores, 0 to 100.
    pub cpu_percent: f32,
    /// Percent of main memory, 0 to 100.
    pub memory_percent: f32,
    pub memory_used: Bytes,
    pub disk_free: Bytes,
    /// Names of running containers, ours and others'.
    pub running_containers: Vec<String>,
    /// What was measured of units since the last beat.
    pub units: Vec<UnitUsage>,
    /// What the machine is short of; none while nobody has looked.
    pub pressure: Option<BTreeSet<Pressure>>,
}

/// What a running unit uses, as its node measured it last. Never persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitUsage {
    pub unit: UnitId,
    /// Processor time since the run began, in nanoseconds of one core.
    pub cpu_nanos: u64,
    /// Thousandths of a core between the last two looks.
    pub milli_cpu: u64,
    pub memory: Bytes,
    /// Read from and written to disks, and over the network; none where the driver cannot tell.
    pub read: Option<Bytes>,
    pub written: Option<Bytes>,
    pub received: Option<Bytes>,
    pub sent: Option<Bytes>,
}

/// The cloud machine now behind a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub provider: String,
    pub id: String,
    pub instance_type: String,
    pub zone: String,
    pub market: Market,
}

/// How a cloud machine is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    Spot,
    OnDemand,
    /// Its agent could not find out.
    #[default]
    Unknown,
}

impl Market {
    /// The word on our wires.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
            Self::Unknown => "unknown",
        }
    }
}

impl Node {
    /// The one word for people: the gravest that is true.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        if self.gone_at.is_some() {
            return NodeState::Gone;
        }
        match (self.liveness, self.admission) {
            (_, Admission::Pending) => NodeState::Pending,
            (Liveness::Lost { .. }, _) => NodeState::Lost,
            (Liveness::Suspect, _) => NodeState::Suspect,
            (_, Admission::Draining { .. }) => NodeState::Draining,
            (_, Admission::Drained { .. }) => NodeState::Drained,
            (Liveness::Joining, _) => NodeState::Joining,
            (Liveness::Alive, Admission::Cordoned) => NodeState::Cordoned,
            (Liveness::Alive, Admission::Open) => NodeState::Ready,
        }
    }

    /// Whether new copies may be placed here now. A node that holds the intent back would not start them, and one
    /// under pressure has no room for them.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.state() == NodeState::Ready && self.held_back.is_none() && self.pressure.is_empty()
    }

    /// Whether an operator removed the node; only its history is left.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone_at.is_some()
    }

    /// Whether the node has a working driver for the kind.
    #[must_use]
    pub fn can_run(&self, kind: Kind) -> bool {
        self.facts
            .runtimes
            .iter()
            .any(|runtime| runtime.kind == kind && runtime.available)
    }

    /// Whether the node's agent has still to say what it knows of the kind: ours says it of every kind, but slow
    /// drivers answer later than it connects. One that cannot work is known.
    #[must_use]
    pub fn awaits_driver(&self, kind: Kind) -> bool {
        let mut runtimes = self.facts.runtimes.iter();
        self.contract == Contract::Session && runtimes.all(|runtime| runtime.kind != kind)
    }

    /// Whether the node can run a copy of it. Only agents of ours know what a job is, whatever drivers others have.
    #[must_use]
    pub fn can_run_copy(&self, spec: &WorkloadSpec) -> bool {
        self.knows_jobs_of(spec)
            && self.can_run(spec.runs_on())
            && self.lacking_storage(spec).is_none()
            && self.takes_secrets_of(spec)
    }

    /// The first storage driver that the spec needs and the node has not.
    #[must_use]
    pub fn lacking_storage<'a>(&self, spec: &'a WorkloadSpec) -> Option<&'a str> {
        let mut drivers = spec.volumes().iter().map(|volume| volume.driver.as_str());
        drivers.find(|driver| !self.has_storage(driver))
    }

    /// Every node has `local`; foreign agents say the rest with labels.
    fn has_storage(&self, driver: &str) -> bool {
        let mut facts = self.facts.storage.iter();
        driver == ManagedVolume::LOCAL
            || facts.any(|fact| fact.driver == driver && fact.available)
            || self
                .labels
                .get(&ManagedVolume::label(driver))
                .is_some_and(|it| it == "true")
    }

    /// Whether its agent is given secrets, or the spec names none. They go over sessions of ours alone.
    #[must_use]
    pub fn takes_secrets_of(&self, spec: &WorkloadSpec) -> bool {
        spec.secrets.is_empty() || self.contract == Contract::Session
    }

    /// Whether its agent knows jobs, or the spec is none.
    #[must_use]
    pub fn knows_jobs_of(&self, spec: &WorkloadSpec) -> bool {
        spec.job.is_none() || self.contract == Contract::Session
    }
}

impl NodeState {
    /// The word on every wire, such as `ready`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

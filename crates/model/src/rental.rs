//! Rentals: what a node on a rented machine is beside a node. Whose account pays, what may be done with its
//! machine by itself, which machines it has had, and which stand by for it.
//!
//! The node's `instance` is the machine that it is on now; the rental's machine in the role
//! [`Role::Primary`] is the same one, with what the market wants to know of it.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Instance, Market, Money, NodeId, PoolId, ReplicaId, Timestamp};

/// What a node on a rented machine is beside a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rental {
    pub node: NodeId,
    pub account: AccountId,
    /// The agent's own word for itself; it stays the same from machine to machine.
    pub logical: String,
    pub policy: Policy,
    pub bounds: Bounds,
    pub standing: Standing,
    /// Counts changes of the policy.
    #[serde(default)]
    pub version: u64,
    /// Machines that it is or was on, the oldest first; at most [`Rental::MACHINES`].
    pub machines: Vec<Machine>,
    /// Machines that stand by or did, the oldest first; at most [`Rental::REPLICAS`].
    #[serde(default)]
    pub replicas: Vec<Replica>,
    /// The last word of the market about its machines, the oldest first; at most [`Rental::INTERRUPTIONS`].
    #[serde(default)]
    pub interruptions: Vec<Interruption>,
    pub installed_at: Timestamp,
    pub updated_at: Timestamp,
    /// When its agent said that its machine ends.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    #[serde(default)]
    pub switched_at: Option<Timestamp>,
    #[serde(default)]
    pub cleaned_at: Option<Timestamp>,
}

/// What may be done with the machine without asking a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether anything is done at all.
    pub enabled: bool,
    /// Never together with `manual_replica`.
    pub auto_switch: bool,
    pub auto_terminate: bool,
    /// How long an old machine is kept after a switch; 0 keeps it until a person ends it.
    pub terminate_wait_seconds: u32,
    pub replica: bool,
    pub replica_count: u32,
    pub manual_replica: bool,
}

/// Bounds within which switching is worth it. In whole numbers, so that records compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Thousandths.
    pub least_saving_permille: u32,
    /// Thousandths.
    pub most_risk_permille: u32,
    pub switches_per_day: u32,
    pub switches_per_week: u32,
    pub hours_in_pool: u32,
}

/// How the agent says it stands, beside being alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    #[default]
    Running,
    Switching,
    Failing,
    Disabled,
}

/// A rented machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The provider's id.
    pub id: String,
    pub instance_type: String,
    pub region: String,
    pub zone: String,
    pub market: Market,
    pub image: String,
    /// Where it was rented; none on demand.
    pub pool: Option<PoolId>,
    pub role: Role,
    /// The on-demand price an hour when it was first seen.
    pub baseline: Option<Money>,
    pub since: Timestamp,
    /// Since when it is in its role.
    pub role_since: Timestamp,
    /// When its end was last ordered.
    #[serde(default)]
    pub attempted_at: Option<Timestamp>,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

/// What a machine is to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The node is on it.
    Primary,
    /// It stands by.
    Replica,
    /// It is not needed any more and has not ended, as far as is known.
    Left,
    /// It has ended.
    Ended,
}

/// A machine that stands by for a node, from the order to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    pub id: ReplicaId,
    pub kind: ReplicaKind,
    pub status: ReplicaStatus,
    pub sync: SyncStatus,
    pub pool: PoolId,
    pub instance_type: String,
    pub region: String,
    pub zone: String,
    /// The provider's id, once somebody has told it.
    pub machine: Option<String>,
    /// The machine that it stands by for.
    pub parent: String,
    pub hourly_cost: Option<Money>,
    pub author: String,
    /// A JSON object of the caller's, uninterpreted.
    pub tags: String,
    pub created_at: Timestamp,
    #[serde(default)]
    pub launched_at: Option<Timestamp>,
    #[serde(default)]
    pub sync_began_at: Option<Timestamp>,
    #[serde(default)]
    pub synced_at: Option<Timestamp>,
    #[serde(default)]
    pub ready_at: Option<Timestamp>,
    #[serde(default)]
    pub promoted_at: Option<Timestamp>,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    #[serde(default)]
    pub error: Option<String>,
}

/// Why a replica was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaKind {
    Manual,
    AutomaticRebalance,
    AutomaticTermination,
}

/// How far a replica has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaStatus {
    Launching,
    Syncing,
    Ready,
    Promoted,
    Terminated,
    Failed,
}

/// How near a replica's data is to that of its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncStatus {
    Initializing,
    Syncing,
    Synced,
    OutOfSync,
}

/// A warning of the market about a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interruption {
    pub signal: Signal,
    pub machine: String,
    pub pool: Option<PoolId>,
    pub at: Timestamp,
    /// When the machine is taken away, if that was told.
    #[serde(default)]
    pub due_at: Option<Timestamp>,
    pub answer: InterruptionAnswer,
}

/// What the market said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// The machine is at risk.
    Rebalance,
    /// The machine is taken away.
    Termination,
}

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterruptionAnswer {
    None,
    ReplicaCreated,
    ReplicaPromoted,
    /// No replica stood by: only a snapshot could save the data.
    SnapshotNeeded,
}

impl Rental {
    pub const MACHINES: usize = 32;
    pub const REPLICAS: usize = 16;
    pub const INTERRUPTIONS: usize = 64;

    /// The machine that the node is on, as far as is known.
    #[must_use]
    pub fn primary(&self) -> Option<&Machine> {
        self.machines
            .iter()
            .rev()
            .find(|machine| machine.role == Role::Primary)
    }

    #[must_use]
    pub fn machine(&self, id: &str) -> Option<&Machine> {
        self.machines.iter().find(|machine| machine.id == id)
    }

    #[must_use]
    pub fn replica(&self, id: ReplicaId) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.id == id)
    }

    /// Replicas that stand by or are on their way to it, the oldest first.
    pub fn standing_by(&self) -> impl Iterator<Item = &Replica> {
        self.replicas
            .iter()
            .filter(|replica| replica.status.is_open())
    }

    /// Whether that machine may speak for the node: the one that it is on, or one never seen before.
    #[must_use]
    pub fn may_speak(&self, machine: &str) -> bool {
        let role = self.machine(machine).map(|machine| machine.role);
        matches!(role, None | Some(Role::Primary))
    }
}

impl Machine {
    /// The part of it that every node on a rented machine has.
    #[must_use]
    pub fn instance(&self) -> Instance {
        Instance {
            provider: "aws".to_owned(),
            id: self.id.clone(),
            instance_type: self.instance_type.clone(),
            zone: self.zone.clone(),
            market: self.market,
        }
    }

    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.role, Role::Primary | Role::Replica)
    }
}

impl Policy {
    /// Nothing is done.
    pub const OFF: Self = Self {
        enabled: false,
        auto_switch: false,
        auto_terminate: false,
        terminate_wait_seconds: 0,
        replica: false,
        replica_count: 0,
        manual_replica: false,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enabled: true,
            auto_switch: true,
            auto_terminate: true,
            terminate_wait_seconds: 300,
            replica: false,
            replica_count: 0,
            manual_replica: false,
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            least_saving_permille: 150,
            most_risk_permille: 300,
            switches_per_day: 3,
            switches_per_week: 10,
            hours_in_pool: 2,
        }
    }
}

impl ReplicaStatus {
    /// Whether it stands by or is on its way to it.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Launching | Self::Syncing | Self::Ready)
    }
}

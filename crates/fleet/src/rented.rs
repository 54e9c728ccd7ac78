//! What is asked of accounts, rented machines and the market: the verbs of [`crate::Verb`] in groups.

use std::time::Duration;

use hostler_model::{
    AccountId, AccountStatus, CommandId, Machine, Market, Money, NodeId, Policy, PoolId,
    QuoteSource, Rental, ReplicaId, ReplicaKind, ReplicaStatus, Role, Signal, Standing, SwitchEnd,
    SwitchPrices, SwitchStamps, SwitchTarget, SyncStatus, Timestamp, Token,
};

use crate::NodeAnnouncement;

/// The end of one machine is ordered no more often.
const ORDERED_EVERY: Duration = Duration::from_secs(5 * 60);

/// About accounts, by people.
#[derive(Debug, Clone, PartialEq)]
pub enum AccountVerb {
    /// A new account; its name must be free. The token is drawn by the caller, for it must be unpredictable.
    Open {
        name: String,
        email: Option<String>,
        token: Token,
    },
    /// The old token is worth nothing from now on.
    RenewToken { account: AccountId, token: Token },
    SetStatus {
        account: AccountId,
        status: AccountStatus,
    },
    /// Removes the account and its nodes.
    Close { account: AccountId },
    /// A person has read notices: one, or all up to that number.
    MarkRead {
        account: AccountId,
        notices: Notices,
    },
}

/// Which notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notices {
    One(u64),
    Through(u64),
}

/// An agent on a rented machine says hello: the node is created or refreshed, and so is its rental.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    pub account: AccountId,
    /// Its `instance` is not read: it follows from the machine.
    pub hello: NodeAnnouncement,
    pub machine: MachineReport,
}

/// What is told of a machine; what is left out stays as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MachineReport {
    pub id: Option<String>,
    pub instance_type: Option<String>,
    pub region: Option<String>,
    pub zone: Option<String>,
    pub market: Option<Market>,
    pub image: Option<String>,
    pub pool: Option<PoolId>,
    pub baseline: Option<Money>,
}

/// About one node on a rented machine, by its agent, the market's word or people.
#[derive(Debug, Clone, PartialEq)]
pub enum RentedVerb {
    /// The node is on this machine. A machine that it has left cannot say so: `stale-report`.
    Moved(MachineReport),
    /// This machine stands beside it.
    Beside(MachineReport),
    Stands(Standing),
    SetPolicy(PolicyChange),
    /// The agent is to move the node. Answers with the command; with `Done` if the node is there already.
    OrderSwitch(Box<SwitchOrder>),
    /// The agent has moved the node. The same move told again changes nothing.
    Switched(Box<SwitchReport>),
    /// The market says that the machine is at risk.
    AtRisk {
        machine: String,
    },
    /// The market takes the machine: the replica named, else one that is ready, else one that syncs, takes
    /// its place. Answers with the replica, or with `Done` if there is none. A replica whose own machine is
    /// taken has failed. A machine that the node has left is told who took over, and moves nothing.
    Taken {
        machine: String,
        due_at: Option<Timestamp>,
        replica: Option<ReplicaId>,
    },
    /// The agent says that its machine ends: the node is lost.
    Ends {
        reason: String,
    },
    /// The agent asks which machines it is to end now. Answers with `Machines`: each is handed out no more often
    /// than [`end_due`] says.
    OrderEnds,
    /// The end of a machine, or why it could not be ended.
    Ended {
        machine: String,
        error: Option<String>,
    },
    CleanedUp(Cleanup),
    /// A machine is to stand by, in that pool.
    AddReplica(Box<ReplicaOrder>),
    ChangeReplica {
        replica: ReplicaId,
        change: ReplicaChange,
    },
    /// The replica takes the primary's place.
    Promote {
        replica: ReplicaId,
        old: OldPrimary,
    },
    EndReplica {
        replica: ReplicaId,
    },
}

/// What becomes of the machine that a replica replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldPrimary {
    /// It is left, and may be ended.
    Demote,
    /// It goes on beside the new one.
    Keep,
}

/// What is to change of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyChange {
    pub enabled: Option<bool>,
    pub auto_switch: Option<bool>,
    pub auto_terminate: Option<bool>,
    pub terminate_wait_seconds: Option<u32>,
    pub replica: Option<bool>,
    pub replica_count: Option<u32>,
    pub manual_replica: Option<bool>,
}

/// A move, as the agent told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchReport {
    pub from: SwitchEnd,
    pub to: SwitchEnd,
    pub trigger: String,
    pub command: Option<CommandId>,
    pub prices: SwitchPrices,
    pub stamps: SwitchStamps,
}

/// What an agent cleaned up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanup {
    pub snapshots: usize,
    pub images: usize,
    pub failed: usize,
}

/// A machine that is to stand by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaOrder {
    pub kind: ReplicaKind,
    pub pool: PoolId,
    pub author: String,
    /// A JSON object, uninterpreted.
    pub tags: String,
    /// The market's word that it answers.
    pub signal: Option<(Signal, Option<Timestamp>)>,
}

/// What is told of a replica; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaChange {
    pub machine: Option<String>,
    pub status: Option<ReplicaStatus>,
    pub sync: Option<SyncStatus>,
    pub sync_began_at: Option<Timestamp>,
    pub synced_at: Option<Timestamp>,
    pub error: Option<String>,
}

/// An order to move a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchOrder {
    pub to: SwitchTarget,
    pub reason: String,
    /// By a person, whom neither the node's settings nor where it is hold up.
    pub is_by_hand: bool,
    /// The larger goes first.
    pub priority: u32,
    pub author: String,
    /// The caller's own id: the same one again is the same order.
    pub request: Option<String>,
}

/// Prices that an agent saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceReport {
    /// Who saw them.
    pub node: NodeId,
    pub region: String,
    /// The on-demand price, and of which kind of machine.
    pub on_demand: Option<(String, Money)>,
    pub pools: Vec<PoolPrice>,
    pub source: QuoteSource,
}

/// The price of one pool; none if only the on-demand price of its kind is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolPrice {
    pub pool: PoolId,
    pub instance_type: String,
    pub zone: String,
    pub spot: Option<Money>,
}

/// Why a machine is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// It stood by, which is over. Nothing waits for it.
    StoodBy,
    /// The node was on it, and the time is over for which it is kept.
    Left,
}

/// Why the machine is to be ended now; none if it is not. Who may end machines, and after which time, says the policy:
/// a waiting time of nought keeps what the node has left.
#[must_use]
pub fn end_due(rental: &Rental, machine: &Machine, now: Timestamp) -> Option<EndCause> {
    let policy = rental.policy;
    let ordered = machine.attempted_at;
    let is_fresh = ordered.is_some_and(|at| now.since(at) < ORDERED_EVERY);
    if !policy.auto_terminate || machine.role != Role::Left || is_fresh {
        return None;
    }
    let stood_by = rental.replicas.iter().any(|replica| {
        replica.machine.as_deref() == Some(machine.id.as_str()) && replica.promoted_at.is_none()
    });
    if stood_by {
        return Some(EndCause::StoodBy);
    }
    let wait = Duration::from_secs(policy.terminate_wait_seconds.into());
    let is_over = !wait.is_zero() && now.since(machine.role_since) >= wait;
    is_over.then_some(EndCause::Left)
}

impl MachineReport {
    /// The machine that the report makes of the present one; none if it says nothing new.
    #[must_use]
    pub fn applied(&self, present: Option<&Machine>, now: Timestamp) -> Option<Machine> {
        let id = self
            .id
            .as_deref()
            .or_else(|| present.map(|it| it.id.as_str()))?;
        let fresh = Machine {
            id: id.to_owned(),
            instance_type: String::new(),
            region: String::new(),
            zone: String::new(),
            market: Market::Unknown,
            image: String::new(),
            pool: None,
            role: Role::Primary,
            baseline: self.baseline,
            since: now,
            role_since: now,
            attempted_at: None,
            ended_at: None,
        };
        let is_same = present.is_some_and(|present| present.id == id);
        let mut machine = match present {
            Some(present) if is_same => present.clone(),
            // A machine that takes over is like the one before it in what is not said of it.
            Some(present) => Machine {
                instance_type: present.instance_type.clone(),
                region: present.region.clone(),
                image: present.image.clone(),
                ..fresh
            },
            None => fresh,
        };
        set(&mut machine.instance_type, self.instance_type.as_ref());
        set(&mut machine.region, self.region.as_ref());
        set(&mut machine.zone, self.zone.as_ref());
        set(&mut machine.image, self.image.as_ref());
        machine.market = self.market.unwrap_or(machine.market);
        machine.pool = match machine.market {
            Market::Spot => self
                .pool
                .clone()
                .or_else(|| PoolId::of(&machine.instance_type, &machine.zone)),
            Market::OnDemand => None,
            Market::Unknown => self.pool.clone().or(machine.pool),
        };
        (present != Some(&machine)).then_some(machine)
    }

    /// Whether the report, heard from the agent, says something new of the machine that the node is on.
    #[must_use]
    pub fn is_news(&self, rental: &Rental) -> bool {
        self.applied(rental.primary(), Timestamp::default())
            .is_some()
    }
}

impl PolicyChange {
    /// The policy with the changes. What excludes what was turned on is turned off.
    #[must_use]
    pub fn applied(&self, policy: Policy) -> Policy {
        let mut next = Policy {
            enabled: self.enabled.unwrap_or(policy.enabled),
            auto_switch: self.auto_switch.unwrap_or(policy.auto_switch),
            auto_terminate: self.auto_terminate.unwrap_or(policy.auto_terminate),
            terminate_wait_seconds: self
                .terminate_wait_seconds
                .unwrap_or(policy.terminate_wait_seconds),
            replica: self.replica.unwrap_or(policy.replica),
            replica_count: self.replica_count.unwrap_or(policy.replica_count),
            manual_replica: self.manual_replica.unwrap_or(policy.manual_replica),
        };
        if self.auto_switch == Some(true) {
            next.manual_replica = false;
        }
        if self.manual_replica == Some(true) {
            next.auto_switch = false;
        }
        if policy.manual_replica && !next.manual_replica {
            next.replica_count = 0;
        }
        next
    }
}

fn set(field: &mut String, told: Option<&String>) {
    if let Some(told) = told {
        field.clone_from(told);
    }
}

//! Verbs: everything that can be asked of the fleet. The one inlet of every door and keeper.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{
    AliasKey, AssignmentId, CommandId, CommandKind, Contract, Desired, Exit, Foreign, Instance,
    NodeFacts, NodeId, Pressure, Resources, Sealed, UnitId, WorkloadId,
};

use crate::Progress;
use crate::access::{AccessVerb, Joining};
use crate::rented::{AccountVerb, Arrival, PriceReport, RentedVerb};

/// A request to the domain.
#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    // --- the fleet itself
    /// Gives an empty store its fleet id and epoch. On a fleet that has both it changes nothing.
    Found,
    /// Gives the store a new epoch, after a restore or a promotion.
    NewEpoch,

    // --- nodes, by their agents
    /// An agent says hello, for the first time or again. Creates the node, or refreshes its facts. A changed
    /// boot id is an event. A node that is not gone becomes `Joining` if it was not `Alive`.
    Announce(Box<NodeAnnouncement>),
    /// The agent has found out something new about its machine, such as a driver that works. A kind that is lost, or
    /// is back, is an event.
    Discover {
        node: NodeId,
        facts: Box<NodeFacts>,
    },
    /// The agent has said in full what runs there: the node is `Alive`. `units` are those of ours; copies that
    /// the fleet wants stopped and that are not among them are gone and removed.
    Resume {
        node: NodeId,
        units: Vec<UnitId>,
    },
    /// The connection broke or beats are late.
    Suspect {
        node: NodeId,
        reason: String,
    },
    /// The lease ran out.
    Silent {
        node: NodeId,
    },
    /// Beats again without a new hello.
    Returned {
        node: NodeId,
    },
    /// These singleton copies have surely stopped by themselves: contact was lost longer ago than their
    /// `stop_after` and a margin, measured in uptime.
    Fence {
        node: NodeId,
        assignments: Vec<AssignmentId>,
    },
    /// What changed on the node and matters to decisions. Reports about old generations are ignored.
    Report {
        node: NodeId,
        reports: Vec<UnitReport>,
    },
    /// The agent's mass-stop guard holds our intent back (`Some(why)`), or no longer does.
    HeldBack {
        node: NodeId,
        reason: Option<String>,
    },
    /// What the node is short of has changed, as its beats say.
    Pressed {
        node: NodeId,
        pressure: BTreeSet<Pressure>,
    },

    // --- nodes, by people
    /// Sets (`Some`) and removes (`None`) labels.
    Label {
        node: NodeId,
        labels: BTreeMap<String, Option<String>>,
        expect: Expect,
    },
    Cordon {
        node: NodeId,
        expect: Expect,
    },
    Uncordon {
        node: NodeId,
        expect: Expect,
    },
    /// Stop placing, move what runs. The keepers finish it.
    Drain {
        node: NodeId,
        expect: Expect,
    },
    /// Back to `Open`.
    Undrain {
        node: NodeId,
        expect: Expect,
    },
    /// The node's last copy is gone: `Draining` becomes `Drained`. Refused with `node-state-conflict` before.
    FinishDrain {
        node: NodeId,
    },
    /// Removes a node without copies; `force` gives up its copies as well (their slots are then vacant).
    RemoveNode {
        node: NodeId,
        force: bool,
        expect: Expect,
    },

    // --- workloads, by people
    /// Creates or changes workloads by the names in the specs: all, or none if one is refused. The same spec
    /// again changes nothing.
    Apply {
        specs: Vec<Arc<WorkloadSpec>>,
        options: ApplyOptions,
    },
    /// Creates or changes the workload that a foreign id stands for. Its name stays as it was given first; a new
    /// one gets the spec's name, with a suffix if another workload has it. The same again changes nothing.
    ApplyForeign {
        foreign: Arc<Foreign>,
        spec: Arc<WorkloadSpec>,
        desired: Desired,
        expect: Expect,
    },
    /// Running or stopped. The same again changes nothing.
    SetDesired {
        workload: WorkloadId,
        desired: Desired,
        expect: Expect,
    },
    /// A new generation of every copy, in place, a few at a time. Refused with `rollout-held` while a rollout waits
    /// for a person.
    Restart {
        workload: WorkloadId,
        expect: Expect,
    },
    /// A rollout that waits for a person goes on. Refused with `no-rollout` if there is none; one that is not
    /// held stays as it is.
    Promote {
        workload: WorkloadId,
        expect: Expect,
    },
    /// Applies the spec of an earlier revision as a new one: of revision `to`, else of the one before the rollout,
    /// else of the last that differs.
    Rollback {
        workload: WorkloadId,
        to: Option<u64>,
        expect: Expect,
    },
    /// Its copies stop, then the record goes.
    Delete {
        workload: WorkloadId,
        expect: Expect,
    },

    /// Runs a job once more. Of a schedule it makes a job for this moment, whatever else of it runs; a job gets a
    /// new generation of every copy. Refused for what is no job.
    Rerun {
        workload: WorkloadId,
        expect: Expect,
    },

    // --- schedules, by their keeper
    /// Makes the job of the last due moment, if that was not decided about: by the schedule's rule for jobs that
    /// still run. Forgets the oldest ended jobs.
    Tick {
        workload: WorkloadId,
    },

    // --- workloads, by the placement keeper
    /// Brings the copies of one workload nearer to what is wanted, touching at most `limit` copies: stops what
    /// is not wanted, places vacant slots, replaces copies of lost nodes by their disconnect rule, moves copies
    /// off draining nodes if there is room elsewhere, replaces outdated copies in place as far as the rollout
    /// lets it, removes the record of a deleted workload without copies. Changes nothing if all is settled or nothing fits.
    Settle {
        workload: WorkloadId,
        limit: usize,
    },

    // --- workloads, by the rollout keeper
    /// What was seen of the copies of a rollout; it goes on, is through, or has failed by it.
    Advance(Box<Progress>),

    // --- commands and aliases
    Issue {
        node: NodeId,
        kind: CommandKind,
    },
    /// The node's answer. A second answer to one id changes nothing.
    Acknowledge {
        node: NodeId,
        command: CommandId,
        result: Result<String, String>,
    },

    // --- who may come in
    Access(Box<AccessVerb>),
    /// A machine becomes a member: its key stands for a node from now on. Answers with the node, which may have to
    /// wait for approval. Refused if the token is none or spent; a machine that is a member already is answered.
    Join(Box<Joining>),

    // --- secrets, which are sealed before they come here
    /// Gives a secret a value, which was sealed as that version. Refused with `revision-conflict` if it is not the next.
    PutSecret {
        name: String,
        version: u64,
        sealed: Sealed,
        expect: Expect,
    },
    /// Refused with `secret-in-use` while a workload, or a copy of an earlier revision, names it.
    RemoveSecret {
        name: String,
        expect: Expect,
    },
    /// The same values under the key `to`: what has another version or key than was read is left alone. Answers how
    /// many were resealed, and whether any is under another key still.
    Reseal {
        to: String,
        secrets: Vec<Resealed>,
    },

    // --- rented machines, their accounts and their market
    Account(Box<AccountVerb>),
    /// An agent on a rented machine says hello, as with `Announce`.
    Rent(Box<Arrival>),
    Rented {
        node: NodeId,
        verb: Box<RentedVerb>,
    },
    /// Prices that an agent saw. Of one pool's quotes in five minutes the first of the most trusted is kept.
    Quote(Box<PriceReport>),

    // --- retention, by its keeper
    /// Forgets finished commands, revisions and switches beyond the kept ones, nodes gone for long and pools
    /// not seen for long; at most `limit`.
    Prune {
        limit: usize,
    },
}

/// A secret's value under another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    pub name: String,
    pub version: u64,
    /// The key that it was read with.
    pub from: String,
    pub sealed: Sealed,
}

/// What an agent's hello tells.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeAnnouncement {
    /// The agent's identity under its contract, uninterpreted.
    pub identity: AliasKey,
    /// The key that the session has proved to hold, where there is TLS. It must be a node's, and the identity
    /// that node's or nobody's.
    pub key: Option<AliasKey>,
    pub introduction: Introduction,
    pub contract: Contract,
    /// The name that the agent would like; if another living node has it, a suffix is added.
    pub name: String,
    pub facts: NodeFacts,
    /// Room for copies.
    pub capacity: Resources,
    /// Labels of the agent's configuration; set at the first hello, later ones never overwrite a person's.
    pub labels: BTreeMap<String, String>,
    /// The cloud machine now behind the node, if the agent knows; it changes when the node moves to another.
    pub instance: Option<Instance>,
}

/// What an agent says of its identity, beside the identity itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Introduction {
    /// Where there is no login: its key, so that it is known by it once there is.
    pub key: Option<AliasKey>,
    /// The newest authority that it believes, by the print of its certificate.
    pub believes: Option<String>,
    /// By what its machine is told from one with a copy of its disk.
    pub machine: Option<String>,
    /// The node whose disk its own is a copy of.
    pub copied_from: Option<NodeId>,
}

/// Word about one unit that matters to decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitReport {
    /// Nothing of it is on the node any more.
    Gone { unit: UnitId },
    /// It ended and its restart policy is spent.
    Finished { unit: UnitId, exit: Exit, runs: u32 },
    /// Its node has no runtime for it any more: it has to run elsewhere.
    Homeless { unit: UnitId },
    /// It goes on, for better or worse: nothing but an event.
    Turned { unit: UnitId, turn: Turn },
}

/// What became of a copy that is to go on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    Healthy,
    /// With what its check says.
    Unhealthy(String),
    /// It ended early several times in succession, the first time so.
    Crashing(Exit),
    Recovered,
}

/// How to apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    pub expect: Expect,
    /// Place what is missing in the same decision, or refuse with `no-placement`. A slot that waits for its
    /// old copy to stop only has to fit; it is placed once that copy is gone.
    pub require_placement: bool,
    /// Decide, check and answer, but change nothing.
    pub dry_run: bool,
}

/// Which revision the caller has seen (If-Match).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever it is; the last writer wins.
    #[default]
    Any,
    /// It must not exist (If-None-Match: *).
    Absent,
    /// It must be at this revision.
    Revision(u64),
}

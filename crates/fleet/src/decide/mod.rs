//! The one decider: a verb and the state in, changes or a refusal out. Pure and total.
//!
//! Who calls: the owner task of the control plane, for every verb of every door and keeper. A verb touches
//! few records; work on many copies is [`Verb::Settle`]'s, in chunks.

mod access;
mod accounts;
mod agents;
mod commands;
mod foreign;
mod jobs;
mod market;
mod operators;
mod pacing;
mod prune;
mod removal;
mod rentals;
mod replicas;
mod rollouts;
mod secrets;
mod settle;
mod workloads;

use std::sync::Arc;

pub use jobs::{due, is_active};

use hostler_model::{
    Actor, Code, CommandId, Event, EventKind, FleetId, Level, Node, NodeId, Refusal, StoreEpoch,
    Subject, Timestamp, Workload, WorkloadId,
};

use crate::moment::Draws;
use crate::{Change, Decision, Expect, Moment, Reply, State, Verb};

/// What the verb does to the state, or why not. The same input gives the same answer.
///
/// # Errors
/// A refusal with its code, a sentence and advice; nothing changes then.
pub fn decide(
    state: &State,
    moment: &Moment,
    actor: &Actor,
    verb: &Verb,
) -> Result<Decision, Refusal> {
    let mut draft = Draft::new(state, moment, actor);
    let reply = draft.decide(verb)?;
    Ok(Decision {
        changes: draft.changes,
        reply,
    })
}

/// A decision in the making.
struct Draft<'a> {
    state: &'a State,
    now: Timestamp,
    actor: &'a Actor,
    draws: Draws,
    changes: Vec<Change>,
    next_sequence: u64,
}

impl<'a> Draft<'a> {
    const fn new(state: &'a State, moment: &Moment, actor: &'a Actor) -> Self {
        Self {
            state,
            now: moment.now,
            actor,
            draws: moment.draws(),
            changes: Vec::new(),
            next_sequence: state.next_sequence(),
        }
    }

    fn decide(&mut self, verb: &Verb) -> Result<Reply, Refusal> {
        match verb {
            Verb::Found => Ok(self.found()),
            Verb::NewEpoch => Ok(self.new_epoch()),
            Verb::Announce(hello) => self.announce(hello),
            Verb::Resume { node, units } => self.resume(*node, units),
            Verb::Suspect { node, reason } => self.suspect(*node, reason),
            Verb::Silent { node } => self.silent(*node),
            Verb::Returned { node } => self.returned(*node),
            Verb::Fence { node, assignments } => self.fence(*node, assignments),
            Verb::Report { node, reports } => self.report(*node, reports),
            Verb::Discover { node, facts } => self.discover(*node, facts),
            Verb::HeldBack { node, reason } => self.held_back(*node, reason.as_deref()),
            Verb::Pressed { node, pressure } => self.pressed(*node, pressure),
            Verb::Label {
                node,
                labels,
                expect,
            } => self.label(*node, labels, *expect),
            Verb::Cordon { node, expect } => self.cordon(*node, *expect),
            Verb::Uncordon { node, expect } => self.uncordon(*node, *expect),
            Verb::Drain { node, expect } => self.drain(*node, *expect),
            Verb::Undrain { node, expect } => self.undrain(*node, *expect),
            Verb::FinishDrain { node } => self.finish_drain(*node),
            Verb::RemoveNode {
                node,
                force,
                expect,
            } => self.remove_node(*node, *force, *expect),
            Verb::Apply { specs, options } => self.apply(specs, *options),
            Verb::ApplyForeign {
                foreign,
                spec,
                desired,
                expect,
            } => self.apply_foreign(foreign, spec, *desired, *expect),
            Verb::SetDesired {
                workload,
                desired,
                expect,
            } => self.set_desired(*workload, *desired, *expect),
            Verb::Restart { workload, expect } => self.restart(*workload, *expect),
            Verb::Delete { workload, expect } => {
                self.set_desired(*workload, hostler_model::Desired::Deleted, *expect)
            }
            Verb::Promote { workload, expect } => self.promote_rollout(*workload, *expect),
            Verb::Rollback {
                workload,
                to,
                expect,
            } => self.roll_back(*workload, *to, *expect),
            Verb::Advance(seen) => Ok(self.advance(seen)),
            Verb::Tick { workload } => self.tick(*workload),
            Verb::Rerun { workload, expect } => self.rerun(*workload, *expect),
            Verb::Settle { workload, limit } => Ok(self.settle(*workload, *limit)),
            Verb::Issue { node, kind } => self.issue(*node, kind),
            Verb::Acknowledge {
                node,
                command,
                result,
            } => self.acknowledge(*node, *command, result),
            Verb::Access(verb) => self.access(verb),
            Verb::Join(joining) => self.join_with_token(joining),
            Verb::PutSecret {
                name,
                version,
                sealed,
                expect,
            } => self.put_secret(name, *version, sealed, *expect),
            Verb::RemoveSecret { name, expect } => self.remove_secret(name, *expect),
            Verb::Reseal { to, secrets } => Ok(self.reseal(to, secrets)),
            Verb::Account(verb) => self.account_verb(verb),
            Verb::Rent(arrival) => self.rent(arrival),
            Verb::Rented { node, verb } => self.rented(*node, verb),
            Verb::Quote(report) => self.record_prices(report),
            Verb::Prune { limit } => Ok(self.prune(*limit)),
        }
    }

    fn found(&mut self) -> Reply {
        if let Some((id, epoch)) = self.state.fleet() {
            return Reply::Fleet { id, epoch };
        }
        let id = FleetId::mint(self.now, self.draws.next());
        let epoch = StoreEpoch::mint(self.now, self.draws.next());
        self.changes.push(Change::PutFleet { id, epoch });
        let message = "the fleet is founded".to_owned();
        self.event(EventKind::FleetCreated, Subject::default(), message);
        Reply::Fleet { id, epoch }
    }

    fn new_epoch(&mut self) -> Reply {
        let Some((id, _)) = self.state.fleet() else {
            return self.found();
        };
        let epoch = StoreEpoch::mint(self.now, self.draws.next());
        self.changes.push(Change::PutFleet { id, epoch });
        let message = "the store begins a new epoch: agents keep what runs until their intent is \
                       accepted"
            .to_owned();
        self.warning(EventKind::StoreEpochChanged, Subject::default(), message);
        Reply::Fleet { id, epoch }
    }

    fn event(&mut self, kind: EventKind, subject: Subject, message: String) {
        self.append(kind, Level::Info, subject, message);
    }

    fn warning(&mut self, kind: EventKind, subject: Subject, message: String) {
        self.append(kind, Level::Warning, subject, message);
    }

    fn append(&mut self, kind: EventKind, level: Level, subject: Subject, message: String) {
        let event = Event {
            sequence: self.next_sequence,
            at: self.now,
            kind,
            level,
            subject,
            message,
            actor: self.actor.to_string(),
        };
        self.next_sequence = self.next_sequence.saturating_add(1);
        self.changes.push(Change::Append(Arc::new(event)));
    }

    fn put_node(&mut self, node: Node) {
        self.changes.push(Change::PutNode(Arc::new(node)));
    }

    /// The node, gone or not.
    fn node(&self, id: NodeId) -> Result<&'a Arc<Node>, Refusal> {
        self.state.node(id).ok_or_else(|| {
            let sentence = format!("no node has the id {id}");
            Refusal::new(
                Code::NodeNotFound,
                sentence,
                "list the nodes with `hostler node ls`",
            )
        })
    }

    /// The node, refused if it is gone.
    fn present_node(&self, id: NodeId) -> Result<&'a Arc<Node>, Refusal> {
        let node = self.node(id)?;
        if node.is_gone() {
            return Err(gone(node));
        }
        Ok(node)
    }

    fn workload(&self, id: WorkloadId) -> Result<&'a Arc<Workload>, Refusal> {
        self.state.workload(id).ok_or_else(|| {
            let sentence = format!("no workload has the id {id}");
            Refusal::new(
                Code::WorkloadNotFound,
                sentence,
                "list the workloads with `hostler ps`",
            )
        })
    }
}

fn gone(node: &Node) -> Refusal {
    let sentence = format!("node {} was removed from the fleet", node.name);
    let advice = "give the agent a new identity (an empty data directory) to join again";
    Refusal::new(Code::NodeGone, sentence, advice)
}

/// Refuses if the caller has seen another revision than the present one (`None`: there is none).
fn check_expected(expect: Expect, present: Option<u64>, noun: &str) -> Result<(), Refusal> {
    let sentence = match (expect, present) {
        (Expect::Any, _) | (Expect::Absent, None) => return Ok(()),
        (Expect::Revision(seen), Some(present)) if seen == present => return Ok(()),
        (Expect::Absent, Some(present)) => {
            format!("{noun} exists already, at revision {present}")
        }
        (Expect::Revision(seen), Some(present)) => {
            format!("{noun} is at revision {present}, not {seen}")
        }
        (Expect::Revision(seen), None) => {
            format!("{noun} does not exist, revision {seen} was expected")
        }
    };
    let advice = "read it again, see what changed, and repeat";
    Err(Refusal::new(Code::RevisionConflict, sentence, advice))
}

fn about_node(node: NodeId) -> Subject {
    Subject {
        node: Some(node),
        ..Subject::default()
    }
}

fn about_workload(workload: WorkloadId) -> Subject {
    Subject {
        workload: Some(workload),
        ..Subject::default()
    }
}

/// `1 copy`, `2 copies`.
fn copies(count: usize) -> String {
    match count {
        1 => "1 copy".to_owned(),
        count => format!("{count} copies"),
    }
}

/// Draws the id of a command.
fn command_id(now: Timestamp, draws: &mut Draws) -> CommandId {
    CommandId::mint(now, draws.next())
}

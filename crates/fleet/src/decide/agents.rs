//! Verbs of agents and of those who judge their liveness.
//!
//! ```text
//!   (unknown) ──announce──► Joining ──resume──► Alive ◄──returned── Suspect, Lost
//!                              ▲                  │ │
//!                              │                  │ └─suspect──► Suspect ──silent──► Lost
//!                              └────announce──────┴─(from Suspect, Lost)
//! ```
//!
//! Every transition is idempotent and one event. A node that is gone stays gone: its identity is kept, so
//! that its agent is told so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_model::{
    Admission, Assignment, AssignmentId, Bytes, EventKind, Intent, Liveness, Node, NodeFacts,
    NodeId, Outcome, Pressure, Refusal, StopCause, Subject, UnitId, WorkloadId, is_node_name,
};

use super::operators::check_labels;
use super::{Draft, about_node, copies, gone};
use crate::state::is_singleton;
use crate::{Change, NodeAnnouncement, Reply, Turn, UnitReport};

/// The label of a node that came from a copy of another's disk: the name that the other had.
const COPIED_FROM: &str = "copied-from";

impl Draft<'_> {
    pub(super) fn announce(&mut self, hello: &NodeAnnouncement) -> Result<Reply, Refusal> {
        if let Some(key) = &hello.key {
            let node = self.announced_by_key(key, &hello.identity)?;
            return Ok(self.refresh(&node, hello));
        }
        match self.state.node_by_alias(&hello.identity) {
            Some(node) if node.is_gone() => Err(gone(node)),
            Some(node) => {
                let node = Arc::clone(node);
                self.learn_key(&node, hello.introduction.key.as_ref());
                Ok(self.refresh(&node, hello))
            }
            None => Ok(self.join(hello, Admission::Open, None)),
        }
    }

    /// A new node; it may have the name of the one that it replaces.
    pub(super) fn join(
        &mut self,
        hello: &NodeAnnouncement,
        admission: Admission,
        replaced: Option<NodeId>,
    ) -> Reply {
        let id = NodeId::mint(self.now, self.draws.next());
        let original = hello.introduction.copied_from;
        let original = original.and_then(|id| self.state.node(id)).map(Arc::clone);
        let mut labels = hello.labels.clone();
        if let Some(original) = &original {
            let (key, name) = (COPIED_FROM.to_owned(), original.name.clone());
            // Not every name of a node can be a label.
            let is_label = check_labels(std::iter::once((&key, Some(&name)))).is_ok();
            let whose = if is_label {
                name
            } else {
                original.id.to_string()
            };
            labels.insert(key, whose);
        }
        let node = Node {
            id,
            name: self.free_name(&hello.name, id, replaced),
            contract: hello.contract,
            facts: hello.facts.clone(),
            capacity: hello.capacity,
            labels,
            liveness: Liveness::Joining,
            admission,
            instance: hello.instance.clone(),
            joined_at: self.now,
            gone_at: None,
            held_back: None,
            pressure: BTreeSet::new(),
            believes: hello.introduction.believes.clone(),
            machine: hello.introduction.machine.clone(),
            revision: 1,
        };
        let message = format!("node {} joined the fleet", node.name);
        let copied = original.map(|original| {
            let name = &original.name;
            format!("node {} came from a copy of {name}'s disk", node.name)
        });
        self.put_node(node.clone());
        self.put_alias(hello.identity.clone(), id);
        self.event(EventKind::NodeJoined, about_node(id), message);
        if let Some(message) = copied {
            self.warning(EventKind::NodeCloned, about_node(id), message);
        }
        self.learn_key(&node, hello.introduction.key.as_ref());
        Reply::Node { id, revision: 1 }
    }

    /// A known agent says hello again. Labels stay as people set them, and so does the name.
    fn refresh(&mut self, old: &Node, hello: &NodeAnnouncement) -> Reply {
        let reply = Reply::Node {
            id: old.id,
            revision: old.revision,
        };
        let is_alive = old.liveness == Liveness::Alive;
        let believes = hello.introduction.believes.clone();
        let believes = believes.or_else(|| old.believes.clone());
        let machine = hello.introduction.machine.clone();
        let machine = machine.or_else(|| old.machine.clone());
        let is_same = old.capacity == hello.capacity
            && old.believes == believes
            && old.machine == machine
            && old.contract == hello.contract
            && (hello.instance.is_none() || old.instance == hello.instance)
            && same_facts(&old.facts, &hello.facts);
        if is_same && (is_alive || old.liveness == Liveness::Joining) {
            return reply;
        }
        let is_rebooted = !old.facts.boot_id.is_empty() && old.facts.boot_id != hello.facts.boot_id;
        let liveness = if is_alive {
            Liveness::Alive
        } else {
            Liveness::Joining
        };
        if !is_alive {
            self.lift_fences(old);
        }
        // Another agent says anew what the machine is short of, or cannot say it.
        let is_same_agent = old.facts.agent_version == hello.facts.agent_version;
        let pressure = old.pressure.clone();
        self.put_node(Node {
            pressure: if is_same_agent {
                pressure
            } else {
                BTreeSet::new()
            },
            facts: hello.facts.clone(),
            capacity: hello.capacity,
            contract: hello.contract,
            instance: hello.instance.clone().or_else(|| old.instance.clone()),
            believes,
            machine,
            liveness,
            ..old.clone()
        });
        if is_rebooted {
            let message = format!("node {} has rebooted", old.name);
            self.warning(EventKind::NodeRebooted, about_node(old.id), message);
        }
        reply
    }

    pub(super) fn discover(&mut self, id: NodeId, found: &NodeFacts) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        let facts = NodeFacts {
            agent_version: node.facts.agent_version.clone(),
            foreign: node.facts.foreign.clone(),
            ..found.clone()
        };
        if !same_facts(&node.facts, &facts) {
            self.tell_of_drivers(node, &facts);
            self.put_node(Node {
                facts,
                ..Node::clone(node)
            });
        }
        Ok(Reply::Done)
    }

    /// What an agent finds out for the first time is no event.
    fn tell_of_drivers(&mut self, node: &Node, found: &NodeFacts) {
        for fact in &found.runtimes {
            let (kind, name) = (fact.kind, &node.name);
            let mut before = node.facts.runtimes.iter().filter(|it| it.kind == kind);
            match before.next().map(|before| before.available) {
                Some(true) if !fact.available => {
                    let message = format!("node {name} can no longer run {kind}: {}", fact.note);
                    self.warning(EventKind::NodeDriverLost, about_node(node.id), message);
                }
                Some(false) if fact.available => {
                    let message = format!("node {name} can run {kind} again");
                    self.event(EventKind::NodeDriverReady, about_node(node.id), message);
                }
                _ => {}
            }
        }
    }

    /// An agent that was heard of may start its fenced copies again, unless they were replaced meanwhile.
    fn lift_fences(&mut self, node: &Node) {
        let fenced = self.state.assignments_on(node.id);
        for copy in fenced.filter(|copy| copy.fenced && copy.is_wanted()) {
            let copy = Assignment {
                fenced: false,
                ..Assignment::clone(copy)
            };
            self.changes.push(Change::PutAssignment(Arc::new(copy)));
        }
    }

    pub(super) fn resume(&mut self, id: NodeId, units: &[UnitId]) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        let there: BTreeSet<AssignmentId> = units.iter().map(|unit| unit.assignment).collect();
        let gone: Vec<AssignmentId> = self
            .state
            .assignments_on(id)
            .filter(|copy| !copy.is_wanted() && !there.contains(&copy.id))
            .map(|copy| copy.id)
            .collect();
        let removals = gone.into_iter().map(Change::RemoveAssignment);
        self.changes.extend(removals);
        if node.liveness != Liveness::Alive {
            self.revive(node, EventKind::NodeReady, "is ready");
        }
        Ok(Reply::Done)
    }

    pub(super) fn returned(&mut self, id: NodeId) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if matches!(node.liveness, Liveness::Suspect | Liveness::Lost { .. }) {
            self.revive(node, EventKind::NodeReturned, "beats again");
        }
        Ok(Reply::Done)
    }

    /// The node is alive.
    fn revive(&mut self, node: &Node, kind: EventKind, what: &str) {
        self.lift_fences(node);
        self.put_node(Node {
            liveness: Liveness::Alive,
            ..node.clone()
        });
        let message = format!("node {} {what}", node.name);
        self.event(kind, about_node(node.id), message);
    }

    pub(super) fn suspect(&mut self, id: NodeId, reason: &str) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if matches!(node.liveness, Liveness::Alive | Liveness::Joining) {
            self.put_node(Node {
                liveness: Liveness::Suspect,
                ..Node::clone(node)
            });
            let message = format!("node {} is suspect: {reason}", node.name);
            self.warning(EventKind::NodeSuspect, about_node(id), message);
        }
        Ok(Reply::Done)
    }

    pub(super) fn silent(&mut self, id: NodeId) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if !matches!(node.liveness, Liveness::Lost { .. }) {
            self.put_node(Node {
                liveness: Liveness::Lost { since: self.now },
                ..Node::clone(node)
            });
            let held = copies(self.state.assignments_on(id).count());
            let message = format!("node {} is lost with {held}", node.name);
            self.warning(EventKind::NodeLost, about_node(id), message);
        }
        Ok(Reply::Done)
    }

    /// Only copies of singletons on a node that is still lost: one that came back runs them again.
    pub(super) fn fence(&mut self, id: NodeId, copies: &[AssignmentId]) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if !matches!(node.liveness, Liveness::Lost { .. }) {
            return Ok(Reply::Done);
        }
        let copies: BTreeSet<_> = copies.iter().collect();
        for copy in copies
            .into_iter()
            .filter_map(|id| self.state.assignment(*id))
        {
            let workload = self.state.workload(copy.workload).map(Arc::as_ref);
            if copy.node == id && !copy.fenced && is_singleton(workload) {
                let copy = Assignment {
                    fenced: true,
                    ..Assignment::clone(copy)
                };
                self.changes.push(Change::PutAssignment(Arc::new(copy)));
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn report(&mut self, id: NodeId, reports: &[UnitReport]) -> Result<Reply, Refusal> {
        let node = self.node(id)?;
        let mut seen = BTreeSet::new();
        let mut finished = BTreeMap::new();
        let mut turned: BTreeMap<_, Vec<AssignmentId>> = BTreeMap::new();
        for report in reports {
            let (UnitReport::Gone { unit }
            | UnitReport::Finished { unit, .. }
            | UnitReport::Homeless { unit }
            | UnitReport::Turned { unit, .. }) = report;
            let copy = self.state.assignment(unit.assignment);
            let Some(copy) = copy.filter(|copy| copy.node == id && copy.unit() == *unit) else {
                continue;
            };
            match (report, copy.intent) {
                (UnitReport::Gone { .. }, Intent::Stop { .. }) if seen.insert(copy.id) => {
                    self.changes.push(Change::RemoveAssignment(copy.id));
                }
                (UnitReport::Finished { exit, runs, .. }, Intent::Run)
                    if copy.outcome.is_none() && seen.insert(copy.id) =>
                {
                    let outcome = Outcome {
                        exit: *exit,
                        at: self.now,
                        runs: *runs,
                    };
                    let ended: &mut Vec<_> = finished.entry(copy.workload).or_default();
                    ended.push((copy.id, *exit));
                    let copy = Assignment {
                        outcome: Some(outcome),
                        ..Assignment::clone(copy)
                    };
                    self.changes.push(Change::PutAssignment(Arc::new(copy)));
                }
                (UnitReport::Homeless { .. }, Intent::Run)
                    if !copy.is_finished()
                        && !self.has_runtime(node, copy)
                        && seen.insert(copy.id) =>
                {
                    self.turn_out(node, copy);
                }
                (UnitReport::Turned { turn, .. }, Intent::Run) if copy.outcome.is_none() => {
                    let copies = turned.entry((copy.workload, turn.clone())).or_default();
                    copies.push(copy.id);
                }
                // A wanted copy that vanished is started again by its agent; a stopping one ends as gone.
                (
                    UnitReport::Gone { .. }
                    | UnitReport::Finished { .. }
                    | UnitReport::Homeless { .. }
                    | UnitReport::Turned { .. },
                    _,
                ) => {}
            }
        }
        for ((workload, turn), copies) in turned {
            self.tell_turn(id, workload, &turn, &copies);
        }
        for (workload, ended) in finished {
            let name = self
                .state
                .workload(workload)
                .map_or("?", |found| &found.name);
            let exit = ended
                .first()
                .map_or_else(String::new, |(_, exit)| exit.to_string());
            let message = format!("{} of {name} finished: {exit}", copies(ended.len()));
            let subject = Subject {
                node: Some(id),
                workload: Some(workload),
                assignment: (ended.len() == 1).then(|| ended[0].0),
            };
            if ended.iter().all(|(_, exit)| exit.is_success()) {
                self.event(EventKind::CopyFinished, subject, message);
            } else {
                self.warning(EventKind::CopyFinished, subject, message);
            }
        }
        Ok(Reply::Done)
    }

    fn has_runtime(&self, node: &Node, copy: &Assignment) -> bool {
        let workload = self.state.workload(copy.workload);
        workload.is_some_and(|workload| node.can_run_copy(&workload.spec))
    }

    /// Stops the copy, so that its slot is placed where it can run, or waits for such a node.
    fn turn_out(&mut self, node: &Node, copy: &Assignment) {
        let subject = Subject {
            node: Some(node.id),
            workload: Some(copy.workload),
            assignment: Some(copy.id),
        };
        let message = format!("node {} has no runtime for a copy of it", node.name);
        self.warning(EventKind::CopiesStopping, subject, message);
        self.changes
            .push(Change::PutAssignment(Arc::new(Assignment {
                intent: Intent::Stop {
                    cause: StopCause::Replaced,
                },
                ..copy.clone()
            })));
    }

    fn tell_turn(
        &mut self,
        node: NodeId,
        workload: WorkloadId,
        turn: &Turn,
        turned: &[AssignmentId],
    ) {
        let name = self.state.workload(workload).map_or("?", |it| &it.name);
        let who = format!("{} of {name}", copies(turned.len()));
        let subject = Subject {
            node: Some(node),
            workload: Some(workload),
            assignment: (turned.len() == 1).then(|| turned[0]),
        };
        match turn {
            Turn::Healthy => self.event(EventKind::CopyHealthy, subject, format!("{who}: healthy")),
            Turn::Recovered => {
                self.event(
                    EventKind::CopyRecovered,
                    subject,
                    format!("{who}: runs well again"),
                );
            }
            Turn::Unhealthy(why) => {
                self.warning(
                    EventKind::CopyUnhealthy,
                    subject,
                    format!("{who}: unhealthy: {why}"),
                );
            }
            Turn::Crashing(exit) => {
                let message =
                    format!("{who}: ends early again and again, the first time with {exit}");
                self.warning(EventKind::CopyCrashing, subject, message);
            }
        }
    }

    pub(super) fn held_back(&mut self, id: NodeId, reason: Option<&str>) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if node.held_back.as_deref() == reason {
            return Ok(Reply::Done);
        }
        self.put_node(Node {
            held_back: reason.map(str::to_owned),
            ..Node::clone(node)
        });
        let (kind, name) = (EventKind::NodeHeldBack, &node.name);
        match reason {
            Some(reason) => {
                let message = format!("node {name} holds the fleet's intent back: {reason}");
                self.warning(kind, about_node(id), message);
            }
            None => {
                let message = format!("node {name} follows the fleet's intent again");
                self.event(kind, about_node(id), message);
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn pressed(
        &mut self,
        id: NodeId,
        pressure: &BTreeSet<Pressure>,
    ) -> Result<Reply, Refusal> {
        let node = self.present_node(id)?;
        if node.pressure == *pressure {
            return Ok(Reply::Done);
        }
        let name = &node.name;
        let short_of = Pressure::phrase(pressure);
        self.put_node(Node {
            pressure: pressure.clone(),
            ..Node::clone(node)
        });
        if pressure.is_empty() {
            let message = format!("node {name} is short of nothing any more");
            self.event(EventKind::NodeRelieved, about_node(id), message);
        } else {
            let message =
                format!("node {name} is short of {short_of}: nothing new is placed there");
            self.warning(EventKind::NodePressed, about_node(id), message);
        }
        Ok(Reply::Done)
    }

    /// The name itself, or with a suffix if another living node has it.
    fn free_name(&self, wanted: &str, id: NodeId, replaced: Option<NodeId>) -> String {
        const MOST_NUMBERED: u32 = 32;
        if !is_node_name(wanted) {
            return format!("node-{}", id.short());
        }
        let is_free = |name: &String| {
            let holder = self.state.node_by_name(name);
            holder.is_none_or(|node| Some(node.id) == replaced)
        };
        let numbered = (2..=MOST_NUMBERED).map(|number| format!("{wanted}-{number}"));
        std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(is_free)
            .unwrap_or_else(|| format!("{wanted}-{}", id.short()))
    }
}

/// Whether nothing differs but how full the disks are, which changes all the time and decides nothing.
fn same_facts(one: &NodeFacts, other: &NodeFacts) -> bool {
    let without_free = |facts: &NodeFacts| {
        let mut facts = facts.clone();
        for disk in &mut facts.disks {
            disk.free = Bytes(0);
        }
        facts
    };
    one == other || without_free(one) == without_free(other)
}

//! The state: every record of the fleet, and indexes over them.
//!
//! The records are the truth and are persisted; the indexes follow from them alone, are kept in step by
//! [`State::apply`], and are never persisted: a state rebuilt from its records equals the one that grew.
//! Records are shared (`Arc`) between the head and the view of the control plane. Events are not kept here,
//! only the number of the next one. Nothing here can fail; what makes no sense is indexed as it is.
//!
//! | index | answers |
//! |---|---|
//! | names, aliases | which node or workload is meant |
//! | rooms | what the copies on a node hold |
//! | copies | which slots are vacant, which copies need attention |
//! | yard | which node takes a copy (only nodes that take any) |
//! | schedules, jobs | what makes jobs, and what it has made |
//! | unsettled | which workloads settling might change, the biggest copies first |
//! | rolling | which workloads have a rollout under way |

mod access;
mod apply;
mod copies;
mod find;
mod gaps;
mod rented;
mod room;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{
    Alias, AliasKey, AliasOwner, Assignment, AssignmentId, Command, CommandId, FleetId, IntentItem,
    Node, NodeId, Resources, Revision, Secret, StoreEpoch, Timestamp, Workload, WorkloadId,
};

pub(crate) use copies::{Copies, Footing, is_singleton};
pub(crate) use room::{EMPTY_ROOM, Room};

use crate::Change;
use crate::placement::Yard;

/// Every record of the fleet, with indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    fleet: Option<(FleetId, StoreEpoch)>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    revisions: BTreeMap<(WorkloadId, u64), Arc<Revision>>,
    assignments: BTreeMap<AssignmentId, Arc<Assignment>>,
    commands: BTreeMap<CommandId, Arc<Command>>,
    aliases: BTreeMap<AliasKey, Arc<Alias>>,
    secrets: BTreeMap<String, Arc<Secret>>,
    next_sequence: u64,

    node_names: BTreeSet<(String, NodeId)>,
    workload_names: BTreeSet<(String, WorkloadId)>,
    schedules: BTreeSet<WorkloadId>,
    /// Jobs by the schedule that made them.
    jobs: BTreeSet<(WorkloadId, WorkloadId)>,
    alias_owners: BTreeSet<(AliasOwner, AliasKey)>,
    node_commands: BTreeSet<(NodeId, CommandId)>,
    answered: BTreeSet<CommandId>,
    requests: BTreeMap<(NodeId, String), CommandId>,
    gone: BTreeSet<(Timestamp, NodeId)>,
    revision_counts: BTreeMap<WorkloadId, usize>,
    wordy: BTreeSet<WorkloadId>,
    rooms: BTreeMap<NodeId, Room>,
    copies: BTreeMap<WorkloadId, Copies>,
    yard: Yard,
    unsettled: BTreeSet<(Reverse<u64>, WorkloadId)>,
    rolling: BTreeSet<WorkloadId>,

    access: access::Access,
    rented: rented::Rented,
}

/// How many revisions of a workload are kept beside those that copies still run.
pub(crate) const KEPT_REVISIONS: usize = 20;

impl State {
    /// The state that these changes lead to, in any order that puts each record at most once.
    #[must_use]
    pub fn from_changes<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut state = Self::default();
        for change in changes {
            state.apply(change);
        }
        state
    }

    /// The fleet's id and the store's epoch, once it is founded.
    #[must_use]
    pub const fn fleet(&self) -> Option<(FleetId, StoreEpoch)> {
        self.fleet
    }

    /// The number that the next event gets; the first is 1, so that 0 stands before all.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        if self.next_sequence == 0 {
            1
        } else {
            self.next_sequence
        }
    }

    /// Goes on counting events there, after a load whose events were not all applied.
    pub fn resume_sequence(&mut self, next: u64) {
        self.next_sequence = self.next_sequence.max(next);
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// Every node, also those that are gone, the oldest first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Arc<Node>> + ExactSizeIterator {
        self.nodes.values()
    }

    /// The node of that name that is not gone.
    #[must_use]
    pub fn node_by_name(&self, name: &str) -> Option<&Arc<Node>> {
        let first = (name.to_owned(), NodeId::LEAST);
        let (found, id) = self.node_names.range(first..).next()?;
        (found == name).then(|| self.nodes.get(id))?
    }

    /// The node that the foreign id stands for, even if it is gone.
    #[must_use]
    pub fn node_by_alias(&self, key: &AliasKey) -> Option<&Arc<Node>> {
        match self.aliases.get(key)?.owner {
            AliasOwner::Node(id) => self.nodes.get(&id),
            AliasOwner::Workload(_) => None,
        }
    }

    /// The workload that the foreign id stands for, also while it is being deleted.
    #[must_use]
    pub fn workload_by_alias(&self, key: &AliasKey) -> Option<&Arc<Workload>> {
        match self.aliases.get(key)?.owner {
            AliasOwner::Workload(id) => self.workloads.get(&id),
            AliasOwner::Node(_) => None,
        }
    }

    #[must_use]
    pub fn alias(&self, key: &AliasKey) -> Option<&Arc<Alias>> {
        self.aliases.get(key)
    }

    /// The foreign ids that stand for a node or a workload.
    pub fn aliases_of(&self, owner: AliasOwner) -> impl Iterator<Item = &Arc<Alias>> {
        let least = AliasKey {
            contract: hostler_model::Contract::Session,
            scope: String::new(),
            foreign: String::new(),
        };
        let of_owner = self.alias_owners.range((owner, least)..);
        of_owner
            .take_while(move |(it, _)| *it == owner)
            .filter_map(|(_, key)| self.aliases.get(key))
    }

    #[must_use]
    pub fn workload(&self, id: WorkloadId) -> Option<&Arc<Workload>> {
        self.workloads.get(&id)
    }

    /// Every workload, also those being deleted, the oldest first.
    pub fn workloads(&self) -> impl DoubleEndedIterator<Item = &Arc<Workload>> + ExactSizeIterator {
        self.workloads.values()
    }

    /// The workload of that name, also while it is being deleted: its name is free once its record is gone.
    #[must_use]
    pub fn workload_by_name(&self, name: &str) -> Option<&Arc<Workload>> {
        let first = (name.to_owned(), WorkloadId::LEAST);
        let (found, id) = self.workload_names.range(first..).next()?;
        (found == name).then(|| self.workloads.get(id))?
    }

    #[must_use]
    pub fn secret(&self, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(name)
    }

    /// Every secret, by name.
    pub fn secrets(&self) -> impl ExactSizeIterator<Item = &Arc<Secret>> {
        self.secrets.values()
    }

    /// The workloads that name the secret: in their spec, in what an unfinished rollout may go back to, or in a
    /// revision that a copy runs. Looks at all of them: it is asked for by people alone.
    pub fn users_of_secret<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Workload>> {
        let named = move |spec: &WorkloadSpec| spec.secrets.iter().any(|it| it.name == name);
        self.workloads.values().filter(move |workload| {
            let base = workload.rollout.as_ref().map(|it| it.base.revision);
            let copies = self.assignments_of(workload.id).map(|it| it.revision);
            let mut steps = copies
                .chain(base)
                .filter_map(|number| self.revision(workload.id, number));
            named(&workload.spec) || steps.any(|step| named(&step.spec))
        })
    }

    #[must_use]
    pub fn revision(&self, workload: WorkloadId, number: u64) -> Option<&Arc<Revision>> {
        self.revisions.get(&(workload, number))
    }

    /// The kept revisions of a workload, the oldest first.
    pub fn history(&self, workload: WorkloadId) -> impl DoubleEndedIterator<Item = &Arc<Revision>> {
        let all = (workload, 0)..=(workload, u64::MAX);
        self.revisions.range(all).map(|(_, revision)| revision)
    }

    #[must_use]
    pub fn assignment(&self, id: AssignmentId) -> Option<&Arc<Assignment>> {
        self.assignments.get(&id)
    }

    /// The assignments behind this one, the oldest first.
    pub fn assignments_after(
        &self,
        after: Option<AssignmentId>,
    ) -> impl Iterator<Item = &Arc<Assignment>> {
        let rest = (bound(after), Bound::Unbounded);
        self.assignments.range(rest).map(|(_, copy)| copy)
    }

    /// The copies of a workload behind this slot and copy, at most so many: by slot, then the oldest first.
    #[must_use]
    pub fn copies_after(
        &self,
        workload: WorkloadId,
        after: Option<(u32, AssignmentId)>,
        most: usize,
    ) -> Vec<&Arc<Assignment>> {
        let Some(copies) = self.copies.get(&workload) else {
            return Vec::new();
        };
        let rest = (bound(after), Bound::Unbounded);
        let sets = [&copies.wanted, &copies.blocking, &copies.loose];
        let mut keys: Vec<_> = sets
            .iter()
            .flat_map(|set| set.range(rest).take(most))
            .collect();
        keys.sort_unstable();
        keys.truncate(most);
        keys.iter()
            .filter_map(|(_, id)| self.assignments.get(id))
            .collect()
    }

    /// Every assignment, the oldest first.
    pub fn assignments(
        &self,
    ) -> impl DoubleEndedIterator<Item = &Arc<Assignment>> + ExactSizeIterator {
        self.assignments.values()
    }

    /// The copies of a workload: those that are wanted by slot, then those that are to stop.
    pub fn assignments_of(&self, workload: WorkloadId) -> impl Iterator<Item = &Arc<Assignment>> {
        let copies = self.copies.get(&workload).into_iter();
        copies
            .flat_map(Copies::all)
            .filter_map(|id| self.assignments.get(&id))
    }

    /// The copies on a node, the oldest first.
    pub fn assignments_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Assignment>> {
        let ids = self.room(node).copies.iter();
        ids.filter_map(|id| self.assignments.get(id))
    }

    #[must_use]
    pub fn command(&self, id: CommandId) -> Option<&Arc<Command>> {
        self.commands.get(&id)
    }

    /// The commands to a node, the oldest first.
    pub fn commands_of(&self, node: NodeId) -> impl Iterator<Item = &Arc<Command>> {
        let ids = (node, CommandId::LEAST)..=(node, CommandId::MOST);
        let ids = self.node_commands.range(ids);
        ids.filter_map(|(_, id)| self.commands.get(id))
    }

    /// The command to a node that its author gave this id of a request.
    #[must_use]
    pub fn command_by_request(&self, node: NodeId, request: &str) -> Option<&Arc<Command>> {
        let id = self.requests.get(&(node, request.to_owned()))?;
        self.commands.get(id)
    }

    /// What is left of a node's capacity; nothing if it is unknown.
    #[must_use]
    pub fn free(&self, node: NodeId) -> Resources {
        let capacity = self.nodes.get(&node).map(|node| node.capacity);
        capacity
            .unwrap_or(Resources::ZERO)
            .minus(&self.room(node).used)
    }

    /// How many copies hold claims on a node.
    #[must_use]
    pub fn copies_on(&self, node: NodeId) -> u32 {
        self.room(node).holding
    }

    /// How many slots of a running workload have no copy. Slots that wait for an old copy to stop count.
    #[must_use]
    pub fn pending_copies(&self, workload: WorkloadId) -> u32 {
        let Some((record, copies)) = self
            .workloads
            .get(&workload)
            .zip(self.copies.get(&workload))
        else {
            return 0;
        };
        if record.desired != hostler_model::Desired::Running {
            return 0;
        }
        let count = record.spec.copies() + record.spares();
        let surplus = copies.surplus(record.spec.copies(), record.spares());
        let covered = copies.wanted.len() - surplus.count();
        count.saturating_sub(u32::try_from(covered).unwrap_or(u32::MAX))
    }

    /// Workloads that make jobs at due moments.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.schedules
            .iter()
            .filter_map(|id| self.workloads.get(id))
    }

    /// The jobs that a schedule has made, the oldest first.
    pub fn jobs_of(&self, schedule: WorkloadId) -> impl Iterator<Item = &Arc<Workload>> {
        let first = (schedule, WorkloadId::LEAST);
        let last = (schedule, WorkloadId::MOST);
        let jobs = self.jobs.range(first..=last);
        jobs.filter_map(|(_, job)| self.workloads.get(job))
    }

    /// Workloads that settling might change: a superset, kept by index. Bigger copies come first, for they
    /// are harder to place.
    pub fn unsettled(&self) -> impl ExactSizeIterator<Item = WorkloadId> {
        self.unsettled.iter().map(|(_, workload)| *workload)
    }

    /// Workloads with a rollout that is under way or has failed.
    pub fn rolling(&self) -> impl ExactSizeIterator<Item = WorkloadId> {
        self.rolling.iter().copied()
    }

    /// What a node is told in full. Copies that finished stay in it, so that the agent keeps their logs; it
    /// does not start them again.
    #[must_use]
    pub fn intent(&self, node: NodeId) -> Vec<IntentItem> {
        self.assignments_on(node)
            .filter_map(|copy| self.intent_item(copy))
            .collect()
    }

    /// What a node is told about one copy; `None` if its workload is unknown.
    #[must_use]
    pub fn intent_item(&self, copy: &Assignment) -> Option<IntentItem> {
        let workload = self.workloads.get(&copy.workload)?;
        let spec = self.revision(copy.workload, copy.revision);
        Some(IntentItem {
            unit: copy.unit(),
            workload: copy.workload,
            workload_name: workload.name.clone(),
            slot: copy.slot,
            intent: copy.intent,
            revision: copy.revision,
            spec: Arc::clone(spec.map_or(&workload.spec, |revision| &revision.spec)),
            is_finished: copy.is_finished(),
        })
    }

    pub(crate) fn room(&self, node: NodeId) -> &Room {
        self.rooms.get(&node).unwrap_or(&EMPTY_ROOM)
    }

    pub(crate) fn copies(&self, workload: WorkloadId) -> Option<&Copies> {
        self.copies.get(&workload)
    }

    pub(crate) const fn yard(&self) -> &Yard {
        &self.yard
    }

    pub(crate) fn footing(&self, node: NodeId) -> Footing {
        Footing::of(self.nodes.get(&node).map(Arc::as_ref))
    }

    /// Workloads with more revisions than are kept.
    pub(crate) fn wordy(&self) -> impl Iterator<Item = WorkloadId> {
        self.wordy.iter().copied()
    }

    /// Commands with an answer, the oldest first.
    pub(crate) const fn answered(&self) -> &BTreeSet<CommandId> {
        &self.answered
    }

    /// Nodes that are gone, the longest first.
    pub(crate) const fn gone(&self) -> &BTreeSet<(Timestamp, NodeId)> {
        &self.gone
    }
}

/// Where what stands behind the key begins.
fn bound<K>(after: Option<K>) -> Bound<K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

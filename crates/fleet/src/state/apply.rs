//! Applying changes: records first, then every index that follows from them.

use std::cmp::Reverse;
use std::sync::Arc;

use hostler_model::{
    Alias, AliasKey, Assignment, AssignmentId, Command, CommandId, CommandState, Node, NodeId,
    Revision, Workload, WorkloadId,
};

use super::copies::Standing;
use super::{Copies, EMPTY_ROOM, Footing, KEPT_REVISIONS, State, is_singleton};
use crate::Change;
use crate::placement::weight;

impl State {
    /// Makes the change. Making it twice is as making it once.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::PutFleet { id, epoch } => self.fleet = Some((*id, *epoch)),
            Change::PutNode(node) => self.set_node(node.id, Some(node)),
            Change::RemoveNode(id) => self.set_node(*id, None),
            Change::PutWorkload(workload) => self.set_workload(workload.id, Some(workload)),
            Change::RemoveWorkload(id) => self.set_workload(*id, None),
            Change::PutRevision(revision) => self.put_revision(revision),
            Change::RemoveRevision(workload, number) => self.remove_revision(*workload, *number),
            Change::PutAssignment(copy) => self.put_assignment(copy),
            Change::RemoveAssignment(id) => self.remove_assignment(*id),
            Change::PutCommand(command) => self.put_command(command),
            Change::RemoveCommand(id) => self.remove_command(*id),
            Change::PutAlias(alias) => self.put_alias(alias),
            Change::RemoveAlias(key) => self.remove_alias(key),
            Change::PutToken(token) => {
                self.access.tokens.insert(token.id, Arc::clone(token));
            }
            Change::RemoveToken(id) => {
                self.access.tokens.remove(id);
            }
            Change::PutJoinToken(token) => {
                self.access.join_tokens.insert(token.id, Arc::clone(token));
            }
            Change::RemoveJoinToken(id) => {
                self.access.join_tokens.remove(id);
            }
            Change::PutAccount(account) => self.rented.put_account(account),
            Change::RemoveAccount(id) => self.rented.remove_account(*id),
            Change::PutRental(rental) => self.rented.put_rental(rental),
            Change::RemoveRental(node) => self.rented.remove_rental(*node),
            Change::PutPool(pool) => self.rented.put_pool(pool),
            Change::RemovePool(id) => self.rented.remove_pool(id),
            Change::PutQuote(quote) => self.rented.put_quote(quote),
            Change::RemoveQuote(pool, slot) => self.rented.remove_quote(pool, *slot),
            Change::PutSwitch(switch) => self.rented.put_switch(switch),
            Change::RemoveSwitch(id) => self.rented.remove_switch(*id),
            Change::PutSecret(secret) => {
                self.secrets.insert(secret.name.clone(), Arc::clone(secret));
            }
            Change::RemoveSecret(name) => {
                self.secrets.remove(name);
            }
            Change::Append(event) => {
                self.next_sequence = self.next_sequence.max(event.sequence.saturating_add(1));
            }
        }
    }

    /// Makes the changes, in order.
    pub fn apply_all<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        for change in changes {
            self.apply(change);
        }
    }

    fn put_assignment(&mut self, copy: &Arc<Assignment>) {
        if let Some(old) = self.assignments.insert(copy.id, Arc::clone(copy)) {
            self.leave_room(&old);
            self.leave_workload(&old);
            if old.node != copy.node {
                self.refresh_yard(old.node);
            }
            if old.workload != copy.workload {
                self.refresh_workload(old.workload);
            }
        }
        self.rooms.entry(copy.node).or_default().insert(copy);
        self.refresh_yard(copy.node);
        self.join_workload(copy);
        self.refresh_workload(copy.workload);
    }

    fn remove_assignment(&mut self, id: AssignmentId) {
        let Some(old) = self.assignments.remove(&id) else {
            return;
        };
        self.leave_room(&old);
        self.refresh_yard(old.node);
        self.leave_workload(&old);
        self.refresh_workload(old.workload);
    }

    fn leave_room(&mut self, copy: &Assignment) {
        if let Some(room) = self.rooms.get_mut(&copy.node) {
            room.remove(copy);
            if room.copies.is_empty() {
                self.rooms.remove(&copy.node);
            }
        }
    }

    fn standing(&self, copy: &Assignment) -> Standing {
        let workload = self.workloads.get(&copy.workload).map(Arc::as_ref);
        Standing::of(copy, self.footing(copy.node), is_singleton(workload))
    }

    fn join_workload(&mut self, copy: &Assignment) {
        let standing = self.standing(copy);
        let copies = self.copies.entry(copy.workload).or_default();
        copies.insert(copy, standing);
    }

    fn leave_workload(&mut self, copy: &Assignment) {
        let standing = self.standing(copy);
        if let Some(copies) = self.copies.get_mut(&copy.workload) {
            copies.remove(copy, standing);
        }
    }

    /// A node record comes, changes or goes. What its copies mean for their workloads may change with it.
    fn set_node(&mut self, id: NodeId, new: Option<&Arc<Node>>) {
        let old = self.nodes.get(&id).cloned();
        let footing = Footing::of(new.map(Arc::as_ref));
        let moved: Vec<Arc<Assignment>> = if footing == self.footing(id) {
            Vec::new()
        } else {
            self.assignments_on(id).cloned().collect()
        };
        for copy in &moved {
            self.leave_workload(copy);
        }
        if let Some(old) = &old {
            self.node_names.remove(&(old.name.clone(), id));
            if let Some(at) = old.gone_at {
                self.gone.remove(&(at, id));
            }
        }
        match new {
            Some(node) => {
                match node.gone_at {
                    Some(at) => self.gone.insert((at, id)),
                    None => self.node_names.insert((node.name.clone(), id)),
                };
                self.nodes.insert(id, Arc::clone(node));
            }
            None => {
                self.nodes.remove(&id);
            }
        }
        self.refresh_yard(id);
        for copy in &moved {
            self.join_workload(copy);
            self.refresh_workload(copy.workload);
        }
    }

    fn refresh_yard(&mut self, id: NodeId) {
        let node = self.nodes.get(&id).filter(|node| node.is_eligible());
        let room = self.rooms.get(&id).unwrap_or(&EMPTY_ROOM);
        self.yard.set(id, node, room);
    }

    /// A workload record comes, changes or goes.
    fn set_workload(&mut self, id: WorkloadId, new: Option<&Arc<Workload>>) {
        let old = self.workloads.get(&id).cloned();
        let singleton_before = is_singleton(old.as_deref());
        let singleton_after = is_singleton(new.map(Arc::as_ref));
        let moved: Vec<Arc<Assignment>> = if singleton_before == singleton_after {
            Vec::new()
        } else {
            self.assignments_of(id).cloned().collect()
        };
        for copy in &moved {
            self.leave_workload(copy);
        }
        if let Some(old) = &old {
            self.workload_names.remove(&(old.name.clone(), id));
            self.unsettled.remove(&unsettled_key(old));
            self.rolling.remove(&id);
            self.schedules.remove(&id);
            if let Some(parent) = old.parent {
                self.jobs.remove(&(parent, id));
            }
        }
        match new {
            Some(workload) => {
                self.workload_names.insert((workload.name.clone(), id));
                if workload.rollout.is_some() {
                    self.rolling.insert(id);
                }
                if workload.spec.is_scheduled() {
                    self.schedules.insert(id);
                }
                if let Some(parent) = workload.parent {
                    self.jobs.insert((parent, id));
                }
                self.workloads.insert(id, Arc::clone(workload));
                self.copies.entry(id).or_default();
            }
            None => {
                self.workloads.remove(&id);
            }
        }
        for copy in &moved {
            self.join_workload(copy);
        }
        self.refresh_workload(id);
    }

    fn refresh_workload(&mut self, id: WorkloadId) {
        let Some(workload) = self.workloads.get(&id) else {
            if self.copies.get(&id).is_some_and(Copies::is_empty) {
                self.copies.remove(&id);
            }
            return;
        };
        let copies = self.copies.entry(id).or_default();
        let key = unsettled_key(workload);
        if copies.is_unsettled(workload) {
            self.unsettled.insert(key);
        } else {
            self.unsettled.remove(&key);
        }
    }

    fn put_revision(&mut self, revision: &Arc<Revision>) {
        let key = (revision.workload, revision.number);
        if self.revisions.insert(key, Arc::clone(revision)).is_none() {
            let count = self.revision_counts.entry(revision.workload).or_default();
            *count += 1;
            if *count > KEPT_REVISIONS {
                self.wordy.insert(revision.workload);
            }
        }
    }

    fn remove_revision(&mut self, workload: WorkloadId, number: u64) {
        if self.revisions.remove(&(workload, number)).is_none() {
            return;
        }
        let count = self.revision_counts.entry(workload).or_default();
        *count -= 1;
        let left = *count;
        if left <= KEPT_REVISIONS {
            self.wordy.remove(&workload);
        }
        if left == 0 {
            self.revision_counts.remove(&workload);
        }
    }

    fn put_command(&mut self, command: &Arc<Command>) {
        self.remove_command(command.id);
        self.node_commands.insert((command.node, command.id));
        if command.state != CommandState::Pending {
            self.answered.insert(command.id);
        }
        if let Some(request) = &command.request {
            self.requests
                .insert((command.node, request.clone()), command.id);
        }
        self.commands.insert(command.id, Arc::clone(command));
    }

    fn remove_command(&mut self, id: CommandId) {
        if let Some(old) = self.commands.remove(&id) {
            self.node_commands.remove(&(old.node, id));
            self.answered.remove(&id);
            if let Some(request) = &old.request {
                self.requests.remove(&(old.node, request.clone()));
            }
        }
    }

    fn put_alias(&mut self, alias: &Arc<Alias>) {
        self.remove_alias(&alias.key);
        self.alias_owners.insert((alias.owner, alias.key.clone()));
        self.aliases.insert(alias.key.clone(), Arc::clone(alias));
    }

    fn remove_alias(&mut self, key: &AliasKey) {
        if let Some(old) = self.aliases.remove(key) {
            self.alias_owners.remove(&(old.owner, key.clone()));
        }
    }
}

/// Bigger copies first.
fn unsettled_key(workload: &Workload) -> (Reverse<u64>, WorkloadId) {
    (Reverse(weight(&workload.spec.resources)), workload.id)
}

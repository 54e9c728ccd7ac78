//! Settling: bringing the copies of one workload nearer to what is wanted, a chunk at a time.
//!
//! In this order, each step while the chunk lasts, removals before additions:
//!
//! 1. records of copies on nodes that are gone are removed;
//! 2. copies that are not wanted (count, stopped, deleted) are stopped;
//! 3. copies on lost nodes are replaced by the disconnect rule, copies on draining nodes move, if there is
//!    a place elsewhere; a singleton only once it has surely stopped;
//! 4. outdated copies (template, restart) become a new generation in place, or move if they no longer fit, as
//!    many as the rollout lets (`pacing`);
//! 5. vacant slots are filled; a slot waits for its old copy while that is still being stopped.
//!
//! While a rollout is held, 3 and 5 make copies of what ran before it; only those beside the counted ones are new.
//!
//! A copy on a suspect node is left alone. A finished copy rests until its template changes. If nothing
//! fits, what runs goes on running.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_model::{
    AliasOwner, Assignment, AssignmentId, Desired, EventKind, FIRST_SPARE_SLOT, Intent, Liveness,
    Node, NodeId, Rollout, StopCause, Workload, WorkloadId,
};

use super::rollouts::held_base;
use super::{Draft, about_workload, copies};
use crate::placement::{Places, Takings, satisfies};
use crate::state::{Copies, Footing, is_singleton};
use crate::{Change, Reply};

/// One chunk of settling.
pub(super) struct Chunk<'d, 's> {
    pub(super) draft: &'d mut Draft<'s>,
    pub(super) workload: &'d Workload,
    /// What new copies are made of: the workload, or what it was before its rollout.
    mould: &'d Workload,
    /// Which slots are looked at.
    pub(super) part: Part,
    pub(super) copies: &'d Copies,
    places: Option<Places<'d>>,
    /// Nothing fits any more: all copies of one mould are alike.
    pub(super) is_full: bool,
    generation: u64,
    rollout: Option<Rollout>,
    homes: BTreeMap<u32, NodeId>,
    pub(super) left: usize,
    tally: Tally,
    moved: BTreeSet<AssignmentId>,
    /// Vacant slots that this chunk has filled.
    filled: BTreeSet<u32>,
    /// Counted copies that were known to be healthy and that this chunk has moved.
    taken_down: usize,
}

/// Which slots of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// Those below the count.
    Counted,
    /// Those of copies that run beside the counted ones during a rollout.
    Beside,
}

/// What the chunk did, for its events.
#[derive(Default)]
struct Tally {
    removed: usize,
    stopping: usize,
    replaced: usize,
    updated: usize,
    placed: usize,
}

impl Draft<'_> {
    pub(super) fn settle(&mut self, id: WorkloadId, limit: usize) -> Reply {
        let found = self.state.workload(id).zip(self.state.copies(id));
        let Some((workload, copies)) = found.filter(|_| limit > 0) else {
            return Reply::Touched {
                count: 0,
                more: false,
            };
        };
        if workload.desired == Desired::Deleted && copies.is_empty() {
            self.forget_workload(workload);
            return Reply::Touched {
                count: 1,
                more: false,
            };
        }
        let base = held_base(self.state, workload);
        let mut chunk = Chunk::new(self, workload, copies, limit);
        chunk.remove_adrift();
        match workload.desired {
            Desired::Running => {
                chunk.stop_surplus();
                if let Some(base) = &base {
                    chunk.cast(base, Part::Counted);
                    chunk.move_uneasy();
                    chunk.fill_vacant();
                    chunk.cast(workload, Part::Beside);
                }
                chunk.move_uneasy();
                chunk.renew_outdated();
                chunk.fill_vacant();
            }
            Desired::Stopped => chunk.stop_all(StopCause::Stopped),
            Desired::Deleted => chunk.stop_all(StopCause::Deleted),
        }
        let (left, removed) = (chunk.left, chunk.tally.removed);
        chunk.finish();
        Reply::Touched {
            count: limit - left,
            more: left == 0 || removed > 0,
        }
    }

    /// Fills every vacant slot of a workload as it is about to be, after what was `taken` for others. Answers
    /// how many wanted copies have no place; a slot that waits for its old copy counts if it would have none.
    pub(super) fn fill(&mut self, next: &Workload, taken: &mut Takings) -> usize {
        let none = Copies::default();
        let state = self.state;
        let copies = state.copies(next.id).unwrap_or(&none);
        let count = next.spec.copies();
        let covered = copies.wanted.len() - copies.surplus(count, 0).count();
        let missing = (count as usize).saturating_sub(covered);
        let base = held_base(state, next);
        let mut chunk = Chunk::new(self, next, copies, usize::MAX);
        chunk.cast(base.as_ref().unwrap_or(next), Part::Counted);
        let mut places = Places::new(state, chunk.mould, std::mem::take(taken));
        // Slots whose old copy is being stopped cannot be taken yet; their room is looked for first.
        let waiting = missing - copies.gaps.below(count).take(missing).count();
        let fitting = (0..waiting).take_while(|_| places.take().is_some()).count();
        chunk.places = Some(places);
        chunk.fill_vacant();
        let short = missing - fitting - chunk.tally.placed;
        *taken = chunk
            .finish()
            .map_or_else(Takings::default, Places::into_takings);
        short
    }

    fn forget_workload(&mut self, workload: &Workload) {
        let revisions = self.state.history(workload.id);
        let revisions = revisions.map(|step| Change::RemoveRevision(step.workload, step.number));
        self.changes.extend(revisions);
        let aliases = self.state.aliases_of(AliasOwner::Workload(workload.id));
        let aliases = aliases.map(|alias| Change::RemoveAlias(alias.key.clone()));
        self.changes.extend(aliases);
        self.changes.push(Change::RemoveWorkload(workload.id));
        let message = format!("workload {} is deleted", workload.name);
        self.event(
            EventKind::WorkloadRemoved,
            about_workload(workload.id),
            message,
        );
    }
}

impl Part {
    const fn covers(self, slot: u32) -> bool {
        match self {
            Self::All => true,
            Self::Counted => slot < FIRST_SPARE_SLOT,
            Self::Beside => slot >= FIRST_SPARE_SLOT,
        }
    }
}

impl<'d, 's> Chunk<'d, 's> {
    pub(super) fn new(
        draft: &'d mut Draft<'s>,
        workload: &'d Workload,
        copies: &'d Copies,
        limit: usize,
    ) -> Self {
        Self {
            draft,
            workload,
            mould: workload,
            part: Part::All,
            copies,
            places: None,
            is_full: false,
            generation: workload.generation,
            rollout: workload.rollout.clone(),
            homes: workload.homes.clone(),
            left: limit,
            tally: Tally::default(),
            moved: BTreeSet::new(),
            filled: BTreeSet::new(),
            taken_down: 0,
        }
    }

    /// From here on copies are made of this, in these slots.
    fn cast(&mut self, mould: &'d Workload, part: Part) {
        let taken = self.places.take().map(Places::into_takings);
        self.places = taken.map(|taken| Places::new(self.draft.state, mould, taken));
        (self.mould, self.part, self.is_full) = (mould, part, false);
    }

    /// The workload's rollout after this chunk.
    pub(super) fn set_rollout(&mut self, rollout: Option<Rollout>) {
        self.rollout = rollout;
    }

    /// How many copies have got a new form.
    pub(super) const fn renewed(&self) -> usize {
        self.tally.updated + self.tally.replaced + self.tally.stopping
    }

    fn remove_adrift(&mut self) {
        for (_, id) in self.copies.adrift.iter().take(self.left) {
            self.draft.changes.push(Change::RemoveAssignment(*id));
            self.tally.removed += 1;
        }
        self.left -= self.tally.removed;
    }

    fn stop_all(&mut self, cause: StopCause) {
        let copies = self.copies;
        self.stop(copies.wanted.iter().map(|(_, id)| *id), cause);
    }

    fn stop_surplus(&mut self) {
        let copies = self.copies;
        self.stop(
            copies.surplus(self.workload.spec.copies(), self.workload.spares()),
            StopCause::ScaledDown,
        );
    }

    fn stop(&mut self, ids: impl Iterator<Item = AssignmentId>, cause: StopCause) {
        let state = self.draft.state;
        let present = ids.filter(|id| !self.copies.is_adrift(state.assignment(*id)));
        for id in present.take(self.left).collect::<Vec<_>>() {
            if let Some(copy) = state.assignment(id) {
                self.put_stop(copy, cause);
                self.tally.stopping += 1;
                self.left -= 1;
                self.moved.insert(id);
            }
        }
    }

    fn move_uneasy(&mut self) {
        let state = self.draft.state;
        for (slot, id) in &self.copies.uneasy {
            if self.left == 0 || self.is_full {
                return;
            }
            if !self.part.covers(*slot) {
                continue;
            }
            let Some(copy) = state
                .assignment(*id)
                .filter(|copy| !self.moved.contains(&copy.id))
            else {
                continue;
            };
            let Some(node) = state.node(copy.node) else {
                continue;
            };
            match Footing::of(Some(node)) {
                Footing::Lost if is_singleton(Some(self.workload)) && !copy.fenced => {}
                Footing::Lost => self.replace(copy, StopCause::Replaced),
                Footing::Leaving if node.liveness == Liveness::Alive => {
                    self.replace(copy, StopCause::Drained);
                }
                Footing::Leaving | Footing::Firm | Footing::Gone => {}
            }
        }
    }

    /// The copy gets the present form, in place or elsewhere. Answers whether anything was done.
    pub(super) fn renew_one(&mut self, copy: &Assignment) -> bool {
        if self.moved.contains(&copy.id) {
            return false;
        }
        let state = self.draft.state;
        let node = state.node(copy.node);
        let is_alive = node.is_some_and(|node| !node.is_gone() && node.liveness == Liveness::Alive);
        let is_firm = state.footing(copy.node) == Footing::Firm;
        let kind = self.mould.spec.runs_on();
        if is_firm && node.is_some_and(|node| node.awaits_driver(kind)) {
            // Its data is there, and so may its driver be: what the node says next wakes the placement.
            return false;
        }
        let may_start_here = is_alive && (is_firm || !copy.is_finished());
        match node {
            Some(node) if may_start_here && self.fits_in_place(copy, node) => self.renew(copy),
            // What lives on a node that does not answer is the disconnect rule's business.
            _ if is_alive || self.has_ended_away(copy) => self.replace(copy, StopCause::Updated),
            _ => {}
        }
        self.moved.contains(&copy.id)
    }

    /// Whether a copy has finished on a node that cannot start it again.
    fn has_ended_away(&self, copy: &Assignment) -> bool {
        let footing = self.draft.state.footing(copy.node);
        copy.is_finished() && matches!(footing, Footing::Lost | Footing::Gone)
    }

    pub(super) fn fill_vacant(&mut self) {
        if self.part != Part::Beside {
            let copies = self.copies;
            self.fill_slots(copies.gaps.below(self.workload.spec.copies()));
        }
    }

    /// Copies beside the counted ones.
    pub(super) fn fill_beside(&mut self) {
        let copies = self.copies;
        self.fill_slots(copies.vacant_beside(self.workload.spares()));
    }

    /// Counted copies that are not known to be healthy and that the index of copies does not know of yet.
    pub(super) fn newly_unproven(&self) -> usize {
        let counted = self.filled.range(..FIRST_SPARE_SLOT).count();
        self.taken_down + counted
    }

    /// How many vacant slots beside the counted ones this chunk has filled.
    pub(super) fn placed_beside(&self) -> usize {
        self.filled.range(FIRST_SPARE_SLOT..).count()
    }

    fn fill_slots(&mut self, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            if self.left == 0 {
                return;
            }
            if self.filled.contains(&slot) {
                continue;
            }
            let Some(node) = self.take_home(slot).or_else(|| self.take_place()) else {
                return;
            };
            self.put_new(slot, node);
            if self.workload.rollout.is_some() {
                self.filled.insert(slot);
            }
            self.tally.placed += 1;
            self.left -= 1;
        }
    }

    /// Stops the copy and places its slot elsewhere, if there is a place. A singleton that may still live is
    /// only stopped: its slot is placed once it is gone.
    fn replace(&mut self, copy: &Assignment, cause: StopCause) {
        let Some(node) = self.take_place() else {
            return;
        };
        let has_ended = copy.is_finished() || copy.fenced;
        self.put_stop(copy, cause);
        if copy.slot < FIRST_SPARE_SLOT && !copy.trial {
            self.taken_down += 1;
        }
        if is_singleton(Some(self.workload)) && !has_ended {
            self.tally.stopping += 1;
        } else {
            self.put_new(copy.slot, node);
            self.tally.replaced += 1;
        }
        self.left -= 1;
        self.moved.insert(copy.id);
    }

    /// A new generation of the same copy on the same node.
    fn renew(&mut self, copy: &Assignment) {
        let claims = self.mould.spec.claims();
        let held = if copy.holds_claims() {
            claims.resources.minus(&copy.claims.resources)
        } else {
            claims.resources
        };
        self.places().reserve(copy.node, &held);
        self.note_home(copy.slot, copy.node);
        self.generation += 1;
        let next = Assignment {
            generation: self.generation,
            revision: self.mould.revision,
            template: self.mould.template,
            restart: self.mould.restart,
            claims,
            outcome: None,
            trial: self.mould.rollout.is_some(),
            ..copy.clone()
        };
        self.draft
            .changes
            .push(Change::PutAssignment(Arc::new(next)));
        self.tally.updated += 1;
        self.left -= 1;
        self.moved.insert(copy.id);
    }

    fn fits_in_place(&mut self, copy: &Assignment, node: &Node) -> bool {
        let spec = &self.mould.spec;
        let claims = spec.claims();
        let room = self.draft.state.room(node.id);
        let (others, shrinks) = if copy.holds_claims() {
            let own = &copy.claims.resources;
            (room.used.minus(own), own.holds(&claims.resources))
        } else {
            (room.used, false)
        };
        let places = self.places();
        let free = node
            .capacity
            .minus(&others)
            .minus(&places.reserved(node.id));
        let has_ports = claims.ports.is_empty()
            || claims.ports == copy.claims.ports && copy.holds_claims()
            || places.leaves_ports(node.id) && room.has_ports(&claims.ports, Some(copy.id));
        has_ports
            && (shrinks || free.holds(&claims.resources))
            && node.can_run_copy(spec)
            && satisfies(node, &spec.placement.constraints)
    }

    fn places(&mut self) -> &mut Places<'d> {
        let (state, workload) = (self.draft.state, self.mould);
        self.places
            .get_or_insert_with(|| Places::new(state, workload, Takings::default()))
    }

    fn take_place(&mut self) -> Option<NodeId> {
        if self.is_full {
            return None;
        }
        let place = self.places().take();
        self.is_full = place.is_none();
        place
    }

    /// Where the slot's data is, if a copy fits there.
    fn take_home(&mut self, slot: u32) -> Option<NodeId> {
        let home = *self.homes.get(&slot)?;
        self.places().take_at(home)
    }

    /// From now on the slot's data is there.
    fn note_home(&mut self, slot: u32, node: NodeId) {
        if slot < FIRST_SPARE_SLOT && self.mould.spec.has_local_data() {
            self.homes.insert(slot, node);
        }
    }

    fn put_stop(&mut self, copy: &Assignment, cause: StopCause) {
        let stopping = Assignment {
            intent: Intent::Stop { cause },
            ..copy.clone()
        };
        self.draft
            .changes
            .push(Change::PutAssignment(Arc::new(stopping)));
    }

    fn put_new(&mut self, slot: u32, node: NodeId) {
        self.note_home(slot, node);
        self.generation += 1;
        let copy = Assignment {
            id: AssignmentId::mint(self.draft.now, self.draft.draws.next()),
            workload: self.workload.id,
            slot,
            node,
            generation: self.generation,
            revision: self.mould.revision,
            template: self.mould.template,
            restart: self.mould.restart,
            intent: Intent::Run,
            claims: self.mould.spec.claims(),
            created_at: self.draft.now,
            outcome: None,
            fenced: false,
            trial: self.mould.rollout.is_some(),
        };
        self.draft
            .changes
            .push(Change::PutAssignment(Arc::new(copy)));
    }

    /// Records the last generation, the rollout and one event for each thing that was done. Gives the places back.
    pub(super) fn finish(self) -> Option<Places<'d>> {
        let Self {
            draft,
            workload,
            generation,
            rollout,
            mut homes,
            tally,
            places,
            ..
        } = self;
        // The data of a slot goes with it.
        let has_data = workload.spec.has_local_data();
        homes.retain(|slot, _| has_data && *slot < workload.spec.copies());
        let is_news = rollout != workload.rollout || homes != workload.homes;
        if generation != workload.generation || is_news {
            let next = Workload {
                generation,
                rollout,
                homes,
                ..workload.clone()
            };
            draft.changes.push(Change::PutWorkload(Arc::new(next)));
        }
        let name = &workload.name;
        let done = [
            (
                EventKind::CopiesRemoved,
                tally.removed,
                ["gave up", "with their nodes"],
            ),
            (EventKind::CopiesStopping, tally.stopping, ["stopping", ""]),
            (
                EventKind::CopiesReplaced,
                tally.replaced,
                ["replaced", "on other nodes"],
            ),
            (
                EventKind::CopiesReplaced,
                tally.updated,
                ["renewed", "in place"],
            ),
            (EventKind::CopiesPlaced, tally.placed, ["placed", ""]),
        ];
        for (kind, count, [verb, how]) in done.into_iter().filter(|(_, count, _)| *count > 0) {
            let message = format!("{verb} {} of {name} {how}", copies(count));
            let message = message.trim_end().to_owned();
            draft.event(kind, about_workload(workload.id), message);
        }
        places
    }
}

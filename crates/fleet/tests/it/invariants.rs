//! What must hold of every state and of every decision.

use std::collections::{BTreeMap, BTreeSet};

use hostler_fleet::{Change, Decision, State, Verb};
use hostler_model::spec::DisconnectPolicy;
use hostler_model::{Admission, AliasOwner, Assignment, Desired, Liveness, Resources, WorkloadId};

use crate::world::World;

/// What must hold at any time.
pub(crate) fn check_state(world: &World) {
    let state = &world.state;
    check_slots(state);
    check_rooms(state);
    for copy in state.assignments() {
        let is_lost = state
            .node(copy.node)
            .is_some_and(|node| matches!(node.liveness, Liveness::Lost { .. }));
        assert!(
            !copy.fenced || !copy.is_wanted() || is_lost,
            "fenced where it may run: {copy:?}"
        );
        assert!(
            state.workload(copy.workload).is_some(),
            "a copy without its workload: {copy:?}"
        );
        assert!(
            state.node(copy.node).is_some(),
            "a copy without its node: {copy:?}"
        );
    }
    assert_eq!(
        *state,
        rebuilt(state),
        "the indexes differ from those of the records alone"
    );
    check_settled(world);
}

/// What must hold of a decision, given the state before and after.
pub(crate) fn check_decision(before: &State, after: &State, verb: &Verb, decision: &Decision) {
    for change in &decision.changes {
        match change {
            Change::RemoveAssignment(id) => {
                let copy = before
                    .assignment(*id)
                    .expect("only what is there is removed");
                let has_word = matches!(verb, Verb::Report { .. } | Verb::Resume { .. });
                let is_gone = before.node(copy.node).is_none_or(|node| node.is_gone());
                assert!(has_word || is_gone, "{copy:?} vanished by {verb:?}");
            }
            Change::PutAssignment(copy) => check_placed(before, after, copy),
            _ => {}
        }
    }
    check_revisions(before, decision);
    if let Verb::Settle { workload, .. } = verb {
        check_pace(before, after, *workload);
    }
    let mut twice = after.clone();
    twice.apply_all(&decision.changes);
    assert_eq!(twice, *after, "applying twice differs from applying once");
}

/// A revision changes only with what is wanted.
fn check_revisions(before: &State, decision: &Decision) {
    for change in &decision.changes {
        let Change::PutWorkload(new) = change else {
            continue;
        };
        let Some(old) = before.workload(new.id) else {
            continue;
        };
        let is_same =
            old.spec == new.spec && old.desired == new.desired && old.foreign == new.foreign;
        assert_eq!(
            old.revision == new.revision,
            is_same,
            "{old:?} became {new:?}"
        );
    }
}

/// Of the counted copies of a rollout no more are down because of it than may be, and none while it is held.
fn check_pace(before: &State, after: &State, workload: WorkloadId) {
    let record = before.workload(workload).expect("what is settled is there");
    let Some(rollout) = &record.rollout else {
        return;
    };
    let is_counted = |copy: &&std::sync::Arc<Assignment>| copy.slot < record.spec.count;
    // What serves, as far as the fleet knows, on a node that answers and that it need not leave.
    let serves = |copy: &&std::sync::Arc<Assignment>| {
        let node = before.node(copy.node);
        let stays = node.is_some_and(|node| {
            node.liveness == Liveness::Alive
                && matches!(node.admission, Admission::Open | Admission::Cordoned)
        });
        stays && copy.is_wanted() && !copy.trial && !copy.is_finished()
    };
    let serving = before
        .assignments_of(workload)
        .filter(is_counted)
        .filter(serves);
    let taken_down = serving.filter(|copy| {
        let now = after.assignment(copy.id);
        now.is_none_or(|now| now.unit() != copy.unit() || !now.is_wanted())
    });
    let taken_down = taken_down.count();
    if rollout.stage.is_held() {
        assert_eq!(taken_down, 0, "{} is held", record.name);
    }
    let on_trial = before.assignments_of(workload).filter(is_counted);
    let on_trial = on_trial
        .filter(|copy| copy.is_wanted() && copy.trial)
        .count();
    let most = record.spec.update.max_parallel as usize;
    assert!(
        taken_down == 0 || taken_down + on_trial <= most,
        "{taken_down} more of {} are down beside {on_trial}",
        record.name
    );
}

fn check_placed(before: &State, after: &State, copy: &Assignment) {
    let node = before
        .node(copy.node)
        .expect("copies are placed on nodes that are there");
    let old = before.assignment(copy.id);
    let is_fresh = old.is_none();
    let is_renewed = old.is_some_and(|old| old.generation != copy.generation);
    if is_fresh {
        check_alone(before, after, copy);
        assert!(
            node.is_eligible(),
            "{copy:?} was placed on {}",
            node.state()
        );
    }
    if is_renewed {
        assert_eq!(
            old.map(|old| old.node),
            Some(copy.node),
            "a renewed copy stays where it is"
        );
    }
    let shrinks = old.is_some_and(|old| {
        old.holds_claims() && old.claims.resources.holds(&copy.claims.resources)
    });
    if (is_fresh || is_renewed) && !shrinks {
        let used = used(after, copy);
        assert!(
            node.capacity.holds(&used),
            "{} is overcommitted by {copy:?}",
            node.name
        );
    }
}

/// A slot has a second live copy only by the disconnect rule, or while its wanted copy moves.
fn check_alone(before: &State, after: &State, copy: &Assignment) {
    let in_slot =
        |other: &&std::sync::Arc<Assignment>| other.slot == copy.slot && other.id != copy.id;
    let moves = before
        .assignments_of(copy.workload)
        .filter(in_slot)
        .any(|other| other.is_wanted());
    for other in after.assignments_of(copy.workload).filter(in_slot) {
        let node = after.node(other.node).expect("its node is there");
        let is_lost = matches!(node.liveness, Liveness::Lost { .. });
        let has_ended = other.is_finished() || other.fenced;
        assert!(moves || is_lost || has_ended, "{copy:?} beside {other:?}");
    }
}

fn used(state: &State, copy: &Assignment) -> Resources {
    let holding = state
        .assignments_on(copy.node)
        .filter(|copy| copy.holds_claims());
    holding.fold(Resources::ZERO, |used, copy| {
        used.plus(&copy.claims.resources)
    })
}

fn check_slots(state: &State) {
    let mut slots: BTreeMap<_, Vec<&Assignment>> = BTreeMap::new();
    for copy in state.assignments() {
        slots
            .entry((copy.workload, copy.slot))
            .or_default()
            .push(copy);
    }
    for ((workload, slot), copies) in slots {
        let wanted: Vec<_> = copies.iter().filter(|copy| copy.is_wanted()).collect();
        assert!(
            wanted.len() <= 1,
            "two wanted copies in slot {slot}: {copies:?}"
        );
        let generations: BTreeSet<u64> = copies.iter().map(|copy| copy.generation).collect();
        assert_eq!(
            generations.len(),
            copies.len(),
            "one generation twice in slot {slot}"
        );
        let last = generations.last().copied();
        if let Some(wanted) = wanted.first() {
            assert_eq!(
                Some(wanted.generation),
                last,
                "the wanted copy is not the newest"
            );
        }
        let record = state.workload(workload).expect("the workload is there");
        assert!(
            last <= Some(record.generation),
            "a generation beyond the workload's last"
        );
        let live = copies.iter().filter(|copy| {
            let is_gone = state.node(copy.node).is_none_or(|node| node.is_gone());
            !copy.is_finished() && !copy.fenced && !is_gone
        });
        if record.spec.disconnect.policy == DisconnectPolicy::Singleton {
            assert!(live.count() <= 1, "a singleton lives twice: {copies:?}");
        }
    }
}

fn check_rooms(state: &State) {
    for node in state.nodes() {
        let holding = state
            .assignments_on(node.id)
            .filter(|copy| copy.holds_claims());
        let (mut used, mut ports) = (Resources::ZERO, BTreeSet::new());
        for copy in holding {
            used = used.plus(&copy.claims.resources);
            for port in &copy.claims.ports {
                assert!(
                    ports.insert(*port),
                    "{port:?} is claimed twice on {}",
                    node.name
                );
            }
        }
        assert_eq!(state.free(node.id), node.capacity.minus(&used));
    }
}

/// A state of the same records, put in another order than they came.
pub(crate) fn rebuilt(state: &State) -> State {
    let mut changes = Vec::new();
    changes.extend(
        state
            .assignments()
            .rev()
            .cloned()
            .map(Change::PutAssignment),
    );
    for workload in state.workloads() {
        changes.extend(state.history(workload.id).cloned().map(Change::PutRevision));
        let aliases = state.aliases_of(AliasOwner::Workload(workload.id));
        changes.extend(aliases.cloned().map(Change::PutAlias));
        changes.push(Change::PutWorkload(workload.clone()));
    }
    for node in state.nodes().rev() {
        changes.push(Change::PutNode(node.clone()));
        changes.extend(state.commands_of(node.id).cloned().map(Change::PutCommand));
        let aliases = state.aliases_of(AliasOwner::Node(node.id));
        changes.extend(aliases.cloned().map(Change::PutAlias));
    }
    changes.extend(
        state
            .fleet()
            .map(|(id, epoch)| Change::PutFleet { id, epoch }),
    );
    changes.extend(state.switches().rev().cloned().map(Change::PutSwitch));
    for pool in state.pools() {
        changes.extend(state.quotes(&pool.id).cloned().map(Change::PutQuote));
        changes.push(Change::PutPool(pool.clone()));
    }
    changes.extend(state.rentals().cloned().map(Change::PutRental));
    changes.extend(state.accounts().cloned().map(Change::PutAccount));
    let mut rebuilt = State::from_changes(&changes);
    rebuilt.resume_sequence(state.next_sequence());
    rebuilt
}

/// What is not in the unsettled index, settling does not change.
fn check_settled(world: &World) {
    let unsettled: BTreeSet<_> = world.state.unsettled().collect();
    for workload in world.state.workloads() {
        let verb = Verb::Settle {
            workload: workload.id,
            limit: 100,
        };
        let decision = world.decide(&verb).expect("settling is never refused");
        let may_change = unsettled.contains(&workload.id);
        assert!(
            may_change || decision.changes.is_empty(),
            "{} is not known to be unsettled",
            workload.name
        );
        if workload.desired == Desired::Deleted
            && world.state.assignments_of(workload.id).next().is_none()
        {
            assert!(may_change, "a deleted workload without copies is forgotten");
        }
    }
}

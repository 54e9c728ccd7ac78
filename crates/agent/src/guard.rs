//! The mass-stop guard: keeps an empty, restored or mistaken store from stopping what runs.
//!
//! The control plane names every copy that is to stop. A unit that its intent simply does not speak of is
//! *omitted*, and that is what the guard watches: if more than half of what runs would end by omission, or
//! if the intent comes from another fleet or another life of the store, nothing is stopped. Everything goes
//! on, restarts included, until an operator accepts the intent. What is new in the intent is begun all the
//! same; it harms nothing.
//!
//! Pure. The reconciler owns the state and asks at every change.

use std::collections::{BTreeMap, BTreeSet};

use hostler_model::{AssignmentId, Intent, IntentItem, WorkloadId};

use crate::ledger::Origin;
use crate::plan::Intents;

/// The intent is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) scope: Scope,
    /// One sentence for people.
    pub(crate) reason: String,
    /// How many running units would end by omission.
    pub(crate) would_stop: u32,
}

/// How much of the intent is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Omissions only: what is named as to be stopped is stopped.
    Omissions,
    /// Everything that would stop anything: the intent is a stranger's.
    Stops,
}

/// What the guard judges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// Whose intent was followed until now; none on a new node.
    pub(crate) followed: Option<Origin>,
    /// Whose intent this is.
    pub(crate) from: Origin,
    pub(crate) wish: &'a Intents,
    /// What runs, or may run where an engine does not answer.
    pub(crate) running: &'a BTreeSet<AssignmentId>,
    /// Whether there is anything here that could be stopped, running or not.
    pub(crate) has_work: bool,
    /// What an operator has given up for good.
    pub(crate) given_up: &'a BTreeSet<AssignmentId>,
}

/// Whether the intent is to be held back.
pub(crate) fn judge(case: Case<'_>) -> Option<Held> {
    let omitted = case.running.iter().filter(|assignment| {
        !case.wish.contains_key(assignment) && !case.given_up.contains(assignment)
    });
    let omitted = omitted.count();
    let would_stop = u32::try_from(omitted).unwrap_or(u32::MAX);
    let held = |scope, reason| {
        Some(Held {
            scope,
            reason,
            would_stop,
        })
    };

    if let Some(followed) = case
        .followed
        .filter(|followed| *followed != case.from && case.has_work)
    {
        return held(Scope::Stops, stranger(followed, case.from));
    }
    let running = case.running.len();
    if omitted * 2 > running {
        let reason =
            format!("the intent does not speak of {omitted} of the {running} units that run here");
        return held(Scope::Omissions, reason);
    }
    None
}

fn stranger(followed: Origin, from: Origin) -> String {
    if followed.fleet_id != from.fleet_id {
        format!(
            "the intent is of fleet {}; this node belongs to {}",
            from.fleet_id, followed.fleet_id
        )
    } else if followed.node_id != from.node_id {
        format!(
            "the intent is for node {}; this node was {}",
            from.node_id, followed.node_id
        )
    } else {
        format!(
            "the store was restored or replaced: its epoch is {}, it was {}",
            from.store_epoch, followed.store_epoch
        )
    }
}

/// What is followed while an intent is held back: all that was followed, and what is new in the wish.
pub(crate) fn keep(followed: &Intents, wish: &Intents, scope: Scope) -> Intents {
    let mut kept = followed.clone();
    if scope == Scope::Omissions {
        // A record that the control plane forgot after its unit had to stop is no omission.
        kept.retain(|assignment, item| item.intent == Intent::Run || wish.contains_key(assignment));
    }
    let mut slots: BTreeMap<(WorkloadId, u32), AssignmentId> = kept
        .values()
        .map(|item| (slot(item), item.unit.assignment))
        .collect();
    for (assignment, item) in wish {
        match (kept.get_mut(assignment), item.intent) {
            (Some(known), Intent::Stop { .. }) if scope == Scope::Omissions => {
                *known = item.clone()
            }
            (Some(known), Intent::Run) if scope == Scope::Omissions => *known = item.clone(),
            (Some(_), _) | (None, Intent::Stop { .. }) => {}
            // Another copy of the same slot is kept here; the two would compete for its ports and files.
            (None, Intent::Run) if slots.contains_key(&slot(item)) => {}
            (None, Intent::Run) => {
                slots.insert(slot(item), *assignment);
                kept.insert(*assignment, item.clone());
            }
        }
    }
    kept
}

const fn slot(item: &IntentItem) -> (WorkloadId, u32) {
    (item.workload, item.slot)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::spec::WorkloadSpec;
    use hostler_model::{FleetId, NodeId, StopCause, StoreEpoch, Timestamp, UnitId};
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn id(n: u128) -> AssignmentId {
        AssignmentId::mint(NOW, n)
    }

    fn origin(epoch: u128) -> Origin {
        Origin {
            fleet_id: FleetId::mint(NOW, 1),
            node_id: NodeId::mint(NOW, 1),
            store_epoch: StoreEpoch::mint(NOW, epoch),
        }
    }

    fn item(n: u128, generation: u64, intent: Intent) -> IntentItem {
        IntentItem {
            unit: UnitId {
                assignment: id(n),
                generation,
            },
            workload: WorkloadId::mint(NOW, n),
            workload_name: format!("w{n}"),
            slot: 0,
            intent,
            revision: 1,
            spec: Arc::new(WorkloadSpec::of_process("w", vec!["sleep".to_owned()])),
            is_finished: false,
        }
    }

    fn wish(items: impl IntoIterator<Item = IntentItem>) -> Intents {
        items
            .into_iter()
            .map(|item| (item.unit.assignment, item))
            .collect()
    }

    fn judged(followed: Option<u128>, wanted: &[u128], running: &[u128]) -> Option<Held> {
        judge(Case {
            followed: followed.map(origin),
            from: origin(1),
            wish: &wish(wanted.iter().map(|n| item(*n, 1, Intent::Run))),
            running: &running.iter().map(|n| id(*n)).collect(),
            has_work: !running.is_empty(),
            given_up: &BTreeSet::new(),
        })
    }

    #[test]
    fn more_than_half_omitted_is_held_and_half_is_not() {
        assert_eq!(judged(Some(1), &[1], &[1, 2]), None);
        assert_eq!(judged(Some(1), &[1, 2], &[1, 2]), None);
        assert_eq!(judged(Some(1), &[], &[]), None);
        let held = judged(Some(1), &[1], &[1, 2, 3]).unwrap();
        assert_eq!((held.scope, held.would_stop), (Scope::Omissions, 2));
        assert_eq!(judged(Some(1), &[], &[1]).unwrap().would_stop, 1);
    }

    #[test]
    fn another_epoch_is_held_even_if_it_speaks_of_everything() {
        let held = judged(Some(2), &[1, 2], &[1, 2]).unwrap();
        assert_eq!((held.scope, held.would_stop), (Scope::Stops, 0));
        assert!(
            held.reason.contains("restored or replaced"),
            "{}",
            held.reason
        );
        assert_eq!(
            judged(Some(2), &[1], &[]),
            None,
            "an idle node has nothing to protect"
        );
    }

    #[test]
    fn a_new_node_accepts_and_a_node_without_ledger_is_guarded_by_number() {
        assert_eq!(judged(None, &[1], &[]), None);
        assert_eq!(judged(None, &[1, 2], &[1, 2]), None);
        assert!(judged(None, &[], &[1, 2]).is_some());
    }

    #[test]
    fn a_stop_by_name_never_counts() {
        let stop = Intent::Stop {
            cause: StopCause::Stopped,
        };
        let all = wish((1..=3).map(|n| item(n, 1, stop)));
        let case = Case {
            followed: Some(origin(1)),
            from: origin(1),
            wish: &all,
            running: &(1..=3).map(id).collect(),
            has_work: true,
            given_up: &BTreeSet::new(),
        };
        assert_eq!(judge(case), None);
    }

    #[test]
    fn what_an_operator_gave_up_does_not_count() {
        let running = BTreeSet::from([id(1), id(2)]);
        let case = Case {
            followed: Some(origin(1)),
            from: origin(1),
            wish: &Intents::new(),
            running: &running,
            has_work: true,
            given_up: &running,
        };
        assert_eq!(judge(case), None);
    }

    #[test]
    fn a_strangers_intent_stops_and_replaces_nothing_but_brings_what_is_new() {
        let followed = wish([item(1, 5, Intent::Run), item(2, 5, Intent::Run)]);
        let stop = Intent::Stop {
            cause: StopCause::Deleted,
        };
        let mut rival = item(4, 9, Intent::Run);
        rival.workload = WorkloadId::mint(NOW, 1);
        let theirs = wish([
            item(1, 9, Intent::Run),
            item(2, 5, stop),
            item(3, 1, Intent::Run),
            rival,
        ]);
        let kept = keep(&followed, &theirs, Scope::Stops);
        let expected = wish([
            item(1, 5, Intent::Run),
            item(2, 5, Intent::Run),
            item(3, 1, Intent::Run),
        ]);
        assert_eq!(kept, expected);
    }

    #[test]
    fn while_omissions_are_held_back_stops_by_name_are_followed() {
        let followed = wish([item(1, 1, Intent::Run), item(2, 1, Intent::Run)]);
        let stop = Intent::Stop {
            cause: StopCause::Stopped,
        };
        let kept = keep(&followed, &wish([item(2, 1, stop)]), Scope::Omissions);
        assert_eq!(kept, wish([item(1, 1, Intent::Run), item(2, 1, stop)]));
    }

    proptest! {
        #[test]
        fn an_intent_that_passes_ends_at_most_half_by_omission(
            wanted in prop::collection::btree_set(0_u128..20, 0..20),
            running in prop::collection::btree_set(0_u128..20, 0..20),
        ) {
            let wanted: Vec<u128> = wanted.into_iter().collect();
            let running: Vec<u128> = running.into_iter().collect();
            if judged(Some(1), &wanted, &running).is_none() {
                let omitted = running.iter().filter(|n| !wanted.contains(n)).count();
                prop_assert!(omitted * 2 <= running.len());
            }
        }

        #[test]
        fn what_is_kept_stops_nothing_that_was_to_run(
            followed in prop::collection::btree_set(0_u128..12, 0..12),
            theirs in prop::collection::btree_map(0_u128..12, any::<bool>(), 0..12),
        ) {
            let followed = wish(followed.into_iter().map(|n| item(n, 1, Intent::Run)));
            let stop = Intent::Stop { cause: StopCause::Deleted };
            let theirs = wish(theirs.into_iter().map(|(n, run)| {
                item(n, 2, if run { Intent::Run } else { stop })
            }));
            let kept = keep(&followed, &theirs, Scope::Stops);
            for (assignment, item) in &followed {
                prop_assert_eq!(kept.get(assignment), Some(item));
            }
        }
    }
}

//! The mass-stop guard: keeps an empty, restored or mistaken store from stopping what runs.
//!
//! The control plane names every copy that is to stop. A unit that its intent simply does not speak of is
//! *omitted*, and that is what the guard watches: if more than half of what runs would end by omission, or
//! if the intent comes from another fleet or another life of the store, nothing is stopped. Everything goes
//! on, restarts included, until an operator accepts the intent. What is new in the intent is begun all the
//! same; it harms nothing.
//!
//! A copy of the store that was put back by hand has the right fleet and epoch. It is known by its revision,
//! which never goes back: a run of the control plane that began below what this node was told by another run
//! reads an older copy. From then on the store is *in doubt*, because its revision grows past the mark in time:
//! only the run that was followed before, or an intent that takes nothing back, ends that by itself.
//!
//! Pure. The reconciler owns the state and asks at every change.

use std::collections::{BTreeMap, BTreeSet};

use hostler_model::{AssignmentId, Intent, IntentItem, WorkloadId};

use crate::ledger::{Fleet, Origin, Seen};
use crate::plan::Intents;

/// The intent is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) scope: Scope,
    /// One sentence for people.
    pub(crate) reason: String,
    /// How many running units would end by omission.
    pub(crate) would_stop: u32,
    /// The store was put back to an older copy, or may have been.
    pub(crate) is_doubt: bool,
}

/// Who speaks in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub(crate) origin: Origin,
    /// The run of the control plane; 0 if it does not tell.
    pub(crate) run: u64,
    /// The store's revision when that run began; 0 if it does not tell.
    pub(crate) began_at: u64,
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
    pub(crate) followed: Option<Fleet>,
    /// What was followed until now.
    pub(crate) intents: &'a Intents,
    /// Whose intent this is.
    pub(crate) from: Speaker,
    pub(crate) wish: &'a Intents,
    /// What runs, or may run where an engine does not answer.
    pub(crate) running: &'a BTreeSet<AssignmentId>,
    /// Whether there is anything here that could be stopped, running or not.
    pub(crate) has_work: bool,
    /// What an operator has given up for good.
    pub(crate) given_up: &'a BTreeSet<AssignmentId>,
    /// What came only with an intent of a store in doubt.
    pub(crate) begun_in_doubt: &'a BTreeSet<AssignmentId>,
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
            is_doubt: false,
        })
    };

    if let Some(followed) = case.followed.filter(|_| case.has_work) {
        if followed.origin != case.from.origin {
            return held(Scope::Stops, stranger(followed.origin, case.from.origin));
        }
        if let Some(reason) = doubt(&case, followed) {
            let held = held(Scope::Stops, reason);
            return held.map(|held| Held {
                is_doubt: true,
                ..held
            });
        }
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

/// Why the store may be an older copy of the one that was followed, if so.
fn doubt(case: &Case<'_>, followed: Fleet) -> Option<String> {
    let (from, seen) = (case.from, followed.seen);
    if from.run != 0 && from.run == seen.run {
        return None;
    }
    if is_older(from, seen) {
        return Some(format!(
            "the control plane's store was at revision {} when it was opened, this node has seen {}: it was \
             restored from an older copy",
            from.began_at, seen.revision
        ));
    }
    (followed.is_in_doubt && takes_back(case)).then(|| {
        format!(
            "the control plane's store was restored from an older copy, and takes back some of what this \
             node was told up to revision {}",
            seen.revision
        )
    })
}

/// Whether it speaks for an older copy of the store than the one that was seen.
pub(crate) const fn is_older(from: Speaker, seen: Seen) -> bool {
    from.run != 0 && from.run != seen.run && from.began_at < seen.revision
}

/// Whether the intent knows less than what was followed: a unit is missing, or wanted as it was before.
fn takes_back(case: &Case<'_>) -> bool {
    let is_missing = |assignment: &AssignmentId| {
        !case.wish.contains_key(assignment)
            && !case.given_up.contains(assignment)
            && !case.begun_in_doubt.contains(assignment)
    };
    let is_older = |(assignment, known): (&AssignmentId, &IntentItem)| {
        let wanted = case.wish.get(assignment);
        wanted.is_some_and(|wanted| wanted.unit.generation < known.unit.generation)
    };
    case.running.iter().any(is_missing) || case.intents.iter().any(is_older)
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

    /// A fleet of which an intent was followed: its epoch, the revision and the run.
    fn fleet(epoch: u128, revision: u64, run: u64) -> Fleet {
        Fleet {
            origin: origin(epoch),
            seen: Seen { revision, run },
            is_in_doubt: false,
            since: NOW,
        }
    }

    fn speaker(run: u64, began_at: u64) -> Speaker {
        Speaker {
            origin: origin(1),
            run,
            began_at,
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
        let followed = followed.map(|epoch| fleet(epoch, 0, 0));
        judged_of(followed, speaker(0, 0), wanted, running)
    }

    fn judged_of(
        followed: Option<Fleet>,
        from: Speaker,
        wanted: &[u128],
        running: &[u128],
    ) -> Option<Held> {
        judge(Case {
            followed,
            intents: &wish(running.iter().map(|n| item(*n, 1, Intent::Run))),
            from,
            wish: &wish(wanted.iter().map(|n| item(*n, 1, Intent::Run))),
            running: &running.iter().map(|n| id(*n)).collect(),
            has_work: !running.is_empty(),
            given_up: &BTreeSet::new(),
            begun_in_doubt: &BTreeSet::new(),
        })
    }

    #[test]
    fn a_run_that_began_below_what_was_seen_is_held_whatever_it_says() {
        let followed = Some(fleet(1, 60, 7));
        for wanted in [&[][..], &[1], &[1, 2], &[1, 2, 3]] {
            let held = judged_of(followed, speaker(8, 59), wanted, &[1, 2]).unwrap();
            assert_eq!((held.scope, held.is_doubt), (Scope::Stops, true));
            assert!(
                held.reason.contains("at revision 59") && held.reason.contains("has seen 60"),
                "{}",
                held.reason
            );
        }
        assert_eq!(judged_of(followed, speaker(8, 60), &[1], &[1, 2]), None);
        assert_eq!(
            judged_of(followed, speaker(7, 10), &[1], &[1, 2]),
            None,
            "the run that told 60 had begun at 10"
        );
        assert_eq!(
            judged_of(followed, speaker(8, 59), &[1], &[]),
            None,
            "an idle node has nothing to protect"
        );
    }

    #[test]
    fn without_a_revision_on_either_side_only_the_number_counts() {
        let (known, unknown) = (Some(fleet(1, 60, 7)), Some(fleet(1, 0, 0)));
        assert_eq!(judged_of(known, speaker(0, 0), &[1], &[1, 2]), None);
        assert_eq!(judged_of(unknown, speaker(8, 5), &[1], &[1, 2]), None);
        assert!(judged_of(unknown, speaker(8, 5), &[], &[1, 2]).is_some());
    }

    #[test]
    fn a_store_in_doubt_that_grew_past_the_mark_is_held_while_it_takes_anything_back() {
        let followed = Some(Fleet {
            is_in_doubt: true,
            ..fleet(1, 60, 7)
        });
        let held = judged_of(followed, speaker(9, 90), &[1], &[1, 2]).unwrap();
        assert_eq!((held.is_doubt, held.would_stop), (true, 1));
        assert!(judged_of(followed, speaker(0, 0), &[1], &[1, 2]).is_some());
        assert_eq!(judged_of(followed, speaker(9, 90), &[1, 2], &[1, 2]), None);
        assert_eq!(
            judged_of(followed, speaker(7, 10), &[1], &[1, 2]),
            None,
            "the run that was followed has come back"
        );
    }

    #[test]
    fn an_older_generation_is_something_taken_back_and_what_began_in_doubt_is_not() {
        let in_doubt = Fleet {
            is_in_doubt: true,
            ..fleet(1, 60, 7)
        };
        let followed = wish([item(1, 2, Intent::Run), item(9, 1, Intent::Run)]);
        let before = wish([item(1, 1, Intent::Run)]);
        let now = wish([item(1, 2, Intent::Run)]);
        let (running, begun) = (BTreeSet::from([id(1), id(9)]), BTreeSet::from([id(9)]));
        let case = Case {
            followed: Some(in_doubt),
            intents: &followed,
            from: speaker(9, 90),
            wish: &before,
            running: &running,
            has_work: true,
            given_up: &BTreeSet::new(),
            begun_in_doubt: &begun,
        };
        assert!(judge(case).is_some());
        assert_eq!(judge(Case { wish: &now, ..case }), None);
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
            followed: Some(fleet(1, 0, 0)),
            intents: &Intents::new(),
            from: speaker(0, 0),
            wish: &all,
            running: &(1..=3).map(id).collect(),
            has_work: true,
            given_up: &BTreeSet::new(),
            begun_in_doubt: &BTreeSet::new(),
        };
        assert_eq!(judge(case), None);
    }

    #[test]
    fn what_an_operator_gave_up_does_not_count() {
        let running = BTreeSet::from([id(1), id(2)]);
        let case = Case {
            followed: Some(fleet(1, 0, 0)),
            intents: &Intents::new(),
            from: speaker(0, 0),
            wish: &Intents::new(),
            running: &running,
            has_work: true,
            given_up: &running,
            begun_in_doubt: &BTreeSet::new(),
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

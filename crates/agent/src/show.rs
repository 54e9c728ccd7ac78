//! The picture: what the agent shows of its node to the control plane. Pure.
//!
//! Every unit that is here and every assignment that should be is in it, each with its state. A unit that
//! should stop and is not here is shown as gone, which is what the control plane waits for; where an engine
//! does not answer, nothing is shown as gone.

use std::collections::BTreeMap;

use hostler_model::spec::Kind;
use hostler_model::{
    FailureCode, Intent, IntentItem, ObservedUnit, Timestamp, UnitId, UnitState, WorkloadId,
};
use hostler_runtime::FoundState;

use crate::guard::Held;
use crate::ledger::Origin;
use crate::notes::{Doing, Note, Seen};
use crate::plan::Facts;

/// All that the uplink tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Picture {
    /// Whether every driver has answered, or failed to, since the agent started.
    pub(crate) is_complete: bool,
    pub(crate) units: BTreeMap<UnitId, ObservedUnit>,
    /// Names of running containers, for people.
    pub(crate) containers: Vec<String>,
    pub(crate) held: Option<Held>,
    /// Whose intent is followed.
    pub(crate) origin: Option<Origin>,
    /// Since when.
    pub(crate) followed_since: Timestamp,
    /// Units that have ended for good and are still on the disk: their kind, and when they ended.
    pub(crate) finished: BTreeMap<UnitId, (Kind, Timestamp)>,
    /// Kinds whose engine does not answer.
    pub(crate) down: Vec<Kind>,
}

/// Draws the units.
pub(crate) fn units(facts: Facts<'_>) -> BTreeMap<UnitId, ObservedUnit> {
    let mut shown = BTreeMap::new();
    for (unit, seen) in &facts.observed.units {
        let item = facts.intents.get(&unit.assignment);
        let note = facts.notes.get(unit);
        let state = of_unit(*unit, seen, item, note);
        let runs = seen.runs;
        let is_running = matches!(state, UnitState::Running { .. });
        let is_over = matches!(state, UnitState::Finished { .. });
        let health = note.and_then(|note| note.health.clone());
        let crash_loop = note.and_then(Note::crash_loop);
        shown.insert(
            *unit,
            ObservedUnit {
                health: health.filter(|_| is_running),
                crash_loop: crash_loop.filter(|_| !is_over),
                parts: seen.parts.clone(),
                ..observed(*unit, (seen.workload, seen.kind), state, runs)
            },
        );
    }
    for item in facts.intents.values() {
        if facts.observed.units.contains_key(&item.unit) {
            continue;
        }
        let has_record = facts
            .notes
            .get(&item.unit)
            .is_some_and(|note| note.finished.is_some());
        if item.is_finished && !has_record {
            // The control plane told us that it has ended; there is nothing to tell back.
            continue;
        }
        let state = of_item(facts, item);
        let runs = match facts.notes.get(&item.unit).and_then(|note| note.finished) {
            Some(finished) => finished.runs,
            None => 0,
        };
        shown.insert(
            item.unit,
            observed(item.unit, (item.workload, item.spec.runs_on()), state, runs),
        );
    }
    shown
}

/// Units that have ended for good, whose files are still here and may go.
pub(crate) fn finished(facts: Facts<'_>) -> BTreeMap<UnitId, (Kind, Timestamp)> {
    let units = facts.observed.units.iter();
    let finished = units.filter_map(|(unit, seen)| {
        let note = facts.notes.get(unit).filter(|note| !note.is_unwanted)?;
        Some((*unit, (seen.kind, note.finished?.at)))
    });
    finished.collect()
}

/// The names of running containers.
pub(crate) fn containers(facts: Facts<'_>) -> Vec<String> {
    let running = facts.intents.values().filter(|item| {
        let seen = facts.observed.units.get(&item.unit);
        item.spec.runs_on() == Kind::Container
            && seen.is_some_and(|seen| matches!(seen.state, FoundState::Running { .. }))
    });
    running
        .map(|item| format!("{}-{}", item.workload_name, item.slot))
        .collect()
}

fn observed(
    unit: UnitId,
    (workload, kind): (WorkloadId, Kind),
    state: UnitState,
    runs: u32,
) -> ObservedUnit {
    ObservedUnit {
        unit,
        workload,
        kind,
        state,
        runs,
        parts: Vec::new(),
        health: None,
        crash_loop: None,
    }
}

/// A unit that is here.
fn of_unit(unit: UnitId, seen: &Seen, item: Option<&IntentItem>, note: Option<&Note>) -> UnitState {
    match note.and_then(|note| note.doing) {
        Some(Doing::Preparing) => return preparing(note),
        Some(Doing::Starting) => return UnitState::Starting,
        Some(Doing::Stopping | Doing::Removing) => return UnitState::Stopping,
        None => {}
    }
    let Some(item) = item else {
        return of_stray(seen);
    };
    if item.unit != unit || item.intent != Intent::Run {
        return match seen.state {
            // It runs until its successor is ready, or until the order is on disk.
            FoundState::Running { since } => UnitState::Running { since },
            FoundState::Prepared | FoundState::Exited { .. } => UnitState::Stopping,
        };
    }
    if let Some(finished) = note.and_then(|note| note.finished) {
        return UnitState::Finished {
            exit: finished.exit,
            at: finished.at,
        };
    }
    match seen.state {
        FoundState::Running { since } => UnitState::Running { since },
        FoundState::Prepared => failed(note).unwrap_or(UnitState::Starting),
        FoundState::Exited { exit, at } => failed(note).unwrap_or_else(|| {
            let retry_at = note
                .and_then(|note| note.restart)
                .map_or(at, |restart| restart.wall);
            let exit = note.map_or(exit, |note| note.exit_of(seen.runs, exit));
            UnitState::Waiting { exit, retry_at }
        }),
    }
}

/// A unit that no intent speaks of is never shown as finished: that would be a verdict of a restart policy,
/// which is not known.
fn of_stray(seen: &Seen) -> UnitState {
    match seen.state {
        FoundState::Running { since } => UnitState::Running { since },
        FoundState::Prepared => UnitState::Preparing {
            detail: String::new(),
        },
        FoundState::Exited { exit, at } => UnitState::Waiting { exit, retry_at: at },
    }
}

/// An assignment whose unit is not here, or not known to be.
fn of_item(facts: Facts<'_>, item: &IntentItem) -> UnitState {
    let note = facts.notes.get(&item.unit);
    let kind = item.spec.runs_on();
    match note.and_then(|note| note.doing) {
        Some(Doing::Preparing) => return preparing(note),
        Some(Doing::Starting) => return UnitState::Starting,
        Some(Doing::Stopping | Doing::Removing) => return UnitState::Stopping,
        None => {}
    }
    // How it ended is the last word only while it is wanted; whoever stops it waits to hear that it is gone.
    let finished = note.and_then(|note| note.finished);
    if let (Some(finished), Intent::Run) = (finished, item.intent) {
        return UnitState::Finished {
            exit: finished.exit,
            at: finished.at,
        };
    }
    let down = facts.observed.down.get(&kind);
    match item.intent {
        Intent::Stop { .. } => {
            let others = facts.units_of(item.unit.assignment).next().is_some();
            // Without an answer of the engine nobody knows whether it is gone.
            if down.is_some() || others {
                UnitState::Stopping
            } else {
                UnitState::Gone
            }
        }
        Intent::Run if !facts.rules.drivers.contains(&kind) => UnitState::Failed {
            code: FailureCode::DriverMissing.as_str().to_owned(),
            message: format!("this node has no driver for {kind} workloads"),
            // Never: trying again would change nothing.
            retry_at: Timestamp::default(),
        },
        Intent::Run => match (down, failed(note)) {
            (Some(down), _) => UnitState::Failed {
                code: "engine-down".to_owned(),
                message: down.problem.clone(),
                retry_at: down.retry.wall,
            },
            (None, Some(failed)) => failed,
            (None, None) => preparing(note),
        },
    }
}

fn preparing(note: Option<&Note>) -> UnitState {
    UnitState::Preparing {
        detail: note.map(|note| note.detail.clone()).unwrap_or_default(),
    }
}

fn failed(note: Option<&Note>) -> Option<UnitState> {
    let trouble = note?.trouble.as_ref()?;
    Some(UnitState::Failed {
        code: trouble.code.to_owned(),
        message: trouble.message.clone(),
        retry_at: trouble.retry.wall,
    })
}

//! Workloads: the record, and how far it is true in one word.

use hostler_control::Control;
use hostler_control::fleet::{Applied, State};
use hostler_model::{Assignment, Desired, Revision, Workload};
use hostler_wire::api;
use hostler_wire::api::{StateWord, WorkloadStatus};
use serde_json::Value;

use super::{assignment, desired, moment};

/// How the copies stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    /// Copies that are wanted.
    wanted: u32,
    /// Wanted copies that run.
    running: u32,
    /// Wanted copies that have ended well, and badly.
    finished: u32,
    failed: u32,
    /// Wanted copies that are tried again.
    ailing: u32,
    /// Copies that are to stop and have not.
    stopping: u32,
    /// Wanted copies without a node.
    pending: u32,
}

/// What became of one document.
pub(in crate::api) fn applied(applied: Applied) -> api::ApplyResult {
    let Applied {
        id,
        name,
        revision,
        changed,
        created,
    } = applied;
    api::ApplyResult {
        id: id.to_string(),
        name,
        revision,
        changed,
        created,
    }
}

/// A workload as lists show it.
pub(in crate::api) fn workload(
    control: &Control,
    state: &State,
    workload: &Workload,
) -> api::Workload {
    let tally = tally(control, state, workload);
    api::Workload {
        id: workload.id.to_string(),
        name: workload.name.clone(),
        kind: workload.spec.kind().as_str().to_owned(),
        desired: desired(workload.desired),
        status: status(workload.desired, &tally),
        revision: workload.revision,
        count: workload.spec.count,
        running: tally.running,
        pending: tally.pending,
        spec: value(&workload.spec),
        created_at: moment(workload.created_at),
        updated_at: moment(workload.updated_at),
        copies: None,
    }
}

/// A workload with its copies, by slot, the newest generation of a slot first.
pub(in crate::api) fn workload_with_copies(
    control: &Control,
    state: &State,
    it: &Workload,
) -> api::Workload {
    let mut copies: Vec<&Assignment> = state.assignments_of(it.id).map(AsRef::as_ref).collect();
    copies.sort_by_key(|copy| (copy.slot, std::cmp::Reverse(copy.generation)));
    let copies = copies
        .into_iter()
        .map(|copy| assignment(control, state, copy))
        .collect();
    api::Workload {
        copies: Some(copies),
        ..workload(control, state, it)
    }
}

/// A step of the history as the API shows it.
pub(in crate::api) fn revision(revision: &Revision) -> api::Revision {
    api::Revision {
        revision: revision.number,
        desired: desired(revision.desired),
        at: moment(revision.at),
        actor: revision.actor.clone(),
        spec: value(&revision.spec),
    }
}

/// A spec as JSON. Its keys are strings, so writing it cannot fail.
fn value(spec: &hostler_model::spec::WorkloadSpec) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

fn tally(control: &Control, state: &State, workload: &Workload) -> Tally {
    let mut tally = Tally {
        pending: state.pending_copies(workload.id),
        ..Tally::default()
    };
    for copy in state.assignments_of(workload.id) {
        if !copy.is_wanted() {
            tally.stopping += 1;
            continue;
        }
        tally.wanted += 1;
        if let Some(outcome) = &copy.outcome {
            let ending = if outcome.exit.is_success() {
                &mut tally.finished
            } else {
                &mut tally.failed
            };
            *ending += 1;
            continue;
        }
        match assignment(control, state, copy).state.word {
            StateWord::Running => tally.running += 1,
            StateWord::Waiting | StateWord::Failed | StateWord::Unknown => tally.ailing += 1,
            StateWord::Assigned
            | StateWord::Preparing
            | StateWord::Starting
            | StateWord::Stopping
            | StateWord::Finished
            | StateWord::Gone => {}
        }
    }
    tally
}

const fn status(desired: Desired, tally: &Tally) -> WorkloadStatus {
    let rest = tally.finished + tally.failed;
    match desired {
        Desired::Deleted => WorkloadStatus::Stopping,
        Desired::Stopped if tally.wanted + tally.stopping > 0 => WorkloadStatus::Stopping,
        Desired::Stopped => WorkloadStatus::Stopped,
        Desired::Running if tally.wanted + tally.pending == 0 && tally.stopping > 0 => {
            WorkloadStatus::Stopping
        }
        Desired::Running if tally.wanted + tally.pending == 0 => WorkloadStatus::Stopped,
        Desired::Running if tally.pending == 0 && rest == tally.wanted && tally.failed > 0 => {
            WorkloadStatus::Failed
        }
        Desired::Running if tally.pending == 0 && rest == tally.wanted => WorkloadStatus::Finished,
        Desired::Running
            if tally.pending == 0 && tally.running + tally.finished == tally.wanted =>
        {
            WorkloadStatus::Running
        }
        Desired::Running if tally.running + tally.ailing + rest > 0 => WorkloadStatus::Degraded,
        Desired::Running => WorkloadStatus::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_a_workload_follows_from_its_copies() {
        let none = Tally::default();
        let of = |tally| status(Desired::Running, &tally);
        assert_eq!(
            of(Tally {
                wanted: 2,
                running: 2,
                ..none
            }),
            WorkloadStatus::Running
        );
        assert_eq!(
            of(Tally {
                wanted: 2,
                running: 1,
                finished: 1,
                ..none
            }),
            WorkloadStatus::Running
        );
        assert_eq!(
            of(Tally {
                wanted: 2,
                running: 1,
                ..none
            }),
            WorkloadStatus::Degraded
        );
        assert_eq!(
            of(Tally {
                wanted: 1,
                ailing: 1,
                ..none
            }),
            WorkloadStatus::Degraded
        );
        assert_eq!(
            of(Tally {
                wanted: 1,
                running: 1,
                pending: 1,
                ..none
            }),
            WorkloadStatus::Degraded
        );
        assert_eq!(of(Tally { pending: 1, ..none }), WorkloadStatus::Pending);
        assert_eq!(of(Tally { wanted: 1, ..none }), WorkloadStatus::Pending);
        assert_eq!(
            of(Tally {
                wanted: 1,
                finished: 1,
                ..none
            }),
            WorkloadStatus::Finished
        );
        assert_eq!(
            of(Tally {
                wanted: 2,
                finished: 1,
                failed: 1,
                ..none
            }),
            WorkloadStatus::Failed
        );
        assert_eq!(
            of(Tally {
                stopping: 1,
                ..none
            }),
            WorkloadStatus::Stopping
        );
        assert_eq!(of(none), WorkloadStatus::Stopped);
        assert_eq!(status(Desired::Stopped, &none), WorkloadStatus::Stopped);
        let still = Tally {
            stopping: 1,
            ..none
        };
        assert_eq!(status(Desired::Stopped, &still), WorkloadStatus::Stopping);
        assert_eq!(status(Desired::Deleted, &none), WorkloadStatus::Stopping);
    }
}

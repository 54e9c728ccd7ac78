//! Workloads: the record, and how far it is true in one word.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hostler_control::Control;
use hostler_control::fleet::{Applied, State};
use hostler_model::{Assignment, Desired, NodeId, Revision, Workload};
use hostler_wire::api;
use hostler_wire::api::{StateWord, WorkloadStatus};
use serde::Serialize;
use serde_json::Value;

use super::assignment::{assignment, is_outdated, state_of};
use super::difference::difference;
use super::rollout::rollout;
use super::{count, desired, moment};

/// How many nodes and copies are named.
const NAMED_NODES: usize = 3;
const NAMED_COPIES: usize = 5;
/// Kinds of trouble, the worst first.
const RANKS: usize = 4;

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
    /// Wanted copies that run an older template, or wait for a restart.
    outdated: u32,
    /// Copies that are to stop and have not.
    stopping: u32,
    /// Wanted copies without a node.
    pending: u32,
}

/// What one look over all copies finds.
#[derive(Default)]
struct Look<'a> {
    tally: Tally,
    standing: api::Standing,
    nodes: BTreeSet<NodeId>,
    troubles: [Vec<&'a Assignment>; RANKS],
    /// The copy of the lowest slot that has ended badly for good.
    worst: Option<&'a Assignment>,
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
pub(in crate::api) fn workload(control: &Control, state: &State, it: &Workload) -> api::Workload {
    shown(control, state, it, look(control, state, it))
}

/// A workload with names and troubles of some of its copies.
pub(in crate::api) fn workload_in_detail(
    control: &Control,
    state: &State,
    it: &Workload,
) -> api::Workload {
    let look = look(control, state, it);
    let nodes = look.nodes.iter().filter_map(|id| state.node(*id));
    let nodes: Vec<String> = nodes
        .take(NAMED_NODES)
        .map(|node| node.name.clone())
        .collect();
    let troubles = look.troubles.iter().flatten().take(NAMED_COPIES);
    let troubles = troubles
        .map(|copy| assignment(control, state, copy))
        .collect();
    let mut shown = shown(control, state, it, look);
    shown.standing.nodes = nodes;
    shown.standing.troubles = troubles;
    let mut hasher = DefaultHasher::new();
    value(&shown).to_string().hash(&mut hasher);
    shown.standing.mark = format!("{:016x}", hasher.finish());
    shown
}

fn shown(control: &Control, state: &State, workload: &Workload, look: Look<'_>) -> api::Workload {
    let revision = state.revision(workload.id, workload.revision);
    let rollout = rollout(control, state, workload);
    let has_failed = rollout
        .as_ref()
        .is_some_and(|rollout| rollout.stage == api::RolloutStage::Failed);
    let Look {
        tally,
        standing,
        nodes,
        worst,
        ..
    } = look;
    api::Workload {
        id: workload.id.to_string(),
        name: workload.name.clone(),
        kind: workload.spec.kind().as_str().to_owned(),
        desired: desired(workload.desired),
        status: match status(workload.desired, &tally) {
            WorkloadStatus::Updating if has_failed => WorkloadStatus::Degraded,
            WorkloadStatus::Stopped
                if workload.spec.is_scheduled() && workload.desired == Desired::Running =>
            {
                WorkloadStatus::Scheduled
            }
            status => status,
        },
        revision: workload.revision,
        count: workload.spec.count,
        running: tally.running,
        pending: tally.pending,
        spec: value(&*workload.spec),
        created_at: moment(workload.created_at),
        updated_at: moment(workload.updated_at),
        note: revision.and_then(|revision| revision.note.clone()),
        rollout,
        standing: api::Standing {
            wanted: tally.wanted,
            outdated: tally.outdated,
            stopping: tally.stopping,
            reason: worst.map(|worst| reason(&tally, worst)),
            node_count: count(nodes.len()),
            ..standing
        },
    }
}

/// A step of the history as the API shows it.
pub(in crate::api) fn revision(revision: &Revision, before: Option<&Revision>) -> api::Revision {
    let changes = before.map(|before| difference(&before.spec, &revision.spec));
    api::Revision {
        note: revision.note.clone(),
        changes: changes.unwrap_or_default(),
        revision: revision.number,
        desired: desired(revision.desired),
        at: moment(revision.at),
        actor: revision.actor.clone(),
        spec: value(&*revision.spec),
    }
}

/// A body as JSON. Its keys are strings, so writing it cannot fail.
fn value(body: &impl Serialize) -> Value {
    serde_json::to_value(body).unwrap_or_default()
}

fn look<'a>(control: &Control, state: &'a State, workload: &Workload) -> Look<'a> {
    let mut look = Look::default();
    look.tally.pending = state.pending_copies(workload.id);
    for copy in state.assignments_of(workload.id) {
        if copy.is_wanted() {
            look.nodes.insert(copy.node);
            look.count(control, state, workload, copy);
        } else {
            look.tally.stopping += 1;
        }
    }
    look
}

impl<'a> Look<'a> {
    /// Counts a wanted copy.
    fn count(
        &mut self,
        control: &Control,
        state: &'a State,
        workload: &Workload,
        copy: &'a Assignment,
    ) {
        let (now, runs) = state_of(control, state, copy);
        let is_outdated = is_outdated(workload, copy);
        let has_ended = copy
            .outcome
            .as_ref()
            .map(|outcome| outcome.exit.is_success());
        if has_ended == Some(false) && self.worst.is_none_or(|worst| copy.slot < worst.slot) {
            self.worst = Some(copy);
        }
        let tally = &mut self.tally;
        tally.wanted += 1;
        tally.outdated += u32::from(is_outdated);
        self.standing.restarts += runs.saturating_sub(1);
        let (is_settled, rank) = match (has_ended, now.word) {
            (Some(true), _) => (bump(&mut tally.finished), 3),
            (Some(false), _) => (!bump(&mut tally.failed), 0),
            (None, StateWord::Running) => match wellness(&now) {
                Wellness::Well => (bump(&mut tally.running), 3),
                Wellness::Unknown => (false, 2),
                Wellness::Ill => (!bump(&mut tally.ailing), 1),
            },
            (
                None,
                StateWord::Waiting
                | StateWord::CrashLooping
                | StateWord::Failed
                | StateWord::Unknown,
            ) => (!bump(&mut tally.ailing), 1),
            (
                None,
                StateWord::Assigned
                | StateWord::Preparing
                | StateWord::Starting
                | StateWord::Stopping
                | StateWord::Finished
                | StateWord::Gone,
            ) => (false, 2),
        };
        if is_settled && !is_outdated {
            self.standing.settled += 1;
            return;
        }
        self.standing.failed += u32::from(rank == 0 && !is_outdated);
        self.standing.last_exit = self.standing.last_exit.take().or(now.exit);
        let rank = if is_outdated { RANKS - 1 } else { rank };
        if self.troubles[rank].len() < NAMED_COPIES {
            self.troubles[rank].push(copy);
        }
    }
}

/// Whether a copy that runs does so well.
enum Wellness {
    Well,
    Unknown,
    Ill,
}

fn wellness(now: &api::AssignmentState) -> Wellness {
    match now.health.as_deref() {
        Some("unhealthy") => Wellness::Ill,
        _ if now.crash_loop.is_some() => Wellness::Ill,
        Some("starting") => Wellness::Unknown,
        _ => Wellness::Well,
    }
}

/// Why copies have ended badly for good, by the first of them.
fn reason(tally: &Tally, worst: &Assignment) -> String {
    let Some(outcome) = &worst.outcome else {
        return String::new();
    };
    let runs = match outcome.runs {
        1 => "its only run".to_owned(),
        runs => format!("{runs} runs"),
    };
    format!(
        "{} of {} failed; copy {} after {runs}: {}",
        tally.failed, tally.wanted, worst.slot, outcome.exit
    )
}

/// Counts up, and is true.
const fn bump(number: &mut u32) -> bool {
    *number += 1;
    true
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
        Desired::Running
            if tally.outdated > 0 && tally.pending + tally.ailing + tally.failed == 0 =>
        {
            WorkloadStatus::Updating
        }
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
        let updating = Tally {
            wanted: 2,
            running: 2,
            outdated: 1,
            ..none
        };
        assert_eq!(of(updating), WorkloadStatus::Updating);
        let ailing = Tally {
            running: 1,
            ailing: 1,
            ..updating
        };
        assert_eq!(of(ailing), WorkloadStatus::Degraded);
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

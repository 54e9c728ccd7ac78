//! Jobs: the workload's record in the words of jobs.

use hostler_control::Control;
use hostler_control::fleet::State;
use hostler_model::{Outcome, Workload};
use hostler_wire::api;

use super::{desired, moment, workload};

/// A job or a schedule as the API shows it.
pub(in crate::api) fn job(control: &Control, state: &State, it: &Workload) -> api::Job {
    let shown = workload(control, state, it);
    let job = it.spec.job.as_ref().filter(|job| job.schedule.is_some());
    let next = job.and_then(|_| control.next_due(it));
    let copies = || state.assignments_of(it.id).filter(|copy| copy.is_wanted());
    let outcomes: Vec<&Outcome> = copies().filter_map(|copy| copy.outcome.as_ref()).collect();
    let is_over = copies().count() == outcomes.len() && shown.pending == 0;
    let ended_at = outcomes.iter().map(|outcome| outcome.at).max();
    let count = |is_success| {
        let ends = outcomes
            .iter()
            .filter(|it| it.exit.is_success() == is_success);
        super::count(ends.count())
    };
    let parent = it.parent.map(|parent| {
        let name = state.workload(parent).map(|parent| parent.name.clone());
        name.unwrap_or_else(|| parent.to_string())
    });
    api::Job {
        id: shown.id,
        name: shown.name,
        desired: desired(it.desired),
        status: shown.status,
        reason: shown.standing.reason,
        count: it.spec.count,
        running: shown.running,
        succeeded: count(true),
        failed: count(false),
        ended_at: ended_at.filter(|_| is_over).map(moment),
        schedule: job.and_then(|job| job.schedule.clone()),
        timezone: job.map(|job| job.timezone.clone()),
        next_due: next.map(moment),
        due: it.due.filter(|_| it.parent.is_some()).map(moment),
        parent,
        created_at: moment(it.created_at),
    }
}

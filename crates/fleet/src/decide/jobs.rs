//! Schedules and the jobs that they make.
//!
//! A schedule has no copies. At a due moment it makes a workload of its own, an ordinary job named
//! `<schedule>-<minute>`, which remembers its parent. Which moment was decided about last stands in the schedule's
//! record, so deciding again changes nothing, and of moments that were missed only the last one counts.
//!
//! ```text
//!   due ──► an earlier job is active? ──no──────────────────────────► make the job ──► forget the oldest
//!                    └──yes──► allow: make it │ forbid: pass over │ replace: stop that, make it
//! ```

use std::sync::Arc;

use hostler_model::spec::{Concurrency, JobSpec, WorkloadSpec};
use hostler_model::{Code, Desired, EventKind, Refusal, Timestamp, Workload, WorkloadId};

use super::workloads::{changed, check_not_deleting};
use super::{Draft, about_workload};
use crate::{Change, Expect, Reply, State};

const MINUTE: u64 = 60_000;
/// Jobs of one schedule that may begin in the same minute.
const MOST_OF_A_MINUTE: u32 = 99;

/// The due moment of a schedule that has not been decided about. Moments before the schedule was last changed or
/// started do not count.
#[must_use]
pub fn due(schedule: &Workload, now: Timestamp) -> Option<Timestamp> {
    if schedule.desired != Desired::Running {
        return None;
    }
    let last = schedule.spec.job.as_ref()?.last_due(now).ok()??;
    let decided = schedule.due.max(Some(schedule.updated_at));
    (Some(last) > decided).then_some(last)
}

/// Whether a job still has something to do, or something of it may still run.
#[must_use]
pub fn is_active(state: &State, job: &Workload) -> bool {
    let has_more = job.desired == Desired::Running && state.pending_copies(job.id) > 0;
    has_more || state.assignments_of(job.id).any(|copy| !copy.is_finished())
}

impl Draft<'_> {
    /// Decides about the due moment of a schedule, if there is one.
    pub(super) fn tick(&mut self, id: WorkloadId) -> Result<Reply, Refusal> {
        let schedule = self.workload(id)?;
        let Some(due) = due(schedule, self.now) else {
            return Ok(Reply::Done);
        };
        let Some(job) = &schedule.spec.job else {
            return Ok(Reply::Done);
        };
        let active = self.active_jobs(id);
        let stop = match (job.concurrency, active.is_empty()) {
            (Concurrency::Forbid, false) => {
                let name = &active[0].name;
                let message = format!("{} passes over {due}: {name} has not ended", schedule.name);
                self.warning(EventKind::JobSkipped, about_workload(id), message);
                false
            }
            (Concurrency::Replace, false) => true,
            (Concurrency::Allow, _) | (_, true) => false,
        };
        let is_passed_over = job.concurrency == Concurrency::Forbid && !active.is_empty();
        if stop {
            self.stop_jobs(&active);
        }
        if !is_passed_over {
            self.make_job(schedule, due)?;
        }
        self.forget_jobs(schedule, job);
        self.changes.push(Change::PutWorkload(Arc::new(Workload {
            due: Some(due),
            ..Workload::clone(schedule)
        })));
        Ok(Reply::Done)
    }

    /// Runs a job once more: of a schedule, a job of its own, now and whatever else runs; of a job, itself.
    pub(super) fn rerun(&mut self, id: WorkloadId, expect: Expect) -> Result<Reply, Refusal> {
        let workload = self.workload(id)?;
        check_not_deleting(workload)?;
        let Some(job) = &workload.spec.job else {
            let sentence = format!("workload {} is no job", workload.name);
            let advice = "`hostler restart` starts the copies of other workloads anew";
            return Err(Refusal::new(Code::BadRequest, sentence, advice));
        };
        if !workload.spec.is_scheduled() {
            return self.restart(id, expect);
        }
        let made = self.make_job(workload, self.now)?;
        self.forget_jobs(workload, job);
        Ok(changed(&made))
    }

    /// Deletes what a schedule has made, with the schedule.
    pub(super) fn delete_jobs(&mut self, schedule: WorkloadId) {
        let jobs: Vec<_> = self.state.jobs_of(schedule).cloned().collect();
        for job in jobs {
            self.delete_job(&job);
        }
    }

    fn active_jobs(&self, schedule: WorkloadId) -> Vec<Arc<Workload>> {
        let jobs = self.state.jobs_of(schedule);
        jobs.filter(|job| is_active(self.state, job))
            .cloned()
            .collect()
    }

    fn stop_jobs(&mut self, active: &[Arc<Workload>]) {
        for job in active.iter().filter(|job| job.desired == Desired::Running) {
            let next = Workload {
                desired: Desired::Stopped,
                revision: job.revision + 1,
                updated_at: self.now,
                ..Workload::clone(job)
            };
            let message = format!("job {} is to stop: the next one takes its place", job.name);
            self.revise_workload(next, EventKind::WorkloadStopped, message);
        }
    }

    fn make_job(&mut self, schedule: &Workload, due: Timestamp) -> Result<Workload, Refusal> {
        let name = self.job_name(&schedule.name, due)?;
        let spec = Arc::new(job_of(&schedule.spec, name));
        let job = Workload {
            parent: Some(schedule.id),
            due: Some(due),
            ..self.created(&spec)
        };
        let message = format!("job {} was made by {} for {due}", job.name, schedule.name);
        self.revise_workload(job.clone(), EventKind::JobStarted, message);
        Ok(job)
    }

    /// The first free name of that minute.
    fn job_name(&self, schedule: &str, due: Timestamp) -> Result<String, Refusal> {
        let first = format!("{schedule}-{}", due.as_millis() / MINUTE);
        let numbered = (2..=MOST_OF_A_MINUTE).map(|number| format!("{first}-{number}"));
        let names = std::iter::once(first.clone()).chain(numbered);
        let mut free = names.filter(|name| self.state.workload_by_name(name).is_none());
        free.next().ok_or_else(|| {
            let sentence = format!("{MOST_OF_A_MINUTE} jobs named `{first}` are there already");
            Refusal::new(Code::RevisionConflict, sentence, "try again in a minute")
        })
    }

    /// Deletes the oldest of the ended jobs that are more than the schedule keeps.
    fn forget_jobs(&mut self, schedule: &Workload, job: &JobSpec) {
        let jobs = self.state.jobs_of(schedule.id);
        let ended = jobs.filter(|job| !is_active(self.state, job));
        let mut ended: Vec<_> = ended
            .filter(|job| job.desired != Desired::Deleted)
            .cloned()
            .collect();
        ended.sort_by_key(|job| (job.due, job.id));
        let surplus = ended.len().saturating_sub(job.history as usize);
        for job in &ended[..surplus] {
            self.delete_job(job);
        }
    }

    fn delete_job(&mut self, job: &Workload) {
        if job.desired == Desired::Deleted {
            return;
        }
        let next = Workload {
            desired: Desired::Deleted,
            revision: job.revision + 1,
            updated_at: self.now,
            ..job.clone()
        };
        let message = format!("job {} is being deleted", job.name);
        self.revise_workload(next, EventKind::WorkloadDeleted, message);
    }
}

/// The spec of one job of a schedule.
fn job_of(schedule: &WorkloadSpec, name: String) -> WorkloadSpec {
    let bare = JobSpec::new(Vec::new());
    let job = schedule.job.as_ref().map(|job| JobSpec {
        schedule: None,
        timezone: bare.timezone,
        concurrency: bare.concurrency,
        history: bare.history,
        ..job.clone()
    });
    WorkloadSpec {
        name,
        job,
        ..schedule.clone()
    }
}

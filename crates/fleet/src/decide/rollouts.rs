//! Rollouts: how they begin, go a step further, are promoted, fail and are rolled back. What a rollout lets
//! settling do is in `pacing`.

use std::sync::Arc;

use hostler_model::spec::UpdateOrder;
use hostler_model::{
    Assignment, Base, Code, Desired, EventKind, FIRST_SPARE_SLOT, Level, Refusal, Rollout, Stage,
    UnitId, Workload, WorkloadId,
};

use super::settle::Chunk;
use super::workloads::{changed, check_not_deleting, unchanged};
use super::{Draft, about_workload, check_expected};
use crate::rollout::{Next, next_stage};
use crate::{Change, Expect, Progress, Reply, State};

/// The workload as copies are made of it while its rollout is held: as they were before.
pub(super) fn held_base(state: &State, workload: &Workload) -> Option<Workload> {
    let rollout = workload.rollout.as_ref()?;
    if !rollout.stage.is_held() {
        return None;
    }
    let base = rollout.base;
    let spec = Arc::clone(&state.revision(workload.id, base.revision)?.spec);
    Some(Workload {
        spec,
        revision: base.revision,
        template: base.template,
        restart: base.restart,
        rollout: None,
        ..workload.clone()
    })
}

impl Draft<'_> {
    /// The rollout that leads from one form of a workload to the next; none if no copy has to be replaced.
    pub(super) fn rollout(
        &self,
        old: &Workload,
        next: &Workload,
        is_way_back: bool,
    ) -> Option<Rollout> {
        if next.desired != Desired::Running {
            return None;
        }
        let target = (next.template, next.restart);
        if target == (old.template, old.restart) {
            return next.rollout.clone();
        }
        let copies = self.state.copies(old.id)?;
        copies
            .outdated(next)
            .find(|(slot, _)| *slot < FIRST_SPARE_SLOT)?;
        let base = old.rollout.as_ref().map_or(
            Base {
                revision: old.revision,
                template: old.template,
                restart: old.restart,
            },
            |rollout| rollout.base,
        );
        let update = &next.spec.update;
        // What ran before needs no proof, and a restart brings nothing new.
        let is_known = is_way_back || [base.template, old.template].contains(&next.template);
        let canary = if is_known { 0 } else { update.canary };
        let step = old.rollout.as_ref().map_or(0, |rollout| rollout.step) + 1;
        Some(if canary > 0 {
            Rollout {
                base,
                stage: Stage::Canary,
                spares: canary.min(next.spec.copies()),
                step,
            }
        } else {
            Rollout {
                base,
                stage: Stage::Rolling,
                spares: surge(next),
                step,
            }
        })
    }

    pub(super) fn promote_rollout(
        &mut self,
        id: WorkloadId,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        let old = self.workload(id)?;
        check_not_deleting(old)?;
        let noun = format!("workload {}", old.name);
        check_expected(expect, Some(old.revision), &noun)?;
        let Some(rollout) = &old.rollout else {
            let sentence = format!("no rollout of {} is under way", old.name);
            let advice = "apply a changed spec to begin one";
            return Err(Refusal::new(Code::NoRollout, sentence, advice));
        };
        if !rollout.stage.is_held() {
            return Ok(unchanged(old));
        }
        let next = promoted(old, rollout);
        let reply = changed(&next);
        self.changes.push(Change::PutWorkload(Arc::new(next)));
        let message = format!("revision {} of {} is promoted", old.revision, old.name);
        self.event(EventKind::RolloutPromoted, about_workload(id), message);
        Ok(reply)
    }

    pub(super) fn roll_back(
        &mut self,
        id: WorkloadId,
        to: Option<u64>,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        let old = self.workload(id)?;
        check_not_deleting(old)?;
        let noun = format!("workload {}", old.name);
        check_expected(expect, Some(old.revision), &noun)?;
        let to = match to {
            Some(to) => to,
            None => self.revision_before(old).ok_or_else(|| {
                let sentence = format!(
                    "no kept revision of {} before {} differs from it",
                    old.name, old.revision
                );
                revision_not_found(sentence)
            })?,
        };
        self.go_back(old, to, None)
    }

    /// The revision that is meant by going back: the one before the rollout, else the last that differs.
    fn revision_before(&self, workload: &Workload) -> Option<u64> {
        let base = workload.rollout.as_ref().map(|rollout| rollout.base);
        if let Some(base) = base.filter(|base| base.template != workload.template) {
            return Some(base.revision);
        }
        let history = self.state.history(workload.id).rev();
        let mut differing = history.filter(|step| {
            step.number < workload.revision && !step.spec.same_template(&workload.spec)
        });
        differing.next().map(|step| step.number)
    }

    fn go_back(
        &mut self,
        old: &Workload,
        to: u64,
        because: Option<&str>,
    ) -> Result<Reply, Refusal> {
        let Some(step) = self.state.revision(old.id, to) else {
            let sentence = format!("{} has no revision {to}, or not any more", old.name);
            return Err(revision_not_found(sentence));
        };
        let foreign = step.foreign.clone().or_else(|| old.foreign.clone());
        if old.spec == step.spec && old.foreign == foreign {
            return Ok(unchanged(old));
        }
        self.check_secrets(&step.spec)?;
        let next = self.respecified(old, &step.spec, foreign);
        let rollout = self.rollout(old, &next, true);
        let next = Workload { rollout, ..next };
        let because = because.map_or_else(String::new, |because| format!(": {because}"));
        let note = format!("rolled back to revision {to}{because}");
        let message = format!(
            "{} is {note}; it is revision {} now",
            next.name, next.revision
        );
        let reply = changed(&next);
        self.revise_with_note(next, EventKind::WorkloadRolledBack, message, Some(note));
        Ok(reply)
    }

    pub(super) fn advance(&mut self, seen: &Progress) -> Reply {
        const NOTHING: Reply = Reply::Touched {
            count: 0,
            more: false,
        };
        let state = self.state;
        let found = state
            .workload(seen.workload)
            .zip(state.copies(seen.workload));
        let Some((workload, copies)) = found else {
            return NOTHING;
        };
        let Some(rollout) = &workload.rollout else {
            return NOTHING;
        };
        if rollout.step != seen.step || workload.desired != Desired::Running {
            return NOTHING;
        }
        if let (Some(reason), false) = (&seen.failed, matches!(rollout.stage, Stage::Failed { .. }))
        {
            self.fail(workload, rollout, reason);
            return touched(1);
        }
        let marked =
            self.mark(workload, &seen.healthy, false) + self.mark(workload, &seen.lapsed, true);
        let mut chunk = Chunk::new(self, workload, copies, usize::MAX);
        if rollout.stage == Stage::Rolling {
            seen.idle.iter().for_each(|unit| chunk.renew_idle(*unit));
        }
        let renewed = chunk.renewed();
        if marked + renewed > 0 {
            // What follows from it is decided once the marks are made.
            chunk.set_rollout(Some(Rollout {
                step: rollout.step + 1,
                ..rollout.clone()
            }));
            chunk.finish();
            return touched(marked + renewed);
        }
        let next = next_stage(state, workload, copies);
        chunk.set_rollout(match next {
            None => return NOTHING,
            Some(Next::Finished) => None,
            Some(Next::Promoted) => promoted(workload, rollout).rollout,
        });
        chunk.finish();
        let (kind, how) = match next {
            Some(Next::Promoted) => (
                EventKind::RolloutPromoted,
                "is promoted: every canary is healthy",
            ),
            _ => (EventKind::RolloutFinished, "is rolled out"),
        };
        let message = format!("revision {} of {} {how}", workload.revision, workload.name);
        self.event(kind, about_workload(workload.id), message);
        touched(1)
    }

    /// Marks copies as known to be healthy, or not any more. Answers how many that changes.
    fn mark(&mut self, workload: &Workload, units: &[UnitId], trial: bool) -> usize {
        let state = self.state;
        let copies = units.iter().filter_map(|unit| {
            state
                .assignment(unit.assignment)
                .filter(|it| it.unit() == *unit)
        });
        let copies = copies
            .filter(|copy| copy.workload == workload.id && copy.is_wanted() && copy.trial != trial);
        let before = self.changes.len();
        let marked = copies.map(|copy| {
            Change::PutAssignment(Arc::new(Assignment {
                trial,
                ..Assignment::clone(copy)
            }))
        });
        self.changes.extend(marked);
        self.changes.len() - before
    }

    /// The rollout stops. What ran before comes back if that is wanted and there is something else to come
    /// back to.
    fn fail(&mut self, workload: &Workload, rollout: &Rollout, reason: &str) {
        let base = rollout.base;
        let message = format!(
            "the rollout of revision {} of {} has failed: {reason}",
            workload.revision, workload.name
        );
        let subject = about_workload(workload.id);
        self.append(EventKind::RolloutFailed, Level::Warning, subject, message);
        let goes_back = workload.spec.update.auto_revert && base.template != workload.template;
        if goes_back && self.go_back(workload, base.revision, Some(reason)).is_ok() {
            return;
        }
        let failed = Rollout {
            stage: Stage::Failed {
                reason: reason.to_owned(),
            },
            step: rollout.step + 1,
            ..rollout.clone()
        };
        self.changes.push(Change::PutWorkload(Arc::new(Workload {
            rollout: Some(failed),
            ..workload.clone()
        })));
    }
}

fn promoted(workload: &Workload, rollout: &Rollout) -> Workload {
    let rollout = Rollout {
        stage: Stage::Rolling,
        spares: rollout.spares.max(surge(workload)),
        step: rollout.step + 1,
        ..rollout.clone()
    };
    Workload {
        rollout: Some(rollout),
        ..workload.clone()
    }
}

/// How many copies run beside the counted ones so that these may stop one after the other.
fn surge(workload: &Workload) -> u32 {
    let update = &workload.spec.update;
    match update.order {
        UpdateOrder::StartFirst => update.max_parallel.min(workload.spec.copies()),
        UpdateOrder::StopFirst => 0,
    }
}

const fn touched(count: usize) -> Reply {
    Reply::Touched { count, more: false }
}

fn revision_not_found(sentence: String) -> Refusal {
    let advice = "list the kept revisions with `hostler history`";
    Refusal::new(Code::RevisionNotFound, sentence, advice)
}

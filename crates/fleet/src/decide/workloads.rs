//! Verbs of people about workloads. Each touches the workload's record and its history, never its copies:
//! settling brings those along.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_model::spec::{DisconnectPolicy, WorkloadSpec};
use hostler_model::{Code, Desired, EventKind, Foreign, Refusal, Revision, Workload, WorkloadId};

use super::{Draft, about_workload, check_expected, copies};
use crate::placement::Takings;
use crate::{Applied, ApplyOptions, Change, Expect, Reply};

impl Draft<'_> {
    pub(super) fn apply(
        &mut self,
        specs: &[Arc<WorkloadSpec>],
        options: ApplyOptions,
    ) -> Result<Reply, Refusal> {
        check_names(specs)?;
        let mut taken = Takings::default();
        let mut applied = Vec::with_capacity(specs.len());
        for spec in specs {
            self.check_secrets(spec)?;
            applied.push(self.apply_one(spec, options, &mut taken)?);
        }
        if options.dry_run {
            self.changes.clear();
        }
        Ok(Reply::Applied(applied))
    }

    fn apply_one(
        &mut self,
        spec: &Arc<WorkloadSpec>,
        options: ApplyOptions,
        taken: &mut Takings,
    ) -> Result<Applied, Refusal> {
        spec.check()?;
        check_enforceable(spec)?;
        let old = self.state.workload_by_name(&spec.name);
        if let Some(old) = old {
            check_not_deleting(old)?;
        }
        let noun = format!("workload {}", spec.name);
        check_expected(options.expect, old.map(|old| old.revision), &noun)?;
        let is_same = old.is_some_and(|old| old.spec == *spec);
        let next = match old {
            Some(old) if is_same => Workload::clone(old),
            Some(old) => {
                let next = self.respecified(old, spec, old.foreign.clone());
                let rollout = self.rollout(old, &next, false);
                Workload { rollout, ..next }
            }
            None => self.created(spec),
        };
        if !is_same {
            let message = match old {
                Some(_) => format!("{noun} changed to revision {}", next.revision),
                None => format!("{noun} was created with {}", copies(spec.count as usize)),
            };
            self.revise_workload(next.clone(), EventKind::WorkloadApplied, message);
        }
        if options.require_placement {
            self.place(&next, taken)?;
        }
        Ok(Applied {
            id: next.id,
            name: next.name,
            revision: next.revision,
            changed: !is_same,
            created: old.is_none(),
        })
    }

    pub(super) fn created(&mut self, spec: &Arc<WorkloadSpec>) -> Workload {
        Workload {
            id: WorkloadId::mint(self.now, self.draws.next()),
            name: spec.name.clone(),
            spec: Arc::clone(spec),
            desired: Desired::Running,
            revision: 1,
            template: 1,
            restart: 0,
            rollout: None,
            generation: 0,
            foreign: None,
            homes: BTreeMap::new(),
            parent: None,
            due: None,
            created_at: self.now,
            updated_at: self.now,
        }
    }

    /// The workload at its next revision. What the copies ran before the rollout keeps its template, so that
    /// going back leaves alone what still runs it. The rollout is still that of the old revision.
    pub(super) fn respecified(
        &self,
        old: &Workload,
        spec: &Arc<WorkloadSpec>,
        foreign: Option<Arc<Foreign>>,
    ) -> Workload {
        let revision = old.revision + 1;
        let is_same = |other: &WorkloadSpec, payload: &Option<Arc<Foreign>>| {
            // What is not in our spec may still matter to the node that gets the payload.
            other.same_template(spec) && payload_of(payload) == payload_of(&foreign)
        };
        let base = old.rollout.as_ref().map(|rollout| rollout.base);
        let before = base.filter(|base| {
            let step = self.state.revision(old.id, base.revision);
            step.is_some_and(|step| is_same(&step.spec, &step.foreign))
        });
        let template = if is_same(&old.spec, &old.foreign) {
            old.template
        } else {
            before.map_or(revision, |base| base.template)
        };
        Workload {
            spec: Arc::clone(spec),
            revision,
            template,
            foreign,
            updated_at: self.now,
            ..old.clone()
        }
    }

    /// Puts a workload at a new revision, with its step of history.
    pub(super) fn revise_workload(&mut self, workload: Workload, kind: EventKind, message: String) {
        self.revise_with_note(workload, kind, message, None);
    }

    /// The same, with why there is this revision.
    pub(super) fn revise_with_note(
        &mut self,
        workload: Workload,
        kind: EventKind,
        message: String,
        note: Option<String>,
    ) {
        let revision = Revision {
            workload: workload.id,
            number: workload.revision,
            spec: Arc::clone(&workload.spec),
            foreign: workload.foreign.clone(),
            desired: workload.desired,
            at: self.now,
            actor: self.actor.to_string(),
            note,
        };
        let subject = about_workload(workload.id);
        self.changes.push(Change::PutWorkload(Arc::new(workload)));
        self.changes.push(Change::PutRevision(Arc::new(revision)));
        self.event(kind, subject, message);
    }

    /// Every copy that is missing gets its place with the decision, so that nobody else can take it. Copies
    /// that an update replaces are not looked at: an update stops none before its place is found.
    fn place(&mut self, next: &Workload, taken: &mut Takings) -> Result<(), Refusal> {
        if next.desired != Desired::Running {
            return Ok(());
        }
        let short = self.fill(next, taken);
        if short == 0 {
            return Ok(());
        }
        let pending = u32::try_from(short).unwrap_or(u32::MAX);
        let why = crate::why::explain(self.state, next, pending, taken);
        let sentence = format!("{} of {} fit nowhere now", copies(short), next.name);
        let advice = why.nearest.clone().unwrap_or_else(|| {
            "add nodes, or apply it without requiring placement: it is placed when room appears"
                .to_owned()
        });
        let details = why.nodes.iter().map(ToString::to_string).collect();
        Err(Refusal::new(Code::NoPlacement, sentence, advice).with_details(details))
    }

    pub(super) fn set_desired(
        &mut self,
        id: WorkloadId,
        desired: Desired,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        let old = self.workload(id)?;
        if desired != Desired::Deleted {
            check_not_deleting(old)?;
        }
        let noun = format!("workload {}", old.name);
        if old.desired == desired {
            return Ok(unchanged(old));
        }
        check_expected(expect, Some(old.revision), &noun)?;
        let next = Workload {
            desired,
            revision: old.revision + 1,
            // What stops is not replaced, and what starts again is all new.
            rollout: None,
            updated_at: self.now,
            ..Workload::clone(old)
        };
        let (kind, message) = match desired {
            Desired::Running => (EventKind::WorkloadStarted, format!("{noun} is to run")),
            Desired::Stopped => (EventKind::WorkloadStopped, format!("{noun} is to stop")),
            Desired::Deleted => (
                EventKind::WorkloadDeleted,
                format!("{noun} is being deleted"),
            ),
        };
        let reply = changed(&next);
        self.revise_workload(next, kind, message);
        if desired == Desired::Deleted {
            self.delete_jobs(id);
        }
        Ok(reply)
    }

    /// Counts up the restart number, which outdates every copy; a stopped workload is started instead.
    pub(super) fn restart(&mut self, id: WorkloadId, expect: Expect) -> Result<Reply, Refusal> {
        let old = self.workload(id)?;
        check_not_deleting(old)?;
        check_expected(
            expect,
            Some(old.revision),
            &format!("workload {}", old.name),
        )?;
        if old.desired == Desired::Stopped {
            return self.set_desired(id, Desired::Running, expect);
        }
        if old
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.stage.is_held())
        {
            let sentence = format!(
                "a rollout of {} waits to be promoted or rolled back",
                old.name
            );
            let advice = "decide that first, with `hostler promote` or `hostler rollback`";
            return Err(Refusal::new(Code::RolloutHeld, sentence, advice));
        }
        let next = Workload {
            restart: old.restart + 1,
            updated_at: self.now,
            ..Workload::clone(old)
        };
        let rollout = self.rollout(old, &next, false);
        let next = Workload { rollout, ..next };
        let message = format!("workload {} is to restart", old.name);
        let reply = changed(&next);
        self.changes.push(Change::PutWorkload(Arc::new(next)));
        self.event(EventKind::WorkloadRestarted, about_workload(id), message);
        Ok(reply)
    }
}

fn payload_of(foreign: &Option<Arc<Foreign>>) -> Option<&[u8]> {
    foreign.as_ref().map(|foreign| foreign.payload.as_ref())
}

pub(super) const fn unchanged(workload: &Workload) -> Reply {
    Reply::Workload {
        id: workload.id,
        revision: workload.revision,
        changed: false,
    }
}

pub(super) const fn changed(workload: &Workload) -> Reply {
    Reply::Workload {
        id: workload.id,
        revision: workload.revision,
        changed: true,
    }
}

fn check_names(specs: &[Arc<WorkloadSpec>]) -> Result<(), Refusal> {
    let mut names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.sort_unstable();
    let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) else {
        return Ok(());
    };
    let sentence = format!("two documents are named `{}`", pair[0]);
    let advice = "give each workload a name of its own";
    Err(Refusal::new(Code::SpecInvalid, sentence, advice))
}

pub(super) fn check_not_deleting(workload: &Workload) -> Result<(), Refusal> {
    if workload.desired != Desired::Deleted {
        return Ok(());
    }
    let sentence = format!("workload {} is being deleted", workload.name);
    let advice = "wait until its last copy is gone, or use another name";
    Err(Refusal::new(Code::WorkloadDeleting, sentence, advice))
}

pub(super) fn check_enforceable(spec: &WorkloadSpec) -> Result<(), Refusal> {
    let kind = spec.runs_on();
    if spec.disconnect.policy != DisconnectPolicy::Singleton || kind.enforces_singleton() {
        return Ok(());
    }
    let sentence = format!(
        "a {kind} cannot be a singleton: its driver cannot stop it while the node is cut off"
    );
    let advice = "use `disconnect: { policy: keep }`, or run it as a process";
    Err(Refusal::new(Code::DriverUnsupported, sentence, advice))
}

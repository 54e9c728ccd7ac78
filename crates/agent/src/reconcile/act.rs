//! Doing the steps: one task per step, never two on one unit, and what became of them.
//!
//! Starts of a kind take turns. Preparations do not: one may take as long as a registry lets it, so each
//! driver bounds what is costly about its own, and one that is not wanted any more is dropped.

use std::sync::Arc;
use std::time::Duration;

use hostler_model::spec::{Kind, WorkloadSpec};
use hostler_model::{Exit, UnitId, WorkloadId};
use hostler_runtime::{FoundState, Runtime, RuntimeError, Unit};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Input, Reconciler, adoption};
use crate::ledger::Finished;
use crate::notes::{Doing, Seen};
use crate::plan::{self, Step, StopReason};

/// How long setting a dead man's switch may take.
const EXTEND_PATIENCE: Duration = Duration::from_secs(5);

/// A preparation under way; dropping it drops the driver's work.
pub(super) struct Preparation {
    kind: Kind,
    workload: WorkloadId,
    _kept: oneshot::Sender<()>,
}

impl Preparation {
    /// The most that it can have left.
    const fn left(&self) -> Seen {
        Seen {
            kind: self.kind,
            workload: self.workload,
            state: FoundState::Prepared,
            runs: 0,
            parts: Vec::new(),
        }
    }
}

impl Reconciler {
    /// Begins a step, unless it ends something and the order for that is not on disk.
    pub(super) fn dispatch(&mut self, step: Step) {
        match step {
            Step::Finish(unit, finished) => self.finish(unit, finished),
            Step::Prepare(unit) => self.prepare(unit),
            Step::Start(unit) => self.spawn(unit, step, Doing::Starting),
            Step::Stop(unit, StopReason::CutOff) => {
                tracing::warn!(%unit, "stopping a singleton: no contact with the control plane");
                self.spawn(unit, step, Doing::Stopping);
            }
            Step::Stop(unit, reason @ (StopReason::Unhealthy | StopReason::TimedOut)) => {
                let health = self.notes.get(&unit).and_then(|note| note.health.as_ref());
                tracing::warn!(%unit, ?reason, ?health, "stopping a run that went wrong");
                self.spawn(unit, step, Doing::Stopping);
            }
            Step::Stop(unit, StopReason::Retired) if self.saves.is_open(unit.assignment) => {
                self.spawn(unit, step, Doing::Stopping);
            }
            Step::Remove(unit, _) if self.saves.is_open(unit.assignment) => {
                self.spawn(unit, step, Doing::Removing);
            }
            Step::Stop(..) | Step::Remove(..) => {
                let now = self.now();
                self.saves.hurry(now);
            }
        }
    }

    fn finish(&mut self, unit: UnitId, finished: Finished) {
        tracing::info!(%unit, exit = %finished.exit, runs = finished.runs, "unit finished");
        self.notes.entry(unit).or_default().finished = Some(finished);
        self.save_entry(unit.assignment);
    }

    fn prepare(&mut self, unit: UnitId) {
        let Some(item) = self.intents.get(&unit.assignment) else {
            return;
        };
        let wanted = Unit {
            id: unit,
            workload: item.workload,
            workload_name: item.workload_name.clone(),
            slot: item.slot,
            spec: WorkloadSpec::runnable(&item.spec),
            volumes: Vec::new(),
        };
        let Some(runtime) = self.runtimes.get(&item.spec.runs_on()).map(Arc::clone) else {
            return;
        };
        let (sender, clock) = (self.sender.clone(), Arc::clone(&self.clock));
        let (guardian, vault) = (Arc::clone(&self.guardian), self.vault.clone());
        let (kept, dropped) = oneshot::channel();
        let (kind, workload) = (item.spec.runs_on(), item.workload);
        let preparation = Preparation {
            kind,
            workload,
            _kept: kept,
        };
        self.preparations.insert(unit, preparation);
        self.begin(unit, Doing::Preparing);
        self.tasks.spawn_until_stop("prepare", async move {
            let preparing = async {
                let begun = clock.uptime();
                let progress = progress_of(unit, sender.clone());
                let judged = adoption::judge(&guardian, &*runtime, &wanted.spec).await;
                let given = judged.and_then(|()| vault.give(&*runtime, (unit, &wanted.spec)));
                let answer = match given {
                    Ok(()) => runtime.prepare(&wanted, &progress).await,
                    Err(refused) => Err(refused),
                };
                note_duration(
                    unit,
                    Step::Prepare(unit),
                    clock.uptime().saturating_sub(begun),
                );
                report(&sender, Step::Prepare(unit), unit, answer.map(|()| None)).await;
            };
            // A preparation may be dropped anywhere: whoever drops it removes what it left.
            tokio::select! {
                biased;
                _ = dropped => {}
                () = preparing => {}
            }
        });
    }

    /// Drops the preparations of what is not to run any more: an end never waits for an image. What they
    /// have left is not known, so their units count as being here until a driver has removed them.
    pub(super) fn drop_preparations(&mut self) {
        let rules = self.rules(self.now());
        let facts = self.facts(&rules);
        let unwanted: Vec<UnitId> = self
            .preparations
            .keys()
            .copied()
            .filter(|unit| facts.is_unwanted(*unit))
            .collect();
        for unit in unwanted {
            let Some(dropped) = self.preparations.remove(&unit) else {
                continue;
            };
            tracing::info!(%unit, "dropping a preparation: the unit is not wanted any more");
            self.serial += 1;
            self.touched.insert(unit, self.serial);
            let note = self.notes.entry(unit).or_default();
            (note.doing, note.trouble) = (None, None);
            self.observed
                .units
                .entry(unit)
                .or_insert_with(|| dropped.left());
        }
    }

    fn spawn(&mut self, unit: UnitId, step: Step, doing: Doing) {
        let Some(runtime) = self.runtime_of(unit) else {
            return;
        };
        let Some(starts) = self.starts_of(unit) else {
            return;
        };
        let (sender, clock) = (self.sender.clone(), Arc::clone(&self.clock));
        let item = self.intents.get(&unit.assignment);
        let item = item.filter(|item| item.unit == unit);
        let spec = item.map(|item| WorkloadSpec::runnable(&item.spec));
        let vault = self.vault.clone();
        self.begin(unit, doing);
        self.tasks.spawn_until_stop("step", async move {
            let permit = match doing {
                Doing::Starting => starts.acquire().await.ok(),
                Doing::Preparing | Doing::Stopping | Doing::Removing => None,
            };
            let begun = clock.uptime();
            let answer = match step {
                Step::Start(_) => {
                    let spec = spec.as_deref();
                    let given = spec.map_or(Ok(()), |spec| vault.give(&*runtime, (unit, spec)));
                    match given {
                        Ok(()) => runtime.start(unit).await.map(|()| None),
                        Err(error) => Err(error),
                    }
                }
                Step::Stop(..) => runtime.stop(unit).await.map(Some),
                Step::Remove(_, data) => runtime.remove(unit, data).await.map(|()| None),
                // These have their own ways.
                Step::Prepare(_) | Step::Finish(..) => Ok(None),
            };
            drop(permit);
            note_duration(unit, step, clock.uptime().saturating_sub(begun));
            report(&sender, step, unit, answer).await;
        });
    }

    fn begin(&mut self, unit: UnitId, doing: Doing) {
        self.notes.entry(unit).or_default().doing = Some(doing);
    }

    /// Takes in what became of a step.
    pub(super) fn step_done(
        &mut self,
        unit: UnitId,
        step: Step,
        answer: Result<Option<Exit>, RuntimeError>,
    ) {
        let prepared = match step {
            Step::Prepare(_) => match self.preparations.remove(&unit) {
                Some(preparation) => Some(preparation.left()),
                // It was dropped in the moment of its end.
                None => return,
            },
            _ => None,
        };
        self.serial += 1;
        self.touched.insert(unit, self.serial);
        self.notes.entry(unit).or_default().doing = None;
        let kind = self.kind_of(unit);
        match answer {
            Ok(exit) => {
                if let Some(prepared) = prepared {
                    self.observed.units.entry(unit).or_insert(prepared);
                }
                self.succeeded(unit, step, exit);
            }
            Err(error) => self.failed(unit, step, &error),
        }
        if let Some(kind) = kind {
            self.confirm(kind);
        }
    }

    fn succeeded(&mut self, unit: UnitId, step: Step, exit: Option<Exit>) {
        let now = self.now();
        let note = self.notes.entry(unit).or_default();
        note.trouble = None;
        note.detail.clear();
        match step {
            Step::Start(_) => {
                note.is_fenced = false;
                note.restart = None;
                note.health = None;
                if let Some(seen) = self.observed.units.get_mut(&unit)
                    && !matches!(seen.state, FoundState::Running { .. })
                {
                    seen.state = FoundState::Running { since: now.wall };
                    seen.runs += 1;
                }
                self.extend(unit);
            }
            Step::Stop(_, reason) => {
                note.is_fenced = reason == StopReason::CutOff;
                if let Some(seen) = self.observed.units.get_mut(&unit) {
                    note.broken_off = reason.counts_as().map(|exit| (seen.runs, exit));
                    let exit = exit.unwrap_or(Exit::Unknown);
                    seen.state = FoundState::Exited { exit, at: now.wall };
                }
            }
            Step::Remove(..) => {
                self.observed.units.remove(&unit);
            }
            Step::Prepare(_) | Step::Finish(..) => {}
        }
    }

    fn failed(&mut self, unit: UnitId, step: Step, error: &RuntimeError) {
        let now = self.now();
        match error {
            RuntimeError::EngineDown { .. } => {
                if let Some(kind) = self.kind_of(unit) {
                    self.engine_down(kind, error);
                }
                return;
            }
            RuntimeError::NotFound(_) => {
                self.observed.units.remove(&unit);
            }
            _ => {}
        }
        tracing::warn!(%unit, step = step.word(), code = error.code(), %error, "step failed");
        self.notes
            .entry(unit)
            .or_default()
            .failed(error.code(), error.to_string(), now);
    }

    /// Lets a running singleton run for as long as the last contact allows.
    pub(super) fn extend(&mut self, unit: UnitId) {
        let Some(item) = self
            .intents
            .get(&unit.assignment)
            .filter(|item| item.unit == unit)
        else {
            return;
        };
        let is_running = self
            .observed
            .units
            .get(&unit)
            .is_some_and(|seen| matches!(seen.state, FoundState::Running { .. }));
        if !plan::is_singleton(item) || !is_running || self.extending.contains(&unit) {
            return;
        }
        let contact = self.rules(self.now()).contact;
        let span = plan::stop_after(item).saturating_sub(contact.age);
        if !contact.is_proved || span.is_zero() {
            return;
        }
        let Some(runtime) = self
            .runtime_of(unit)
            .filter(|runtime| runtime.fencing().is_some())
        else {
            return;
        };
        self.extending.insert(unit);
        let sender = self.sender.clone();
        self.tasks.spawn_until_stop("extend", async move {
            if let Some(fencing) = runtime.fencing() {
                match tokio::time::timeout(EXTEND_PATIENCE, fencing.extend(unit, span)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%unit, %error, "cannot extend a singleton"),
                    Err(_) => tracing::warn!(%unit, "extending a singleton takes too long"),
                }
            }
            // The receiver is gone only when the agent stops.
            let _ = sender.send(Input::Extended(unit)).await;
        });
    }

    fn kind_of(&self, unit: UnitId) -> Option<Kind> {
        let seen = self.observed.units.get(&unit).map(|seen| seen.kind);
        seen.or_else(|| {
            self.intents
                .get(&unit.assignment)
                .map(|item| item.spec.runs_on())
        })
    }

    /// The turns to start something of the unit's kind.
    fn starts_of(&self, unit: UnitId) -> Option<Arc<Semaphore>> {
        let driver = self.drivers.get(&self.kind_of(unit)?)?;
        Some(Arc::clone(&driver.starts))
    }

    pub(super) fn runtime_of(&self, unit: UnitId) -> Option<Arc<dyn Runtime>> {
        self.runtimes.get(&self.kind_of(unit)?).map(Arc::clone)
    }
}

fn note_duration(unit: UnitId, step: Step, took: Duration) {
    tracing::debug!(%unit, step = step.word(), took_us = took.as_micros(), "step ended");
}

/// Progress is for people: where there is no room for it, it is left out.
fn progress_of(unit: UnitId, sender: mpsc::Sender<Input>) -> impl Fn(String) + Send + Sync {
    move |detail| {
        let _ = sender.try_send(Input::Progress { unit, detail });
    }
}

async fn report(
    sender: &mpsc::Sender<Input>,
    step: Step,
    unit: UnitId,
    answer: Result<Option<Exit>, RuntimeError>,
) {
    // The receiver is gone only when the agent stops.
    let _ = sender.send(Input::Done { unit, step, answer }).await;
}

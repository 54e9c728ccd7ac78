//! Following what the reconciler shows: when workloads change, which requests are done, what may be forgotten.
//!
//! Heartbeats and answers read what was gathered here; neither waits for a driver.

use std::sync::Arc;
use std::time::Duration;

use hostler_model::{Bytes, FailureCode, Intent, Timestamp, UnitId, UnitState};
use hostler_wire::persys::agent::ActualState;
use tokio::sync::oneshot;

use super::actions::{Action, Standing, Task};
use super::causes;
use super::core::{Core, Mark, Workload, lock};
use super::records::{Desired, GivenUp, Record};
use super::states::{self, Shown};
use crate::reconcile::{Input, Wanted};
use crate::show::Picture;

/// How long the first look at the node may delay the first answer.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Tries after which the node gives up what may be a passing trouble, if it has lasted for so long, too.
const TRIES: u32 = 3;
const LASTS: Duration = Duration::from_secs(15);

/// A workload that cannot be prepared or started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trouble {
    unit: UnitId,
    since: Duration,
    tries: u32,
    /// Another moment is another try.
    retry_at: Timestamp,
}

/// What a workload used when it was measured last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct UnitUsage {
    pub(super) cpu_percent: f64,
    pub(super) memory: u64,
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) at: Timestamp,
}

impl Core {
    /// Tells the reconciler what the records say, as its full intent; answers whether to go on.
    pub(super) async fn begin(&self) -> bool {
        let mut picture = self.handle.picture.clone();
        let complete = picture.wait_for(|picture| picture.is_complete);
        let looked = tokio::select! {
            biased;
            () = self.parts.tasks.stopping() => {
                self.let_go();
                return false;
            }
            looked = tokio::time::timeout(FIRST_LOOK, complete) => looked.map(|looked| looked.is_ok()),
        };
        if looked == Ok(false) {
            return false;
        }
        let workloads = self.workloads();
        let mut items: Vec<Wanted> = workloads.iter().map(Workload::wanted).collect();
        // What the reconciler's own ledger knows, and no record speaks of, goes on until it is applied again.
        let picture = self.picture();
        let is_recorded = |unit: &UnitId| {
            workloads
                .iter()
                .any(|it| it.unit.assignment == unit.assignment)
        };
        for unit in picture.units.keys().filter(|unit| !is_recorded(unit)) {
            tracing::warn!(%unit, "there is no record of a unit; it is kept until its workload is applied again");
            let intent = Intent::Run;
            items.push(Wanted::Unreadable {
                unit: *unit,
                intent,
            });
        }
        let (done, _) = oneshot::channel();
        let full = Input::Full {
            from: super::speaker(),
            revision: 0,
            items,
            done,
        };
        if self.handle.inputs.send(full).await.is_err() {
            return false;
        }
        self.has_begun.send_replace(true);
        true
    }

    /// Takes notice of every change until the agent stops.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut changed = self.handle.picture.clone();
        changed.mark_changed();
        loop {
            // Each arm only waits; what it waited for is looked at below, whichever it was.
            tokio::select! {
                biased;
                () = self.parts.tasks.stopping() => break,
                changed = changed.changed() => if changed.is_err() { break },
                () = self.nudge.notified() => {}
            }
            let picture = Arc::clone(&changed.borrow_and_update());
            let (gone, hopeless) = self.notice(&picture);
            for id in gone {
                self.forget_if_gone(&id).await;
            }
            for id in hopeless {
                self.give_up(&id).await;
            }
        }
        self.let_go();
    }

    /// Takes notice of what is shown now; answers the deleted workloads of which nothing is left, and those that
    /// are not worth another try.
    fn notice(&self, picture: &Picture) -> (Vec<String>, Vec<String>) {
        let now = self.now();
        let (mut gone, mut hopeless) = (Vec::new(), Vec::new());
        lock(&self.counts).looks += 1;
        for workload in self.workloads() {
            let shown = states::show(&workload, picture);
            self.mark(&workload, &shown, now);
            let id = &workload.record.id;
            lock(&self.actions).settle(id, now, |action| standing(action, &workload, &shown));
            if workload.record.desired == Desired::Deleted && shown.is_gone {
                gone.push(id.clone());
            }
            if self.is_hopeless(&workload, picture) {
                hopeless.push(id.clone());
            }
        }
        (gone, hopeless)
    }

    /// Whether another try of the node's own makes no sense: a scheduler takes what failed for something that rests,
    /// so the node must not begin it later by itself. Where there is no scheduler, it goes on trying.
    fn is_hopeless(&self, workload: &Workload, picture: &Picture) -> bool {
        let id = &workload.record.id;
        let mut troubles = lock(&self.troubles);
        let (code, retry_at) = match picture.units.get(&workload.unit).map(|it| &it.state) {
            Some(UnitState::Failed { code, retry_at, .. }) if workload.is_wanted() => {
                (code, *retry_at)
            }
            // It is being tried.
            Some(UnitState::Preparing { .. } | UnitState::Starting) => return false,
            _ => {
                troubles.remove(id);
                return false;
            }
        };
        let is_of_node = matches!(
            FailureCode::parse(code),
            Some(FailureCode::EngineDown | FailureCode::DriverMissing)
        );
        if is_of_node || self.persys.standalone {
            return false;
        }
        let uptime = self.parts.clock.uptime();
        let fresh = Trouble {
            unit: workload.unit,
            since: uptime,
            tries: 1,
            retry_at,
        };
        let trouble = troubles.entry(id.clone()).or_insert(fresh);
        if trouble.unit != workload.unit {
            *trouble = fresh;
        } else if trouble.retry_at != retry_at {
            (trouble.tries, trouble.retry_at) = (trouble.tries + 1, retry_at);
        }
        let has_lasted = uptime.saturating_sub(trouble.since) >= LASTS;
        !causes::of_driver(code).retryable || (trouble.tries >= TRIES && has_lasted)
    }

    /// Stops trying a workload; it is told as failed until it is applied again.
    async fn give_up(&self, id: &str) {
        let _turn = self.turn(id).await;
        let Some(workload) = self.workload(id) else {
            return;
        };
        let picture = self.picture();
        let state = picture.units.get(&workload.unit).map(|it| &it.state);
        let Some(UnitState::Failed { code, message, .. }) = state.filter(|_| workload.is_wanted())
        else {
            return;
        };
        let given_up = GivenUp {
            code: code.clone(),
            message: message.clone(),
        };
        let record = Record {
            given_up: Some(given_up),
            ..workload.record
        };
        tracing::warn!(
            workload = id,
            code,
            message,
            "giving a workload up until it is applied again"
        );
        if let Err(error) = self.keep(record).await {
            // The next failure is another occasion.
            tracing::error!(workload = id, %error, "cannot put on record that a workload was given up");
            return;
        }
        let words = message.clone();
        let now = self.now();
        lock(&self.actions).settle(id, now, |_| Some(Standing::Failed(words.clone())));
    }

    fn mark(&self, workload: &Workload, shown: &Shown, now: Timestamp) {
        let mut marks = lock(&self.marks);
        let mark = marks.get(&workload.record.id).copied();
        if mark.is_some_and(|mark| mark.actual == shown.actual) {
            return;
        }
        let id = workload.record.id.clone();
        let since = shown.started_at.unwrap_or(now);
        tracing::info!(
            workload = id,
            state = states::name(shown.actual),
            message = shown.message,
            "workload changed"
        );
        marks.insert(
            id,
            Mark {
                actual: shown.actual,
                since,
            },
        );
        drop(marks);
        if let (ActualState::Failed, Some(cause)) = (shown.actual, shown.cause) {
            lock(&self.counts).failed(cause.code);
        }
    }

    async fn forget_if_gone(&self, id: &str) {
        let _turn = self.turn(id).await;
        let Some(workload) = self.workload(id) else {
            return;
        };
        let shown = states::show(&workload, &self.picture());
        if workload.record.desired != Desired::Deleted || !shown.is_gone {
            return;
        }
        let now = self.now();
        match self.forget(&workload).await {
            Ok(()) => {
                tracing::info!(workload = id, "workload deleted");
                lock(&self.counts).deleted += 1;
                lock(&self.actions).settle(id, now, |_| Some(Standing::Completed));
            }
            // The next change is another try; until then it is shown as stopped.
            Err(error) => {
                tracing::error!(workload = id, %error, "cannot delete the record of a workload")
            }
        }
    }

    /// What the workload used when it was measured last.
    pub(super) fn usage(&self, workload: &Workload) -> Option<UnitUsage> {
        let figures = self.handle.figures.borrow();
        let used = figures.units.get(&workload.unit)?;
        let amount = |it: Option<Bytes>| it.unwrap_or_default().0;
        Some(UnitUsage {
            cpu_percent: percent(used.milli_cpu),
            memory: used.memory.0,
            read: amount(used.read),
            written: amount(used.written),
            received: amount(used.received),
            sent: amount(used.sent),
            at: figures.at,
        })
    }
}

/// Where a request stands, by what its workload is like.
fn standing(action: &Action, workload: &Workload, shown: &Shown) -> Option<Standing> {
    if action.generation > workload.record.generation {
        return None;
    }
    let failed = || Some(Standing::Failed(shown.message.clone()));
    match (action.task, workload.record.desired, shown.actual) {
        // It is done when nothing is left, and then the workload is not here any more.
        (Task::Delete, ..) => Some(Standing::Running),
        (Task::Apply, Desired::Running, ActualState::Running) => Some(Standing::Completed),
        (Task::Apply, Desired::Running, ActualState::Failed) => failed(),
        (Task::Apply, Desired::Running, ActualState::Stopped) if !shown.is_gone => {
            Some(Standing::Completed)
        }
        (Task::Apply, Desired::Stopped, ActualState::Stopped) => Some(Standing::Completed),
        (Task::Apply, ..) => Some(Standing::Running),
    }
}

/// Of one core.
#[expect(
    clippy::cast_precision_loss,
    reason = "percentages lose nothing that matters"
)]
fn percent(milli_cpu: u64) -> f64 {
    milli_cpu as f64 / 10.0
}

//! When running units are asked whether they are well, and what is kept of how a crash loop began.
//!
//! One question at a time for each unit, and a bounded number in all; each is a task that reports back, so no
//! check holds the reconciler up. What the answers say stands in the unit's note, where the plan reads it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_model::{CrashLoop, Intent, UnitId};
use hostler_runtime::{FoundState, LogQuery, Run, Runtime};
use tokio::sync::Semaphore;

use super::{Input, Reconciler};
use crate::health::{Answer, Checkup, ask};

/// Questions, and readings of logs, that are under way at once.
const AT_ONCE: usize = 16;
/// A log that cannot be read within this time is left out.
const LOG_PATIENCE: Duration = Duration::from_secs(10);

/// The checks of all running units that have one.
pub(super) struct Checks {
    runs: BTreeMap<UnitId, Check>,
    turns: Arc<Semaphore>,
}

/// The check of one run.
struct Check {
    run: u32,
    checkup: Checkup,
    /// Uptime of the next question; none while one is under way.
    due: Option<Duration>,
}

impl Checks {
    pub(super) fn new() -> Self {
        Self {
            runs: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Uptime of the next question.
    pub(super) fn next(&self) -> Option<Duration> {
        self.runs.values().filter_map(|check| check.due).min()
    }
}

impl Reconciler {
    /// Begins with the checks of runs that are new, forgets those that are over, and asks where it is time.
    pub(super) fn check_health(&mut self) {
        let now = self.now();
        let mut runs = std::mem::take(&mut self.checks.runs);
        for item in self.intents.values() {
            let (unit, Some(spec)) = (item.unit, &item.spec.health) else {
                continue;
            };
            let Some(seen) = self.observed.units.get(&unit) else {
                continue;
            };
            let note = self.notes.entry(unit).or_default();
            let FoundState::Running { since } = seen.state else {
                continue;
            };
            if item.intent != Intent::Run || note.doing.is_some() {
                continue;
            }
            let known = runs.remove(&unit).filter(|check| check.run == seen.runs);
            let check = known.unwrap_or_else(|| Check {
                run: seen.runs,
                checkup: Checkup::new(spec, now.wall.since(since), now.uptime),
                due: Some(now.uptime),
            });
            note.health = Some(check.checkup.state().clone());
            self.checks.runs.insert(unit, check);
        }
        let is_due = |check: &Check| check.due.is_some_and(|due| due <= now.uptime);
        let checks = self.checks.runs.iter().filter(|(_, check)| is_due(check));
        let due: Vec<UnitId> = checks.map(|(unit, _)| *unit).collect();
        for unit in due {
            self.ask(unit);
        }
    }

    fn ask(&mut self, unit: UnitId) {
        let Some(runtime) = self.runtime_of(unit) else {
            return;
        };
        let (Some(check), Some(item)) = (
            self.checks.runs.get_mut(&unit),
            self.intents.get(&unit.assignment),
        ) else {
            return;
        };
        check.due = None;
        let (run, spec) = (check.run, Arc::clone(&item.spec));
        let (sender, turns) = (self.sender.clone(), Arc::clone(&self.checks.turns));
        self.tasks.spawn_until_stop("health check", async move {
            let turn = turns.acquire().await.ok();
            let answer = ask::ask(&*runtime, unit, &spec).await;
            drop(turn);
            // The receiver is gone only when the agent stops.
            let _ = sender.send(Input::Checked { unit, run, answer }).await;
        });
    }

    /// An answer to a question about a run that is over counts for nothing.
    pub(super) fn take_answer(&mut self, unit: UnitId, run: u32, answer: Answer) {
        let now = self.now();
        let Some(check) = self.checks.runs.get_mut(&unit).filter(|it| it.run == run) else {
            return;
        };
        let interval = self.intents.get(&unit.assignment);
        let interval = interval.and_then(|item| item.spec.health.as_ref());
        let interval = interval.map_or(Duration::MAX, |it| Duration::from_millis(it.interval_ms));
        check.due = Some(now.uptime.saturating_add(interval));
        let before = check.checkup.state().as_str();
        check.checkup.take(answer, now.uptime);
        let state = check.checkup.state();
        if before != state.as_str() {
            tracing::info!(%unit, before, ?state, "health changed");
        }
    }

    /// Reads the logs of runs that may be the first of a crash loop. A run that is not to be followed by another
    /// is the beginning of nothing.
    pub(super) fn read_ends_of_logs(&mut self) {
        let mut wanted = Vec::new();
        for (unit, note) in &mut self.notes {
            if std::mem::take(&mut note.wants_log) && note.finished.is_none() {
                wanted.extend(note.first_end.as_ref().map(|first| (*unit, first.run)));
            }
        }
        for (unit, run) in wanted {
            let Some(runtime) = self.runtime_of(unit) else {
                continue;
            };
            let (sender, turns) = (self.sender.clone(), Arc::clone(&self.checks.turns));
            self.tasks
                .spawn_until_stop("read the end of a log", async move {
                    let _turn = turns.acquire().await;
                    let reading = end_of_log(&*runtime, unit, run);
                    let lines = tokio::time::timeout(LOG_PATIENCE, reading).await;
                    let lines = lines.unwrap_or_default();
                    // The receiver is gone only when the agent stops.
                    let _ = sender.send(Input::EndOfLog { unit, run, lines }).await;
                });
        }
    }

    pub(super) fn take_end_of_log(&mut self, unit: UnitId, run: u32, lines: Vec<String>) {
        let Some(note) = self.notes.get_mut(&unit) else {
            return;
        };
        let Some(first) = note.first_end.as_mut().filter(|first| first.run == run) else {
            return;
        };
        let first = Arc::make_mut(first);
        let all = lines.into_iter().chain(std::mem::take(&mut first.log));
        first.log = CrashLoop::last_lines(all.collect::<Vec<_>>().into_iter());
        if note.is_crash_looping {
            self.save_entry(unit.assignment);
        }
    }
}

/// The last lines of that run. The next one may have begun already, then it is the one before the latest.
async fn end_of_log(runtime: &dyn Runtime, unit: UnitId, run: u32) -> Vec<String> {
    for which in [Run::Latest, Run::Previous] {
        let query = LogQuery {
            run: which,
            tail: Some(CrashLoop::MOST_LINES),
            ..LogQuery::default()
        };
        let Ok(log) = runtime.logs(unit, query).await else {
            continue;
        };
        let of_run = log.filter_map(async |line| line.ok().filter(|line| line.run == run));
        let lines: Vec<String> = of_run.map(|line| line.text).collect().await;
        if !lines.is_empty() {
            return lines;
        }
    }
    Vec::new()
}

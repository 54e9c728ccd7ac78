//! Asking the drivers what is there. An engine that does not answer changes nothing of what is known, and is
//! asked again.

use std::sync::Arc;
use std::time::Duration;

use hostler_model::UnitId;
use hostler_model::spec::Kind;
use hostler_runtime::{Found, RuntimeError};
use tokio::sync::Semaphore;

use super::{Input, Reconciler};
use crate::notes::Seen;
use crate::plan::Down;

/// First wait before an engine that did not answer is asked again; each further doubles it.
const FIRST_QUESTION: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// An engine that takes longer than this for one answer counts as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Wait before a driver is asked to confirm what its steps said. What ends by itself it tells at once.
const CONFIRM: Duration = Duration::from_millis(250);

/// Starts of one kind that may be under way at once; an engine that is slow holds up only its own.
const PARALLEL_STARTS: usize = 8;

/// How it stands with one driver.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) starts: Arc<Semaphore>,
    /// The serial number of the observation under way.
    pub(super) observing: Option<u64>,
    /// Something changed since that observation began.
    is_dirty: bool,
    /// It has answered once, or failed to.
    was_asked: bool,
    tries: u32,
    /// Uptime of a look that confirms what steps have said; one for many steps.
    confirm: Option<Duration>,
}

impl Driver {
    pub(super) fn new() -> Self {
        Self {
            starts: Arc::new(Semaphore::new(PARALLEL_STARTS)),
            observing: None,
            is_dirty: false,
            was_asked: false,
            tries: 0,
            confirm: None,
        }
    }
}

impl Reconciler {
    /// Listens to every driver and asks each for the first time.
    pub(super) fn begin_observing(&mut self) {
        let kinds: Vec<Kind> = self.drivers.keys().copied().collect();
        let now = self.now();
        for kind in kinds {
            let problem = format!("the {kind} driver has not answered yet");
            self.observed.down.insert(
                kind,
                Down {
                    problem,
                    retry: now,
                },
            );
            self.observe(kind);
            let (runtime, sender) = (Arc::clone(&self.runtimes[&kind]), self.sender.clone());
            self.tasks.spawn_until_stop("driver watch", async move {
                loop {
                    runtime.changed().await;
                    if sender.send(Input::Changed(kind)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    /// Whether every driver has answered, or failed to.
    pub(super) fn is_complete(&self) -> bool {
        self.drivers.values().all(|driver| driver.was_asked)
    }

    /// Asks a driver what is there; at once, or right after the answer that is under way.
    pub(super) fn observe(&mut self, kind: Kind) {
        self.serial += 1;
        let serial = self.serial;
        let Some(driver) = self.drivers.get_mut(&kind) else {
            return;
        };
        if driver.observing.is_some() {
            driver.is_dirty = true;
            return;
        }
        driver.observing = Some(serial);
        driver.is_dirty = false;
        driver.confirm = None;
        let (runtime, sender) = (Arc::clone(&self.runtimes[&kind]), self.sender.clone());
        self.tasks.spawn_until_stop("observation", async move {
            let answer = tokio::time::timeout(PATIENCE, runtime.observe()).await;
            let answer = answer.unwrap_or_else(|_| {
                let message = format!("no answer within {} s", PATIENCE.as_secs());
                Err(RuntimeError::EngineDown {
                    engine: kind.as_str(),
                    message,
                })
            });
            // The receiver is gone only when the agent stops.
            let _ = sender
                .send(Input::Observed {
                    kind,
                    serial,
                    answer,
                })
                .await;
        });
    }

    pub(super) fn take_observation(
        &mut self,
        kind: Kind,
        serial: u64,
        answer: Result<Vec<Found>, RuntimeError>,
    ) {
        let Some(driver) = self.drivers.get_mut(&kind) else {
            return;
        };
        driver.observing = None;
        driver.was_asked = true;
        let is_dirty = std::mem::take(&mut driver.is_dirty);
        match answer {
            Ok(found) => {
                driver.tries = 0;
                if self.observed.down.remove(&kind).is_some() {
                    tracing::debug!(%kind, units = found.len(), "driver answers");
                }
                let was_overtaken = self.merge(kind, serial, found);
                if is_dirty || was_overtaken {
                    self.observe(kind);
                }
            }
            Err(error) => self.engine_down(kind, &error),
        }
    }

    /// Nothing is concluded about the driver's units; it is asked again later.
    pub(super) fn engine_down(&mut self, kind: Kind, error: &RuntimeError) {
        let now = self.now();
        let Some(driver) = self.drivers.get_mut(&kind) else {
            return;
        };
        let wait = FIRST_QUESTION
            .saturating_mul(1 << driver.tries.min(8))
            .min(LONGEST_WAIT);
        if driver.tries == 0 {
            tracing::warn!(%kind, %error, "driver does not answer");
        }
        driver.tries = driver.tries.saturating_add(1);
        let down = Down {
            problem: error.to_string(),
            retry: now.later(wait),
        };
        self.observed.down.insert(kind, down);
    }

    /// Asks the driver soon what became of its steps.
    pub(super) fn confirm(&mut self, kind: Kind) {
        let at = self.clock.uptime() + CONFIRM;
        if let Some(driver) = self.drivers.get_mut(&kind) {
            driver.confirm.get_or_insert(at);
        }
    }

    /// Asks the drivers whose time has come.
    pub(super) fn ask_again(&mut self) {
        let now = self.clock.uptime();
        let due: Vec<Kind> = self
            .questions()
            .filter(|(_, at)| *at <= now)
            .map(|(kind, _)| kind)
            .collect();
        for kind in due {
            self.observe(kind);
        }
    }

    /// When the next driver is to be asked.
    pub(super) fn next_question(&self) -> Option<Duration> {
        self.questions().map(|(_, at)| at).min()
    }

    /// The drivers that wait to be asked, and when.
    fn questions(&self) -> impl Iterator<Item = (Kind, Duration)> {
        let idle = self
            .drivers
            .iter()
            .filter(|(_, driver)| driver.observing.is_none());
        idle.filter_map(|(kind, driver)| {
            let again = self.observed.down.get(kind).map(|down| down.retry.uptime);
            Some((*kind, [again, driver.confirm].into_iter().flatten().min()?))
        })
    }

    /// Takes over what was found, except for units on which a step was done since the observation began;
    /// answers whether there were such.
    fn merge(&mut self, kind: Kind, serial: u64, found: Vec<Found>) -> bool {
        let mut was_overtaken = false;
        let mut is_newer_known = |unit: &UnitId| {
            let is_busy = self
                .notes
                .get(unit)
                .is_some_and(|note| note.doing.is_some());
            let is_touched = self
                .touched
                .get(unit)
                .is_some_and(|touched| *touched > serial);
            was_overtaken |= is_touched;
            is_busy || is_touched
        };
        let units = std::mem::take(&mut self.observed.units);
        let mut merged = units;
        merged.retain(|unit, seen| seen.kind != kind || is_newer_known(unit));
        for found in found {
            if !is_newer_known(&found.id) {
                let seen = Seen {
                    kind,
                    workload: found.workload,
                    state: found.state,
                    runs: found.runs,
                    parts: self.runtimes[&kind].parts(found.id),
                };
                merged.insert(found.id, seen);
            }
        }
        self.observed.units = merged;
        was_overtaken
    }
}

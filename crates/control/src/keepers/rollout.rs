//! Rollouts: tells the core how the copies of each rollout fare, as their nodes say: which new ones have been
//! healthy for long enough, which have ended again, which old ones run nothing, and when there is no progress.
//!
//! How long a copy has been healthy and how long nothing has moved is measured here, in uptime, and never
//! persisted: a server that starts anew measures from then on, which delays a rollout and never hurries it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hostler_fleet::{Health, Progress, State, Verb, health, is_rollout_due, rollout_standing};
use hostler_model::{Assignment, Desired, Liveness, Rollout, Stage, UnitId, Workload, WorkloadId};

use super::submit;
use crate::Control;

/// Rollouts are looked at this often, whether or not anything seems to have changed.
const PERIOD: Duration = Duration::from_secs(30);
/// Changes gather for so long: a look goes over all copies of a rollout.
const PAUSE: Duration = Duration::from_millis(200);
/// Most copies of one verb, so that it fits into one commit.
const MOST: usize = 24;

#[derive(Default)]
struct Keeper {
    /// Since when copies on trial have run without a break, and in which run.
    runs: BTreeMap<UnitId, (Duration, u32)>,
    /// Since when each rollout has looked the same.
    still: BTreeMap<WorkloadId, (Mark, Duration)>,
}

/// Changes with every step that a rollout makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    step: u64,
    generation: u64,
    healthy: u32,
}

/// What is looked at.
struct Scene<'a> {
    control: &'a Control,
    view: &'a State,
    workload: &'a Workload,
    rollout: &'a Rollout,
    /// The uptime.
    now: Duration,
}

/// What a look at one rollout found.
struct Look {
    seen: Progress,
    /// When it makes sense to look again, if nothing changes.
    again: Duration,
    /// The first new copy that is not healthy, and how it fares.
    waits_for: Option<String>,
}

pub(super) async fn run(control: Control) {
    let mut keeper = Keeper::default();
    let mut changes = control.watch_changes();
    loop {
        changes.borrow_and_update();
        let again = keeper.pass(&control).await;
        // Either way the next pass looks at everything anew.
        let _ = tokio::time::timeout(again, changes.changed()).await;
        tokio::time::sleep(PAUSE).await;
    }
}

impl Keeper {
    /// Answers how long nothing has to be done unless something changes.
    async fn pass(&mut self, control: &Control) -> Duration {
        let rolling: BTreeSet<WorkloadId> = control.view().rolling().collect();
        self.still.retain(|workload, _| rolling.contains(workload));
        if rolling.is_empty() {
            self.runs.clear();
            return PERIOD;
        }
        let now = control.clock().uptime();
        let mut again = PERIOD;
        let mut on_trial = BTreeSet::new();
        for workload in rolling {
            let look = self.look(control, workload, now, &mut on_trial);
            let Some((look, is_due)) = look else {
                continue;
            };
            again = again.min(look.again);
            let Progress {
                healthy,
                lapsed,
                idle,
                failed,
                ..
            } = &look.seen;
            let is_news = !(healthy.is_empty() && lapsed.is_empty() && idle.is_empty());
            if is_news || failed.is_some() || is_due {
                submit(control, "rollout", Verb::Advance(Box::new(look.seen))).await;
                again = Duration::ZERO;
            }
        }
        self.runs.retain(|unit, _| on_trial.contains(unit));
        again
    }

    /// What is to be told of one rollout, and whether it goes on even if that is nothing.
    fn look(
        &mut self,
        control: &Control,
        id: WorkloadId,
        now: Duration,
        on_trial: &mut BTreeSet<UnitId>,
    ) -> Option<(Look, bool)> {
        let view = control.view();
        let workload = view.workload(id)?;
        let rollout = workload.rollout.as_ref()?;
        if workload.desired != Desired::Running || matches!(rollout.stage, Stage::Failed { .. }) {
            return None;
        }
        let scene = Scene {
            control,
            view: &view,
            workload,
            rollout,
            now,
        };
        let mut look = Look::new(id, rollout);
        for copy in view.assignments_of(id).filter(|copy| copy.is_wanted()) {
            self.judge(&scene, copy, &mut look);
            if copy.trial {
                on_trial.insert(copy.unit());
            }
        }
        self.watch_progress(&scene, &mut look);
        Some((look, is_rollout_due(&view, workload)))
    }

    fn judge(&mut self, scene: &Scene<'_>, copy: &Assignment, look: &mut Look) {
        let Scene {
            control,
            view,
            workload,
            now,
            ..
        } = *scene;
        let node = view.node(copy.node);
        // What a node that is not heard said last proves nothing.
        let is_heard = node.is_some_and(|node| node.liveness == Liveness::Alive);
        let observed = is_heard
            .then(|| control.observed_at(copy.node, copy.id))
            .flatten();
        let runs = observed.as_ref().map_or(0, |unit| unit.runs);
        let health = health(copy, observed.as_ref());
        let is_current = (copy.template, copy.restart) == (workload.template, workload.restart);
        match (&health, copy.trial, is_current) {
            (Health::Running, true, _) => {
                let (since, run) = self.runs.entry(copy.unit()).or_insert((now, runs));
                if *run != runs {
                    (*since, *run) = (now, runs);
                }
                let least = Duration::from_millis(workload.spec.update.min_healthy_ms);
                match least.checked_sub(now.saturating_sub(*since)) {
                    None | Some(Duration::ZERO) => look.note_healthy(copy),
                    Some(rest) => look.again = look.again.min(rest),
                }
            }
            (Health::Done, true, _) => look.note_healthy(copy),
            (Health::Broken(how), true, true) => {
                let failed = || format!("{} {how}", place(view, workload, copy));
                look.seen.failed.get_or_insert_with(failed);
            }
            (Health::Down(_) | Health::Broken(_), false, true) => {
                note(&mut look.seen.lapsed, copy);
            }
            (
                Health::Preparing | Health::Down(_) | Health::Broken(_) | Health::Done,
                false,
                false,
            ) => note(&mut look.seen.idle, copy),
            _ => {}
        }
        if copy.trial && !matches!(health, Health::Running | Health::Done) {
            self.runs.remove(&copy.unit());
            let waits = || format!("{} {}", place(view, workload, copy), told(&health));
            look.waits_for.get_or_insert_with(waits);
        }
    }

    /// A rollout that has stood still for too long while it was not waiting for a person has failed.
    fn watch_progress(&mut self, scene: &Scene<'_>, look: &mut Look) {
        let Scene {
            view,
            workload,
            rollout,
            now,
            ..
        } = *scene;
        let Some(standing) = rollout_standing(view, workload) else {
            return;
        };
        let mark = Mark {
            step: rollout.step,
            generation: workload.generation,
            healthy: standing.healthy + standing.beside_healthy,
        };
        let (last, since) = self.still.entry(workload.id).or_insert((mark, now));
        let waits_for_a_person =
            rollout.stage == Stage::Canary && standing.beside_healthy >= rollout.spares;
        if *last != mark || waits_for_a_person {
            (*last, *since) = (mark, now);
        }
        let deadline = Duration::from_millis(workload.spec.update.healthy_deadline_ms);
        match deadline.checked_sub(now.saturating_sub(*since)) {
            None | Some(Duration::ZERO) => {
                let why = look.waits_for.clone();
                let why = why.unwrap_or_else(|| "no further copy can be replaced".to_owned());
                let failed = || format!("no progress for {} s: {why}", deadline.as_secs());
                look.seen.failed.get_or_insert_with(failed);
            }
            Some(rest) => look.again = look.again.min(rest),
        }
    }
}

impl Look {
    fn new(workload: WorkloadId, rollout: &Rollout) -> Self {
        Self {
            seen: Progress {
                workload,
                step: rollout.step,
                healthy: Vec::new(),
                lapsed: Vec::new(),
                idle: Vec::new(),
                failed: None,
            },
            again: PERIOD,
            waits_for: None,
        }
    }

    fn note_healthy(&mut self, copy: &Assignment) {
        note(&mut self.seen.healthy, copy);
    }
}

fn note(units: &mut Vec<UnitId>, copy: &Assignment) {
    if units.len() < MOST {
        units.push(copy.unit());
    }
}

/// `web.0 on box`.
fn place(view: &State, workload: &Workload, copy: &Assignment) -> String {
    let node = view.node(copy.node).map_or("?", |node| node.name.as_str());
    format!("{}.{} on {node}", workload.name, copy.slot)
}

fn told(health: &Health) -> String {
    match health {
        Health::Unknown => "is not heard of".to_owned(),
        Health::Preparing => "is being prepared".to_owned(),
        Health::Starting => "is being started".to_owned(),
        Health::Running => "runs".to_owned(),
        Health::Done => "has ended well".to_owned(),
        Health::Down(why) | Health::Broken(why) => why.clone(),
    }
}

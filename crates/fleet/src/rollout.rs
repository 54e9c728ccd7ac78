//! Rollouts from outside of a decision: what their keeper tells, how a copy is judged, and where a rollout stands.
//! Pure; nothing here can fail.

use hostler_model::{
    Assignment, Desired, FIRST_SPARE_SLOT, ObservedUnit, Stage, UnitId, UnitState, Workload,
    WorkloadId,
};

use crate::State;
use crate::state::Copies;

/// From so many starts on, what ends again is in a loop.
const LOOPS: u32 = 3;

/// What the rollout keeper has seen of the copies of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub workload: WorkloadId,
    /// The rollout's step when that was concluded; for another one it counts for nothing.
    pub step: u64,
    /// Copies on trial that have been healthy for long enough.
    pub healthy: Vec<UnitId>,
    /// Copies that counted as healthy and do not run any more.
    pub lapsed: Vec<UnitId>,
    /// Outdated copies that run nothing: replacing them takes nothing away.
    pub idle: Vec<UnitId>,
    /// Why the rollout has failed.
    pub failed: Option<String>,
}

/// What is to be thought of a copy at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nobody has told: its node is silent, or has not got to it yet.
    Unknown,
    /// It is being prepared and has not run yet.
    Preparing,
    /// It is about to run.
    Starting,
    Running,
    /// It has ended well and rests.
    Done,
    /// It does not run now and is tried again.
    Down(String),
    /// It will not run: it has ended badly for good, or ends again and again.
    Broken(String),
}

/// Where a rollout stands, by the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RolloutStanding {
    /// Counted copies of the present form.
    pub renewed: u32,
    /// Of these, those that are known to be healthy.
    pub healthy: u32,
    /// Counted copies of another form.
    pub outdated: u32,
    /// Copies of the present form that run beside the counted ones, and the healthy ones of these.
    pub beside: u32,
    pub beside_healthy: u32,
}

/// Judges a copy by its record and by what its node tells of this generation.
#[must_use]
pub fn health(copy: &Assignment, observed: Option<&ObservedUnit>) -> Health {
    if let Some(outcome) = &copy.outcome {
        return ended(outcome.exit);
    }
    let Some(unit) = observed.filter(|unit| unit.unit == copy.unit()) else {
        return Health::Unknown;
    };
    match &unit.state {
        UnitState::Preparing { .. } => Health::Preparing,
        UnitState::Starting => Health::Starting,
        UnitState::Running { .. } => match &unit.health {
            // Without a check, running is all that can be known.
            None | Some(hostler_model::Health::Healthy) => Health::Running,
            Some(hostler_model::Health::Starting) => Health::Starting,
            Some(hostler_model::Health::Unhealthy { why }) => {
                Health::Down(format!("unhealthy: {why}"))
            }
        },
        UnitState::Waiting { exit, .. } if unit.runs >= LOOPS => {
            Health::Broken(format!("ended {} times, last with {exit}", unit.runs))
        }
        UnitState::Waiting { exit, .. } => Health::Down(format!("ended with {exit}")),
        UnitState::Failed { message, .. } => Health::Down(message.clone()),
        UnitState::Finished { exit, .. } => ended(*exit),
        UnitState::Stopping | UnitState::Gone => Health::Unknown,
    }
}

/// Where the rollout of a workload stands; `None` without one. Looks at the new copies only.
#[must_use]
pub fn rollout_standing(state: &State, workload: &Workload) -> Option<RolloutStanding> {
    workload.rollout.as_ref()?;
    let copies = state.copies(workload.id)?;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let current = (workload.template, workload.restart);
    let present = copies.by_template.get(&current);
    let present = present.map_or(0, |copies| count(copies.len()));
    let on_trial = |is_beside: bool| {
        let trials = copies.on_trial.iter();
        let trials = trials.filter(move |(slot, _)| (*slot >= FIRST_SPARE_SLOT) == is_beside);
        count(
            trials
                .filter(|(_, id)| is_current(state, *id, workload))
                .count(),
        )
    };
    let beside = copies.beside();
    let beside = count(
        beside
            .filter(|(_, id)| is_current(state, *id, workload))
            .count(),
    );
    let renewed = present - beside.min(present);
    let outdated = copies.wanted.len() - copies.beside().count();
    Some(RolloutStanding {
        renewed,
        healthy: renewed.saturating_sub(on_trial(false)),
        outdated: count(outdated).saturating_sub(renewed),
        beside,
        beside_healthy: beside.saturating_sub(on_trial(true)),
    })
}

/// Whether the rollout goes a step further by what is known already: its canaries promote themselves, or it is
/// through.
#[must_use]
pub fn is_rollout_due(state: &State, workload: &Workload) -> bool {
    state.copies(workload.id).is_some_and(|copies| {
        workload.desired == Desired::Running && next_stage(state, workload, copies).is_some()
    })
}

/// How a rollout goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Promoted,
    Finished,
}

/// What follows from the copies as they are.
pub(crate) fn next_stage(state: &State, workload: &Workload, copies: &Copies) -> Option<Next> {
    let rollout = workload.rollout.as_ref()?;
    match &rollout.stage {
        Stage::Canary => {
            let may = workload.spec.update.auto_promote && are_spares_healthy(state, workload)?;
            may.then_some(Next::Promoted)
        }
        Stage::Rolling => {
            let count = workload.spec.copies();
            let mut outdated = copies.outdated(workload);
            let is_through = outdated.all(|(slot, _)| slot >= count);
            (is_through && copies.unproven(count, 1) == 0).then_some(Next::Finished)
        }
        Stage::Failed { .. } => None,
    }
}

/// Whether every copy that runs beside the counted ones is new and healthy.
fn are_spares_healthy(state: &State, workload: &Workload) -> Option<bool> {
    let standing = rollout_standing(state, workload)?;
    Some(standing.beside_healthy >= workload.spares())
}

pub(crate) fn is_current(
    state: &State,
    id: hostler_model::AssignmentId,
    workload: &Workload,
) -> bool {
    let copy = state.assignment(id);
    copy.is_some_and(|copy| (copy.template, copy.restart) == (workload.template, workload.restart))
}

fn ended(exit: hostler_model::Exit) -> Health {
    if exit.is_success() {
        Health::Done
    } else {
        Health::Broken(format!("ended for good with {exit}"))
    }
}

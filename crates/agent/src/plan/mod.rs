//! The plan: what is to be done so that what runs becomes what should run. Pure; the same input gives the
//! same steps. The reconciler calls it at every change and does the steps; whatever became of them is seen
//! at the next call, so first start, restart and failure take the same way.
//!
//! For one assignment that should run:
//!
//! ```text
//!   no unit ──Prepare──► prepared ──(other generations: Stop, Remove)──Start──► running
//!                           ▲                                                     │ ends
//!                           │                    ┌── policy: Start, when due ◄────┤
//!                           └────────────────────┘                      Finish ◄──┘ policy spent
//! ```
//!
//! - Remove before add: the older generation is gone before the newer one starts. It is prepared before
//!   that, so that an image that is not to be had takes nothing down.
//! - What runs too long, or is unhealthy, is stopped and counts as failed; its restart policy says what follows.
//! - A unit with a step in progress gets no other step.
//! - Where an engine does not answer nothing is concluded, and nothing is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hostler_model::spec::{DisconnectPolicy, Kind, RestartPolicy};
use hostler_model::{AssignmentId, Exit, Intent, IntentItem, StopCause, Timestamp, UnitId};
use hostler_runtime::{Data, FoundState};

use crate::ledger::Finished;
use crate::notes::{Moment, Note, Seen, lasting};

/// How often the age of the last contact is looked at while a singleton runs.
const SINGLETON_LOOK: Duration = Duration::from_secs(1);

/// Everything that should be, by assignment.
pub(crate) type Intents = BTreeMap<AssignmentId, IntentItem>;

/// Everything that is, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) units: BTreeMap<UnitId, Seen>,
    /// Kinds whose engine does not answer, or has not answered since the agent started.
    pub(crate) down: BTreeMap<Kind, Down>,
}

/// Nothing is known of the units of an engine that does not answer; they may well run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Down {
    pub(crate) problem: String,
    /// When it is asked again.
    pub(crate) retry: Moment,
}

/// What to do with units that no intent speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strays {
    Keep,
    Remove,
}

/// The last proof that the control plane hears this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contact {
    /// Time since that proof, or since the agent started.
    pub(crate) age: Duration,
    /// Whether there was any since the agent started.
    pub(crate) is_proved: bool,
}

/// What the plan goes by besides intent and observation.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The kinds that the node has a driver for.
    pub(crate) drivers: BTreeSet<Kind>,
    pub(crate) strays: Strays,
    pub(crate) contact: Contact,
}

/// Why a unit is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopReason {
    /// It is not wanted any more.
    Retired,
    /// The node has been cut off for longer than the singleton may run.
    CutOff,
    /// Its health check failed too often.
    Unhealthy,
    /// Its run took longer than it may.
    TimedOut,
}

impl StopReason {
    /// As what the end of a run counts that was broken off for this.
    pub(crate) const fn counts_as(self) -> Option<Exit> {
        match self {
            Self::Retired | Self::CutOff => None,
            Self::Unhealthy => Some(Exit::Unhealthy),
            Self::TimedOut => Some(Exit::TimedOut),
        }
    }
}

/// One thing to do with one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Prepare(UnitId),
    Start(UnitId),
    Stop(UnitId, StopReason),
    Remove(UnitId, Data),
    /// Put on record that the restart policy is spent.
    Finish(UnitId, Finished),
}

impl Step {
    /// The word for it, for people.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "prepare",
            Self::Start(_) => "start",
            Self::Stop(..) => "stop",
            Self::Remove(..) => "remove",
            Self::Finish(..) => "finish",
        }
    }
}

/// What is to be done, and when to look again even if nothing changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Uptime.
    pub(crate) wake: Option<Duration>,
}

/// The facts that a plan is made from.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) intents: &'a Intents,
    pub(crate) observed: &'a Observed,
    pub(crate) notes: &'a BTreeMap<UnitId, Note>,
    pub(crate) rules: &'a Rules,
}

/// What a restart policy says of an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Again,
    Enough,
}

/// Plans.
pub(crate) fn plan(facts: Facts<'_>, now: Moment) -> Plan {
    let mut planner = Planner {
        facts,
        now,
        plan: Plan::default(),
    };
    for item in facts.intents.values() {
        match item.intent {
            Intent::Run => planner.run(item),
            Intent::Stop { .. } => {
                for unit in facts.units_of(item.unit.assignment) {
                    planner.retire(unit);
                }
            }
        }
    }
    if facts.rules.strays == Strays::Remove {
        for unit in facts.strays() {
            planner.retire(unit);
        }
    }
    planner.plan
}

impl<'a> Facts<'a> {
    /// The units of an assignment, oldest generation first.
    pub(crate) fn units_of(self, assignment: AssignmentId) -> impl Iterator<Item = UnitId> + 'a {
        let first = UnitId {
            assignment,
            generation: 0,
        };
        let last = UnitId {
            assignment,
            generation: u64::MAX,
        };
        self.observed
            .units
            .range(first..=last)
            .map(|(unit, _)| *unit)
    }

    /// Whether the unit is surely not to run: the intent is for it to stop, for another generation, or for
    /// nothing where strays go.
    pub(crate) fn is_unwanted(self, unit: UnitId) -> bool {
        match self.intents.get(&unit.assignment) {
            Some(item) => item.unit != unit || item.intent != Intent::Run,
            None => self.rules.strays == Strays::Remove,
        }
    }

    /// Units that no intent speaks of.
    pub(crate) fn strays(self) -> impl Iterator<Item = UnitId> + 'a {
        let units = self.observed.units.keys().copied();
        units.filter(move |unit| !self.intents.contains_key(&unit.assignment))
    }
}

struct Planner<'a> {
    facts: Facts<'a>,
    now: Moment,
    plan: Plan,
}

impl Planner<'_> {
    fn run(&mut self, item: &IntentItem) {
        let unit = item.unit;
        let kind = item.spec.runs_on();
        if !self.facts.rules.drivers.contains(&kind) || self.is_down(kind) || self.is_busy(unit) {
            return;
        }
        let finished = self.note(unit).and_then(|note| note.finished);
        if finished.is_some() {
            self.retire_others(unit);
            return self.clean_up(unit);
        }
        let Some(seen) = self.facts.observed.units.get(&unit) else {
            // Only one generation has its volumes: the older one lets go of them first.
            if !item.spec.volumes().is_empty() && self.retire_others(unit) {
                return;
            }
            // The ledger may have been lost; the control plane's word that it has ended stands.
            if !item.is_finished && self.is_due(unit) {
                self.plan.steps.push(Step::Prepare(unit));
            }
            return;
        };
        match &seen.state {
            FoundState::Prepared if item.is_finished => {
                self.plan.steps.push(Step::Remove(unit, Data::Keep))
            }
            FoundState::Prepared => self.start(item),
            FoundState::Running { since } => {
                self.retire_others(unit);
                if !self.stop_when_wrong(item, *since) {
                    self.stop_when_cut_off(item);
                }
            }
            FoundState::Exited { exit, at } => match self.verdict(item, *exit, seen.runs) {
                Verdict::Again => self.start(item),
                Verdict::Enough => {
                    let finished = Finished {
                        exit: self.exit_of(unit, *exit, seen.runs),
                        at: *at,
                        runs: seen.runs,
                    };
                    self.plan.steps.push(Step::Finish(unit, finished));
                }
            },
        }
    }

    /// Starts a unit that is ready for it, once its forerunners are gone and its time has come.
    fn start(&mut self, item: &IntentItem) {
        if self.retire_others(item.unit) {
            return;
        }
        if is_singleton(item) && !self.may_start_singleton(item) {
            return;
        }
        let restart = self.note(item.unit).and_then(|note| note.restart);
        let is_due = restart.is_none_or(|restart| self.is_past(restart.uptime));
        if is_due && self.is_due(item.unit) {
            self.plan.steps.push(Step::Start(item.unit));
        }
    }

    /// Whether there are other generations of the same assignment; plans their end.
    fn retire_others(&mut self, unit: UnitId) -> bool {
        let facts = self.facts;
        let mut others = facts
            .units_of(unit.assignment)
            .filter(|other| *other != unit)
            .peekable();
        let any = others.peek().is_some();
        for other in others {
            self.retire(other);
        }
        any
    }

    fn retire(&mut self, unit: UnitId) {
        let Some(seen) = self.facts.observed.units.get(&unit) else {
            return;
        };
        if self.is_busy(unit) || self.is_down(seen.kind) || !self.is_due(unit) {
            return;
        }
        self.plan.steps.push(match seen.state {
            FoundState::Running { .. } => Step::Stop(unit, StopReason::Retired),
            FoundState::Prepared | FoundState::Exited { .. } => {
                Step::Remove(unit, self.data_of(unit))
            }
        });
    }

    /// Data goes with a copy that is gone for good. One that is stopped, or moved, may come back for it.
    fn data_of(&self, unit: UnitId) -> Data {
        match self
            .facts
            .intents
            .get(&unit.assignment)
            .map(|item| item.intent)
        {
            Some(Intent::Stop {
                cause: StopCause::Deleted | StopCause::ScaledDown,
            }) => Data::Delete,
            Some(Intent::Stop { .. } | Intent::Run) | None => Data::Keep,
        }
    }

    fn clean_up(&mut self, unit: UnitId) {
        let is_unwanted = self.note(unit).is_some_and(|note| note.is_unwanted);
        if is_unwanted && self.facts.observed.units.contains_key(&unit) && self.is_due(unit) {
            self.plan.steps.push(Step::Remove(unit, Data::Keep));
        }
    }

    /// Stops what is unhealthy, unless it is to stay as it is, and what runs too long. Answers whether it did.
    fn stop_when_wrong(&mut self, item: &IntentItem, since: Timestamp) -> bool {
        let unit = item.unit;
        let restarts = item.spec.restarts();
        if let Some(most) = item.spec.job.as_ref().and_then(|job| job.timeout_ms) {
            let left = Duration::from_millis(most).saturating_sub(self.now.wall.since(since));
            if self.is_past(self.now.uptime + left) {
                return self.stop(unit, StopReason::TimedOut);
            }
        }
        let note = self.note(unit);
        let is_unhealthy = note.is_some_and(Note::is_unhealthy);
        let is_looping = note.is_some_and(|note| note.is_crash_looping);
        if is_looping {
            // Once it has lasted it is no crash loop any more, and somebody has to see that.
            let left = lasting(&restarts).saturating_sub(self.now.wall.since(since));
            self.is_past(self.now.uptime + left + Duration::from_millis(1));
        }
        is_unhealthy
            && restarts.policy != RestartPolicy::No
            && self.stop(unit, StopReason::Unhealthy)
    }

    fn stop(&mut self, unit: UnitId, reason: StopReason) -> bool {
        let is_due = self.is_due(unit);
        if is_due {
            self.plan.steps.push(Step::Stop(unit, reason));
        }
        is_due
    }

    fn stop_when_cut_off(&mut self, item: &IntentItem) {
        if !is_singleton(item) {
            return;
        }
        let left = stop_after(item).saturating_sub(self.facts.rules.contact.age);
        // A suspended machine brings the moment closer without any notice, hence the short looks.
        if self.is_past(self.now.uptime + left.min(SINGLETON_LOOK)) && self.is_due(item.unit) {
            self.plan
                .steps
                .push(Step::Stop(item.unit, StopReason::CutOff));
        }
    }

    /// A contact that is not proved may be older than it seems: the agent was restarted.
    fn may_start_singleton(&self, item: &IntentItem) -> bool {
        let contact = self.facts.rules.contact;
        contact.is_proved && contact.age < stop_after(item)
    }

    fn verdict(&self, item: &IntentItem, exit: Exit, runs: u32) -> Verdict {
        if self.note(item.unit).is_some_and(|note| note.is_fenced) {
            return Verdict::Again;
        }
        let exit = self.exit_of(item.unit, exit, runs);
        let restarts = item.spec.restarts();
        match restarts.policy {
            RestartPolicy::Always | RestartPolicy::UnlessStopped => Verdict::Again,
            RestartPolicy::OnFailure if exit.is_success() => Verdict::Enough,
            // The first run is no restart.
            RestartPolicy::OnFailure if restarts.retries.is_some_and(|most| runs > most) => {
                Verdict::Enough
            }
            RestartPolicy::OnFailure => Verdict::Again,
            RestartPolicy::No => Verdict::Enough,
        }
    }

    fn exit_of(&self, unit: UnitId, exit: Exit, runs: u32) -> Exit {
        self.note(unit)
            .map_or(exit, |note| note.exit_of(runs, exit))
    }

    /// Whether the moment has come; if not, the plan is made anew then.
    fn is_past(&mut self, uptime: Duration) -> bool {
        if uptime <= self.now.uptime {
            return true;
        }
        let wake = self.plan.wake.map_or(uptime, |wake| wake.min(uptime));
        self.plan.wake = Some(wake);
        false
    }

    /// Whether no failed step of the unit waits for its next try.
    fn is_due(&mut self, unit: UnitId) -> bool {
        let trouble = self.note(unit).and_then(|note| note.trouble.as_ref());
        let retry = trouble.map(|trouble| trouble.retry.uptime);
        retry.is_none_or(|retry| self.is_past(retry))
    }

    fn is_busy(&self, unit: UnitId) -> bool {
        self.note(unit).is_some_and(|note| note.doing.is_some())
    }

    fn is_down(&self, kind: Kind) -> bool {
        self.facts.observed.down.contains_key(&kind)
    }

    fn note(&self, unit: UnitId) -> Option<&Note> {
        self.facts.notes.get(&unit)
    }
}

/// Whether two copies of it must never run at once.
pub(crate) fn is_singleton(item: &IntentItem) -> bool {
    item.spec.disconnect.policy == DisconnectPolicy::Singleton
}

/// How long a singleton may run without contact.
pub(crate) fn stop_after(item: &IntentItem) -> Duration {
    Duration::from_millis(item.spec.disconnect.stop_after_ms)
}

#[cfg(test)]
mod tests;

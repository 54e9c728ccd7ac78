//! The reconciler: one task that owns the intent, the ledger and what is observed, and the only one that acts
//! on units.
//!
//! ```text
//!   intent, commands, contact ──►┐                                  ┌──► ledger
//!   drivers: something changed ─►│ take notice ─► guard ─► plan ─► do ──► drivers (a task per step)
//!   steps: done, failed ────────►│      ▲                           └──► picture ──► uplink
//!   a moment that was due ──────►┘      └──────── every turn ───────────┘
//! ```
//!
//! It never waits for a driver or for the disk: those work in tasks of their own and report back. Dropping it
//! at any point loses nothing: the next agent reads the ledger, observes, and plans.

mod act;
mod adoption;
mod drivers;
mod follow;
mod health;
mod inputs;
mod orders;
mod saves;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{Clock, Tasks};
use hostler_model::spec::Kind;
use hostler_model::{AssignmentId, FailureCode, Intent, Timestamp, UnitId};
use hostler_runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

use self::act::Preparation;
use self::drivers::Driver;
use self::follow::Wish;
use self::health::Checks;
pub(crate) use self::inputs::{Handle, Input, Proof, Wanted};
use self::orders::Order;
use self::saves::Saves;
use crate::care::{self, Rounds, Sights};
use crate::config::{AgentConfig, Parts};
use crate::guard::Held;
use crate::ledger::{Fleet, Ledger};
use crate::machine::Machine;
use crate::meter;
use crate::notes::{Doing, Moment, Note};
use crate::permit::{Bench, Guardian};
use crate::plan::{self, Contact, Facts, Intents, Observed, Plan, Rules, Strays};
use crate::probe;
use crate::show::{self, Picture};
use crate::tuning::Tuned;
use crate::vault::Vault;

/// Inputs that may wait; whoever is faster waits.
const INPUTS: usize = 1024;
/// Inputs taken in before the next turn.
const INPUTS_PER_TURN: usize = 256;

struct Reconciler {
    runtimes: Arc<BTreeMap<Kind, Arc<dyn Runtime>>>,
    clock: Arc<dyn Clock>,
    machine: Arc<dyn Machine>,
    tasks: Tasks,
    ledger: Arc<Ledger>,
    saves: Saves,
    orders: VecDeque<Order>,
    inputs: mpsc::Receiver<Input>,
    /// For the tasks that report back.
    sender: mpsc::Sender<Input>,

    /// Whose intent is followed.
    fleet: Option<Fleet>,
    /// What is followed.
    intents: Intents,
    /// What the control plane wants; none before its first full intent.
    wish: Option<Wish>,
    held: Option<Held>,
    /// Running assignments that an operator let go by accepting an intent without them.
    given_up: BTreeSet<AssignmentId>,
    /// Assignments that came only with an intent of a store in doubt; the right store need not know them.
    begun_in_doubt: BTreeSet<AssignmentId>,
    /// Answered once what they brought is on disk.
    unanswered: Vec<oneshot::Sender<()>>,

    observed: Observed,
    notes: BTreeMap<UnitId, Note>,
    drivers: BTreeMap<Kind, Driver>,
    /// Counts observations and steps, so that an observation that was overtaken by a step is told apart.
    serial: u64,
    /// When the last step on a unit ended.
    touched: BTreeMap<UnitId, u64>,
    extending: BTreeSet<UnitId>,
    checks: Checks,
    started: Proof,
    contact: Option<Proof>,
    preparations: BTreeMap<UnitId, Preparation>,
    /// Says what the node's owner lets run.
    guardian: Arc<Guardian>,
    vault: Vault,
    care: Sights,
    wake: Option<Duration>,
    picture: watch::Sender<Arc<Picture>>,
    /// Held by whoever may still use the ledger.
    alive: Arc<watch::Sender<()>>,
}

/// Reads the ledger and starts the task. It ends when the tasks are told to stop, and lets go of `alive`.
pub(crate) fn start(
    (config, tuned): (&AgentConfig, Tuned),
    parts: &Parts,
    ledger: Ledger,
    alive: Arc<watch::Sender<()>>,
) -> Handle {
    let (sender, inputs) = mpsc::channel(INPUTS);
    let (picture, shown) = watch::channel(Arc::default());
    let runtimes: BTreeMap<_, _> = parts
        .runtimes
        .iter()
        .map(|runtime| (runtime.kind(), Arc::clone(runtime)))
        .collect();
    let runtimes = Arc::new(runtimes);
    let figures = meter::start(parts, &runtimes, shown.clone());
    let sights = Rounds::start(
        (config, tuned.clone()),
        parts,
        shown.clone(),
        sender.clone(),
    );
    let guardian = Arc::new(Guardian::new(config.guard.clone()));
    let handle = Handle {
        abilities: probe::start(&parts.tasks, &runtimes, &shown),
        figures,
        pressure: care::watch((config, tuned.clone()), parts),
        tuned,
        care: sights.clone(),
        inputs: sender.clone(),
        picture: shown,
        runtimes: Arc::clone(&runtimes),
        guardian: Arc::clone(&guardian),
        vault: Vault::default(),
    };
    for judged in runtimes.values().filter_map(|runtime| runtime.judged()) {
        judged.judge_by(Arc::new(Bench(Arc::clone(&guardian))));
    }
    let started = Proof {
        uptime: parts.clock.uptime(),
        asleep: parts.machine.asleep(),
    };
    let reconciler = Reconciler {
        drivers: runtimes.keys().map(|kind| (*kind, Driver::new())).collect(),
        runtimes,
        clock: Arc::clone(&parts.clock),
        machine: Arc::clone(&parts.machine),
        tasks: parts.tasks.clone(),
        ledger: Arc::new(ledger),
        saves: Saves::new(config.ledger_io),
        orders: VecDeque::new(),
        inputs,
        sender,
        fleet: None,
        intents: Intents::new(),
        wish: None,
        held: None,
        given_up: BTreeSet::new(),
        begun_in_doubt: BTreeSet::new(),
        unanswered: Vec::new(),
        observed: Observed::default(),
        notes: BTreeMap::new(),
        serial: 0,
        touched: BTreeMap::new(),
        extending: BTreeSet::new(),
        checks: Checks::new(),
        started,
        contact: None,
        preparations: BTreeMap::new(),
        vault: handle.vault.clone(),
        guardian,
        care: sights,
        wake: None,
        picture,
        alive,
    };
    parts.tasks.spawn("reconciler", reconciler.run());
    handle
}

impl Reconciler {
    async fn run(mut self) {
        self.load();
        self.begin_observing();
        let tasks = self.tasks.clone();
        loop {
            self.turn();
            let span = self
                .wake
                .map(|wake| wake.saturating_sub(self.clock.uptime()));
            // The stop and the sleep only wait, and an input that was taken is taken in: nothing is lost when
            // one of the others completes first.
            tokio::select! {
                biased;
                () = tasks.stopping() => return self.write_the_rest(),
                input = self.inputs.recv() => {
                    if let Some(input) = input {
                        self.take(input);
                    }
                }
                () = tokio::time::sleep(span.unwrap_or(Duration::MAX)), if span.is_some() => {}
            }
            for _ in 1..INPUTS_PER_TURN {
                let Ok(input) = self.inputs.try_recv() else {
                    break;
                };
                self.take(input);
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Full {
                from,
                revision,
                items,
                done,
            } => self.take_full((from, revision), items, done),
            Input::Increment {
                revision,
                items,
                removed,
                done,
            } => self.take_increment(revision, items, &removed, done),
            Input::Command { id, command, done } => self.take_order(Order { id, command, done }),
            Input::OrderBegun(begun) => self.order_begun(begun),
            Input::OrderDone(result) => self.order_done(result),
            Input::OrderCarried(begun, result) => self.order_carried(*begun, result),
            Input::CleanUp(units) => {
                self.clean_up(|unit| units.contains(unit));
            }
            Input::Contact(proof) => self.prove_contact(proof),
            Input::Secrets => self.try_with_secrets(),
            Input::Changed(kind) => self.observe(kind),
            Input::Observed {
                kind,
                serial,
                answer,
            } => self.take_observation(kind, serial, answer),
            Input::Progress { unit, detail } => {
                let note = self.notes.entry(unit).or_default();
                if note.doing == Some(Doing::Preparing) {
                    note.detail = detail;
                }
            }
            Input::Done { unit, step, answer } => self.step_done(unit, step, answer),
            Input::Checked { unit, run, answer } => self.take_answer(unit, run, answer),
            Input::EndOfLog { unit, run, lines } => self.take_end_of_log(unit, run, lines),
            Input::Extended(unit) => {
                self.extending.remove(&unit);
            }
            Input::Saved(result) => {
                let now = self.now();
                self.saves.done(result, now);
            }
        }
    }

    /// Everything that follows from what was taken in.
    fn turn(&mut self) {
        self.ask_again();
        self.take_notice();
        self.follow();
        self.drop_preparations();
        self.check_health();
        self.flush();
        let now = self.now();
        let rules = self.rules(now);
        let facts = self.facts(&rules);
        let Plan { steps, wake } = plan::plan(facts, now);
        for step in steps {
            self.dispatch(step);
        }
        self.read_ends_of_logs();
        self.flush();
        self.forget();
        self.publish(&rules);
        self.saves.answer_written();
        let due = [
            wake,
            self.saves.due(),
            self.next_question(),
            self.checks.next(),
        ];
        self.wake = due.into_iter().flatten().min();
    }

    /// Counts the ends of units that are to run.
    fn take_notice(&mut self) {
        let now = self.now();
        let mut changed = Vec::new();
        for (unit, seen) in &self.observed.units {
            if let Some(item) = self
                .intents
                .get(&unit.assignment)
                .filter(|item| item.unit == *unit)
            {
                let note = self.notes.entry(*unit).or_default();
                if note.see(seen, &item.spec.restart, now) {
                    changed.push(unit.assignment);
                }
            }
        }
        for assignment in changed {
            self.save_entry(assignment);
        }
    }

    /// What has waited for a value tries again at once.
    fn try_with_secrets(&mut self) {
        let now = self.now();
        for note in self.notes.values_mut() {
            note.try_again(FailureCode::SecretMissing.as_str(), now);
        }
    }

    /// Drops what is remembered of units that nobody speaks of.
    fn forget(&mut self) {
        let specs = self.intents.values().map(|item| &item.spec);
        self.vault.tidy(|name| {
            specs
                .clone()
                .any(|spec| spec.secrets.iter().any(|secret| secret.name == name))
        });
        let (intents, observed) = (&self.intents, &self.observed);
        self.notes.retain(|unit, note| {
            let is_wanted = intents
                .get(&unit.assignment)
                .is_some_and(|item| item.unit == *unit);
            is_wanted || note.doing.is_some() || observed.units.contains_key(unit)
        });
        let oldest = self
            .drivers
            .values()
            .filter_map(|driver| driver.observing)
            .min();
        self.touched
            .retain(|_, serial| oldest.is_some_and(|oldest| *serial > oldest));
    }

    fn publish(&self, rules: &Rules) {
        let facts = self.facts(rules);
        let picture = Picture {
            is_complete: self.is_complete(),
            units: show::units(facts),
            containers: show::containers(facts),
            held: self.held.clone(),
            origin: self.fleet.map(|fleet| fleet.origin),
            followed_since: self.fleet.map(|fleet| fleet.since).unwrap_or_default(),
            finished: show::finished(facts),
            down: self.observed.down.keys().copied().collect(),
        };
        self.picture.send_if_modified(|shown| {
            let is_new = **shown != picture;
            if is_new {
                *shown = Arc::new(picture);
            }
            is_new
        });
    }

    fn facts<'a>(&'a self, rules: &'a Rules) -> Facts<'a> {
        Facts {
            intents: &self.intents,
            observed: &self.observed,
            notes: &self.notes,
            rules,
        }
    }

    fn rules(&self, now: Moment) -> Rules {
        let strays = if self.wish.is_some() && self.held.is_none() {
            Strays::Remove
        } else {
            Strays::Keep
        };
        let since = self.contact.unwrap_or(self.started);
        // Uptime stands still while the machine is suspended; the control plane's lease does not.
        let asleep = self.machine.asleep().saturating_sub(since.asleep);
        let contact = Contact {
            age: now.uptime.saturating_sub(since.uptime) + asleep,
            is_proved: self.contact.is_some(),
        };
        Rules {
            drivers: self.runtimes.keys().copied().collect(),
            strays,
            contact,
        }
    }

    fn prove_contact(&mut self, proof: Proof) {
        self.contact = Some(proof);
        let units: Vec<UnitId> = self
            .intents
            .values()
            .filter(|item| plan::is_singleton(item) && item.intent == Intent::Run)
            .map(|item| item.unit)
            .collect();
        for unit in units {
            self.extend(unit);
        }
    }

    fn now(&self) -> Moment {
        Moment {
            uptime: self.clock.uptime(),
            wall: Timestamp::from_millis(self.clock.wall_millis()),
        }
    }
}

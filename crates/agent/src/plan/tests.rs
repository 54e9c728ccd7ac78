//! Golden stories: a world, and the steps that it calls for. `snapshots/` holds the answers.

use std::fmt::Write as _;
use std::sync::Arc;

use hostler_model::spec::{Disconnect, ProcessSpec, Restart, WorkloadSpec};
use hostler_model::{StopCause, Timestamp, WorkloadId};
use proptest::prelude::*;

mod wrongs;

use super::*;
use crate::notes::Doing;
use crate::show;

const BIRTH: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const NOW: Moment = Moment {
    uptime: Duration::from_secs(100),
    wall: Timestamp::from_millis(1_700_000_100_000),
};
const RUNNING: FoundState = FoundState::Running { since: BIRTH };

/// Assignments are called a, b, c in stories.
fn unit(name: char, generation: u64) -> UnitId {
    UnitId {
        assignment: AssignmentId::mint(BIRTH, u128::from(name)),
        generation,
    }
}

fn exited(exit: Exit) -> FoundState {
    FoundState::Exited { exit, at: BIRTH }
}

#[derive(Debug)]
struct World {
    intents: Intents,
    observed: Observed,
    notes: BTreeMap<UnitId, Note>,
    rules: Rules,
}

impl World {
    fn new() -> Self {
        let contact = Contact {
            age: Duration::from_secs(1),
            is_proved: true,
        };
        let drivers = BTreeSet::from([Kind::Process, Kind::Container]);
        Self {
            intents: Intents::new(),
            observed: Observed::default(),
            notes: BTreeMap::new(),
            rules: Rules {
                drivers,
                strays: Strays::Remove,
                contact,
            },
        }
    }

    fn wants(mut self, unit: UnitId, shape: impl FnOnce(&mut WorkloadSpec)) -> Self {
        let mut spec = WorkloadSpec::of_process("web", vec!["serve".to_owned()]);
        shape(&mut spec);
        let item = IntentItem {
            unit,
            workload: WorkloadId::mint(BIRTH, 1),
            workload_name: "web".to_owned(),
            slot: 0,
            intent: Intent::Run,
            revision: 1,
            spec: Arc::new(spec),
            is_finished: false,
        };
        self.intents.insert(unit.assignment, item);
        self
    }

    fn has_finished(mut self, unit: UnitId) -> Self {
        if let Some(item) = self.intents.get_mut(&unit.assignment) {
            item.is_finished = true;
        }
        self
    }

    fn runs(self, unit: UnitId) -> Self {
        self.wants(unit, |_| {})
    }

    fn policy(self, unit: UnitId, policy: RestartPolicy) -> Self {
        self.wants(unit, |spec| {
            spec.restart = Restart {
                policy,
                ..Restart::default()
            }
        })
    }

    fn singleton(self, unit: UnitId) -> Self {
        self.wants(unit, |spec| {
            spec.disconnect = Disconnect {
                policy: DisconnectPolicy::Singleton,
                stop_after_ms: 30_000,
            };
        })
    }

    fn stops(self, unit: UnitId) -> Self {
        self.stops_for(unit, StopCause::Stopped)
    }

    fn stops_for(self, unit: UnitId, cause: StopCause) -> Self {
        let mut world = self.runs(unit);
        if let Some(item) = world.intents.get_mut(&unit.assignment) {
            item.intent = Intent::Stop { cause };
        }
        world
    }

    fn has(mut self, unit: UnitId, state: FoundState) -> Self {
        let workload = WorkloadId::mint(BIRTH, 1);
        self.observed.units.insert(
            unit,
            Seen {
                kind: Kind::Process,
                workload,
                state,
                runs: 1,
                parts: Vec::new(),
            },
        );
        self
    }

    fn down(mut self) -> Self {
        let down = Down {
            problem: "the process engine sleeps".to_owned(),
            retry: NOW,
        };
        self.observed.down.insert(Kind::Process, down);
        self
    }

    fn note(mut self, unit: UnitId, change: impl FnOnce(&mut Note)) -> Self {
        change(self.notes.entry(unit).or_default());
        self
    }

    fn contact(mut self, seconds: u64, is_proved: bool) -> Self {
        self.rules.contact = Contact {
            age: Duration::from_secs(seconds),
            is_proved,
        };
        self
    }

    fn keeps_strays(mut self) -> Self {
        self.rules.strays = Strays::Keep;
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            intents: &self.intents,
            observed: &self.observed,
            notes: &self.notes,
            rules: &self.rules,
        }
    }

    /// The steps and the states shown, by the names of the story.
    fn told(&self) -> String {
        let plan = plan(self.facts(), NOW);
        let mut text = String::new();
        for step in &plan.steps {
            let _ = writeln!(text, "  do   {}", named(&format!("{step:?}")));
        }
        if let Some(wake) = plan.wake {
            let _ = writeln!(text, "  wake in {:?}", wake - NOW.uptime);
        }
        for (unit, observed) in show::units(self.facts()) {
            let mut line = format!("{unit:?} {:?}", observed.state);
            if let Some(health) = observed.health {
                let _ = write!(line, ", {health:?}");
            }
            if let Some(crash_loop) = observed.crash_loop {
                let _ = write!(line, ", {crash_loop:?}");
            }
            let _ = writeln!(text, "  show {}", named(&line));
        }
        text
    }
}

/// Writes `a.1` for the unit of assignment a in generation 1.
fn named(text: &str) -> String {
    let mut text = text.to_owned();
    for name in 'a'..='c' {
        for generation in 1..=3 {
            let unit = unit(name, generation);
            text = text.replace(&format!("{unit:?}"), &format!("{name}.{generation}"));
        }
    }
    text.replace(&format!("{BIRTH:?}"), "birth")
}

#[test]
fn every_story_calls_for_its_steps() {
    let (a1, a2, b1) = (unit('a', 1), unit('a', 2), unit('b', 1));
    let later = NOW.later(Duration::from_secs(7));
    let world = World::new;
    let stories = [
        ("a new copy is prepared", world().runs(a1)),
        (
            "a prepared copy is started",
            world().runs(a1).has(a1, FoundState::Prepared),
        ),
        (
            "a running copy is left alone",
            world().runs(a1).has(a1, RUNNING),
        ),
        (
            "a unit with a step in progress gets no other",
            world()
                .runs(a1)
                .note(a1, |note| note.doing = Some(Doing::Preparing)),
        ),
        (
            "what died is started again at once",
            world().runs(a1).has(a1, exited(Exit::Code(1))),
        ),
        (
            "what keeps dying waits",
            world()
                .runs(a1)
                .has(a1, exited(Exit::Signal(9)))
                .note(a1, |note| note.restart = Some(later)),
        ),
        (
            "on-failure rests after a success",
            world()
                .policy(a1, RestartPolicy::OnFailure)
                .has(a1, exited(Exit::Code(0))),
        ),
        (
            "on-failure goes on after a failure",
            world()
                .policy(a1, RestartPolicy::OnFailure)
                .has(a1, exited(Exit::OutOfMemory)),
        ),
        (
            "on-failure goes on after a reboot",
            world()
                .policy(a1, RestartPolicy::OnFailure)
                .has(a1, exited(Exit::Unknown)),
        ),
        (
            "policy no rests after anything",
            world()
                .policy(a1, RestartPolicy::No)
                .has(a1, exited(Exit::Code(3))),
        ),
        (
            "what the control plane knows as finished is not run again after a lost ledger",
            world().policy(a1, RestartPolicy::No).has_finished(a1),
        ),
        (
            "what is finished stays and is shown",
            world()
                .policy(a1, RestartPolicy::No)
                .has(a1, exited(Exit::Code(0)))
                .note(a1, |note| {
                    note.finished = Some(Finished {
                        exit: Exit::Code(0),
                        at: BIRTH,
                        runs: 1,
                    })
                }),
        ),
        (
            "what is finished and unwanted is removed",
            world()
                .policy(a1, RestartPolicy::No)
                .has(a1, exited(Exit::Code(0)))
                .note(a1, |note| {
                    note.finished = Some(Finished {
                        exit: Exit::Code(0),
                        at: BIRTH,
                        runs: 1,
                    });
                    note.is_unwanted = true;
                }),
        ),
        (
            "what is finished is not made anew when its unit is gone",
            world().policy(a1, RestartPolicy::No).note(a1, |note| {
                note.finished = Some(Finished {
                    exit: Exit::Code(0),
                    at: BIRTH,
                    runs: 1,
                })
            }),
        ),
        (
            "a failed step waits for its next try",
            world().runs(a1).note(a1, |note| {
                note.failed("image-unavailable", "no such image".to_owned(), NOW)
            }),
        ),
        (
            "a newer generation is prepared while the older runs",
            world().runs(a2).has(a1, RUNNING),
        ),
        (
            "the older generation stops before the newer starts",
            world()
                .runs(a2)
                .has(a1, RUNNING)
                .has(a2, FoundState::Prepared),
        ),
        (
            "the older generation is removed before the newer starts",
            world()
                .runs(a2)
                .has(a1, exited(Exit::Signal(15)))
                .has(a2, FoundState::Prepared),
        ),
        (
            "the newer generation starts when the older is gone",
            world().runs(a2).has(a2, FoundState::Prepared),
        ),
        (
            "an older generation that runs beside the newer is stopped",
            world().runs(a2).has(a1, RUNNING).has(a2, RUNNING),
        ),
        (
            "what is to stop is stopped",
            world().stops(a1).has(a1, RUNNING),
        ),
        (
            "what has stopped is removed",
            world().stops(a1).has(a1, exited(Exit::Code(0))),
        ),
        ("what is gone is shown as gone", world().stops(a1)),
        (
            "an older generation of what is to stop is stopped",
            world().stops(a2).has(a1, RUNNING),
        ),
        (
            "strays are removed when the intent is followed",
            world().has(a1, RUNNING).has(b1, exited(Exit::Code(0))),
        ),
        (
            "strays are kept until then",
            world()
                .keeps_strays()
                .has(a1, RUNNING)
                .has(b1, exited(Exit::Code(0))),
        ),
        (
            "an engine that is down concludes nothing",
            world().down().runs(a1).has(a1, RUNNING).stops(b1),
        ),
        (
            "an engine that is down is shown where nothing is known",
            world().down().runs(a1),
        ),
        (
            "a kind without driver is shown as such",
            world().wants(a1, |spec| {
                spec.process = None;
                spec.compose = Some(hostler_model::spec::ComposeSpec {
                    ..Default::default()
                });
            }),
        ),
        (
            "a singleton runs while there is contact",
            world().singleton(a1).has(a1, RUNNING),
        ),
        (
            "a singleton is stopped when contact is too old",
            world().singleton(a1).has(a1, RUNNING).contact(30, true),
        ),
        (
            "a singleton is not started without contact",
            world()
                .singleton(a1)
                .has(a1, FoundState::Prepared)
                .contact(1, false),
        ),
        (
            "a singleton that was cut off starts again with contact",
            world()
                .singleton(a1)
                .has(a1, exited(Exit::Signal(15)))
                .note(a1, |note| note.is_fenced = true),
        ),
    ];
    let mut told = String::new();
    for (title, world) in stories {
        let _ = write!(told, "{title}\n{}\n", world.told());
    }
    insta::assert_snapshot!("stories", told);
}

#[test]
fn a_copy_that_moves_to_another_kind_without_driver_leaves_the_older_running() {
    let world = World::new()
        .wants(unit('a', 2), |spec| {
            spec.process = None::<ProcessSpec>;
            spec.model = Some(hostler_model::spec::ModelSpec {
                name: "m".into(),
                engine: "vllm".into(),
            });
        })
        .has(unit('a', 1), RUNNING);
    assert_eq!(plan(world.facts(), NOW).steps, []);
}

fn any_state() -> impl Strategy<Value = FoundState> {
    prop_oneof![
        Just(FoundState::Prepared),
        Just(RUNNING),
        (0..3_i32).prop_map(|code| exited(Exit::Code(code))),
        Just(exited(Exit::Unknown)),
    ]
}

fn any_world() -> impl Strategy<Value = World> {
    let units = prop::collection::btree_map((0..4_u8, 1..4_u64), any_state(), 0..8);
    let wanted = prop::collection::btree_map(0..4_u8, (1..4_u64, 0..4_u8), 0..4);
    (units, wanted, any::<bool>()).prop_map(|(units, wanted, keeps)| {
        let name = |n: u8| char::from(b'a' + n);
        let mut world = World::new();
        for (n, (generation, how)) in wanted {
            let unit = unit(name(n), generation);
            world = match how {
                0 => world.stops(unit),
                1 => world.policy(unit, RestartPolicy::No),
                2 => world.singleton(unit),
                _ => world.runs(unit),
            };
        }
        for ((n, generation), state) in units {
            world = world.has(unit(name(n), generation), state);
        }
        if keeps { world.keeps_strays() } else { world }
    })
}

#[test]
fn data_goes_only_with_a_copy_that_is_gone_for_good() {
    for (cause, data) in [
        (StopCause::Stopped, Data::Keep),
        (StopCause::Updated, Data::Keep),
        (StopCause::Drained, Data::Keep),
        (StopCause::Replaced, Data::Keep),
        (StopCause::ScaledDown, Data::Delete),
        (StopCause::Deleted, Data::Delete),
    ] {
        let unit = unit('a', 1);
        let world = World::new()
            .stops_for(unit, cause)
            .has(unit, exited(Exit::Code(0)));
        let steps = plan(world.facts(), NOW).steps;
        assert_eq!(steps, vec![Step::Remove(unit, data)], "{cause:?}");
    }
}

/// Does a step as a faultless driver would.
fn carry_out(world: &mut World, step: Step) {
    let workload = WorkloadId::mint(BIRTH, 1);
    match step {
        Step::Prepare(unit) => {
            let seen = Seen {
                kind: Kind::Process,
                workload,
                state: FoundState::Prepared,
                runs: 0,
                parts: Vec::new(),
            };
            world.observed.units.insert(unit, seen);
        }
        Step::Start(unit) => world.observed.units.get_mut(&unit).unwrap().state = RUNNING,
        Step::Stop(unit, _) => {
            world.observed.units.get_mut(&unit).unwrap().state = exited(Exit::Signal(15));
        }
        Step::Remove(unit, _) => {
            world.observed.units.remove(&unit);
        }
        Step::Finish(unit, finished) => {
            world.notes.entry(unit).or_default().finished = Some(finished);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_has_one_step_per_unit_and_never_two_generations_start(world in any_world()) {
        let mut world = world;
        for _ in 0..8 {
            let steps = plan(world.facts(), NOW).steps;
            let mut touched = BTreeSet::new();
            for step in &steps {
                let (Step::Prepare(unit) | Step::Start(unit) | Step::Stop(unit, _)
                    | Step::Remove(unit, _) | Step::Finish(unit, _)) = *step;
                prop_assert!(touched.insert(unit), "{unit} twice in {steps:?}");
                if matches!(step, Step::Start(_)) {
                    prop_assert_eq!(world.facts().units_of(unit.assignment).count(), 1);
                }
            }
            for step in steps {
                carry_out(&mut world, step);
            }
        }
    }

    #[test]
    fn doing_what_is_planned_comes_to_rest_as_intended(world in any_world()) {
        let mut world = world;
        for _ in 0..8 {
            for step in plan(world.facts(), NOW).steps {
                carry_out(&mut world, step);
            }
        }
        prop_assert_eq!(plan(world.facts(), NOW).steps, vec![]);
        for item in world.intents.values() {
            let units: Vec<UnitId> = world.facts().units_of(item.unit.assignment).collect();
            match item.intent {
                Intent::Stop { .. } => prop_assert_eq!(units, vec![]),
                Intent::Run => prop_assert_eq!(units, vec![item.unit]),
            }
        }
    }
}

#[test]
fn an_older_generation_lets_go_of_its_volumes_before_the_newer_is_prepared() {
    let volume = serde_json::json!({"name": "data", "target": "/data"});
    let with_volume = |spec: &mut WorkloadSpec| {
        if let Some(process) = &mut spec.process {
            process.volumes = vec![serde_json::from_value(volume.clone()).unwrap()];
        }
    };
    let (old, new) = (unit('a', 1), unit('a', 2));
    let steps = |world: World| plan(world.facts(), NOW).steps;
    let world = || World::new().wants(new, with_volume);
    let first = steps(world().has(old, RUNNING));
    assert_eq!(first, [Step::Stop(old, StopReason::Retired)]);
    let second = steps(world().has(old, exited(Exit::Code(0))));
    assert_eq!(second, [Step::Remove(old, Data::Keep)]);
    assert_eq!(steps(world()), [Step::Prepare(new)]);
    // Without volumes the old one runs until the new one is ready.
    let plain = steps(World::new().runs(new).has(old, RUNNING));
    assert_eq!(plain, [Step::Prepare(new)]);
}

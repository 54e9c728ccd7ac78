//! Running what should run, and nothing else.

use std::time::Duration;

use hostler_model::spec::RestartPolicy;
use hostler_model::spec::{ComposeSpec, WorkloadSpec};
use hostler_model::{CommandKind, Exit, Part, PartState};
use hostler_runtime::fake::Fault;

use crate::control::{State, unit};
use crate::node::{World, program, serve};

/// Longer than any test waits.
const FOREVER: Duration = Duration::from_secs(1 << 30);

#[tokio::test(start_paused = true)]
async fn a_killed_unit_runs_again_at_once() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    let before = tokio::time::Instant::now();
    world.machine.crash(unit(1, 1), Exit::Signal(9));
    let again = |state: &State| state.shows(unit(1, 1), "running") && state.runs(unit(1, 1)) == 2;
    world.control.until("running again", again).await;
    // Simulated time: only waits that the agent makes count.
    assert!(
        before.elapsed() < Duration::from_millis(10),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_keeps_dying_is_restarted_less_and_less_often() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(
        unit(1, 1),
        &program("web", "exit-after 10 1", RestartPolicy::Always),
    );
    world
        .control
        .until("some runs", |state| state.runs(unit(1, 1)) >= 2)
        .await;
    world.control.until_shown(unit(1, 1), "waiting").await;
    world.pass(Duration::from_secs(30)).await;
    let runs = world.control.state().runs(unit(1, 1));
    assert!((5..=8).contains(&runs), "{runs} runs in half a minute");
}

#[tokio::test(start_paused = true)]
async fn what_ends_as_its_policy_allows_is_finished_and_stays_so() {
    let world = World::new();
    let agent = world.start().await;
    world
        .control
        .run(unit(1, 1), &program("once", "exit 3", RestartPolicy::No));
    world.control.run(
        unit(2, 1),
        &program("job", "exit 0", RestartPolicy::OnFailure),
    );
    world.control.until_shown(unit(1, 1), "finished").await;
    world.control.until_shown(unit(2, 1), "finished").await;
    agent.stop().await;
    world.control.state().observed.clear();
    let _again = world.start().await;
    world.control.until_shown(unit(1, 1), "finished").await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
    assert_eq!(world.machine.running(), []);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_removes_what_has_finished_and_runs_none_of_it_again() {
    let world = World::new();
    let agent = world.start().await;
    world
        .control
        .run(unit(1, 1), &program("once", "exit 0", RestartPolicy::No));
    world.control.until_shown(unit(1, 1), "finished").await;
    world.control.order(1, CommandKind::Cleanup);
    world
        .control
        .until("acknowledged", |state| !state.acknowledged.is_empty())
        .await;
    world.pass(Duration::from_secs(10)).await;
    agent.stop().await;
    let _again = world.start().await;
    world.control.until_shown(unit(1, 1), "finished").await;
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_stop_stops_and_is_said_to_be_gone() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.stop(unit(1, 1), "stopped");
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
    world
        .control
        .until("forgotten", |state| state.wanted.is_empty())
        .await;
    assert_eq!(world.machine.running(), []);
    world.pass(Duration::from_secs(1)).await;
    let kept = std::fs::read_dir(world.dir.path().join("agent/intent"))
        .unwrap()
        .count();
    assert_eq!(kept, 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_to_stop_what_never_was_here_is_answered_with_gone() {
    let world = World::new();
    world.control.state().want(unit(1, 1), &serve("web"));
    world
        .control
        .state()
        .wanted
        .get_mut(&unit(1, 1).assignment)
        .unwrap()
        .stop = Some("drained");
    let _agent = world.start().await;
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_generation_takes_the_place_of_the_older() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.run(unit(1, 2), &serve("web"));
    world.control.until_shown(unit(1, 2), "running").await;
    assert_eq!(world.machine.running(), [unit(1, 2)]);
    world
        .control
        .until("the older gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn intents_that_come_twice_or_late_change_nothing_of_what_runs() {
    let world = World::new();
    let _agent = world.start().await;
    let (older, newer) = (unit(1, 1), unit(1, 2));
    let told = |unit| world.control.run(unit, &serve("web"));
    for unit in [older, newer] {
        told(unit);
        world.control.until_shown(unit, "running").await;
    }
    let is_as_it_was = async |what: &str| {
        let version = world.control.state().version;
        let is_applied = |state: &State| state.applied.contains(&version);
        world.control.until("applied", is_applied).await;
        world.pass(Duration::from_secs(10)).await;
        assert_eq!(world.machine.running(), [newer], "{what}");
        assert_eq!(world.control.state().runs(newer), 1, "{what}");
    };
    [newer, newer].into_iter().for_each(told);
    is_as_it_was("the same again").await;
    [older, older].into_iter().for_each(told);
    is_as_it_was("an older one late").await;
    world.control.stop(older, "replaced");
    is_as_it_was("an end of the older one late").await;
    told(newer);
    world.control.ask_again();
    let is_told_in_full = |state: &State| state.full_sets == 2;
    world.control.until("all again", is_told_in_full).await;
    is_as_it_was("everything again").await;
}

#[tokio::test(start_paused = true)]
async fn an_update_that_cannot_be_prepared_leaves_the_older_running() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.machine.fail_prepare(Fault::Image, 1_000);
    world.control.run(unit(1, 2), &serve("web"));
    world.control.until_shown(unit(1, 2), "failed").await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), [unit(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_failed_is_tried_again() {
    let world = World::new();
    world.machine.fail_prepare(Fault::Image, 2);
    world.machine.fail_start(Fault::Command, 2);
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "failed").await;
    world.control.until_shown(unit(1, 1), "running").await;
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_unit_are_told_whenever_they_change() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("stack"));
    world.control.until_shown(unit(1, 1), "running").await;
    for (state, exit) in [
        (PartState::Running, None),
        (PartState::Exited, Some(Exit::Code(3))),
    ] {
        let name = "db".to_owned();
        let part = Part { name, state, exit };
        world.machine.set_parts(unit(1, 1), vec![part]);
        world
            .control
            .until("the part is told", |it| {
                let parts = it.observed.get(&unit(1, 1)).map(|shown| &shown.parts);
                parts.is_some_and(|parts| parts.len() == 1 && parts[0].state == state.as_str())
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_without_driver_is_said_to_have_none() {
    let world = World::new();
    let _agent = world.start().await;
    let spec = WorkloadSpec {
        process: None,
        compose: Some(ComposeSpec::of_text("services: {}")),
        ..serve("stack")
    };
    world.control.run(unit(1, 1), &spec);
    world
        .control
        .until_shown(unit(1, 1), "driver-missing")
        .await;
}

#[tokio::test(start_paused = true)]
async fn preparations_that_never_end_hold_up_nothing_else() {
    let world = World::new();
    let _agent = world.start().await;
    world.machine.set_preparation_time(FOREVER);
    for n in 0..20 {
        world.control.run(unit(n, 1), &serve("slow"));
    }
    let all = |state: &State| (0..20).all(|n| state.shows(unit(n, 1), "preparing"));
    world.control.until("all are prepared", all).await;
    world.machine.set_preparation_time(Duration::ZERO);
    world.control.run(unit(100, 1), &serve("quick"));
    world.control.until_shown(unit(100, 1), "running").await;
    assert_eq!(world.machine.running(), [unit(100, 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_stop_does_not_wait_for_its_preparation() {
    let world = World::new();
    let _agent = world.start().await;
    world.machine.set_preparation_time(FOREVER);
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "preparing").await;
    world.control.stop(unit(1, 1), "stopped");
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
    world
        .control
        .until("forgotten", |state| state.wanted.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_generation_does_not_wait_for_the_preparation_of_the_older() {
    let world = World::new();
    let _agent = world.start().await;
    world.machine.set_preparation_time(FOREVER);
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "preparing").await;
    world.machine.set_preparation_time(Duration::ZERO);
    world.control.run(unit(1, 2), &serve("web"));
    world.control.until_shown(unit(1, 2), "running").await;
    world
        .control
        .until("the older gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_preparation_left_is_removed_before_it_is_said_to_be_gone() {
    let world = World::new();
    let _agent = world.start().await;
    world.machine.set_preparation_time(FOREVER);
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "preparing").await;
    // An engine that is away removes nothing.
    world.machine.set_down(Some("told to be down"));
    world.control.stop(unit(1, 1), "stopped");
    world.control.until_shown(unit(1, 1), "stopping").await;
    world.pass(Duration::from_secs(60)).await;
    assert!(world.control.state().gone.is_empty());
    world.machine.set_down(None);
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn many_copies_start_side_by_side() {
    let world = World::new();
    world
        .machine
        .set_preparation_time(Duration::from_millis(100));
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    let before = tokio::time::Instant::now();
    for n in 0..32 {
        world.control.run(unit(n, 1), &serve("web"));
    }
    let all = |state: &State| (0..32).all(|n| state.shows(unit(n, 1), "running"));
    world.control.until("all run", all).await;
    // Simulated time: no preparation waits for another.
    assert!(
        before.elapsed() < Duration::from_millis(200),
        "{:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn beats_tell_what_running_units_use_and_which_containers_run() {
    let world = World::new();
    world.machine.set_containers(&["theirs"]);
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world
        .control
        .run(unit(2, 1), &program("once", "exit 0", RestartPolicy::No));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.until_shown(unit(2, 1), "finished").await;
    world
        .control
        .until("figures of two looks", |state| state.usage.len() >= 2)
        .await;
    let state = world.control.state();
    let assignment = unit(1, 1).assignment.to_string();
    for used in &state.usage {
        let id = used.unit.as_ref().unwrap();
        assert_eq!(
            (&id.assignment, id.generation),
            (&assignment, 1),
            "only what runs is measured"
        );
        assert_eq!((used.memory_bytes, used.sent_bytes), (1 << 20, None));
        assert_eq!(used.read_bytes, Some(used.cpu_nanos / 1000));
    }
    let (first, second) = (&state.usage[0], &state.usage[1]);
    assert_eq!(first.milli_cpu, 0, "there is nothing to count from yet");
    assert_eq!(second.milli_cpu, 1000, "the fake keeps one core busy");
    assert!(second.cpu_nanos > first.cpu_nanos);
    let told = state.last_beat.usage.as_ref().unwrap();
    assert_eq!(told.running_containers, ["theirs"]);
    assert!(state.beats > 2 * 2, "each look is told by one beat");
}

//! Health checks, crash loops and the time limits of jobs, through the whole agent.

use std::time::Duration;

use hostler_model::Exit;
use hostler_model::spec::{HealthSpec, JobSpec, RestartPolicy, WorkloadSpec};
use hostler_wire::session::v1;

use crate::control::{State, unit};
use crate::network::Weather;
use crate::node::{World, program, serve};

/// Asked every second by a command of that name; two failures decide.
fn checked(mut spec: WorkloadSpec) -> WorkloadSpec {
    spec.health = Some(HealthSpec {
        command: vec!["probe".to_owned()],
        interval_ms: 1000,
        failures: 2,
        ..HealthSpec::default()
    });
    spec
}

fn health(state: &State) -> Option<v1::health::State> {
    let health = state.observed.get(&unit(1, 1))?.health.as_ref()?;
    health.state.clone()
}

fn crash_loop(state: &State) -> Option<v1::CrashLoop> {
    state.observed.get(&unit(1, 1))?.crash_loop.clone()
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_starting_then_healthy_and_is_restarted_once_it_is_unhealthy() {
    use v1::health::State::{Healthy, Starting};
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &checked(serve("web")));
    let starting = |state: &State| health(state) == Some(Starting(true));
    world.control.until("starting", starting).await;
    world.machine.set_command("probe", Exit::Code(0), "fine");
    let healthy = |state: &State| health(state) == Some(Healthy(true));
    world.control.until("healthy", healthy).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);

    world
        .machine
        .set_command("probe", Exit::Code(4), "no database");
    let restarted = |state: &State| state.runs(unit(1, 1)) == 2;
    world.control.until("restarted", restarted).await;
    world.machine.set_command("probe", Exit::Code(0), "fine");
    world.control.until("healthy again", healthy).await;
    assert!(world.control.state().shows(unit(1, 1), "running"));
}

#[tokio::test(start_paused = true)]
async fn an_unhealthy_copy_under_policy_no_is_left_and_shown_with_its_reason() {
    let world = World::new();
    let _agent = world.start().await;
    world
        .machine
        .set_command("probe", Exit::Code(4), "no database");
    let mut spec = checked(serve("web"));
    spec.restart.policy = RestartPolicy::No;
    world.control.run(unit(1, 1), &spec);
    let why = "exit code 4: no database".to_owned();
    let unhealthy = Some(v1::health::State::Unhealthy(why));
    let is_shown = |state: &State| health(state) == unhealthy;
    world.control.until("unhealthy", is_shown).await;
    world.pass(Duration::from_secs(60)).await;
    assert!(is_shown(&world.control.state()));
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_holds_nothing_up() {
    let world = World::new();
    let _agent = world.start().await;
    for n in 1..=40 {
        world.control.run(unit(n, 1), &checked(serve("web")));
    }
    world.control.until_shown(unit(40, 1), "running").await;
    let before = tokio::time::Instant::now();
    world.control.run(unit(99, 1), &serve("other"));
    world.control.until_shown(unit(99, 1), "running").await;
    assert!(before.elapsed() < Duration::from_secs(1), "simulated time");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_keeps_its_beginning_through_a_restart_of_the_agent_until_a_run_lasts() {
    let world = World::new();
    let agent = world.start().await;
    let spec = program(
        "web",
        "print-exit 78 no-configuration",
        RestartPolicy::Always,
    );
    world.control.run(unit(1, 1), &spec);
    let is_looping = |state: &State| crash_loop(state).is_some_and(|it| !it.log.is_empty());
    world.control.until("a crash loop", is_looping).await;
    let first = crash_loop(&world.control.state()).unwrap();
    assert_eq!(first.log, ["no-configuration"]);
    assert_eq!(first.exit.unwrap().exit, Some(v1::exit::Exit::Code(78)));
    assert_eq!(first.run, 1);

    agent.stop().await;
    world.control.state().observed.clear();
    let _again = world.start().await;
    world.control.until("still a crash loop", is_looping).await;
    assert_eq!(crash_loop(&world.control.state()).unwrap().log, first.log);

    // The same unit, whose program has become better.
    world.machine.replace_command(unit(1, 1), &["serve"]);
    let is_over = |state: &State| state.shows(unit(1, 1), "running") && crash_loop(state).is_none();
    world.control.until("it lasts", is_over).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_is_stopped_and_retried_also_when_cut_off() {
    let world = World::new();
    let _agent = world.start().await;
    let mut spec = WorkloadSpec::bare("slow");
    spec.job = Some(JobSpec {
        retries: 1,
        timeout_ms: Some(20_000),
        ..JobSpec::new(vec!["work".to_owned()])
    });
    world.control.run(unit(1, 1), &spec);
    world.control.until_shown(unit(1, 1), "running").await;
    world.network.set(Weather::Cut);
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(world.machine.running(), [], "nobody had to say so");
    world.network.set(Weather::Fair);
    world.control.until_shown(unit(1, 1), "finished").await;
    let state = world.control.state();
    let shown = state.observed[&unit(1, 1)].clone();
    let Some(v1::unit_state::State::Finished(finished)) = shown.state.unwrap().state else {
        panic!("it is finished");
    };
    assert_eq!(
        finished.exit.unwrap().exit,
        Some(v1::exit::Exit::TimedOut(true))
    );
    assert_eq!((shown.runs, shown.kind.as_str()), (2, "process"));
}

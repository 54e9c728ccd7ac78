//! The cells of the table of states and failures that are the agent's.

use std::time::Duration;

use hostler_agent::{AgentStatus, StartError};
use hostler_model::spec::{DisconnectPolicy, RestartPolicy};
use hostler_model::{Exit, UnitId};

use crate::control::{State, unit};
use crate::network::Weather;
use crate::node::{World, program, serve};

fn run_once_each(state: &State, units: &[UnitId]) -> bool {
    units
        .iter()
        .all(|unit| state.shows(*unit, "running") && state.runs(*unit) == 1)
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_adopts_what_runs() {
    let world = World::new();
    let units = [unit(1, 1), unit(2, 1)];
    let agent = world.start().await;
    for unit in units {
        world.control.run(unit, &serve("web"));
        world.control.until_shown(unit, "running").await;
    }
    agent.stop().await;
    assert_eq!(world.machine.running(), units);
    world.pass(Duration::from_secs(60)).await;
    world.control.state().observed.clear();
    let _again = world.start().await;
    world
        .control
        .until("adopted", |state| run_once_each(state, &units))
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_without_control_plane_restarts_what_died() {
    let world = World::new();
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    agent.stop().await;
    world.network.set(Weather::Cut);
    world.machine.crash(unit(1, 1), Exit::Code(1));
    let again = world.start().await;
    again
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.machine.running(), [unit(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_died_while_it_prepared_goes_on_with_it() {
    let world = World::new();
    world.machine.set_preparation_time(Duration::from_secs(30));
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "preparing").await;
    agent.stop().await;
    let _again = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_died_between_order_and_stop_stops_it_on_return() {
    let world = World::new();
    let agent = world.start().await;
    let mut spec = program("web", "stubborn", RestartPolicy::Always);
    spec.stop.grace_ms = 60_000;
    world.control.run(unit(1, 1), &spec);
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.stop(unit(1, 1), "drained");
    world.control.until_shown(unit(1, 1), "stopping").await;
    agent.stop().await;
    world.network.set(Weather::Cut);
    let _again = world.start().await;
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(world.machine.running(), []);
    world.network.set(Weather::Fair);
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_ledger_loses_no_unit() {
    let world = World::new();
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    agent.stop().await;
    std::fs::remove_dir_all(world.dir.path().join("agent")).unwrap();
    world.network.set(Weather::Cut);
    world.control.state().observed.clear();
    let _again = world.start().await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(
        world.machine.running(),
        [unit(1, 1)],
        "kept, although nobody knows whose it is"
    );
    world.network.set(Weather::Fair);
    world
        .control
        .until("adopted", |state| run_once_each(state, &[unit(1, 1)]))
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_was_stopping_when_the_ledger_was_lost_is_stopped_by_the_intent() {
    let world = World::new();
    let agent = world.start().await;
    let mut spec = program("web", "stubborn", RestartPolicy::Always);
    spec.stop.grace_ms = 60_000;
    world.control.run(unit(1, 1), &spec);
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.stop(unit(1, 1), "drained");
    world.control.until_shown(unit(1, 1), "stopping").await;
    agent.stop().await;
    std::fs::remove_dir_all(world.dir.path().join("agent")).unwrap();
    let _again = world.start().await;
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
    assert_eq!(world.machine.running(), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_being_prepared_at_a_reboot_is_started_after_it() {
    let world = World::new();
    world.machine.set_preparation_time(Duration::from_secs(30));
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "preparing").await;
    agent.stop().await;
    world.machine.reboot();
    *world.body.boot_id.lock().unwrap() = "boot-2".to_owned();
    let _again = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_ledger_is_set_aside_and_loses_no_unit() {
    let world = World::new();
    world.control.state().want(unit(1, 1), &serve("web"));
    let agent = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    world
        .control
        .until("on disk", |state| !state.applied.is_empty())
        .await;
    agent.stop().await;
    let intent = world
        .dir
        .path()
        .join(format!("agent/intent/{}.json", unit(1, 1).assignment));
    std::fs::write(&intent, b"{").unwrap();
    std::fs::write(world.dir.path().join("agent/fleet.json"), b"").unwrap();
    world.control.state().observed.clear();
    let _again = world.start().await;
    world
        .control
        .until("adopted", |state| run_once_each(state, &[unit(1, 1)]))
        .await;
    assert!(intent.with_extension("json.corrupt").exists());
}

#[tokio::test(start_paused = true)]
async fn a_second_agent_on_one_data_directory_is_refused() {
    let world = World::new();
    let first = world.start().await;
    let second = world.try_start(|_| {}).await;
    assert!(matches!(
        second.err(),
        Some(StartError::InUse { pid: Some(_), .. })
    ));
    first.stop().await;
    world.start().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_everything_that_should_run_runs_again() {
    let world = World::new();
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world
        .control
        .run(unit(2, 1), &program("once", "serve", RestartPolicy::No));
    world.control.until_shown(unit(2, 1), "running").await;
    agent.stop().await;
    world.machine.reboot();
    *world.body.boot_id.lock().unwrap() = "boot-2".to_owned();
    let _again = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.until_shown(unit(2, 1), "finished").await;
    let state = world.control.state();
    assert_eq!(
        state.hellos.last().unwrap().facts.as_ref().unwrap().boot_id,
        "boot-2"
    );
    assert_eq!(state.runs(unit(1, 1)), 2);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_down_concludes_nothing() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.run(unit(2, 1), &serve("db"));
    world.control.until_shown(unit(2, 1), "running").await;
    world.machine.set_down(Some("asleep"));
    world.control.stop(unit(2, 1), "stopped");
    world.control.run(unit(3, 1), &serve("new"));
    world.control.until_shown(unit(3, 1), "engine-down").await;
    world.pass(Duration::from_secs(60)).await;
    assert!(world.control.state().shows(unit(1, 1), "running"));
    assert!(!world.control.state().gone.contains(&unit(2, 1)));
    world.machine.set_down(None);
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(2, 1)))
        .await;
    world.control.until_shown(unit(3, 1), "running").await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_down_when_the_agent_starts_concludes_nothing() {
    let world = World::new();
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    agent.stop().await;
    world.machine.set_down(Some("asleep"));
    {
        let mut state = world.control.state();
        state.observed.clear();
        state.wanted.get_mut(&unit(1, 1).assignment).unwrap().stop = Some("drained");
    }
    let _again = world.start().await;
    world.control.until("a beat", |state| state.beats > 1).await;
    world.pass(Duration::from_secs(60)).await;
    assert!(
        world.control.state().shows(unit(1, 1), "stopping"),
        "it may well run"
    );
    assert!(!world.control.state().gone.contains(&unit(1, 1)));
    world.machine.set_down(None);
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_cannot_be_written_stops_nothing_and_is_written_later() {
    let world = World::new();
    world.control.state().want(unit(1, 1), &serve("web"));
    let agent = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    let applied = |state: &State| state.applied.len();
    world
        .control
        .until("on disk", |state| applied(state) == 1)
        .await;
    let dir = world.dir.path().join("agent/intent");
    std::fs::remove_dir_all(&dir).unwrap();

    world.control.run(unit(2, 1), &serve("db"));
    world.control.until_shown(unit(2, 1), "running").await;
    world.control.stop(unit(1, 1), "stopped");
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(
        applied(&world.control.state()),
        1,
        "what is not on disk is not said to be"
    );

    std::fs::create_dir(&dir).unwrap();
    world
        .control
        .until("written", |state| applied(state) >= 3)
        .await;
    agent.stop().await;
    assert!(dir.join(format!("{}.json", unit(2, 1).assignment)).exists());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_goes_on_restarting_what_dies() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.network.set(Weather::Cut);
    world.pass(Duration::from_secs(3600)).await;
    world.machine.crash(unit(1, 1), Exit::Signal(11));
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.machine.running(), [unit(1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_singleton_stops_when_its_node_is_cut_off_and_runs_again_with_contact() {
    let world = World::new();
    let _agent = world.start().await;
    let mut only = serve("only");
    only.disconnect.policy = DisconnectPolicy::Singleton;
    only.disconnect.stop_after_ms = 20_000;
    only.restart.policy = RestartPolicy::No;
    world.control.run(unit(1, 1), &only);
    world.control.run(unit(2, 1), &serve("many"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.until_shown(unit(2, 1), "running").await;
    world.pass(Duration::from_secs(300)).await;
    assert_eq!(world.machine.running().len(), 2, "contact keeps it running");

    world.network.set(Weather::Silent);
    world.pass(Duration::from_secs(17)).await;
    assert_eq!(world.machine.running().len(), 2);
    world.pass(Duration::from_secs(4)).await;
    assert_eq!(world.machine.running(), [unit(2, 1)]);

    world.network.set(Weather::Cut);
    world.pass(Duration::from_secs(5)).await;
    world.network.set(Weather::Fair);
    world
        .control
        .until("running again", |state| {
            state.shows(unit(1, 1), "running") && state.runs(unit(1, 1)) == 2
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_singleton_is_not_started_by_an_agent_without_contact() {
    let world = World::new();
    let agent = world.start().await;
    let mut only = serve("only");
    only.disconnect.policy = DisconnectPolicy::Singleton;
    only.disconnect.stop_after_ms = 20_000;
    world.control.run(unit(1, 1), &only);
    world.control.until_shown(unit(1, 1), "running").await;
    agent.stop().await;
    world.network.set(Weather::Cut);
    world.machine.crash(unit(1, 1), Exit::Signal(9));
    let _again = world.start().await;
    world.pass(Duration::from_secs(300)).await;
    assert_eq!(world.machine.running(), []);
    world.network.set(Weather::Fair);
    world.control.until_shown(unit(1, 1), "running").await;
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_counts_its_sleep_against_a_singleton() {
    let world = World::new();
    let _agent = world.start().await;
    let mut only = serve("only");
    only.disconnect.policy = DisconnectPolicy::Singleton;
    only.disconnect.stop_after_ms = 20_000;
    world.control.run(unit(1, 1), &only);
    world.control.until_shown(unit(1, 1), "running").await;
    world.network.set(Weather::Cut);
    *world.body.asleep.lock().unwrap() = Duration::from_secs(3600);
    world.pass(Duration::from_secs(2)).await;
    assert_eq!(world.machine.running(), []);
}

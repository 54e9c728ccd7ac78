//! Values of secrets on the agent's side: kept in memory, given to what names them, on no disk.

use std::path::Path;
use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_model::spec::{SecretUse, WorkloadSpec};
use hostler_model::{Exit, UnitId};

use crate::control::{State, unit};
use crate::node::{Running, World, serve};

const CANARY: &str = "canary-9d2e4f";

fn naming(secret: &str) -> WorkloadSpec {
    let mut spec = serve("web");
    spec.secrets = vec![SecretUse {
        name: secret.to_owned(),
        env: Some("DB".to_owned()),
        file: None,
        mode: None,
    }];
    spec
}

/// An agent that has a session, over which secrets come.
async fn joined(world: &World) -> Running {
    let agent = world.start().await;
    let is_joined = |status: &AgentStatus| matches!(status, AgentStatus::Joined { .. });
    agent.until(is_joined).await;
    agent
}

fn given(world: &World, unit: UnitId) -> Vec<Vec<u8>> {
    let given = world.machine.given(unit);
    given.iter().map(|it| it.value.reveal().to_vec()).collect()
}

/// Whether a file below the directory holds the words.
fn holds(dir: &Path, words: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, words);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(words.len()).any(|it| it == words.as_bytes())
    })
}

fn waits(state: &State, unit: UnitId) -> bool {
    let failure = state.failure(unit);
    failure.is_some_and(|(code, message)| code == "secret-missing" && message.contains("`db`"))
}

#[tokio::test(start_paused = true)]
async fn a_copy_waits_for_its_secret_and_starts_as_soon_as_it_is_there() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &naming("db"));
    world
        .control
        .until("it waits", |state| waits(state, unit(1, 1)))
        .await;
    // Many retries later the next one would be far away.
    world.pass(Duration::from_secs(600)).await;
    assert!(waits(&world.control.state(), unit(1, 1)));
    let before = tokio::time::Instant::now();
    world.control.give_secret("db", CANARY);
    world.control.until_shown(unit(1, 1), "running").await;
    // Simulated time: only waits that the agent makes count.
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(given(&world, unit(1, 1)), [CANARY.as_bytes()]);
    assert!(!holds(world.dir.path(), CANARY));
    let said = format!("{:?}", world.control.state().observed);
    assert!(!said.contains(CANARY), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_dies_while_the_node_is_cut_off_is_started_again_with_its_secret() {
    let world = World::new();
    let _agent = joined(&world).await;
    world.control.give_secret("db", CANARY);
    world.control.run(unit(1, 1), &naming("db"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.die();
    world.machine.crash(unit(1, 1), Exit::Signal(9));
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(given(&world, unit(1, 1)), [CANARY.as_bytes()]);
    world.control.serve();
    let again = |state: &State| state.shows(unit(1, 1), "running") && state.runs(unit(1, 1)) == 2;
    world.control.until("running again", again).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_started_anew_leaves_what_runs_and_waits_with_what_does_not() {
    let world = World::new();
    let agent = joined(&world).await;
    world.control.give_secret("db", CANARY);
    world.control.run(unit(1, 1), &naming("db"));
    world.control.until_shown(unit(1, 1), "running").await;
    agent.stop().await;
    assert!(!holds(world.dir.path(), CANARY));

    let _agent = world.start().await;
    let kept = |state: &State| state.shows(unit(1, 1), "running") && state.runs(unit(1, 1)) == 1;
    world.control.until("it runs on", kept).await;
    world.machine.crash(unit(1, 1), Exit::Signal(9));
    world
        .control
        .until("it waits", |state| waits(state, unit(1, 1)))
        .await;
    world.control.give_secret("db", "another");
    let again = |state: &State| state.shows(unit(1, 1), "running") && state.runs(unit(1, 1)) == 2;
    world.control.until("running again", again).await;
    assert_eq!(given(&world, unit(1, 1)), [b"another"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_value_is_for_the_next_run_and_not_for_this_one() {
    let world = World::new();
    let _agent = joined(&world).await;
    world.control.give_secret("db", CANARY);
    world.control.run(unit(1, 1), &naming("db"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.give_secret("db", "another");
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
    assert_eq!(given(&world, unit(1, 1)), [CANARY.as_bytes()]);
    world.machine.crash(unit(1, 1), Exit::Signal(9));
    let again = |state: &State| state.shows(unit(1, 1), "running") && state.runs(unit(1, 1)) == 2;
    world.control.until("running again", again).await;
    assert_eq!(given(&world, unit(1, 1)), [b"another"]);
}

//! Commands: their effect at most once, their answer as often as it is asked for.

use hostler_agent::GuardFile;
use hostler_model::spec::WorkloadSpec;
use hostler_model::{CommandId, CommandKind};
use hostler_runtime::{Adoptable, AdoptableList};

use crate::control::{epoch, moment, unit};
use crate::node::{World, serve};

const SECRET: &str = "hunter2";

#[tokio::test(start_paused = true)]
async fn a_command_is_done_once_and_answered_the_same_again() {
    let world = World::new();
    let agent = world.start().await;
    let id = world
        .control
        .order(1, CommandKind::AcceptIntent { epoch: epoch(1) });
    world
        .control
        .until("acknowledged", |state| state.acknowledged.len() == 1)
        .await;
    agent.stop().await;
    let path = world.dir.path().join(format!("agent/commands/{id}.json"));
    let record = std::fs::read_to_string(&path).unwrap();

    world
        .control
        .order(1, CommandKind::AcceptIntent { epoch: epoch(1) });
    let _again = world.start().await;
    world
        .control
        .until("acknowledged again", |state| state.acknowledged.len() == 2)
        .await;
    let state = world.control.state();
    assert_eq!(state.acknowledged[0], state.acknowledged[1]);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        record,
        "not even the record was written"
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_effect_is_unknown_is_not_done_again() {
    let world = World::new();
    let agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    agent.stop().await;
    let id = CommandId::mint(moment(), 1);
    let begun = serde_json::json!({
        "id": id, "command": { "kind": "cleanup" }, "begun_at": moment().as_millis(),
    });
    let path = world.dir.path().join(format!("agent/commands/{id}.json"));
    std::fs::write(path, begun.to_string()).unwrap();
    world.control.order(1, CommandKind::Cleanup);
    let _again = world.start().await;
    world
        .control
        .until("acknowledged", |state| state.acknowledged.len() == 1)
        .await;
    let state = world.control.state();
    assert!(!state.acknowledged[0].done);
    assert!(
        state.acknowledged[0].message.contains("not done again"),
        "{:?}",
        state.acknowledged
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_keeps_a_command_waiting_keeps_nothing_else_waiting() {
    let world = World::new();
    let threads = |config: &mut hostler_agent::AgentConfig| {
        config.ledger_io = hostler_agent::LedgerIo::Threads;
    };
    let _agent = world.try_start(threads).await.unwrap();
    world.control.until("a beat", |state| state.beats > 0).await;
    let id = CommandId::mint(moment(), 1);
    let path = world.dir.path().join(format!("agent/commands/{id}.json"));
    // Whoever reads it waits for a writer.
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert_eq!(world.control.order(1, CommandKind::Cleanup), id);
    world.control.order(2, CommandKind::Cleanup);
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.stop(unit(1, 1), "stopped");
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
    assert!(world.control.state().acknowledged.is_empty());

    let writer = std::fs::OpenOptions::new().write(true).open(&path);
    drop(writer.unwrap());
    world
        .control
        .until("both acknowledged", |state| state.acknowledged.len() >= 2)
        .await;
    let state = world.control.state();
    assert!(state.acknowledged.iter().all(|it| it.done));
    let record: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(record["result"].is_object(), "{record}");
}

#[tokio::test(start_paused = true)]
async fn an_order_for_a_rented_machine_is_answered_with_no() {
    let world = World::new();
    let _agent = world.start().await;
    let kind = CommandKind::Terminate {
        machine: None,
        terminate_wait_seconds: None,
        reason: String::new(),
    };
    world.control.order(1, kind);
    world
        .control
        .until("acknowledged", |state| state.acknowledged.len() == 1)
        .await;
    assert!(!world.control.state().acknowledged[0].done);
}

/// What a node with two strangers answers that lets go what its guard file says.
async fn adoptable(guard: &str, names: &[&str]) -> (AdoptableList, String) {
    let world = World::new();
    let stranger = |name: &str| {
        let mut spec = WorkloadSpec::of_container(name, "web:1", Vec::new());
        spec.env.insert("PASSWORD".to_owned(), SECRET.to_owned());
        spec.container.as_mut().unwrap().adopt = Some(name.to_owned());
        Adoptable {
            name: name.to_owned(),
            spec,
            notes: Vec::new(),
            shares_node: false,
        }
    };
    world
        .machine
        .set_strangers(vec![stranger("db"), stranger("web")]);
    let path = world.dir.path().join("guard.toml");
    std::fs::write(&path, guard).unwrap();
    let _agent = world
        .try_start(|config| config.guard = GuardFile::Named(path))
        .await
        .unwrap();
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    world.control.order(1, CommandKind::ListAdoptable { names });
    world
        .control
        .until("acknowledged", |state| state.acknowledged.len() == 1)
        .await;
    let answer = world.control.state().acknowledged[0].clone();
    assert!(answer.done, "{}", answer.message);
    let list = serde_json::from_str(&answer.message).unwrap();
    (list, answer.message)
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_what_could_be_adopted_and_of_what_its_owner_keeps_only_the_name() {
    let names = |list: &AdoptableList| {
        let names = list.found.iter().map(|it| it.name.clone());
        names.collect::<Vec<_>>()
    };
    let (all, text) = adoptable("adopt = true\n", &[]).await;
    assert_eq!(names(&all), ["db", "web"]);
    assert!(all.refused.is_empty() && text.contains(SECRET));
    let (one, _) = adoptable("adopt = true\n", &["web", "ghost"]).await;
    assert_eq!(names(&one), ["web"]);
    let (none, text) = adoptable("images = ['web:*']\n", &[]).await;
    assert!(none.found.is_empty() && !text.contains(SECRET), "{text}");
    assert_eq!(none.refused.len(), 2);
    assert!(none.refused[1].1.contains("rule `adopt`"), "{none:?}");
}

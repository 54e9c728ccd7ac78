//! Commands: their effect at most once, their answer as often as it is asked for.

use hostler_model::{CommandId, CommandKind};

use crate::control::{epoch, moment};
use crate::node::World;

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

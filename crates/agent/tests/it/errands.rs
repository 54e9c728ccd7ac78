//! Errands inside units, over the second connection.

use hostler_agent::GuardFile;
use hostler_model::spec::RestartPolicy;
use hostler_wire::session::v1::bulk_frame::Frame;
use hostler_wire::session::v1::errand::Errand;
use hostler_wire::session::v1::{self, exit};

use crate::control::{State, unit};
use crate::logs::{end, frames};
use crate::node::{World, program};

fn exec(words: &[&str]) -> Errand {
    Errand::Exec(v1::ExecCommand {
        words: words.iter().map(|&word| word.to_owned()).collect(),
        input: true,
        ..v1::ExecCommand::default()
    })
}

fn bytes(state: &State) -> Vec<u8> {
    let pieces = frames(state).into_iter().filter_map(|frame| match frame {
        Frame::Bytes(bytes) => Some(bytes.clone()),
        _ => None,
    });
    pieces.flatten().collect()
}

fn has_begun(state: &State) -> bool {
    frames(state).contains(&&Frame::Begun(v1::Begun {}))
}

async fn running(world: &World) {
    let program = program("web", "serve", RestartPolicy::Always);
    world.control.run(unit(1, 1), &program);
    world.control.until_shown(unit(1, 1), "running").await;
}

/// Asks for what will not begin, and answers the code.
async fn refused(world: &World, asked: Errand) -> String {
    world.control.ask_errand(unit(1, 1), asked);
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    let state = world.control.state();
    assert!(!has_begun(&state));
    end(&state).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_command_hears_and_is_heard_until_its_input_ends() {
    let world = World::new();
    let _agent = world.start().await;
    running(&world).await;
    world.control.ask_errand(unit(1, 1), exec(&["cat"]));
    world.control.until("it begins", has_begun).await;
    for piece in ["one ", "two"] {
        world.control.say(Frame::Bytes(piece.into()));
    }
    world
        .control
        .until("the echo", |state| bytes(state) == b"one two")
        .await;
    world.control.say(Frame::EndOfBytes(v1::EndOfBytes {}));
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    let state = world.control.state();
    let exit = Some(exit::Exit::Code(0));
    assert!(frames(&state).contains(&&Frame::Exited(v1::Exit { exit })));
    assert_eq!(end(&state).unwrap(), "");
}

#[tokio::test(start_paused = true)]
async fn files_go_in_and_come_out_again() {
    let world = World::new();
    let _agent = world.start().await;
    running(&world).await;
    let whole: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let write = Errand::WriteFiles("/srv".to_owned());
    world.control.ask_errand(unit(1, 1), write.clone());
    world.control.until("it begins", has_begun).await;
    for piece in whole.chunks(30_000) {
        world.control.say(Frame::Bytes(piece.to_vec()));
    }
    world.control.say(Frame::EndOfBytes(v1::EndOfBytes {}));
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    assert_eq!(end(&world.control.state()).unwrap(), "");

    let read = Errand::ReadFiles("/srv".to_owned());
    world.control.ask_errand(unit(1, 1), read);
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    assert_eq!(end(&world.control.state()).unwrap(), "");
    assert!(bytes(&world.control.state()) == whole);

    let missing = Errand::ReadFiles("/missing".to_owned());
    assert_eq!(refused(&world, missing).await, "file-not-found");
    // Begun all the same: that is how a node says that it takes the archive.
    let missing = Errand::WriteFiles("/missing".to_owned());
    world.control.ask_errand(unit(1, 1), missing);
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    assert_eq!(end(&world.control.state()).unwrap(), "file-not-found");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_here_or_does_not_run_is_told_so() {
    let world = World::new();
    let _agent = world.start().await;
    running(&world).await;
    world.control.ask_errand(unit(2, 1), exec(&["cat"]));
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    assert_eq!(end(&world.control.state()).unwrap(), "unit-not-running");
    world.control.stop(unit(1, 1), "stopped");
    let is_gone = |state: &State| state.gone.contains(&unit(1, 1));
    world.control.until("it is gone", is_gone).await;
    assert_eq!(refused(&world, exec(&["cat"])).await, "unit-not-running");
}

#[tokio::test]
async fn the_nodes_owner_may_forbid_each_kind_of_errand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("guard.toml");
    std::fs::write(&path, "inside = ['copy']\n").unwrap();
    let world = World::new();
    let guard = GuardFile::Named(path.clone());
    let started = world.try_start(|config| config.guard = guard).await;
    let _agent = started.unwrap();
    running(&world).await;
    assert_eq!(refused(&world, exec(&["cat"])).await, "refused-by-node");
    assert_eq!(refused(&world, Errand::Forward(1)).await, "refused-by-node");
    let read = Errand::ReadFiles("/missing".to_owned());
    assert_eq!(refused(&world, read).await, "file-not-found");
    std::fs::write(&path, "inside = ['exec']\n").unwrap();
    world.control.ask_errand(unit(1, 1), exec(&["cat"]));
    world.control.until("it begins", has_begun).await;
}

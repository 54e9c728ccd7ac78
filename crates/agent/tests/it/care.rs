//! Care of the node: what it is short of, and what is deleted when.

use std::time::Duration;

use hostler_agent::{AgentConfig, FileSystem, Share};
use hostler_model::spec::{Kind, RestartPolicy};
use hostler_model::{Bytes, CommandKind, MilliCpu, Resources, Timestamp, UnitId};
use hostler_runtime::{Leftover, LeftoverKind};
use hostler_wire::session::v1;

use crate::control::{State, epoch, moment, unit, workload};
use crate::node::{Running, World, program, serve};

/// What was of use within this span stays, and the rounds follow each other like this.
const MIN_AGE: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(20);
/// Long enough for what is young to be old, and for two rounds after that.
const A_WHILE: Duration = Duration::from_secs(120);

/// Of a hundred bytes so many are in use.
fn disk(used: u64) -> Option<FileSystem> {
    Some(FileSystem {
        id: 1,
        bytes: Share {
            free: 100 - used,
            total: 100,
        },
        inodes: None,
    })
}

fn image(name: &str, bytes: u64, needed: Option<&str>) -> Leftover {
    let long_ago = Timestamp::from_millis(moment().as_millis() - 86_400_000);
    Leftover {
        kind: LeftoverKind::Image,
        name: name.to_owned(),
        bytes,
        made_at: long_ago,
        used_at: long_ago,
        needed: needed.map(str::to_owned),
    }
}

/// An agent whose rounds are short.
async fn start(world: &World) -> Running {
    let short = |config: &mut AgentConfig| {
        config.care.budget.min_age = MIN_AGE;
        config.care.budget.every = EVERY;
    };
    world.try_start(short).await.unwrap()
}

fn pressure(state: &State) -> Option<Vec<String>> {
    let usage = state.last_beat.usage.as_ref()?;
    usage.pressure.clone().map(|pressure| pressure.short_of)
}

async fn acknowledged(world: &World, n: u128, command: CommandKind) -> v1::Acknowledge {
    let id = world.control.order(n, command).to_string();
    let is_answered = |state: &State| state.acknowledged.iter().any(|it| it.command == id);
    world.control.until("acknowledged", is_answered).await;
    let state = world.control.state();
    let answer = state.acknowledged.iter().find(|it| it.command == id);
    answer.unwrap().clone()
}

/// The images that are left, by name.
async fn images(world: &World) -> Vec<String> {
    // Each look is an order of its own.
    world.pass(Duration::from_secs(2)).await;
    let number = 1000 + u128::from(world.control.state().beats);
    let answer = acknowledged(
        world,
        number,
        CommandKind::Collect {
            dry_run: true,
            data: false,
        },
    );
    let answer = answer.await;
    world.control.state().acknowledged.clear();
    let lines = answer.message.lines();
    let names = lines.filter_map(|line| line.split("container image ").nth(1));
    let mut names: Vec<String> = names
        .filter_map(|rest| rest.split("  ").next())
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn beats_tell_what_the_machine_is_short_of_until_it_is_well_for_a_while() {
    let world = World::new();
    *world.body.disk.lock().unwrap() = disk(97);
    world.body.headroom.lock().unwrap().memory = Some(Share {
        free: 4,
        total: 100,
    });
    let agent = start(&world).await;
    let is_short = |short_of: &'static [&str]| {
        move |state: &State| pressure(state).is_some_and(|told| told == short_of)
    };
    world
        .control
        .until("short of both", is_short(&["memory", "disk"]))
        .await;
    *world.body.disk.lock().unwrap() = disk(93);
    world.body.headroom.lock().unwrap().memory = Some(Share {
        free: 60,
        total: 100,
    });
    world
        .control
        .until("short of the disk alone", is_short(&["disk"]))
        .await;
    agent.stop().await;
    *world.body.disk.lock().unwrap() = disk(50);
    world.control.state().last_beat = v1::Beat::default();
    let _again = start(&world).await;
    world.control.until("well again", is_short(&[])).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_emptied_of_what_nothing_needs_the_oldest_first_and_no_further() {
    let world = World::new();
    world.machine.leave(
        Kind::Container,
        image("a", 9, Some("a container is made of it")),
    );
    world.machine.leave(Kind::Container, image("b", 9, None));
    world.machine.leave(Kind::Container, image("c", 9, None));
    *world.body.disk.lock().unwrap() = disk(84);
    let _agent = start(&world).await;
    world.control.until("a beat", |state| state.beats > 0).await;
    world.pass(A_WHILE).await;
    assert_eq!(images(&world).await, ["a", "b", "c"], "there is room");
    *world.body.disk.lock().unwrap() = disk(85);
    world.pass(2 * EVERY).await;
    assert_eq!(
        images(&world).await,
        ["a"],
        "10 are too much, and 9 are not enough"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_tells_what_would_go_and_why_and_an_order_does_it_whatever_room_there_is() {
    let world = World::new();
    world.machine.leave(Kind::Container, image("old", 9, None));
    world.machine.leave(
        Kind::Container,
        image("used", 9, Some("a container is made of it")),
    );
    *world.body.disk.lock().unwrap() = disk(10);
    let _agent = start(&world).await;
    let once = program("once", "exit 0", RestartPolicy::No);
    world.control.run(unit(1, 1), &once);
    world.control.until_shown(unit(1, 1), "finished").await;
    world.pass(A_WHILE).await;
    let collect = |dry_run| CommandKind::Collect {
        dry_run,
        data: false,
    };
    let told = acknowledged(&world, 1, collect(true)).await;
    let lines: Vec<&str> = told.message.lines().collect();
    assert_eq!(lines[0], "would delete 2 of 3 things: about 9B");
    assert!(
        lines.contains(&"goes   container image old  9B  nothing needs it; of use 24 h ago"),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"stays  container image used  9B  a container is made of it"),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("goes   finished process"))
    );
    assert_eq!(images(&world).await, ["old", "used"], "nothing was done");
    let done = acknowledged(&world, 2, collect(false)).await;
    assert!(
        done.done && done.message.starts_with("deleted 2 of 3 things"),
        "{done:?}"
    );
    assert_eq!(images(&world).await, ["used"]);
    world.pass(Duration::from_secs(10)).await;
    let again = acknowledged(&world, 3, collect(true)).await;
    assert!(
        again.message.starts_with("would delete 0 of"),
        "{}",
        again.message
    );
    assert!(
        world.control.state().shows(unit(1, 1), "finished"),
        "its end is still known"
    );
}

/// A copy stored something, was stopped, and has gone.
async fn left_by(world: &World, unit: UnitId) {
    world.control.run(unit, &serve("db"));
    world.control.until_shown(unit, "running").await;
    world.control.stop(unit, "stopped");
    world
        .control
        .until("gone", |state| state.wanted.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn data_of_a_workload_goes_once_it_was_deleted_and_not_while_it_lives() {
    let world = World::new();
    let _agent = start(&world).await;
    left_by(&world, unit(1, 1)).await;
    left_by(&world, unit(2, 1)).await;
    world.pass(A_WHILE).await;
    assert!(
        world.machine.has_data(unit(1, 1).assignment),
        "it may be the only copy"
    );
    assert_eq!(world.control.state().kept.len(), 2);
    world.control.state().unknown.insert(workload(unit(1, 1)));
    world.pass(3 * EVERY).await;
    assert!(!world.machine.has_data(unit(1, 1).assignment));
    assert!(world.machine.has_data(unit(2, 1).assignment));
    let all = CommandKind::Collect {
        dry_run: false,
        data: true,
    };
    let done = acknowledged(&world, 1, all).await;
    assert!(
        done.message.contains("it was asked for"),
        "{}",
        done.message
    );
    assert!(
        !world.machine.has_data(unit(2, 1).assignment),
        "a person asked for it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_of_another_life_deletes_no_data_that_is_older_than_it() {
    let world = World::new();
    world.control.state().revision = 50;
    world.control.state().run = (7, 50);
    let agent = start(&world).await;
    left_by(&world, unit(1, 1)).await;
    world.pass(A_WHILE).await;
    agent.stop().await;
    // Nothing runs here, so that the guard against mass stops has nothing to hold back.
    for what in ["an older copy of the store", "a restored store"] {
        {
            let mut state = world.control.state();
            if what == "a restored store" {
                state.epoch = epoch(2);
            } else {
                state.run = (8, 20);
                state.revision = 20;
            }
            state.unknown.insert(workload(unit(1, 1)));
            state.kept.clear();
        }
        let agent = start(&world).await;
        world
            .control
            .until("asked", |state| !state.kept.is_empty())
            .await;
        world.pass(A_WHILE).await;
        assert!(world.machine.has_data(unit(1, 1).assignment), "{what}");
        agent.stop().await;
    }
    let _agent = start(&world).await;
    world.pass(2 * EVERY).await;
    let told = acknowledged(
        &world,
        1,
        CommandKind::Collect {
            dry_run: true,
            data: false,
        },
    );
    let told = told.await.message;
    assert!(
        told.contains("older than what this control plane surely knows"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_told_and_loses_nothing() {
    let world = World::new();
    world.machine.leave(Kind::Container, image("old", 9, None));
    let _agent = start(&world).await;
    world.control.until("a beat", |state| state.beats > 0).await;
    world.machine.set_down(Some("gone fishing"));
    let collect = CommandKind::Collect {
        dry_run: false,
        data: true,
    };
    let told = acknowledged(&world, 1, collect).await;
    assert!(
        told.message.contains("not looked at: container:"),
        "{}",
        told.message
    );
    world.machine.set_down(None);
    assert_eq!(images(&world).await, ["old"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_for_the_machine_is_not_offered_to_the_fleet() {
    let world = World::new();
    let reserving = |config: &mut AgentConfig| {
        config.reserved = Resources {
            cpu: MilliCpu(500),
            memory: Bytes(1 << 30),
            disk: Bytes(10 << 30),
        };
    };
    let _agent = world.try_start(reserving).await.unwrap();
    world
        .control
        .until("a hello", |state| !state.hellos.is_empty())
        .await;
    let offered = world.control.state().hellos[0].capacity.unwrap();
    assert_eq!(offered.milli_cpu, 3500);
    assert_eq!(offered.memory_bytes, 7 << 30);
    assert_eq!(offered.disk_bytes, 90 << 30);
}

//! The ordinary course of things: apply, place, run, change, stop.

use std::sync::Arc;
use std::time::Duration;

use hostler_control::ControlConfig;
use hostler_control::fake::{FakeMachine, FakeNode};
use hostler_control::fleet::{ApplyOptions, Expect, Reply, Verb, why};
use hostler_model::{Code, CommandKind, CommandState, NodeState};
use hostler_store::{Limits, MemoryStore};

use crate::world::{World, apply, copies, join, resources, spec, state_of, stop, until, user};

#[tokio::test(start_paused = true)]
async fn what_is_applied_is_placed_runs_and_is_told() {
    let world = World::new(1);
    let control = world.start().await;
    let nodes = [join(&control, "one").await, join(&control, "two").await];
    let web = apply(&control, spec("web", 4, 100)).await.unwrap();
    until(&control, "four copies", |view| {
        view.assignments_of(web).count() == 4
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let running: usize = nodes.iter().map(|node| node.units().len()).sum();
    assert_eq!(running, 4, "spread over both, and all run");
    for copy in copies(&control, web) {
        assert_eq!(control.observed(copy.id).unwrap().unit, copy.unit());
    }
    assert!(control.readiness().is_ready());
    let metrics = control.metrics();
    assert_eq!(metrics.copies["running"], 4);
    assert_eq!(metrics.nodes_connected, 2);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_reads_its_own_writes() {
    let world = World::new(2);
    let control = world.start().await;
    let first = apply(&control, spec("web", 1, 100)).await.unwrap();
    assert_eq!(control.view().workload(first).unwrap().name, "web");
    let before = control.metrics().store_revision;
    let again = apply(&control, spec("web", 1, 100)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(
        control.metrics().store_revision,
        before,
        "nothing was written"
    );
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_appliers_that_require_the_last_slot_one_is_refused() {
    let world = World::new(3);
    let control = world.start().await;
    let machine = FakeMachine::named("small").with_capacity(resources(1_000));
    let _node = FakeNode::join(&control, machine).await.unwrap();
    let requiring = |name| {
        let options = ApplyOptions {
            require_placement: true,
            ..ApplyOptions::default()
        };
        let specs = vec![Arc::new(spec(name, 1, 1_000))];
        control.submit(user(), Verb::Apply { specs, options })
    };
    let (one, two) = tokio::join!(requiring("one"), requiring("two"));
    let refused = one.and(two).unwrap_err();
    assert_eq!(refused.code, Code::NoPlacement);
    let view = control.view();
    assert_eq!((view.workloads().len(), view.assignments().len()), (1, 1));
    drop(view);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn two_appliers_race_for_the_last_slot_and_one_waits_with_its_reasons() {
    let world = World::new(3);
    let control = world.start().await;
    let machine = FakeMachine::named("small").with_capacity(resources(1_000));
    let _node = FakeNode::join(&control, machine).await.unwrap();
    let (one, two) = tokio::join!(
        apply(&control, spec("one", 1, 1_000)),
        apply(&control, spec("two", 1, 1_000))
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let placed = [one, two].map(|workload| copies(&control, workload).len());
    assert_eq!(placed.iter().sum::<usize>(), 1, "{placed:?}");
    let pending = if placed[0] == 0 { one } else { two };
    assert_eq!(control.view().pending_copies(pending), 1);
    let why = why(&control.view(), pending).unwrap();
    assert!(!why.to_string().is_empty());

    let placed = if pending == one { two } else { one };
    let delete = Verb::Delete {
        workload: placed,
        expect: Expect::Any,
    };
    control.submit(user(), delete).await.unwrap();
    until(&control, "the other takes the slot", |view| {
        view.pending_copies(pending) == 0
    })
    .await;
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_is_empty_first() {
    let world = World::new(4);
    let control = world.start().await;
    let old = join(&control, "old").await;
    let web = apply(&control, spec("web", 3, 100)).await.unwrap();
    until(&control, "placed", |view| view.pending_copies(web) == 0).await;
    let new = join(&control, "new").await;
    control
        .submit(
            user(),
            Verb::Drain {
                node: old.id(),
                expect: Expect::Any,
            },
        )
        .await
        .unwrap();
    let is_drained = |view: &hostler_control::fleet::State| {
        view.node(old.id()).unwrap().state() == NodeState::Drained
    };
    until(&control, "drained", is_drained).await;
    assert!(old.units().is_empty());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(new.units().len(), 3);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_is_done_once_and_its_answer_kept() {
    let world = World::new(5);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let issue = Verb::Issue {
        node: node.id(),
        kind: CommandKind::Cleanup,
    };
    let Reply::Command { id } = control.submit(user(), issue).await.unwrap() else {
        panic!("a command is answered with its id");
    };
    let is_done = |view: &hostler_control::fleet::State| {
        matches!(view.command(id).unwrap().state, CommandState::Done { .. })
    };
    until(&control, "done", is_done).await;
    assert!(control.pending_commands(node.id()).is_empty());
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_changes_nothing_and_comes_with_its_code() {
    let world = World::new(6);
    let control = world.start().await;
    let web = apply(&control, spec("web", 1, 100)).await.unwrap();
    let before = control.metrics();
    let expect = Expect::Revision(9);
    let refused = control
        .submit(
            user(),
            Verb::Delete {
                workload: web,
                expect,
            },
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::RevisionConflict);
    assert_eq!(control.metrics().store_revision, before.store_revision);
    assert_eq!(control.metrics().event_sequence, before.event_sequence);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_no_commit_takes_is_refused_whole() {
    let world = World::new(7);
    let limits = Limits {
        writes: 64,
        bytes: 16 << 10,
    };
    let store = Arc::new(MemoryStore::with_limits(world.clock.clone(), limits));
    let config = ControlConfig::default();
    let control = hostler_control::Control::start(config, world.parts_over(store))
        .await
        .unwrap();
    let mut large = spec("large", 1, 100);
    large.env.insert("A".to_owned(), "x".repeat(12 << 10));
    let verb = Verb::Apply {
        specs: vec![Arc::new(large)],
        options: ApplyOptions::default(),
    };
    let refused = control.submit(user(), verb).await.unwrap_err();
    assert_eq!(refused.code, Code::BodyTooLarge);
    assert!(control.view().workload_by_name("large").is_none());

    let _node = join(&control, "one").await;
    let many = apply(&control, spec("many", 60, 10)).await.unwrap();
    until(&control, "placed in chunks", |view| {
        view.pending_copies(many) == 0
    })
    .await;
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_loses_its_session() {
    let world = World::new(8);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let closed = node.attachment().unwrap().closed();
    let remove = Verb::RemoveNode {
        node: node.id(),
        force: true,
        expect: Expect::Any,
    };
    control.submit(user(), remove).await.unwrap();
    closed.await;
    assert_eq!(state_of(&control, node.id()), NodeState::Gone);
    assert!(control.live(node.id()).is_none());
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_refuses_what_comes_later() {
    let world = World::new(9);
    let control = world.start().await;
    let web = apply(&control, spec("web", 1, 100)).await.unwrap();
    stop(control.clone()).await;
    let refused = control
        .submit(
            user(),
            Verb::Restart {
                workload: web,
                expect: Expect::Any,
            },
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    assert!(!control.is_leading());
    assert!(!control.readiness().is_ready());
}

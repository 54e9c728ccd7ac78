//! The mass-stop guard, through a whole agent.

use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_model::spec::RestartPolicy;
use hostler_model::{CommandKind, Exit};

use crate::control::{epoch, unit};
use crate::node::{Running, World, program, serve};

/// Three units that run, on disk.
async fn three(world: &World) -> Running {
    for unit in all() {
        world.control.state().want(unit, &serve("web"));
    }
    let agent = world.start().await;
    for unit in all() {
        world.control.until_shown(unit, "running").await;
    }
    world
        .control
        .until("on disk", |state| !state.applied.is_empty())
        .await;
    agent
}

fn all() -> [hostler_model::UnitId; 3] {
    [unit(1, 1), unit(2, 1), unit(3, 1)]
}

/// The control plane forgets everything, and comes up again.
fn forget(world: &World) {
    world.control.die();
    let mut state = world.control.state();
    state.wanted.clear();
    state.observed.clear();
    drop(state);
    world.control.serve();
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_stops_nothing() {
    let world = World::new();
    let agent = three(&world).await;
    forget(&world);
    world.control.until("held", |state| state.is_held()).await;
    assert_eq!(world.control.state().held.as_ref().unwrap().would_stop, 3);
    agent
        .until(|status| matches!(status, AgentStatus::Held { would_stop: 3, .. }))
        .await;
    world.machine.crash(unit(1, 1), Exit::Signal(9));
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(
        world.machine.running(),
        all(),
        "kept, and still restarted by policy"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restored_store_stops_nothing_until_an_operator_accepts() {
    let world = World::new();
    let _agent = three(&world).await;
    forget(&world);
    {
        let mut state = world.control.state();
        state.epoch = epoch(2);
        state.want(unit(1, 1), &serve("web"));
        state.want(unit(2, 1), &serve("web"));
        state.wanted.get_mut(&unit(2, 1).assignment).unwrap().stop = Some("deleted");
        state.want(unit(9, 1), &serve("new"));
    }
    world.control.until("held", |state| state.is_held()).await;
    world.control.until_shown(unit(9, 1), "running").await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.machine.running().len(), 4);

    world
        .control
        .order(1, CommandKind::AcceptIntent { epoch: epoch(1) });
    world
        .control
        .until("refused", |state| state.acknowledged.len() == 1)
        .await;
    assert!(
        !world.control.state().acknowledged[0].done,
        "another epoch than the one held back"
    );
    assert_eq!(world.machine.running().len(), 4);

    world
        .control
        .order(2, CommandKind::AcceptIntent { epoch: epoch(2) });
    world
        .control
        .until("followed", |state| !state.is_held())
        .await;
    world
        .control
        .until("gone", |state| {
            state.gone.contains(&unit(2, 1)) && state.gone.contains(&unit(3, 1))
        })
        .await;
    assert_eq!(world.machine.running(), [unit(1, 1), unit(9, 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_still_held_back_by_the_next_agent() {
    let world = World::new();
    let agent = three(&world).await;
    forget(&world);
    world.control.state().epoch = epoch(2);
    world.control.until("held", |state| state.is_held()).await;
    agent.stop().await;
    world.control.state().held = None;
    let _again = world.start().await;
    world.control.until("held", |state| state.is_held()).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), all());
    let state = world.control.state();
    let resume = state.hellos.last().unwrap().resume.as_ref().unwrap();
    assert_eq!(resume.store_epoch, epoch(1).to_string());
}

#[tokio::test(start_paused = true)]
async fn the_right_store_ends_the_holding_back_by_itself() {
    let world = World::new();
    let _agent = three(&world).await;
    let wanted = world.control.state().wanted.clone();
    forget(&world);
    world.control.state().epoch = epoch(2);
    world.control.until("held", |state| state.is_held()).await;
    world.control.die();
    {
        let mut state = world.control.state();
        state.epoch = epoch(1);
        state.wanted = wanted;
    }
    world.control.serve();
    world
        .control
        .until("followed", |state| !state.is_held())
        .await;
    assert_eq!(world.machine.running(), all());
}

#[tokio::test(start_paused = true)]
async fn a_lost_ledger_and_an_empty_intent_stop_nothing() {
    let world = World::new();
    let agent = three(&world).await;
    agent.stop().await;
    std::fs::remove_dir_all(world.dir.path().join("agent")).unwrap();
    {
        let mut state = world.control.state();
        state.wanted.clear();
        state.observed.clear();
    }
    let _again = world.start().await;
    world.control.until("held", |state| state.is_held()).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), all());
    world
        .control
        .order(1, CommandKind::AcceptIntent { epoch: epoch(1) });
    world
        .control
        .until("all gone", |state| {
            all().iter().all(|unit| state.gone.contains(unit))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_answers_late_does_not_slip_past_the_guard() {
    let world = World::new();
    let agent = three(&world).await;
    agent.stop().await;
    std::fs::remove_dir_all(world.dir.path().join("agent")).unwrap();
    world.machine.set_down(Some("asleep"));
    {
        let mut state = world.control.state();
        state.wanted.clear();
        state.observed.clear();
    }
    let _again = world.start().await;
    world
        .control
        .until("judged", |state| state.applied.len() >= 2)
        .await;
    assert!(!world.control.state().is_held(), "nothing is known to run");
    world.machine.set_down(None);
    world.control.until("held", |state| state.is_held()).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), all());
}

#[tokio::test(start_paused = true)]
async fn stops_by_name_are_never_held_back() {
    let world = World::new();
    let _agent = three(&world).await;
    for unit in all() {
        world.control.stop(unit, "stopped");
    }
    world
        .control
        .until("all gone", |state| {
            all().iter().all(|unit| state.gone.contains(unit))
        })
        .await;
    assert!(!world.control.state().is_held());
}

#[tokio::test(start_paused = true)]
async fn a_single_stray_among_many_is_removed() {
    let world = World::new();
    let _agent = three(&world).await;
    world.control.die();
    world.control.state().wanted.remove(&unit(3, 1).assignment);
    world.control.serve();
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(3, 1)))
        .await;
    assert!(!world.control.state().is_held());
    assert_eq!(world.machine.running(), [unit(1, 1), unit(2, 1)]);
}

/// A run of the control plane begins over a store that knows these units, at that revision, in the same life.
fn reopen(world: &World, (run, revision): (u64, u64), known: &[hostler_model::UnitId]) {
    world.control.die();
    {
        let mut state = world.control.state();
        state.run = (run, revision);
        state.revision = revision;
        state.wanted.clear();
        state.observed.clear();
        state.held = None;
        for unit in known {
            state.want(*unit, &serve("web"));
        }
    }
    world.control.serve();
}

/// Three units, told by a run that began at revision 10 and has come to 60.
async fn three_at_60(world: &World) -> Running {
    {
        let mut state = world.control.state();
        state.run = (1, 10);
        state.revision = 60;
    }
    three(world).await
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_of_the_store_that_omits_less_than_half_stops_nothing_until_accepted() {
    let world = World::new();
    let agent = three_at_60(&world).await;
    let known = [unit(1, 1), unit(2, 1)];
    reopen(&world, (2, 59), &known);
    world.control.until("held", |state| state.is_held()).await;
    let reason = world.control.state().held.clone().unwrap().reason;
    assert!(reason.contains("restored from an older copy"), "{reason}");
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), all());

    // The copy goes on past what was seen, and neither that nor a new agent makes it the right one.
    agent.stop().await;
    reopen(&world, (3, 90), &known);
    let _again = world.start().await;
    world.control.until("held", |state| state.is_held()).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.machine.running(), all());

    world
        .control
        .order(1, CommandKind::AcceptIntent { epoch: epoch(1) });
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(3, 1)))
        .await;
    assert!(!world.control.state().is_held());
    assert_eq!(world.machine.running(), known);
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_that_was_accepted_is_the_store_from_then_on() {
    let world = World::new();
    let agent = three_at_60(&world).await;
    reopen(&world, (2, 20), &[unit(1, 1), unit(2, 1)]);
    world.control.until("held", |state| state.is_held()).await;
    world
        .control
        .order(1, CommandKind::AcceptIntent { epoch: epoch(1) });
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(3, 1)))
        .await;
    agent.stop().await;
    // Below what was seen before, and no older than what was accepted.
    reopen(&world, (3, 21), &[unit(1, 1)]);
    let _again = world.start().await;
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(2, 1)))
        .await;
    assert!(!world.control.state().is_held());
}

#[tokio::test(start_paused = true)]
async fn the_right_store_ends_the_doubt_and_what_the_older_copy_began() {
    let world = World::new();
    let _agent = three_at_60(&world).await;
    reopen(&world, (2, 59), &[unit(1, 1), unit(2, 1), unit(9, 1)]);
    world.control.until("held", |state| state.is_held()).await;
    world.control.until_shown(unit(9, 1), "running").await;
    assert_eq!(world.machine.running().len(), 4);
    reopen(&world, (3, 61), &all());
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(9, 1)))
        .await;
    assert!(!world.control.state().is_held());
    assert_eq!(world.machine.running(), all());
    // The doubt is over: a single omission is followed again.
    reopen(&world, (4, 62), &[unit(1, 1), unit(2, 1)]);
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(3, 1)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_with_the_same_run_is_no_older_copy_nor_is_a_run_that_tells_nothing() {
    let world = World::new();
    let agent = three_at_60(&world).await;
    reopen(&world, (1, 10), &all());
    world.control.state().revision = 70;
    world
        .control
        .until("followed", |state| state.applied.len() >= 2)
        .await;
    assert!(!world.control.state().is_held());
    agent.stop().await;
    reopen(&world, (0, 0), &[unit(1, 1), unit(2, 1)]);
    let _again = world.start().await;
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(3, 1)))
        .await;
    assert!(!world.control.state().is_held());
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_was_ordered_before_a_restore_is_carried_out() {
    let world = World::new();
    let _agent = three(&world).await;
    let mut spec = program("web", "stubborn", RestartPolicy::Always);
    spec.stop.grace_ms = 60_000;
    world.control.run(unit(4, 1), &spec);
    world.control.until_shown(unit(4, 1), "running").await;
    world.control.stop(unit(4, 1), "drained");
    world.control.until_shown(unit(4, 1), "stopping").await;
    forget(&world);
    world.control.state().epoch = epoch(2);
    world.control.until("held", |state| state.is_held()).await;
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(world.machine.running(), all());
}

#[tokio::test(start_paused = true)]
async fn what_has_finished_is_kept_through_a_restore() {
    let world = World::new();
    let _agent = three(&world).await;
    let once = program("once", "exit 3", RestartPolicy::No);
    world.control.run(unit(4, 1), &once);
    world.control.until_shown(unit(4, 1), "finished").await;
    forget(&world);
    world.control.state().epoch = epoch(2);
    world.control.until("held", |state| state.is_held()).await;
    world.pass(Duration::from_secs(600)).await;
    world.control.until_shown(unit(4, 1), "finished").await;
    assert_eq!(world.control.state().runs(unit(4, 1)), 1);
    assert_eq!(world.machine.running(), all());
}

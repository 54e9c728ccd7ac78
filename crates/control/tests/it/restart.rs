//! A control plane that ends and comes back: over the store in memory, and over files.

use std::sync::Arc;
use std::time::Duration;

use hostler_control::fleet::State;
use hostler_control::{Control, ControlConfig, Parts, StartError};
use hostler_kit::{SystemClock, SystemEntropy, Tasks};
use hostler_model::NodeState;
use hostler_store::{SqliteStore, Store, Write};

use crate::world::{World, apply, beat_for, copies, join, spec, state_of, stop, until};

#[tokio::test(start_paused = true)]
async fn after_a_restart_every_node_has_a_full_window_and_work_goes_on() {
    let world = World::new(1);
    let control = world.start().await;
    let mut nodes = [join(&control, "one").await, join(&control, "two").await];
    let web = apply(&control, spec("web", 2, 100)).await.unwrap();
    until(&control, "placed", |view| view.pending_copies(web) == 0).await;
    let before = copies(&control, web);
    stop(control).await;

    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let control = world.start().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        nodes
            .iter()
            .all(|node| state_of(&control, node.id()) != NodeState::Lost)
    );
    for node in &mut nodes {
        node.reconnect(&control).await.unwrap();
    }
    let [one, two] = &nodes;
    beat_for(&[one, two], 60).await;
    assert!(
        nodes
            .iter()
            .all(|node| state_of(&control, node.id()) == NodeState::Ready)
    );
    assert_eq!(copies(&control, web), before, "no copy was touched");
    assert!(nodes.iter().all(|node| node.units().len() == 1));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_run_begins_at_or_above_every_revision_that_was_shown() {
    let world = World::new(1);
    let control = world.start().await;
    let first = control.server_run();
    let begun = control.store_revision();
    assert!(begun > first.store_revision, "founding is a commit");
    apply(&control, spec("web", 2, 100)).await.unwrap();
    let shown = control.store_revision();
    assert!(shown > begun);
    assert_eq!(control.server_run(), first);
    control.crash();
    let control = world.start().await;
    let second = control.server_run();
    assert!(second.store_revision >= shown && second.id != first.id && second.id != 0);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_come_back_after_a_restart_is_lost() {
    let world = World::new(2);
    let control = world.start().await;
    let node = join(&control, "one").await;
    control.crash();
    let control = world.start().await;
    assert_eq!(state_of(&control, node.id()), NodeState::Ready);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(state_of(&control, node.id()), NodeState::Lost);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn events_and_ids_go_on_where_they_were() {
    let world = World::new(3);
    let control = world.start().await;
    let (fleet, epoch) = (control.fleet_id(), control.store_epoch());
    apply(&control, spec("web", 1, 100)).await.unwrap();
    let (told, _) = control.events(None, 100);
    stop(control).await;
    let control = world.start().await;
    assert_eq!((control.fleet_id(), control.store_epoch()), (fleet, epoch));
    assert_eq!(control.events(None, 100).0, told);
    apply(&control, spec("other", 1, 100)).await.unwrap();
    let newest = control.events(None, 1).0[0].sequence;
    assert_eq!(newest, told.last().unwrap().sequence + 1);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn the_epoch_changes_when_asked_for_and_only_then() {
    let world = World::new(4);
    let control = world.start().await;
    let (fleet, epoch) = (control.fleet_id(), control.store_epoch());
    stop(control).await;
    let config = ControlConfig {
        new_epoch: true,
        ..ControlConfig::default()
    };
    let control = Control::start(config, world.parts()).await.unwrap();
    assert_eq!(control.fleet_id(), fleet);
    let restored = control.store_epoch();
    assert_ne!(restored, epoch);
    stop(control).await;
    let control = world.start().await;
    assert_eq!(control.store_epoch(), restored);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn the_event_log_is_bounded_in_the_store_and_in_memory() {
    let world = World::new(5);
    let config = ControlConfig {
        event_capacity: 8,
        ..ControlConfig::default()
    };
    let control = Control::start(config.clone(), world.parts()).await.unwrap();
    for number in 0..20 {
        apply(&control, spec(&format!("web-{number}"), 1, 100))
            .await
            .unwrap();
    }
    let (told, oldest) = control.events(None, 100);
    assert_eq!(told.len(), 8);
    assert_eq!(told[0].sequence, oldest);
    stop(control).await;
    let listing = world
        .store
        .list("events/", hostler_store::Page::default())
        .await
        .unwrap();
    assert_eq!(listing.entries.len(), 8);
    let control = Control::start(config, world.parts()).await.unwrap();
    assert_eq!(control.events(None, 100).0, told);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_named_and_nothing_starts() {
    let world = World::new(6);
    stop(world.start().await).await;
    let put = Write::Put {
        key: "nodes/strange".to_owned(),
        value: b"{}".to_vec().into(),
    };
    world.store.commit(vec![put], Vec::new()).await.unwrap();
    let refused = Control::start(ControlConfig::default(), world.parts()).await;
    match refused.err().unwrap() {
        StartError::Record { key, .. } => assert_eq!(key, "nodes/strange"),
        error => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_server_waits_for_the_lease_and_gives_up_while_it_is_held() {
    let world = World::new(7);
    let control = world.start().await;
    let refused = Control::start(ControlConfig::default(), world.parts()).await;
    assert!(matches!(refused.err().unwrap(), StartError::Led));
    control.crash();
    let control = world.start().await;
    assert!(control.is_leading());
    stop(control).await;
}

fn parts_on_disk(directory: &tempfile::TempDir) -> Parts {
    let clock = Arc::new(SystemClock::new());
    let store = SqliteStore::open(directory.path(), clock.clone()).unwrap();
    Parts {
        store: Arc::new(store),
        clock,
        entropy: Arc::new(SystemEntropy),
        tasks: Tasks::new(),
    }
}

#[tokio::test]
async fn a_fleet_on_disk_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Control::start(ControlConfig::default(), parts_on_disk(&directory));
    let before = {
        let control = start().await.unwrap();
        let node = join(&control, "one").await;
        let web = apply(&control, spec("web", 40, 10)).await.unwrap();
        until(&control, "placed", |view| view.pending_copies(web) == 0).await;
        let before = control.view().clone();
        drop(node);
        stop(control).await;
        before
    };
    let control = start().await.unwrap();
    let after = control.view().clone();
    assert_eq!(after.fleet(), before.fleet());
    let copies = |state: &State| state.assignments().cloned().collect::<Vec<_>>();
    assert_eq!(copies(&after), copies(&before));
    let node = join(&control, "one").await;
    assert_eq!(
        before.node(node.id()).unwrap().name,
        "one",
        "the same identity is the same node"
    );
    drop(node);
    stop(control).await;
}

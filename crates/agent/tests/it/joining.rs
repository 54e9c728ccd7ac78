//! Joining, staying, and coming back.

use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_model::{Bytes, MilliCpu, Resources};
use hostler_wire::session::v1::Refused;

use crate::control::{BEAT, LEASE, unit};
use crate::network::Weather;
use crate::node::{World, serve};

#[tokio::test(start_paused = true)]
async fn a_new_node_joins_and_runs_what_it_is_told() {
    let world = World::new();
    world.control.state().want(unit(1, 1), &serve("web"));
    let agent = world.start().await;
    world.control.until_shown(unit(1, 1), "running").await;
    agent
        .until(|status| matches!(status, AgentStatus::Joined { .. }))
        .await;
    assert_eq!(world.machine.running(), [unit(1, 1)]);
    world
        .control
        .until("on disk", |state| !state.applied.is_empty())
        .await;
    world.control.run(unit(2, 1), &serve("db"));
    world.control.until_shown(unit(2, 1), "running").await;
}

#[tokio::test(start_paused = true)]
async fn the_hello_says_who_what_and_where_it_stopped() {
    let world = World::new();
    let agent = world
        .try_start(|config| {
            config.labels.insert("zone".to_owned(), "eu-1".to_owned());
            config.reserved = Resources {
                cpu: MilliCpu(500),
                memory: Bytes(1 << 30),
                disk: Bytes(0),
            };
        })
        .await
        .unwrap();
    world.control.until("a beat", |state| state.beats > 0).await;
    agent.stop().await;
    let _again = world.start().await;
    world
        .control
        .until("a second hello", |state| state.hellos.len() == 2)
        .await;

    let state = world.control.state();
    assert_eq!(state.leaves, 1, "it said that it stops");
    let (first, second) = (&state.hellos[0], &state.hellos[1]);
    assert_eq!(
        (first.name.as_str(), first.labels["zone"].as_str()),
        ("host", "eu-1")
    );
    let capacity = first.capacity.unwrap();
    assert_eq!((capacity.milli_cpu, capacity.memory_bytes), (3500, 7 << 30));
    assert_eq!(first.facts.as_ref().unwrap().boot_id, "boot-1");
    assert_eq!(first.facts.as_ref().unwrap().runtimes.len(), 2);
    assert!(first.resume.is_none());
    let resume = second.resume.as_ref().unwrap();
    assert_eq!(resume.fleet_id, state.fleet.to_string());
    assert_eq!(resume.store_epoch, state.epoch.to_string());
    assert_eq!(first.identity, second.identity);
}

#[tokio::test(start_paused = true)]
async fn beats_count_up_and_carry_usage_and_the_digest() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    let before = world.control.state().last_beat.clone();
    world
        .control
        .until("more beats", |state| state.beats > 5)
        .await;
    let state = world.control.state();
    assert_eq!(state.last_beat.sequence, state.beats);
    assert!((state.last_beat.usage.as_ref().unwrap().cpu_percent - 12.5).abs() < 0.1);
    assert_ne!(state.last_beat.observed_digest, before.observed_digest);
}

#[tokio::test(start_paused = true)]
async fn asked_again_it_sends_everything_in_full() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.state().observed.clear();
    world.control.ask_again();
    world
        .control
        .until("a full set", |state| state.full_sets == 2)
        .await;
    assert!(world.control.state().shows(unit(1, 1), "running"));
}

#[tokio::test(start_paused = true)]
async fn sets_larger_than_a_message_go_in_parts_both_ways() {
    let world = World::new();
    {
        let mut state = world.control.state();
        state.items_per_part = 7;
        for n in 0..700 {
            state.want(unit(n, 1), &serve("web"));
        }
    }
    let agent = world.start().await;
    let all_run =
        |state: &crate::control::State| (0..700).all(|n| state.shows(unit(n, 1), "running"));
    world.control.until("all run", all_run).await;
    agent.stop().await;
    {
        let mut state = world.control.state();
        state.observed.clear();
        state.parts = 0;
    }
    let _again = world.start().await;
    world.control.until("all adopted", all_run).await;
    assert!(
        world.control.state().parts > 1,
        "{} parts",
        world.control.state().parts
    );
    assert!((0..700).all(|n| world.control.state().runs(unit(n, 1)) == 1));
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_died_is_found_again_and_told_everything() {
    let world = World::new();
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.die();
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(world.machine.running(), [unit(1, 1)]);
    world.control.state().observed.clear();
    world.control.serve();
    world.control.until_shown(unit(1, 1), "running").await;
    assert_eq!(world.control.state().runs(unit(1, 1)), 1);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_answers_nothing_is_given_up_and_tried_again() {
    let world = World::new();
    world.control.state().is_mute = true;
    let agent = world.start().await;
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    assert!(
        agent
            .agent
            .status()
            .borrow()
            .to_string()
            .contains("no welcome")
    );
    world.control.state().is_mute = false;
    agent
        .until(|status| matches!(status, AgentStatus::Joined { .. }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_swallows_everything_is_noticed_within_a_lease() {
    let world = World::new();
    let agent = world.start().await;
    agent
        .until(|status| matches!(status, AgentStatus::Joined { .. }))
        .await;
    world.control.until("a beat", |state| state.beats > 2).await;
    world.network.set(Weather::Silent);
    let noticed = agent.until(|status| matches!(status, AgentStatus::Connecting { .. }));
    tokio::time::timeout((LEASE + BEAT) * 3, noticed)
        .await
        .unwrap();
    world.network.set(Weather::Fair);
    agent
        .until(|status| matches!(status, AgentStatus::Joined { .. }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_beats_are_not_answered_is_opened_again() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    world.control.state().answers_beats = false;
    world
        .control
        .until("another hello", |state| state.hellos.len() > 1)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_opens_its_session_again_at_once() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    *world.body.asleep.lock().unwrap() = Duration::from_secs(3600);
    world
        .control
        .until("another hello", |state| state.hellos.len() == 2)
        .await;
    world
        .control
        .until("more beats", |state| state.beats > 5)
        .await;
    assert_eq!(world.control.state().hellos.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_node_says_so_keeps_its_work_and_asks_slowly() {
    let world = World::new();
    let agent = world.start().await;
    world.control.run(unit(1, 1), &serve("web"));
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.state().refusal = Some(Refused {
        code: "node-gone".to_owned(),
        sentence: "the node was removed".to_owned(),
        advice: "join with a new data directory".to_owned(),
    });
    world.control.die();
    world.control.serve();
    agent
        .until(|status| matches!(status, AgentStatus::Refused { code, .. } if code == "node-gone"))
        .await;
    let dials = world.network.dials();
    world.pass(Duration::from_secs(300)).await;
    assert!(
        world.network.dials() - dials <= 10,
        "{}",
        world.network.dials() - dials
    );
    assert_eq!(world.machine.running(), [unit(1, 1)]);
    world.control.state().refusal = None;
    agent
        .until(|status| matches!(status, AgentStatus::Joined { .. }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_is_refused_with_its_form() {
    let world = World::new();
    let refused = world
        .try_start(|config| config.server = "fleet.example".to_owned())
        .await;
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("http://host:port"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_real_time_with_a_ledger_written_on_threads_it_does_the_same() {
    let world = World::new();
    let threads = |config: &mut hostler_agent::AgentConfig| {
        config.ledger_io = hostler_agent::LedgerIo::Threads;
    };
    let agent = world.try_start(threads).await.unwrap();
    for n in 1..=20 {
        world.control.run(unit(n, 1), &serve("web"));
    }
    let all = |state: &crate::control::State| (1..=20).all(|n| state.shows(unit(n, 1), "running"));
    world.control.until("all run", all).await;
    world.control.stop(unit(1, 1), "stopped");
    world
        .control
        .until("gone", |state| state.gone.contains(&unit(1, 1)))
        .await;
    world
        .control
        .until("forgotten", |state| state.wanted.len() == 19)
        .await;
    world.control.run(unit(2, 2), &serve("web"));
    world
        .control
        .until("on disk", |state| state.applied.contains(&state.version))
        .await;
    agent.stop().await;

    let kept = std::fs::read_dir(world.dir.path().join("agent/intent"))
        .unwrap()
        .count();
    assert_eq!(kept, 19);
    let again = world.try_start(threads).await.unwrap();
    world.control.until_shown(unit(2, 2), "running").await;
    again.stop().await;
}

#[tokio::test]
async fn the_real_way_out_is_tcp() {
    use hostler_agent::{Dial as _, TcpDial};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (dialled, accepted) = tokio::join!(TcpDial.dial("127.0.0.1", port), listener.accept());
    accepted.unwrap().0.write_all(b"hello").await.unwrap();
    let mut read = [0; 5];
    dialled.unwrap().read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    drop(listener);
    assert!(TcpDial.dial("127.0.0.1", port).await.is_err());
}

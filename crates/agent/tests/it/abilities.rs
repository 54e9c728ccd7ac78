//! What the drivers of a node can do, told when it is known and when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_model::spec::Kind;
use hostler_wire::session::v1;

use crate::control::{State, unit};
use crate::node::{World, serve};

/// What the control plane knows: the kinds that were told last, and whether they can be run.
fn known(state: &State) -> BTreeMap<String, bool> {
    let of_hello = state.hellos.last().and_then(|hello| hello.facts.as_ref());
    let told = state.facts.last().or(of_hello);
    let runtimes = told.map(|facts| facts.runtimes.as_slice());
    let pair = |fact: &v1::RuntimeFact| (fact.kind.clone(), fact.available);
    runtimes.unwrap_or_default().iter().map(pair).collect()
}

fn is_known(kinds: &[(&str, bool)]) -> impl Fn(&State) -> bool {
    let kinds: BTreeMap<_, _> = kinds
        .iter()
        .map(|(kind, is)| ((*kind).to_owned(), *is))
        .collect();
    move |state| known(state) == kinds
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_never_says_what_it_can_do_keeps_nobody_waiting() {
    let world = World::new();
    world.machine.set_mute(Kind::Container, true);
    world.control.state().want(unit(1, 1), &serve("web"));
    let agent = world.start().await;
    let joined = agent.until(|status| matches!(status, AgentStatus::Joined { .. }));
    tokio::time::timeout(Duration::from_secs(1), joined)
        .await
        .unwrap();
    assert_eq!(
        known(&world.control.state()),
        BTreeMap::from([("process".to_owned(), true)])
    );
    world.control.until_shown(unit(1, 1), "running").await;
    world
        .control
        .until(
            "given up",
            is_known(&[("container", false), ("process", true)]),
        )
        .await;
    let note = {
        let state = world.control.state();
        let facts = state.facts.last().unwrap();
        facts
            .runtimes
            .iter()
            .find(|it| it.kind == "container")
            .unwrap()
            .note
            .clone()
    };
    assert_eq!(note, "no answer within 30 s");
    assert_eq!(world.control.state().hellos.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_driver_says_follows_in_the_session_and_is_in_the_next_hello() {
    let world = World::new();
    world.machine.set_mute(Kind::Container, true);
    let agent = world.start().await;
    agent
        .until(|status| matches!(status, AgentStatus::Joined { .. }))
        .await;
    world.machine.set_mute(Kind::Container, false);
    let both = [("container", true), ("process", true)];
    world.control.until("told", is_known(&both)).await;
    assert_eq!(world.control.state().hellos.len(), 1);

    world.control.die();
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    world.control.state().facts.clear();
    world.control.serve();
    world
        .control
        .until("another hello", |state| state.hellos.len() == 2)
        .await;
    assert!(is_known(&both)(&world.control.state()));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_goes_and_comes_is_told_each_time_and_nothing_in_between() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    for (times, down) in [
        (1, Some("stopped")),
        (2, None),
        (3, Some("stopped")),
        (4, None),
    ] {
        world.machine.set_down(down);
        let works = down.is_none();
        world
            .control
            .until(
                "told",
                is_known(&[("container", works), ("process", works)]),
            )
            .await;
        world.pass(Duration::from_secs(3600)).await;
        // Both drivers are told of: in one message, or in two.
        let told = world.control.state().facts.len();
        assert!((times..=2 * times).contains(&told), "{told}");
    }
    assert_eq!(world.control.state().hellos.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_installed_later_is_noticed_although_the_engine_was_there() {
    let world = World::new();
    world
        .machine
        .set_lack(Kind::Container, Some("there is no program"));
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    assert!(is_known(&[("container", false), ("process", true)])(
        &world.control.state()
    ));
    world.machine.set_lack(Kind::Container, None);
    world
        .control
        .until("told", is_known(&[("container", true), ("process", true)]))
        .await;
    assert_eq!(world.control.state().facts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_takes_no_facts_in_a_session_gets_another_hello() {
    let world = World::new();
    world.control.state().takes_facts = false;
    world.machine.set_mute(Kind::Container, true);
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    world.machine.set_mute(Kind::Container, false);
    world
        .control
        .until(
            "another hello",
            is_known(&[("container", true), ("process", true)]),
        )
        .await;
    let state = world.control.state();
    assert!(state.facts.is_empty() && state.hellos.len() == 2);
}

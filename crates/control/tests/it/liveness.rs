//! Who is believed alive, and what follows when somebody is not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hostler_control::fake::{FakeMachine, FakeNode};
use hostler_control::{BeatVerdict, Control, Link, LogRecord, LogRequest, Marks};
use hostler_model::spec::DisconnectPolicy;
use hostler_model::{
    Bytes, Code, Contract, Event, EventKind, Exit, Intent, NodeState, Pressure, Refusal, StopCause,
    UnitId, UnitUsage, Usage,
};

use crate::world::{World, apply, beat_for, copies, join, spec, state_of, stop, until};

struct NoLink;

#[async_trait]
impl Link for NoLink {
    fn wake(&self) {}

    async fn logs(
        &self,
        _unit: UnitId,
        _query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        Err(Refusal::new(Code::NodeUnreachable, "no link", ""))
    }
}

fn is(control: &Control, node: &FakeNode, state: NodeState) -> bool {
    state_of(control, node.id()) == state
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_lost_and_its_copy_replaced_and_the_older_one_told_to_stop() {
    let world = World::new(1);
    let control = world.start().await;
    let first = join(&control, "first").await;
    let web = apply(&control, spec("web", 1, 100)).await.unwrap();
    until(&control, "placed", |view| view.pending_copies(web) == 0).await;
    let second = join(&control, "second").await;
    beat_for(&[&first, &second], 40).await;
    let old = copies(&control, web)[0].clone();
    assert_eq!(old.node, first.id());

    first.freeze(true);
    beat_for(&[&second], 7).await;
    assert!(
        is(&control, &first, NodeState::Lost),
        "a clean link is judged within six seconds"
    );
    let placed = copies(&control, web);
    let new = placed.iter().find(|copy| copy.is_wanted()).unwrap();
    assert_eq!(new.node, second.id());
    assert!(new.generation > old.generation);
    let stopping = placed.iter().find(|copy| copy.id == old.id).unwrap();
    assert_eq!(
        stopping.intent,
        Intent::Stop {
            cause: StopCause::Replaced
        }
    );

    first.beat();
    beat_for(&[&first, &second], 2).await;
    assert!(is(&control, &first, NodeState::Ready), "it beats again");
    assert_eq!(first.units().len(), 1, "it still runs the old copy");
    first.freeze(false);
    until(&control, "the old copy is gone", |view| {
        view.assignments_of(web).count() == 1
    })
    .await;
    assert!(first.units().is_empty());
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_suspected_at_once_and_not_lost() {
    let world = World::new(2);
    let control = world.start().await;
    let mut node = join(&control, "one").await;
    node.disconnect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(is(&control, &node, NodeState::Suspect));
    assert!(!control.live(node.id()).unwrap().is_connected);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        is(&control, &node, NodeState::Suspect),
        "silence, not a broken line, makes it lost"
    );
    node.reconnect(&control).await.unwrap();
    assert!(is(&control, &node, NodeState::Ready));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_closed_in_order_leaves_the_lease_alone() {
    let world = World::new(3);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let session = control
        .attach(node.id(), "boot 1 of one", Arc::new(NoLink))
        .unwrap();
    session.close();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(is(&control, &node, NodeState::Ready));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_or_repeated_beat_is_ignored() {
    let world = World::new(4);
    let control = world.start().await;
    let node = join(&control, "one").await;
    assert_eq!(node.beat_numbered(5), Some(BeatVerdict::Accepted));
    let told = control.live(node.id()).unwrap().beats;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in [5, 4, 0] {
        assert_eq!(node.beat_numbered(number), Some(BeatVerdict::Stale));
    }
    let live = control.live(node.id()).unwrap();
    assert_eq!(live.beats, told);
    assert!(live.last_beat_age >= Duration::from_secs(1));
    assert_eq!(control.metrics().beats_stale, 3);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_takes_over_and_the_older_one_counts_for_nothing() {
    let world = World::new(5);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let older = node.attachment().unwrap();
    let closed = older.closed();
    let newer = control
        .attach(node.id(), "boot 1 of one", Arc::new(NoLink))
        .unwrap();
    closed.await;
    assert_eq!(older.beat(99, Usage::default(), 0), BeatVerdict::Stale);
    assert_eq!(
        older.observed_delta(Vec::new()).await.unwrap_err().code,
        Code::StaleReport
    );
    assert_eq!(newer.beat(1, Usage::default(), 0), BeatVerdict::Accepted);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn another_machine_with_the_same_identity_is_refused_while_the_first_is_alive() {
    let world = World::new(6);
    let control = world.start().await;
    let node = join(&control, "one").await;
    node.beat();
    let attach = || control.attach(node.id(), "boot of a clone", Arc::new(NoLink));
    let refused = attach().err().unwrap();
    assert_eq!(refused.code, Code::NodeIdentityInUse);
    let told = "boot 1 of one";
    let other = |own: &'static str| Marks { boot_id: told, own };
    let ours = control.attach(node.id(), other("board of one"), Arc::new(NoLink));
    let ours = ours.unwrap();
    // A copy that was made with the memory has the same boot id, and another board.
    let copy = control.attach(node.id(), other("board of another"), Arc::new(NoLink));
    assert_eq!(copy.err().unwrap().code, Code::NodeIdentityInUse);
    let asked = (other("board of another"), "one");
    let refused = control.refuse_while_in_use(node.id(), asked).unwrap_err();
    assert_eq!(refused.code, Code::NodeIdentityInUse);
    assert_eq!(ours.beat(1, Usage::default(), 0), BeatVerdict::Accepted);
    drop(ours);
    node.disconnect();
    let come = |boot_id: &'static str, own: &'static str| {
        let marks = Marks { boot_id, own };
        let attached = control.attach(node.id(), marks, Arc::new(NoLink));
        attached.map(drop).map_err(|refusal| refusal.code)
    };
    let copy = || come("boot of a clone", "board of another");
    assert_eq!(copy(), Err(Code::NodeIdentityInUse), "it may be back");
    assert_eq!(come("boot 2 of one", "board of one"), Ok(()), "a reboot");
    assert_eq!(copy(), Err(Code::NodeIdentityInUse));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(copy(), Ok(()), "the lease is over");
    assert!(attach().is_ok(), "a machine that was rebooted comes back");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_server_a_copy_that_comes_first_is_none_the_better_for_it() {
    let world = World::new(13);
    let control = world.start().await;
    let machine = FakeMachine {
        mark: "board of one".to_owned(),
        ..FakeMachine::named("one")
    };
    let mut node = FakeNode::join(&control, machine).await.unwrap();
    let id = node.id();
    beat_for(&[&node], 3).await;
    let mark = |control: &Control| control.view().node(id).unwrap().machine.clone();
    assert_eq!(mark(&control), Some("board of one".to_owned()));
    stop(control).await;

    let control = world.start().await;
    assert_eq!(mark(&control), Some("board of one".to_owned()));
    let asks = |control: &Control, boot_id: &'static str, own: &'static str| {
        let asked = control.refuse_while_in_use(id, (Marks { boot_id, own }, "one"));
        asked.map_err(|refusal| refusal.code)
    };
    let copy = |control: &Control| asks(control, "boot of a copy", "board of another");
    assert_eq!(copy(&control), Err(Code::NodeIdentityInUse), "it is first");
    assert_eq!(asks(&control, "boot 2 of one", "board of one"), Ok(()));
    assert_eq!(
        asks(&control, "boot of a copy", ""),
        Ok(()),
        "nothing proves it"
    );
    node.reconnect(&control).await.unwrap();
    beat_for(&[&node], 3).await;
    assert_eq!(copy(&control), Err(Code::NodeIdentityInUse));
    node.disconnect();
    stop(control).await;

    // The former machine is gone for good: its place is free once its lease is over, and not before.
    let control = world.start().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(copy(&control), Err(Code::NodeIdentityInUse), "it has time");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(copy(&control), Ok(()));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_looks_the_same_takes_over_unless_the_session_that_stands_beats_on() {
    let world = World::new(14);
    let control = world.start().await;
    let mut node = join(&control, "one").await;
    let id = node.id();
    let asks = || async {
        let begun = tokio::time::Instant::now();
        let asked = control.refuse_double(id).await;
        let asked = asked.map(drop).map_err(|refusal| refusal.code);
        (asked, begun.elapsed())
    };
    let beats_on = || async { beat_for(&[&node], 10).await };
    let (refused, ()) = tokio::join!(asks(), beats_on());
    assert_eq!(refused.0, Err(Code::NodeIdentityInUse));
    let doubled = || {
        let (told, _) = control.events(None, 1_000);
        told.iter()
            .filter(|it| it.kind == EventKind::NodeDoubled)
            .count()
    };
    assert_eq!(doubled(), 1);
    let (refused, ()) = tokio::join!(asks(), beats_on());
    assert_eq!(refused.0, Err(Code::NodeIdentityInUse));
    assert_eq!(doubled(), 1, "each attempt is no event");
    // One beat was on its way when the agent left the session.
    let one_beat = async { node.beat() };
    let ((taken, after), _) = tokio::join!(asks(), one_beat);
    assert_eq!(taken, Ok(()));
    assert!(after >= Duration::from_secs(2), "{after:?}");
    beat_for(&[&node], 3).await;
    let leaves = async { node.disconnect() };
    let ((taken, after), ()) = tokio::join!(asks(), leaves);
    assert_eq!(taken, Ok(()));
    assert!(
        after < Duration::from_secs(1),
        "it was seen at once: {after:?}"
    );
    node.reconnect(&control).await.unwrap();
    assert!(is(&control, &node, NodeState::Ready));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_looks_the_same_takes_over_before_the_lease_of_a_silent_session_runs_out() {
    let world = World::new(15);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let id = node.id();
    // Each of them takes a second, and so the last beat was one before.
    beat_for(&[&node], 20).await;
    tokio::time::sleep(Duration::from_millis(1_450)).await;
    let begun = tokio::time::Instant::now();
    let judged = control.refuse_double(id).await.unwrap();
    let after = begun.elapsed();
    assert!(
        after < Duration::from_millis(300),
        "silent for 2.5 s in all: {after:?}"
    );
    let marks = Marks::from("boot 1 of one");
    let newer = control.take_over(id, (marks, judged), Arc::new(NoLink));
    let newer = newer.unwrap();
    newer.observed_full(Vec::new()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(is(&control, &node, NodeState::Ready));
    let lost = |event: &Arc<Event>| event.kind == EventKind::NodeLost;
    assert!(!control.events(None, 1_000).0.iter().any(lost));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_machines_that_wait_for_one_session_to_end_one_gets_in() {
    let world = World::new(16);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let id = node.id();
    beat_for(&[&node], 20).await;
    let come = |judged| {
        let marks = Marks::from("boot 1 of one");
        control.take_over(id, (marks, judged), Arc::new(NoLink))
    };
    let (first, second) = tokio::join!(control.refuse_double(id), control.refuse_double(id));
    let (first, second) = (first.unwrap(), second.unwrap());
    let stands = come(first).unwrap();
    let code = come(second).err().unwrap().code;
    assert_eq!(code, Code::NodeIdentityInUse, "that session was not judged");
    assert_eq!(stands.beat(1, Usage::default(), 0), BeatVerdict::Accepted);

    // One that waits when another takes over waits for that one.
    let takes_over = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let other = control.attach(id, "boot 1 of one", Arc::new(NoLink));
        let other = other.unwrap();
        for sequence in 1..=8 {
            other.beat(sequence, Usage::default(), 0);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (refused, ()) = tokio::join!(control.refuse_double(id), takes_over);
    assert_eq!(refused.unwrap_err().code, Code::NodeIdentityInUse);
    drop(stands);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn beats_that_were_held_up_and_read_in_one_go_prove_nothing() {
    let world = World::new(17);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let id = node.id();
    beat_for(&[&node], 20).await;
    let in_one_go = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            node.beat();
        }
    };
    let (taken, ()) = tokio::join!(control.refuse_double(id), in_one_go);
    assert!(taken.is_ok(), "{taken:?}");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_differs_is_asked_for_in_full() {
    let world = World::new(7);
    let control = world.start().await;
    let node = join(&control, "one").await;
    let attachment = node.attachment().unwrap();
    assert_eq!(
        attachment.beat(1, Usage::default(), 0),
        BeatVerdict::Accepted
    );
    assert_eq!(
        attachment.beat(2, Usage::default(), 77),
        BeatVerdict::Resend
    );
    assert_eq!(
        control.live(node.id()).unwrap().beats,
        2,
        "the node is alive all the same"
    );
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_singleton_is_replaced_only_when_it_has_surely_stopped() {
    let world = World::new(8);
    let control = world.start().await;
    let first = join(&control, "first").await;
    let mut only = spec("only", 1, 100);
    only.disconnect.policy = DisconnectPolicy::Singleton;
    only.disconnect.stop_after_ms = 30_000;
    let only = apply(&control, only).await.unwrap();
    until(&control, "placed", |view| view.pending_copies(only) == 0).await;
    let second = join(&control, "second").await;
    beat_for(&[&first, &second], 40).await;

    beat_for(&[&second], 25).await;
    assert!(is(&control, &first, NodeState::Lost));
    assert!(
        copies(&control, only)
            .iter()
            .all(|copy| copy.node == first.id()),
        "too early"
    );
    beat_for(&[&second], 15).await;
    let wanted: Vec<_> = copies(&control, only)
        .into_iter()
        .filter(|copy| copy.is_wanted())
        .collect();
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].node, second.id());
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_polls_is_alive_by_its_polls() {
    let world = World::new(9);
    let control = world.start().await;
    let machine = FakeMachine {
        contract: Contract::Miaas,
        ..FakeMachine::named("polls")
    };
    let node = FakeNode::join(&control, machine).await.unwrap();
    let id = node.id();
    node.attachment().unwrap();
    node.disconnect();
    until(&control, "suspect", |view| {
        view.node(id).unwrap().state() == NodeState::Suspect
    })
    .await;
    control.poll_beat(id, Some(Usage::default())).await.unwrap();
    assert!(is(&control, &node, NodeState::Ready));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(
        is(&control, &node, NodeState::Ready),
        "its window is longer"
    );
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(is(&control, &node, NodeState::Lost));
    control.poll_beat(id, None).await.unwrap();
    assert!(is(&control, &node, NodeState::Ready));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_beat_of_a_linked_node_does_not_end_its_joining() {
    let world = World::new(11);
    let control = world.start().await;
    let machine = FakeMachine {
        contract: Contract::Persys,
        ..FakeMachine::named("linked")
    };
    let mut node = FakeNode::join(&control, machine).await.unwrap();
    let id = node.id();
    node.disconnect();
    until(&control, "suspect", |view| {
        view.node(id).unwrap().state() == NodeState::Suspect
    })
    .await;
    control.linked_beat(id, None).await.unwrap();
    assert!(is(&control, &node, NodeState::Ready), "it was heard");
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert!(is(&control, &node, NodeState::Lost));
    let announced = control.view().node(id).unwrap().clone();
    let hello = hostler_control::fleet::NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: control
            .view()
            .aliases_of(hostler_model::AliasOwner::Node(id))
            .next()
            .unwrap()
            .key
            .clone(),
        contract: Contract::Persys,
        name: announced.name.clone(),
        facts: announced.facts.clone(),
        capacity: announced.capacity,
        labels: announced.labels.clone(),
        instance: None,
    };
    let verb = hostler_control::fleet::Verb::Announce(Box::new(hello));
    control
        .submit(hostler_model::Actor::Node("linked".to_owned()), verb)
        .await
        .unwrap();
    control.linked_beat(id, None).await.unwrap();
    assert!(
        is(&control, &node, NodeState::Joining),
        "a beat says nothing of what is on it"
    );
    node.reconnect(&control).await.unwrap();
    assert!(is(&control, &node, NodeState::Ready));
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_held_up_or_whose_clock_jumped_loses_nobody() {
    let world = World::new(10);
    let control = world.start().await;
    let nodes = [join(&control, "one").await, join(&control, "two").await];
    let [one, two] = &nodes;
    beat_for(&[one, two], 30).await;
    for held_up in [4, 60, 600] {
        tokio::time::advance(Duration::from_secs(held_up)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            nodes
                .iter()
                .all(|node| !is(&control, node, NodeState::Lost)),
            "{held_up} s"
        );
        beat_for(&[one, two], 10).await;
        assert!(
            nodes
                .iter()
                .all(|node| is(&control, node, NodeState::Ready)),
            "{held_up} s"
        );
    }
    for jump in [3_600_000, -7_200_000] {
        world.clock.jump(jump);
        beat_for(&[one, two], 10).await;
    }
    assert!(
        nodes
            .iter()
            .all(|node| is(&control, node, NodeState::Ready))
    );
    let lost = |event: &Arc<Event>| event.kind == EventKind::NodeLost;
    assert!(!control.events(None, 1_000).0.iter().any(lost));
    assert!(
        control.is_leading(),
        "nobody wrote while the lease had run out"
    );
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn beats_too_rare_for_the_lease_are_noticed_and_written_nowhere() {
    let world = World::new(11);
    let control = world.start().await;
    let mut machine = FakeMachine::named("one");
    machine.contract = Contract::Orchion;
    let node = FakeNode::join(&control, machine).await.unwrap();
    let id = node.id();
    node.attachment().unwrap();
    node.disconnect();
    until(&control, "suspect", |view| {
        view.node(id).unwrap().state() == NodeState::Suspect
    })
    .await;
    control.poll_beat(id, None).await.unwrap();
    let written = control.store_revision();
    let mut seen = Vec::new();
    for every in [5, 5, 5, 15, 15, 15, 5] {
        tokio::time::sleep(Duration::from_secs(every)).await;
        control.poll_beat(id, None).await.unwrap();
        let live = control.live(id).unwrap();
        seen.push((
            live.spacing.map(|it| it.as_secs()),
            live.advised.map(|it| it.as_secs()),
        ));
    }
    let five = (Some(5), None);
    let rare = (Some(15), Some(10));
    assert_eq!(
        seen,
        [(None, None), (None, None), five, five, five, rare, five]
    );
    assert_eq!(control.store_revision(), written);
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_polling_agent_says_together_is_one_beat_for_its_lease() {
    let world = World::new(12);
    let control = world.start().await;
    let mut machine = FakeMachine::named("one");
    machine.contract = Contract::Orchion;
    let node = FakeNode::join(&control, machine).await.unwrap();
    let id = node.id();
    node.attachment().unwrap();
    node.disconnect();
    for round in 0..60 {
        control.poll_beat(id, None).await.unwrap();
        if round % 2 == 0 {
            control.poll_beat(id, None).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let live = control.live(id).unwrap();
    assert_eq!(live.window, Duration::from_secs(30));
    assert_eq!(
        (live.spacing, live.beats),
        (Some(Duration::from_secs(5)), 90)
    );
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn figures_of_a_unit_are_kept_while_it_runs_and_others_units_have_none() {
    let world = World::new(1);
    let control = world.start().await;
    let (first, second) = (
        join(&control, "first").await,
        join(&control, "second").await,
    );
    let web = apply(&control, spec("web", 1, 100)).await.unwrap();
    until(&control, "placed", |view| view.pending_copies(web) == 0).await;
    let copy = copies(&control, web)[0].clone();
    let (owner, other) = match copy.node == first.id() {
        true => (&first, &second),
        false => (&second, &first),
    };
    until(&control, "it runs", |_| owner.units().len() == 1).await;
    let used = UnitUsage {
        unit: copy.unit(),
        cpu_nanos: 7,
        milli_cpu: 250,
        memory: Bytes(1 << 20),
        read: None,
        written: None,
        received: Some(Bytes(9)),
        sent: None,
    };
    let digest = |node: &FakeNode| hostler_model::digest(node.units().iter());
    let beat = |node: &FakeNode, sequence, units| {
        let usage = Usage {
            units,
            ..Usage::default()
        };
        node.attachment()
            .unwrap()
            .beat(sequence, usage, digest(node))
    };
    assert_eq!(beat(other, 1000, vec![used]), BeatVerdict::Accepted);
    assert_eq!(
        control.usage_of(&copy),
        None,
        "a node tells only of its own"
    );
    let unknown = UnitUsage {
        unit: UnitId {
            generation: 99,
            ..copy.unit()
        },
        ..used
    };
    let revision = control.store_revision();
    assert_eq!(
        beat(owner, 1000, vec![used, unknown]),
        BeatVerdict::Accepted
    );
    assert_eq!(control.usage_of(&copy), Some(used));
    assert_eq!(control.store_revision(), revision, "no figure is written");
    assert_eq!(beat(owner, 1001, Vec::new()), BeatVerdict::Accepted);
    assert_eq!(
        control.usage_of(&copy),
        Some(used),
        "a beat without news changes nothing"
    );
    let shown = control.metrics().usage;
    let of_web = shown.iter().find(|it| it.workload == "web").unwrap();
    assert_eq!((of_web.milli_cpu, of_web.memory), (250, 1 << 20));
    assert_eq!(shown.len(), 1);

    owner.finish(copy.unit(), Exit::Code(0)).await.unwrap();
    assert_eq!(control.usage_of(&copy), None, "it does not run any more");
    stop(control).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_under_pressure_gets_nothing_new_until_it_is_relieved_and_a_restart_forgets_neither()
{
    let world = World::new(31);
    let control = world.start().await;
    let mut node = join(&control, "one").await;
    let old = apply(&control, spec("old", 1, 100)).await.unwrap();
    until(&control, "placed", |view| view.pending_copies(old) == 0).await;
    node.press(&[Pressure::Disk]);
    beat_for(&[&node], 2).await;
    let short_of = |control: &Control, id| control.view().node(id).unwrap().pressure.clone();
    assert_eq!(
        short_of(&control, node.id()),
        BTreeSet::from([Pressure::Disk])
    );
    let web = apply(&control, spec("web", 1, 100)).await.unwrap();
    beat_for(&[&node], 20).await;
    assert_eq!(control.view().pending_copies(web), 1);
    assert_eq!(copies(&control, old).len(), 1, "what is there stays");
    let why = hostler_control::fleet::why(&control.view(), web).unwrap();
    assert_eq!(why.nodes[0].findings[0].to_string(), "is short of disk");
    let told = |control: &Control, kind: EventKind| {
        let (told, _) = control.events(None, 1000);
        told.iter().filter(|event| event.kind == kind).count()
    };
    assert_eq!(
        told(&control, EventKind::NodePressed),
        1,
        "each beat is no event"
    );
    stop(control).await;

    let control = world.start().await;
    assert_eq!(
        short_of(&control, node.id()),
        BTreeSet::from([Pressure::Disk])
    );
    node.reconnect(&control).await.unwrap();
    beat_for(&[&node], 5).await;
    assert_eq!(
        control.view().pending_copies(web),
        1,
        "nobody said that it is well"
    );
    node.press(&[]);
    beat_for(&[&node], 2).await;
    until(&control, "placed", |view| view.pending_copies(web) == 0).await;
    assert_eq!(told(&control, EventKind::NodeRelieved), 1);
    stop(control).await;
}

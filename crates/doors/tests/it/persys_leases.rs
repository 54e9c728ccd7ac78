//! Reconnecting, leases that run out, and heartbeats that stop: with rules of seconds instead of minutes.

use hostler_control::fleet::{Expect, Verb};
use hostler_model::{Actor, EventKind};
use hostler_wire::persys::agent::ActualState;
use hostler_wire::persys::control::{self, HeartbeatRequest};
use tonic::Code;

use crate::persys_world::{Double, Fleet, Manners, Plane, beat_of, container, registration, until};

/// Beats for these nodes until the future is done.
async fn beating<T>(plane: &Plane, nodes: &[&str], done: impl Future<Output = T>) -> T {
    let beats = async {
        loop {
            for node in nodes {
                plane.beat(node, Vec::new()).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        done = done => done,
        () = beats => unreachable!("beats go on"),
    }
}

#[tokio::test]
async fn silence_beyond_the_lease_fails_over_and_the_old_copy_ends_when_the_node_returns() {
    let plane = Fleet::hasty().start().await;
    let first = Double::start().await;
    plane.register("node-1", &first.endpoint()).await;
    let running = plane.apply("web", "", container("busybox:1"));
    beating(&plane, &["node-1"], running).await;
    let running = plane.until_status("web", "Running");
    beating(&plane, &["node-1"], running).await;
    let second = Double::start().await;
    plane.register("node-2", &second.endpoint()).await;
    beating(
        &plane,
        &["node-1", "node-2"],
        plane.until_node("node-2", "Ready"),
    )
    .await;

    // The first node can still be dialled, but says nothing by itself.
    let gone = first.stop().await;
    let moved = until("moved", || async {
        let view = plane.workload("web").await.unwrap();
        (view.assigned_node_id == "node-2" && view.status == "Running").then_some(())
    });
    beating(&plane, &["node-2"], moved).await;
    let view = plane.node("node-1").await;
    assert_eq!(view.status, "NotReady", "{view:?}");
    assert_eq!(second.states()["web"], ActualState::Running);

    let first = Double::again(gone).await;
    assert_eq!(first.states()["web"], ActualState::Running, "it ran on");
    plane.register("node-1", &first.endpoint()).await;
    let ended = first.until("the older copy ends", |it| it.states().is_empty());
    beating(&plane, &["node-1", "node-2"], ended).await;
    assert_eq!(second.states()["web"], ActualState::Running);
    plane.shut_down().await;
    first.end().await;
    second.end().await;
}

#[tokio::test]
async fn a_node_that_is_dialled_but_does_not_beat_is_lost_all_the_same() {
    let plane = Fleet::hasty().start().await;
    let agent = Double::start().await;
    plane.register("node-1", &agent.endpoint()).await;
    plane.until_node("node-1", "Ready").await;
    let view = until("lost", || async {
        let view = plane.node("node-1").await;
        (view.status == "NotReady" && view.status_updated_by == "monitor").then_some(view)
    })
    .await;
    assert!(view.status_reason.contains("no heartbeat"), "{view:?}");
    plane.beat("node-1", Vec::new()).await;
    plane.until_node("node-1", "Ready").await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_lost_node_is_not_revived_by_being_dialled() {
    let plane = Fleet::hasty().start().await;
    let gone = Double::start().await.stop().await;
    plane.register("node-1", &gone.addr.to_string()).await;
    let count = |kind: EventKind| {
        let (events, _) = plane.control.events(None, 100);
        events.iter().filter(|it| it.kind == kind).count()
    };
    until("lost", async || {
        (count(EventKind::NodeLost) > 0).then_some(())
    })
    .await;
    // Its word about its runtimes, and its list, are answers to questions and no signs of life.
    let agent = Double::again(gone).await;
    agent.behave(Manners {
        health: Some(&[("docker", "unhealthy: no socket")]),
        ..Manners::default()
    });
    agent.until("dialled", |it| it.memory().lists >= 3).await;
    let told = [EventKind::NodeReady, EventKind::NodeLost].map(count);
    assert_eq!(told, [0, 1], "it was never back, and so not lost again");
    assert_eq!(plane.node("node-1").await.status, "NotReady");
    beating(&plane, &["node-1"], plane.until_node("node-1", "Ready")).await;
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_registration_changes_the_labels_that_are_the_agents_own() {
    let plane = Fleet::new().start().await;
    let labelled = async |region: &str, zone: &str| {
        let mut request = registration("node-1", "127.0.0.1:1");
        request.labels = [("region", region), ("zone", zone)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let answer = plane.client.clone().register_node(request).await.unwrap();
        assert!(answer.into_inner().accepted);
        let labels = plane.node("node-1").await.labels;
        (labels["region"].clone(), labels["zone"].clone())
    };
    let pair = |region: &str, zone: &str| (region.to_owned(), zone.to_owned());
    assert_eq!(labelled("eu", "a").await, pair("eu", "a"));
    let node = plane.control.view().node_by_name("node-1").unwrap().id;
    let verb = Verb::Label {
        node,
        labels: [("zone".to_owned(), Some("mine".to_owned()))].into(),
        expect: Expect::Any,
    };
    let somebody = Actor::User("somebody".to_owned());
    plane.control.submit(somebody, verb).await.unwrap();
    assert_eq!(labelled("us", "b").await, pair("us", "mine"));
    let odd = labelled("no label", "b").await;
    assert_eq!(odd, pair("us", "mine"), "and it is accepted");
    plane.shut_down().await;
}

#[tokio::test]
async fn an_agent_that_comes_back_after_its_lease_registers_and_goes_on() {
    let plane = Fleet::hasty().start().await;
    let agent = Double::start().await;
    plane.register("node-1", &agent.endpoint()).await;
    plane.apply("web", "", container("busybox:1")).await;
    beating(&plane, &["node-1"], plane.until_status("web", "Running")).await;
    until("lost", || async {
        (plane.node("node-1").await.status == "NotReady").then_some(())
    })
    .await;
    // It moved to another address and lost its state meanwhile.
    agent.end().await;
    let agent = Double::start().await;
    plane.register("node-1", &agent.endpoint()).await;
    let runs = agent.until("it runs", |it| {
        it.states().get("web") == Some(&ActualState::Running)
    });
    beating(&plane, &["node-1"], runs).await;
    let mut client = plane.client.clone();
    let nodes = client
        .list_nodes(control::ListNodesRequest::default())
        .await
        .unwrap();
    assert_eq!(
        nodes.into_inner().nodes.len(),
        1,
        "the same id is the same node"
    );
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_node_reports_only_for_what_it_owns() {
    let plane = Fleet::new().start().await;
    let agent = Double::start().await;
    plane.register("node-1", &agent.endpoint()).await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    plane.register("node-2", "127.0.0.1:1").await;
    let sample = control::WorkloadUsageSnapshot {
        workload_id: "web".to_owned(),
        cpu_percent: 12.5,
        ..control::WorkloadUsageSnapshot::default()
    };
    let told = |node: &str| HeartbeatRequest {
        workload_statuses: vec![control::WorkloadStatus {
            workload_id: "web".to_owned(),
            state: "Failed".to_owned(),
            ..control::WorkloadStatus::default()
        }],
        workload_usage: vec![sample.clone()],
        ..beat_of(node)
    };
    let mut client = plane.client.clone();
    // Until the second is known not to be reached, so that its word would count.
    plane.until_node("node-2", "NotReady").await;
    client.heartbeat(told("node-2")).await.unwrap();
    plane.beat("node-1", Vec::new()).await;
    let view = plane.workload("web").await.unwrap();
    assert_eq!((view.status.as_str(), view.usage), ("Running", None));
    client.heartbeat(told("node-1")).await.unwrap();
    let view = plane.workload("web").await.unwrap();
    assert_eq!(view.usage, Some(sample), "its owner's figures are shown");
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn a_removed_node_is_not_revived() {
    let plane = Fleet::new().start().await;
    let agent = Double::start().await;
    plane.register("node-1", &agent.endpoint()).await;
    plane.until_node("node-1", "Ready").await;
    let plain = crate::server::http().no_proxy().build().unwrap();
    let url = format!("http://{}/api/v1/nodes/node-1", plane.main);
    assert!(
        plain
            .delete(url)
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let mut client = plane.client.clone();
    let refused = client.heartbeat(beat_of("node-1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let answer = client
        .register_node(registration("node-1", &agent.endpoint()))
        .await
        .unwrap()
        .into_inner();
    assert!(
        !answer.accepted && answer.reason.contains("removed"),
        "{answer:?}"
    );
    plane.shut_down().await;
    agent.end().await;
}

//! How sessions end: by a newer one, by a leave, by the node's removal, and by the server's stop.

use std::collections::HashMap;
use std::time::Duration;

use hostler_control::ControlConfig;
use hostler_store::Gate;
use hostler_wire::session::v1::{self, node_message, server_message, unit_state};
use reqwest::Method;
use tonic::Code;

use super::{Node, hello, observed, running};
use crate::server::Server;

#[tokio::test]
async fn a_second_session_ends_the_first_unless_it_is_another_machine() {
    let server = Server::start().await;
    let (mut first, welcome) = Node::join(&server, "box").await;
    let (mut second, again) = Node::join(&server, "box").await;
    assert_eq!(welcome.node_id, again.node_id);
    assert_eq!(first.status().await.code(), Code::Aborted);
    second.intent(&mut HashMap::new(), |_, whole| whole).await;
    let mut other = Node::connect(&server).await;
    let mut copied = hello("box");
    copied.facts = Some(v1::Facts {
        hostname: "other".to_owned(),
        boot_id: "boot-9".to_owned(),
        ..v1::Facts::default()
    });
    other.say(node_message::Message::Hello(copied)).await;
    assert_eq!(other.refusal().await, "node-identity-in-use");
    second.beat(1, 0).await;
    assert!(matches!(
        second.hear().await,
        server_message::Message::BeatAck(_)
    ));
    server.shut_down().await;
}

#[tokio::test]
async fn an_agent_that_takes_its_leave_is_suspected_only_once_its_beats_are_late() {
    // With leases as they are, which run out.
    let server = Server::with(ControlConfig::default()).await;
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    node.say(node_message::Message::Leave(v1::Leave {})).await;
    assert!(node.heard().await.unwrap().is_none(), "the stream ends");
    server
        .until("/api/v1/nodes/box", |node| node["state"] == "suspect")
        .await;
    let told = server.get("/api/v1/events").await.text;
    assert!(told.contains("is suspect: no beat for"), "{told}");
    assert!(!told.contains("the connection broke"), "{told}");
    server.shut_down().await;
}

#[tokio::test]
async fn what_was_said_before_a_leave_is_taken_in_however_slow_the_store_is() {
    let store = crate::server::store();
    let doors = |parts: hostler_doors::Parts| parts.router(hostler_doors::Dialect::Hostler);
    let server = Server::of(ControlConfig::default(), &store, doors).await;
    server
        .post(
            "/api/v1/workloads",
            "name: fetch\njob: {command: [fetch]}\n",
        )
        .await;
    let (mut node, _) = Node::join(&server, "box").await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    let item = intent.values().next().expect("an item").clone();
    node.observe(false, vec![observed(&item, running())]).await;
    let path = "/api/v1/jobs/fetch";
    server.until(path, |it| it["status"] == "running").await;
    store.set_gate(Gate::BeforeCommit);
    let exit = v1::Exit {
        exit: Some(v1::exit::Exit::Code(0)),
    };
    let finished = unit_state::State::Finished(unit_state::Finished {
        exit: Some(exit),
        at_ms: 1,
    });
    // The first word waits for its commit, and the outcome for the first word.
    let held = v1::Held {
        reason: "too many would stop".to_owned(),
        would_stop: 9,
    };
    node.say(node_message::Message::Held(held)).await;
    node.observe(false, vec![observed(&item, finished)]).await;
    node.say(node_message::Message::Leave(v1::Leave {})).await;
    while store.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    store.set_gate(Gate::Open);
    while node.heard().await.unwrap().is_some() {}
    server.until(path, |it| it["status"] == "finished").await;
    let told = server.get("/api/v1/events").await.text;
    assert!(!told.contains("the connection broke"), "{told}");
    server.shut_down().await;
}

#[tokio::test]
async fn of_two_machines_that_look_the_same_the_one_that_beats_on_stays() {
    let server = Server::start().await;
    let (mut first, _) = Node::join(&server, "box").await;
    first.intent(&mut HashMap::new(), |_, whole| whole).await;
    let mut copy = Node::connect(&server).await;
    copy.say(node_message::Message::Hello(hello("box"))).await;
    let (mut beats, mut pace) = (0, tokio::time::interval(Duration::from_millis(200)));
    let refused = async { copy.refusal().await };
    let mut refused = std::pin::pin!(refused);
    let code = loop {
        tokio::select! {
            biased;
            code = &mut refused => break code,
            _ = pace.tick() => {}
        }
        beats += 1;
        first.beat(beats, 0).await;
        assert!(matches!(
            first.hear().await,
            server_message::Message::BeatAck(_)
        ));
    };
    assert_eq!(code, "node-identity-in-use");
    let told = server.get("/api/v1/events").await.text;
    assert!(told.contains("node-doubled"), "{told}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_hello_whose_sender_has_gone_takes_nothing_over() {
    let server = Server::start().await;
    let (mut first, _) = Node::join(&server, "box").await;
    first.intent(&mut HashMap::new(), |_, whole| whole).await;
    let gone = Node::connect(&server).await;
    gone.say(node_message::Message::Hello(hello("box"))).await;
    drop(gone);
    // It would have been first, and would be in the way now.
    let (mut next, _) = Node::join(&server, "box").await;
    next.intent(&mut HashMap::new(), |_, whole| whole).await;
    assert_eq!(first.status().await.code(), Code::Aborted);
    let told = server.get("/api/v1/events").await.text;
    assert!(!told.contains("the connection broke"), "{told}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_that_was_removed_is_told_so() {
    let server = Server::start().await;
    let (mut node, welcome) = Node::join(&server, "box").await;
    let path = format!("/api/v1/nodes/{}", welcome.node_id);
    let removed = server.send(Method::DELETE, &path, &[], "").await;
    assert_eq!(removed.status.as_u16(), 200, "{}", removed.text);
    assert_eq!(node.status().await.code(), Code::Aborted);
    let mut node = Node::connect(&server).await;
    node.say(node_message::Message::Hello(hello("box"))).await;
    assert_eq!(node.refusal().await, "node-gone");
    server.shut_down().await;
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    node.intent(&mut HashMap::new(), |_, whole| whole).await;
    server.tasks.stop();
    let code = node.status().await.code();
    assert!(
        matches!(code, Code::Unavailable | Code::Aborted),
        "{code:?}"
    );
    server.shut_down().await;
}

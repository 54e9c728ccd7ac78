//! What a node finds out after its hello: placement follows it, and it outlives the control plane.

use std::collections::HashMap;

use hostler_doors::Dialect;
use hostler_wire::session::v1::{self, node_message, server_message};

use crate::server::{Server, calm, store};
use crate::session::{Node, hello};

const WEB: &str = "name: web\ncontainer: {image: busybox}\n";

fn facts(kinds: &[(&str, bool)]) -> v1::Facts {
    let runtime = |(kind, available): &(&str, bool)| v1::RuntimeFact {
        kind: (*kind).to_owned(),
        available: *available,
        note: if *available { "" } else { "stopped" }.to_owned(),
        ..v1::RuntimeFact::default()
    };
    v1::Facts {
        runtimes: kinds.iter().map(runtime).collect(),
        ..hello("box").facts.expect("facts")
    }
}

/// A node whose hello tells those kinds, and that observes nothing.
async fn join(server: &Server, kinds: &[(&str, bool)]) -> Node {
    let mut node = Node::connect(server).await;
    let hello = v1::Hello {
        facts: Some(facts(kinds)),
        ..hello("box")
    };
    node.say(node_message::Message::Hello(hello)).await;
    node.observe(true, Vec::new()).await;
    let server_message::Message::Welcome(welcome) = node.hear().await else {
        panic!("a welcome is expected")
    };
    assert!(welcome.takes_facts);
    node
}

#[tokio::test]
async fn a_copy_waits_for_its_driver_and_is_placed_once_the_node_tells_of_it() {
    let store = store();
    let over = || Server::of(calm(), &store, |parts| parts.router(Dialect::Hostler));
    let server = over().await;
    let node = join(&server, &[("process", true)]).await;
    server
        .until("/api/v1/nodes/box", |node| node["state"] == "ready")
        .await;
    let applied = server.post("/api/v1/workloads", WEB).await;
    assert_eq!(applied.status.as_u16(), 201, "{}", applied.text);
    server
        .until("/api/v1/workloads/web/why", |why| {
            why.to_string().contains("container")
        })
        .await;
    drop(node);
    server.shut_down().await;

    let server = over().await;
    let mut node = join(&server, &[("process", true)]).await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |_, whole| whole).await;
    assert!(intent.is_empty(), "nothing runs containers yet");
    node.say(node_message::Message::Facts(facts(&[
        ("container", true),
        ("process", true),
    ])))
    .await;
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    drop(node);
    server.shut_down().await;

    let server = over().await;
    let known = server.get("/api/v1/nodes/box").await.json();
    assert!(known.to_string().contains("container"), "{known}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_driver_that_is_lost_takes_nothing_new_and_keeps_its_copies() {
    let server = Server::start().await;
    let mut node = join(&server, &[("container", true)]).await;
    server.post("/api/v1/workloads", WEB).await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    node.say(node_message::Message::Facts(facts(&[("container", false)])))
        .await;
    let events = server
        .until("/api/v1/events", |events| {
            events.to_string().contains("node-driver-lost")
        })
        .await;
    assert!(
        events
            .to_string()
            .contains("node box can no longer run container: stopped"),
        "{events}"
    );
    server
        .post("/api/v1/workloads", &WEB.replace("web", "other"))
        .await;
    server
        .until("/api/v1/workloads/other/why", |why| {
            why.to_string().contains("stopped")
        })
        .await;
    let web = server.get("/api/v1/workloads/web").await.json();
    assert_eq!(
        (&web["pending"], &web["standing"]["wanted"]),
        (&0.into(), &1.into()),
        "{web}"
    );
    node.say(node_message::Message::Facts(facts(&[("container", true)])))
        .await;
    node.intent(&mut intent, |intent, _| intent.len() == 2)
        .await;
    server
        .until("/api/v1/events", |events| {
            events.to_string().contains("node-driver-ready")
        })
        .await;
    server.shut_down().await;
}

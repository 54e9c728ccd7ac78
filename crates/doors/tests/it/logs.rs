//! Log streams over fake nodes, whose units have written `line 1` to `line 3`.

use hostler_control::fake::FakeNode;
use serde_json::Value;

use crate::server::Server;
use crate::streams::Sse;

async fn running(server: &Server, count: u32) -> FakeNode {
    let node = server.node("box").await;
    server.apply("web", count).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    node
}

#[tokio::test]
async fn lines_of_all_copies_are_merged_by_time_and_name_their_copy() {
    let server = Server::start().await;
    let _node = running(&server, 2).await;
    let mut stream = Sse::open(&server, "/api/v1/workloads/web/logs", &[]).await;
    let (mut lines, mut slots) = (Vec::new(), Vec::new());
    loop {
        let (event, body) = stream.next().await.expect("an end is told");
        if event.event == "end" {
            break;
        }
        assert_eq!(
            (event.event.as_str(), &body["stream"]),
            ("line", &"stdout".into())
        );
        assert_eq!(body["copy"].as_str().unwrap().len(), 8);
        lines.push(body["text"].as_str().unwrap().to_owned());
        slots.push(body["slot"].as_u64().unwrap());
    }
    assert_eq!(
        lines,
        ["line 1", "line 1", "line 2", "line 2", "line 3", "line 3"]
    );
    slots.sort_unstable();
    assert_eq!(slots, [0, 0, 0, 1, 1, 1]);
    assert!(stream.next().await.is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn one_copy_and_the_tail_can_be_chosen() {
    let server = Server::start().await;
    let _node = running(&server, 2).await;
    let copies = server.get("/api/v1/assignments").await.json();
    let by_id = format!(
        "/api/v1/assignments/{}/logs?tail=1",
        copies[1]["id"].as_str().unwrap()
    );
    for path in ["/api/v1/workloads/web/logs?slot=1&tail=1", &by_id] {
        let mut stream = Sse::open(&server, path, &[]).await;
        assert_eq!(stream.next().await.unwrap().1["text"], "line 1");
        assert_eq!(stream.next().await.unwrap().0.event, "end");
    }
    server
        .get("/api/v1/workloads/web/logs?slot=9")
        .await
        .is_problem(404, "log-not-found");
    server
        .get("/api/v1/workloads/web/logs?since=monday")
        .await
        .is_problem(400, "bad-request");
    server.shut_down().await;
}

#[tokio::test]
async fn following_goes_on_with_copies_that_come_later() {
    let server = Server::start().await;
    let _node = running(&server, 1).await;
    let mut stream = Sse::open(&server, "/api/v1/workloads/web/logs?follow=true", &[]).await;
    for _ in 0..3 {
        assert_eq!(stream.next().await.unwrap().1["slot"], 0);
    }
    server.apply("web", 2).await;
    loop {
        let (_, body) = stream.next().await.unwrap();
        if body["slot"] == 1 && body["stream"] == "stdout" {
            break;
        }
    }
    server
        .send(reqwest::Method::DELETE, "/api/v1/workloads/web", &[], "")
        .await;
    drop(stream);
    server.shut_down().await;
}

#[tokio::test]
async fn an_unreachable_node_refuses_or_is_told_while_following() {
    let server = Server::start().await;
    let node = running(&server, 1).await;
    node.disconnect();
    let path = "/api/v1/workloads/web/logs";
    server
        .until("/api/v1/nodes/box", |node| node["state"] == "suspect")
        .await;
    server.get(path).await.is_problem(502, "node-unreachable");
    let mut stream = Sse::open(&server, &format!("{path}?follow=true"), &[]).await;
    let (_, body): (_, Value) = stream.next().await.unwrap();
    assert_eq!(body["stream"], "notice");
    assert!(
        body["text"]
            .as_str()
            .unwrap()
            .starts_with("node-unreachable"),
        "{body}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn following_goes_on_with_the_copy_that_replaces_one_on_a_lost_node() {
    // A lease so short that a node which says nothing is lost soon.
    let config = hostler_control::ControlConfig {
        lease: hostler_control::fleet::LeaseRules::for_beat(std::time::Duration::from_millis(300)),
        ..hostler_control::ControlConfig::default()
    };
    let server = Server::with(config).await;
    let (first, second) = (server.node("first").await, server.node("second").await);
    let beating = async {
        loop {
            let _ = (first.beat(), second.beat());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let reading = async {
        server.apply("web", 1).await;
        server
            .until("/api/v1/workloads/web", |it| it["status"] == "running")
            .await;
        let path = "/api/v1/workloads/web/logs?follow=true&tail=3";
        let mut stream = Sse::open(&server, path, &[]).await;
        for number in 1..=3 {
            let (_, body) = stream.next().await.unwrap();
            assert_eq!(body["text"], format!("line {number}"));
        }
        let has_it = if first.units().is_empty() {
            &second
        } else {
            &first
        };
        has_it.disconnect();
        let mut seen = Vec::new();
        while !seen.ends_with(&["line 3".to_owned()]) {
            let (_, body) = stream.next().await.unwrap();
            seen.push(body["text"].as_str().unwrap().to_owned());
        }
        seen
    };
    let seen = tokio::select! {
        seen = reading => seen,
        () = beating => unreachable!("it beats for ever"),
    };
    let is_mark = |text: &String| text.starts_with("the copy was replaced: its log goes on from ");
    let at = seen.iter().position(is_mark).expect("a mark");
    assert_eq!(seen[at + 1..], ["line 1", "line 2", "line 3"]);
    let troubles = seen.iter().filter(|it| it.starts_with("node-unreachable"));
    assert!(troubles.count() <= 1, "told once: {seen:?}");
    server.shut_down().await;
}

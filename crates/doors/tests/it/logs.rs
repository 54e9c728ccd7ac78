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

//! Logs over bulk streams that a node opens with a ticket, by a node that says exactly what each test wants.

use std::collections::HashMap;

use hostler_wire::session::v1::{self, bulk_frame, open, server_message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::server::{DEADLINE, Server};
use crate::session::{Node, observed, running};
use crate::streams::Sse;

/// A node with one running copy, and its intent.
pub(crate) async fn with_a_copy(server: &Server) -> (Node, v1::IntentItem) {
    server.apply("web", 1).await;
    let (mut node, _) = Node::join(server, "box").await;
    let mut intent = HashMap::new();
    node.intent(&mut intent, |intent, _| intent.len() == 1)
        .await;
    let item = intent.into_values().next().expect("an item");
    node.observe(false, vec![observed(&item, running())]).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    (node, item)
}

fn line(text: &str) -> v1::LogLine {
    v1::LogLine {
        at_ms: 1,
        stream: "stderr".to_owned(),
        text: text.to_owned(),
        partial: false,
        run: 1,
    }
}

pub(crate) fn frame(frame: bulk_frame::Frame) -> v1::BulkFrame {
    v1::BulkFrame { frame: Some(frame) }
}

fn end(code: &str) -> v1::BulkFrame {
    let (code, message) = (code.to_owned(), "nothing is left of it".to_owned());
    frame(bulk_frame::Frame::End(v1::End { code, message }))
}

/// Waits for the request of a transfer.
async fn opened(node: &mut Node) -> (String, v1::LogRequest) {
    let server_message::Message::Open(open) = node.hear().await else {
        panic!("an open")
    };
    let Some(open::Request::Logs(logs)) = open.request else {
        panic!("a request for logs")
    };
    (open.ticket, logs)
}

#[tokio::test]
async fn logs_come_over_a_stream_that_the_node_opens_with_a_ticket() {
    let server = Server::start().await;
    let (mut node, item) = with_a_copy(&server).await;
    let reading = Sse::open(
        &server,
        "/api/v1/workloads/web/logs?tail=2&previous=true",
        &[],
    );
    let sending = async {
        let (ticket, request) = opened(&mut node).await;
        assert_eq!(request.unit, item.unit);
        assert_eq!(
            (request.tail, request.has_tail, request.previous),
            (2, true, true)
        );
        let lines = vec![line("one"), line("two")];
        let frames = [
            frame(bulk_frame::Frame::Ticket(ticket)),
            frame(bulk_frame::Frame::LogLines(v1::LogLines { lines })),
            end(""),
        ];
        node.client
            .bulk(tokio_stream::iter(frames))
            .await
            .expect("a transfer")
    };
    let (mut stream, _transfer) = tokio::join!(reading, sending);
    for text in ["one", "two"] {
        let (event, body) = stream.next().await.expect("a line");
        assert_eq!(
            (event.event.as_str(), &body["text"]),
            ("line", &text.into())
        );
        assert_eq!(body["stream"], "stderr");
    }
    assert_eq!(stream.next().await.expect("an end").0.event, "end");
    server.shut_down().await;
}

#[tokio::test]
async fn a_log_that_the_node_refuses_is_refused_in_its_words() {
    let server = Server::start().await;
    let (mut node, _) = with_a_copy(&server).await;
    let reading = server.get("/api/v1/workloads/web/logs");
    let sending = async {
        let (ticket, _) = opened(&mut node).await;
        let frames = [
            frame(bulk_frame::Frame::Ticket(ticket)),
            end("log-not-found"),
        ];
        node.client
            .bulk(tokio_stream::iter(frames))
            .await
            .expect("a transfer")
    };
    let (refused, _transfer) = tokio::join!(reading, sending);
    let problem = refused.is_problem(404, "log-not-found");
    assert_eq!(problem["detail"], "nothing is left of it");
    server.shut_down().await;
}

#[tokio::test]
async fn a_transfer_that_breaks_off_ends_the_stream_with_a_problem() {
    let server = Server::start().await;
    let (mut node, _) = with_a_copy(&server).await;
    let reading = Sse::open(&server, "/api/v1/workloads/web/logs", &[]);
    let sending = async {
        let (ticket, _) = opened(&mut node).await;
        let lines = v1::LogLines {
            lines: vec![line("one")],
        };
        let frames = [
            frame(bulk_frame::Frame::Ticket(ticket)),
            frame(bulk_frame::Frame::LogLines(lines)),
        ];
        node.client
            .bulk(tokio_stream::iter(frames))
            .await
            .expect("a transfer")
    };
    let (mut stream, _transfer) = tokio::join!(reading, sending);
    assert_eq!(stream.next().await.expect("a line").1["text"], "one");
    let (event, body) = stream.next().await.expect("a problem");
    assert_eq!(
        (event.event.as_str(), &body["code"]),
        ("problem", &"node-unreachable".into())
    );
    assert!(stream.next().await.is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn a_transfer_that_nobody_asked_for_is_refused() {
    let server = Server::start().await;
    let (mut node, _) = Node::join(&server, "box").await;
    let frames = [frame(bulk_frame::Frame::Ticket("0".repeat(32)))];
    let refused = node
        .client
        .bulk(tokio_stream::iter(frames))
        .await
        .expect_err("a refusal");
    assert_eq!(refused.code(), Code::NotFound);
    let refused = node
        .client
        .bulk(tokio_stream::iter([end("")]))
        .await
        .expect_err("a refusal");
    assert_eq!(refused.code(), Code::InvalidArgument);
    server.shut_down().await;
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_transfer() {
    let server = Server::start().await;
    let (mut node, _) = with_a_copy(&server).await;
    let (frames, stream) = mpsc::channel(8);
    let reading = Sse::open(&server, "/api/v1/workloads/web/logs?follow=true", &[]);
    let sending = async {
        let (ticket, request) = opened(&mut node).await;
        assert!(request.follow);
        frames
            .send(frame(bulk_frame::Frame::Ticket(ticket)))
            .await
            .expect("sent");
        node.client
            .bulk(ReceiverStream::new(stream))
            .await
            .expect("a transfer")
            .into_inner()
    };
    let (reader, mut transfer) = tokio::join!(reading, sending);
    drop(reader);
    let ended = tokio::time::timeout(DEADLINE, transfer.message())
        .await
        .expect("the end is told");
    assert!(ended.is_ok_and(|it| it.is_none()));
    server.shut_down().await;
}

#[tokio::test]
async fn a_follower_ends_with_the_last_transfer_also_when_nothing_changes_after_it() {
    // No lease runs out, for that would be a change.
    let config = hostler_control::ControlConfig {
        lease: hostler_control::fleet::LeaseRules::for_beat(DEADLINE * 10),
        ..hostler_control::ControlConfig::default()
    };
    let server = Server::with(config).await;
    let (mut node, item) = with_a_copy(&server).await;
    let (frames, stream) = mpsc::channel(8);
    let reading = Sse::open(&server, "/api/v1/workloads/web/logs?follow=true", &[]);
    let sending = async {
        let (ticket, _) = opened(&mut node).await;
        let ticket = frame(bulk_frame::Frame::Ticket(ticket));
        frames.send(ticket).await.expect("sent");
        let transfer = node.client.bulk(ReceiverStream::new(stream)).await;
        transfer.expect("a transfer")
    };
    let (mut reader, _transfer) = tokio::join!(reading, sending);
    let delete = reqwest::Method::DELETE;
    server.send(delete, "/api/v1/workloads/web", &[], "").await;
    let gone = v1::unit_state::State::Gone(v1::unit_state::Gone {});
    node.observe(false, vec![observed(&item, gone)]).await;
    let path = "/api/v1/workloads/web";
    while server.get(path).await.status != reqwest::StatusCode::NOT_FOUND {
        tokio::task::yield_now().await;
    }
    // The follower has time to see that; its transfer has not ended yet.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    frames.send(end("")).await.expect("sent");
    let told = tokio::time::timeout(DEADLINE, reader.next()).await;
    assert_eq!(told.expect("in time").expect("an end").0.event, "end");
    server.shut_down().await;
}

/// Opens the transfer that is asked for, tells the lines, and ends it well or not at all.
async fn transfer(node: &mut Node, lines: &[v1::LogLine], is_whole: bool) -> v1::LogRequest {
    let (ticket, request) = opened(node).await;
    let lines = lines.to_vec();
    let mut frames = vec![
        frame(bulk_frame::Frame::Ticket(ticket)),
        frame(bulk_frame::Frame::LogLines(v1::LogLines { lines })),
    ];
    if is_whole {
        frames.push(end(""));
    }
    let frames = tokio_stream::iter(frames);
    node.client.bulk(frames).await.expect("a transfer");
    request
}

#[tokio::test]
async fn a_followed_transfer_that_breaks_within_a_moment_tells_each_of_its_lines_once() {
    let server = Server::start().await;
    let (mut node, _) = with_a_copy(&server).await;
    let mut lines: Vec<v1::LogLine> = ["one", "same", "same", "four", "five", "six"]
        .map(line)
        .into();
    lines[5].at_ms = 2;
    let reading = Sse::open(&server, "/api/v1/workloads/web/logs?follow=true", &[]);
    let breaking = transfer(&mut node, &lines[..2], false);
    let (mut stream, request) = tokio::join!(reading, breaking);
    assert_eq!(request.since_ms, 0);
    let request = transfer(&mut node, &lines, true).await;
    assert_eq!(request.since_ms, 1, "the moment is read from its beginning");
    let (mut told, mut notices) = (Vec::new(), 0);
    while told.last().is_none_or(|text| text != "six") {
        let (event, body) = stream.next().await.expect("a line");
        assert_eq!(event.event, "line");
        if body["stream"] == "notice" {
            notices += 1;
        } else {
            told.push(body["text"].as_str().expect("a text").to_owned());
        }
    }
    assert_eq!(told, ["one", "same", "same", "four", "five", "six"]);
    assert_eq!(notices, 1, "the break is told");
    server.shut_down().await;
}

#[tokio::test]
async fn a_tail_that_breaks_within_its_first_moment_tells_nothing_that_was_not_asked_for() {
    let server = Server::start().await;
    let (mut node, _) = with_a_copy(&server).await;
    let mut lines: Vec<v1::LogLine> = ["one", "two", "three"].map(line).into();
    lines[2].at_ms = 2;
    let path = "/api/v1/workloads/web/logs?follow=true&tail=1";
    let breaking = transfer(&mut node, &lines[1..2], false);
    let (mut stream, _) = tokio::join!(Sse::open(&server, path, &[]), breaking);
    assert_eq!(stream.next().await.expect("a line").1["text"], "two");
    assert_eq!(stream.next().await.expect("a notice").1["stream"], "notice");
    transfer(&mut node, &lines, true).await;
    assert_eq!(stream.next().await.expect("a line").1["text"], "three");
    server.shut_down().await;
}

//! What the client sends, and what it makes of answers.

use futures::StreamExt as _;
use hostler_wire::api::{ApplyQuery, AssignmentFilter, EventGap, LabelPatch, LogQuery};
use hostler_wire::client::{Client, ClientError, Expect, Force, Happening};

use crate::canned::{Canned, answer, json};

const WORKLOAD: &str = r#"{"id":"w","name":"web","kind":"process","desired":"running",
    "status":"running","revision":3,"count":1,"spec":{},"created_at":"","updated_at":""}"#;

fn client(server: &Canned) -> Client {
    Client::new(&server.addr, Some("secret")).expect("the address is good")
}

#[tokio::test]
async fn a_list_follows_its_pages_on_the_same_server_only() {
    let link = "link: <http://elsewhere.example/api/v1/workloads?after=w>; rel=\"next\"\r\n";
    let first = answer("200 OK", "application/json", link, &format!("[{WORKLOAD}]"));
    let server = Canned::serve(vec![first, json(&format!("[{WORKLOAD}]"))]);
    let all = client(&server).workloads().await.expect("a list");
    assert_eq!(all.len(), 2);
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/v1/workloads HTTP/1.1\r\n"));
    assert!(requests[1].starts_with("GET /api/v1/workloads?after=w HTTP/1.1\r\n"));
    assert!(
        requests
            .iter()
            .all(|request| request.contains("authorization: Bearer secret\r\n"))
    );
}

#[tokio::test]
async fn a_page_that_leads_to_itself_is_no_endless_list() {
    let link = "link: </api/v1/workloads>; rel=\"next\"\r\n";
    let server = Canned::serve(vec![answer("200 OK", "application/json", link, "[]")]);
    let error = client(&server)
        .workloads()
        .await
        .expect_err("it never ends");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn apply_sends_text_options_and_the_revision_that_was_seen() {
    let body = r#"[{"id":"w","name":"web","revision":4,"changed":true,"created":false}]"#;
    let server = Canned::serve(vec![json(body)]);
    let query = ApplyQuery {
        dry_run: false,
        require_placement: true,
    };
    let results = client(&server)
        .apply("name: web", query, Expect::Revision(3))
        .await;
    assert_eq!(results.expect("an answer")[0].revision, 4);
    let request = &server.requests()[0];
    assert!(request.starts_with("POST /api/v1/workloads?require_placement=true HTTP/1.1\r\n"));
    assert!(
        request.contains("content-type: application/yaml\r\n"),
        "{request}"
    );
    assert!(request.contains("if-match: \"3\"\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\nname: web"));
}

#[tokio::test]
async fn a_name_cannot_become_a_path() {
    let server = Canned::serve(vec![json(WORKLOAD), json("[]")]);
    let client = client(&server);
    client.workload("../nodes?x=1").await.expect("an answer");
    let filter = AssignmentFilter {
        workload: Some("a&b".into()),
        node: None,
    };
    client.assignments(&filter).await.expect("an answer");
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/v1/workloads/..%2Fnodes%3Fx=1 HTTP/1.1"));
    assert!(requests[1].starts_with("GET /api/v1/assignments?workload=a%26b HTTP/1.1"));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_advice_and_status() {
    let body = r#"{"code":"node-busy","detail":"node box has 2 copies","advice":"drain it"}"#;
    let server = Canned::serve(vec![answer(
        "409 Conflict",
        "application/problem+json",
        "",
        body,
    )]);
    let error = client(&server)
        .remove_node("box", Force::GiveUpCopies, Expect::Any)
        .await
        .expect_err("no");
    assert_eq!(error.code(), Some("node-busy"));
    assert_eq!(error.to_string(), "node box has 2 copies");
    assert!(!error.is_retryable());
    let ClientError::Refused(problem) = error else {
        panic!("a refusal is expected")
    };
    assert_eq!((problem.status, problem.advice.as_str()), (409, "drain it"));
    assert!(server.requests()[0].starts_with("DELETE /api/v1/nodes/box?force=true HTTP/1.1"));
}

#[tokio::test]
async fn labels_are_patched_as_a_plain_object() {
    let server = Canned::serve(vec![answer("404 Not Found", "text/plain", "", "no")]);
    let patch = LabelPatch([("zone".to_owned(), None)].into());
    let error = client(&server)
        .label("box", &patch, Expect::Any)
        .await
        .expect_err("no");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    let request = &server.requests()[0];
    assert!(request.starts_with("PATCH /api/v1/nodes/box/labels HTTP/1.1"));
    assert!(request.ends_with(r#"{"zone":null}"#));
}

#[tokio::test]
async fn an_unwell_server_still_says_what_is_missing() {
    let body = r#"{"ready":false,"checks":[{"name":"store","ok":false,"detail":"disk full"}]}"#;
    let server = Canned::serve(vec![answer("503 Busy", "application/json", "", body)]);
    let ready = client(&server).ready().await.expect("an answer");
    assert_eq!(ready.checks[0].detail, "disk full");
    server.requests();
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable_and_may_be_tried_again() {
    // A port that the machine gives to nobody who asks for any.
    let addr = "127.0.0.1:1";
    let client = Client::new(addr, None).expect("the address is good");
    let error = client.version().await.expect_err("nobody is there");
    assert!(error.is_retryable());
    assert_eq!(
        error.to_string(),
        format!("the control plane at http://{addr} does not answer")
    );
}

#[test]
fn addresses_that_cannot_work_are_refused_at_once() {
    for addr in [
        "https://host:1",
        "http://host:1/path",
        "",
        "host:port",
        "unix:///x",
    ] {
        let error = Client::new(addr, None).expect_err("it cannot work");
        assert!(matches!(error, ClientError::Address { .. }), "{addr}");
    }
    let client = Client::new("http://[::1]:8080/", None).expect("it can work");
    assert_eq!(client.addr(), "http://[::1]:8080");
    assert!(Client::new("host:1", Some("line\nbreak")).is_err());
}

#[tokio::test]
async fn events_come_with_gaps_and_a_break_is_told() {
    let body = "event: gap\ndata: {\"oldest\":5}\n\n: still here\n\nevent: new-kind\ndata: {}\n\n\
        id: 5\nevent: event\ndata: {\"sequence\":5,\"at\":\"\",\"kind\":\"node-lost\",\
        \"level\":\"warning\",\"message\":\"m\"}\n\n";
    let server = Canned::serve(vec![answer("200 OK", "text/event-stream", "", body)]);
    let mut events = client(&server)
        .follow_events(Some(2))
        .await
        .expect("a stream");
    let first = events.next().await.expect("an item").expect("no error");
    assert_eq!(first, Happening::Gap(EventGap { oldest: 5 }));
    let second = events.next().await.expect("an item").expect("no error");
    assert!(matches!(second, Happening::Event(event) if event.sequence == 5));
    let third = events
        .next()
        .await
        .expect("an item")
        .expect_err("it broke off");
    assert!(matches!(third, ClientError::Interrupted { .. }));
    assert!(events.next().await.is_none());
    let request = &server.requests()[0];
    assert!(
        request.starts_with("GET /api/v1/events?follow=true&after=2 HTTP/1.1"),
        "{request}"
    );
    assert!(
        request.contains("accept: text/event-stream\r\n"),
        "{request}"
    );
    assert!(!request.contains("application/json"), "{request}");
}

#[tokio::test]
async fn logs_end_well_or_with_the_reason() {
    let line =
        "event: line\ndata: {\"at\":\"\",\"stream\":\"stdout\",\"text\":\"hi\",\"run\":1}\n\n";
    let well = format!("{line}event: end\ndata: {{}}\n\n{line}");
    let badly = "event: problem\ndata: {\"code\":\"node-unreachable\",\"detail\":\"gone\"}\n\n";
    let answers =
        [well.as_str(), badly].map(|body| answer("200 OK", "text/event-stream", "", body));
    let server = Canned::serve(answers.to_vec());
    let client = client(&server);
    let query = LogQuery {
        tail: Some(10),
        previous: true,
        ..LogQuery::default()
    };
    let lines: Vec<_> = client
        .logs("web", &query)
        .await
        .expect("a stream")
        .collect()
        .await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].as_ref().expect("a line").text, "hi");
    let stream = client
        .assignment_logs("1a2b3c4d", &LogQuery::default())
        .await;
    let lines: Vec<_> = stream.expect("a stream").collect().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(
        lines[0].as_ref().expect_err("a reason").code(),
        Some("node-unreachable")
    );
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /api/v1/workloads/web/logs?tail=10&previous=true HTTP"));
    assert!(
        requests[1].starts_with("GET /api/v1/assignments/1a2b3c4d/logs HTTP"),
        "{}",
        requests[1]
    );
}

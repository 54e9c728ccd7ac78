//! Logs over WebSockets: ours with the events of the stream, MIaaS's as text. Fake nodes, whose units have written
//! `line 1` to `line 3`, and a real client.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{SinkExt as _, StreamExt as _};
use hostler_control::fake::FakeMachine;
use hostler_control::{Link, LogRecord, LogRequest, LogStream};
use hostler_model::spec::Kind;
use hostler_model::{Refusal, Timestamp, UnitId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::server::{DEADLINE, Server};

type Opened = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) fn request(server: &Server, path: &str, origin: Option<&str>) -> Request {
    let mut request = format!("ws://{}{path}", server.addr)
        .into_client_request()
        .expect("a request");
    if let Some(origin) = origin {
        let origin = origin.parse().expect("an origin");
        request.headers_mut().insert("origin", origin);
    }
    request
}

async fn open(server: &Server, path: &str) -> Opened {
    let opened = tokio_tungstenite::connect_async(request(server, path, None)).await;
    opened.expect("it opens").0
}

/// The status with which the handshake is refused.
async fn refused(server: &Server, path: &str, origin: Option<&str>) -> u16 {
    match tokio_tungstenite::connect_async(request(server, path, origin)).await {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{path} opened, or broke: {other:?}"),
    }
}

/// The next frame that is no ping: text, or code and reason of the close.
async fn next(socket: &mut Opened) -> Result<String, (u16, String)> {
    loop {
        let frame = tokio::time::timeout(DEADLINE, socket.next()).await;
        let frame = frame.expect("something comes").expect("a frame");
        match frame.expect("a whole frame") {
            Message::Text(text) => return Ok(text.to_string()),
            Message::Close(Some(close)) => {
                return Err((close.code.into(), close.reason.to_string()));
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn deploy(server: &Server, id: &str) {
    let deployment = json!({"deployment_id": id, "template_id": "web", "action": "apply",
        "rendered_compose": "services: {web: {image: nginx}}", "env": {}});
    let answer = server
        .post("/api/v1/deployments", &deployment.to_string())
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text);
}

/// A node that runs compose projects, and a deployment on it.
async fn deployed(server: &Server) -> hostler_control::fake::FakeNode {
    let mut machine = FakeMachine::named("box");
    machine.kinds.push(Kind::Compose);
    let node = hostler_control::fake::FakeNode::join(&server.control, machine)
        .await
        .expect("the node joins");
    deploy(server, "db").await;
    server
        .until("/api/v1/deployments/db", |it| it["status"] == "running")
        .await;
    node
}

#[tokio::test]
async fn a_socket_tells_the_events_of_the_stream_and_closes_at_the_end() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    server.apply("web", 1).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    let copies = server.get("/api/v1/assignments").await.json();
    let of_copy = format!(
        "/api/v1/assignments/{}/logs",
        copies[0]["id"].as_str().unwrap()
    );
    for path in ["/api/v1/workloads/web/logs", &of_copy] {
        let mut socket = open(&server, path).await;
        for number in 1..=3 {
            let frame: Value = serde_json::from_str(&next(&mut socket).await.unwrap()).unwrap();
            assert_eq!(frame["event"], "line");
            assert_eq!(frame["data"]["text"], format!("line {number}"));
        }
        let close = next(&mut socket).await.unwrap_err();
        assert_eq!(close, (1000, "the log is complete".to_owned()));
    }
    let nothing = "/api/v1/workloads/nothing/logs";
    assert_eq!(refused(&server, nothing, None).await, 404);
    server.shut_down().await;
}

#[tokio::test]
async fn a_deployments_log_is_tailed_as_text_until_it_is_gone() {
    let server = Server::start().await;
    let _node = deployed(&server).await;
    let mut socket = open(&server, "/ws/logs?deployment=db").await;
    // The fake's tail is as long as what is asked for.
    assert_eq!(next(&mut socket).await.unwrap(), "line 1\n");
    let mut short = open(&server, "/ws/logs?deployment=db&tail=1").await;
    assert_eq!(next(&mut short).await.unwrap(), "line 1\n");
    // What a client says is not read, and ends nothing.
    short.send(Message::Text("hello".into())).await.unwrap();
    server
        .send(Method::DELETE, "/api/v1/deployments/db", &[], "")
        .await;
    server
        .until("/api/v1/deployments", |it| {
            it.as_array().unwrap().is_empty()
        })
        .await;
    drop(socket);
    server.shut_down().await;
    let close = loop {
        if let Err(close) = next(&mut short).await {
            break close;
        }
    };
    assert!(matches!(close.0, 1000 | 1001), "{close:?}");
}

#[tokio::test]
async fn what_a_socket_cannot_tell_is_said_by_its_close_code() {
    let server = Server::start().await;
    let mut unknown = open(&server, "/ws/logs?deployment=nothing").await;
    let close = next(&mut unknown).await.unwrap_err();
    assert_eq!(close, (4404, "Deployment not found".to_owned()));
    let mut nameless = open(&server, "/ws/logs").await;
    let close = next(&mut nameless).await.unwrap_err();
    assert_eq!(close, (1008, "deployment is missing".to_owned()));
    // A workload of ours is no deployment.
    server.apply("web", 1).await;
    let mut ours = open(&server, "/ws/logs?deployment=web").await;
    assert_eq!(next(&mut ours).await.unwrap_err().0, 4404);
    server
        .get("/ws/logs?deployment=db")
        .await
        .is_problem(400, "bad-request");
    server.shut_down().await;
}

#[tokio::test]
async fn a_deployment_that_waits_for_a_node_is_tailed_once_it_has_one() {
    let server = Server::start().await;
    deploy(&server, "db").await;
    let mut socket = open(&server, "/ws/logs?deployment=db&tail=3").await;
    let mut machine = FakeMachine::named("box");
    machine.kinds.push(Kind::Compose);
    let _node = hostler_control::fake::FakeNode::join(&server.control, machine)
        .await
        .unwrap();
    loop {
        if next(&mut socket).await.unwrap() == "line 3\n" {
            break;
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn pages_of_other_origins_open_no_socket() {
    let server = Server::start().await;
    let _node = deployed(&server).await;
    for path in ["/ws/logs?deployment=db", "/api/v1/workloads/db/logs"] {
        for origin in ["http://evil.example", "null"] {
            assert_eq!(refused(&server, path, Some(origin)).await, 403, "{path}");
        }
        let own = format!("http://{}", server.addr);
        let request = request(&server, path, Some(&own));
        assert!(tokio_tungstenite::connect_async(request).await.is_ok());
    }
    server.shut_down().await;
}

/// A unit that writes as fast as it is read, and counts.
struct Flood {
    written: Arc<std::sync::atomic::AtomicU64>,
}

#[async_trait]
impl Link for Flood {
    fn wake(&self) {}

    async fn logs(
        &self,
        _: UnitId,
        _: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        let written = Arc::clone(&self.written);
        let lines = stream::iter(1_u64..).then(move |number| {
            written.store(number, std::sync::atomic::Ordering::Relaxed);
            async move {
                tokio::task::yield_now().await;
                Ok(LogRecord {
                    at: Timestamp::from_millis(number),
                    stream: LogStream::Stdout,
                    text: format!("{number} {}", "x".repeat(1000)),
                    is_partial: false,
                    run: 1,
                })
            }
        });
        Ok(lines.boxed())
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_gets_a_marked_gap_and_holds_up_nobody() {
    let server = Server::start().await;
    let node = server.node("box").await;
    server.apply("web", 1).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    let written = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let link = Arc::new(Flood {
        written: Arc::clone(&written),
    });
    let _session = server
        .control
        .attach(node.id(), "boot 1 of box", link)
        .unwrap();
    let mut socket = open(&server, "/api/v1/workloads/web/logs?follow=true").await;
    // Far more than all buffers on the way hold is written while the client sleeps.
    let flooding = async {
        while written.load(std::sync::atomic::Ordering::Relaxed) < 100_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE * 4, flooding)
        .await
        .expect("the writer is not held up");
    let mut last = 0;
    let missed: u64 = loop {
        let frame: Value = serde_json::from_str(&next(&mut socket).await.unwrap()).unwrap();
        let text = frame["data"]["text"].as_str().unwrap();
        let number = text.split(' ').next().unwrap().parse().unwrap();
        if frame["data"]["stream"] == "notice" {
            assert!(text.ends_with("the reader is too slow"), "{text}");
            break number;
        }
        assert_eq!(number, last + 1, "nothing is missing before the mark");
        last = number;
    };
    let frame: Value = serde_json::from_str(&next(&mut socket).await.unwrap()).unwrap();
    let text = frame["data"]["text"].as_str().unwrap();
    let number: u64 = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(number, last + missed + 1, "the mark counts what is missing");
    drop(socket);
    server.shut_down().await;
}

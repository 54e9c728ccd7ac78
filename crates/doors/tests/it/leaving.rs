//! Streams end with what they were opened by: a token that is revoked or over, or the node at the other end.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hostler_control::fake::FakeNode;
use hostler_control::fleet::AccessVerb;
use hostler_control::{Link, LogRecord, LogRequest, Tunnel, Tunnels};
use hostler_doors::{Auth, Opened};
use hostler_model::{AccessRole, Contract, Errand, Refusal, Timestamp, UnitId};
use hostler_wire::api::{ErrandWord, ExecQuery, ForwardQuery};
use hostler_wire::client::{Client, ErrandMessage, ErrandReceiver, ErrandSender};
use hostler_wire::orchion::v1::StreamLogsRequest;
use hostler_wire::orchion::v1::log_streamer_client::LogStreamerClient;
use hostler_wire::persys::control::ControlMessage;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::access::Guarded;
use crate::persys_world;
use crate::server::{DEADLINE, spec};
use crate::sockets::request;
use crate::streams::Sse;

/// A node that begins whatever it is asked for, and says nothing.
struct Silent;

#[async_trait]
impl Link for Silent {
    fn wake(&self) {}

    async fn logs(
        &self,
        _: UnitId,
        _: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        Ok(stream::pending().boxed())
    }

    fn tunnels(&self) -> Option<&dyn Tunnels> {
        Some(self)
    }
}

#[async_trait]
impl Tunnels for Silent {
    async fn open(&self, _: UnitId, _: Errand) -> Result<Tunnel, Refusal> {
        let (said, mut heard) = mpsc::channel(1);
        // It hears as long as somebody speaks.
        let told = stream::once(async move {
            while heard.recv().await.is_some() {}
            std::future::pending().await
        });
        let told = told.boxed();
        Ok(Tunnel { said, told })
    }
}

/// A server with login, and a copy on a silent node.
struct Scene {
    guarded: Guarded,
    node: FakeNode,
    _session: hostler_control::Attachment,
    copy: String,
}

impl Scene {
    async fn start() -> Self {
        let guarded = Guarded::start().await;
        let operator = guarded.token(AccessRole::Operator).await;
        let bearer = format!("Bearer {operator}");
        let headers = [("authorization", bearer.as_str())];
        let node = guarded.server.node("box").await;
        let server = &guarded.server;
        server
            .send(Method::POST, "/api/v1/workloads", &headers, spec("web", 1))
            .await;
        let copy = loop {
            let shown = server
                .send(Method::GET, "/api/v1/assignments", &headers, "")
                .await
                .json();
            if let Some(id) = shown[0]["id"].as_str() {
                break id.to_owned();
            }
            tokio::task::yield_now().await;
        };
        let link = Arc::new(Silent);
        let session = server
            .control
            .attach(node.id(), "boot 1 of box", link)
            .unwrap();
        Self {
            guarded,
            node,
            _session: session,
            copy,
        }
    }

    fn client(&self, token: &str) -> Client {
        Client::new(&self.guarded.server.url(""), Some(token)).unwrap()
    }

    async fn follow(&self, token: &str, path: &str) -> Sse {
        let bearer = format!("Bearer {token}");
        Sse::open(
            &self.guarded.server,
            path,
            &[("authorization", bearer.as_str())],
        )
        .await
    }
}

/// The code of the problem that ends a stream of events; what comes before is passed over.
async fn end_of(mut stream: Sse) -> String {
    let mut last = None;
    while let Some((event, body)) = stream.next().await {
        last = Some((event.event, body));
    }
    let (event, body) = last.expect("a last word");
    assert_eq!(event, "problem");
    body["code"].as_str().unwrap().to_owned()
}

/// The same of a tunnel.
async fn last_word((_says, mut hears): (ErrandSender, ErrandReceiver)) -> String {
    match tokio::time::timeout(DEADLINE, hears.next()).await.unwrap() {
        Ok(Some(ErrandMessage::Word(ErrandWord::Problem(problem)))) => problem.code,
        Err(error) => error.code().unwrap_or_else(|| panic!("{error}")).to_owned(),
        other => panic!("{other:?}"),
    }
}

fn exec() -> ExecQuery {
    ExecQuery {
        command: vec!["sh".to_owned()],
        input: true,
        ..ExecQuery::default()
    }
}

fn forward() -> ForwardQuery {
    ForwardQuery {
        port: 80,
        ..ForwardQuery::default()
    }
}

#[tokio::test]
async fn what_was_opened_with_a_token_ends_when_it_is_revoked_and_nothing_else_does() {
    let scene = Scene::start().await;
    let (id, token) = scene.guarded.token_until(AccessRole::Admin, None).await;
    let other = scene.guarded.token(AccessRole::Viewer).await;
    let client = scene.client(&token);
    let (logs, events) = (
        "/api/v1/workloads/web/logs?follow=true",
        "/api/v1/events?follow=true",
    );
    let (log, happenings) = (
        scene.follow(&token, logs).await,
        scene.follow(&token, events).await,
    );
    let command = client.exec(&scene.copy, &exec()).await.unwrap();
    let connection = client.forward(&scene.copy, &forward()).await.unwrap();
    let mut opening = request(&scene.guarded.server, logs, None);
    let bearer = format!("Bearer {token}").parse().unwrap();
    opening.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = tokio_tungstenite::connect_async(opening).await.unwrap();
    let mut others = scene.follow(&other, events).await;

    scene.guarded.submit(AccessVerb::Revoke { token: id }).await;
    let ended = tokio::join!(
        end_of(log),
        end_of(happenings),
        last_word(command),
        last_word(connection)
    );
    let code = || "unauthenticated".to_owned();
    assert_eq!(ended, (code(), code(), code(), code()));
    let closed = loop {
        let frame = tokio::time::timeout(DEADLINE, socket.next()).await.unwrap();
        match frame.unwrap().unwrap() {
            Message::Text(text) => {
                let word: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(word["event"], "problem", "{word}");
            }
            Message::Close(Some(close)) => break close,
            _ => {}
        }
    };
    assert_eq!(
        (u16::from(closed.code), closed.reason.as_str()),
        (1011, "unauthenticated")
    );
    // The other's stream tells of it, and goes on.
    loop {
        let (event, body) = others.next().await.unwrap();
        assert_eq!(event.event, "event");
        if body["kind"] == "token-revoked" {
            break;
        }
    }
    drop(others);
    scene.guarded.server.shut_down().await;
}

#[tokio::test]
async fn what_was_opened_with_a_token_ends_when_its_time_is_over() {
    let scene = Scene::start().await;
    // Long enough for both to be opened with it on a busy machine.
    let end = Timestamp::from_millis(scene.guarded.now().as_millis() + 10_000);
    let (_, token) = scene
        .guarded
        .token_until(AccessRole::Admin, Some(end))
        .await;
    let log = scene
        .follow(&token, "/api/v1/workloads/web/logs?follow=true")
        .await;
    let command = scene
        .client(&token)
        .exec(&scene.copy, &exec())
        .await
        .unwrap();
    let ended = tokio::join!(end_of(log), last_word(command));
    assert_eq!(
        ended,
        ("unauthenticated".to_owned(), "unauthenticated".to_owned())
    );
    assert!(scene.guarded.now() >= end, "it lasted for its time");
    scene.guarded.server.shut_down().await;
}

fn showing<T>(bearer: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("authorization", bearer.parse().unwrap());
    request
}

#[tokio::test]
async fn streams_of_other_contracts_end_with_the_token_as_well() {
    let doors = [Contract::Orchion, Contract::Persys, Contract::Spot];
    let opened = Opened {
        doors: doors.map(|door| (door, Auth::Token)).into(),
        ..Opened::default()
    };
    let guarded = Guarded::opening(opened, |_, _| {}).await;
    let admin = format!("Bearer {}", guarded.token(AccessRole::Admin).await);
    let send = async |path: &str, body: String| {
        let shown = [("authorization", admin.as_str())];
        guarded.server.send(Method::POST, path, &shown, body).await
    };
    let order = json!({"name": "acme", "email": "acme@example.com"}).to_string();
    let created = send("/api/admin/clients/create", order).await.json();
    let text = |key: &str| created["client"][key].as_str().unwrap().to_owned();
    let (client, own) = (text("id"), format!("Bearer {}", text("token")));
    let (id, token) = guarded.token_until(AccessRole::Operator, None).await;
    let operator = format!("Bearer {token}");
    let open = async |path: &str, bearer: &str| {
        let headers = [("authorization", bearer), ("accept", "text/event-stream")];
        Sse::open(&guarded.server, path, &headers).await
    };
    let of_client = format!("/api/events/stream/{client}");
    let mut clients = open(&of_client, &own).await;
    let streams = [
        open(&of_client, &operator).await,
        open("/api/logs", &operator).await,
    ];
    let channel = LogStreamerClient::connect(guarded.server.url(""));
    let request = showing(&operator, StreamLogsRequest::default());
    let answer = channel.await.unwrap().stream_logs(request).await;
    let mut entries = answer.unwrap().into_inner();
    let mut persys = persys_world::client(&guarded.server.url("")).await;
    let request = showing(&operator, stream::pending::<ControlMessage>());
    let answer = persys.control_stream(request).await;
    let mut orders = answer.unwrap().into_inner();

    guarded.submit(AccessVerb::Revoke { token: id }).await;
    for mut stream in streams {
        while stream.next().await.is_some() {}
    }
    let refused = loop {
        match tokio::time::timeout(DEADLINE, entries.message())
            .await
            .unwrap()
        {
            Ok(entry) => assert!(entry.is_some(), "it ends with a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let order = tokio::time::timeout(DEADLINE, orders.message()).await;
    let refused = order.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    // The client's own is another, and ends when the client gets a new one.
    assert!(clients.next().await.is_some());
    let path = format!("/api/admin/clients/{client}/regenerate-token");
    assert!(send(&path, String::new()).await.status.is_success());
    while clients.next().await.is_some() {}
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn what_leads_into_a_copy_ends_when_its_node_is_removed() {
    let scene = Scene::start().await;
    let token = scene.guarded.token(AccessRole::Admin).await;
    let client = scene.client(&token);
    let command = client.exec(&scene.copy, &exec()).await.unwrap();
    let connection = client.forward(&scene.copy, &forward()).await.unwrap();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let path = format!("/api/v1/nodes/{}?force=true", scene.node.id());
    let removed = scene
        .guarded
        .server
        .send(Method::DELETE, &path, &headers, "")
        .await;
    assert!(removed.status.is_success(), "{}", removed.text);
    let ended = tokio::join!(last_word(command), last_word(connection));
    assert_eq!(ended, ("node-gone".to_owned(), "node-gone".to_owned()));
    scene.guarded.server.shut_down().await;
}

//! Orchion's gateway over HTTP, its key, and the log in both of its ways out.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use hostler_control::{Control, ControlConfig};
use hostler_doors::{Dialect, Parts};
use hostler_kit::{Entropy, SeededEntropy, SimulatedClock, Tasks};
use hostler_store::MemoryStore;
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::log_streamer_client::LogStreamerClient;
use http_body_util::BodyExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tonic::Code;
use tower::ServiceExt as _;

use crate::orchion::{agent, alone, beat, hasty, node, register};
use crate::raw::say;
use crate::server::{DEADLINE, Server, store};

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_as_go_does() {
    let server = alone().await;
    let addr = server.addr.to_string();
    for path in [
        "/",
        "/health",
        "/api/nodes/x",
        "/api/v1/nodes",
        "/v1/models",
    ] {
        let said = say(&addr, &format!("GET {path}")).await.is(404);
        assert_eq!(said.body, "404 page not found\n", "{path}");
        assert_eq!(said.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(said.header("x-content-type-options"), "nosniff");
    }
    for (method, path, allow, headers) in [
        ("DELETE", "/api/nodes", "GET, OPTIONS", "Content-Type"),
        ("PUT", "/api/logs", "GET, OPTIONS", "Cache-Control"),
        (
            "GET",
            "/v1/chat/completions",
            "POST, OPTIONS",
            "Content-Type, Authorization",
        ),
        (
            "GET",
            "/v1/embeddings",
            "POST, OPTIONS",
            "Content-Type, Authorization",
        ),
    ] {
        let said = say(&addr, &format!("{method} {path}")).await.is(405);
        assert_eq!(
            (said.body.as_str(), said.header("allow")),
            ("Method not allowed\n", allow)
        );
        let said = say(&addr, &format!("OPTIONS {path}\norigin: http://x"))
            .await
            .is(200);
        assert_eq!(
            (
                said.body.as_str(),
                said.header("access-control-allow-origin")
            ),
            ("", "*")
        );
        assert_eq!(said.header("access-control-allow-methods"), allow);
        assert_eq!(said.header("access-control-allow-headers"), headers);
    }
    say(&addr, "HEAD /api/nodes").await.is(405);
    let service = "POST /some.v1.Service/Call\ncontent-type: application/grpc";
    let said = say(&addr, service).await.is(200);
    assert_eq!(
        said.header("grpc-status"),
        (Code::Unimplemented as i32).to_string()
    );
    let method = "POST /orchion.v1.Orchestrator/Nothing\ncontent-type: application/grpc";
    assert_eq!(
        say(&addr, method).await.header("grpc-status"),
        (Code::Unimplemented as i32).to_string()
    );
    server.shut_down().await;
}

#[tokio::test]
async fn beside_other_contracts_only_what_lies_below_its_routes_is_its_own() {
    let server = Server::start().await;
    let addr = server.addr.to_string();
    assert_eq!(
        say(&addr, "GET /api/nodes/x").await.is(404).body,
        "404 page not found\n"
    );
    server
        .get("/nowhere")
        .await
        .is_problem(404, "route-not-found");
    server
        .post("/v1/embeddings", "{}")
        .await
        .is_problem(404, "route-not-found");
    server.shut_down().await;
}

#[tokio::test]
async fn inference_over_http_is_checked_and_then_fails_as_the_gateway_does() {
    let server = alone().await;
    let addr = server.addr.to_string();
    let none =
        "rpc error: code = NotFound desc = no node available for model llama2: no nodes available";
    let chat =
        r#"{"model": "llama2", "messages": [{"role": "user", "content": "x"}], "max_tokens": 50}"#;
    let said = say(&addr, &format!("POST /v1/chat/completions\n\n{chat}"))
        .await
        .is(500);
    assert_eq!(said.body, format!("Failed to receive response: {none}\n"));
    let embed = r#"{"model": "llama2", "input": "x"}"#;
    let said = say(&addr, &format!("POST /v1/embeddings\n\n{embed}"))
        .await
        .is(500);
    assert_eq!(said.body, format!("Failed to call orchestrator: {none}\n"));
    let streamed = chat.replace("max_tokens\": 50", "stream\": true");
    let said = say(&addr, &format!("POST /v1/chat/completions\n\n{streamed}"))
        .await
        .is(200);
    assert_eq!(said.header("content-type"), "text/event-stream");
    assert_eq!(said.body, format!("data: {}\n\n", json!({"error": none})));
    for body in ["", "{", "[]", "7"] {
        let said = say(&addr, &format!("POST /v1/chat/completions\n\n{body}"))
            .await
            .is(400);
        assert!(
            said.body.starts_with("Invalid JSON: "),
            "{body}: {}",
            said.body
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn the_key_guards_inference_and_nothing_else() {
    let server = Server::of(ControlConfig::default(), &store(), |mut parts| {
        parts.orchion.api_key = Some("secret".into());
        parts.router(Dialect::Orchion)
    })
    .await;
    let addr = server.addr.to_string();
    for (authorization, status) in [
        ("", 401),
        ("\nauthorization: Bearer wrong", 401),
        ("\nauthorization: Bearer secret", 400),
        ("\nauthorization: sk-secret", 400),
        ("\nauthorization: secret", 400),
    ] {
        let said = say(
            &addr,
            &format!("POST /v1/embeddings{authorization}\n\n{{}}"),
        )
        .await;
        assert_eq!(said.status, status, "{authorization}");
        assert_eq!(said.header("access-control-allow-origin"), "*");
        assert_eq!(said.body == "Unauthorized\n", status == 401);
    }
    say(&addr, "GET /api/nodes").await.is(200);
    beat(&mut agent(&server).await, "x")
        .await
        .expect_err("it is unknown, and not unauthorized");
    // Guesses are counted; who knows the key, or shows none, is not kept out by those of others.
    let post = async |shown: &str| {
        let request = format!("POST /v1/embeddings{shown}\n\n{{}}");
        say(&addr, &request).await.status
    };
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..30 {
        statuses.insert(post("\nauthorization: Bearer guess").await);
    }
    assert_eq!(statuses, [401, 429].into());
    assert_eq!(post("\nauthorization: Bearer secret").await, 400);
    assert_eq!(post("").await, 401);
    server.shut_down().await;
}

#[tokio::test]
async fn logs_are_streamed_as_they_happen() {
    let server = Server::start().await;
    let mut client = LogStreamerClient::connect(server.url(""))
        .await
        .expect("it listens");
    let opened = client
        .stream_logs(v1::StreamLogsRequest {})
        .await
        .expect("a stream");
    let mut entries = opened.into_inner();
    register(&mut agent(&server).await, node("a"))
        .await
        .expect("it is taken");
    let mut next = async || {
        let next = tokio::time::timeout(DEADLINE, entries.message()).await;
        next.expect("in time")
            .expect("no failure")
            .expect("it stays open")
            .entry
            .expect("an entry")
    };
    let joined = next().await;
    assert_eq!(
        (joined.source.as_str(), joined.level),
        ("node-agent:a", v1::LogLevel::Info as i32)
    );
    assert_eq!(
        (joined.message.as_str(), joined.fields["kind"].as_str()),
        ("node box joined the fleet", "node-joined")
    );
    assert_eq!(
        (joined.id, joined.fields["node"].as_str()),
        (format!("{}-node-agent:a", joined.timestamp), "a")
    );
    assert!(joined.timestamp > 1_700_000_000_000, "milliseconds");
    let ready = next().await;
    assert_eq!(ready.fields["kind"], "node-ready");
    server.apply("web", 1).await;
    let applied = next().await;
    assert_eq!(
        (applied.source.as_str(), applied.fields["actor"].as_str()),
        ("orchestrator", "user/anonymous")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn the_log_is_a_stream_for_dashboards_and_a_list_for_others() {
    let server = Server::with(hasty()).await;
    let request = server
        .request(Method::GET, "/api/logs")
        .header("accept", "text/event-stream");
    let response = request.send().await.expect("an answer");
    assert_eq!(
        response.headers()["access-control-allow-headers"],
        "Cache-Control"
    );
    let mut chunks = response.bytes_stream();
    let mut text = String::new();
    let mut until = async |what: &str| {
        while !text.contains(what) {
            let chunk = tokio::time::timeout(DEADLINE, chunks.next()).await;
            let chunk = chunk
                .expect("in time")
                .expect("it stays open")
                .expect("no failure");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text.clone()
    };
    let greeting = until("\n\n").await;
    assert_eq!(greeting, "data: {\"type\": \"connected\"}\n\n");
    let mut agent = agent(&server).await;
    register(&mut agent, node("a")).await.expect("it is taken");
    let text = until("node-lost").await;
    let bodies: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter_map(|json| serde_json::from_str(json).ok())
        .collect();
    assert_eq!(bodies[1]["type"], "log");
    let entry = &bodies[1]["entry"];
    for key in ["id", "timestamp", "level", "source", "message", "fields"] {
        assert!(!entry[key].is_null(), "{key} in {entry}");
    }
    let level = |bodies: &[Value], kind: &str| {
        let entry = bodies
            .iter()
            .map(|body| &body["entry"])
            .find(|it| it["fields"]["kind"] == kind);
        entry.map(|entry| entry["level"].clone())
    };
    assert_eq!(level(&bodies, "node-joined"), Some("info".into()));
    let lost = level(&bodies, "node-lost").expect("it is told");
    let list = server.get("/api/logs").await;
    assert_eq!(list.header("content-type"), "application/json");
    let list = list.json();
    let last = list
        .as_array()
        .and_then(|list| list.last())
        .expect("an entry");
    assert_eq!(last["fields"]["kind"], "node-lost");
    assert_eq!(
        (lost == "warning", last["level"] == "warn"),
        (true, true),
        "each reader's own word"
    );
    server.shut_down().await;
}

/// Without sockets, so that time can be moved.
#[tokio::test(start_paused = true)]
async fn a_quiet_stream_shows_that_it_lives() {
    let clock = Arc::new(SimulatedClock::starting_at(1_700_000_000_000));
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let parts = hostler_control::Parts {
        store: Arc::new(MemoryStore::new(clock.clone())),
        clock,
        entropy: Arc::clone(&entropy),
        tasks: Tasks::new(),
    };
    let control = Control::start(ControlConfig::default(), parts)
        .await
        .expect("it starts");
    let router = Parts::new(&control, &entropy).router(Dialect::Orchion);
    let request = http::Request::get("/api/logs").header("accept", "text/event-stream");
    let request = request.body(axum::body::Body::empty()).expect("a request");
    let mut body = router
        .oneshot(request)
        .await
        .expect("an answer")
        .into_body();
    let mut next = async || {
        let frame = body
            .frame()
            .await
            .expect("it stays open")
            .expect("no failure");
        String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text")
    };
    assert_eq!(next().await, "data: {\"type\": \"connected\"}\n\n");
    for seconds in [30, 60] {
        let expected = json!({"type": "keepalive", "timestamp": 1_700_000_000 + seconds});
        assert_eq!(next().await, format!("data: {expected}\n\n"));
    }
    let ended = control.tasks().shut_down(DEADLINE).await;
    assert_eq!(ended, Ok(()));
    assert!(body.frame().await.is_none(), "it ends with the server");
}

#[tokio::test]
async fn an_interval_near_the_lease_is_told_once_and_shown() {
    let lines = Lines::default();
    let writer = lines.clone();
    // The test's runtime has one thread, so the server's tasks log here as well.
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let mut config = ControlConfig::default();
    config.foreign.orchion.beat = Duration::from_millis(2);
    config.foreign.orchion.window = Duration::from_millis(6);
    let server = Server::with(config).await;
    let mut agent = agent(&server).await;
    register(&mut agent, node("my-server-01"))
        .await
        .expect("it is taken");
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        beat(&mut agent, "my-server-01").await.expect("it is taken");
    }
    let lease = server.get("/api/v1/nodes/box").await.json()["lease"].clone();
    assert!(lease["spacing_ms"].as_u64() >= Some(20), "{lease}");
    assert_eq!(lease["advised_ms"], 2);
    let text = lines.text();
    let warned: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("beats come too rarely"))
        .collect();
    assert_eq!(warned.len(), 1, "{text}");
    for word in ["WARN", "box", "orchion", "set_at_most_seconds=0.002"] {
        assert!(warned[0].contains(word), "{word} in {}", warned[0]);
    }
    let joined = text
        .lines()
        .find(|line| line.contains("node joined"))
        .expect("a line");
    for word in ["INFO", "my-server-01", "box", "orchion"] {
        assert!(joined.contains(word), "{word} in {joined}");
    }
    server.shut_down().await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panicked").clone()).expect("text")
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("nobody panicked")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! Orchion's contract on our side: what its agents rely on, what its clients read, and what the fleet keeps of it.

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
use hostler_wire::orchion::v1::node_agent_client::NodeAgentClient;
use hostler_wire::orchion::v1::orchestrator_client::OrchestratorClient;
use hostler_wire::orchion::v1::orchion_llm_client::OrchionLlmClient;
use http_body_util::BodyExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use crate::raw::say;
use crate::server::{DEADLINE, Server, store};

type Agent = OrchestratorClient<Channel>;

/// A server on Orchion's own port.
async fn alone() -> Server {
    Server::of(ControlConfig::default(), &store(), |parts| {
        parts.router(Dialect::Orchion)
    })
    .await
}

async fn agent(server: &Server) -> Agent {
    OrchestratorClient::connect(server.url(""))
        .await
        .expect("it listens")
}

fn node(id: &str) -> v1::Node {
    v1::Node {
        id: id.to_owned(),
        hostname: "box".to_owned(),
        capabilities: Some(capabilities("41°C")),
        last_seen_unix: 7,
        agent_address: "box:50052".to_owned(),
    }
}

fn capabilities(temperature: &str) -> v1::Capabilities {
    v1::Capabilities {
        cpu: "8 cores".to_owned(),
        memory: "15.50 GB".to_owned(),
        os: "linux/arm64".to_owned(),
        gpu_type: "NVIDIA A10".to_owned(),
        gpu_temperature: temperature.to_owned(),
        ..v1::Capabilities::default()
    }
}

async fn register(agent: &mut Agent, node: v1::Node) -> Result<(), Status> {
    let request = v1::RegisterNodeRequest { node: Some(node) };
    agent.register_node(request).await.map(|_| ())
}

async fn beat(agent: &mut Agent, id: &str) -> Result<(), Status> {
    let node_id = id.to_owned();
    agent
        .heartbeat(v1::HeartbeatRequest { node_id })
        .await
        .map(|_| ())
}

async fn update(
    agent: &mut Agent,
    id: &str,
    capabilities: Option<v1::Capabilities>,
) -> Result<(), Status> {
    let node_id = id.to_owned();
    let request = v1::UpdateNodeRequest {
        node_id,
        capabilities,
    };
    agent.update_node(request).await.map(|_| ())
}

async fn nodes(agent: &mut Agent) -> Vec<v1::Node> {
    let list = agent
        .list_nodes(v1::ListNodesRequest {})
        .await
        .expect("a list");
    list.into_inner().nodes
}

/// Leases that run out soon.
fn hasty() -> ControlConfig {
    let mut config = ControlConfig::default();
    config.foreign.orchion.beat = Duration::from_millis(50);
    config.foreign.orchion.window = Duration::from_millis(400);
    config.foreign.orchion.suspect_after = Duration::from_millis(300);
    config.foreign.orchion.most = Duration::from_millis(800);
    config
}

#[track_caller]
fn is<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, message: &str) {
    let status = result.expect_err("it is refused");
    assert_eq!((status.code(), status.message()), (code, message));
}

#[tokio::test]
async fn codes_and_texts_are_those_that_agents_rely_on() {
    let server = alone().await;
    let mut agent = agent(&server).await;
    let invalid = Code::InvalidArgument;
    let empty = v1::RegisterNodeRequest { node: None };
    is(
        agent.register_node(empty).await,
        invalid,
        "node is required",
    );
    is(
        register(&mut agent, node("")).await,
        invalid,
        "node.id is required",
    );
    is(beat(&mut agent, "").await, invalid, "node_id is required");
    is(
        beat(&mut agent, "x").await,
        Code::NotFound,
        "node not found",
    );
    let told = || Some(capabilities(""));
    is(
        update(&mut agent, "", told()).await,
        invalid,
        "node_id is required",
    );
    is(
        update(&mut agent, "x", None).await,
        invalid,
        "capabilities is required",
    );
    is(
        update(&mut agent, "x", told()).await,
        Code::NotFound,
        "node not found",
    );
    let job = |job_id: &str, job_type: i32| v1::SubmitJobRequest {
        job_id: job_id.to_owned(),
        job_type,
        payload: Vec::new(),
    };
    is(
        agent.submit_job(job("", 1)).await,
        invalid,
        "job_id is required",
    );
    is(
        agent.submit_job(job("x", 0)).await,
        invalid,
        "job_type is required",
    );
    is(
        agent.submit_job(job("x", 9)).await,
        invalid,
        "job_type is required",
    );
    is(
        agent.submit_job(job("x", 1)).await,
        Code::NotFound,
        "no nodes available",
    );
    let status = |job_id: &str| v1::GetJobStatusRequest {
        job_id: job_id.to_owned(),
    };
    is(
        agent.get_job_status(status("")).await,
        invalid,
        "job_id is required",
    );
    is(
        agent.get_job_status(status("x")).await,
        Code::NotFound,
        "job not found",
    );
    is(
        register(&mut agent, node(&"x".repeat(129))).await,
        invalid,
        "an id has at most 128 bytes",
    );
    let mut large = node("x");
    large.hostname = "x".repeat(20_000);
    is(
        register(&mut agent, large).await,
        invalid,
        "a node is described in at most 16384 bytes",
    );
    assert!(
        nodes(&mut agent).await.is_empty(),
        "what is refused changes nothing"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn inference_is_checked_and_then_finds_no_node() {
    let server = alone().await;
    let mut client = OrchionLlmClient::connect(server.url(""))
        .await
        .expect("it listens");
    let chat = |model: &str, count: usize| v1::ChatCompletionRequest {
        model: model.to_owned(),
        messages: vec![v1::ChatMessage::default(); count],
        ..v1::ChatCompletionRequest::default()
    };
    let embed = |model: &str, input: &[&str]| v1::EmbeddingRequest {
        model: model.to_owned(),
        input: input.iter().map(|&it| it.to_owned()).collect(),
    };
    let none = "no node available for model llama2: no nodes available";
    is(
        client.chat_completion(chat("", 1)).await,
        Code::InvalidArgument,
        "model is required",
    );
    is(
        client.chat_completion(chat("llama2", 0)).await,
        Code::InvalidArgument,
        "messages are required",
    );
    is(
        client.chat_completion(chat("llama2", 1)).await,
        Code::NotFound,
        none,
    );
    is(
        client.embeddings(embed("", &["x"])).await,
        Code::InvalidArgument,
        "model is required",
    );
    is(
        client.embeddings(embed("llama2", &[])).await,
        Code::InvalidArgument,
        "input is required",
    );
    is(
        client.embeddings(embed("llama2", &["x"])).await,
        Code::NotFound,
        none,
    );
    let mut theirs = NodeAgentClient::connect(server.url(""))
        .await
        .expect("it listens");
    let unserved = theirs
        .embeddings(embed("m", &["x"]))
        .await
        .expect_err("agents serve it");
    assert_eq!(unserved.code(), Code::Unimplemented);
    server.shut_down().await;
}

#[tokio::test]
async fn the_same_id_is_the_same_node_by_the_clock_of_the_server() {
    let server = alone().await;
    let mut agent = agent(&server).await;
    register(&mut agent, node("my-server-01"))
        .await
        .expect("it is taken");
    let first = nodes(&mut agent).await;
    assert!(
        first[0].last_seen_unix > 1_700_000_000,
        "the agent's clock is not read"
    );
    let expected = v1::Node {
        last_seen_unix: first[0].last_seen_unix,
        ..node("my-server-01")
    };
    assert_eq!(first, [expected]);
    let mut again = node("my-server-01");
    again.hostname = "other".to_owned();
    again.agent_address = String::new();
    register(&mut agent, again).await.expect("it is taken");
    let list = nodes(&mut agent).await;
    assert_eq!(list.len(), 1);
    assert_eq!(
        (list[0].hostname.as_str(), list[0].agent_address.as_str()),
        ("other", "box:50052")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn the_fleet_knows_what_its_agent_said_of_the_machine() {
    let server = Server::start().await;
    let mut agent = agent(&server).await;
    register(&mut agent, node("my-server-01"))
        .await
        .expect("it is taken");
    let shown = server.get("/api/v1/nodes/box").await.json();
    assert_eq!(
        (&shown["contract"], &shown["status"]),
        (&"orchion".into(), &"online".into())
    );
    assert_eq!(
        (
            &shown["capabilities"]["cpu_count"],
            &shown["capabilities"]["mem_mb"]
        ),
        (&8.into(), &15_872.into())
    );
    assert_eq!(
        (&shown["capabilities"]["os"], &shown["facts"]["arch"]),
        (&"linux".into(), &"aarch64".into())
    );
    assert_eq!(
        (&shown["capacity"]["milli_cpu"], &shown["ip"]),
        (&8_000.into(), &"127.0.0.1".into())
    );
    server.apply("web", 1).await;
    let why = server.get("/api/v1/workloads/web/why").await.json();
    assert_eq!(why["nodes"][0]["reasons"][0]["code"], "no-driver", "{why}");
    server.shut_down().await;
}

#[tokio::test]
async fn passing_figures_are_shown_and_never_written() {
    let server = Server::start().await;
    let mut agent = agent(&server).await;
    register(&mut agent, node("a")).await.expect("it is taken");
    let written = server.control.store_revision();
    update(&mut agent, "a", Some(capabilities("77°C")))
        .await
        .expect("it is taken");
    beat(&mut agent, "a").await.expect("it is taken");
    assert_eq!(server.control.store_revision(), written);
    let shown = nodes(&mut agent).await[0].capabilities.clone();
    assert_eq!(shown, Some(capabilities("77°C")));
    let mut grown = capabilities("77°C");
    grown.cpu = "16 cores".to_owned();
    update(&mut agent, "a", Some(grown.clone()))
        .await
        .expect("it is taken");
    assert!(server.control.store_revision() > written);
    let node = server.get("/api/v1/nodes/box").await.json();
    assert_eq!(
        (&node["capacity"]["milli_cpu"], &node["ip"]),
        (&16_000.into(), &"127.0.0.1".into())
    );
    let list = nodes(&mut agent).await;
    assert_eq!(list[0].capabilities, Some(grown));
    assert_eq!(
        list[0].agent_address, "box:50052",
        "an update says nothing of it"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_removed_node_is_unknown_and_stays_removed() {
    let server = Server::start().await;
    let mut agent = agent(&server).await;
    register(&mut agent, node("a")).await.expect("it is taken");
    server
        .send(Method::DELETE, "/api/v1/nodes/box", &[], "")
        .await;
    is(
        beat(&mut agent, "a").await,
        Code::NotFound,
        "node not found",
    );
    is(
        update(&mut agent, "a", Some(capabilities(""))).await,
        Code::NotFound,
        "node not found",
    );
    let refused = register(&mut agent, node("a"))
        .await
        .expect_err("it was removed");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(nodes(&mut agent).await.is_empty());
    assert_eq!(
        say(&server.addr.to_string(), "GET /api/nodes").await.body,
        "[]"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_silent_node_leaves_the_list_and_a_beat_brings_it_back() {
    let server = Server::with(hasty()).await;
    let mut agent = agent(&server).await;
    register(&mut agent, node("a")).await.expect("it is taken");
    server.until("/api/nodes", |list| list == &json!([])).await;
    beat(&mut agent, "a").await.expect("it is still known");
    server
        .until("/api/nodes", |list| list[0]["id"] == "a")
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_restart_keeps_the_node_and_its_agent_need_not_register() {
    let store = store();
    let doors = |parts: Parts| parts.router(Dialect::Hostler);
    let server = Server::of(ControlConfig::default(), &store, doors).await;
    register(&mut agent(&server).await, node("a"))
        .await
        .expect("it is taken");
    server.shut_down().await;
    let server = Server::of(ControlConfig::default(), &store, doors).await;
    let mut agent = agent(&server).await;
    beat(&mut agent, "a").await.expect("it is known");
    let list = nodes(&mut agent).await;
    assert_eq!(
        (list[0].agent_address.as_str(), &list[0].capabilities),
        ("box:50052", &node("a").capabilities)
    );
    server.shut_down().await;
}

#[tokio::test]
async fn the_seeds_step_lists_every_node_of_the_fleet_in_both_spellings() {
    let server = Server::start().await;
    let ours = server.node("ours").await;
    let mut agent = agent(&server).await;
    let bare = v1::Node {
        id: "a".to_owned(),
        ..v1::Node::default()
    };
    register(&mut agent, bare).await.expect("it is taken");
    let list = say(&server.addr.to_string(), "GET /api/nodes")
        .await
        .is(200)
        .json();
    let entry = |id: &str| {
        let list = list.as_array().expect("an array");
        list.iter()
            .find(|it| it["id"] == id)
            .cloned()
            .expect("it is listed")
    };
    let theirs = entry("a");
    let keys: Vec<&str> = theirs
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        ["id", "lastSeenUnix", "last_seen_unix"],
        "what is empty is left out"
    );
    assert_eq!(theirs["last_seen_unix"], theirs["lastSeenUnix"]);
    let ours = entry(&ours.id().to_string());
    assert_eq!(ours["hostname"], "ours");
    assert!(ours.get("agent_address").is_none());
    server.shut_down().await;
}

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

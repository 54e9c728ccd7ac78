//! Orchion's contract on our side: what its agents rely on, what its clients read, and what the fleet keeps of it.

use std::time::Duration;

use hostler_control::ControlConfig;
use hostler_doors::{Dialect, Parts};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::node_agent_client::NodeAgentClient;
use hostler_wire::orchion::v1::orchestrator_client::OrchestratorClient;
use hostler_wire::orchion::v1::orchion_llm_client::OrchionLlmClient;
use reqwest::Method;
use serde_json::json;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::raw::say;
use crate::server::{Server, store};

pub(crate) type Agent = OrchestratorClient<Channel>;

/// A server on Orchion's own port.
pub(crate) async fn alone() -> Server {
    Server::of(ControlConfig::default(), &store(), |parts| {
        parts.router(Dialect::Orchion)
    })
    .await
}

pub(crate) async fn agent(server: &Server) -> Agent {
    OrchestratorClient::connect(server.url(""))
        .await
        .expect("it listens")
}

pub(crate) fn node(id: &str) -> v1::Node {
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

pub(crate) async fn register(agent: &mut Agent, node: v1::Node) -> Result<(), Status> {
    let request = v1::RegisterNodeRequest { node: Some(node) };
    agent.register_node(request).await.map(|_| ())
}

pub(crate) async fn beat(agent: &mut Agent, id: &str) -> Result<(), Status> {
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

/// Leases that run out soon, the first time. That silence teaches more patience, so that there is time to see what
/// a beat after it brings, on a busy machine as well.
pub(crate) fn hasty() -> ControlConfig {
    let mut config = ControlConfig::default();
    config.foreign.orchion.beat = Duration::from_millis(50);
    config.foreign.orchion.window = Duration::from_millis(400);
    config.foreign.orchion.suspect_after = Duration::from_millis(300);
    config.foreign.orchion.most = Duration::from_secs(60);
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

/// A browser posts plain text anywhere without asking first.
#[tokio::test]
async fn plain_posts_of_pages_reach_no_service() {
    let server = Server::start().await;
    let request = v1::RegisterNodeRequest {
        node: Some(node("a")),
    };
    let message = prost::Message::encode_to_vec(&request);
    let length = u32::try_from(message.len()).expect("it is short");
    let frame = [&[0], length.to_be_bytes().as_slice(), &message].concat();
    for service in [
        "orchion.v1.Orchestrator/RegisterNode",
        "hostler.session.v1.Session/Control",
    ] {
        for content_type in ["text/plain", "application/x-www-form-urlencoded"] {
            let headers = [
                ("content-type", content_type),
                ("origin", "http://evil.example"),
            ];
            let path = format!("/{service}");
            let answer = server
                .send(Method::POST, &path, &headers, frame.clone())
                .await;
            assert_eq!(answer.status.as_u16(), 415, "{service} {content_type}");
        }
    }
    assert_eq!(server.get("/api/v1/nodes").await.json(), json!([]));
    let headers = [("content-type", "application/grpc")];
    let path = "/orchion.v1.Orchestrator/RegisterNode";
    server.send(Method::POST, path, &headers, frame).await;
    assert_eq!(server.get("/api/v1/nodes").await.json()[0]["name"], "box");
    server.shut_down().await;
}

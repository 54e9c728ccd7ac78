//! The agent under an Orchion orchestrator: a plain server generated from the contract, and its faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hostler_agent::orchion::Orchion;
use hostler_agent::{AgentStatus, Journal, Level, Uplink};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::node_agent_client::NodeAgentClient;
use hostler_wire::orchion::v1::orchestrator_server::{Orchestrator, OrchestratorServer};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::network::Weather;
use crate::node::{Running, World};
use crate::plane::Lines;

/// What the double knows and did.
#[derive(Default)]
struct State {
    nodes: BTreeMap<String, v1::Node>,
    /// The name of each call, and when it came.
    calls: Vec<(&'static str, Duration)>,
    registered: Vec<v1::Node>,
    updated: Vec<v1::UpdateNodeRequest>,
    /// Takes the place of every answer while it is set.
    fault: Option<Code>,
    is_mute: bool,
}

/// The double.
struct Double {
    state: Mutex<State>,
    begun: Instant,
}

#[derive(Clone)]
struct Door(Arc<Double>);

impl Double {
    fn start(world: &World) -> Arc<Self> {
        let double = Arc::new(Self {
            state: Mutex::default(),
            begun: Instant::now(),
        });
        let incoming = world.network.listen();
        let service = OrchestratorServer::new(Door(Arc::clone(&double)));
        world.tasks.spawn_until_stop("orchestrator", async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let _ = server.serve_with_incoming(incoming).await;
        });
        double
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn count(&self, call: &str) -> usize {
        self.state()
            .calls
            .iter()
            .filter(|(name, _)| *name == call)
            .count()
    }

    /// When each call of that name came.
    fn times(&self, call: &str) -> Vec<Duration> {
        let state = self.state();
        let calls = state.calls.iter().filter(|(name, _)| *name == call);
        calls.map(|(_, at)| *at).collect()
    }

    async fn called(&self, call: &'static str) -> Result<(), Status> {
        let (is_mute, fault) = {
            let mut state = self.state();
            state.calls.push((call, self.begun.elapsed()));
            (state.is_mute, state.fault)
        };
        if is_mute {
            std::future::pending::<()>().await;
        }
        fault.map_or(Ok(()), |code| {
            Err(Status::new(code, "as the test wants it"))
        })
    }

    fn known(&self, id: &str) -> Result<(), Status> {
        let is_known = self.state().nodes.contains_key(id);
        is_known
            .then_some(())
            .ok_or_else(|| Status::not_found("node not found"))
    }
}

#[tonic::async_trait]
impl Orchestrator for Door {
    async fn register_node(
        &self,
        request: Request<v1::RegisterNodeRequest>,
    ) -> Result<Response<v1::RegisterNodeResponse>, Status> {
        self.0.called("register").await?;
        let node = request.into_inner().node;
        let node = node.ok_or_else(|| Status::invalid_argument("node is required"))?;
        let mut state = self.0.state();
        state.registered.push(node.clone());
        state.nodes.insert(node.id.clone(), node);
        Ok(Response::new(Default::default()))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.0.called("heartbeat").await?;
        self.0.known(&request.get_ref().node_id)?;
        Ok(Response::new(Default::default()))
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::UpdateNodeResponse>, Status> {
        self.0.called("update").await?;
        self.0.known(&request.get_ref().node_id)?;
        self.0.state().updated.push(request.into_inner());
        Ok(Response::new(Default::default()))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let nodes = self.0.state().nodes.values().cloned().collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn submit_job(
        &self,
        _: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_job_status(
        &self,
        _: Request<v1::GetJobStatusRequest>,
    ) -> Result<Response<v1::GetJobStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn start(world: &World, lines: &Arc<Lines>) -> Running {
    start_as(world, lines, Orchion::default()).await
}

async fn start_as(world: &World, lines: &Arc<Lines>, orchion: Orchion) -> Running {
    let journal = Arc::clone(lines) as Arc<dyn Journal>;
    let started = world.try_start(|config| {
        config.uplink = Uplink::Orchion(Box::new(orchion));
        config.journal = journal;
    });
    started.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_detects_registers_beats_and_updates_in_that_order() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    let agent = start_as(
        &world,
        &lines,
        Orchion {
            node_id: Some("my-server-01".to_owned()),
            ..Orchion::default()
        },
    )
    .await;
    lines.until("Node registered successfully", 1).await;
    agent
        .until(|status| {
            *status
                == AgentStatus::Registered {
                    id: "my-server-01".to_owned(),
                }
        })
        .await;
    world.pass(Duration::from_secs(31)).await;
    let names: Vec<_> = double.state().calls.iter().map(|(name, _)| *name).collect();
    assert_eq!(names[..4], ["register", "heartbeat", "heartbeat", "update"]);
    let beats = double.times("heartbeat");
    assert!(
        beats
            .windows(2)
            .all(|pair| (pair[1] - pair[0]).as_secs() == 5),
        "{beats:?}"
    );
    let updates = double.times("update");
    assert!(
        updates
            .windows(2)
            .all(|pair| (pair[1] - pair[0]).as_secs() == 10),
        "{updates:?}"
    );
    let node = double.state().registered[0].clone();
    assert_eq!(node.id, "my-server-01");
    assert_eq!(
        (node.hostname.as_str(), node.agent_address.as_str()),
        ("host", "host:50052")
    );
    assert!(node.last_seen_unix >= 1_700_000_000);
    let capabilities = node.capabilities.unwrap();
    assert_eq!(capabilities.cpu, "4 cores");
    assert_eq!(capabilities.memory, "16.00 GB");
    assert_eq!(capabilities.os, "linux/amd64");
    assert_eq!(capabilities.gpu_type, "No GPU detected");
    assert_eq!(double.state().updated[0].capabilities, Some(capabilities));
    let texts = lines.texts();
    assert_eq!(
        texts[..2],
        ["Detected node capabilities", "Node registered successfully"]
    );
    let source = ("source", "node-agent:my-server-01".to_owned());
    assert!(lines.all().iter().all(|line| line.fields.contains(&source)));
    agent.stop().await;
    assert_eq!(lines.texts().last().unwrap(), "Shutting down node agent");
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_lost_its_nodes_is_told_everything_again() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    let _agent = start(&world, &lines).await;
    lines.until("Node registered successfully", 1).await;
    // As a restart: every connection breaks, and what was known is gone.
    world.network.set(Weather::Cut);
    lines.until("Failed to", 1).await;
    double.state().nodes.clear();
    world.network.set(Weather::Fair);
    lines.until("Node registered successfully", 2).await;
    assert_eq!(lines.count("Node not found by orchestrator"), 1);
    let registered = double.state().registered.clone();
    assert_eq!(registered[1].id, registered[0].id);
    assert_eq!(registered[1].agent_address, "host:50052");
    assert!(
        registered[1].last_seen_unix > registered[0].last_seen_unix,
        "a fresh moment"
    );
    let beats = double.count("heartbeat");
    world.pass(Duration::from_secs(11)).await;
    assert!(double.count("heartbeat") >= beats + 2);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_finds_no_node_registers_too() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    let orchion = Orchion {
        heartbeat_interval: Duration::from_secs(3600),
        ..Orchion::default()
    };
    let _agent = start_as(&world, &lines, orchion).await;
    lines.until("Node registered successfully", 1).await;
    double.state().nodes.clear();
    lines.until("Node registered successfully", 2).await;
    assert_eq!(double.count("heartbeat"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_is_not_there_is_called_less_and_less_often() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    world.network.set(Weather::Cut);
    let agent = start(&world, &lines).await;
    let told = lines.until("Failed to connect to orchestrator", 8).await;
    assert_eq!(told.level, Level::Error);
    let waits: Vec<u64> = lines
        .all()
        .iter()
        .filter_map(|line| line.fields.iter().find(|(key, _)| *key == "retry_in_ms"))
        .map(|(_, wait)| wait.parse().unwrap())
        .collect();
    for (at, most) in [
        (0, 1000),
        (1, 2000),
        (2, 4000),
        (3, 8000),
        (4, 16_000),
        (5, 30_000),
    ] {
        assert!(waits[at] >= most / 2 && waits[at] <= most, "{waits:?}");
    }
    assert!(waits.iter().all(|wait| *wait <= 30_000), "{waits:?}");
    world.network.set(Weather::Fair);
    agent
        .until(|status| matches!(status, AgentStatus::Registered { .. }))
        .await;
    assert_eq!(double.count("register"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_known_beats_after_a_break_and_does_not_register() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    let agent = start(&world, &lines).await;
    lines.until("Node registered successfully", 1).await;
    world.network.set(Weather::Cut);
    lines.until("Failed to send heartbeat", 1).await;
    lines.until("Failed to connect to orchestrator", 2).await;
    agent
        .until(|status| matches!(status, AgentStatus::Connecting { problem: Some(_) }))
        .await;
    world.network.set(Weather::Fair);
    agent
        .until(|status| matches!(status, AgentStatus::Registered { .. }))
        .await;
    assert_eq!(double.count("register"), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_and_silence_are_told_and_gone_on_from() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    double.state().fault = Some(Code::Internal);
    let agent = start(&world, &lines).await;
    let told = lines.until("Failed to register node", 1).await;
    assert!(
        told.text.ends_with("Internal: as the test wants it"),
        "{}",
        told.text
    );
    double.state().fault = None;
    lines.until("Node registered successfully", 1).await;
    double.state().is_mute = true;
    let told = lines.until("Failed to send heartbeat", 1).await;
    assert!(told.text.contains("no answer within 10 s"), "{}", told.text);
    double.state().is_mute = false;
    agent
        .until(|status| matches!(status, AgentStatus::Registered { .. }))
        .await;
    world.network.set(Weather::Silent);
    lines.until("Failed to send heartbeat", 2).await;
    world.network.set(Weather::Fair);
    agent
        .until(|status| matches!(status, AgentStatus::Registered { .. }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_made_up_is_kept_and_one_that_is_asked_for_is_taken() {
    let (world, lines) = (World::new(), Lines::new());
    let double = Double::start(&world);
    for registrations in 1..=2 {
        let agent = start(&world, &lines).await;
        lines
            .until("Node registered successfully", registrations)
            .await;
        agent.stop().await;
    }
    let ids: Vec<_> = double
        .state()
        .registered
        .iter()
        .map(|node| node.id.clone())
        .collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(
        (ids[0].len(), &ids[0][14..15]),
        (36, "4"),
        "a UUID of version 4"
    );
    let orchion = Orchion {
        node_id: Some("mine".to_owned()),
        hostname: Some("production-db-server".to_owned()),
        agent_port: 7000,
        ..Orchion::default()
    };
    let agent = start_as(&world, &lines, orchion).await;
    lines.until("Node registered successfully", 3).await;
    let node = double.state().registered[2].clone();
    assert_eq!(
        (node.id.as_str(), node.hostname.as_str()),
        ("mine", "production-db-server")
    );
    assert_eq!(node.agent_address, "production-db-server:7000");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_node_serves_says_with_the_contracts_error_that_it_has_no_engines() {
    let (world, lines) = (World::new(), Lines::new());
    Double::start(&world);
    let agent = start(&world, &lines).await;
    let routes = agent
        .agent
        .services()
        .expect("the contract wants a service");
    let (near, far) = tokio::io::duplex(64 * 1024);
    world.tasks.spawn_until_stop("services", async move {
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
        let server = tonic::transport::Server::builder().add_routes(routes);
        let _ = server.serve_with_incoming(incoming).await;
        std::future::pending::<()>().await;
    });
    let mut near = Some(hyper_util::rt::TokioIo::new(near));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = near.take().ok_or_else(|| std::io::Error::other("once"));
        async move { stream }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://node");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let mut client = NodeAgentClient::new(channel);
    let chat = |model: &str| v1::ChatCompletionRequest {
        model: model.to_owned(),
        ..v1::ChatCompletionRequest::default()
    };
    let refused = client.chat_completion(chat("llama2")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(
        refused
            .message()
            .starts_with("no executor for model llama2: "),
        "{refused:?}"
    );
    let refused = client.chat_completion(chat("")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "model is required")
    );
    let request = v1::EmbeddingRequest {
        model: "m/x".to_owned(),
        ..v1::EmbeddingRequest::default()
    };
    let refused = client.embeddings(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert!(
        refused.message().starts_with("no executor for model m/x: "),
        "{refused:?}"
    );
}

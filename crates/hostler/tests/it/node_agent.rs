//! The program called `node-agent`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::node_agent_client::NodeAgentClient;
use hostler_wire::orchion::v1::orchestrator_server::{Orchestrator, OrchestratorServer};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::foreign::{called, get};
use crate::program::{Ended, Running, eventually, free_port, hostler, signal};

/// What an orchestrator knows, and how often each node was heard.
#[derive(Default)]
struct State {
    nodes: BTreeMap<String, v1::Node>,
    registrations: usize,
    beats: usize,
    updates: usize,
}

#[derive(Clone, Default)]
struct Double(Arc<Mutex<State>>);

/// A plain server generated from the contract. It serves until the test ends.
struct Server {
    double: Double,
    addr: SocketAddr,
    runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let double = Double::default();
        let service = OrchestratorServer::new(double.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        let incoming = TcpListenerStream::new(listener);
        runtime.spawn(async move { server.serve_with_incoming(incoming).await });
        Self {
            double,
            addr,
            runtime,
        }
    }

    fn node(&self, id: &str) -> v1::Node {
        self.double.0.lock().unwrap().nodes[id].clone()
    }

    fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        eventually(what, || is_so(&self.double.0.lock().unwrap()));
    }
}

impl Double {
    fn known(&self, id: &str, count: impl Fn(&mut State)) -> Result<(), Status> {
        let mut state = self.0.lock().unwrap();
        if !state.nodes.contains_key(id) {
            return Err(Status::not_found("node not found"));
        }
        count(&mut state);
        Ok(())
    }
}

#[tonic::async_trait]
impl Orchestrator for Double {
    async fn register_node(
        &self,
        request: Request<v1::RegisterNodeRequest>,
    ) -> Result<Response<v1::RegisterNodeResponse>, Status> {
        let node = request.into_inner().node;
        let node = node.ok_or_else(|| Status::invalid_argument("node is required"))?;
        let mut state = self.0.lock().unwrap();
        state.registrations += 1;
        state.nodes.insert(node.id.clone(), node);
        Ok(Response::new(v1::RegisterNodeResponse::default()))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.known(&request.get_ref().node_id, |state| state.beats += 1)?;
        Ok(Response::new(v1::HeartbeatResponse::default()))
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Result<Response<v1::UpdateNodeResponse>, Status> {
        self.known(&request.get_ref().node_id, |state| state.updates += 1)?;
        Ok(Response::new(v1::UpdateNodeResponse::default()))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Err(Status::unimplemented(""))
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

/// With its own service on loopback.
fn agent(home: &std::path::Path, orchestrator: SocketAddr) -> Command {
    let mut agent = called("node-agent", home);
    agent.args(["-orchestrator", &orchestrator.to_string()]);
    agent.args(["--agent-host=127.0.0.1", "-agent-port", "0"]);
    agent
}

/// Stdout, each line as JSON.
fn records(agent: &Running) -> Vec<Value> {
    let parse = |line: &String| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    agent.data().iter().map(parse).collect()
}

fn texts(agent: &Running) -> Vec<String> {
    let text = |record: &Value| record["msg"].as_str().unwrap().to_owned();
    records(agent).iter().map(text).collect()
}

#[test]
fn it_registers_beats_and_updates_in_every_time_zone_and_ends_with_0() {
    for (zone, number) in [
        ("UTC", Signal::TERM),
        ("America/New_York", Signal::INT),
        ("Asia/Kolkata", Signal::TERM),
    ] {
        let (home, server) = (tempfile::tempdir().unwrap(), Server::start());
        let mut command = agent(home.path(), server.addr);
        command.args([
            "--node-id",
            "my-server-01",
            "-hostname=production-db-server",
        ]);
        command
            .args([
                "-heartbeat-interval",
                "100ms",
                "--capability-interval=150ms",
            ])
            .env("TZ", zone);
        let mut agent = Running::start(&mut command);
        server.until("beats and updates", |state| {
            state.beats >= 3 && state.updates >= 2
        });
        let node = server.node("my-server-01");
        assert_eq!(node.hostname, "production-db-server");
        let capabilities = node.capabilities.unwrap();
        assert!(capabilities.cpu.ends_with(" cores"), "{capabilities:?}");
        assert!(
            capabilities.memory.ends_with(" GB") && capabilities.os.starts_with("linux/"),
            "{capabilities:?}"
        );
        signal(agent.pid(), number);
        assert_eq!(agent.code(), Some(0));
        let expected = [
            "Detected node capabilities",
            "Node registered successfully",
            "Shutting down node agent",
        ];
        assert_eq!(texts(&agent), expected);
        let registered = records(&agent)[1].clone();
        assert_eq!(registered["level"], "info");
        assert_eq!(registered["source"], "node-agent:my-server-01");
        assert!(
            registered["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z')),
            "{registered}"
        );
    }
}

#[test]
fn its_own_service_answers_at_the_address_that_it_registers() {
    let (home, server) = (tempfile::tempdir().unwrap(), Server::start());
    let mut command = agent(home.path(), server.addr);
    let mut agent = Running::start(command.args(["-node-id", "n", "-hostname", "127.0.0.1"]));
    server.until("it is registered", |state| state.registrations == 1);
    let address = server.node("n").agent_address;
    assert_eq!(agent.line("serving on "), format!("serving on {address}"));
    let refused = server.runtime.block_on(async {
        let mut client = NodeAgentClient::connect(format!("http://{address}"))
            .await
            .unwrap();
        let request = v1::ChatCompletionRequest {
            model: "llama2".to_owned(),
            ..v1::ChatCompletionRequest::default()
        };
        client.chat_completion(request).await.unwrap_err()
    });
    assert_eq!(refused.code(), Code::Internal);
    assert!(
        refused
            .message()
            .starts_with("no executor for model llama2: "),
        "{refused:?}"
    );
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn it_waits_for_an_orchestrator_that_comes_later_and_keeps_the_id_it_made_up() {
    let home = tempfile::tempdir().unwrap();
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut away = Running::start(&mut agent(home.path(), free));
    away.line("Failed to connect to orchestrator");
    assert_eq!(away.terminate(), Some(0));
    let server = Server::start();
    for registrations in 1..=2 {
        let mut agent = Running::start(&mut agent(home.path(), server.addr));
        server.until("it is registered", |state| {
            state.registrations == registrations
        });
        assert_eq!(agent.terminate(), Some(0));
    }
    assert_eq!(server.double.0.lock().unwrap().nodes.len(), 1);
}

#[test]
fn an_orchestrator_that_forgets_is_registered_with_again() {
    let (home, server) = (tempfile::tempdir().unwrap(), Server::start());
    let mut command = agent(home.path(), server.addr);
    let mut agent = Running::start(command.args(["-node-id", "n", "-heartbeat-interval", "100ms"]));
    server.until("it beats", |state| state.beats > 0);
    let before = server.node("n");
    server.double.0.lock().unwrap().nodes.clear();
    server.until("it is back", |state| state.nodes.contains_key("n"));
    assert_eq!(server.node("n").agent_address, before.agent_address);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn a_file_says_the_same_as_flags_and_what_is_for_later_is_told_in_one_line_each() {
    let (home, server) = (tempfile::tempdir().unwrap(), Server::start());
    let file = home.path().join("node-agent.yaml");
    let text = format!(
        "orchestrator: {}\nnode_id: from-file\nheartbeat_interval: 100ms\nagent_host: 127.0.0.1\n\
         agent_port: 0\nhealth_listen: 127.0.0.1:0\nresource_limits:\n  cpu: 2\njobs:\n  max_concurrent: 4\n",
        server.addr
    );
    std::fs::write(&file, text).unwrap();
    let mut command = called("node-agent", home.path());
    command
        .arg("--config")
        .arg(&file)
        .args(["-hostname", "from-flag"]);
    command.args([
        "--enable-vllm",
        "--vllm-tensor-parallel",
        "2",
        "-enable-ollama",
        "-ollama-gpus=0,1",
    ]);
    let mut agent = Running::start(&mut command);
    server.until("it beats", |state| state.beats > 0);
    assert_eq!(server.node("from-file").hostname, "from-flag");
    let line = agent.line("listening on http://");
    let host = line.rsplit("http://").next().unwrap().to_owned();
    eventually("it is ready", || {
        get(&host, "/readyz").contains("registered as from-file")
    });
    assert_eq!(agent.terminate(), Some(0));
    let later = [
        "-enable-ollama",
        "-enable-vllm",
        "-ollama-gpus",
        "-vllm-tensor-parallel",
        "resource_limits.cpu",
        "jobs.max_concurrent",
    ];
    let expected: Vec<String> = later
        .iter()
        .map(|name| format!("{name} is kept and has no effect yet"))
        .chain(["Detected node capabilities".to_owned()])
        .collect();
    assert_eq!(texts(&agent)[..7], expected);
    assert_eq!(records(&agent)[2]["value"], "0,1");
}

#[test]
fn help_lists_every_flag_and_what_makes_no_sense_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    let agent = |words: &[&str]| -> Ended {
        called("node-agent", home.path())
            .args(words)
            .output()
            .unwrap()
            .into()
    };
    let help = agent(&["-h"]).with_code(0).stdout;
    for flag in [
        "orchestrator",
        "heartbeat-interval",
        "node-id",
        "hostname",
        "capability-interval",
        "agent-port",
        "config",
        "enable-vllm",
        "vllm-model",
        "vllm-port",
        "vllm-gpus",
        "vllm-tensor-parallel",
        "vllm-max-model-len",
        "enable-ollama",
        "ollama-model",
        "ollama-port",
        "ollama-gpus",
    ] {
        assert!(help.contains(&format!("\n  -{flag}")), "{flag}: {help}");
    }
    for (words, part) in [
        (&["-heartbeat-interval", "5"][..], "no span of time"),
        (&["-vllm-port", "0"], "for flag -vllm-port"),
        (&["-vllm-gpus", "first"], "for flag -vllm-gpus"),
        (&["-agent-host", "here"], "no address of this machine"),
        (&["-orchestrator", "a"], "it names no port"),
        (&["-nonsense"], "flag provided but not defined: -nonsense"),
        (&["run"], "takes flags only"),
        (
            &["-config", "/nonexistent.yaml"],
            "cannot use the configuration file /nonexistent.yaml",
        ),
    ] {
        let mut words = words.to_vec();
        if !words.contains(&"-agent-host") {
            words.splice(0..0, ["-agent-host", "127.0.0.1"]);
        }
        words.splice(0..0, ["-agent-port", "0"]);
        let ended = agent(&words).with_code(2);
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(part),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_taken_port_ends_with_1() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = called("node-agent", home.path());
    let ended: Ended = command
        .args(["-agent-host", "127.0.0.1", "-agent-port", &port])
        .output()
        .unwrap()
        .into();
    assert!(ended.with_code(1).stderr.contains(&port));
}

#[test]
fn the_dialect_of_our_own_agent_leads_to_the_same() {
    let (home, server) = (tempfile::tempdir().unwrap(), Server::start());
    let file = home.path().join("node-agent.json");
    std::fs::write(
        &file,
        r#"{"agent-host": "127.0.0.1", "agent-port": 0, "node-id": "n"}"#,
    )
    .unwrap();
    let mut command = hostler(home.path());
    command.args([
        "agent",
        "--dialect",
        "orchion",
        "--name",
        "box",
        "--docker-socket",
        "/nonexistent",
    ]);
    command
        .args(["--server", &server.addr.to_string(), "--dialect-config"])
        .arg(&file)
        .env("HOSTLER_DATA_DIR", home.path());
    let mut agent = Running::start(&mut command);
    server.until("it is registered", |state| state.registrations == 1);
    assert_eq!(server.node("n").hostname, "box");
    assert_eq!(agent.terminate(), Some(0));
}

//! The program under the name of Persys's agent: a link to the one binary, with that agent's flags, variables and
//! ports.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use hostler_wire::persys::agent::agent_service_client::AgentServiceClient;
use hostler_wire::persys::agent::{
    ActualState, ApplyWorkloadRequest, ContainerSpec, DeleteWorkloadRequest,
    GetWorkloadStatusRequest, HealthCheckRequest, WorkloadSpec, workload_spec,
};
use hostler_wire::persys::control;
use hostler_wire::persys::control::agent_control_server::{AgentControl, AgentControlServer};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::foreign::{apply, get, persys_agent};
use crate::program::{Ended, Running, eventually, hostler};

/// A directory with the link in it, and what the agent keeps.
struct Home {
    directory: TempDir,
    runtime: Runtime,
}

/// A running agent with a plain client of its service.
struct Node {
    program: Running,
    client: AgentServiceClient<Channel>,
    figures: String,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        Self { directory, runtime }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn agent(&self) -> Command {
        persys_agent(self.path(), "node-1")
    }

    fn ended(&self, words: &[&str]) -> Ended {
        self.agent().args(words).output().unwrap().into()
    }

    fn start(&self, command: &mut Command) -> Node {
        let mut program = Running::start(command);
        let line = program.line("serving persys.agent.v1 on ");
        let addr = line.rsplit(' ').next().unwrap().to_owned();
        let line = program.line("serving metrics on http://");
        let figures = line.rsplit("http://").next().unwrap();
        let figures = figures.trim_end_matches("/metrics").to_owned();
        let connecting = AgentServiceClient::connect(format!("http://{addr}"));
        let client = self.runtime.block_on(connecting).unwrap();
        Node {
            program,
            client,
            figures,
        }
    }
}

impl Node {
    /// What the port for figures answers.
    fn get(&self, path: &str) -> String {
        get(&self.figures, path)
    }
}

#[test]
fn without_a_word_about_tls_persys_agent_says_what_is_missing() {
    let home = Home::new();
    let mut agent = home.agent();
    agent
        .arg("-standalone")
        .env("PERSYS_TLS_CERT", "/nonexistent/own.pem");
    let ended = Ended::from(agent.output().unwrap()).with_code(2);
    let expected = "error: the service speaks TLS, and /nonexistent/own.pem cannot be read: ";
    assert!(ended.stderr.starts_with(expected), "{}", ended.stderr);
    assert!(ended.stderr.contains("-insecure"), "{}", ended.stderr);
    assert!(home.ended(&["-frob"]).with_code(2).stderr.contains("-frob"));
    assert!(
        home.ended(&["-h"])
            .with_code(0)
            .stdout
            .contains("-standalone")
    );
    assert!(
        home.ended(&["--version"])
            .with_code(0)
            .stdout
            .contains("persys-agent")
    );
}

#[test]
fn persys_agent_says_which_port_is_taken_and_which_setting_moves_it() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut agent = home.agent();
    agent
        .args(["-insecure", "-standalone"])
        .env("PERSYS_METRICS_PORT", &port);
    let ended = Ended::from(agent.output().unwrap()).with_code(1);
    assert!(ended.stderr.contains(&port), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("PERSYS_METRICS_PORT"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_standalone_persys_agent_serves_its_contract_and_its_figures() {
    let home = Home::new();
    let mut node = home.start(home.agent().args(["-insecure", "-standalone"]));
    let health = home
        .runtime
        .block_on(node.client.health_check(HealthCheckRequest {}));
    let health = health.unwrap().into_inner();
    assert!(
        health.healthy && health.memory_utilization > 0.0,
        "{health:?}"
    );
    assert!(
        health.runtime_status["container"].starts_with("unhealthy: "),
        "{health:?}"
    );

    let request = ApplyWorkloadRequest {
        id: "web".to_owned(),
        revision_id: "r1".to_owned(),
        ..ApplyWorkloadRequest::default()
    };
    let answer = home.runtime.block_on(node.client.apply_workload(request));
    let answer = answer.unwrap().into_inner();
    assert!(
        !answer.applied && answer.message.contains("spec"),
        "{answer:?}"
    );
    let asked = GetWorkloadStatusRequest {
        id: "web".to_owned(),
    };
    let refused = home
        .runtime
        .block_on(node.client.get_workload_status(asked));
    assert!(refused.unwrap_err().message().contains("not found"));

    let figures = node.get("/metrics");
    assert!(figures.starts_with("HTTP/1.1 200"), "{figures}");
    assert!(
        figures.contains("persys_agent_errors_total{error_code=\"INVALID_SPECIFICATION\"} 1"),
        "{figures}"
    );
    assert!(
        figures.contains("persys_agent_runtime_health_status{runtime_type=\"container\"} 0"),
        "{figures}"
    );
    assert!(node.get("/health").contains("{\"status\":\"healthy\"}"));
    assert!(node.get("/other").starts_with("HTTP/1.1 404"));
    assert_eq!(node.program.terminate(), Some(0));
}

/// What a scheduler was asked for, and what it answers.
#[derive(Default)]
struct Asked {
    registered: Vec<control::RegisterNodeRequest>,
    beats: Vec<control::HeartbeatRequest>,
    applied: Vec<control::ApplyWorkloadRequest>,
}

#[derive(Clone, Default)]
struct Scheduler(Arc<Mutex<Asked>>);

impl Scheduler {
    /// Serves on a free port of loopback.
    fn serve(&self, home: &Home) -> String {
        let service = AgentControlServer::new(self.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let _inside = home.runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let serving = tonic::transport::Server::builder().add_service(service);
        let tasks = hostler_kit::Tasks::new();
        tasks.spawn("scheduler", async move {
            let _ = serving.serve_with_incoming(incoming).await;
        });
        addr
    }

    fn until(&self, what: &str, is_so: impl Fn(&Asked) -> bool) {
        eventually(what, || is_so(&self.0.lock().unwrap()));
    }
}

#[tonic::async_trait]
impl AgentControl for Scheduler {
    type ControlStreamStream = tokio_stream::Empty<Result<control::ControlMessage, Status>>;

    async fn register_node(
        &self,
        request: Request<control::RegisterNodeRequest>,
    ) -> Result<Response<control::RegisterNodeResponse>, Status> {
        self.0.lock().unwrap().registered.push(request.into_inner());
        Ok(Response::new(control::RegisterNodeResponse {
            accepted: true,
            reason: "registered".to_owned(),
            heartbeat_interval_seconds: 1,
            lease_expires_at: None,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<control::HeartbeatRequest>,
    ) -> Result<Response<control::HeartbeatResponse>, Status> {
        self.0.lock().unwrap().beats.push(request.into_inner());
        Ok(Response::new(control::HeartbeatResponse {
            acknowledged: true,
            drain_node: false,
            lease_expires_at: None,
        }))
    }

    async fn apply_workload(
        &self,
        request: Request<control::ApplyWorkloadRequest>,
    ) -> Result<Response<control::ApplyWorkloadResponse>, Status> {
        let request = request.into_inner();
        let is_good = request.spec.is_some();
        self.0.lock().unwrap().applied.push(request);
        Ok(Response::new(control::ApplyWorkloadResponse {
            success: is_good,
            failure_reason: if is_good {
                0
            } else {
                control::FailureReason::InvalidSpec as i32
            },
            error_message: if is_good {
                String::new()
            } else {
                "no spec".to_owned()
            },
        }))
    }

    async fn delete_workload(
        &self,
        request: Request<control::DeleteWorkloadRequest>,
    ) -> Result<Response<control::DeleteWorkloadResponse>, Status> {
        let is_known = request.into_inner().workload_id == "web";
        Ok(Response::new(control::DeleteWorkloadResponse {
            success: is_known,
            error_message: if is_known {
                String::new()
            } else {
                "not known".to_owned()
            },
        }))
    }

    async fn retry_workload(
        &self,
        request: Request<control::RetryWorkloadRequest>,
    ) -> Result<Response<control::RetryWorkloadResponse>, Status> {
        let accepted = request.into_inner().workload_id == "web";
        Ok(Response::new(control::RetryWorkloadResponse { accepted }))
    }

    async fn submit_automation_suggestion(
        &self,
        _: Request<control::SubmitAutomationSuggestionRequest>,
    ) -> Result<Response<control::SubmitAutomationSuggestionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_nodes(
        &self,
        _: Request<control::ListNodesRequest>,
    ) -> Result<Response<control::ListNodesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_node(
        &self,
        _: Request<control::GetNodeRequest>,
    ) -> Result<Response<control::GetNodeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_workloads(
        &self,
        _: Request<control::ListWorkloadsRequest>,
    ) -> Result<Response<control::ListWorkloadsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_workload(
        &self,
        _: Request<control::GetWorkloadRequest>,
    ) -> Result<Response<control::GetWorkloadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_cluster_summary(
        &self,
        _: Request<control::GetClusterSummaryRequest>,
    ) -> Result<Response<control::GetClusterSummaryResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn control_stream(
        &self,
        _: Request<Streaming<control::ControlMessage>>,
    ) -> Result<Response<Self::ControlStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[test]
fn persys_agent_registers_with_its_served_address_and_beats() {
    let home = Home::new();
    let scheduler = Scheduler::default();
    let addr = scheduler.serve(&home);
    let mut node = home.start(
        home.agent()
            .arg("--insecure")
            .env("PERSYS_SCHEDULER_ADDR", addr),
    );
    scheduler.until("two beats", |asked| asked.beats.len() >= 2);
    // Nothing is held while the node is asked: it may have something to tell meanwhile.
    let (told, beat) = {
        let asked = scheduler.0.lock().unwrap();
        (asked.registered[0].clone(), asked.beats[0].clone())
    };
    assert_eq!(
        (told.node_id.as_str(), beat.node_id.as_str()),
        ("node-1", "node-1")
    );
    assert!(told.grpc_endpoint.starts_with("127.0.0.1:"), "{told:?}");
    // Whoever reaches that address reaches the service.
    let connecting = AgentServiceClient::connect(format!("http://{}", told.grpc_endpoint));
    let mut client = home.runtime.block_on(connecting).unwrap();
    let asking = client.health_check(HealthCheckRequest {});
    let health = home.runtime.block_on(asking).unwrap();
    assert!(health.into_inner().healthy);
    let usage = beat.usage.unwrap();
    assert!(
        usage.memory_used_mb > 0 && usage.disk_used_gb >= 0,
        "{usage:?}"
    );
    node.program.line("registered as node-1");
    assert_eq!(node.program.terminate(), Some(0));
}

#[test]
fn persys_agent_passes_requests_on_and_prints_the_answer() {
    let home = Home::new();
    let scheduler = Scheduler::default();
    let addr = scheduler.serve(&home);
    let ask = |words: &[&str]| {
        let mut agent = home.agent();
        agent
            .env("PERSYS_SCHEDULER_ADDR", &addr)
            .arg("-insecure")
            .args(words);
        Ended::from(agent.output().unwrap())
    };
    std::fs::write(
        home.path().join("web.json"),
        r#"{"image":"nginx","command":["serve"]}"#,
    )
    .unwrap();
    let words = apply("web", "container", "web.json");
    let applied = ask(&[&words[..], &["--revision", "r7"]].concat()).with_code(0);
    assert_eq!(applied.stdout, "{\"success\":true}\n");
    {
        let asked = scheduler.0.lock().unwrap();
        let told = &asked.applied[0];
        assert_eq!(
            (told.workload_id.as_str(), told.revision_id.as_str()),
            ("web", "r7")
        );
        assert!(matches!(
            told.spec.as_ref().unwrap().workload,
            Some(control::workload_spec::Workload::Container(_))
        ));
    }
    let refused = ask(&["apply", "--id", "web", "--desired-state", "Stopped"]).with_code(1);
    assert_eq!(refused.json()["failureReason"], "INVALID_SPEC");
    assert_eq!(refused.json()["errorMessage"], "no spec");
    assert_eq!(
        ask(&["delete", "--id", "web"]).with_code(0).json()["success"],
        true
    );
    assert_eq!(
        ask(&["delete", "--id", "db"]).with_code(1).json()["errorMessage"],
        "not known"
    );
    assert_eq!(
        ask(&["retry", "--id=web"]).with_code(0).json()["accepted"],
        true
    );
    assert_eq!(
        ask(&["retry", "--id=db"]).with_code(1).json()["accepted"],
        false
    );
    assert!(
        ask(&["apply", "--id", "web"])
            .with_code(2)
            .stderr
            .contains("nothing to apply")
    );

    let mut nobody = home.agent();
    nobody
        .env("PERSYS_SCHEDULER_ADDR", "127.0.0.1:1")
        .args(["-insecure", "retry", "--id", "web"]);
    let ended = Ended::from(nobody.output().unwrap()).with_code(1);
    assert!(
        ended.stderr.contains("no scheduler answers at 127.0.0.1:1"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_dialect_of_our_own_agent_leads_to_the_same() {
    let fleet = crate::fleet::Fleet::without_agent("/nonexistent/docker.sock");
    let mut command = hostler(fleet.path());
    command.current_dir(fleet.path());
    command.args(["agent", "--dialect", "persys", "-insecure", "--name", "p-1"]);
    command.args([
        "--docker-socket",
        "/nonexistent/docker.sock",
        "--server",
        &fleet.addr(),
    ]);
    command.arg("--data-dir").arg(fleet.path().join("persys"));
    command.env("PERSYS_GRPC_ADDR", "127.0.0.1");
    command
        .env("PERSYS_GRPC_PORT", "0")
        .env("PERSYS_METRICS_PORT", "0");
    let mut agent = Running::start(&mut command);
    agent.line("serving persys.agent.v1 on ");
    eventually("it is a node", || fleet.state_of("p-1") == "ready");
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
#[ignore = "needs docker"]
fn needs_docker_persys_agent_runs_a_container_and_keeps_it_through_a_restart() {
    let socket = crate::needs_docker::socket();
    let home = Home::new();
    let start = || {
        let mut agent = home.agent();
        agent
            .env("DOCKER_HOST", &socket)
            .args(["-insecure", "-standalone"]);
        home.start(&mut agent)
    };
    let mut node = start();
    let spec = ContainerSpec {
        image: "busybox:local".to_owned(),
        command: vec!["sleep".to_owned(), "600".to_owned()],
        ..ContainerSpec::default()
    };
    let request = ApplyWorkloadRequest {
        id: "Shop/Web".to_owned(),
        revision_id: "r1".to_owned(),
        spec: Some(WorkloadSpec {
            spec: Some(workload_spec::Spec::Container(spec)),
        }),
        ..ApplyWorkloadRequest::default()
    };
    let answer = home
        .runtime
        .block_on(node.client.apply_workload(request.clone()));
    assert!(answer.as_ref().unwrap().get_ref().applied, "{answer:?}");
    let status = |node: &mut Node| {
        let asked = GetWorkloadStatusRequest {
            id: "Shop/Web".to_owned(),
        };
        let answer = home
            .runtime
            .block_on(node.client.get_workload_status(asked));
        answer.map(|answer| answer.into_inner().status.unwrap())
    };
    let is_running = |node: &mut Node| {
        status(node).is_ok_and(|status| status.actual_state() == ActualState::Running)
    };
    eventually("the container runs", || is_running(&mut node));
    let containers = || {
        let label = "label=persys.workload_id=Shop/Web";
        crate::needs_docker::docker(&["ps", "-q", "--no-trunc", "--filter", label])
    };
    let running = containers();
    assert_eq!(running.lines().count(), 1, "{running}");
    node.program.kill();
    let mut node = start();
    eventually("it is found again", || is_running(&mut node));
    assert_eq!(containers(), running, "the same container");
    let again = home.runtime.block_on(node.client.apply_workload(request));
    assert!(again.unwrap().into_inner().skipped);

    let delete = DeleteWorkloadRequest {
        id: "Shop/Web".to_owned(),
    };
    let deleted = home.runtime.block_on(node.client.delete_workload(delete));
    assert!(deleted.unwrap().into_inner().success);
    eventually("it is forgotten", || status(&mut node).is_err());
    eventually("its container is gone", || containers().is_empty());
    assert_eq!(node.program.terminate(), Some(0));
}

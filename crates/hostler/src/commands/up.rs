//! `up`: control plane and agent in one process, joined by the real session over loopback.
//!
//! Work of an earlier start is found again and adopted. Stopping `up` stops no workload.

use std::path::Path;
use std::time::Duration;

use hostler_agent::AgentStatus;
use hostler_kit::trust::Anchors;
use hostler_kit::{Tasks, telemetry};
use hostler_model::Timestamp;
use hostler_wire::api::{Node, NodeState, RuntimeFact, StateWord};
use hostler_wire::client::ClientError;

use super::{Remote, demo, multi_thread, node};
use crate::compose::{ControlPlane, NodeAgent, NodeAgentConfig, Signals, shut_down};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{ClientSettings, ServerSettings, UpSettings};
use crate::status::ExitStatus;

/// As for a server; the agent beside it needs no more.
const WORKERS: usize = 2;
/// How long this machine may take to become a node of its own fleet.
const JOINING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(25);
/// Looks for the word of the container engine; one that is slower counts as one that is not there.
const ENGINE_LOOKS: usize = 400;

/// What is told when it is up.
pub(crate) struct Up<'a> {
    pub(crate) remote: Remote<'a>,
    pub(crate) node: Node,
    pub(crate) agent: &'a NodeAgent,
    docker_socket: String,
}

pub(crate) fn up(settings: UpSettings, printer: &Printer) -> Result<ExitStatus, Failure> {
    telemetry::install(&settings.server.log.filter, settings.server.log.format);
    multi_thread(WORKERS)?.block_on(Box::pin(run(settings, printer)))
}

async fn run(settings: UpSettings, printer: &Printer) -> Result<ExitStatus, Failure> {
    let mut signals = Signals::new()?;
    let tasks = Tasks::new();
    let plane = ControlPlane::start(&settings.server, &tasks).await?;
    plane.tell(printer);
    // Cancel-safe: what an arm has started belongs to the family, which is stopped below.
    let end = tokio::select! {
        () = signals.stop() => Ok(ExitStatus::Done),
        failure = plane.deposed() => Err(failure),
        failure = Box::pin(stay(settings, plane.url(), (&tasks, printer))) => Err(failure),
    };
    plane.close().await;
    shut_down(&tasks).await;
    if end.is_ok() {
        printer.talk("stopped; workloads run on and are found again by the next start");
    }
    end
}

/// Starts the agent, shows what there is, and stays; comes back only with a failure.
async fn stay(settings: UpSettings, url: String, (tasks, printer): (&Tasks, &Printer)) -> Failure {
    let is_demo = settings.demo;
    let shown = async {
        let agent = start_agent(&settings.server, &settings, (url.clone(), tasks)).await?;
        let client = ClientSettings {
            addr: url.clone(),
            token: None,
            anchors: Anchors::Machine,
        };
        let remote = Remote::new(&client, printer)?;
        let started = remote.now();
        let node = join(&remote, &agent).await?;
        let node = with_engine(&remote, node).await?;
        let up = Up {
            remote,
            node,
            agent: &agent,
            docker_socket: settings.docker_socket.clone(),
        };
        greet(&up, started).await?;
        if is_demo {
            demo::show(&up).await?;
        }
        printer.talk(&farewell(&url, is_demo));
        Ok::<_, Failure>(agent)
    };
    match shown.await {
        // The agent ends only with its family, and then this future is dropped.
        Ok(agent) => {
            agent.stopped().await;
            Failure::failed(
                "the agent ended by itself",
                "look at the log with --log-level info",
            )
        }
        Err(failure) => failure,
    }
}

async fn start_agent(
    server: &ServerSettings,
    settings: &UpSettings,
    (url, tasks): (String, &Tasks),
) -> Result<NodeAgent, Failure> {
    let (data_dir, socket) = (server.data_dir.clone(), settings.docker_socket.clone());
    let config = NodeAgentConfig {
        name: settings.name.clone(),
        vm: settings.vm.clone(),
        volumes: settings.volumes.clone(),
        ..NodeAgentConfig::new(url, data_dir, socket)
    };
    NodeAgent::start(config, tasks).await
}

/// Waits until this machine is a node of its own fleet.
async fn join(remote: &Remote<'_>, agent: &NodeAgent) -> Result<Node, Failure> {
    let joined = async {
        let mut progress = remote.printer.progress();
        let mut status = agent.status();
        loop {
            let id = match &*status.borrow_and_update() {
                AgentStatus::Joined { node_id } | AgentStatus::Held { node_id, .. } => {
                    Some(node_id.to_string())
                }
                AgentStatus::Refused {
                    sentence, advice, ..
                } => {
                    return Err(Failure::failed(
                        format!("this machine cannot join: {sentence}"),
                        advice,
                    ));
                }
                AgentStatus::Connecting { .. } | AgentStatus::Registered { .. } => None,
            };
            let Some(id) = id else {
                progress.tell("this machine joins");
                if status.changed().await.is_err() {
                    return Err(Failure::failed(
                        "the agent ended",
                        "look at the log with --log-level info",
                    ));
                }
                continue;
            };
            match remote.client.node(&id).await {
                Ok(node) if node.state != NodeState::Joining && node.state != NodeState::Lost => {
                    return Ok(node);
                }
                Ok(_) | Err(ClientError::Unreachable { .. }) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error.into()),
            }
        }
    };
    tokio::time::timeout(JOINING, joined)
        .await
        .unwrap_or_else(|_| {
            let sentence = format!("this machine did not join within {} s", JOINING.as_secs());
            Err(Failure::failed(
                sentence,
                "look at the log with --log-level info",
            ))
        })
}

/// The node with what its container engine says, for a greeting that is true. Mostly that is known already.
async fn with_engine(remote: &Remote<'_>, mut node: Node) -> Result<Node, Failure> {
    for _ in 0..ENGINE_LOOKS {
        if container_runtime(&node).is_some() {
            break;
        }
        tokio::time::sleep(LOOK).await;
        node = remote.client.node(&node.id).await?;
    }
    Ok(node)
}

fn container_runtime(node: &Node) -> Option<&RuntimeFact> {
    let mut runtimes = node.facts.runtimes.iter();
    runtimes.find(|runtime| runtime.kind == "container")
}

impl Up<'_> {
    /// Whether containers can run here.
    pub(crate) fn has_engine(&self) -> bool {
        container_runtime(&self.node).is_some_and(|it| it.available)
    }
}

/// Says who is here, what it cannot run, and what of an earlier start goes on.
async fn greet(up: &Up<'_>, started: Timestamp) -> Result<(), Failure> {
    let printer = up.remote.printer;
    printer.talk(&format!(
        "{} is {}",
        up.node.name,
        super::word(&up.node.state)
    ));
    if !up.has_engine() {
        let note = container_runtime(&up.node).map_or("", |it| it.note.as_str());
        printer.talk(&without_engine(&up.docker_socket, note));
    }
    if let Some(reason) = &up.node.held_back {
        printer.talk(&format!(
            "its orders are held back: {reason}; `hostler node accept` lets them go"
        ));
    }
    let workloads = up.remote.client.workloads().await?;
    if workloads.is_empty() {
        return Ok(());
    }
    let copies = node::copies(&up.remote, &up.node).await?;
    let is_older = |since: &Option<String>| {
        since
            .as_deref()
            .and_then(Timestamp::parse)
            .is_some_and(|since| since < started)
    };
    let running = copies
        .iter()
        .filter(|copy| copy.state.word == StateWord::Running && is_older(&copy.state.since))
        .count();
    let known = workloads.len();
    printer.talk(&format!(
        "found {known} {} of an earlier start, and {running} {} of it still running",
        if known == 1 { "workload" } else { "workloads" },
        if running == 1 { "copy" } else { "copies" },
    ));
    Ok(())
}

/// Most machines without an engine have no socket, which is said plainly; where there is one, the driver
/// knows what is wrong with it.
fn without_engine(socket: &str, note: &str) -> String {
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    let is_absent = !path.contains("://") && Path::new(path).try_exists().is_ok_and(|is| !is);
    if is_absent || note.is_empty() {
        format!(
            "no Docker engine answers at {socket}, so neither containers nor compose projects can run here"
        )
    } else {
        format!("neither containers nor compose projects can run here: at {socket} {note}")
    }
}

fn farewell(url: &str, is_demo: bool) -> String {
    let flag = if url == "http://127.0.0.1:8080" {
        String::new()
    } else {
        format!(" --addr {url}")
    };
    let tour = if is_demo {
        format!("look around with `hostler ps{flag}` and `hostler logs -f demo-ticker{flag}`")
    } else {
        format!(
            "run something with `hostler run ticker{flag} -- sh -c 'while date; do sleep 1; done'`"
        )
    };
    format!("the API is at {url}\n{tour}\nCtrl-C stops Hostler and leaves the workloads running")
}

//! The uplink of MIaaS: registers by REST, then sends a heartbeat at an interval. MIaaS gives a node nothing to run.
//!
//! ```text
//!   registering ──► registered ──► beats … ──► 404, 401, 403, or five failures in a row ──► registering …
//!        └── failure: told with likely causes, tried again after 1 s to 30 s, for as long as it takes
//! ```
//!
//! Both ages of the contract are spoken, because a client sees the same: the answer to a registration is any 2xx,
//! its token is carried unread. It owns the node's id and token, in memory: the contract registers at each start.

use std::time::Duration;

use hostler_kit::Backoff;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::http::{Api, CallError, segment, text};
use super::{Setup, Started};
use crate::config::{AgentConfig, Parts};
use crate::dial::Server;
use crate::journal::Pen;
use crate::reconcile::Handle;
use crate::status::AgentStatus;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// So many heartbeats that fail in a row, for whatever reason, make a node register again.
const FAILURES: u32 = 5;
const MIB: u64 = 1 << 20;

/// What MIaaS's contract leaves to choose.
#[derive(Debug, Clone)]
pub struct Miaas {
    /// Between two heartbeats.
    pub interval: Duration,
}

impl Default for Miaas {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
        }
    }
}

/// What a registration gives.
struct Member {
    node_id: String,
    /// Opaque; none from a control plane that gives none.
    token: Option<String>,
}

struct Uplink {
    miaas: Miaas,
    config: AgentConfig,
    parts: Parts,
    server: Server,
    handle: Handle,
    api: Api,
    pen: Pen,
    status: watch::Sender<AgentStatus>,
}

/// Starts the task. It ends when the tasks are told to stop.
pub(super) fn start(setup: Setup, miaas: Miaas) -> Started {
    let (status, shown) = watch::channel(AgentStatus::Connecting { problem: None });
    let alive = setup.alive;
    let tasks = setup.parts.tasks.clone();
    let uplink = Uplink {
        miaas,
        api: Api::new(setup.server.clone(), setup.parts.dial.clone()),
        pen: Pen(setup.config.journal.clone()),
        config: setup.config,
        parts: setup.parts,
        server: setup.server,
        handle: setup.handle,
        status,
    };
    tasks.spawn_until_stop("uplink", async move {
        uplink.run().await;
        drop(alive);
    });
    Started::calling(shown)
}

impl Uplink {
    async fn run(&self) {
        self.pen.info("Starting MIaaS agent...");
        let registration = self.registration();
        let mut member = self.register(&registration).await;
        let seconds = self.miaas.interval.as_secs();
        self.pen
            .info(format!("Starting heartbeat loop (interval: {seconds}s)"));
        let interval = self.miaas.interval;
        let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            beats.tick().await;
            let Err(error) = self.beat(&member).await else {
                failures = 0;
                self.show_member(&member);
                continue;
            };
            failures += 1;
            self.pen.error(format!("Heartbeat failed: {error}"));
            self.show_problem(&error);
            if is_unknown(&error) || failures >= FAILURES {
                member = self.register(&registration).await;
                failures = 0;
                beats.reset();
            }
        }
    }

    /// What the machine is, told once: a machine that changes is started anew.
    fn registration(&self) -> Value {
        let facts = self.parts.machine.facts();
        let capacity = self.parts.machine.capacity(&self.config.data_dir);
        let os = os_word(&facts.os);
        let (mem_mb, disk_mb) = (facts.memory.0 / MIB, capacity.disk.0 / MIB);
        let cpu_count = facts.cpu_count;
        self.pen.info(format!(
            "Detected capabilities: {{'os': '{os}', 'cpu_count': {cpu_count}, 'mem_mb': {mem_mb}, \
             'disk_mb': {disk_mb}, 'gpus': []}}"
        ));
        let named = self.config.name.clone();
        let address = facts.addresses.into_iter().next();
        json!({
            "name": named.unwrap_or(facts.hostname),
            "ip": address.unwrap_or_else(|| "127.0.0.1".to_owned()),
            "capabilities": {
                "os": os,
                "cpu_count": cpu_count,
                "mem_mb": mem_mb,
                "disk_mb": disk_mb,
                "gpus": [],
            },
        })
    }

    /// Registers, however long it takes.
    async fn register(&self, registration: &Value) -> Member {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut last_problem = None;
        loop {
            self.pen.info("Registering with control plane...");
            let error = match self.try_to_register(registration).await {
                Ok(member) => {
                    let id = &member.node_id;
                    self.pen
                        .info(format!("Registered successfully. Node ID: {id}"));
                    self.show_member(&member);
                    return member;
                }
                Err(error) => error,
            };
            let problem = error.to_string();
            self.pen
                .error(format!("Failed to register with control plane: {problem}"));
            if last_problem.as_ref() != Some(&problem) {
                self.causes(&error)
                    .iter()
                    .for_each(|line| self.pen.error(line));
            }
            self.show_problem(&error);
            last_problem = Some(problem);
            tokio::time::sleep(backoff.next(self.parts.entropy.as_ref())).await;
        }
    }

    async fn try_to_register(&self, registration: &Value) -> Result<Member, CallError> {
        let path = "/api/v1/nodes/register";
        let answer: Value = self.api.post(path, None, registration).await?;
        let node_id = text(answer.get("node_id"))
            .ok_or_else(|| CallError::Unreadable("it names no node_id".to_owned()))?;
        // The address that is configured has just been proved; the one in the answer is often the control
        // plane's own view of itself, such as its localhost.
        let told = text(answer.get("control_plane_url")).unwrap_or_default();
        tracing::debug!(node_id, control_plane_url = told, "registered");
        Ok(Member {
            node_id,
            token: text(answer.get("node_token")),
        })
    }

    async fn beat(&self, member: &Member) -> Result<(), CallError> {
        let usage = self.parts.machine.usage(&self.config.data_dir);
        let containers = self.handle.containers();
        let (cpu, memory) = (tenths(usage.cpu_percent), tenths(usage.memory_percent));
        let disk = usage.disk_free.0 / MIB;
        let body = json!({
            "cpu_usage": cpu,
            "mem_usage": memory,
            "disk_free_mb": disk,
            "running_containers": containers,
        });
        let path = format!("/api/v1/nodes/{}/heartbeat", segment(&member.node_id));
        self.api.tell(&path, member.token.as_deref(), &body).await?;
        self.pen.info(format!(
            "Heartbeat sent: CPU {cpu:.1}%, Mem {memory:.1}%, Disk {disk} MB free"
        ));
        Ok(())
    }

    /// What a person can look at.
    fn causes(&self, error: &CallError) -> Vec<String> {
        let base = self.server.base();
        if error.status() == Some(StatusCode::GONE) {
            return vec![
                "  - The node was removed from that fleet, and stays removed under this name"
                    .to_owned(),
                "  - Give this machine another host name, then start the agent again".to_owned(),
            ];
        }
        if error.status().is_some() {
            return vec![
                format!("  - What answers may be no MIaaS control plane: curl {base}/health"),
                format!("  - CONTROL_PLANE_URL may be wrong; it is {base}"),
                "  - The control plane's own log may say more".to_owned(),
            ];
        }
        vec![
            format!("  - The control plane may not be running: curl {base}/health"),
            format!("  - CONTROL_PLANE_URL may be wrong; it is {base}"),
            format!(
                "  - There may be no network from here to {}",
                self.server.host
            ),
            format!("  - A firewall may close port {}", self.server.port),
        ]
    }

    fn show_member(&self, member: &Member) {
        let id = member.node_id.clone();
        AgentStatus::Registered { id }.show(&self.status);
    }

    fn show_problem(&self, error: &CallError) {
        let problem = Some(error.to_string());
        AgentStatus::Connecting { problem }.show(&self.status);
    }
}

/// The control plane does not know this node, or not by this token.
fn is_unknown(error: &CallError) -> bool {
    matches!(
        error.status(),
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
    )
}

/// The platform in MIaaS's words.
fn os_word(os: &str) -> &str {
    match os {
        "macos" => "darwin",
        other => other,
    }
}

/// A percentage with one digit behind the point; what is shown is what is sent.
fn tenths(percent: f32) -> f64 {
    (f64::from(percent) * 10.0).round() / 10.0
}

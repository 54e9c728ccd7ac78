//! The uplink of Orchion: registers by gRPC, then sends heartbeats and, more slowly, what the machine can do.
//!
//! ```text
//!   capabilities ──► connecting ──► registering ──► beats and updates … ──► NotFound ──► registering …
//!                        ▲   └── failure: told, tried again after 1 s to 30 s ──┐  └──► any other failure ──┐
//!                        └──────────────────────────────────────────────────────┴───────────────────────────┘
//! ```
//!
//! A node that was registered and lost its connection connects and beats; only an orchestrator that does not know
//! it any more makes it register again, with the same id and address. It owns the connection and nothing else:
//! the id is on disk, so that a node keeps it over restarts.

mod capabilities;
mod service;
mod wishes;

use std::time::Duration;

use hostler_kit::{Backoff, Entropy};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::orchestrator_client::OrchestratorClient;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::channel::{SignsOfLife, connect, failure};
use super::{Setup, Started};
use crate::config::{AgentConfig, Parts};
use crate::dial::Server;
use crate::journal::{Level, Line, Pen};
use crate::ledger::files;
use crate::status::AgentStatus;

pub use wishes::{Engines, Gpus, Jobs, Limits, Ollama, Vllm};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// For one call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Orchion's contract leaves to choose.
#[derive(Debug, Clone)]
pub struct Orchion {
    pub heartbeat_interval: Duration,
    pub capability_interval: Duration,
    /// Made up at the first start and kept, if left out.
    pub node_id: Option<String>,
    /// The machine's own, if left out.
    pub hostname: Option<String>,
    /// Where the node's own service is to be reached.
    pub agent_port: u16,
    /// Kept for the work on models and jobs; nothing reads these three yet.
    pub engines: Engines,
    pub limits: Limits,
    pub jobs: Jobs,
}

impl Default for Orchion {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(5),
            capability_interval: Duration::from_secs(10),
            node_id: None,
            hostname: None,
            agent_port: 50052,
            engines: Engines::default(),
            limits: Limits::default(),
            jobs: Jobs::default(),
        }
    }
}

/// `<data>/agent/orchion.json`: an id that was made up.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    node_id: String,
}

struct Uplink {
    orchion: Orchion,
    parts: Parts,
    server: Server,
    node_id: String,
    pen: Pen,
    status: watch::Sender<AgentStatus>,
}

/// Why a connection is given up.
struct Lost {
    /// What was tried, in the words of the log.
    what: &'static str,
    reason: String,
}

/// The id that the node goes by: the one asked for, else the one made up before, else a fresh one. A disk that does
/// not take it costs only that the next start makes up another.
fn node_id(config: &AgentConfig, orchion: &Orchion, entropy: &dyn Entropy) -> String {
    if let Some(wanted) = &orchion.node_id {
        return wanted.clone();
    }
    let dir = config.data_dir.join("agent");
    let path = dir.join("orchion.json");
    if let Ok(Some(known)) = files::read::<Known>(&path) {
        return known.node_id;
    }
    let node_id = uuid_v4(entropy.next_u128());
    let known = Known {
        node_id: node_id.clone(),
    };
    let written = files::write(&path, &known).and_then(|()| files::sync_dir(&dir));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot keep the node id over restarts");
    }
    node_id
}

/// A random UUID of version 4.
fn uuid_v4(random: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = (random & !VERSION & !VARIANT) | 4 << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    parts.join("-")
}

/// Starts the task. It ends when the tasks are told to stop.
pub(super) fn start(setup: Setup, orchion: Orchion) -> Started {
    let (status, shown) = watch::channel(AgentStatus::Connecting { problem: None });
    let alive = setup.alive;
    let tasks = setup.parts.tasks.clone();
    let node_id = node_id(&setup.config, &orchion, setup.parts.entropy.as_ref());
    let uplink = Uplink {
        orchion,
        node_id,
        pen: Pen(setup.config.journal.clone()),
        parts: setup.parts,
        server: setup.server,
        status,
    };
    tasks.spawn("uplink", async move {
        let stop = uplink.parts.tasks.clone();
        tokio::select! {
            biased;
            () = stop.stopping() => uplink.info("Shutting down node agent"),
            () = uplink.run() => {}
        }
        // The connection is closed by now: it went with the run.
        drop(alive);
    });
    Started {
        status: shown,
        services: Some(Routes::new(service::node_agent())),
    }
}

impl Uplink {
    async fn run(&self) {
        let capabilities = self.capabilities();
        let memory = capabilities.memory.clone();
        self.say(
            Line::new(Level::Info, "Detected node capabilities")
                .with("cpu", &capabilities.cpu)
                .with("memory", memory)
                .with("os", &capabilities.os),
        );
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut is_known = false;
        loop {
            let Lost { what, reason } = self.connection(&mut is_known, &mut backoff).await;
            let wait = backoff.next(self.parts.entropy.as_ref());
            self.say(
                Line::new(Level::Error, format!("{what}: {reason}"))
                    .with("orchestrator", self.server.authority())
                    .with("retry_in_ms", wait.as_millis()),
            );
            let problem = Some(reason);
            AgentStatus::Connecting { problem }.show(&self.status);
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&self, is_known: &mut bool, backoff: &mut Backoff) -> Lost {
        let connected = connect(&self.server, &self.parts.dial, SignsOfLife::Beats).await;
        let mut client = match connected {
            Ok(channel) => OrchestratorClient::new(channel),
            Err(reason) => return lost("Failed to connect to orchestrator", reason),
        };
        // The first beat of a node that is known takes the place of a registration.
        let greeted = if *is_known {
            self.beat(&mut client).await
        } else {
            self.register(&mut client).await
        };
        if let Err(lost) = greeted {
            return lost;
        }
        *is_known = true;
        backoff.reset();
        self.stay(&mut client).await
    }

    /// Beats and tells what the machine can do, until something fails.
    async fn stay(&self, client: &mut OrchestratorClient<Channel>) -> Lost {
        let every = |interval: Duration| {
            let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut beats = every(self.orchion.heartbeat_interval);
        let mut updates = every(self.orchion.capability_interval);
        loop {
            let done = tokio::select! {
                biased;
                _ = beats.tick() => self.beat(client).await,
                _ = updates.tick() => self.update(client).await,
            };
            if let Err(lost) = done {
                return lost;
            }
        }
    }

    async fn register(&self, client: &mut OrchestratorClient<Channel>) -> Result<(), Lost> {
        let node = v1::Node {
            id: self.node_id.clone(),
            hostname: self.hostname(),
            capabilities: Some(self.capabilities()),
            last_seen_unix: i64::try_from(self.parts.clock.wall_millis() / 1000).unwrap_or(0),
            agent_address: self.agent_address(),
        };
        let request = v1::RegisterNodeRequest { node: Some(node) };
        match bounded(client.register_node(request)).await {
            Ok(_) => {
                self.say(
                    Line::new(Level::Info, "Node registered successfully")
                        .with("node_id", &self.node_id)
                        .with("hostname", self.hostname())
                        .with("agent_address", self.agent_address()),
                );
                self.show_member();
                Ok(())
            }
            Err(status) => Err(lost("Failed to register node", words(&status))),
        }
    }

    async fn beat(&self, client: &mut OrchestratorClient<Channel>) -> Result<(), Lost> {
        let request = v1::HeartbeatRequest {
            node_id: self.node_id.clone(),
        };
        let beaten = bounded(client.heartbeat(request)).await;
        self.answered(client, "Failed to send heartbeat", beaten.map(drop))
            .await
    }

    async fn update(&self, client: &mut OrchestratorClient<Channel>) -> Result<(), Lost> {
        let request = v1::UpdateNodeRequest {
            node_id: self.node_id.clone(),
            capabilities: Some(self.capabilities()),
        };
        let updated = bounded(client.update_node(request)).await;
        self.answered(client, "Failed to update capabilities", updated.map(drop))
            .await
    }

    /// An orchestrator that does not know the node was started anew, or swept it: it is told everything again.
    async fn answered(
        &self,
        client: &mut OrchestratorClient<Channel>,
        what: &'static str,
        answer: Result<(), Status>,
    ) -> Result<(), Lost> {
        match answer {
            Ok(()) => {
                self.show_member();
                Ok(())
            }
            Err(status) if status.code() == Code::NotFound => {
                let text = "Node not found by orchestrator, registering again";
                self.say(Line::new(Level::Warn, text).with("node_id", &self.node_id));
                self.register(client).await
            }
            Err(status) => Err(lost(what, words(&status))),
        }
    }

    fn capabilities(&self) -> v1::Capabilities {
        capabilities::of(&self.parts.machine.facts())
    }

    fn hostname(&self) -> String {
        let wanted = self.orchion.hostname.clone();
        let own = || self.parts.machine.facts().hostname;
        let name = wanted.unwrap_or_else(own);
        if name.is_empty() {
            return "unknown".to_owned();
        }
        name
    }

    fn agent_address(&self) -> String {
        format!("{}:{}", self.hostname(), self.orchion.agent_port)
    }

    fn info(&self, text: &str) {
        self.say(Line::new(Level::Info, text));
    }

    fn say(&self, line: Line) {
        let source = format!("node-agent:{}", self.node_id);
        self.pen.write(line.with("source", source));
    }

    fn show_member(&self) {
        let id = self.node_id.clone();
        AgentStatus::Registered { id }.show(&self.status);
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} s",
            PATIENCE.as_secs()
        ))),
    }
}

/// Why a call failed, with the code that programs look for.
fn words(status: &Status) -> String {
    format!("{:?}: {}", status.code(), failure(status))
}

fn lost(what: &'static str, reason: impl Into<String>) -> Lost {
    Lost {
        what,
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_id_is_a_uuid_of_version_4() {
        assert_eq!(
            uuid_v4(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            "00112233-4455-4677-8899-aabbccddeeff"
        );
        assert_eq!(uuid_v4(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}

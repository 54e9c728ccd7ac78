//! The uplink of the spot contract: an agent on a cloud instance that registers once, sends heartbeats, and asks for
//! commands and settings.
//!
//! ```text
//!   no id ──► registering ──► id on disk ──► heartbeats, commands, settings, prices, copies … ──► stop ──► offline
//!                 └── failure: told, tried again after 1 s to 30 s
//! ```
//!
//! An agent keeps its id for good: a server that does not know it has deleted it, and registering again would bring
//! it back to life. Each loop goes on whatever fails in it. The uplink owns the id file and the state file
//! (`record`); the last word to the server is bounded in time and never holds up the end.
//!
//! Switching and ending instances is the work of the spot engine, which this version does not have: such commands
//! are answered as failed, with that reason.

mod commands;
mod config;
mod metadata;
mod prices;
mod record;
mod replica;

use std::sync::Arc;
use std::time::Duration;

use hostler_kit::trust::ClientTls;
use hostler_kit::{Backoff, Clock};
use hostler_model::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use self::record::{Record, Settings};
use super::http::{Api, CallError, segment, text};
use super::{Setup, Started};
use crate::StartError;
use crate::config::Parts;
use crate::dial::{Dial, Server};
use crate::journal::{Journal, Pen};
use crate::status::AgentStatus;

pub use config::{Instance, Spot, Timers};
pub use metadata::{USUAL_METADATA, describe_self};
pub use prices::{FilePrices, Pool, PriceTable, Prices};
pub use replica::{NoTransfer, Progress, Replica, Source};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// For the last word to the server.
const LAST_WORD: Duration = Duration::from_secs(5);

struct Uplink {
    spot: Spot,
    parts: Parts,
    api: Api,
    pen: Pen,
    record: Record,
    status: watch::Sender<AgentStatus>,
}

/// A registered agent's way to the server.
struct Member<'a> {
    uplink: &'a Uplink,
    id: String,
}

/// Starts the task. It ends when the tasks are told to stop, after the last word.
pub(super) fn start(setup: Setup, spot: Spot) -> Started {
    let (status, shown) = watch::channel(AgentStatus::Connecting { problem: None });
    let alive = setup.alive;
    let tasks = setup.parts.tasks.clone();
    let uplink = Uplink {
        api: Api::new(setup.server.clone(), setup.parts.dial.clone()),
        pen: Pen(setup.config.journal.clone()),
        record: Record::open(&spot, setup.server.base(), setup.config.ledger_io),
        spot,
        parts: setup.parts,
        status,
    };
    tasks.spawn("uplink", async move {
        let stop = uplink.parts.tasks.clone();
        tokio::select! {
            biased;
            () = stop.stopping() => {}
            () = uplink.run() => {}
        }
        // Every loop has ended with the run; what is left is the last word.
        uplink.say_goodbye().await;
        drop(alive);
    });
    Started::calling(shown)
}

/// Says for an agent that is not running that it is offline. An agent that was never registered has nothing to say.
/// The TLS is for an https address.
///
/// # Errors
/// [`StartError`] if the address is none; what fails on the way is only told.
pub async fn shutdown(
    (server, tls): (&str, Option<ClientTls>),
    spot: &Spot,
    dial: Arc<dyn Dial>,
    journal: Arc<dyn Journal>,
) -> Result<(), StartError> {
    let api = Api::new(with_tls(Server::parse_base(server)?, tls), dial);
    let id = record::read_id(&spot.root);
    say_offline(&api, &spot.client_token, id.as_deref(), &Pen(journal)).await;
    Ok(())
}

/// Registers an agent that does not run yet, as an installer does, and answers its id. Nothing is written. The TLS is for
/// an https address.
///
/// # Errors
/// What came back instead, for a person.
pub async fn register(
    (server, tls): (&str, Option<ClientTls>),
    spot: &Spot,
    dial: Arc<dyn Dial>,
) -> Result<String, String> {
    let server = Server::parse_base(server).map_err(|error| error.to_string())?;
    let server = with_tls(server, tls);
    let body = registration(spot, String::new, String::new);
    let registered = ask_to_register(&Api::new(server, dial), &spot.client_token, body).await;
    let (id, _) = registered.map_err(|error| error.to_string())?;
    Ok(id)
}

fn with_tls(server: Server, tls: Option<ClientTls>) -> Server {
    match tls {
        Some(tls) => server.with_tls(tls),
        None => server,
    }
}

/// The last word: bounded, and whatever fails in it is told and lets the end come.
async fn say_offline(api: &Api, token: &str, id: Option<&str>, pen: &Pen) {
    if let Some(id) = id {
        let path = format!("/api/agents/{}/heartbeat", segment(id));
        let body = json!({"status": "offline"});
        let told = api.tell(&path, Some(token), &body);
        match tokio::time::timeout(LAST_WORD, told).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => pen.error(format!("Error during shutdown: {error}")),
            Err(_) => pen.error(format!(
                "Error during shutdown: no answer within {} s",
                LAST_WORD.as_secs()
            )),
        }
    }
    pen.info("Agent shutdown initiated");
}

impl Uplink {
    async fn run(&self) {
        let id = match self.record.id() {
            Some(id) => id,
            None => self.register().await,
        };
        let member = Member { uplink: self, id };
        // Each loop only waits and calls; none holds anything that an abrupt end would break.
        tokio::join!(
            member.beats(),
            member.poll_commands(),
            member.poll_config(),
            member.report_prices(),
            member.copy(),
        );
    }

    async fn say_goodbye(&self) {
        let id = self.record.id();
        say_offline(&self.api, &self.spot.client_token, id.as_deref(), &self.pen).await;
    }

    /// Registers, however long it takes.
    async fn register(&self) -> String {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            self.pen.info("Registering agent with server...");
            let answer = match self.try_to_register().await {
                Ok((id, answer)) => {
                    self.pen.info(format!("Agent registered with ID: {id}"));
                    let settings = Settings::default().changed_by(answer.get("config"));
                    self.note(self.record.registered(&id, settings).await);
                    AgentStatus::Registered { id: id.clone() }.show(&self.status);
                    return id;
                }
                Err(error) => error,
            };
            self.pen
                .error(format!("Failed to register agent: {answer}"));
            self.show_problem(&answer);
            tokio::time::sleep(backoff.next(self.parts.entropy.as_ref())).await;
        }
    }

    async fn try_to_register(&self) -> Result<(String, Value), CallError> {
        let facts = self.parts.machine.facts();
        let own_address = || facts.addresses.first().cloned().unwrap_or_default();
        let body = registration(&self.spot, || facts.hostname.clone(), own_address);
        ask_to_register(&self.api, &self.spot.client_token, body).await
    }

    /// A disk that takes nothing stops nothing.
    fn note(&self, written: Result<(), String>) {
        if let Err(problem) = written {
            self.pen
                .error(format!("Cannot write the agent's state: {problem}"));
        }
    }

    fn show_problem(&self, error: &CallError) {
        let problem = Some(error.to_string());
        AgentStatus::Connecting { problem }.show(&self.status);
    }

    fn now(&self) -> Timestamp {
        now(self.parts.clock.as_ref())
    }
}

impl Member<'_> {
    async fn beats(&self) {
        let mut ticks = ticks(self.uplink.spot.timers.heartbeat);
        let mut was_unknown = false;
        loop {
            ticks.tick().await;
            let is_unknown = match self.beat().await {
                Ok(()) => {
                    self.uplink.pen.debug("Heartbeat sent successfully");
                    let now = self.uplink.now();
                    self.uplink.note(self.uplink.record.beaten(now).await);
                    let id = self.id.clone();
                    AgentStatus::Registered { id }.show(&self.uplink.status);
                    false
                }
                Err(error) => {
                    self.uplink.pen.error(format!("Heartbeat failed: {error}"));
                    self.uplink.show_problem(&error);
                    error.status().is_some_and(|status| status.as_u16() == 404)
                }
            };
            if is_unknown && !was_unknown {
                self.uplink.pen.warn(format!(
                    "The server does not know agent {}: it was deleted there, or has its id from another server. To \
                     register anew, stop this agent and remove agent_id.txt; where it was deleted, give it another \
                     LOGICAL_AGENT_ID as well",
                    self.id
                ));
            }
            was_unknown = is_unknown;
        }
    }

    async fn beat(&self) -> Result<(), CallError> {
        let instance = &self.uplink.spot.instance;
        let body = json!({
            "status": "online",
            "instance_id": instance.id,
            "instance_type": instance.kind,
            "mode": instance.mode,
            "az": instance.az,
        });
        self.tell("heartbeat", &body).await
    }

    async fn poll_config(&self) {
        let mut ticks = ticks(self.uplink.spot.timers.config);
        loop {
            ticks.tick().await;
            match self.ask("config").await {
                Ok(config) => self.configure(&config).await,
                Err(error) => self
                    .uplink
                    .pen
                    .error(format!("Config polling failed: {error}")),
            }
        }
    }

    /// Writes settings down when they have changed.
    async fn configure(&self, config: &Value) {
        let before = self.uplink.record.settings();
        let settings = before.changed_by(Some(config));
        if settings == before {
            return;
        }
        self.uplink
            .pen
            .info(format!("Configuration changed: {settings}"));
        self.uplink
            .note(self.uplink.record.configured(settings).await);
    }

    async fn ask(&self, what: &str) -> Result<Value, CallError> {
        let token = Some(self.uplink.spot.client_token.as_str());
        self.uplink.api.get(&self.path(what), token).await
    }

    async fn tell(&self, what: &str, body: &Value) -> Result<(), CallError> {
        let token = Some(self.uplink.spot.client_token.as_str());
        self.uplink.api.tell(&self.path(what), token, body).await
    }

    fn path(&self, what: &str) -> String {
        format!("/api/agents/{}/{what}", segment(&self.id))
    }
}

/// Answers the id and all that came with it.
async fn ask_to_register(
    api: &Api,
    token: &str,
    mut body: Value,
) -> Result<(String, Value), CallError> {
    const PATH: &str = "/api/agents/register";
    let mut answer = api.post::<Value>(PATH, Some(token), &body).await;
    if let Err(CallError::Refused { status, reason }) = &answer
        && status.as_u16() == 400
        && reason.contains("client_token")
    {
        // An older server wants in the body what the header says already.
        body["client_token"] = json!(token);
        answer = api.post(PATH, Some(token), &body).await;
    }
    let answer = answer?;
    let id = text(answer.get("agent_id")).filter(|id| id != "null");
    let id = id.ok_or_else(|| CallError::Unreadable(format!("it names no agent_id: {answer}")))?;
    Ok((id, answer))
}

/// Exactly the keys that the contract's own installer sends: some servers refuse others.
fn registration(
    spot: &Spot,
    own_name: impl FnOnce() -> String,
    own_address: impl FnOnce() -> String,
) -> Value {
    let Spot {
        instance,
        logical_agent_id,
        agent_version,
        ..
    } = spot;
    json!({
        "logical_agent_id": logical_agent_id,
        "instance_id": instance.id,
        "instance_type": instance.kind,
        "region": instance.region,
        "az": instance.az,
        "ami_id": instance.ami_id,
        "mode": instance.mode,
        "hostname": instance.hostname.clone().unwrap_or_else(own_name),
        "private_ip": instance.private_ip.clone().unwrap_or_else(own_address),
        "public_ip": instance.public_ip.clone().unwrap_or_default(),
        "agent_version": agent_version,
    })
}

/// At once, then at the interval.
fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn now(clock: &dyn Clock) -> Timestamp {
    Timestamp::from_millis(clock.wall_millis())
}

//! One session: hello, welcome, then beats, intent, commands and what is observed, until it ends.
//!
//! ```text
//!   connect ─► Hello, Observed (full) ─► Welcome ─► ┌ Beat every interval      ┐
//!                                        Refused    │ Observed when it changes │ ─► lost, suspended, stopping
//!                                                   └ Intent, Command, Open    ┘
//! ```
//!
//! Every wait has an end: the connection, the welcome, each message that is sent, and the lease, within which
//! a beat must be answered.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt as _};
use hostler_model::spec::Kind;
use hostler_model::{NodeFacts, ObservedUnit, RuntimeFact, UnitId, UnitState};
use hostler_wire::session::v1;
use hostler_wire::session::v1::node_message::Message as Out;
use hostler_wire::session::v1::server_message::Message as In;
use hostler_wire::session::v1::session_client::SessionClient;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::gather::{Gather, Gathered};
use super::{Ended, SignsOfLife, Uplink, connect, convert, next_of, parts};
use crate::ledger::Origin;
use crate::reconcile::{Input, Proof};
use crate::show::Picture;
use crate::status::AgentStatus;

/// How long the other side may take to answer the hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may wait to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a driver may take to say whether it can work.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that may wait to be sent.
const OUTBOX: usize = 64;
/// A suspension longer than this makes the session be opened again.
const NOTABLE_SLEEP: Duration = Duration::from_secs(2);
/// How often a driver that was said not to work is asked again.
const ASK_DRIVERS: Duration = Duration::from_secs(30);
/// Bounds of what the control plane may ask for.
const BEATS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));

impl Uplink {
    /// Opens a session and stays in it; answers how it ended and whether it was welcome.
    pub(super) async fn session(&mut self) -> (Ended, bool) {
        let tasks = self.parts.tasks.clone();
        let mut was_joined = false;
        // Dropping the conversation closes its streams; nothing else is held.
        let ended = tokio::select! {
            biased;
            () = tasks.stopping() => Ended::Stopping,
            Err(ended) = Box::pin(self.converse(&mut was_joined)) => ended,
        };
        (ended, was_joined)
    }

    async fn converse(&mut self, was_joined: &mut bool) -> Result<Infallible, Ended> {
        let (channel, facts) = futures::join!(
            connect(&self.server, &self.parts.dial, SignsOfLife::Beats),
            self.facts()
        );
        let channel = channel.map_err(Ended::Lost)?;
        let available = convert::available(&facts);
        let picture = Arc::clone(&self.handle.picture.borrow_and_update());

        let (out, outbox) = mpsc::channel(OUTBOX);
        let sent = picture.units.clone();
        let mut first = vec![message(Out::Hello(self.hello(facts, picture.origin)))];
        first.extend(full_set(&sent));
        let outbound = stream::iter(first).chain(ReceiverStream::new(outbox));
        let mut client = SessionClient::new(channel);
        let answer = tokio::time::timeout(WELCOME_TIMEOUT, client.control(outbound)).await;
        let mut inbound = answer
            .map_err(|_| no_welcome())?
            .map_err(lost)?
            .into_inner();
        let welcome = self.welcome(&mut inbound).await?;
        let origin = convert::origin(&welcome).map_err(|error| Ended::Lost(error.to_string()))?;
        *was_joined = true;
        tracing::info!(
            node = %origin.node_id, fleet = %origin.fleet_id, version = welcome.version, "joined the fleet"
        );

        let session = Session {
            origin,
            out,
            sent,
            told_held: None,
            is_judged: false,
            gather: Gather::default(),
            has_intent: false,
            answers: FuturesUnordered::new(),
            sequence: 0,
            unanswered: VecDeque::new(),
            heard: self.parts.clock.uptime(),
            lease: Duration::from_millis(welcome.lease_ms).max(beat_interval(&welcome) * 3),
            asleep: self.parts.machine.asleep(),
            available,
            asked_drivers: self.parts.clock.uptime(),
            uplink: self,
        };
        Err(session.run(inbound, beat_interval(&welcome)).await)
    }

    async fn welcome(
        &self,
        inbound: &mut Streaming<v1::ServerMessage>,
    ) -> Result<v1::Welcome, Ended> {
        let first = tokio::time::timeout(WELCOME_TIMEOUT, inbound.message()).await;
        match first
            .map_err(|_| no_welcome())?
            .map_err(lost)?
            .and_then(|first| first.message)
        {
            Some(In::Welcome(welcome)) => Ok(welcome),
            Some(In::Refused(refused)) => Err(Ended::Refused(refused)),
            Some(_) => Err(Ended::Lost("the first answer was no welcome".to_owned())),
            None => Err(Ended::Lost(
                "the control plane closed the session".to_owned(),
            )),
        }
    }

    fn hello(&self, facts: NodeFacts, origin: Option<Origin>) -> v1::Hello {
        let has = match self.config.capacity {
            Some(capacity) => capacity,
            None => self.parts.machine.capacity(&self.config.data_dir),
        };
        v1::Hello {
            versions: Some(v1::Versions::ours()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            identity: self.identity.identity.clone(),
            name: self.identity.name.clone(),
            facts: Some(convert::facts(facts)),
            capacity: Some(convert::resources(has.minus(&self.config.reserved))),
            labels: self.config.labels.clone(),
            resume: origin.map(convert::resume),
        }
    }

    async fn facts(&self) -> NodeFacts {
        let probes = self.handle.runtimes.keys().map(|kind| self.probe(*kind));
        let runtimes = futures::future::join_all(probes).await;
        NodeFacts {
            runtimes,
            ..self.parts.machine.facts()
        }
    }

    async fn probe(&self, kind: Kind) -> RuntimeFact {
        let probing = self.handle.runtimes[&kind].probe();
        let fact = tokio::time::timeout(PROBE_TIMEOUT, probing).await;
        fact.unwrap_or_else(|_| RuntimeFact {
            kind,
            available: false,
            version: String::new(),
            note: format!("no answer within {} s", PROBE_TIMEOUT.as_secs()),
        })
    }
}

/// A session that was welcome.
struct Session<'a> {
    uplink: &'a mut Uplink,
    origin: Origin,
    out: mpsc::Sender<v1::NodeMessage>,
    /// The units as the other side knows them.
    sent: BTreeMap<UnitId, ObservedUnit>,
    /// What the other side was told in this session about intents that are held back.
    told_held: Option<v1::Held>,
    /// The intent of this session was judged.
    is_judged: bool,
    gather: Gather,
    /// The full intent of this session was handed to the reconciler.
    has_intent: bool,
    /// What the reconciler still has to answer, each giving a message to send.
    answers: FuturesUnordered<BoxFuture<'static, Option<Out>>>,
    sequence: u64,
    /// Beats that were sent and not answered, oldest first.
    unanswered: VecDeque<(u64, Proof)>,
    /// Uptime when a beat was answered last.
    heard: Duration,
    lease: Duration,
    asleep: Duration,
    /// The drivers that were said to work.
    available: Vec<Kind>,
    asked_drivers: Duration,
}

impl Session<'_> {
    async fn run(mut self, mut inbound: Streaming<v1::ServerMessage>, interval: Duration) -> Ended {
        // The first beat waits for the intent, which says that the observed set was taken in; a digest that
        // came before it would only make the other side ask for the set again.
        let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut picture = self.uplink.handle.picture.clone();
        picture.mark_changed();
        loop {
            // Every arm only waits until it completes; dropping it at that point loses nothing. A message
            // that is half received stays in the stream. In this order nothing starves: beats are rare,
            // answers follow from what was received, and only the newest picture counts.
            let done = tokio::select! {
                biased;
                _ = beats.tick() => self.beat().await,
                answer = next_of(&mut self.answers) => match answer {
                    Some(answer) => self.answer(answer).await,
                    None => Ok(()),
                },
                changed = picture.changed() => match changed {
                    Ok(()) => {
                        let shown = Arc::clone(&picture.borrow_and_update());
                        self.tell(&shown).await
                    }
                    Err(_) => Err(Ended::Stopping),
                },
                received = inbound.message() => match received {
                    Ok(Some(received)) => self.take(received).await,
                    Ok(None) => Err(Ended::Lost("the control plane closed the session".to_owned())),
                    Err(status) => Err(lost(status)),
                },
            };
            if let Err(ended) = done {
                return ended;
            }
            if self.has_intent && self.sequence == 0 {
                beats.reset_immediately();
            }
        }
    }

    async fn take(&mut self, received: v1::ServerMessage) -> Result<(), Ended> {
        match received.message {
            Some(In::Intent(intent)) => self.take_intent(intent).await,
            Some(In::Command(command)) => self.take_command(command).await,
            Some(In::Open(open)) => {
                self.open(open);
                Ok(())
            }
            Some(In::BeatAck(ack)) => self.take_ack(ack).await,
            Some(In::Resend(_)) => self.resend().await,
            Some(In::Refused(refused)) => Err(Ended::Refused(refused)),
            // A second welcome says nothing; what a newer control plane adds is not for this agent.
            Some(In::Welcome(_)) | None => Ok(()),
        }
    }

    async fn take_intent(&mut self, intent: v1::Intent) -> Result<(), Ended> {
        let gathered = self.gather.take(intent);
        let gathered = gathered.map_err(|error| Ended::Lost(error.to_string()))?;
        let (done, on_disk) = oneshot::channel();
        let (version, input) = match gathered {
            Gathered::Nothing => return Ok(()),
            Gathered::Full { version, items } => (
                version,
                Input::Full {
                    from: self.origin,
                    items,
                    done,
                },
            ),
            Gathered::Increment {
                version,
                items,
                removed,
            } => (
                version,
                Input::Increment {
                    items,
                    removed,
                    done,
                },
            ),
        };
        self.has_intent |= matches!(input, Input::Full { .. });
        self.hand_over(input).await?;
        self.answers.push(Box::pin(async move {
            // Without an answer it was not written: the reconciler has gone.
            on_disk
                .await
                .ok()
                .map(|()| Out::Applied(v1::Applied { version }))
        }));
        Ok(())
    }

    async fn take_command(&mut self, command: v1::Command) -> Result<(), Ended> {
        let v1::Command { id: name, json } = command;
        let (id, command) = match (name.parse(), serde_json::from_slice(&json)) {
            (Ok(id), Ok(command)) => (id, command),
            _ => {
                let message = "this agent does not know the command".to_owned();
                let answer = v1::Acknowledge {
                    command: name,
                    done: false,
                    message,
                };
                return self.send(Out::Acknowledge(answer)).await;
            }
        };
        let (done, result) = oneshot::channel();
        self.hand_over(Input::Command { id, command, done }).await?;
        self.answers.push(Box::pin(async move {
            let (done, message) = match result.await.ok()? {
                Ok(result) => (true, result),
                Err(error) => (false, error),
            };
            Some(Out::Acknowledge(v1::Acknowledge {
                command: name,
                done,
                message,
            }))
        }));
        Ok(())
    }

    fn open(&self, open: v1::Open) {
        let Some(v1::open::Request::Logs(request)) = open.request else {
            tracing::warn!("asked for a transfer that this agent does not know");
            return;
        };
        let unit = convert::read_unit_id(request.unit.clone()).ok();
        let picture = self.uplink.handle.picture.borrow();
        let kind = unit
            .and_then(|unit| picture.units.get(&unit))
            .map(|observed| observed.kind);
        let runtime = kind
            .and_then(|kind| self.uplink.handle.runtimes.get(&kind))
            .map(Arc::clone);
        let query = convert::log_query(&request);
        self.uplink
            .bulk
            .send_logs(open.ticket, unit.zip(runtime), query);
    }

    /// The answer to a beat proves contact as of the moment the beat was sent. It counts only with the
    /// intent of this session in hand: an older one may want what has been given to another node since.
    async fn take_ack(&mut self, ack: v1::BeatAck) -> Result<(), Ended> {
        let mut proof = None;
        while let Some((sequence, sent)) = self.unanswered.front().copied() {
            if sequence > ack.sequence {
                break;
            }
            self.unanswered.pop_front();
            proof = Some(sent);
        }
        let Some(proof) = proof else { return Ok(()) };
        self.heard = self.uplink.parts.clock.uptime();
        if self.has_intent {
            self.hand_over(Input::Contact(proof)).await?;
        }
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), Ended> {
        let parts = &self.uplink.parts;
        let now = Proof {
            uptime: parts.clock.uptime(),
            asleep: parts.machine.asleep(),
        };
        if now.asleep.saturating_sub(self.asleep) > NOTABLE_SLEEP {
            return Err(Ended::Again("the machine was suspended"));
        }
        let silence = now.uptime.saturating_sub(self.heard);
        if silence > self.lease {
            return Err(Ended::Lost(format!(
                "no beat was answered for {} ms",
                silence.as_millis()
            )));
        }
        self.ask_drivers(now.uptime).await?;
        let mut usage = self
            .uplink
            .parts
            .machine
            .usage(&self.uplink.config.data_dir);
        usage
            .running_containers
            .clone_from(&self.uplink.handle.picture.borrow().containers);
        self.sequence += 1;
        self.unanswered.push_back((self.sequence, now));
        self.send(Out::Beat(v1::Beat {
            sequence: self.sequence,
            usage: Some(convert::usage(usage)),
            observed_digest: hostler_model::digest(self.sent.values()),
        }))
        .await
    }

    /// A driver that was said not to work, and works now, is news that only a hello can carry.
    async fn ask_drivers(&mut self, now: Duration) -> Result<(), Ended> {
        if now.saturating_sub(self.asked_drivers) < ASK_DRIVERS {
            return Ok(());
        }
        self.asked_drivers = now;
        let down = self.uplink.handle.picture.borrow().down.clone();
        let kinds = self.uplink.handle.runtimes.keys();
        let answering: Vec<Kind> = kinds
            .filter(|kind| !self.available.contains(kind) && !down.contains(kind))
            .copied()
            .collect();
        for kind in answering {
            if self.uplink.probe(kind).await.available {
                return Err(Ended::Again("a driver works that did not work before"));
            }
        }
        Ok(())
    }

    /// Tells what differs from what the other side knows.
    async fn tell(&mut self, picture: &Picture) -> Result<(), Ended> {
        let mut changed = Vec::new();
        for (unit, observed) in &picture.units {
            if self.sent.get(unit) != Some(observed) {
                changed.push(convert::observed(observed));
            }
        }
        for (unit, observed) in &self.sent {
            if !picture.units.contains_key(unit) && observed.state != UnitState::Gone {
                let gone = ObservedUnit {
                    state: UnitState::Gone,
                    ..observed.clone()
                };
                changed.push(convert::observed(&gone));
            }
        }
        if !changed.is_empty() {
            self.sent.clone_from(&picture.units);
            for part in parts::observed(changed, false) {
                self.send_message(part).await?;
            }
        }
        self.tell_held(picture).await?;
        self.show_status(picture);
        Ok(())
    }

    /// Before the intent of this session was judged, only the news that one is held back is certain.
    async fn tell_held(&mut self, picture: &Picture) -> Result<(), Ended> {
        let held = picture.held.as_ref().map(|held| v1::Held {
            reason: held.reason.clone(),
            would_stop: held.would_stop,
        });
        if held.is_none() && !self.is_judged {
            return Ok(());
        }
        let held = held.unwrap_or_default();
        if self.told_held.as_ref() == Some(&held) {
            return Ok(());
        }
        self.told_held = Some(held.clone());
        self.send(Out::Held(held)).await
    }

    fn show_status(&self, picture: &Picture) {
        let node_id = self.origin.node_id;
        let next = match &picture.held {
            None => AgentStatus::Joined { node_id },
            Some(held) => AgentStatus::Held {
                node_id,
                reason: held.reason.clone(),
                would_stop: held.would_stop,
            },
        };
        self.uplink.status.send_if_modified(|status| {
            let is_new = *status != next;
            *status = next;
            is_new
        });
    }

    /// Passes on what the reconciler has answered.
    async fn answer(&mut self, answer: Out) -> Result<(), Ended> {
        let is_judgement = matches!(answer, Out::Applied(_));
        self.send(answer).await?;
        if is_judgement && !self.is_judged {
            self.is_judged = true;
            let picture = Arc::clone(&self.uplink.handle.picture.borrow());
            self.tell_held(&picture).await?;
        }
        Ok(())
    }

    async fn resend(&mut self) -> Result<(), Ended> {
        let picture = Arc::clone(&self.uplink.handle.picture.borrow());
        self.sent.clone_from(&picture.units);
        for part in full_set(&self.sent) {
            self.send_message(part).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, input: Input) -> Result<(), Ended> {
        // The reconciler ends only when everything does.
        self.uplink
            .handle
            .inputs
            .send(input)
            .await
            .map_err(|_| Ended::Stopping)
    }

    async fn send(&mut self, out: Out) -> Result<(), Ended> {
        self.send_message(message(out)).await
    }

    async fn send_message(&mut self, message: v1::NodeMessage) -> Result<(), Ended> {
        match tokio::time::timeout(SEND_TIMEOUT, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Lost("the connection broke".to_owned())),
            Err(_) => Err(Ended::Lost("the control plane takes nothing in".to_owned())),
        }
    }
}

const fn message(out: Out) -> v1::NodeMessage {
    v1::NodeMessage { message: Some(out) }
}

fn full_set(units: &BTreeMap<UnitId, ObservedUnit>) -> Vec<v1::NodeMessage> {
    parts::observed(units.values().map(convert::observed).collect(), true)
}

fn beat_interval(welcome: &v1::Welcome) -> Duration {
    Duration::from_millis(welcome.beat_interval_ms).clamp(BEATS.0, BEATS.1)
}

fn no_welcome() -> Ended {
    Ended::Lost(format!("no welcome within {} s", WELCOME_TIMEOUT.as_secs()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn lost(status: tonic::Status) -> Ended {
    Ended::Lost(super::chain(&status))
}

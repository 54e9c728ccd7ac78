//! A session that was welcome: beats, intent, commands, transfers and what is observed, until it ends.
//!
//! It owns what the other side was told, so that only differences are sent; all of it is lost with the session,
//! because the next one begins by telling everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hostler_model::{ObservedUnit, UnitId, UnitState, WorkloadId};
use hostler_runtime::Runtime;
use hostler_wire::session::v1;
use hostler_wire::session::v1::node_message::Message as Out;
use hostler_wire::session::v1::server_message::Message as In;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tonic::Streaming;

use super::bulk::Job;
use super::errands::Asked;
use super::gather::{Gather, Gathered};
use super::{Ended, Uplink, convert, next_of, parts};
use crate::guard::Speaker;
use crate::probe::Known;
use crate::reconcile::{Input, Proof};
use crate::show::Picture;
use crate::status::AgentStatus;
use crate::uplink::channel::failure;

/// How long a message may wait to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A suspension longer than this makes the session be opened again.
const NOTABLE_SLEEP: Duration = Duration::from_secs(2);
/// Workloads that are asked about in one message.
const KEPT_AT_ONCE: usize = 1000;

/// A session that was welcome.
pub(super) struct Session<'a> {
    uplink: &'a mut Uplink,
    speaker: Speaker,
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
    /// What the other side knows of the drivers, and whether it takes more in this session.
    told: Arc<Known>,
    takes_facts: bool,
    /// The round of figures that was told last.
    told_figures: u64,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        uplink: &'a mut Uplink,
        speaker: Speaker,
        out: mpsc::Sender<v1::NodeMessage>,
        sent: BTreeMap<UnitId, ObservedUnit>,
    ) -> Self {
        let (now, asleep) = (uplink.parts.clock.uptime(), uplink.parts.machine.asleep());
        Self {
            uplink,
            speaker,
            out,
            sent,
            told_held: None,
            is_judged: false,
            gather: Gather::default(),
            has_intent: false,
            answers: FuturesUnordered::new(),
            sequence: 0,
            unanswered: VecDeque::new(),
            heard: now,
            lease: Duration::ZERO,
            asleep,
            told: Arc::default(),
            takes_facts: false,
            told_figures: 0,
        }
    }

    /// Within this time a beat has to be answered.
    pub(super) fn within(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// What the hello told of the drivers, and whether facts may follow.
    pub(super) fn having(self, told: Arc<Known>, takes_facts: bool) -> Self {
        Self {
            told,
            takes_facts,
            ..self
        }
    }

    /// Stays in the session; answers how it ended.
    pub(super) async fn run(
        mut self,
        mut inbound: Streaming<v1::ServerMessage>,
        interval: Duration,
    ) -> Ended {
        // The first beat waits for the intent, which says that the observed set was taken in; a digest that
        // came before it would only make the other side ask for the set again.
        let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut picture = self.uplink.handle.picture.clone();
        picture.mark_changed();
        let mut abilities = self.uplink.handle.abilities.clone();
        let mut kept = self.uplink.handle.care.kept.clone();
        kept.mark_changed();
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
                () = abilities.changed() => self.tell_facts().await,
                // Only who follows the intent asks what is not wanted any more.
                changed = kept.changed(), if self.is_judged => match changed {
                    Ok(()) => {
                        let workloads = kept.borrow_and_update().clone();
                        self.tell_kept(&workloads).await
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
            Some(In::Unwanted(unwanted)) => {
                self.take_unwanted(&unwanted);
                Ok(())
            }
            Some(In::Refused(refused)) => Err(Ended::Refused(refused)),
            // A second welcome says nothing; what a newer control plane adds is not for this agent.
            Some(In::Welcome(_)) | None => Ok(()),
        }
    }

    async fn take_intent(&mut self, intent: v1::Intent) -> Result<(), Ended> {
        let revision = intent.store_revision;
        let gathered = self.gather.take(intent);
        let gathered = gathered.map_err(|error| Ended::Lost(error.to_string()))?;
        let (done, on_disk) = oneshot::channel();
        let (version, input) = match gathered {
            Gathered::Nothing => return Ok(()),
            Gathered::Full { version, items } => (
                version,
                Input::Full {
                    from: self.speaker,
                    revision,
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
                    revision,
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
        let job = match open.request {
            Some(v1::open::Request::Logs(request)) => Job::Logs {
                source: self.source(request.unit.clone()),
                query: convert::log_query(&request),
            },
            Some(v1::open::Request::Errand(request)) => {
                let place = self.source(request.unit.clone());
                let Some(errand) = convert::errand(request) else {
                    tracing::warn!("asked for an errand that this agent does not know");
                    return;
                };
                Job::Errand(Box::new(Asked {
                    place,
                    errand,
                    guardian: Arc::clone(&self.uplink.handle.guardian),
                }))
            }
            None => {
                tracing::warn!("asked for a transfer that this agent does not know");
                return;
            }
        };
        self.uplink.bulk.open(open.ticket, job);
    }

    /// A unit that is here, and its driver.
    fn source(&self, unit: Option<v1::UnitId>) -> Option<(UnitId, Arc<dyn Runtime>)> {
        let unit = convert::read_unit_id(unit).ok()?;
        let kind = self.uplink.handle.picture.borrow().units.get(&unit)?.kind;
        let runtime = self.uplink.handle.runtimes.get(&kind)?;
        Some((unit, Arc::clone(runtime)))
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
        let mut usage = self
            .uplink
            .parts
            .machine
            .usage(&self.uplink.config.data_dir);
        usage.running_containers = self.uplink.handle.containers();
        let figures = Arc::clone(&self.uplink.handle.figures.borrow());
        usage.units = figures.news(self.told_figures);
        usage
            .pressure
            .clone_from(&self.uplink.handle.pressure.borrow());
        self.told_figures = figures.round;
        self.sequence += 1;
        self.unanswered.push_back((self.sequence, now));
        self.send(Out::Beat(v1::Beat {
            sequence: self.sequence,
            usage: Some(convert::usage(usage)),
            observed_digest: hostler_model::digest(self.sent.values()),
        }))
        .await
    }

    /// Tells what the drivers can do if it is news. Where facts come with a hello only, there is another.
    async fn tell_facts(&mut self) -> Result<(), Ended> {
        let known = self.uplink.handle.abilities.known();
        if known == self.told {
            return Ok(());
        }
        if !self.takes_facts {
            return Err(Ended::Again("what a driver can do has changed"));
        }
        let facts = self.uplink.facts(&known);
        self.told = known;
        self.send(Out::Facts(facts)).await
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

    /// Asks which of the workloads whose data is kept are still known.
    async fn tell_kept(&mut self, workloads: &BTreeSet<WorkloadId>) -> Result<(), Ended> {
        let workloads: Vec<String> = workloads.iter().map(ToString::to_string).collect();
        for some in workloads.chunks(KEPT_AT_ONCE) {
            let workloads = some.to_vec();
            self.send(Out::Kept(v1::Kept { workloads })).await?;
        }
        Ok(())
    }

    /// What is not known any more is for the care to delete, if the control plane is the one that is followed.
    fn take_unwanted(&mut self, unwanted: &v1::Unwanted) {
        let picture = self.uplink.handle.picture.borrow();
        if picture.held.is_some() || picture.origin != Some(self.speaker.origin) {
            return;
        }
        let kept = self.uplink.handle.care.kept.borrow();
        let told = unwanted.workloads.iter().filter_map(|id| id.parse().ok());
        let told: BTreeSet<WorkloadId> = told.filter(|id| kept.contains(id)).collect();
        // What was deleted never comes back.
        self.uplink.handle.care.unwanted.send_if_modified(|known| {
            let before = known.len();
            known.retain(|id| kept.contains(id));
            let dropped = before - known.len();
            known.extend(told);
            known.len() > before - dropped
        });
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
        let node_id = self.speaker.origin.node_id;
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

pub(super) const fn message(out: Out) -> v1::NodeMessage {
    v1::NodeMessage { message: Some(out) }
}

pub(super) fn full_set(units: &BTreeMap<UnitId, ObservedUnit>) -> Vec<v1::NodeMessage> {
    parts::observed(units.values().map(convert::observed).collect(), true)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn lost(status: tonic::Status) -> Ended {
    Ended::Lost(failure(&status))
}

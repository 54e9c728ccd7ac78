//! A session that was welcome: beats, intent, commands, transfers and what is observed, until it ends.
//!
//! It owns what the other side was told, so that only differences are sent; all of it is lost with the session,
//! because the next one begins by telling everything.

mod news;
mod orders;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use hostler_kit::trust::Print;
use hostler_model::{ObservedUnit, Resources, UnitId};
use hostler_wire::session::v1;
use hostler_wire::session::v1::node_message::Message as Out;
use hostler_wire::session::v1::server_message::Message as In;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tonic::Streaming;

use super::gather::Gather;
use super::{Ended, Uplink, convert, next_of};
use crate::guard::Speaker;
use crate::probe::Known;
use crate::reconcile::{Input, Proof};
use crate::uplink::channel::failure;

pub(super) use news::full_set;

/// How long a message may wait to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent waits until its leave was heard.
const LEAVING: Duration = Duration::from_millis(500);
/// A suspension longer than this makes the session be opened again.
const NOTABLE_SLEEP: Duration = Duration::from_secs(2);

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
    /// What the hello kept for the machine itself.
    reserved: Resources,
    /// The newest authority that the node believes; what the hello said of it is seen.
    believed: watch::Receiver<Option<Print>>,
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
            reserved: Resources::ZERO,
            believed: watch::channel(None).1,
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

    /// What the hello kept for the machine itself.
    pub(super) fn keeping(self, reserved: Resources) -> Self {
        Self { reserved, ..self }
    }

    /// The newest authority that the node believes; what the hello said is seen.
    pub(super) fn believing(self, believed: watch::Receiver<Option<Print>>) -> Self {
        Self { believed, ..self }
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
        self.uplink.handle.vault.begin();
        let mut picture = self.uplink.handle.picture.clone();
        picture.mark_changed();
        let mut abilities = self.uplink.handle.abilities.clone();
        let mut tuned = self.uplink.handle.tuned.clone();
        let mut believed = self.believed.clone();
        let mut kept = self.uplink.handle.care.kept.clone();
        kept.mark_changed();
        let tasks = self.uplink.parts.tasks.clone();
        loop {
            // Every arm only waits until it completes; dropping it at that point loses nothing. A message
            // that is half received stays in the stream. In this order nothing starves: beats are rare,
            // answers follow from what was received, and only the newest picture counts.
            let done = tokio::select! {
                biased;
                () = tasks.stopping() => Err(Ended::Stopping),
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
                () = tuned.reserves_other_than(self.reserved) => {
                    Err(Ended::Again("something else is kept for the machine itself"))
                }
                // Where there is no membership nobody can change it.
                Ok(()) = believed.changed() => {
                    let print = *believed.borrow_and_update();
                    self.tell_belief(print).await
                }
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
            match done {
                Ok(()) => {}
                Err(ended @ (Ended::Stopping | Ended::Again(_))) => {
                    self.leave(inbound).await;
                    return ended;
                }
                Err(ended) => return ended,
            }
            if self.has_intent && self.sequence == 0 {
                beats.reset_immediately();
            }
        }
    }

    /// Says what it knows, and that nothing follows, so that nobody is suspected. The other side ends the stream when it has
    /// taken it in.
    async fn leave(mut self, mut inbound: Streaming<v1::ServerMessage>) {
        let leaving = async move {
            if self.tell_the_rest().await.is_ok()
                && self.send(Out::Leave(v1::Leave {})).await.is_ok()
            {
                drop(self);
                while let Ok(Some(_)) = inbound.message().await {}
            }
        };
        // If it was not heard the node is suspect for a moment, as after any other end.
        let _ = tokio::time::timeout(LEAVING, leaving).await;
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
            Some(In::Secrets(secrets)) => self.take_secrets(secrets).await,
            Some(In::Unwanted(unwanted)) => {
                self.take_unwanted(&unwanted);
                Ok(())
            }
            Some(In::RenewNow(_)) => {
                if let Some(membership) = &self.uplink.membership {
                    membership.hurry();
                }
                Ok(())
            }
            Some(In::Refused(refused)) => Err(Ended::Refused(refused)),
            // A second welcome says nothing; what a newer control plane adds is not for this agent.
            Some(In::Welcome(_)) | None => Ok(()),
        }
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

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn lost(status: tonic::Status) -> Ended {
    Ended::Lost(failure(&status))
}

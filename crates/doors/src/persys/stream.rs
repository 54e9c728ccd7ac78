//! The control stream: an agent that holds one is told on it what to run, instead of being dialled.
//!
//! ```text
//!   node ── register, or a heartbeat of a known node ──► attach ──► heartbeats: leases, and what is on the node
//!   node ◄────────────── apply, delete ────────────────── deliver ◄── wake
//! ```
//!
//! The contract has no answers on the stream: a refusal ends it with a status. Each heartbeat tells all that is on
//! the node, so the first one stands for its list. What was told is told again if the next heartbeats do not show
//! it. Owned by one task for each stream; a newer stream, the node's removal, or the end of the token that opened it
//! ends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hostler_control::{Attachment, Link, LogRecord, LogRequest};
use hostler_model::{Liveness, NodeId, ObservedUnit, Refusal, UnitId, UnitState};
use hostler_wire::persys::control::control_message::Message;
use hostler_wire::persys::control::{
    ApplyWorkloadRequest, ControlMessage, DeleteWorkloadRequest, WorkloadStatus,
};
use tokio::sync::{Notify, mpsc};
use tonic::{Status, Streaming};

use super::drive::seen::{self, Told};
use super::drive::tries::Tries;
use super::drive::{MACHINE, no_logs};
use super::holders::Say;
use super::want::{self, Goal, Want};
use super::{Door, beat, register};
use crate::access::Warrant;

/// How long an agent may take for the first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);
/// How long an agent may take to read one message.
const READING: Duration = Duration::from_secs(20);

/// How soon it is looked whether something may be told again.
const AGAIN: Duration = Duration::from_secs(1);

type Answers = mpsc::Sender<Result<ControlMessage, Status>>;

/// Holds the stream until it ends, and says why.
pub(super) async fn hold(
    door: Arc<Door>,
    (mut messages, stay): (Streaming<ControlMessage>, Warrant),
    answers: Answers,
) {
    let held = Box::pin(converse(&door, &mut messages, &answers));
    let end = tokio::select! {
        biased;
        end = held => end,
        () = door.control.tasks().stopping() => Err(Status::unavailable("the server is stopping")),
        refusal = stay.over() => Err(Status::unauthenticated(refusal.sentence)),
    };
    if let Err(status) = end {
        // Nobody may be there to read it, and then nothing is lost.
        let _ = tokio::time::timeout(READING, answers.send(Err(status))).await;
    }
    door.woken.notify_one();
}

async fn converse(
    door: &Arc<Door>,
    messages: &mut Streaming<ControlMessage>,
    answers: &Answers,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST_MESSAGE, messages.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no registration came"))??;
    let Some(first) = first.and_then(|it| it.message) else {
        return Err(Status::invalid_argument("the first message is empty"));
    };
    let node = greeted(door, &first).await?;
    let link = Arc::new(Streamed::default());
    let (_holding, says) = door.holders.hold(node);
    let attached = door
        .control
        .attach(node, MACHINE, Arc::clone(&link) as Arc<dyn Link>);
    let attachment = attached.map_err(|it| Status::failed_precondition(it.sentence))?;
    let mut conversation = Conversation {
        door,
        node,
        attachment: &attachment,
        answers,
        sent: BTreeMap::new(),
        told_in_full: false,
    };
    let end = conversation.run(first, (messages, says), &link).await;
    // In order: the lease is kept up by beats, and the agent can be dialled.
    attachment.close();
    end
}

/// Who it is.
async fn greeted(door: &Door, first: &Message) -> Result<NodeId, Status> {
    match first {
        Message::Register(request) => registered(door, request.clone()).await,
        Message::Heartbeat(request) => {
            let unknown = || Status::not_found(format!("node {} not found", request.node_id));
            door.node(&request.node_id)
                .map(|node| node.id)
                .ok_or_else(unknown)
        }
        Message::Apply(_) | Message::Delete(_) => Err(Status::invalid_argument(
            "the first message of a stream registers the node",
        )),
    }
}

async fn registered(
    door: &Door,
    request: hostler_wire::persys::control::RegisterNodeRequest,
) -> Result<NodeId, Status> {
    let endpoint = register::checked(&request)?;
    let announcement = register::announcement(request, &endpoint);
    let announcement = announcement.map_err(Status::failed_precondition)?;
    let admitted = register::admit(door, announcement).await;
    admitted.map_err(|refusal| Status::failed_precondition(register::reason(&refusal)))
}

#[derive(Debug, Default)]
struct Streamed {
    woken: Notify,
}

#[async_trait]
impl Link for Streamed {
    fn wake(&self) {
        self.woken.notify_one();
    }

    async fn logs(
        &self,
        _unit: UnitId,
        _query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        Err(no_logs())
    }
}

struct Conversation<'a> {
    door: &'a Door,
    node: NodeId,
    attachment: &'a Attachment,
    answers: &'a Answers,
    sent: BTreeMap<String, Sent>,
    told_in_full: bool,
}

/// What the agent was told of one id.
#[derive(Debug, Default)]
struct Sent {
    what: Option<(Goal, String, UnitId)>,
    /// It is to be told again as soon as it may be tried.
    is_due: bool,
    tries: Tries,
    state: Option<UnitState>,
}

impl Conversation<'_> {
    async fn run(
        &mut self,
        first: Message,
        (messages, mut says): (&mut Streaming<ControlMessage>, mpsc::Receiver<Say>),
        link: &Streamed,
    ) -> Result<(), Status> {
        if let Message::Heartbeat(_) = first {
            self.listen(first).await?;
        }
        let closed = self.attachment.closed();
        tokio::pin!(closed);
        loop {
            self.deliver().await?;
            // Each arm is cancel-safe: what was not received is received in the next round.
            tokio::select! {
                biased;
                () = &mut closed => return Err(Status::aborted("a newer connection speaks for the node")),
                say = says.recv() => match say {
                    Some(say) => self.hear(say).await?,
                    None => return Ok(()),
                },
                message = messages.message() => match message?.map(|it| it.message) {
                    Some(Some(message)) => self.listen(message).await?,
                    Some(None) => {}
                    None => return Ok(()),
                },
                () = link.woken.notified() => {}
                () = tokio::time::sleep(AGAIN), if self.sent.values().any(|it| it.is_due) => {}
            }
        }
    }

    async fn listen(&mut self, message: Message) -> Result<(), Status> {
        match message {
            Message::Register(request) => {
                let node = registered(self.door, request).await?;
                if node == self.node {
                    return Ok(());
                }
                Err(Status::invalid_argument("a stream speaks for one node"))
            }
            Message::Heartbeat(request) => {
                let node = self.door.node(&request.node_id).map(|node| node.id);
                if node != Some(self.node) {
                    return Err(Status::invalid_argument("a stream speaks for one node"));
                }
                // What it tells comes back as a word, as that of any other heartbeat does.
                beat::heartbeat(self.door, request).await.map(|_| ())
            }
            Message::Apply(_) | Message::Delete(_) => Err(Status::invalid_argument(
                "apply and delete go down this stream; ask for them by their own calls",
            )),
        }
    }

    async fn hear(&mut self, say: Say) -> Result<(), Status> {
        match say {
            Say::Look => Ok(()),
            Say::Statuses(statuses) => self.observe(statuses).await,
        }
    }

    /// What somebody asked to be tried again begins anew.
    fn begin_anew(&mut self) {
        let asked = self.door.holders.take_retries(self.node);
        if asked.is_empty() {
            return;
        }
        let wants = self.wants();
        for want in wants.values().filter(|want| asked.contains(&want.workload)) {
            if let Some(sent) = self.sent.get_mut(&want.id) {
                sent.tries.reset();
                sent.is_due = true;
            }
        }
    }

    fn wants(&self) -> BTreeMap<String, Want> {
        let fleet = self.door.control.fleet_id();
        want::of(&self.door.control.view(), self.node, fleet)
    }

    /// Tells the agent what it was not told yet.
    async fn deliver(&mut self) -> Result<(), Status> {
        for command in self.door.control.pending_commands(self.node) {
            let word = Err("a Persys agent takes no such order".to_owned());
            if let Err(refusal) = self.attachment.acknowledge(command.id, word).await {
                tracing::debug!(command = %command.id, %refusal, "not recorded");
            }
        }
        self.begin_anew();
        let now = self.door.control.clock().uptime();
        let wants = self.wants();
        self.sent.retain(|id, _| wants.contains_key(id));
        for want in wants.values() {
            let what = (want.goal, want.revision.clone(), want.unit);
            let sent = self.sent.entry(want.id.clone()).or_default();
            let is_same = sent.what.as_ref() == Some(&what);
            let is_due = sent.is_due && sent.tries.may(now);
            if (is_same && !is_due) || want.goal == Goal::Rest {
                continue;
            }
            if !is_same {
                *sent = Sent::default();
            }
            sent.is_due = false;
            let message = match want.goal {
                Goal::Run => apply(want, "Running"),
                Goal::Park => apply(want, "Stopped"),
                Goal::Remove | Goal::Rest => Ok(Message::Delete(DeleteWorkloadRequest {
                    workload_id: want.id.clone(),
                })),
            };
            sent.what = Some(what);
            sent.tries.begin(now);
            match message {
                Ok(message) => self.send(message).await?,
                Err(why) => {
                    tracing::warn!(node = %self.node, id = want.id, why, "cannot be told");
                    let code = "INVALID_SPECIFICATION".to_owned();
                    sent.tries.fail(now, &code, true);
                    let state = UnitState::Failed {
                        code,
                        message: why,
                        retry_at: self.door.now(),
                    };
                    sent.state = Some(state.clone());
                    let told = vec![unit(want, want.unit, state)];
                    let told = self.attachment.observed_delta(told).await;
                    told.map_err(|refusal| Status::unavailable(refusal.sentence))?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, message: Message) -> Result<(), Status> {
        let message = ControlMessage {
            message: Some(message),
        };
        let sent = tokio::time::timeout(READING, self.answers.send(Ok(message))).await;
        let late = || Status::deadline_exceeded("the agent reads too slowly");
        sent.ok().and_then(Result::ok).ok_or_else(late)
    }

    /// All that is on the node, as its heartbeat tells it.
    async fn observe(&mut self, statuses: Vec<WorkloadStatus>) -> Result<(), Status> {
        let (now, wall) = (self.door.control.clock().uptime(), self.door.now());
        let wants = self.wants();
        let by_id: BTreeMap<&str, &WorkloadStatus> = statuses
            .iter()
            .map(|status| (status.workload_id.as_str(), status))
            .collect();
        let mut units = Vec::new();
        for want in wants.values().filter(|want| want.goal != Goal::Rest) {
            let gone = want.superseded.iter();
            units.extend(gone.map(|older| unit(want, *older, UnitState::Gone)));
            let sent = self.sent.entry(want.id.clone()).or_default();
            let told = match by_id.get(want.id.as_str()) {
                Some(status) => seen::told_by_beat(status, wall),
                None => Some(Told::Missing),
            };
            let Some(told) = told else { continue };
            let state = sent.observe(want, told, (now, wall));
            let next_at = match state {
                UnitState::Failed { retry_at, .. } => sent.tries.wait(now).map(|_| retry_at),
                _ => None,
            };
            let attempts = sent.tries.attempts;
            self.door.notes.write(want.workload, |note| {
                note.attempts = attempts;
                note.next_at = next_at;
            });
            units.push(unit(want, want.unit, state));
        }
        self.tell(units).await
    }

    async fn tell(&mut self, units: Vec<ObservedUnit>) -> Result<(), Status> {
        let liveness = self
            .door
            .control
            .view()
            .node(self.node)
            .map(|it| it.liveness);
        let is_full = !self.told_in_full || liveness == Some(Liveness::Joining);
        let told = if is_full {
            self.attachment.observed_full(units).await
        } else {
            self.attachment.observed_delta(units).await
        };
        told.map_err(|refusal| Status::unavailable(refusal.sentence))?;
        self.told_in_full = true;
        Ok(())
    }
}

impl Sent {
    /// Takes what a heartbeat says; forgets what was sent if it has to be sent again.
    fn observe(
        &mut self,
        want: &Want,
        told: Told,
        (now, wall): (Duration, hostler_model::Timestamp),
    ) -> UnitState {
        let is_there = told != Told::Missing;
        let is_at_rest = matches!(told, Told::Missing | Told::Stopped(_) | Told::Failed(_));
        let state = match want.goal {
            Goal::Remove if !is_there => UnitState::Gone,
            Goal::Park if is_at_rest => UnitState::Gone,
            Goal::Remove | Goal::Park => {
                self.is_due = true;
                UnitState::Stopping
            }
            Goal::Run | Goal::Rest => {
                match &told {
                    Told::Running(_) => {
                        self.tries.reset();
                        self.is_due = false;
                    }
                    Told::Failed(failure) => {
                        self.tries.fail(now, &failure.code, failure.is_terminal);
                        self.is_due = true;
                    }
                    Told::Stopped(exit) if want.rests_after(exit.is_success()) => {}
                    Told::Stopped(_) | Told::Missing => self.is_due = true,
                    Told::Pending(_) | Told::Unknown(_) => self.is_due = false,
                }
                let retry_at = self.tries.wait(now).map_or(wall, |wait| wall.plus(wait));
                match (&self.state, &told) {
                    // What cannot be told to the agent is not on it.
                    (Some(failed @ UnitState::Failed { .. }), Told::Missing)
                        if self.tries.is_given_up() =>
                    {
                        failed.clone()
                    }
                    (before, _) => seen::state(want, told, before.as_ref(), retry_at),
                }
            }
        };
        self.state = Some(state.clone());
        state
    }
}

fn apply(want: &Want, desired: &str) -> Result<Message, String> {
    Ok(Message::Apply(ApplyWorkloadRequest {
        workload_id: want.id.clone(),
        spec: Some(want.for_stream()?),
        revision_id: want.revision.clone(),
        desired_state: desired.to_owned(),
    }))
}

fn unit(want: &Want, unit: UnitId, state: UnitState) -> ObservedUnit {
    ObservedUnit {
        unit,
        workload: want.workload,
        kind: want.kind,
        state,
        runs: 1,
        parts: Vec::new(),
        health: None,
        crash_loop: None,
    }
}

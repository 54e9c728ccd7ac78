//! Driving agents by dialling them: one task for each node that registered and holds no stream.
//!
//! ```text
//!   watch ── a node without a session ──► run ──► attach ──► look ──► list ──► observe ──► act ─┐
//!     ▲                                            ▲  wake, word, end of an act, or a pause     │
//!     └── closed: a stream took over, node gone ───┴────────────────────────────────────────────┘
//! ```
//!
//! The tasks take no input: they begin from the view, after a restart as at first. A look lists all that is on
//! the agent, tells the control plane, and starts an act (`act`) for each id that lacks something; acts of one
//! agent run beside each other, each id has one at most. In memory only: how often something was tried.
//!
//! What can fail: an agent that cannot be reached gets no new copies (the node holds the intent back, with the
//! reason) and is dialled again after growing waits, or at once when it beats. What is on an agent and not
//! provably ours is left alone and logged.

mod act;
mod call;
mod health;
mod observe;
pub(super) mod seen;
mod sweep;
pub(super) mod tries;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{BoxStream, FuturesUnordered};
use hostler_control::{Attachment, Link, LogRecord, LogRequest};
use hostler_kit::Backoff;
use hostler_model::{
    Code, Contract, Desired, Liveness, Node, NodeId, ObservedUnit, Refusal, UnitId, UnitState,
};
use hostler_wire::persys::agent::WorkloadStatus;
use tokio::sync::{Notify, mpsc};

use self::act::Done;
use self::call::{Caller, Trouble};
use self::seen::Failure;
use self::tries::Tries;
use self::watch::Dialled;
pub(super) use self::watch::{no_logs, watch};
use super::holders::Say;
use super::register::{Endpoint, Said};
use super::want::{self, Goal, Want};
use super::{Door, words};

/// Between two looks at an agent where all is as wanted.
const SETTLED: Duration = Duration::from_secs(5);
/// The same while something is on its way.
const BUSY: Duration = Duration::from_secs(1);
/// Failed looks after which no new copies go there.
const FAILURES: u32 = 2;
/// After an act that did not end, until the next.
const AGAIN: Duration = Duration::from_secs(5);
/// Between tries to reach an agent.
const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Stands where other contracts name a machine's boot: a stream of the node may take over from here.
pub(super) const MACHINE: &str = "persys";

type Act = Pin<Box<dyn Future<Output = (String, Goal, Done)> + Send>>;

/// One agent and what is remembered of it.
struct Driver {
    door: Arc<Door>,
    node: NodeId,
    attachment: Attachment,
    link: Arc<Dialled>,
    says: mpsc::Receiver<Say>,
    dialled: Option<(Endpoint, Caller)>,
    copies: BTreeMap<String, Memory>,
    acts: FuturesUnordered<Act>,
    busy: BTreeSet<String>,
    /// Stopped copies that rest on the agent until they are started or deleted.
    parked: BTreeSet<String>,
    /// Strays that were logged.
    strays: BTreeSet<String>,
    told: BTreeMap<UnitId, ObservedUnit>,
    told_in_full: bool,
    health_at: Duration,
    failures: u32,
    backoff: Backoff,
    not_before: Duration,
}

/// What is remembered of one copy.
#[derive(Debug, Default)]
struct Memory {
    unit: Option<UnitId>,
    goal: Option<Goal>,
    revision: String,
    tries: Tries,
    /// Why the last act failed, as long as the agent has no word of its own.
    failure: Option<Failure>,
    is_gone: bool,
    not_before: Duration,
    state: Option<UnitState>,
}

impl Driver {
    fn new(
        door: Arc<Door>,
        attachment: Attachment,
        link: Arc<Dialled>,
        says: mpsc::Receiver<Say>,
    ) -> Self {
        Self {
            node: attachment.node(),
            door,
            attachment,
            link,
            says,
            dialled: None,
            copies: BTreeMap::new(),
            acts: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            parked: BTreeSet::new(),
            strays: BTreeSet::new(),
            told: BTreeMap::new(),
            told_in_full: false,
            health_at: Duration::ZERO,
            failures: 0,
            backoff: Backoff::new(RECONNECT.0, RECONNECT.1),
            not_before: Duration::ZERO,
        }
    }

    async fn run(mut self) {
        let closed = self.attachment.closed();
        tokio::pin!(closed);
        loop {
            // A look that is broken off here is begun anew by whoever holds the node next.
            tokio::select! {
                biased;
                () = &mut closed => break,
                () = self.look() => {}
            }
            let pause = self.pause();
            let link = Arc::clone(&self.link);
            tokio::select! {
                biased;
                () = &mut closed => break,
                Some((id, goal, done)) = self.acts.next(), if !self.acts.is_empty() => {
                    if let Done::NoRuntime(why) = &done {
                        self.turn_out(&id, why).await;
                    }
                    self.take(id, goal, done);
                }
                say = self.says.recv() => match say {
                    Some(say) => self.hear(say).await,
                    None => break,
                },
                () = link.woken.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        // In order: the lease is kept up by beats, not by this connection.
        self.attachment.close();
    }

    fn now(&self) -> Duration {
        self.door.control.clock().uptime()
    }

    /// How long nothing need be looked at.
    fn pause(&self) -> Duration {
        let now = self.now();
        if self.failures > 0 {
            return self
                .not_before
                .saturating_sub(now)
                .max(Duration::from_millis(50));
        }
        let is_on_its_way = |memory: &Memory| {
            let is_settled = matches!(
                memory.state,
                Some(UnitState::Running { .. } | UnitState::Finished { .. })
            );
            let is_left = memory.goal == Some(Goal::Rest) || memory.tries.is_given_up();
            !is_settled && !is_left
        };
        if self.copies.values().any(is_on_its_way) {
            BUSY
        } else {
            SETTLED
        }
    }

    async fn hear(&mut self, say: Say) {
        match say {
            Say::Look => {
                self.not_before = Duration::ZERO;
                self.health_at = Duration::ZERO;
            }
            Say::Statuses(statuses) => {
                self.not_before = Duration::ZERO;
                // An agent that is reached is asked itself, which is newer.
                if self.failures > 0 {
                    self.observe_beat(&statuses).await;
                }
            }
        }
    }

    /// What somebody asked to be tried again begins anew.
    fn begin_anew(&mut self) {
        let asked = self.door.holders.take_retries(self.node);
        if asked.is_empty() {
            return;
        }
        self.not_before = Duration::ZERO;
        let view = self.door.control.view();
        let is_asked = |unit: UnitId| {
            view.assignment(unit.assignment)
                .is_some_and(|copy| asked.contains(&copy.workload))
        };
        for memory in self.copies.values_mut() {
            if memory.unit.is_some_and(is_asked) {
                memory.tries.reset();
                memory.failure = None;
            }
        }
    }

    /// One look: list, tell, act.
    async fn look(&mut self) {
        let record = self.door.control.view().node(self.node).cloned();
        let Some(node) = record.filter(|node| !node.is_gone()) else {
            return;
        };
        self.refuse_commands().await;
        self.begin_anew();
        if self.now() < self.not_before {
            return;
        }
        let Some(caller) = self.caller(&node) else {
            return;
        };
        let begun = self.now();
        let listed = caller.list().await;
        let took = self.now().saturating_sub(begun);
        self.door.figures.cycle(listed.is_ok(), took);
        match listed {
            Ok(listed) => {
                self.reached(&node).await;
                self.work(&node, &caller, listed).await;
                self.check_health(&caller).await;
            }
            Err(trouble) => self.missed(&node, trouble).await,
        }
    }

    /// The way to the agent, as its last registration named it.
    fn caller(&mut self, node: &Node) -> Option<Caller> {
        let endpoint = Endpoint::parse(&Said::of(node).grpc_endpoint)?;
        match &self.dialled {
            Some((known, caller)) if *known == endpoint => Some(caller.clone()),
            _ => {
                let caller = Caller::new(&endpoint, &self.door)?;
                self.dialled = Some((endpoint, caller.clone()));
                Some(caller)
            }
        }
    }

    async fn reached(&mut self, node: &Node) {
        self.failures = 0;
        self.backoff.reset();
        if node.held_back.is_some() {
            self.hold_back(node, None).await;
        }
    }

    async fn missed(&mut self, node: &Node, trouble: Trouble) {
        self.failures += 1;
        // A connection that has gone silent would swallow the next call as well.
        self.dialled = None;
        self.not_before = self.now() + self.backoff.next(self.door.entropy.as_ref());
        let why = match trouble {
            Trouble::Unreachable(why) | Trouble::Refused(why) => why,
            Trouble::NotFound => "it answers with `not found`".to_owned(),
        };
        let endpoint = Said::of(node).grpc_endpoint;
        tracing::debug!(node = %self.node, endpoint, why, "agent not reached");
        if self.failures >= FAILURES && node.held_back.is_none() {
            let reason = format!("its agent at {endpoint} cannot be reached: {why}");
            self.hold_back(node, Some(reason)).await;
        }
    }

    async fn hold_back(&mut self, node: &Node, reason: Option<String>) {
        if let Err(refusal) = self.attachment.held_back(reason).await {
            tracing::debug!(node = %node.id, %refusal, "not recorded");
        }
    }

    /// The contract has no orders: whoever gave one is told so.
    async fn refuse_commands(&mut self) {
        for command in self.door.control.pending_commands(self.node) {
            let word = Err("a Persys agent takes no such order".to_owned());
            if let Err(refusal) = self.attachment.acknowledge(command.id, word).await {
                tracing::debug!(command = %command.id, %refusal, "not recorded");
            }
        }
    }

    async fn work(&mut self, node: &Node, caller: &Caller, listed: Vec<WorkloadStatus>) {
        let fleet = self.door.control.fleet_id();
        let wants = want::of(&self.door.control.view(), self.node, fleet);
        let seen: BTreeMap<String, WorkloadStatus> = listed
            .into_iter()
            .map(|status| (status.id.clone(), status))
            .collect();
        self.remember(&wants);
        let units = self.observe(&wants, &seen);
        self.tell(node, units).await;
        for want in wants.values() {
            let status = seen.get(&want.id);
            let is_run = want.goal == Goal::Run;
            let lost = status.filter(|_| is_run);
            match lost.and_then(|status| act::without_runtime(want, status)) {
                Some(why) => self.turn_out(&want.id, &why).await,
                None => self.act(caller, want, status),
            }
        }
        self.sweep(caller, &wants, &seen);
    }

    /// A copy of another revision or generation begins anew.
    fn remember(&mut self, wants: &BTreeMap<String, Want>) {
        self.copies.retain(|id, _| wants.contains_key(id));
        for want in wants.values() {
            self.parked.remove(&want.id);
            let memory = self.copies.entry(want.id.clone()).or_default();
            let is_same = memory.unit == Some(want.unit)
                && memory.goal == Some(want.goal)
                && memory.revision == want.revision;
            if !is_same {
                *memory = Memory {
                    unit: Some(want.unit),
                    goal: Some(want.goal),
                    revision: want.revision.clone(),
                    ..Memory::default()
                };
            }
        }
    }

    fn act(&mut self, caller: &Caller, want: &Want, status: Option<&WorkloadStatus>) {
        let now = self.now();
        let wall = self.door.now();
        let Some(memory) = self.copies.get_mut(&want.id) else {
            return;
        };
        if self.busy.contains(&want.id) || memory.is_gone || now < memory.not_before {
            return;
        }
        let (agent, wanted) = (caller.clone(), want.clone());
        let act: Act = match want.goal {
            Goal::Rest => return,
            Goal::Run => {
                let lacks = status.is_none_or(|status| act::lacks(want, status, wall));
                if !lacks || !memory.tries.may(now) {
                    return;
                }
                memory.tries.begin(now);
                Box::pin(async move {
                    let id = wanted.id.clone();
                    (id, Goal::Run, act::run(agent, wanted, wall).await)
                })
            }
            Goal::Park => Box::pin(async move {
                let id = wanted.id.clone();
                (id, Goal::Park, act::park(agent, wanted).await)
            }),
            Goal::Remove => removal(agent, wanted.id),
        };
        self.busy.insert(want.id.clone());
        self.acts.push(act);
    }

    /// Takes the end of an act.
    fn take(&mut self, id: String, goal: Goal, done: Done) {
        self.busy.remove(&id);
        let now = self.now();
        let action = match goal {
            Goal::Run => "ReapplyRunning",
            Goal::Park => "ApplyStopped",
            Goal::Remove | Goal::Rest => "Delete",
        };
        self.door.figures.reconciled(action, done.is_success());
        let Some(memory) = self.copies.get_mut(&id) else {
            self.swept(&id, &done);
            return;
        };
        if memory.goal != Some(goal) {
            return;
        }
        let is_run = goal == Goal::Run;
        match done {
            Done::Fine => {}
            Done::Applied => memory.failure = None,
            Done::Gone if is_run => {}
            Done::Gone => memory.is_gone = true,
            Done::Failed(failure) => {
                let (node, code, message) = (self.node, &failure.code, &failure.message);
                tracing::info!(%node, id, code, message, "agent refused");
                memory.tries.fail(now, &failure.code, failure.is_terminal);
                memory.not_before = if is_run { Duration::ZERO } else { now + AGAIN };
                memory.failure = Some(failure);
            }
            // It runs elsewhere, or waits for a node that can run it.
            Done::NoRuntime(_) => memory.not_before = now + AGAIN,
            Done::StillThere => {
                tracing::warn!(node = %self.node, id, "a copy did not end within a minute");
                memory.not_before = now + AGAIN;
            }
            Done::Unreachable(why) => {
                tracing::debug!(node = %self.node, id, why, "agent not reached");
                memory.not_before = now + BUSY;
            }
        }
    }
}

/// Whether the node's own word keeps it alive, or lets it join.
fn is_heard(node: &Node) -> bool {
    !node.is_gone() && matches!(node.liveness, Liveness::Alive | Liveness::Joining)
}

fn removal(agent: Caller, id: String) -> Act {
    Box::pin(async move {
        let done = act::remove(agent, id.clone()).await;
        (id, Goal::Remove, done)
    })
}

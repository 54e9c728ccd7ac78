//! A node's session as its door sees it, and the beats of nodes that poll.
//!
//! ```text
//!   attach ──► observed_full (Resume: the node is alive) ──► beat, observed_delta … ──► dropped or closed
//!      └── takes over from an older session, which is told to close
//! ```
//!
//! Owned by the door's connection task. What can fail: attaching; telling what was observed, if the verb
//! that follows from it is refused. Then the door must end the session: the node tells all anew.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hostler_fleet::{AccessVerb, Reply, State, UnitReport, Verb, Verdict};
use hostler_model::{
    Actor, Code, CommandId, Liveness, Node, NodeFacts, NodeId, ObservedUnit, Refusal, UnitState,
    Usage, WorkloadId,
};
use tokio_util::sync::CancellationToken;

use crate::black_box::{self, Ended};
use crate::live::{LiveEntry, Machine, Pulse};
use crate::spacing::Rare;
use crate::{Control, Link, refusals};

pub use crate::live::BeatVerdict;

/// How long beats of a session that another machine is to take over are awaited at most; whoever asks has not much more
/// patience.
const MOST_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether they have come.
const LOOK: Duration = Duration::from_millis(50);
/// Between two events that say that a node is there twice.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60 * 60);

/// A node's session. Dropping it without [`Attachment::close`] says that the connection broke: the node is
/// suspected at once.
pub struct Attachment {
    control: Control,
    entry: Arc<LiveEntry>,
    actor: Actor,
    session: u64,
    closed: CancellationToken,
}

/// By what machines with one identity are told apart.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    pub boot_id: &'a str,
    /// The agent's own, the same for as long as it runs; empty if it says none.
    pub own: &'a str,
}

impl<'a> From<&'a str> for Marks<'a> {
    fn from(boot_id: &'a str) -> Self {
        Self { boot_id, own: "" }
    }
}

pub(crate) fn attach(
    control: &Control,
    node: NodeId,
    (Marks { boot_id, own }, judged): (Marks<'_>, Option<Judged>),
    link: Arc<dyn Link>,
) -> Result<Attachment, Refusal> {
    let shared = &control.shared;
    let record = present(&shared.view(), node)?;
    let rules = shared.config.lease_of(record.contract);
    let told = shared.now();
    let entry = shared.awaited(&record, told.0);
    let hostname = record.facts.hostname.clone();
    let machine = Machine {
        boot_id: boot_id.to_owned(),
        hostname,
        own: own.to_owned(),
    };
    let mut pulse = entry.lock();
    refuse_another(&mut pulse, (&record, &machine), told.0)?;
    if let Some(judged) = judged {
        refuse_unjudged(&mut pulse, (&record, judged), told.0)?;
    }
    let (session, closed) = pulse.open((link, machine), rules, told);
    drop(pulse);
    shared.tell_change();
    let actor = Actor::Node(record.name.clone());
    Ok(Attachment {
        control: control.clone(),
        entry,
        actor,
        session,
        closed,
    })
}

/// Before a hello changes anything: as for attaching. A node that nobody has heard of yet is free.
pub(crate) fn refuse_while_in_use(
    control: &Control,
    node: NodeId,
    (marks, hostname): (Marks<'_>, &str),
) -> Result<(), Refusal> {
    let shared = &control.shared;
    let record = present(&shared.view(), node)?;
    let (now, _) = shared.now();
    let entry = shared.awaited(&record, now);
    let machine = Machine {
        boot_id: marks.boot_id.to_owned(),
        hostname: hostname.to_owned(),
        own: marks.own.to_owned(),
    };
    refuse_another(&mut entry.lock(), (&record, &machine), now)
}

/// What a machine that looks the same has judged: the newest session of the node that it knows of, which may be over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged(u64);

/// A session that stands, and what came on it since a machine that looks the same asked.
#[derive(Clone, Copy)]
struct Watched {
    session: u64,
    since: Duration,
    patience: Duration,
    /// The last beat before.
    before: u64,
    /// The first after, and when it was heard: it may have been on its way.
    first: Option<(u64, Duration)>,
}

/// A machine that looks the same takes over as soon as the session that stands is not alive any more, or is silent for
/// as long as its link can be. If that beats on there are two, and one was copied while it ran. An agent has left its
/// older session before it asks for another, so a beat or none may still be on its way.
pub(crate) async fn refuse_double(control: &Control, node: NodeId) -> Result<Judged, Refusal> {
    let shared = &control.shared;
    let record = present(&shared.view(), node)?;
    let Some(entry) = shared.live.get(node) else {
        return Ok(Judged::default());
    };
    let beat = shared.config.lease_of(record.contract).beat;
    let (begun, _) = shared.now();
    let mut watched: Option<Watched> = None;
    loop {
        let (now, _) = shared.now();
        let (judged, standing) = standing(&entry, beat, now);
        let Some(standing) = standing else {
            return Ok(judged);
        };
        let known = watched.filter(|it| it.session == standing.session);
        // Another has come in meanwhile, and is judged like the one before it, but not for ever.
        let is_endless = known.is_none() && now >= begun + MOST_PATIENCE;
        let mut seen = known.unwrap_or(standing);
        let is_double = seen.beats_on(&entry, beat);
        if is_double {
            tell_double(control, (&record, &entry)).await;
        }
        if is_double || is_endless {
            return Err(in_use(&record));
        }
        if now >= seen.since + seen.patience {
            return Ok(judged);
        }
        watched = Some(seen);
        tokio::time::sleep(LOOK).await;
    }
}

/// The newest session, and how it is if it is alive.
fn standing(entry: &LiveEntry, beat: Duration, now: Duration) -> (Judged, Option<Watched>) {
    let mut pulse = entry.lock();
    let judged = Judged(pulse.newest());
    if pulse.judge(now, Duration::ZERO) != Verdict::Alive {
        return (judged, None);
    }
    let patience = (beat * 5 / 2).max(pulse.window() / 2).min(MOST_PATIENCE);
    let session = pulse.session().map(|session| Watched {
        session: session.number,
        since: now,
        patience,
        before: session.last_sequence(),
        first: None,
    });
    (judged, session)
}

impl Watched {
    /// Whether two beats came that were not read in one go after they had been held up.
    fn beats_on(&mut self, entry: &LiveEntry, beat: Duration) -> bool {
        let Some((sequence, heard)) = entry.lock().last_heard(self.session) else {
            return false;
        };
        if sequence <= self.before {
            return false;
        }
        let (first, at) = *self.first.get_or_insert((sequence, heard));
        sequence > first && heard >= at + beat / 2
    }
}

/// People are told once an hour. It is no reason to let the machine in if they cannot be.
async fn tell_double(control: &Control, (record, entry): (&Node, &LiveEntry)) {
    let (now, _) = control.shared.now();
    if !entry.lock().is_double_news(now, BETWEEN_WARNINGS) {
        return;
    }
    let verb = Verb::Access(Box::new(AccessVerb::Doubled { node: record.id }));
    let actor = Actor::Node(record.name.clone());
    match control.submit(actor, verb).await {
        Ok(_) => entry.lock().double(now),
        Err(refusal) => {
            tracing::warn!(node = %record.id, %refusal, "that a node is there twice could not be written down");
        }
    }
}

fn refuse_another(
    pulse: &mut Pulse,
    (record, machine): (&Node, &Machine),
    now: Duration,
) -> Result<(), Refusal> {
    let verdict = pulse.judge(now, Duration::ZERO);
    let session = pulse.session();
    let is_there = verdict == Verdict::Alive
        && session.is_some_and(|session| session.machine.is_other_than(machine));
    // A connection that broke may be back in a moment: the place is the former machine's while its lease runs.
    // A server that has just begun knows the former machine by the node's record alone.
    let recorded = || Machine::of(record);
    let former = pulse.machine().cloned().unwrap_or_else(recorded);
    let is_awaited = verdict != Verdict::Silent && former.is_replaced_by(machine);
    if is_there || is_awaited {
        return Err(in_use(record));
    }
    Ok(())
}

/// Of several that waited for one session to end, one gets in.
fn refuse_unjudged(
    pulse: &mut Pulse,
    (record, Judged(judged)): (&Node, Judged),
    now: Duration,
) -> Result<(), Refusal> {
    let is_newer = pulse.session().is_some_and(|it| it.number > judged);
    if is_newer && pulse.judge(now, Duration::ZERO) == Verdict::Alive {
        return Err(in_use(record));
    }
    Ok(())
}

fn in_use(record: &Node) -> Refusal {
    let sentence = format!(
        "another machine is connected with the identity of {}, or is awaited",
        record.name
    );
    let advice = "if it was just rebooted, or is to take the place of a machine that is off, wait: it is let in once \
                  nothing was heard of the other for the time of its lease; if it is a copy, start its agent with a \
                  token from `hostler token create`, after a reboot if it was copied while it ran, and it joins as a \
                  node of its own";
    Refusal::new(Code::NodeIdentityInUse, sentence, advice)
}

/// What a sign of life is worth to a node that is joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    /// The contract has no more to tell: the node is alive, and nothing of ours is on it but what it runs for us.
    Ends,
    /// Its link will tell what is on it; until then the node goes on joining.
    GoesOn,
}

pub(crate) async fn poll_beat(
    control: &Control,
    node: NodeId,
    usage: Option<Usage>,
    joining: Joining,
) -> Result<(), Refusal> {
    let shared = &control.shared;
    let record = present(&shared.view(), node)?;
    let told = shared.now();
    let rules = shared.config.lease_of(record.contract);
    let entry = shared.live.entry(node, rules, told.0);
    let rare = {
        let mut pulse = entry.lock();
        pulse.keep_rules(rules, told.0);
        if let Some(usage) = usage {
            pulse.set_usage(usage);
        }
        pulse.poll(told.0, told.1)
    };
    if let Some(rare) = rare {
        warn_of_rare_beats(&record, rare, rules.window);
    }
    shared.metrics.count_beat(false);
    let units = Vec::new();
    let verb = match (record.liveness, joining) {
        (Liveness::Alive, _) | (Liveness::Joining, Joining::GoesOn) => return Ok(()),
        (Liveness::Joining, Joining::Ends) => Verb::Resume { node, units },
        (Liveness::Suspect | Liveness::Lost { .. }, _) => Verb::Returned { node },
    };
    let actor = Actor::Node(record.name.clone());
    control.submit(actor, verb).await.map(|_| ())
}

fn warn_of_rare_beats(node: &Node, rare: Rare, window: Duration) {
    tracing::warn!(
        node = %node.id,
        name = node.name,
        contract = node.contract.as_str(),
        every_seconds = rare.usual.as_secs_f64(),
        lease_seconds = window.as_secs_f64(),
        set_at_most_seconds = rare.advised.as_secs_f64(),
        "beats come too rarely for the node's lease: if one is lost, so is the node"
    );
}

pub(crate) async fn farewell(
    control: &Control,
    node: NodeId,
    verb: Verb,
) -> Result<Reply, Refusal> {
    let shared = &control.shared;
    let record = present(&shared.view(), node)?;
    if let Some(entry) = shared.live.get(node) {
        entry.lock().doubt(shared.now().0);
    }
    let actor = Actor::Node(record.name.clone());
    control.submit(actor, verb).await
}

impl Attachment {
    /// Whose session it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.entry.node
    }

    /// Completes when the session must end: a newer one took over, the node was removed, or the server
    /// stops.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let closed = self.closed.clone();
        let tasks = self.control.tasks().clone();
        let over = self.control.over();
        async move {
            tokio::select! {
                biased;
                () = closed.cancelled_owned() => {}
                () = tasks.stopping() => {}
                () = over => {}
            }
        }
    }

    /// A beat with the digest of all that the node observes. No disk, no waiting, one lock of one node.
    pub fn beat(&self, sequence: u64, usage: Usage, observed_digest: u64) -> BeatVerdict {
        let shared = &self.control.shared;
        let told = shared.now();
        let mut pulse = self.entry.lock();
        if !pulse.beat(self.session, sequence, told) {
            drop(pulse);
            shared.metrics.count_beat(true);
            return BeatVerdict::Stale;
        }
        pulse.set_usage(usage);
        let agrees = pulse.digest() == observed_digest;
        drop(pulse);
        shared.metrics.count_beat(false);
        if agrees {
            BeatVerdict::Accepted
        } else {
            BeatVerdict::Resend
        }
    }

    /// How far the node's clock was ahead of ours at its hello, in milliseconds, if it told.
    pub fn note_clock(&self, offset: Option<i64>) {
        self.entry.lock().set_clock_offset(offset);
    }

    /// Everything that is on the node, after a hello or a resend.
    ///
    /// # Errors
    /// `stale-report` for a session that was replaced, and what [`Control::submit`] refuses with.
    pub async fn observed_full(&self, units: Vec<ObservedUnit>) -> Result<(), Refusal> {
        let turns = self.observe(&units, |pulse| {
            let turns = pulse.turns(&units);
            pulse.observe_all(&units);
            turns
        })?;
        let ours = units
            .iter()
            .filter(|unit| unit.state != UnitState::Gone)
            .map(|unit| unit.unit);
        let resume = Verb::Resume {
            node: self.node(),
            units: ours.collect(),
        };
        self.submit(resume).await?;
        self.report(&units, turns).await
    }

    /// What has changed on the node.
    ///
    /// # Errors
    /// As [`Self::observed_full`].
    pub async fn observed_delta(&self, units: Vec<ObservedUnit>) -> Result<(), Refusal> {
        let turns = self.observe(&units, |pulse| {
            let turns = pulse.turns(&units);
            pulse.observe(&units);
            turns
        })?;
        self.report(&units, turns).await
    }

    /// The node's answer to a command.
    ///
    /// # Errors
    /// `command-not-found`, and what [`Control::submit`] refuses with.
    pub async fn acknowledge(
        &self,
        command: CommandId,
        result: Result<String, String>,
    ) -> Result<(), Refusal> {
        self.submit(Verb::Acknowledge {
            node: self.node(),
            command,
            result,
        })
        .await
    }

    /// The agent's mass-stop guard holds the intent back, or no longer does.
    ///
    /// # Errors
    /// What [`Control::submit`] refuses with.
    pub async fn held_back(&self, reason: Option<String>) -> Result<(), Refusal> {
        self.submit(Verb::HeldBack {
            node: self.node(),
            reason,
        })
        .await
    }

    /// What the agent has found out about its machine since its hello.
    ///
    /// # Errors
    /// What [`Control::submit`] refuses with.
    pub async fn discovered(&self, facts: NodeFacts) -> Result<(), Refusal> {
        self.submit(Verb::Discover {
            node: self.node(),
            facts: Box::new(facts),
        })
        .await
    }

    /// The newest authority that the node believes is another now.
    ///
    /// # Errors
    /// What [`Control::submit`] refuses with.
    pub async fn believes(&self, print: String) -> Result<(), Refusal> {
        let node = self.node();
        let verb = AccessVerb::Believes { node, print };
        self.submit(Verb::Access(Box::new(verb))).await
    }

    /// Those of the workloads that the fleet has no record of: they were deleted, and their last copy has gone.
    #[must_use]
    pub fn unknown(&self, workloads: impl Iterator<Item = WorkloadId>) -> Vec<WorkloadId> {
        let view = self.control.view();
        workloads
            .filter(|workload| view.workload(*workload).is_none())
            .collect()
    }

    /// Ends the session in order, as an agent that stops does: nobody is suspected, the lease runs on.
    pub fn close(self) {
        if self.entry.lock().close(self.session) {
            self.control.shared.tell_change();
        }
    }

    fn observe<T>(
        &self,
        units: &[ObservedUnit],
        take_in: impl FnOnce(&mut crate::live::Pulse) -> T,
    ) -> Result<T, Refusal> {
        let mut pulse = self.entry.lock();
        let session = pulse.session().filter(|it| it.number == self.session);
        let link = session.map(|session| Arc::clone(&session.link));
        let link = link.ok_or_else(refusals::session_replaced)?;
        let ended = units
            .iter()
            .filter_map(|unit| Ended::between(pulse.observed_unit(unit.unit), unit));
        let ended: Vec<Ended> = ended.collect();
        let taken = take_in(&mut pulse);
        drop(pulse);
        black_box::fetch(&self.control, &link, ended);
        self.control.shared.tell_change();
        Ok(taken)
    }

    /// Submits what matters to decisions: ends, and the word that a copy that was to stop is gone; and what is
    /// worth an event.
    async fn report(&self, units: &[ObservedUnit], turns: Vec<UnitReport>) -> Result<(), Refusal> {
        let mut reports = reports_that_matter(&self.control.view(), self.node(), units);
        reports.extend(turns);
        if reports.is_empty() {
            return Ok(());
        }
        self.submit(Verb::Report {
            node: self.node(),
            reports,
        })
        .await
    }

    async fn submit(&self, verb: Verb) -> Result<(), Refusal> {
        self.control
            .submit(self.actor.clone(), verb)
            .await
            .map(|_| ())
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.entry.lock().close(self.session) {
            let shared = &self.control.shared;
            shared.tell_change();
            let broken = shared.signals.broken.lock();
            broken
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .insert(self.entry.node);
            shared.signals.broke.notify_one();
        }
    }
}

fn present(view: &State, node: NodeId) -> Result<Arc<Node>, Refusal> {
    let record = view
        .node(node)
        .ok_or_else(|| refusals::node_not_found(node))?;
    if record.is_gone() {
        return Err(refusals::node_gone(&record.name));
    }
    Ok(Arc::clone(record))
}

fn reports_that_matter(view: &State, node: NodeId, units: &[ObservedUnit]) -> Vec<UnitReport> {
    let matters = |unit: &ObservedUnit| {
        let copy = view.assignment(unit.unit.assignment)?;
        if copy.node != node || copy.generation != unit.unit.generation {
            return None;
        }
        match unit.state {
            UnitState::Gone if !copy.is_wanted() => Some(UnitReport::Gone { unit: unit.unit }),
            UnitState::Finished { exit, .. } if !copy.is_finished() => Some(UnitReport::Finished {
                unit: unit.unit,
                exit,
                runs: unit.runs,
            }),
            _ => None,
        }
    };
    units.iter().filter_map(matters).collect()
}

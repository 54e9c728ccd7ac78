//! What is known of nodes and never persisted: leases, usage, what they observe, and their links.
//!
//! Each node has its own lock, and a session holds its node's entry directly: a beat locks one node and
//! touches nothing else. The table's lock is taken for writing only when a node is seen for the first time.
//! Nothing is awaited and no other lock is taken under one of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hostler_fleet::{Lease, LeaseRules, Turn, UnitReport, Verdict};
use hostler_model::{
    AssignmentId, Health, Node, NodeId, ObservedUnit, Pressure, Timestamp, UnitId, UnitState,
    UnitUsage, Usage, unit_digest,
};
use tokio_util::sync::CancellationToken;

use crate::Link;
use crate::spacing::{Rare, Spacing};

/// What is known of a node at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveNode {
    /// Time since the last beat, or since this server began to wait for one.
    pub last_beat_age: Duration,
    /// When the last beat came, for people; the epoch if none has come to this server.
    pub last_seen: Timestamp,
    /// How long the node may be silent now.
    pub window: Duration,
    pub usage: Option<Usage>,
    /// Whether it holds a connection now.
    pub is_connected: bool,
    /// How many beats this server has taken from it.
    pub beats: u64,
    /// The usual time between the beats of a node that polls, once there were enough.
    pub spacing: Option<Duration>,
    /// While those come too rarely for its lease: the interval that its agent should keep.
    pub advised: Option<Duration>,
    /// Passing figures that its agent told beside its facts, as JSON in its contract's words, never interpreted.
    pub figures: Option<Arc<str>>,
    /// How far its clock was ahead of ours when its session opened, in milliseconds.
    pub clock_offset: Option<i64>,
}

/// All nodes that this server has a lease for.
#[derive(Default)]
pub(crate) struct LiveTable {
    nodes: RwLock<BTreeMap<NodeId, Arc<LiveEntry>>>,
}

/// One node.
pub(crate) struct LiveEntry {
    pub(crate) node: NodeId,
    pulse: Mutex<Pulse>,
}

/// What a node's lock guards.
pub(crate) struct Pulse {
    rules: LeaseRules,
    lease: Lease,
    last_beat: Duration,
    last_seen: Timestamp,
    /// Since when the record says that the node is suspect or lost, as far as this server has said so.
    doubted: Option<Duration>,
    usage: Option<Usage>,
    /// Of units that the node has told of, the last figures of each.
    unit_usage: BTreeMap<UnitId, UnitUsage>,
    beats: u64,
    session: Option<Session>,
    /// That of the newest session, which may be over.
    machine: Option<Machine>,
    sessions: u64,
    observed: BTreeMap<UnitId, ObservedUnit>,
    digest: u64,
    spacing: Spacing,
    figures: Option<Arc<str>>,
    clock_offset: Option<i64>,
    /// When people were told last that a second machine says that it is the node.
    doubled: Option<Duration>,
}

/// The session that speaks for a node now.
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) closed: CancellationToken,
    pub(crate) machine: Machine,
    last_sequence: u64,
}

/// Tells two machines with one identity apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) boot_id: String,
    pub(crate) hostname: String,
    /// What its agent says to that end; empty if it says nothing.
    pub(crate) own: String,
}

impl Session {
    /// The last beat.
    pub(crate) const fn last_sequence(&self) -> u64 {
        self.last_sequence
    }
}

impl Machine {
    /// The one that the record tells of.
    pub(crate) fn of(record: &Node) -> Self {
        Self {
            boot_id: record.facts.boot_id.clone(),
            hostname: record.facts.hostname.clone(),
            own: record.machine.clone().unwrap_or_default(),
        }
    }

    /// Whether it is surely another. An agent that is new says a mark that the one before it did not.
    pub(crate) fn is_other_than(&self, other: &Self) -> bool {
        let is_marked = !self.own.is_empty() && !other.own.is_empty();
        self.boot_id != other.boot_id
            || self.hostname != other.hostname
            || (is_marked && self.own != other.own)
    }

    /// Whether it is another even if this one has been rebooted, or was changed, since it was heard.
    pub(crate) fn is_replaced_by(&self, other: &Self) -> bool {
        let is_marked = !self.own.is_empty() && !other.own.is_empty();
        is_marked && self.own != other.own && self.boot_id != other.boot_id
    }
}

/// How a beat was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatVerdict {
    Accepted,
    /// Not newer than the last one, or of a session that another has replaced: it counts for nothing.
    Stale,
    /// Accepted, but what the node observes differs from what it has told: it must tell in full.
    Resend,
}

impl LiveTable {
    pub(crate) fn get(&self, node: NodeId) -> Option<Arc<LiveEntry>> {
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node)
            .cloned()
    }

    /// The node's entry; a node that is new here begins with a full lease.
    pub(crate) fn entry(&self, node: NodeId, rules: LeaseRules, now: Duration) -> Arc<LiveEntry> {
        if let Some(entry) = self.get(node) {
            return entry;
        }
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            Arc::new(LiveEntry {
                node,
                pulse: Mutex::new(Pulse::new(rules, now)),
            })
        };
        Arc::clone(nodes.entry(node).or_insert_with(fresh))
    }

    /// Every node, in order.
    pub(crate) fn all(&self) -> Vec<Arc<LiveEntry>> {
        self.nodes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn forget(&self, node: NodeId) {
        self.nodes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&node);
    }
}

impl LiveEntry {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    fn new(rules: LeaseRules, now: Duration) -> Self {
        Self {
            rules,
            lease: Lease::new(rules, now),
            last_beat: now,
            last_seen: Timestamp::default(),
            doubted: None,
            usage: None,
            unit_usage: BTreeMap::new(),
            beats: 0,
            session: None,
            machine: None,
            sessions: 0,
            observed: BTreeMap::new(),
            digest: 0,
            spacing: Spacing::default(),
            figures: None,
            clock_offset: None,
            doubled: None,
        }
    }

    pub(crate) fn snapshot(&self, now: Duration) -> LiveNode {
        LiveNode {
            last_beat_age: now.saturating_sub(self.last_beat),
            last_seen: self.last_seen,
            window: self.lease.window(),
            usage: self.usage.clone(),
            is_connected: self.session.is_some(),
            beats: self.beats,
            spacing: self.spacing.usual(),
            advised: self.spacing.rare(self.rules).map(|rare| rare.advised),
            figures: self.figures.clone(),
            clock_offset: self.clock_offset,
        }
    }

    pub(crate) const fn set_clock_offset(&mut self, offset: Option<i64>) {
        self.clock_offset = offset;
    }

    /// A sign of life outside any session's sequence.
    pub(crate) fn touch(&mut self, now: Duration, wall: Timestamp) {
        self.lease.beat(now);
        self.hear(now, wall);
    }

    fn hear(&mut self, now: Duration, wall: Timestamp) {
        self.last_beat = now;
        self.last_seen = wall;
        self.beats += 1;
    }

    /// A sign of life of a node that polls. Answers once when they have become too rare.
    pub(crate) fn poll(&mut self, now: Duration, wall: Timestamp) -> Option<Rare> {
        if self.spacing.is_echo(now, self.rules) {
            // The lease would learn from it that this link is a bad one.
            self.hear(now, wall);
            return None;
        }
        self.touch(now, wall);
        self.spacing.note(now, self.rules)
    }

    pub(crate) fn set_figures(&mut self, figures: Arc<str>) {
        self.figures = Some(figures);
    }

    /// The node is judged by these rules from now on; a change begins with a full lease.
    pub(crate) fn keep_rules(&mut self, rules: LeaseRules, now: Duration) {
        if self.rules != rules {
            self.rules = rules;
            self.lease = Lease::new(rules, now);
        }
    }

    /// Figures of units that the node has not told of are nobody's.
    pub(crate) fn set_usage(&mut self, mut usage: Usage) {
        for unit in std::mem::take(&mut usage.units) {
            if self.observed.contains_key(&unit.unit) {
                self.unit_usage.insert(unit.unit, unit);
            }
        }
        self.usage = Some(usage);
    }

    /// What the node is short of, by its last beat that told how it is.
    pub(crate) fn pressure(&self) -> Option<&BTreeSet<Pressure>> {
        self.usage.as_ref()?.pressure.as_ref()
    }

    /// What the unit used when it was measured last, while it runs.
    pub(crate) fn unit_usage(&self, unit: UnitId) -> Option<UnitUsage> {
        self.unit_usage.get(&unit).copied()
    }

    pub(crate) fn unit_usages(&self) -> impl Iterator<Item = (&ObservedUnit, &UnitUsage)> {
        let known = self.unit_usage.iter();
        known.filter_map(|(unit, usage)| Some((self.observed.get(unit)?, usage)))
    }

    /// A beat of a session.
    pub(crate) fn beat(
        &mut self,
        session: u64,
        sequence: u64,
        told: (Duration, Timestamp),
    ) -> bool {
        match &mut self.session {
            Some(current) if current.number == session && current.last_sequence < sequence => {
                current.last_sequence = sequence;
            }
            _ => return false,
        }
        self.touch(told.0, told.1);
        true
    }

    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn judge(&mut self, now: Duration, paused: Duration) -> Verdict {
        self.lease.judge(now, paused)
    }

    /// How long ago the node was heard.
    pub(crate) fn silence(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_beat)
    }

    /// This server says that the node is suspect or lost.
    pub(crate) fn doubt(&mut self, now: Duration) {
        self.doubted = Some(now);
    }

    /// Whether the node has been heard since it was doubted, or by this server at all.
    pub(crate) fn is_heard_again(&self) -> bool {
        self.beats > 0 && self.doubted.is_none_or(|doubted| self.last_beat > doubted)
    }

    /// A new session takes over; the older one is told to close. Its lease begins full.
    pub(crate) fn open(
        &mut self,
        (link, machine): (Arc<dyn Link>, Machine),
        rules: LeaseRules,
        told: (Duration, Timestamp),
    ) -> (u64, CancellationToken) {
        self.sessions += 1;
        self.machine = Some(machine.clone());
        let closed = CancellationToken::new();
        let session = Session {
            number: self.sessions,
            link,
            closed: closed.clone(),
            machine,
            last_sequence: 0,
        };
        if let Some(older) = self.session.replace(session) {
            older.closed.cancel();
        }
        self.rules = rules;
        self.lease = Lease::new(rules, told.0);
        self.last_beat = told.0;
        self.last_seen = told.1;
        (self.sessions, closed)
    }

    /// Ends a session, unless a newer one has taken over. Says whether it was the present one.
    pub(crate) fn close(&mut self, session: u64) -> bool {
        let is_present = self.is_present(session);
        if is_present {
            self.session = None;
        }
        is_present
    }

    pub(crate) fn is_present(&self, session: u64) -> bool {
        self.session
            .as_ref()
            .is_some_and(|current| current.number == session)
    }

    pub(crate) const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The machine that opened the newest session, which may be over.
    pub(crate) const fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// The number of the newest session, which may be over; none has it before the first.
    pub(crate) const fn newest(&self) -> u64 {
        self.sessions
    }

    /// The silence that makes the node lost now.
    pub(crate) fn window(&self) -> Duration {
        self.lease.window()
    }

    /// The last beat of a session and when the node was heard last, while the session is the present one.
    pub(crate) fn last_heard(&self, session: u64) -> Option<(u64, Duration)> {
        let present = self.session.as_ref().filter(|it| it.number == session);
        present.map(|session| (session.last_sequence, self.last_beat))
    }

    /// Whether people are to be told again that a second machine says that it is the node.
    pub(crate) fn is_double_news(&self, now: Duration, pause: Duration) -> bool {
        self.doubled.is_none_or(|told| now >= told + pause)
    }

    /// They were told.
    pub(crate) const fn double(&mut self, now: Duration) {
        self.doubled = Some(now);
    }

    /// What these words about units say of their health that was not known. What is told for the first time is
    /// only worth it where something is wrong.
    pub(crate) fn turns(&self, units: &[ObservedUnit]) -> Vec<UnitReport> {
        let mut turns = Vec::new();
        for now in units {
            let unit = now.unit;
            let before = self.observed.get(&unit);
            let was = before.and_then(|before| before.health.as_ref());
            let turn = match &now.health {
                Some(Health::Unhealthy { why })
                    if !matches!(was, Some(Health::Unhealthy { .. })) =>
                {
                    Some(Turn::Unhealthy(why.clone()))
                }
                Some(Health::Healthy) if was.is_some() && was != Some(&Health::Healthy) => {
                    Some(Turn::Healthy)
                }
                _ => None,
            };
            let was_crashing = before.is_some_and(|before| before.crash_loop.is_some());
            let is_running = matches!(now.state, UnitState::Running { .. });
            let crash = match &now.crash_loop {
                Some(first) if !was_crashing => Some(Turn::Crashing(first.exit)),
                None if was_crashing && is_running => Some(Turn::Recovered),
                _ => None,
            };
            let both = turn.into_iter().chain(crash);
            turns.extend(both.map(|turn| UnitReport::Turned { unit, turn }));
        }
        turns
    }

    /// Replaces all that was observed.
    pub(crate) fn observe_all(&mut self, units: &[ObservedUnit]) {
        self.observed.clear();
        self.digest = 0;
        self.observe(units);
        let observed = &self.observed;
        self.unit_usage
            .retain(|unit, _| observed.contains_key(unit));
    }

    /// Takes in what has changed.
    pub(crate) fn observe(&mut self, units: &[ObservedUnit]) {
        for unit in units {
            let before = match unit.state {
                UnitState::Gone => self.observed.remove(&unit.unit),
                _ => self.observed.insert(unit.unit, unit.clone()),
            };
            if !matches!(unit.state, UnitState::Running { .. }) {
                self.unit_usage.remove(&unit.unit);
            }
            self.digest ^= before.as_ref().map_or(0, unit_digest) ^ unit_digest(unit);
        }
    }

    /// The newest generation of the copy that the node has told of.
    pub(crate) fn observed(&self, assignment: AssignmentId) -> Option<&ObservedUnit> {
        let first = UnitId {
            assignment,
            generation: 0,
        };
        let last = UnitId {
            assignment,
            generation: u64::MAX,
        };
        self.observed
            .range(first..=last)
            .next_back()
            .map(|(_, unit)| unit)
    }

    pub(crate) fn observed_unit(&self, unit: UnitId) -> Option<&ObservedUnit> {
        self.observed.get(&unit)
    }

    pub(crate) fn observed_all(&self) -> Vec<ObservedUnit> {
        self.observed.values().cloned().collect()
    }
}

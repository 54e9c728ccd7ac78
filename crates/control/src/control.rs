//! `Control`: what doors and the simulation hold. Clones are one control plane.
//!
//! Owns nothing by itself: what there is lies in `shared`. Verbs fail with a [`Refusal`]; reading cannot
//! fail.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::stream::BoxStream;
use hostler_fleet::{Reply, State, Verb};
use hostler_kit::{Clock, Tasks};
use hostler_model::{
    Actor, Assignment, AssignmentId, Command, CommandState, Desired, Errand, Event, FleetId,
    IntentItem, NodeId, ObservedUnit, Refusal, ReplicaId, StoreEpoch, Timestamp, UnitUsage, Usage,
    Workload, WorkloadId,
};
use hostler_store::Revision;
use tokio::sync::{mpsc, oneshot, watch};

use crate::attachment::{Joining, Judged, Marks};
use crate::batch::Request;
use crate::leader::Leader;
use crate::live::LiveEntry;
use crate::load::load;
use crate::owner::Owner;
use crate::shared::Shared;
use crate::{
    Attachment, Check, ControlConfig, Link, LiveNode, LogRecord, LogRequest, MetricsSnapshot,
    Parts, Readiness, StartError, SyncBeat, Tunnel, WorkloadUsage, attachment, keepers, logs,
    refusals, tunnel,
};

/// One control plane.
#[derive(Clone)]
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    run: Run,
}

/// One run of the control plane, from reading the store to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Drawn when the run began; never 0.
    pub id: u64,
    /// The store's revision when the run read it: all that an earlier run told is no newer.
    pub store_revision: Revision,
}

impl Control {
    /// Takes the leader lease, loads the records, founds the fleet if the store is empty, and starts the
    /// owner task and the keepers.
    ///
    /// # Errors
    /// Another server leads, the store fails, or it holds a record that this version cannot read.
    pub async fn start(config: ControlConfig, parts: Parts) -> Result<Self, StartError> {
        let control = Self::begin(config, parts).await?;
        keepers::start(&control);
        Ok(control)
    }

    /// Gives a store that was put in another's place a new epoch, so that agents notice, and decides nothing else.
    /// Once the tasks of `parts` have ended the store is free again.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn renew_epoch(parts: Parts) -> Result<(FleetId, StoreEpoch), StartError> {
        let config = ControlConfig {
            new_epoch: true,
            ..ControlConfig::default()
        };
        Ok(Self::begin(config, parts).await?.founded())
    }

    async fn begin(config: ControlConfig, parts: Parts) -> Result<Self, StartError> {
        let clock = Arc::clone(&parts.clock);
        let leader = Leader::take(Arc::clone(&parts.store), clock, config.leader_ttl).await?;
        let loaded = match load(parts.store.as_ref()).await {
            Ok(loaded) => loaded,
            Err(error) => {
                leader.release().await;
                return Err(error);
            }
        };
        let new_epoch = config.new_epoch;
        let head = (loaded.state.clone(), loaded.revision);
        let run = Run {
            id: parts.entropy.next_u64().max(1),
            store_revision: loaded.revision,
        };
        let (inbox, requests) = mpsc::channel(config.queue.max(1));
        let shared = Arc::new(Shared::new(config, parts, inbox));
        shared.replace(loaded);
        let owner = Owner::new(Arc::clone(&shared), head, leader, requests);
        shared.spawn("owner", owner.run());
        let control = Self { shared, run };
        if let Err(refusal) = control.found(new_epoch).await {
            control.shared.over();
            control.shared.end();
            return Err(StartError::Found(refusal));
        }
        Ok(control)
    }

    /// The one inlet of every mutation. Answers when the change is durable and visible in [`Self::view`].
    /// A verb whose caller goes away before it is decided is not decided.
    ///
    /// # Errors
    /// The domain's no; or the loop's: `not-leader`, `overloaded`, `store-unavailable`.
    pub async fn submit(&self, actor: Actor, verb: Verb) -> Result<Reply, Refusal> {
        let patience = self.shared.config.patience;
        if !self.is_leading() {
            return Err(self.shared.not_deciding());
        }
        let (answer, answered) = oneshot::channel();
        let request = Request {
            actor,
            verb,
            answer,
        };
        match tokio::time::timeout(patience, self.shared.inbox.send(request)).await {
            Err(_) => return Err(refusals::too_busy()),
            Ok(Err(_)) => return Err(self.shared.not_deciding()),
            Ok(Ok(())) => {}
        }
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(self.shared.unanswered()),
        }
    }

    /// The committed state, under a read lock: never hold it across an await, and never take it twice on
    /// one thread (a writer that waits in between would wait for ever).
    #[must_use]
    pub fn view(&self) -> impl Deref<Target = State> + '_ {
        self.shared.view()
    }

    /// Whether this server decides.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.shared.leading.load(Ordering::Acquire)
    }

    /// Completes when this server has stopped deciding, because it was told to stop or lost the leader
    /// lease. It never decides again; the process should end.
    pub fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.ended.clone().cancelled_owned()
    }

    /// What must work for requests to be served.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let check = |name, is_ok, trouble: &str| Check {
            name,
            is_ok,
            message: if is_ok {
                String::new()
            } else {
                trouble.to_owned()
            },
        };
        let store_ok = self.shared.is_store_ok();
        Readiness {
            checks: vec![
                check(
                    "store",
                    store_ok,
                    "the store did not answer the last time it was asked",
                ),
                check(
                    "leader",
                    self.is_leading(),
                    "this server does not decide now",
                ),
            ],
        }
    }

    /// The fleet's id.
    ///
    /// # Panics
    /// Never: a control plane that has started has founded its fleet.
    #[must_use]
    pub fn fleet_id(&self) -> FleetId {
        self.founded().0
    }

    /// The store's epoch: new after a restore or a promotion.
    ///
    /// # Panics
    /// Never: a control plane that has started has founded its fleet.
    #[must_use]
    pub fn store_epoch(&self) -> StoreEpoch {
        self.founded().1
    }

    /// The store's revision that the view shows: whatever was read of the view before is no newer. It never
    /// goes back in one life of the store.
    #[must_use]
    pub fn store_revision(&self) -> Revision {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// Which run of the control plane this is.
    #[must_use]
    pub const fn server_run(&self) -> Run {
        self.run
    }

    #[must_use]
    pub fn config(&self) -> &ControlConfig {
        &self.shared.config
    }

    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.parts.clock
    }

    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.shared.parts.tasks
    }

    // --- live: never persisted

    /// A link takes the node's session; an older session of the node is told to close.
    ///
    /// # Errors
    /// `node-not-found`, `node-gone`; `node-identity-in-use` if an older session is alive and was opened by
    /// another machine, told apart by boot id, host name, and what its agent says.
    pub fn attach<'a>(
        &self,
        node: NodeId,
        machine: impl Into<Marks<'a>>,
        link: Arc<dyn Link>,
    ) -> Result<Attachment, Refusal> {
        attachment::attach(self, node, (machine.into(), None), link)
    }

    /// The same, after [`Control::refuse_double`] has said that the place is free.
    ///
    /// # Errors
    /// As for attaching; `node-identity-in-use` as well if another session has come in since, and is alive.
    pub fn take_over(
        &self,
        node: NodeId,
        (machine, judged): (Marks<'_>, Judged),
        link: Arc<dyn Link>,
    ) -> Result<Attachment, Refusal> {
        attachment::attach(self, node, (machine, Some(judged)), link)
    }

    /// What [`Control::attach`] would refuse, before the machine's hello has changed anything.
    ///
    /// # Errors
    /// As for attaching.
    pub fn refuse_while_in_use(
        &self,
        node: NodeId,
        machine: (Marks<'_>, &str),
    ) -> Result<(), Refusal> {
        attachment::refuse_while_in_use(self, node, machine)
    }

    /// Before a machine that looks like the one whose session stands takes it over: waits whether that beats on.
    /// Answers what was judged, for [`Control::take_over`]. Cancel-safe.
    ///
    /// # Errors
    /// As for attaching.
    pub async fn refuse_double(&self, node: NodeId) -> Result<Judged, Refusal> {
        attachment::refuse_double(self, node).await
    }

    /// The next due moment of a schedule that is to run.
    #[must_use]
    pub fn next_due(&self, schedule: &Workload) -> Option<Timestamp> {
        let job = schedule.spec.job.as_ref()?;
        let is_wanted = schedule.desired == Desired::Running;
        let next = job.next_due(self.shared.now().1).ok().flatten();
        next.filter(|_| is_wanted)
    }

    /// What is known of a node at this moment.
    #[must_use]
    pub fn live(&self, node: NodeId) -> Option<LiveNode> {
        let entry = self.shared.live.get(node)?;
        let now = self.shared.parts.clock.uptime();
        Some(entry.lock().snapshot(now))
    }

    /// What its node last told about the copy: the newest generation.
    #[must_use]
    pub fn observed(&self, assignment: AssignmentId) -> Option<ObservedUnit> {
        let node = self.view().assignment(assignment)?.node;
        let entry = self.shared.live.get(node)?;
        entry.lock().observed(assignment).cloned()
    }

    /// The same, for callers that hold the view and know the node.
    #[must_use]
    pub fn observed_at(&self, node: NodeId, assignment: AssignmentId) -> Option<ObservedUnit> {
        let entry = self.shared.live.get(node)?;
        entry.lock().observed(assignment).cloned()
    }

    /// What the copy used when its node measured it last, while it runs.
    #[must_use]
    pub fn usage_of(&self, copy: &Assignment) -> Option<UnitUsage> {
        let entry = self.shared.live.get(copy.node)?;
        entry.lock().unit_usage(copy.unit())
    }

    /// Everything that the node last told, also units that the fleet knows nothing of.
    #[must_use]
    pub fn observed_on(&self, node: NodeId) -> Vec<ObservedUnit> {
        let entry = self.shared.live.get(node);
        entry.map_or_else(Vec::new, |entry| entry.lock().observed_all())
    }

    /// A sign of life over a contract that polls. A node that was joining, suspect or lost is alive again.
    ///
    /// # Errors
    /// `node-not-found`, `node-gone`, and what [`Self::submit`] refuses with.
    pub async fn poll_beat(&self, node: NodeId, usage: Option<Usage>) -> Result<(), Refusal> {
        attachment::poll_beat(self, node, usage, Joining::Ends).await
    }

    /// The same for a node that also has a link: one that is joining goes on doing so until the link has told
    /// in full what is on it, for a beat says nothing about that.
    ///
    /// # Errors
    /// As [`Self::poll_beat`].
    pub async fn linked_beat(&self, node: NodeId, usage: Option<Usage>) -> Result<(), Refusal> {
        attachment::poll_beat(self, node, usage, Joining::GoesOn).await
    }

    /// Passing figures of a node that has beaten, for [`LiveNode::figures`].
    pub fn tell_figures(&self, node: NodeId, figures: Arc<str>) {
        if let Some(entry) = self.shared.live.get(node) {
            entry.lock().set_figures(figures);
        }
    }

    /// A node says that it goes: what it was heard before keeps it alive no longer, and the verb says so to the
    /// fleet (`Silent`, or the end of its machine). A later beat brings it back.
    ///
    /// # Errors
    /// `node-not-found`, `node-gone`, and what [`Self::submit`] refuses with.
    pub async fn farewell(&self, node: NodeId, verb: Verb) -> Result<Reply, Refusal> {
        attachment::farewell(self, node, verb).await
    }

    /// What a replica tells every second of its data. Kept in memory; what changes its record is a verb.
    ///
    /// # Errors
    /// `node-not-found`, `node-gone`, `not-rented`, `replica-not-found`.
    pub fn sync_beat(
        &self,
        node: NodeId,
        replica: ReplicaId,
        beat: SyncBeat,
    ) -> Result<(), Refusal> {
        self.shared.syncs.beat(&self.view(), node, replica, beat)
    }

    /// What the replica last told, unless this server has not heard it yet.
    #[must_use]
    pub fn sync_of(&self, replica: ReplicaId) -> Option<SyncBeat> {
        self.shared.syncs.get(replica)
    }

    /// Everything that the node should run.
    #[must_use]
    pub fn intent(&self, node: NodeId) -> Vec<IntentItem> {
        self.view().intent(node)
    }

    /// The commands that the node has not answered.
    #[must_use]
    pub fn pending_commands(&self, node: NodeId) -> Vec<Command> {
        let view = self.view();
        let pending = view
            .commands_of(node)
            .filter(|command| command.state == CommandState::Pending);
        pending.map(|command| Command::clone(command)).collect()
    }

    // --- events

    /// At most `limit` events and the number of the oldest that is kept: those right behind `after`, or the
    /// newest ones.
    #[must_use]
    pub fn events(&self, after: Option<u64>, limit: usize) -> (Vec<Arc<Event>>, u64) {
        self.shared.events.read(after, limit)
    }

    /// Wakes on new events with the number of the last; read on with [`Self::events`].
    #[must_use]
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.shared.newest_event.subscribe()
    }

    /// Wakes on every commit and whenever a node tells something new; carries a counter only.
    #[must_use]
    pub fn watch_changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Wakes when a token or a node may have gone; carries a counter only.
    #[must_use]
    pub fn watch_departures(&self) -> watch::Receiver<u64> {
        self.shared.departures.subscribe()
    }

    // --- logs

    /// The log of a copy, from its node; while that is out of reach, what was kept of its runs that ended,
    /// unless the log is to be followed.
    ///
    /// # Errors
    /// `assignment-not-found`, `node-unreachable`, `log-not-found`.
    pub async fn logs(
        &self,
        assignment: AssignmentId,
        query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        logs::open(self, assignment, query).await
    }

    /// Begins an errand inside a copy, and gives the tunnel to it.
    ///
    /// # Errors
    /// `assignment-not-found`, `node-unreachable`, and every refusal of the node.
    pub async fn errand(
        &self,
        assignment: AssignmentId,
        errand: Errand,
    ) -> Result<Tunnel, Refusal> {
        tunnel::open(self, assignment, errand).await
    }

    // --- metrics

    /// Everything that is counted.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        let mut snapshot = self.shared.metrics.snapshot();
        snapshot.is_leading = self.is_leading();
        snapshot.store_revision = self.store_revision();
        snapshot.event_sequence = self.shared.events.newest();
        let now = self.shared.parts.clock.uptime();
        let entries = self.shared.live.all();
        let connected = entries
            .iter()
            .filter(|entry| entry.lock().snapshot(now).is_connected);
        snapshot.nodes_connected = connected.count() as u64;
        count_records(&self.view(), &mut snapshot);
        snapshot.usage = workload_usage(&self.view(), &entries);
        snapshot
    }

    async fn found(&self, new_epoch: bool) -> Result<(), Refusal> {
        let actor = || Actor::Keeper(self.shared.config.server_name.clone());
        self.submit(actor(), Verb::Found).await?;
        if new_epoch {
            self.submit(actor(), Verb::NewEpoch).await?;
        }
        Ok(())
    }

    fn founded(&self) -> (FleetId, StoreEpoch) {
        self.view()
            .fleet()
            .expect("start founds the fleet before anybody holds a Control")
    }
}

fn count_records(view: &State, snapshot: &mut MetricsSnapshot) {
    let mut nodes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for node in view.nodes() {
        *nodes.entry(node.state().as_str()).or_default() += 1;
    }
    let mut copies: BTreeMap<&'static str, u64> = BTreeMap::new();
    for assignment in view.assignments() {
        let word = match (assignment.is_finished(), assignment.is_wanted()) {
            (true, _) => "finished",
            (false, true) => "running",
            (false, false) => "stopping",
        };
        *copies.entry(word).or_default() += 1;
    }
    let pending = view
        .workloads()
        .map(|workload| u64::from(view.pending_copies(workload.id)));
    copies.insert("pending", pending.sum());
    snapshot.nodes = nodes;
    snapshot.copies = copies;
    snapshot.workloads = view.workloads().len() as u64;
}

/// What the copies of each workload use together; of very many workloads those that use most memory.
fn workload_usage(view: &State, entries: &[Arc<LiveEntry>]) -> Vec<WorkloadUsage> {
    const MOST: usize = 1000;
    let mut sums: BTreeMap<WorkloadId, (u64, u64)> = BTreeMap::new();
    for entry in entries {
        for (observed, used) in entry.lock().unit_usages() {
            let (milli_cpu, memory) = sums.entry(observed.workload).or_default();
            *milli_cpu = milli_cpu.saturating_add(used.milli_cpu);
            *memory = memory.saturating_add(used.memory.0);
        }
    }
    let named = sums
        .into_iter()
        .filter_map(|(workload, (milli_cpu, memory))| {
            Some(WorkloadUsage {
                workload: view.workload(workload)?.name.clone(),
                milli_cpu,
                memory,
            })
        });
    let mut usage: Vec<WorkloadUsage> = named.collect();
    usage.sort_by_key(|it| std::cmp::Reverse(it.memory));
    usage.truncate(MOST);
    usage
}

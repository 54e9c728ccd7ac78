//! A node without a machine: attaches, obeys its intent at once, and reports. For tests and benches.
//!
//! It keeps state as an agent does: units that it was told to run, those that it has stopped, commands that
//! it did. What it observes survives a [`FakeNode::disconnect`], as work on a real node does. It sends no
//! beats of its own; [`FakeNode::beat`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hostler_fleet::{Introduction, Moment, NodeAnnouncement, Reply, Verb};
use hostler_kit::Tasks;
use hostler_model::spec::Kind;
use hostler_model::{
    Actor, AliasKey, Bytes, Code, Contract, Exit, Intent, IntentItem, MilliCpu, NodeFacts, NodeId,
    ObservedUnit, Pressure, Refusal, Resources, RuntimeFact, Timestamp, UnitId, UnitState, Usage,
    digest,
};
use tokio::sync::{Notify, mpsc};

use crate::batch::Decided;
use crate::{Attachment, BeatVerdict, Control, Link, LogRecord, LogRequest, LogStream, Marks};

/// What a fake node says of itself.
#[derive(Debug, Clone)]
pub struct FakeMachine {
    pub name: String,
    pub identity: String,
    pub boot_id: String,
    /// What tells it from others with its identity; empty if it says nothing.
    pub mark: String,
    pub capacity: Resources,
    pub kinds: Vec<Kind>,
    pub labels: BTreeMap<String, String>,
    /// The contract through which it joins.
    pub contract: Contract,
}

/// A verb that was decided and answered, with all that the decision saw beside the state.
#[derive(Debug, Clone)]
pub struct Journaled {
    pub moment: Moment,
    pub actor: Actor,
    pub verb: Verb,
    pub result: Result<Reply, Refusal>,
}

/// A node that obeys.
pub struct FakeNode {
    control: Control,
    machine: FakeMachine,
    node: NodeId,
    world: Arc<World>,
    session: Mutex<Option<Open>>,
}

/// What is on the fake machine; it outlives connections.
#[derive(Default)]
struct World {
    units: Mutex<BTreeMap<UnitId, ObservedUnit>>,
    woken: Notify,
    /// Units are left as they are, whatever the intent says.
    frozen: Mutex<bool>,
    /// What its beats say that it is short of.
    pressure: Mutex<BTreeSet<Pressure>>,
}

struct Open {
    attachment: Arc<Attachment>,
    sequence: u64,
    tasks: Tasks,
}

struct FakeLink {
    world: Arc<World>,
}

impl Journaled {
    pub(crate) fn of(decided: &Decided) -> Self {
        Self {
            moment: decided.moment,
            actor: decided.request.actor.clone(),
            verb: decided.request.verb.clone(),
            result: decided.result.clone(),
        }
    }
}

impl Control {
    /// From now on, everything that is answered, in the order in which it was decided. One reader only.
    ///
    /// # Panics
    /// If the journal is read already.
    #[must_use]
    pub fn journal(&self) -> mpsc::UnboundedReceiver<Journaled> {
        let (sender, receiver) = mpsc::unbounded_channel();
        assert!(
            self.shared.journal.set(sender).is_ok(),
            "the journal is read already"
        );
        receiver
    }

    /// Ends at once, as a crash does: nothing is finished, nobody is answered, the lease is not given back.
    pub fn crash(&self) {
        self.shared.over();
        self.shared.end();
    }
}

impl FakeMachine {
    /// A machine that runs processes and containers, with 8 cores and 32 GiB.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let capacity = Resources {
            cpu: MilliCpu(8_000),
            memory: Bytes(32 << 30),
            disk: Bytes(100 << 30),
        };
        Self {
            name: name.to_owned(),
            identity: format!("key of {name}"),
            boot_id: format!("boot 1 of {name}"),
            mark: String::new(),
            capacity,
            kinds: vec![Kind::Process, Kind::Container],
            labels: BTreeMap::new(),
            contract: Contract::Session,
        }
    }

    /// The same machine with another capacity.
    #[must_use]
    pub fn with_capacity(mut self, capacity: Resources) -> Self {
        self.capacity = capacity;
        self
    }

    fn announcement(&self) -> NodeAnnouncement {
        let runtime = |kind: &Kind| RuntimeFact {
            kind: *kind,
            available: true,
            version: "fake".to_owned(),
            note: String::new(),
        };
        NodeAnnouncement {
            key: None,
            introduction: Introduction {
                machine: (!self.mark.is_empty()).then(|| self.mark.clone()),
                ..Introduction::default()
            },
            identity: AliasKey {
                contract: self.contract,
                scope: "node".to_owned(),
                foreign: self.identity.clone(),
            },
            contract: self.contract,
            name: self.name.clone(),
            facts: NodeFacts {
                hostname: self.name.clone(),
                os: "linux".to_owned(),
                arch: "x86_64".to_owned(),
                boot_id: self.boot_id.clone(),
                memory: self.capacity.memory,
                runtimes: self.kinds.iter().map(runtime).collect(),
                ..NodeFacts::default()
            },
            capacity: self.capacity,
            labels: self.labels.clone(),
            instance: None,
        }
    }
}

impl FakeNode {
    /// Announces the machine and connects it.
    ///
    /// # Errors
    /// What the control plane refuses with.
    pub async fn join(control: &Control, machine: FakeMachine) -> Result<Self, Refusal> {
        let node = announce(control, &machine).await?;
        let fake = Self {
            control: control.clone(),
            machine,
            node,
            world: Arc::default(),
            session: Mutex::new(None),
        };
        fake.attach().await?;
        Ok(fake)
    }

    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// Says hello to a control plane, the same as before or one that came after it, with all that runs.
    ///
    /// # Errors
    /// What the control plane refuses with.
    pub async fn reconnect(&mut self, control: &Control) -> Result<(), Refusal> {
        self.disconnect();
        self.control = control.clone();
        self.node = announce(control, &self.machine).await?;
        self.attach().await
    }

    /// The connection breaks. What runs goes on.
    pub fn disconnect(&self) {
        if let Some(open) = self.open().take() {
            open.tasks.stop();
        }
    }

    /// Sends one beat; none without a connection.
    pub fn beat(&self) -> Option<BeatVerdict> {
        let mut session = self.open();
        let open = session.as_mut()?;
        open.sequence += 1;
        let observed = digest(self.world.lock().values());
        let pressure = self.world.pressure.lock();
        let usage = Usage {
            pressure: Some(pressure.unwrap_or_else(PoisonError::into_inner).clone()),
            ..Usage::default()
        };
        Some(open.attachment.beat(open.sequence, usage, observed))
    }

    /// From the next beat on the machine is short of these.
    pub fn press(&self, pressure: &[Pressure]) {
        let mut told = self
            .world
            .pressure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *told = pressure.iter().copied().collect();
    }

    /// Sends a beat with this number, as a network that repeats does.
    pub fn beat_numbered(&self, sequence: u64) -> Option<BeatVerdict> {
        let session = self.open();
        let observed = digest(self.world.lock().values());
        session
            .as_ref()
            .map(|open| open.attachment.beat(sequence, Usage::default(), observed))
    }

    /// The session's attachment, while connected.
    #[must_use]
    pub fn attachment(&self) -> Option<Arc<Attachment>> {
        self.open()
            .as_ref()
            .map(|open| Arc::clone(&open.attachment))
    }

    /// What is on the machine now.
    #[must_use]
    pub fn units(&self) -> Vec<ObservedUnit> {
        self.world.lock().values().cloned().collect()
    }

    /// From now on the node follows neither intent nor commands (`true`), or follows them again.
    pub fn freeze(&self, is_frozen: bool) {
        *self
            .world
            .frozen
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = is_frozen;
        self.world.woken.notify_one();
    }

    /// The unit ends for good.
    ///
    /// # Errors
    /// What the control plane refuses the report with.
    pub async fn finish(&self, unit: UnitId, exit: Exit) -> Result<(), Refusal> {
        let finished = {
            let mut units = self.world.lock();
            let Some(observed) = units.get_mut(&unit) else {
                return Ok(());
            };
            observed.state = UnitState::Finished {
                exit,
                at: Timestamp::default(),
            };
            observed.clone()
        };
        match self.attachment() {
            Some(attachment) => attachment.observed_delta(vec![finished]).await,
            None => Ok(()),
        }
    }

    async fn attach(&self) -> Result<(), Refusal> {
        let link = Arc::new(FakeLink {
            world: Arc::clone(&self.world),
        });
        let marks = Marks {
            boot_id: &self.machine.boot_id,
            own: &self.machine.mark,
        };
        let attachment = self.control.attach(self.node, marks, link)?;
        let attachment = Arc::new(attachment);
        attachment.observed_full(self.units()).await?;
        let tasks = self.control.tasks().child();
        let agent = Agent {
            control: self.control.clone(),
            world: Arc::clone(&self.world),
            attachment: Arc::downgrade(&attachment),
            node: self.node,
        };
        self.world.woken.notify_one();
        tasks.spawn_until_stop("fake node", agent.run());
        *self.open() = Some(Open {
            attachment,
            sequence: 0,
            tasks,
        });
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.disconnect();
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<UnitId, ObservedUnit>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_frozen(&self) -> bool {
        *self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the machine be as the intent says; answers what changed.
    fn obey(&self, intent: &[IntentItem]) -> Vec<ObservedUnit> {
        let mut units = self.lock();
        let mut told = Vec::new();
        let wanted: BTreeMap<UnitId, &IntentItem> = intent
            .iter()
            .filter(|item| item.intent == Intent::Run)
            .map(|item| (item.unit, item))
            .collect();
        let surplus: Vec<UnitId> = units
            .keys()
            .filter(|unit| !wanted.contains_key(unit))
            .copied()
            .collect();
        let stopped = surplus.into_iter().filter_map(|unit| units.remove(&unit));
        told.extend(stopped.map(|unit| ObservedUnit {
            state: UnitState::Gone,
            ..unit
        }));
        for item in intent {
            let is_known = units.contains_key(&item.unit);
            let is_told = told
                .iter()
                .any(|unit: &ObservedUnit| unit.unit == item.unit);
            match item.intent {
                Intent::Run if !is_known => {
                    let unit = begun(item);
                    units.insert(item.unit, unit.clone());
                    told.push(unit);
                }
                Intent::Stop { .. } if !is_told => told.push(observed(item, UnitState::Gone)),
                _ => {}
            }
        }
        told
    }
}

/// Follows the intent for as long as the connection lasts.
struct Agent {
    control: Control,
    world: Arc<World>,
    attachment: std::sync::Weak<Attachment>,
    node: NodeId,
}

impl Agent {
    async fn run(self) {
        loop {
            self.world.woken.notified().await;
            let Some(attachment) = self.attachment.upgrade() else {
                return;
            };
            if self.follow(&attachment).await.is_err() {
                return;
            }
        }
    }

    async fn follow(&self, attachment: &Attachment) -> Result<(), Refusal> {
        if self.world.is_frozen() {
            return Ok(());
        }
        let told = self.world.obey(&self.control.intent(self.node));
        if !told.is_empty() {
            attachment.observed_delta(told).await?;
        }
        for command in self.control.pending_commands(self.node) {
            attachment
                .acknowledge(command.id, Ok("done".to_owned()))
                .await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Link for FakeLink {
    fn wake(&self) {
        self.world.woken.notify_one();
    }

    async fn logs(
        &self,
        unit: UnitId,
        query: LogRequest,
    ) -> Result<BoxStream<'static, Result<LogRecord, Refusal>>, Refusal> {
        let Some(observed) = self.world.lock().get(&unit).cloned() else {
            return Err(Refusal::new(
                Code::LogNotFound,
                "the unit has no log here",
                "",
            ));
        };
        let lines = query.tail.unwrap_or(3);
        let line = move |number: u64| {
            Ok(LogRecord {
                at: Timestamp::from_millis(number),
                stream: LogStream::Stdout,
                text: format!("line {number}"),
                is_partial: false,
                run: observed.runs,
            })
        };
        let written = stream::iter((1..=lines).map(line));
        if query.follow {
            return Ok(written.chain(stream::pending()).boxed());
        }
        Ok(written.boxed())
    }
}

async fn announce(control: &Control, machine: &FakeMachine) -> Result<NodeId, Refusal> {
    let actor = Actor::Node(machine.name.clone());
    match control
        .submit(actor, Verb::Announce(Box::new(machine.announcement())))
        .await?
    {
        Reply::Node { id, .. } => Ok(id),
        reply => {
            let sentence = format!("an announcement is answered with a node, not {reply:?}");
            Err(Refusal::new(Code::Internal, sentence, ""))
        }
    }
}

/// How a new unit fares: it runs, unless the variable `FAKE` of its spec says that it `starts` for ever or
/// `crashes` again and again.
fn begun(item: &IntentItem) -> ObservedUnit {
    let since = Timestamp::default();
    match item.spec.env.get("FAKE").map(String::as_str) {
        Some("starts") => observed(item, UnitState::Starting),
        Some("crashes") => ObservedUnit {
            runs: 9,
            ..observed(
                item,
                UnitState::Waiting {
                    exit: Exit::Code(3),
                    retry_at: since,
                },
            )
        },
        _ => observed(item, UnitState::Running { since }),
    }
}

fn observed(item: &IntentItem, state: UnitState) -> ObservedUnit {
    ObservedUnit {
        unit: item.unit,
        workload: item.workload,
        kind: item.spec.runs_on(),
        state,
        runs: 1,
        parts: Vec::new(),
        health: None,
        crash_loop: None,
    }
}

//! Our node agent under our own orchestrator, from end to end in simulated time: the control plane with its door of
//! Orchion, the agent with its uplink, and a cable between them that fails as a test wants it to. The control plane
//! goes and comes back, with its store or without.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hostler_agent::{
    Agent, AgentConfig, ByteStream, Dial, Journal, LedgerIo, Line, Machine, Uplink,
};
use hostler_control::fleet::{Expect, Verb};
use hostler_control::{Control, ControlConfig};
use hostler_doors::{Accept, Dialect, Parts};
use hostler_kit::{Clock, Entropy, SeededEntropy, SimulatedClock, Tasks};
use hostler_model::spec::Kind;
use hostler_model::{
    Actor, AliasKey, Bytes, Contract, EventKind, Liveness, MilliCpu, Node, NodeFacts, NodeId,
    Resources, Usage,
};
use hostler_runtime::fake::{FakeMachine, FakeRuntime};
use hostler_store::MemoryStore;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

/// In simulated time; reached only by what never comes true.
const PATIENCE: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

const REGISTERED: &str = "Node registered successfully";
const UNKNOWN: &str = "Node not found by orchestrator";

/// What the cable does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fair,
    /// Connections end, and new ones are refused.
    Cut,
    /// What the agent says is held back.
    HoldsCalls,
    /// What is answered is held back.
    HoldsAnswers,
}

/// The way from the agent to whoever listens now.
#[derive(Clone)]
struct Cable {
    weather: watch::Sender<Weather>,
    listener: Arc<Mutex<Option<mpsc::UnboundedSender<DuplexStream>>>>,
    /// How often something was held back.
    held: Arc<AtomicUsize>,
    tasks: Tasks,
}

/// The end of the cable where a control plane listens.
struct Socket(mpsc::UnboundedReceiver<DuplexStream>);

/// Lines that the agent wrote.
#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

#[derive(Debug)]
struct Body;

struct World {
    cable: Cable,
    lines: Arc<Lines>,
    clock: Arc<SimulatedClock>,
    dir: TempDir,
}

struct Plane {
    control: Control,
    tasks: Tasks,
}

struct Running {
    _agent: Agent,
    tasks: Tasks,
}

impl Cable {
    fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Carries one connection until it ends or is cut.
    async fn carry(self, agent: DuplexStream, plane: DuplexStream) {
        let (said, hears) = tokio::io::split(agent);
        let (answered, asked) = tokio::io::split(plane);
        let mut weather = self.weather.subscribe();
        tokio::select! {
            // What was held back when the cable is cut never arrives.
            biased;
            _ = weather.wait_for(|now| *now == Weather::Cut) => {}
            () = self.pump(said, asked, Weather::HoldsCalls) => {}
            () = self.pump(answered, hears, Weather::HoldsAnswers) => {}
        }
    }

    async fn pump(
        &self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        holds: Weather,
    ) {
        let mut weather = self.weather.subscribe();
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if *weather.borrow() == holds {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            if weather.wait_for(|now| *now != holds).await.is_err()
                || to.write_all(&bytes[..count]).await.is_err()
            {
                return;
            }
        }
    }
}

#[async_trait]
impl Dial for Cable {
    async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn ByteStream>> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        if *self.weather.borrow() == Weather::Cut {
            return Err(refused());
        }
        let (near, agent) = tokio::io::duplex(64 * 1024);
        let (plane, far) = tokio::io::duplex(64 * 1024);
        let listener = self.listener.lock().unwrap().clone();
        let sent = listener.and_then(|listener| listener.send(far).ok());
        sent.ok_or_else(refused)?;
        let carried = self.clone().carry(agent, plane);
        self.tasks.spawn_until_stop("cable", carried);
        Ok(Box::new(near))
    }
}

impl Accept for Socket {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, ([192, 0, 2, 7], 4000).into())),
            None => std::future::pending().await,
        }
    }
}

impl Lines {
    /// How many lines begin so.
    fn count(&self, start: &str) -> usize {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(start)).count()
    }
}

impl Journal for Lines {
    fn write(&self, line: &Line) {
        self.0.lock().unwrap().push(line.text.clone());
    }
}

impl Machine for Body {
    fn facts(&self) -> NodeFacts {
        NodeFacts {
            hostname: "host".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu_count: 4,
            memory: Bytes(16 << 30),
            ..NodeFacts::default()
        }
    }

    fn usage(&self, _: &Path) -> Usage {
        Usage::default()
    }

    fn capacity(&self, _: &Path) -> Resources {
        Resources {
            cpu: MilliCpu(4_000),
            memory: Bytes(16 << 30),
            disk: Bytes(100 << 30),
        }
    }

    fn asleep(&self) -> Duration {
        Duration::ZERO
    }
}

impl World {
    fn new() -> Self {
        Self {
            cable: Cable {
                weather: watch::Sender::new(Weather::Fair),
                listener: Arc::default(),
                held: Arc::default(),
                tasks: Tasks::new(),
            },
            lines: Arc::default(),
            clock: Arc::new(SimulatedClock::starting_at(1_700_000_000_000)),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore::new(Arc::clone(&self.clock) as Arc<dyn Clock>))
    }

    /// A control plane over that store takes over the agent's end of the cable.
    async fn plane(&self, store: &Arc<MemoryStore>) -> Plane {
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
        let tasks = Tasks::new();
        let parts = hostler_control::Parts {
            store: Arc::<MemoryStore>::clone(store),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
        };
        let control = Control::start(ControlConfig::default(), parts);
        let control = control.await.unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        let router = Parts::new(&control, &entropy).router(Dialect::Orchion);
        let serving = hostler_doors::serve(Socket(receiver), router, tasks.clone());
        tasks.spawn("listener", serving);
        *self.cable.listener.lock().unwrap() = Some(sender);
        Plane { control, tasks }
    }

    async fn agent(&self) -> Running {
        let mut config = AgentConfig::new("http://plane:50051", self.dir.path());
        config.ledger_io = LedgerIo::Inline;
        config.uplink = Uplink::Orchion(Box::default());
        config.journal = Arc::clone(&self.lines) as Arc<dyn Journal>;
        let tasks = Tasks::new();
        let machine = FakeMachine::new(Arc::clone(&self.clock) as Arc<dyn Clock>);
        let parts = hostler_agent::Parts {
            runtimes: vec![Arc::new(FakeRuntime::new(machine, Kind::Process))],
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(2)),
            tasks: tasks.clone(),
            dial: Arc::new(self.cable.clone()),
            machine: Arc::new(Body),
        };
        let agent = Agent::start(config, parts).await.unwrap();
        Running {
            _agent: agent,
            tasks,
        }
    }

    fn held(&self) -> usize {
        self.cable.held.load(Ordering::Relaxed)
    }

    async fn until_said(&self, start: &str, times: usize) {
        until(start, || self.lines.count(start) >= times).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cable.tasks.stop();
    }
}

impl Running {
    async fn stop(self) {
        assert_eq!(self.tasks.shut_down(60 * SECOND).await, Ok(()));
    }
}

impl Plane {
    /// The one node, gone or not.
    fn node(&self) -> Arc<Node> {
        let view = self.control.view();
        let nodes: Vec<_> = view.nodes().cloned().collect();
        let [node] = &nodes[..] else {
            panic!("one node is to be there: {nodes:#?}");
        };
        Arc::clone(node)
    }

    /// How many beats this run of it has taken.
    fn beats(&self) -> u64 {
        let live = self.control.live(self.node().id);
        live.map_or(0, |live| live.beats)
    }

    async fn until_alive(&self) {
        let is_alive = || {
            let view = self.control.view();
            view.nodes().any(|node| node.liveness == Liveness::Alive)
        };
        until("the node is alive", is_alive).await;
    }

    /// The id by which the agent calls itself.
    fn foreign_id(&self) -> String {
        let view = self.control.view();
        let owner = hostler_model::AliasOwner::Node(view.nodes().next().unwrap().id);
        let alias = view.aliases_of(owner).next().unwrap();
        assert_eq!(alias.key.contract, Contract::Orchion);
        alias.key.foreign.clone()
    }

    fn known_as(&self, id: &str) -> Option<NodeId> {
        let key = AliasKey {
            contract: Contract::Orchion,
            scope: "node".to_owned(),
            foreign: id.to_owned(),
        };
        self.control.view().node_by_alias(&key).map(|node| node.id)
    }

    fn happened(&self, kind: EventKind) -> usize {
        let (events, _) = self.control.events(Some(0), 1000);
        events.iter().filter(|event| event.kind == kind).count()
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shut_down(60 * SECOND).await, Ok(()));
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "never: {what}");
}

async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_comes_back_with_its_state_hears_beats_and_no_registration() {
    let world = World::new();
    let store = world.store();
    let plane = world.plane(&store).await;
    let agent = world.agent().await;
    world.until_said(REGISTERED, 1).await;
    plane.until_alive().await;
    let before = plane.node();
    plane.stop().await;
    world
        .until_said("Failed to connect to orchestrator", 3)
        .await;
    pass(600 * SECOND).await;

    let plane = world.plane(&store).await;
    assert_eq!(plane.beats(), 0);
    until("a beat comes", || plane.beats() > 0).await;
    pass(60 * SECOND).await;
    let after = plane.node();
    assert_eq!((after.id, &after.facts), (before.id, &before.facts));
    assert_eq!(after.liveness, Liveness::Alive);
    assert_eq!(plane.happened(EventKind::NodeJoined), 1);
    assert_eq!(plane.happened(EventKind::NodeLost), 0);
    assert_eq!(world.lines.count(REGISTERED), 1);
    assert_eq!(world.lines.count(UNKNOWN), 0);
    agent.stop().await;
    plane.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_comes_back_empty_is_registered_with_once_under_the_same_id() {
    let world = World::new();
    let plane = world.plane(&world.store()).await;
    let agent = world.agent().await;
    plane.until_alive().await;
    let (before, id) = (plane.node(), plane.foreign_id());
    plane.stop().await;
    world
        .until_said("Failed to connect to orchestrator", 1)
        .await;

    let plane = world.plane(&world.store()).await;
    plane.until_alive().await;
    pass(120 * SECOND).await;
    let after = plane.node();
    assert_eq!(plane.known_as(&id), Some(after.id));
    assert_eq!(after.facts, before.facts, "it is told everything again");
    assert_eq!(after.liveness, Liveness::Alive);
    assert!(plane.beats() >= 20, "it beats on");
    assert_eq!(plane.happened(EventKind::NodeJoined), 1);
    assert_eq!(world.lines.count(UNKNOWN), 1);
    assert_eq!(world.lines.count(REGISTERED), 2);
    agent.stop().await;

    let agent = world.agent().await;
    world.until_said(REGISTERED, 3).await;
    assert_eq!(plane.node().id, after.id, "a new start is the same node");
    agent.stop().await;
    plane.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drops_in_the_middle_of_a_beat_costs_nothing_but_that_beat() {
    let world = World::new();
    let plane = world.plane(&world.store()).await;
    let agent = world.agent().await;
    plane.until_alive().await;
    let before = plane.node();
    for (round, weather) in [(1, Weather::HoldsAnswers), (2, Weather::HoldsCalls)] {
        // Between two beats nothing is on its way.
        pass(7 * SECOND).await;
        let (beats, held) = (plane.beats(), world.held());
        world.cable.set(weather);
        until("the beat is on its way", || world.held() > held).await;
        let heard = plane.beats() - beats;
        let is_heard = weather == Weather::HoldsAnswers;
        assert_eq!(heard, u64::from(is_heard), "{weather:?}");
        world.cable.set(Weather::Cut);
        world.until_said("Failed to send heartbeat", round).await;
        world.cable.set(Weather::Fair);
        until("it beats again", || plane.beats() > beats + 2).await;
    }
    let after = plane.node();
    assert_eq!((after.id, after.revision), (before.id, before.revision));
    assert_eq!(world.lines.count(REGISTERED), 1);
    assert_eq!(plane.happened(EventKind::NodeLost), 0);
    agent.stop().await;
    plane.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_beyond_its_lease_is_lost_and_back_with_its_next_beat() {
    let world = World::new();
    let plane = world.plane(&world.store()).await;
    let agent = world.agent().await;
    plane.until_alive().await;
    pass(30 * SECOND).await;
    for round in 1..=2 {
        world.cable.set(Weather::Cut);
        until("it is lost", || {
            plane.happened(EventKind::NodeLost) == round
        })
        .await;
        assert!(matches!(plane.node().liveness, Liveness::Lost { .. }));
        world.cable.set(Weather::Fair);
        plane.until_alive().await;
        pass(60 * SECOND).await;
    }
    assert_eq!(plane.happened(EventKind::NodeJoined), 1);
    assert_eq!(world.lines.count(REGISTERED), 1);
    assert_eq!(world.lines.count(UNKNOWN), 0);
    agent.stop().await;
    plane.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_was_under_way_revives_no_deleted_node() {
    let world = World::new();
    let plane = world.plane(&world.store()).await;
    let agent = world.agent().await;
    plane.until_alive().await;
    pass(7 * SECOND).await;
    world.cable.set(Weather::HoldsCalls);
    until("the beat is on its way", || world.held() > 0).await;
    let removal = Verb::RemoveNode {
        node: plane.node().id,
        force: false,
        expect: Expect::Any,
    };
    let anna = Actor::User("anna".to_owned());
    plane.control.submit(anna, removal).await.unwrap();
    let gone = plane.node();
    let written = plane.control.store_revision();
    world.cable.set(Weather::Fair);
    let refused = "Failed to register node: FailedPrecondition: node host was removed";
    world.until_said(refused, 1).await;
    assert_eq!(world.lines.count(UNKNOWN), 1);
    // It asks on, for an operator may have meant another one, and it changes nothing.
    world.until_said(refused, 5).await;
    assert_eq!(plane.node(), gone);
    assert!(gone.is_gone());
    assert!(plane.control.live(gone.id).is_none());
    assert_eq!(plane.control.store_revision(), written);
    assert_eq!(world.lines.count(REGISTERED), 1);
    agent.stop().await;
    plane.stop().await;
}

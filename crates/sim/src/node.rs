//! A simulated node: the machine, which outlives its agent, and the program that runs the real agent on it.
//!
//! The machine owns the units, the ledger's directory and the wall clock. The program fails only if the
//! agent does not start, which ends the simulation.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use hostler_agent::{Agent, AgentConfig, LedgerIo, Machine, Parts};
use hostler_kit::{Clock, SeededEntropy, Tasks};
use hostler_model::spec::Kind;
use hostler_model::{Bytes, MilliCpu, NodeFacts, Resources, UnitId, Usage};
use hostler_runtime::fake::{FakeMachine, FakeRuntime};
use hostler_runtime::{Found, Runtime};

use crate::clock::{HostClock, Timeline, Wall};
use crate::network::SimDial;
use crate::server;

/// What each machine has.
const CAPACITY: Resources = Resources {
    cpu: MilliCpu(4_000),
    memory: Bytes(8 << 30),
    disk: Bytes(100 << 30),
};

/// A machine of the fleet.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) wall: Arc<Wall>,
    timeline: Arc<Timeline>,
    units: Arc<FakeMachine>,
    data_dir: PathBuf,
    seed: u64,
    /// How often it booted, and how often its agent was started.
    boots: AtomicU64,
    starts: AtomicU64,
}

/// The machine as its agent sees it.
struct Body {
    name: &'static str,
    boot: u64,
}

impl Node {
    /// A machine that was just switched on, with nothing on it.
    pub(crate) fn new(
        name: &'static str,
        seed: u64,
        timeline: &Arc<Timeline>,
        data_dir: PathBuf,
    ) -> Self {
        let wall = Arc::new(Wall::default());
        let clock = HostClock::starting_now(timeline, &wall);
        Self {
            name,
            wall,
            timeline: Arc::clone(timeline),
            units: FakeMachine::new(Arc::new(clock)),
            data_dir,
            seed,
            boots: AtomicU64::new(1),
            starts: AtomicU64::new(0),
        }
    }

    /// What the host runs: one agent, until the host crashes.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let clock = HostClock::starting_now(&self.timeline, &self.wall);
        let mut config = AgentConfig::new(server::url(), &self.data_dir);
        config.ledger_io = LedgerIo::Inline;
        let parts = Parts {
            runtimes: vec![Arc::new(self.driver())],
            clock: Arc::new(clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(self.seed ^ start << 32)),
            tasks: Tasks::new(),
            dial: Arc::new(SimDial),
            machine: Arc::new(Body {
                name: self.name,
                boot: self.boots.load(Ordering::Relaxed),
            }),
        };
        let agent = Agent::start(config, parts).await?;
        agent.stopped().await;
        Err("the agent ended by itself".into())
    }

    /// The units that run now, in order.
    pub(crate) fn running(&self) -> Vec<UnitId> {
        self.units.running()
    }

    /// Everything that is on the machine, running or not.
    pub(crate) fn found(&self) -> Vec<Found> {
        // The fake answers at once.
        let answer = self.driver().observe().now_or_never();
        answer.and_then(Result::ok).unwrap_or_default()
    }

    /// The `nth` of the units that run ends as if by itself.
    pub(crate) fn crash_unit(&self, nth: u64) -> Option<UnitId> {
        let running = self.running();
        let count = u64::try_from(running.len())
            .ok()
            .filter(|count| *count > 0)?;
        let unit = running[usize::try_from(nth % count).ok()?];
        self.units.crash(unit, hostler_model::Exit::Code(1));
        Some(unit)
    }

    /// The machine restarts: nothing runs on it afterwards.
    pub(crate) fn reboot(&self) {
        self.units.reboot();
        self.boots.fetch_add(1, Ordering::Relaxed);
    }

    fn driver(&self) -> FakeRuntime {
        FakeRuntime::new(Arc::clone(&self.units), Kind::Process)
    }
}

impl Machine for Body {
    fn facts(&self) -> NodeFacts {
        NodeFacts {
            hostname: self.name.to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu_count: 4,
            boot_id: format!("{}-{}", self.name, self.boot),
            ..NodeFacts::default()
        }
    }

    fn usage(&self, _: &Path) -> Usage {
        Usage::default()
    }

    fn capacity(&self, _: &Path) -> Resources {
        CAPACITY
    }

    fn asleep(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

//! A node: a machine with its units and its data directory, on which agents come and go.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_agent::{
    Agent, AgentConfig, AgentStatus, FileSystem, Headroom, LedgerIo, Machine, Parts, StartError,
};
use hostler_kit::{Clock, SeededEntropy, SimulatedClock, Tasks};
use hostler_model::spec::{Kind, RestartPolicy, WorkloadSpec};
use hostler_model::{Bytes, MilliCpu, NodeFacts, Resources, Usage};
use hostler_runtime::Runtime;
use hostler_runtime::fake::{FakeMachine, FakeRuntime};
use tempfile::TempDir;

use crate::control::{Control, moment};
use crate::network::Network;

/// A machine with a control plane behind a cable.
pub(crate) struct World {
    pub(crate) control: Arc<Control>,
    pub(crate) network: Arc<Network>,
    pub(crate) machine: Arc<FakeMachine>,
    pub(crate) body: Arc<Body>,
    pub(crate) dir: TempDir,
    clock: Arc<SimulatedClock>,
    pub(crate) tasks: Tasks,
    /// What the node has a driver for.
    pub(crate) kinds: Mutex<Vec<Kind>>,
    /// Each agent draws other numbers.
    starts: std::sync::atomic::AtomicU64,
}

/// A running agent.
pub(crate) struct Running {
    pub(crate) agent: Agent,
    tasks: Tasks,
}

/// What the machine is like.
pub(crate) struct Body {
    pub(crate) boot_id: Mutex<String>,
    pub(crate) asleep: Mutex<Duration>,
    pub(crate) usage: Mutex<Usage>,
    pub(crate) headroom: Mutex<Headroom>,
    pub(crate) disk: Mutex<Option<FileSystem>>,
}

impl Machine for Body {
    fn facts(&self) -> NodeFacts {
        NodeFacts {
            hostname: "host".to_owned(),
            os: "linux".to_owned(),
            boot_id: self.boot_id.lock().unwrap().clone(),
            arch: "x86_64".to_owned(),
            cpu_count: 4,
            memory: Bytes(16 << 30),
            ..NodeFacts::default()
        }
    }

    fn usage(&self, _: &Path) -> Usage {
        self.usage.lock().unwrap().clone()
    }

    fn capacity(&self, _: &Path) -> Resources {
        Resources {
            cpu: MilliCpu(4000),
            memory: Bytes(8 << 30),
            disk: Bytes(100 << 30),
        }
    }

    fn headroom(&self) -> Headroom {
        *self.headroom.lock().unwrap()
    }

    fn file_system(&self, _: &Path) -> Option<FileSystem> {
        *self.disk.lock().unwrap()
    }

    fn asleep(&self) -> Duration {
        *self.asleep.lock().unwrap()
    }

    fn address_towards(&self, _: IpAddr) -> Option<IpAddr> {
        Some([198, 51, 100, 7].into())
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let tasks = Tasks::new();
        let clock = Arc::new(SimulatedClock::starting_at(moment().as_millis()));
        let network = Network::new(&tasks);
        Self {
            control: Control::start(&network, &tasks),
            network,
            machine: FakeMachine::new(Arc::clone(&clock) as Arc<dyn Clock>),
            body: Arc::new(Body {
                boot_id: Mutex::new("boot-1".to_owned()),
                asleep: Mutex::new(Duration::ZERO),
                headroom: Mutex::new(Headroom::default()),
                disk: Mutex::new(None),
                usage: Mutex::new(Usage {
                    cpu_percent: 12.5,
                    memory_percent: 40.0,
                    disk_free: Bytes(2 << 30),
                    ..Usage::default()
                }),
            }),
            dir: tempfile::tempdir().unwrap(),
            clock,
            tasks,
            kinds: Mutex::new(vec![Kind::Process, Kind::Container]),
            starts: std::sync::atomic::AtomicU64::new(1),
        }
    }

    /// Starts an agent on this machine.
    pub(crate) async fn start(&self) -> Running {
        self.try_start(|_| {}).await.unwrap()
    }

    pub(crate) async fn try_start(
        &self,
        change: impl FnOnce(&mut AgentConfig),
    ) -> Result<Running, StartError> {
        let mut config = AgentConfig::new("http://control.example:8080", self.dir.path());
        config.ledger_io = LedgerIo::Inline;
        change(&mut config);
        let tasks = Tasks::new();
        let driver =
            |kind| Arc::new(FakeRuntime::new(Arc::clone(&self.machine), kind)) as Arc<dyn Runtime>;
        let seed = self
            .starts
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let parts = Parts {
            runtimes: self
                .kinds
                .lock()
                .unwrap()
                .iter()
                .map(|kind| driver(*kind))
                .collect(),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(seed)),
            tasks: tasks.clone(),
            dial: Arc::clone(&self.network) as Arc<dyn hostler_agent::Dial>,
            machine: Arc::clone(&self.body) as Arc<dyn Machine>,
        };
        let agent = Agent::start(config, parts).await?;
        Ok(Running { agent, tasks })
    }

    /// Lets simulated time pass.
    pub(crate) async fn pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Running {
    /// Ends the agent as a stop of its service does.
    pub(crate) async fn stop(self) {
        self.tasks.stop();
        self.agent.stopped().await;
        assert_eq!(self.tasks.shut_down(Duration::from_secs(60)).await, Ok(()));
    }

    /// Waits until the agent says so of itself.
    pub(crate) async fn until(&self, is_so: impl Fn(&AgentStatus) -> bool) {
        let mut status = self.agent.status();
        let waiting = status.wait_for(|status| is_so(status));
        let waited = tokio::time::timeout(Duration::from_secs(600), waiting).await;
        assert!(
            waited.is_ok(),
            "never; it is {:?}",
            *self.agent.status().borrow()
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// A process that runs until it is stopped.
pub(crate) fn serve(name: &str) -> WorkloadSpec {
    program(name, "serve", RestartPolicy::Always)
}

pub(crate) fn program(name: &str, command: &str, policy: RestartPolicy) -> WorkloadSpec {
    let command = command.split(' ').map(str::to_owned).collect();
    let mut spec = WorkloadSpec::of_process(name, command);
    spec.restart.policy = policy;
    spec
}

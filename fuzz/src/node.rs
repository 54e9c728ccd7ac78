//! An agent that serves: its drivers are fakes, its ledger a folder that goes with it.

use std::sync::Arc;

use hostler_agent::persys::{Admission, Persys};
use hostler_agent::{Agent, AgentConfig, LedgerIo, Parts, Uplink};
use hostler_kit::{Clock, SeededEntropy, SimulatedClock, Tasks};
use hostler_model::spec::Kind;
use hostler_runtime::Runtime;
use hostler_runtime::fake::{FakeMachine, FakeRuntime};

use crate::{BEGINNING, Program, runtime};

/// The environment of an agent on a machine that does not exist.
pub(crate) fn parts(tasks: Tasks) -> Parts {
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::starting_at(BEGINNING));
    let machine = FakeMachine::new(Arc::clone(&clock));
    let driver = |kind| {
        let driver = FakeRuntime::new(Arc::clone(&machine), kind);
        Arc::new(driver) as Arc<dyn Runtime>
    };
    let drivers = [Kind::Process, Kind::Container, Kind::Compose].map(driver);
    let entropy = Arc::new(SeededEntropy::new(1));
    Parts::new(drivers.into(), clock, entropy, tasks)
}

pub(crate) fn open() -> Program {
    let runtime = runtime();
    let (agent, folder) = runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = AgentConfig::new("127.0.0.1:1", folder.path());
        config.ledger_io = LedgerIo::Inline;
        let mut persys = Persys::new("node-1");
        persys.standalone = true;
        // However busy this machine is: otherwise nothing new would begin.
        let any = f64::INFINITY;
        persys.admission = Admission {
            memory: any,
            cpu: any,
            disk: any,
        };
        config.uplink = Uplink::Persys(persys);
        let started = Agent::start(config, parts(Tasks::new())).await;
        (started.expect("the agent starts"), folder)
    });
    let served = agent.services().expect("it serves").into_axum_router();
    Program::new(runtime, vec![("node", served)], (agent, folder))
}

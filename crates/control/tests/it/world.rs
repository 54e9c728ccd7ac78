//! A store that outlives control planes, a clock that tests move, and short ways to ask for things.

use std::sync::Arc;
use std::time::Duration;

use hostler_control::fake::{FakeMachine, FakeNode};
use hostler_control::fleet::{ApplyOptions, Reply, State, Verb};
use hostler_control::{Control, ControlConfig, Parts};
use hostler_kit::{SeededEntropy, SimulatedClock, Tasks};
use hostler_model::spec::WorkloadSpec;
use hostler_model::{
    Actor, Assignment, Bytes, MilliCpu, NodeId, NodeState, Refusal, Resources, WorkloadId,
};
use hostler_store::{MemoryStore, Store};

pub(crate) struct World {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<SimulatedClock>,
    entropy: Arc<SeededEntropy>,
}

impl World {
    /// Needs a runtime with paused time.
    pub(crate) fn new(seed: u64) -> Self {
        let clock = Arc::new(SimulatedClock::starting_at(1_700_000_000_000));
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Self {
            store,
            clock,
            entropy: Arc::new(SeededEntropy::new(seed)),
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        self.parts_over(self.store.clone())
    }

    pub(crate) fn parts_over(&self, store: Arc<dyn Store>) -> Parts {
        Parts {
            store,
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            tasks: Tasks::new(),
        }
    }

    pub(crate) async fn start(&self) -> Control {
        Control::start(ControlConfig::default(), self.parts())
            .await
            .unwrap()
    }
}

pub(crate) async fn stop(control: Control) {
    control
        .tasks()
        .shut_down(Duration::from_secs(60))
        .await
        .unwrap();
}

pub(crate) fn user() -> Actor {
    Actor::User("anna".to_owned())
}

pub(crate) fn spec(name: &str, count: u32, cpu: u64) -> WorkloadSpec {
    let mut spec = WorkloadSpec::of_process(name, vec!["sleep".to_owned(), "9".to_owned()]);
    spec.count = count;
    spec.resources = resources(cpu);
    spec
}

pub(crate) fn resources(cpu: u64) -> Resources {
    Resources {
        cpu: MilliCpu(cpu),
        memory: Bytes(1 << 20),
        disk: Bytes(0),
    }
}

pub(crate) async fn apply(control: &Control, spec: WorkloadSpec) -> Result<WorkloadId, Refusal> {
    let verb = Verb::Apply {
        specs: vec![Arc::new(spec)],
        options: ApplyOptions::default(),
    };
    match control.submit(user(), verb).await? {
        Reply::Applied(applied) if applied.len() == 1 => Ok(applied[0].id),
        reply => panic!("applied, and was told {reply:?}"),
    }
}

pub(crate) async fn join(control: &Control, name: &str) -> FakeNode {
    FakeNode::join(control, FakeMachine::named(name))
        .await
        .unwrap()
}

pub(crate) fn state_of(control: &Control, node: NodeId) -> NodeState {
    control.view().node(node).unwrap().state()
}

pub(crate) fn copies(control: &Control, workload: WorkloadId) -> Vec<Assignment> {
    control
        .view()
        .assignments_of(workload)
        .map(|copy| Assignment::clone(copy))
        .collect()
}

/// Lets the fleet go on until the view is as wanted.
pub(crate) async fn until(control: &Control, what: &str, wanted: impl Fn(&State) -> bool) {
    let mut changes = control.watch_changes();
    let waited = tokio::time::timeout(Duration::from_secs(600), async {
        while !wanted(&control.view()) {
            changes.changed().await.unwrap();
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// Beats once a second for so many seconds.
pub(crate) async fn beat_for(nodes: &[&FakeNode], seconds: u64) {
    for _ in 0..seconds {
        for node in nodes {
            node.beat();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

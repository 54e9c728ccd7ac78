//! The pipelined owner against a serial model: whatever the store does, what was acknowledged is what a
//! state comes to that decides the same verbs one after the other.
//!
//! Everything runs on one thread in simulated time from one seed, so a failing case replays exactly. The
//! journal of the control plane tells what was answered, in the order of deciding. A serial state follows
//! it with the same moments: each verb must be answered the same there. At every rest the three pictures
//! must be one: the serial state, the view, and a rebuild from the store. After a crash the serial state
//! may lack only the one batch that was in flight, whose callers heard nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hostler_control::fake::{FakeMachine, FakeNode, Journaled};
use hostler_control::fleet::{ApplyOptions, Change, Expect, Reply, State, Verb, decide};
use hostler_control::{Control, ControlConfig};
use hostler_model::{Code, CommandKind, Desired, NodeId, Refusal, WorkloadId};
use hostler_store::{Fault, Gate, Page, Revision, Store, Write};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::world::{World, spec, stop, user};

#[derive(Debug, Clone)]
enum Step {
    Apply { name: u8, count: u32, cpu: u64 },
    Stop(u8),
    Start(u8),
    Restart(u8),
    Delete(u8),
    Label { node: u8, token: u32 },
    Issue(u8),
    Drain(u8),
    Undrain(u8),
    Disconnect(u8),
    Reconnect(u8),
    Beat,
    Wait(u64),
    Fault(Fault),
    Gate(Gate),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::CommitFails), Just(Fault::CommitUnknown)];
    let gate = prop_oneof![
        Just(Gate::BeforeCommit),
        Just(Gate::AfterCommit),
        Just(Gate::Open),
        Just(Gate::Open)
    ];
    prop_oneof![
        6 => (0..4_u8, 0..6_u32, 1..4_u64).prop_map(|(name, count, cpu)| Step::Apply { name, count, cpu }),
        1 => (0..4_u8).prop_map(Step::Stop),
        1 => (0..4_u8).prop_map(Step::Start),
        2 => (0..4_u8).prop_map(Step::Restart),
        2 => (0..4_u8).prop_map(Step::Delete),
        2 => (0..3_u8, any::<u32>()).prop_map(|(node, token)| Step::Label { node, token }),
        2 => (0..3_u8).prop_map(Step::Issue),
        1 => (0..3_u8).prop_map(Step::Drain),
        1 => (0..3_u8).prop_map(Step::Undrain),
        1 => (0..3_u8).prop_map(Step::Disconnect),
        2 => (0..3_u8).prop_map(Step::Reconnect),
        2 => Just(Step::Beat),
        4 => (0..2_000_u64).prop_map(Step::Wait),
        3 => fault.prop_map(Step::Fault),
        2 => gate.prop_map(Step::Gate),
        1 => prop_oneof![Just(Step::Crash), Just(Step::Fault(Fault::LeaderLost))],
    ]
}

/// What a client heard.
type Heard = (Verb, Result<Reply, Refusal>);

struct Run {
    world: World,
    control: Control,
    journal: mpsc::UnboundedReceiver<Journaled>,
    serial: State,
    nodes: Vec<FakeNode>,
    clients: JoinSet<Heard>,
    heard: Vec<Heard>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let control = world.start().await;
        let journal = control.journal();
        let serial = control.view().clone();
        let (nodes, clients, heard) = (Vec::new(), JoinSet::new(), Vec::new());
        let mut run = Self {
            world,
            control,
            journal,
            serial,
            nodes,
            clients,
            heard,
        };
        for name in ["one", "two", "three"] {
            let node = FakeNode::join(&run.control, FakeMachine::named(name))
                .await
                .unwrap();
            run.nodes.push(node);
        }
        run
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Apply { name, count, cpu } => {
                let spec = Arc::new(spec(&workload_name(name), count, cpu * 1_000));
                self.client(Some(Verb::Apply {
                    specs: vec![spec],
                    options: ApplyOptions::default(),
                }));
            }
            Step::Stop(name) => self.set_desired(name, Desired::Stopped),
            Step::Start(name) => self.set_desired(name, Desired::Running),
            Step::Restart(name) => {
                let workload = self.workload(name);
                self.client(workload.map(|workload| Verb::Restart {
                    workload,
                    expect: Expect::Any,
                }));
            }
            Step::Delete(name) => {
                let workload = self.workload(name);
                self.client(workload.map(|workload| Verb::Delete {
                    workload,
                    expect: Expect::Any,
                }));
            }
            Step::Label { node, token } => {
                let labels = BTreeMap::from([("token".to_owned(), Some(token.to_string()))]);
                let node = self.node(node);
                self.client(Some(Verb::Label {
                    node,
                    labels,
                    expect: Expect::Any,
                }));
            }
            Step::Issue(node) => {
                let node = self.node(node);
                self.client(Some(Verb::Issue {
                    node,
                    kind: CommandKind::Cleanup,
                }));
            }
            Step::Drain(node) => self.client(Some(Verb::Drain {
                node: self.node(node),
                expect: Expect::Any,
            })),
            Step::Undrain(node) => self.client(Some(Verb::Undrain {
                node: self.node(node),
                expect: Expect::Any,
            })),
            Step::Disconnect(node) => self.nodes[usize::from(node)].disconnect(),
            Step::Reconnect(node) => {
                // Refused while the store is away; then the node is away as well.
                let _ = self.nodes[usize::from(node)].reconnect(&self.control).await;
            }
            Step::Beat => self.nodes.iter().for_each(|node| {
                node.beat();
            }),
            Step::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Step::Fault(fault) => self.world.store.fail_next(fault),
            Step::Gate(gate) => self.world.store.set_gate(gate),
            Step::Crash => self.crash().await,
        }
        if !self.control.is_leading() {
            self.come_back().await;
        }
    }

    fn set_desired(&mut self, name: u8, desired: Desired) {
        let workload = self.workload(name);
        let expect = Expect::Any;
        self.client(workload.map(|workload| Verb::SetDesired {
            workload,
            desired,
            expect,
        }));
    }

    fn workload(&self, name: u8) -> Option<WorkloadId> {
        self.control
            .view()
            .workload_by_name(&workload_name(name))
            .map(|workload| workload.id)
    }

    fn node(&self, index: u8) -> NodeId {
        self.nodes[usize::from(index)].id()
    }

    /// Asks without waiting for the answer.
    fn client(&mut self, verb: Option<Verb>) {
        let Some(verb) = verb else { return };
        let control = self.control.clone();
        self.clients.spawn(async move {
            let result = control.submit(user(), verb.clone()).await;
            (verb, result)
        });
    }

    async fn crash(&mut self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.control.crash();
        self.come_back().await;
    }

    /// A new control plane over the same store, after a crash or a lost lease.
    async fn come_back(&mut self) {
        self.world.store.set_gate(Gate::Open);
        self.control.over().await;
        self.control
            .tasks()
            .shut_down(Duration::from_secs(60))
            .await
            .unwrap();
        self.hear().await;
        self.follow_journal();
        self.check_after_the_end().await;
        self.control = loop {
            let started = Control::start(ControlConfig::default(), self.world.parts()).await;
            match started {
                Ok(control) => break control,
                // A fault that was meant for the old one struck the new one.
                Err(error) => tracing::debug!(%error, "does not start"),
            }
        };
        self.journal = self.control.journal();
        self.serial = self.control.view().clone();
        for node in &mut self.nodes {
            let _ = node.reconnect(&self.control).await;
        }
    }

    async fn hear(&mut self) {
        while let Some(heard) = self.clients.join_next().await {
            self.heard.push(heard.unwrap());
        }
    }

    /// Decides serially what was answered, and compares.
    fn follow_journal(&mut self) {
        while let Ok(entry) = self.journal.try_recv() {
            let decision = decide(&self.serial, &entry.moment, &entry.actor, &entry.verb);
            match decision {
                Ok(decision) => {
                    assert_eq!(Ok(decision.reply), entry.result, "{:?}", entry.verb);
                    decision
                        .changes
                        .iter()
                        .for_each(|change| self.serial.apply(change));
                }
                Err(refusal) => assert_eq!(Err(refusal), entry.result, "{:?}", entry.verb),
            }
        }
    }

    /// All that was acknowledged is in the store, and at most one commit that nobody heard of.
    async fn check_after_the_end(&self) {
        let revision = self.world.store.commit(Vec::new(), Vec::new()).await;
        // The faults of the old one are spent on the question.
        let Ok(last) = revision else { return };
        if rebuilt(&self.world).await != self.serial {
            let before = folded(&self.world, last - 1).await;
            assert!(
                before == self.serial,
                "the store lacks what was acknowledged, or has more"
            );
        }
    }

    /// Lets everything come to rest, and compares the three pictures.
    async fn rest(&mut self) {
        self.world.store.set_gate(Gate::Open);
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.nodes.iter().for_each(|node| {
                node.beat();
            });
            if !self.control.is_leading() {
                self.come_back().await;
            }
        }
        self.hear().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.follow_journal();
        let view = self.control.view().clone();
        assert!(
            view == self.serial,
            "the view differs from the serial state"
        );
        assert!(
            view == rebuilt(&self.world).await,
            "the view differs from the store"
        );
    }

    /// Replays every commit of the store: numbers of events and revisions have neither hole nor double,
    /// and what clients heard is what happened.
    async fn check_history(&mut self) {
        let mut watch = self.world.store.watch("", 0).await.unwrap();
        let last = self.control.metrics().store_revision;
        let mut next_event = 1;
        let mut revisions: BTreeMap<WorkloadId, u64> = BTreeMap::new();
        let mut commands = 0;
        loop {
            let committed = watch.next().await.unwrap();
            let mut events = Vec::new();
            for write in &committed.writes {
                match change(write) {
                    Some(Change::Append(event)) => events.push(event.sequence),
                    Some(Change::PutRevision(revision)) => {
                        let before = revisions.insert(revision.workload, revision.number);
                        assert!(
                            before.unwrap_or(0) < revision.number,
                            "revision {} of {} is written after {before:?}",
                            revision.number,
                            revision.workload,
                        );
                    }
                    Some(Change::PutCommand(command))
                        if command.state == hostler_model::CommandState::Pending =>
                    {
                        commands += 1;
                    }
                    _ => {}
                }
            }
            events.sort_unstable();
            for sequence in events {
                assert_eq!(
                    sequence, next_event,
                    "at store revision {}",
                    committed.revision
                );
                next_event += 1;
            }
            if committed.revision >= last {
                break;
            }
        }
        self.check_heard(commands);
    }

    fn check_heard(&self, commands: usize) {
        let (mut issued, mut unknown) = (0, 0);
        let mut seen: BTreeMap<(WorkloadId, u64), &Verb> = BTreeMap::new();
        for (verb, result) in &self.heard {
            match (verb, result) {
                (Verb::Issue { .. }, Ok(_)) => issued += 1,
                (Verb::Issue { .. }, Err(refusal)) if is_unknown(refusal) => unknown += 1,
                (_, Ok(Reply::Applied(applied))) => {
                    for one in applied.iter().filter(|one| one.changed) {
                        let other = seen.insert((one.id, one.revision), verb);
                        assert!(other.is_none(), "two callers were given one revision");
                    }
                }
                _ => {}
            }
        }
        assert!(
            commands >= issued,
            "{issued} commands were acknowledged, {commands} are there"
        );
        assert!(
            commands <= issued + unknown,
            "a command that was refused is there"
        );
    }
}

fn is_unknown(refusal: &Refusal) -> bool {
    refusal.code == Code::StoreUnavailable
}

fn workload_name(number: u8) -> String {
    format!("workload-{number}")
}

/// What the store holds, read as a restart does.
async fn rebuilt(world: &World) -> State {
    let mut changes = Vec::new();
    let mut after = None;
    loop {
        let page = Page {
            after: after.take(),
            limit: 100,
            at: None,
        };
        let listing = world.store.list("", page).await.unwrap();
        for entry in &listing.entries {
            let put = Write::Put {
                key: entry.key.clone(),
                value: entry.value.clone(),
            };
            changes.extend(change(&put));
        }
        match listing.entries.last() {
            Some(last) if listing.more => after = Some(last.key.clone()),
            _ => return State::from_changes(&changes),
        }
    }
}

/// What the store held at a revision, by replaying its commits.
async fn folded(world: &World, until: Revision) -> State {
    let mut watch = world.store.watch("", 0).await.unwrap();
    let mut entries = BTreeMap::new();
    let mut at = 0;
    while at < until {
        let committed = watch.next().await.unwrap();
        at = committed.revision;
        for write in committed.writes {
            match write {
                Write::Put { ref key, .. } => entries.insert(key.clone(), write),
                Write::Delete { key } => entries.remove(&key),
            };
        }
    }
    let changes: Vec<Change> = entries.values().filter_map(change).collect();
    State::from_changes(&changes)
}

/// Reads a record without the code under test.
fn change(write: &Write) -> Option<Change> {
    let Write::Put { key, value } = write else {
        return None;
    };
    let folder = key.split('/').next().unwrap();
    Some(match folder {
        "fleet" => {
            let fleet: serde_json::Value = serde_json::from_slice(value).unwrap();
            Change::PutFleet {
                id: serde_json::from_value(fleet["id"].clone()).unwrap(),
                epoch: serde_json::from_value(fleet["epoch"].clone()).unwrap(),
            }
        }
        "nodes" => Change::PutNode(serde_json::from_slice(value).unwrap()),
        "workloads" => Change::PutWorkload(serde_json::from_slice(value).unwrap()),
        "revisions" => Change::PutRevision(serde_json::from_slice(value).unwrap()),
        "assignments" => Change::PutAssignment(serde_json::from_slice(value).unwrap()),
        "commands" => Change::PutCommand(serde_json::from_slice(value).unwrap()),
        "aliases" => Change::PutAlias(serde_json::from_slice(value).unwrap()),
        "accounts" => Change::PutAccount(serde_json::from_slice(value).unwrap()),
        "rentals" => Change::PutRental(serde_json::from_slice(value).unwrap()),
        "pools" => Change::PutPool(serde_json::from_slice(value).unwrap()),
        "quotes" => Change::PutQuote(serde_json::from_slice(value).unwrap()),
        "switches" => Change::PutSwitch(serde_json::from_slice(value).unwrap()),
        "events" => Change::Append(serde_json::from_slice(value).unwrap()),
        other => panic!("an unknown folder: {other}"),
    })
}

fn replay(seed: u64, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed).await;
        for (number, step) in steps.into_iter().enumerate() {
            run.take(step).await;
            if number % 16 == 15 {
                run.rest().await;
            }
        }
        run.rest().await;
        run.check_history().await;
        run.nodes.clear();
        stop(run.control).await;
    });
}

proptest! {
    // A failing case is printed whole and replays from that alone.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pipelined_owner_does_what_a_serial_one_does(
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        replay(seed, steps);
    }
}

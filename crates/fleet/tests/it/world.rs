//! A small fleet for tests: decides, applies, and counts time and seeds up so that every run is the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_fleet::{
    ApplyOptions, Change, Decision, Expect, Moment, NodeAnnouncement, Progress, Reply, State,
    UnitReport, Verb, decide,
};
use hostler_model::spec::{DisconnectPolicy, Kind, WorkloadSpec};
use hostler_model::{
    Actor, AliasKey, Assignment, Bytes, Contract, Exit, Foreign, MilliCpu, NodeFacts, NodeId,
    Refusal, Resources, RuntimeFact, Timestamp, WorkloadId,
};

#[derive(Default)]
pub(crate) struct World {
    pub(crate) state: State,
    /// Everything that was ever applied, in order.
    pub(crate) log: Vec<Change>,
    ticks: u64,
}

impl World {
    /// A founded fleet with that many nodes of 1 core and 1 GiB, all ready.
    pub(crate) fn with_nodes(count: usize) -> Self {
        let mut world = Self::default();
        world.must(&Verb::Found);
        for number in 0..count {
            world.join(&format!("node-{number}"), resources(1000, 1024));
        }
        world
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment {
            now: Timestamp::from_millis(1_700_000_000_000 + self.ticks * 1000),
            seed: u128::from(self.ticks) << 8,
        }
    }

    /// Lets time go by.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.ticks += seconds;
    }

    pub(crate) fn decide(&self, verb: &Verb) -> Result<Decision, Refusal> {
        decide(&self.state, &self.moment(), &actor(), verb)
    }

    pub(crate) fn submit(&mut self, verb: &Verb) -> Result<Decision, Refusal> {
        let decision = self.decide(verb);
        self.ticks += 1;
        if let Ok(decision) = &decision {
            self.state.apply_all(&decision.changes);
            self.log.extend(decision.changes.iter().cloned());
        }
        decision
    }

    pub(crate) fn must(&mut self, verb: &Verb) -> Reply {
        self.submit(verb).expect("the verb is not refused").reply
    }

    pub(crate) fn join(&mut self, name: &str, capacity: Resources) -> NodeId {
        self.join_as(hello(name, capacity))
    }

    /// The agent says hello and has nothing running.
    pub(crate) fn join_as(&mut self, hello: NodeAnnouncement) -> NodeId {
        let Reply::Node { id, .. } = self.must(&Verb::Announce(Box::new(hello))) else {
            panic!("an announcement answers with the node");
        };
        self.must(&Verb::Resume {
            node: id,
            units: Vec::new(),
        });
        id
    }

    pub(crate) fn node(&self, name: &str) -> NodeId {
        self.state.node_by_name(name).expect("the node is there").id
    }

    pub(crate) fn apply(&mut self, spec: WorkloadSpec) -> WorkloadId {
        let options = ApplyOptions::default();
        match self.must(&Verb::Apply {
            specs: vec![Arc::new(spec)],
            options,
        }) {
            Reply::Applied(applied) => applied[0].id,
            other => panic!("applying answers with the workload: {other:?}"),
        }
    }

    pub(crate) fn delete(&mut self, workload: WorkloadId) {
        self.must(&Verb::Delete {
            workload,
            expect: Expect::Any,
        });
    }

    /// Settles everything until nothing changes; the number of rounds.
    pub(crate) fn settle(&mut self) -> usize {
        for round in 0..200 {
            let unsettled: Vec<_> = self.state.unsettled().collect();
            let mut changed = false;
            for workload in unsettled {
                let decision = self.submit(&Verb::Settle { workload, limit: 3 });
                changed |= !decision
                    .expect("settling is never refused")
                    .changes
                    .is_empty();
            }
            if !changed {
                return round;
            }
        }
        panic!("settling does not come to an end");
    }

    /// The agent stops what it should and says so.
    pub(crate) fn obey(&mut self, node: NodeId) {
        let stopping = self
            .state
            .assignments_on(node)
            .filter(|copy| !copy.is_wanted());
        let reports = stopping
            .map(|copy| UnitReport::Gone { unit: copy.unit() })
            .collect();
        self.must(&Verb::Report { node, reports });
    }

    /// Every agent that answers obeys, every new copy there is healthy, and the keepers do their work, until
    /// all is quiet.
    pub(crate) fn run(&mut self) {
        for _ in 0..100 {
            let before = self.log.len();
            self.work();
            self.prove();
            if self.log.len() == before {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Every agent that answers obeys and placement is settled, but nobody hears how new copies fare.
    pub(crate) fn work(&mut self) {
        for _ in 0..8 {
            self.settle();
            let nodes: Vec<_> = self
                .state
                .nodes()
                .filter(|node| is_answering(node))
                .map(|node| node.id)
                .collect();
            for node in nodes {
                self.obey(node);
            }
        }
    }

    /// The rollout keeper's pass in a fleet where everything that runs on a node that answers is healthy.
    pub(crate) fn prove(&mut self) {
        let rolling: Vec<_> = self.state.rolling().collect();
        for id in rolling {
            let seen = self.seen(id);
            self.must(&Verb::Advance(Box::new(seen)));
            // What was learnt may be all that was missing.
            let seen = self.seen(id);
            self.must(&Verb::Advance(Box::new(seen)));
        }
    }

    /// What the rollout keeper would see if everything was healthy.
    pub(crate) fn seen(&self, id: WorkloadId) -> Progress {
        let workload = self.state.workload(id).expect("it is there");
        let answers = |copy: &&Assignment| {
            let node = self.state.node(copy.node);
            node.is_some_and(|node| is_answering(node))
        };
        let copies = self.copies(id);
        let units = |wanted: &dyn Fn(&Assignment) -> bool| {
            let chosen = copies
                .iter()
                .filter(|copy| copy.is_wanted() && wanted(copy));
            chosen.filter(answers).map(Assignment::unit).collect()
        };
        Progress {
            workload: id,
            step: workload.rollout.as_ref().map_or(0, |rollout| rollout.step),
            healthy: units(&|copy| copy.trial),
            lapsed: Vec::new(),
            idle: units(&|copy| {
                copy.is_finished()
                    && (copy.template, copy.restart) != (workload.template, workload.restart)
            }),
            failed: None,
        }
    }

    pub(crate) fn finish(&mut self, copy: &Assignment, exit: Exit) {
        let reports = vec![UnitReport::Finished {
            unit: copy.unit(),
            exit,
            runs: 1,
        }];
        self.must(&Verb::Report {
            node: copy.node,
            reports,
        });
    }

    pub(crate) fn copies(&self, workload: WorkloadId) -> Vec<Assignment> {
        self.state
            .assignments_of(workload)
            .map(|copy| Assignment::clone(copy))
            .collect()
    }

    /// One line per copy and node, and the events since the sequence number, for snapshots.
    pub(crate) fn picture(&self) -> String {
        let mut lines = Vec::new();
        for node in self.state.nodes() {
            let free = self.state.free(node.id);
            lines.push(format!(
                "{} {} free {} {}",
                node.name,
                node.state(),
                free.cpu,
                free.memory
            ));
        }
        let mut copies: Vec<_> = self.state.assignments().collect();
        copies.sort_by_key(|copy| (copy.workload, copy.slot, copy.generation));
        for copy in copies {
            let node = &self.state.node(copy.node).expect("its node is there").name;
            let workload = self
                .state
                .workload(copy.workload)
                .expect("its workload is there");
            let outcome = copy
                .outcome
                .as_ref()
                .map(|outcome| format!(" finished {}", outcome.exit));
            let fenced = if copy.fenced { " fenced" } else { "" };
            lines.push(format!(
                "{}#{} gen {} rev {} on {node} {:?}{}{fenced}",
                workload.name,
                copy.slot,
                copy.generation,
                copy.revision,
                copy.intent,
                outcome.unwrap_or_default(),
            ));
        }
        lines.join("\n")
    }

    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.log.iter().filter_map(|change| match change {
            Change::Append(event) => Some(format!("{}: {}", event.kind.as_str(), event.message)),
            _ => None,
        });
        events.collect()
    }
}

pub(crate) fn is_answering(node: &hostler_model::Node) -> bool {
    !node.is_gone() && node.liveness == hostler_model::Liveness::Alive
}

pub(crate) fn actor() -> Actor {
    Actor::User("ada".to_owned())
}

pub(crate) const fn resources(millicpu: u64, mebibytes: u64) -> Resources {
    Resources {
        cpu: MilliCpu(millicpu),
        memory: Bytes(mebibytes << 20),
        disk: Bytes(0),
    }
}

pub(crate) fn hello(name: &str, capacity: Resources) -> NodeAnnouncement {
    let runtimes = [Kind::Process, Kind::Container].map(|kind| RuntimeFact {
        kind,
        available: true,
        version: String::new(),
        note: String::new(),
    });
    NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: AliasKey {
            contract: Contract::Session,
            scope: "node".to_owned(),
            foreign: format!("key of {name}"),
        },
        contract: Contract::Session,
        name: name.to_owned(),
        facts: NodeFacts {
            hostname: name.to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            boot_id: "first".to_owned(),
            runtimes: runtimes.to_vec(),
            ..NodeFacts::default()
        },
        capacity,
        labels: BTreeMap::new(),
        instance: None,
    }
}

/// A process workload with that many copies of 250m and 256 MiB.
pub(crate) fn spec(name: &str, count: u32) -> WorkloadSpec {
    let mut spec = WorkloadSpec::of_process(name, vec!["sleep".to_owned(), "inf".to_owned()]);
    spec.count = count;
    spec.resources = resources(250, 256);
    spec
}

pub(crate) fn singleton(name: &str, count: u32) -> WorkloadSpec {
    let mut spec = spec(name, count);
    spec.disconnect.policy = DisconnectPolicy::Singleton;
    spec
}

/// What a workload is under Persys.
pub(crate) fn foreign(id: &str, revision: &str, payload: &[u8]) -> Arc<Foreign> {
    Arc::new(Foreign {
        key: AliasKey {
            contract: Contract::Persys,
            scope: "workload".to_owned(),
            foreign: id.to_owned(),
        },
        revision: revision.to_owned(),
        payload: payload.into(),
    })
}

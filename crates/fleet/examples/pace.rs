//! Prints how fast the core decides and applies: `cargo run --release -p hostler-fleet --example pace [full]`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a measuring tool that people run by hand"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hostler_fleet::{ApplyOptions, Moment, NodeAnnouncement, Reply, State, Verb, decide};
use hostler_model::spec::{Kind, Strategy, WorkloadSpec};
use hostler_model::{
    Actor, AliasKey, Bytes, Contract, MilliCpu, NodeFacts, Resources, RuntimeFact, Timestamp,
};

struct Fleet {
    /// The head decides, the view follows: both apply every change.
    head: State,
    view: State,
    ticks: u64,
    deciding: Duration,
    applying: Duration,
}

impl Fleet {
    fn submit(&mut self, verb: &Verb) -> Reply {
        self.ticks += 1;
        let moment = Moment {
            now: Timestamp::from_millis(1_700_000_000_000 + self.ticks),
            seed: u128::from(self.ticks) << 64,
        };
        let start = Instant::now();
        let decision =
            decide(&self.head, &moment, &Actor::Keeper("pace".to_owned()), verb).unwrap();
        let decided = Instant::now();
        self.head.apply_all(&decision.changes);
        self.view.apply_all(&decision.changes);
        self.deciding += decided - start;
        self.applying += decided.elapsed();
        decision.reply
    }

    fn with_nodes(count: usize) -> Self {
        let mut fleet = Self {
            head: State::default(),
            view: State::default(),
            ticks: 0,
            deciding: Duration::ZERO,
            applying: Duration::ZERO,
        };
        fleet.submit(&Verb::Found);
        for number in 0..count {
            let Reply::Node { id, .. } = fleet.submit(&Verb::Announce(Box::new(hello(number))))
            else {
                continue;
            };
            fleet.submit(&Verb::Resume {
                node: id,
                units: Vec::new(),
            });
        }
        fleet
    }

    fn place(&mut self, workloads: usize, count: u32, strategy: Strategy, limit: usize) -> u32 {
        (self.deciding, self.applying) = (Duration::ZERO, Duration::ZERO);
        for number in 0..workloads {
            let mut spec = WorkloadSpec::of_process(&format!("w{number}"), vec!["x".to_owned()]);
            spec.count = count;
            spec.resources = Resources {
                cpu: MilliCpu(10),
                memory: Bytes(16 << 20),
                disk: Bytes(0),
            };
            spec.placement.strategy = strategy;
            self.submit(&Verb::Apply {
                specs: vec![Arc::new(spec)],
                options: ApplyOptions::default(),
            });
        }
        let mut placed = 0;
        loop {
            let next = self.head.unsettled().next();
            let Some(workload) = next else { break };
            match self.submit(&Verb::Settle { workload, limit }) {
                Reply::Touched { count: 0, .. } => break,
                Reply::Touched { count, .. } => placed += u32::try_from(count).unwrap(),
                _ => {}
            }
        }
        placed
    }

    fn report(&self, what: &str, placed: u32) {
        let per = |span: Duration| span.as_secs_f64() * 1e6 / f64::from(placed.max(1));
        let all = (self.deciding + self.applying).as_secs_f64();
        println!(
            "{what}: {placed} placed in {all:.2} s, {:.0}/s: decide {:.2} us, apply twice {:.2} us per copy",
            f64::from(placed) / all,
            per(self.deciding),
            per(self.applying),
        );
    }
}

fn hello(number: usize) -> NodeAnnouncement {
    let runtime = RuntimeFact {
        kind: Kind::Process,
        available: true,
        version: String::new(),
        note: String::new(),
    };
    NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: AliasKey {
            contract: Contract::Session,
            scope: "node".to_owned(),
            foreign: number.to_string(),
        },
        contract: Contract::Session,
        name: format!("node-{number}"),
        facts: NodeFacts {
            runtimes: vec![runtime],
            ..NodeFacts::default()
        },
        capacity: Resources {
            cpu: MilliCpu(8000),
            memory: Bytes(16 << 30),
            disk: Bytes(1 << 40),
        },
        labels: std::collections::BTreeMap::new(),
        instance: None,
    }
}

fn main() {
    let start = Instant::now();
    let nodes = Fleet::with_nodes(10_000);
    println!(
        "10000 nodes joined and resumed in {:.2} s",
        start.elapsed().as_secs_f64()
    );
    drop(nodes);
    for (name, strategy) in [("spread", Strategy::Spread), ("pack", Strategy::Pack)] {
        for limit in [100, 1000] {
            let mut fleet = Fleet::with_nodes(1000);
            let placed = fleet.place(1, 5000, strategy, limit);
            fleet.report(
                &format!("{name}, 1 x 5000 on 1000, chunks of {limit}"),
                placed,
            );
        }
        let mut fleet = Fleet::with_nodes(6100);
        let placed = fleet.place(10_000, 1, strategy, 1000);
        fleet.report(&format!("{name}, 10000 x 1 on 6100"), placed);
        if std::env::args().any(|word| word == "full") {
            let mut fleet = Fleet::with_nodes(6100);
            let placed = fleet.place(200, 10_000, strategy, 1000);
            fleet.report(
                &format!("{name}, 200 x 10000 on 6100, chunks of 1000"),
                placed,
            );
            let start = Instant::now();
            let copy = fleet.head.clone();
            println!(
                "a clone of it takes {:.2} s, {} copies",
                start.elapsed().as_secs_f64(),
                copy.assignments().len()
            );
        }
    }
}

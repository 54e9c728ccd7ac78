//! Placement quality: generated fleets, the nodes that packing uses on them, and what to compare that with.
//! Only for the tests and the benchmark, which share the generator: the same seed gives the same fleet.
//!
//! Nothing here is owned or can fail: a generated fleet has room for all its workloads.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_model::spec::{Kind, Strategy, WorkloadSpec};
use hostler_model::{
    Actor, AliasKey, Bytes, Contract, MilliCpu, NodeFacts, Resources, RuntimeFact, Timestamp,
};

use crate::{ApplyOptions, Moment, NodeAnnouncement, Reply, State, Verb, decide};

/// A fleet of 100 to 1,000 nodes of five shapes, and workloads that take six tenths of its cores: log-normal
/// cpu and memory, a tenth of them bound to a zone.
pub struct Generated {
    pub nodes: Vec<NodeAnnouncement>,
    pub workloads: Vec<WorkloadSpec>,
}

/// Nodes used, summed over fleets: by the product, by first-fit-decreasing in three orders, by the linear
/// bound.
#[derive(Debug, Default, Clone, Copy)]
pub struct Used {
    pub ours: usize,
    pub by_join_order: usize,
    pub largest_first: usize,
    pub by_larger_share: usize,
    pub bound: f64,
}

/// Splitmix64: the same fleet for the same seed, for ever.
struct Dice(u64);

/// Cores and GiB of the five shapes.
const SHAPES: [(u64, u64); 5] = [(4, 16), (8, 16), (8, 64), (16, 64), (32, 128)];
const ZONES: [&str; 3] = ["a", "b", "c"];

impl Used {
    /// Measures the fleets of these seeds.
    #[must_use]
    pub fn over(seeds: std::ops::RangeInclusive<u64>) -> Self {
        let mut total = Self::default();
        for seed in seeds {
            let fleet = generate(seed);
            total.ours += packed(&fleet);
            total.by_join_order += first_fit_decreasing(&fleet, |_| 0, size);
            total.largest_first += first_fit_decreasing(&fleet, largest_first, size);
            total.by_larger_share += first_fit_decreasing(&fleet, largest_first, larger_share);
            total.bound += linear_bound(&fleet);
        }
        total
    }

    /// The best that first-fit-decreasing does in any of the orders.
    #[must_use]
    pub fn first_fit_decreasing(&self) -> usize {
        self.by_join_order
            .min(self.largest_first)
            .min(self.by_larger_share)
    }
}

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// About normal with mean 0 and deviation 1: twelve uniform numbers summed.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a die needs no more than 53 bits"
    )]
    fn normal(&mut self) -> f64 {
        let uniform = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
        (0..12).map(|_| uniform(self.roll())).sum::<f64>() - 6.0
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range"
    )]
    fn log_normal(&mut self, median: f64, spread: f64, least: f64, most: f64) -> u64 {
        (median * (spread * self.normal()).exp()).clamp(least, most) as u64
    }
}

/// The fleet of a seed.
#[must_use]
pub fn generate(seed: u64) -> Generated {
    let mut dice = Dice(seed);
    let count = 100 + dice.below(901);
    let mut nodes = Vec::new();
    let mut room = 0;
    for number in 0..count {
        let (cores, gib) = SHAPES[usize::try_from(dice.below(5)).expect("five shapes")];
        let capacity = Resources {
            cpu: MilliCpu(cores * 1000),
            memory: Bytes(gib << 30),
            disk: Bytes(0),
        };
        let mut node = hello(&format!("n{number}"), capacity);
        let zone = ZONES[usize::try_from(dice.below(3)).expect("three zones")];
        node.labels.insert("zone".to_owned(), zone.to_owned());
        room += cores * 1000;
        nodes.push(node);
    }
    let mut workloads = Vec::new();
    let mut wanted = 0;
    while wanted < room * 6 / 10 {
        let mut spec =
            WorkloadSpec::of_process(&format!("w{}", workloads.len()), vec!["x".to_owned()]);
        spec.placement.strategy = Strategy::Pack;
        spec.count = 1 + u32::try_from(dice.below(8)).expect("small");
        let memory = dice.log_normal(2048.0, 0.8, 64.0, 15_000.0);
        spec.resources = Resources {
            cpu: MilliCpu(dice.log_normal(700.0, 0.8, 50.0, 3900.0)),
            memory: Bytes(memory << 20),
            disk: Bytes(0),
        };
        if dice.below(10) == 0 {
            let zone = ZONES[usize::try_from(dice.below(3)).expect("three zones")];
            spec.placement
                .constraints
                .push(format!("zone == {zone}").parse().expect("a constraint"));
        }
        wanted += spec.resources.cpu.0 * u64::from(spec.count);
        workloads.push(spec);
    }
    Generated { nodes, workloads }
}

/// Nodes that have copies once everything is placed by the rules of the product.
fn packed(fleet: &Generated) -> usize {
    let mut state = State::default();
    let mut ticks = 0;
    let mut must = |state: &mut State, verb: &Verb| {
        ticks += 1;
        let now = Timestamp::from_millis(1_700_000_000_000 + ticks);
        let moment = Moment {
            now,
            seed: u128::from(ticks) << 8,
        };
        let actor = Actor::Keeper("quality".to_owned());
        let decision = decide(state, &moment, &actor, verb).expect("a generated fleet fits");
        state.apply_all(&decision.changes);
        decision.reply
    };
    for node in &fleet.nodes {
        let hello = Verb::Announce(Box::new(node.clone()));
        if let Reply::Node { id, .. } = must(&mut state, &hello) {
            must(
                &mut state,
                &Verb::Resume {
                    node: id,
                    units: Vec::new(),
                },
            );
        }
    }
    for spec in &fleet.workloads {
        let (spec, options) = (Arc::new(spec.clone()), ApplyOptions::default());
        must(
            &mut state,
            &Verb::Apply {
                specs: vec![spec],
                options,
            },
        );
    }
    let order: Vec<_> = state.unsettled().collect();
    for workload in order {
        must(
            &mut state,
            &Verb::Settle {
                workload,
                limit: 1000,
            },
        );
    }
    assert_eq!(state.unsettled().count(), 0, "everything fits");
    state
        .nodes()
        .filter(|node| state.copies_on(node.id) > 0)
        .count()
}

fn hello(name: &str, capacity: Resources) -> NodeAnnouncement {
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
            foreign: format!("key of {name}"),
        },
        contract: Contract::Session,
        name: name.to_owned(),
        facts: NodeFacts {
            runtimes: vec![runtime],
            ..NodeFacts::default()
        },
        capacity,
        labels: BTreeMap::new(),
        instance: None,
    }
}

fn size(resources: &Resources) -> u64 {
    resources.cpu.0 * ((4 << 30) / 1000) + resources.memory.0
}

fn larger_share(resources: &Resources) -> u64 {
    (resources.cpu.0 * ((4 << 30) / 1000)).max(resources.memory.0)
}

fn largest_first(node: &NodeAnnouncement) -> u64 {
    u64::MAX - size(&node.capacity)
}

/// Copies from the largest to the smallest, each to the first node that holds it, in that order of nodes.
fn first_fit_decreasing(
    fleet: &Generated,
    order: impl Fn(&NodeAnnouncement) -> u64,
    size: impl Fn(&Resources) -> u64,
) -> usize {
    let mut nodes: Vec<_> = fleet.nodes.iter().collect();
    nodes.sort_by_key(|node| order(node));
    let mut free: Vec<_> = nodes.iter().map(|node| node.capacity).collect();
    let mut workloads: Vec<_> = fleet.workloads.iter().collect();
    workloads.sort_by_key(|spec| std::cmp::Reverse(size(&spec.resources)));
    for spec in workloads {
        for _ in 0..spec.count {
            let allowed = |node: &NodeAnnouncement| {
                let zone = node.labels.get("zone").map(String::as_str);
                spec.placement
                    .constraints
                    .iter()
                    .all(|constraint| constraint.holds(zone))
            };
            let place =
                (0..nodes.len()).find(|at| free[*at].holds(&spec.resources) && allowed(nodes[*at]));
            let place = place.expect("everything fits");
            free[place] = free[place].minus(&spec.resources);
        }
    }
    free.iter()
        .zip(&nodes)
        .filter(|(free, node)| **free != node.capacity)
        .count()
}

/// The linear relaxation: nodes may be used in part and copies divided. By duality, the most over weights of
/// the two dimensions of the fewest nodes that hold the weighted demand.
#[expect(
    clippy::cast_precision_loss,
    reason = "a bound needs no more than 53 bits"
)]
fn linear_bound(fleet: &Generated) -> f64 {
    let pair = |of: &Resources| {
        (
            of.cpu.0 as f64 / 1000.0,
            of.memory.0 as f64 / (4_u64 << 30) as f64,
        )
    };
    let demand = fleet.workloads.iter().fold((0.0, 0.0), |sum, spec| {
        let (cpu, memory) = pair(&spec.resources);
        (
            sum.0 + cpu * f64::from(spec.count),
            sum.1 + memory * f64::from(spec.count),
        )
    });
    let weighted = |weight: f64| {
        let value = |(cpu, memory): (f64, f64)| weight * cpu + (1.0 - weight) * memory;
        let mut left = value(demand);
        let mut values: Vec<f64> = fleet
            .nodes
            .iter()
            .map(|node| value(pair(&node.capacity)))
            .collect();
        values.sort_by(|one, other| other.total_cmp(one));
        let mut used = 0.0;
        for value in values {
            if left <= value {
                return used + left / value.max(f64::MIN_POSITIVE);
            }
            left -= value;
            used += 1.0;
        }
        used
    };
    (0..=100)
        .map(|step| weighted(f64::from(step) / 100.0))
        .fold(0.0, f64::max)
}

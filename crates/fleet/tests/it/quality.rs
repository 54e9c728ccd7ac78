//! Placement quality: nodes used by `pack` over generated fleets, against offline first-fit-decreasing and
//! the bound of the linear relaxation.

use std::sync::Arc;

use hostler_fleet::{ApplyOptions, NodeAnnouncement, Verb};
use hostler_model::spec::{Strategy, WorkloadSpec};
use hostler_model::{Bytes, MilliCpu, Resources};

use crate::world::{World, hello};

/// Splitmix64: the same fleet for the same seed, for ever.
struct Dice(u64);

/// A fleet and what is to run on it.
struct Generated {
    nodes: Vec<NodeAnnouncement>,
    workloads: Vec<WorkloadSpec>,
}

/// Nodes used: by the product, by the best first-fit-decreasing, by the linear bound.
#[derive(Debug, Default, Clone, Copy)]
struct Used {
    ours: usize,
    by_join_order: usize,
    largest_first: usize,
    by_larger_share: usize,
    bound: f64,
}

/// Cores and GiB of the five shapes.
const SHAPES: [(u64, u64); 5] = [(4, 16), (8, 16), (8, 64), (16, 64), (32, 128)];
const ZONES: [&str; 3] = ["a", "b", "c"];

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

fn generate(seed: u64) -> Generated {
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

fn ours(fleet: &Generated) -> usize {
    let mut world = World::default();
    for node in &fleet.nodes {
        world.join_as(node.clone());
    }
    for spec in &fleet.workloads {
        world.must(&Verb::Apply {
            spec: Arc::new(spec.clone()),
            options: ApplyOptions::default(),
        });
    }
    let order: Vec<_> = world.state.unsettled().collect();
    for workload in order {
        world.must(&Verb::Settle {
            workload,
            limit: 1000,
        });
    }
    assert_eq!(world.state.unsettled().count(), 0, "everything fits");
    world
        .state
        .nodes()
        .filter(|node| world.state.copies_on(node.id) > 0)
        .count()
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

fn measure(seeds: std::ops::RangeInclusive<u64>) -> Used {
    let mut total = Used::default();
    for seed in seeds {
        let fleet = generate(seed);
        total.ours += ours(&fleet);
        total.by_join_order += first_fit_decreasing(&fleet, |_| 0, size);
        total.largest_first += first_fit_decreasing(&fleet, largest_first, size);
        total.by_larger_share += first_fit_decreasing(&fleet, largest_first, larger_share);
        total.bound += linear_bound(&fleet);
    }
    total
}

#[test]
fn packing_uses_no_more_nodes_than_first_fit_decreasing() {
    let total = measure(1..=50);
    let best = total
        .by_join_order
        .min(total.largest_first)
        .min(total.by_larger_share);
    assert!(total.ours <= best, "{total:?}");
    // The gap to the bound is 3.5 % of the nodes; a change of the rules that costs nodes is seen here.
    let gap = f64::from(u32::try_from(total.ours).expect("thousands")) / total.bound;
    assert!(gap < 1.045, "{gap}: {total:?}");
}

//! Placement: which node takes a copy.
//!
//! One decision places copies of one workload, all alike, so the search never goes back: [`Places`] hands
//! out one node after the other, and a node that did not fit once is never looked at again.
//!
//! - `pack` fills nodes in use first, then the largest unused one: as few nodes as possible.
//! - `spread` takes nodes without a copy of the workload first, the least loaded before the others, then
//!   those with the fewest copies of it.
//!
//! Both read an index; nodes are looked at one by one only among those that a constraint leaves over.

mod blocks;
mod places;
mod yard;

use hostler_model::spec::Constraint;
use hostler_model::{Node, Resources};

pub(crate) use places::{Places, Takings};
pub(crate) use yard::Yard;

/// The most copies on one node, whatever they claim: a count too large by mistake must not drown an agent.
pub(crate) const MOST_COPIES_PER_NODE: usize = 1000;

/// Cpu and memory as one number, a core weighing as much as 4 GiB (the common shape of machines for rent).
pub(crate) const fn weight(resources: &Resources) -> u64 {
    const BYTES_PER_MILLICPU: u64 = (4 << 30) / 1000;
    let cpu = resources.cpu.0.saturating_mul(BYTES_PER_MILLICPU);
    cpu.saturating_add(resources.memory.0)
}

/// The larger share of cpu and memory that is taken, in millionths, and a little for every copy, so that
/// copies that claim nothing spread as well.
pub(crate) fn load(capacity: &Resources, used: &Resources, copies: u32) -> u64 {
    const PER_COPY: u64 = 500;
    let share = |used: u64, of: u64| match of {
        0 => 0,
        of => u128::from(used) * 1_000_000 / u128::from(of),
    };
    let share = share(used.cpu.0, capacity.cpu.0).max(share(used.memory.0, capacity.memory.0));
    let share = u64::try_from(share).unwrap_or(u64::MAX);
    share.saturating_add(u64::from(copies) * PER_COPY)
}

/// The node's value of a constraint's key: a label, or a fact of the node.
pub(crate) fn value_of<'a>(node: &'a Node, key: &str, id: &'a str) -> Option<&'a str> {
    match key {
        "node.name" => Some(&node.name),
        "node.id" => Some(id),
        "node.os" => Some(&node.facts.os),
        "node.arch" => Some(&node.facts.arch),
        label => node.labels.get(label).map(String::as_str),
    }
}

/// Whether all constraints hold for the node.
pub(crate) fn satisfies(node: &Node, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|constraint| {
        if constraint.key == "node.id" {
            return constraint.holds(Some(&node.id.to_string()));
        }
        constraint.holds(value_of(node, &constraint.key, ""))
    })
}

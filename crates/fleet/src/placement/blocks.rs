//! Nodes in a fixed order with what each has free, in blocks that know the most that any of theirs has free,
//! so that a search for the first node that fits skips whole blocks.
//!
//! Where a block begins follows from the keys in it alone (some keys are borders by their own bits), never
//! from the order in which they came: equal contents are equal values.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hostler_model::{NodeId, Resources};

/// Nodes in use first, then the largest, then the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) unused: bool,
    pub(crate) size: Reverse<u64>,
    pub(crate) node: NodeId,
}

/// One key in so many begins a block.
const BLOCK: u8 = 32;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Block {
    entries: Vec<(Rank, Resources)>,
    /// The most free in each dimension, perhaps of different nodes.
    most: Resources,
}

/// Nodes in order, with what each has free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// By the border that begins the block; the first block may have none.
    blocks: BTreeMap<Option<Rank>, Block>,
}

impl Blocks {
    /// The nodes that have `need` free, in order.
    pub(crate) fn holding(&self, need: Resources) -> impl Iterator<Item = NodeId> + '_ {
        let blocks = self.blocks.values();
        blocks
            .filter(move |block| block.most.holds(&need))
            .flat_map(|block| &block.entries)
            .filter(move |(_, free)| free.holds(&need))
            .map(|(rank, _)| rank.node)
    }

    pub(crate) fn insert(&mut self, rank: Rank, free: Resources) {
        if is_border(&rank) {
            self.split(rank);
        }
        let border = self.border_before(&rank);
        let block = self.blocks.entry(border).or_default();
        match block.entries.binary_search_by_key(&rank, |(rank, _)| *rank) {
            Ok(at) => {
                block.entries[at].1 = free;
                block.measure();
            }
            Err(at) => {
                block.entries.insert(at, (rank, free));
                block.most = most_of(&block.most, &free);
            }
        }
    }

    pub(crate) fn remove(&mut self, rank: &Rank) {
        let border = self.border_before(rank);
        let Some(block) = self.blocks.get_mut(&border) else {
            return;
        };
        let Some(at) = block.position(rank) else {
            return;
        };
        block.entries.remove(at);
        block.measure();
        if is_border(rank) {
            self.merge(*rank);
        } else if block.entries.is_empty() {
            self.blocks.remove(&border);
        }
    }

    /// What a node that is there has free now.
    pub(crate) fn set(&mut self, rank: &Rank, free: Resources) {
        let border = self.border_before(rank);
        let Some(block) = self.blocks.get_mut(&border) else {
            return;
        };
        let Some(at) = block.position(rank) else {
            return;
        };
        let old = std::mem::replace(&mut block.entries[at].1, free);
        let most = &block.most;
        // Only if the node may have been the one with the most can the most go down.
        if old.cpu == most.cpu || old.memory == most.memory || old.disk == most.disk {
            block.measure();
        } else {
            block.most = most_of(most, &free);
        }
    }

    /// The border that begins the block to which the rank belongs.
    fn border_before(&self, rank: &Rank) -> Option<Rank> {
        let before = self.blocks.range(..=Some(*rank)).next_back();
        before.and_then(|(border, _)| *border)
    }

    /// Begins a block at a border that comes in.
    fn split(&mut self, border: Rank) {
        if self.blocks.contains_key(&Some(border)) {
            return;
        }
        let mut fresh = Block::default();
        let before = self.border_before(&border);
        if let Some(block) = self.blocks.get_mut(&before) {
            let at = block.entries.partition_point(|(rank, _)| *rank < border);
            fresh.entries = block.entries.split_off(at);
            fresh.measure();
            block.measure();
            if block.entries.is_empty() {
                self.blocks.remove(&before);
            }
        }
        self.blocks.insert(Some(border), fresh);
    }

    /// Joins the block of a border that went to the one before it.
    fn merge(&mut self, border: Rank) {
        let Some(block) = self.blocks.remove(&Some(border)) else {
            return;
        };
        if block.entries.is_empty() {
            return;
        }
        let before = self.border_before(&border);
        let before = self.blocks.entry(before).or_default();
        before.entries.extend(block.entries);
        before.most = most_of(&before.most, &block.most);
    }
}

impl Block {
    fn position(&self, rank: &Rank) -> Option<usize> {
        let found = self.entries.binary_search_by_key(rank, |(rank, _)| *rank);
        found.ok()
    }

    fn measure(&mut self) {
        let frees = self.entries.iter().map(|(_, free)| free);
        self.most = frees.fold(Resources::ZERO, |most, free| most_of(&most, free));
    }
}

fn most_of(one: &Resources, other: &Resources) -> Resources {
    Resources {
        cpu: one.cpu.max(other.cpu),
        memory: one.memory.max(other.memory),
        disk: one.disk.max(other.disk),
    }
}

/// The low bits of an id are random.
fn is_border(rank: &Rank) -> bool {
    rank.node.as_bytes()[15].is_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use hostler_model::{Bytes, MilliCpu, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn rank(number: u8) -> Rank {
        let node = NodeId::mint(Timestamp::from_millis(1), u128::from(number) * 8);
        Rank {
            unused: number.is_multiple_of(3),
            size: Reverse(u64::from(number % 5)),
            node,
        }
    }

    fn free(amount: u64) -> Resources {
        Resources {
            cpu: MilliCpu(amount),
            memory: Bytes(10 - amount),
            disk: Bytes(1),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn blocks_agree_with_a_plain_map(steps in prop::collection::vec((0..3_u8, 0..40_u8, 0..10_u64), 0..120)) {
            let mut blocks = Blocks::default();
            let mut plain = BTreeMap::new();
            for (step, number, amount) in steps {
                let rank = rank(number);
                match step {
                    0 => {
                        blocks.insert(rank, free(amount));
                        plain.insert(rank, free(amount));
                    }
                    1 => {
                        blocks.remove(&rank);
                        plain.remove(&rank);
                    }
                    _ => {
                        blocks.set(&rank, free(amount));
                        plain.entry(rank).and_modify(|was| *was = free(amount));
                    }
                }
            }
            for need in 0..10 {
                let fits = plain.iter().filter(|(_, has)| has.holds(&free(need)));
                let fits: Vec<NodeId> = fits.map(|(rank, _)| rank.node).collect();
                prop_assert_eq!(blocks.holding(free(need)).collect::<Vec<_>>(), fits);
            }
            let mut again = Blocks::default();
            for (rank, has) in plain.iter().rev() {
                again.insert(*rank, *has);
            }
            prop_assert_eq!(blocks, again);
        }
    }
}

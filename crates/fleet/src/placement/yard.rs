//! The yard: every node that takes new copies, indexed for placement. Rebuilt from the records; owned by
//! the state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_model::spec::{Constraint, Kind, Operator};
use hostler_model::{Node, NodeId, Resources};

use super::blocks::{Blocks, Rank};
use super::{load, weight};
use crate::state::Room;

/// What the yard knows of one node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spot {
    pub(crate) node: Arc<Node>,
    pub(crate) free: Resources,
    pub(crate) used: Resources,
    pub(crate) holding: u32,
    rank: Rank,
    load: u64,
}

/// Every node that takes new copies.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Yard {
    spots: BTreeMap<NodeId, Spot>,
    by_rank: Blocks,
    by_load: BTreeSet<(u64, NodeId)>,
    /// Label, value, nodes.
    labels: BTreeMap<String, BTreeMap<String, BTreeSet<NodeId>>>,
    drivers: BTreeMap<Kind, BTreeSet<NodeId>>,
}

impl Yard {
    pub(crate) fn len(&self) -> usize {
        self.spots.len()
    }

    pub(crate) fn spot(&self, node: NodeId) -> Option<&Spot> {
        self.spots.get(&node)
    }

    /// Nodes with that much free: those in use first, then the largest.
    pub(crate) fn packed(&self, need: Resources) -> impl Iterator<Item = NodeId> + '_ {
        self.by_rank.holding(need)
    }

    /// Nodes, the least loaded first.
    pub(crate) fn spread(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.by_load.iter().map(|(_, node)| *node)
    }

    /// A set that holds every node that the driver and the constraints allow, if there is a small one.
    pub(crate) fn narrowed(&self, kind: Kind, constraints: &[Constraint]) -> Option<Vec<NodeId>> {
        /// A stream over all nodes that filters is as good if it hits this often.
        const STREAM_HIT: usize = 16;
        let few = self.len() / STREAM_HIT;
        let with_driver = self.drivers.get(&kind).map_or(0, BTreeSet::len);
        let mut narrowest = (with_driver, None);
        for constraint in constraints {
            if let Some(size) = self.matching(constraint)
                && size < narrowest.0
            {
                narrowest = (size, Some(constraint));
            }
        }
        if narrowest.0 > few {
            return None;
        }
        Some(match narrowest.1 {
            Some(constraint) => self.members(constraint),
            None => self
                .drivers
                .get(&kind)
                .into_iter()
                .flatten()
                .copied()
                .collect(),
        })
    }

    /// Takes the node in, out, or notes what changed.
    pub(crate) fn set(&mut self, id: NodeId, node: Option<&Arc<Node>>, room: &Room) {
        let Some(node) = node else {
            self.take_out(id);
            return;
        };
        match self.spots.get_mut(&id) {
            Some(spot) if Arc::ptr_eq(&spot.node, node) || spot.node == *node => {
                let fresh = Spot::of(Arc::clone(&spot.node), room);
                if fresh.rank == spot.rank {
                    if fresh.free != spot.free {
                        self.by_rank.set(&fresh.rank, fresh.free);
                    }
                } else {
                    self.by_rank.remove(&spot.rank);
                    self.by_rank.insert(fresh.rank, fresh.free);
                }
                if fresh.load != spot.load {
                    self.by_load.remove(&(spot.load, id));
                    self.by_load.insert((fresh.load, id));
                }
                *spot = fresh;
            }
            _ => {
                self.take_out(id);
                self.take_in(Spot::of(Arc::clone(node), room));
            }
        }
    }

    fn take_in(&mut self, spot: Spot) {
        let id = spot.node.id;
        self.by_rank.insert(spot.rank, spot.free);
        self.by_load.insert((spot.load, id));
        for (label, value) in &spot.node.labels {
            let values = self.labels.entry(label.clone()).or_default();
            values.entry(value.clone()).or_default().insert(id);
        }
        for kind in Kind::ALL {
            if spot.node.can_run(kind) {
                self.drivers.entry(kind).or_default().insert(id);
            }
        }
        self.spots.insert(id, spot);
    }

    fn take_out(&mut self, id: NodeId) {
        let Some(spot) = self.spots.remove(&id) else {
            return;
        };
        self.by_rank.remove(&spot.rank);
        self.by_load.remove(&(spot.load, id));
        for (label, value) in &spot.node.labels {
            let Some(values) = self.labels.get_mut(label) else {
                continue;
            };
            drop_member(values, value, id);
            if values.is_empty() {
                self.labels.remove(label);
            }
        }
        for kind in Kind::ALL {
            drop_member(&mut self.drivers, &kind, id);
        }
    }

    /// How many nodes may satisfy the constraint, where the index can tell.
    fn matching(&self, constraint: &Constraint) -> Option<usize> {
        if constraint.key.starts_with("node.") {
            return None;
        }
        let values = self.labels.get(&constraint.key);
        match constraint.operator {
            Operator::In => Some(values.map_or(0, |values| {
                let sets = constraint
                    .values
                    .iter()
                    .filter_map(|value| values.get(value));
                sets.map(BTreeSet::len).sum()
            })),
            Operator::Exists => {
                Some(values.map_or(0, |values| values.values().map(BTreeSet::len).sum()))
            }
            Operator::NotIn | Operator::Absent => None,
        }
    }

    fn members(&self, constraint: &Constraint) -> Vec<NodeId> {
        let Some(values) = self.labels.get(&constraint.key) else {
            return Vec::new();
        };
        let is_named = |value: &str| constraint.values.iter().any(|named| named == value);
        let sets = values
            .iter()
            .filter(|(value, _)| match constraint.operator {
                Operator::In => is_named(value),
                Operator::Exists | Operator::NotIn | Operator::Absent => true,
            });
        sets.flat_map(|(_, nodes)| nodes.iter().copied()).collect()
    }
}

impl Spot {
    fn of(node: Arc<Node>, room: &Room) -> Self {
        let rank = Rank {
            unused: room.holding == 0,
            size: Reverse(weight(&node.capacity)),
            node: node.id,
        };
        Self {
            free: node.capacity.minus(&room.used),
            used: room.used,
            holding: room.holding,
            load: load(&node.capacity, &room.used, room.holding),
            rank,
            node,
        }
    }

    pub(crate) const fn rank(&self) -> Rank {
        self.rank
    }

    pub(crate) const fn load(&self) -> u64 {
        self.load
    }
}

fn drop_member<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<NodeId>>, key: &K, member: NodeId) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(&member);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

//! Places for the copies of one workload, within one decision.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use hostler_model::spec::{Port, Strategy};
use hostler_model::{Claims, NodeId, Resources, Workload};

use super::{MOST_COPIES_PER_NODE, load, satisfies};
use crate::State;
use crate::placement::yard::Spot;

type Nodes<'a> = Box<dyn Iterator<Item = NodeId> + 'a>;

/// Hands out places for copies of one workload. What it has handed out counts as taken.
pub(crate) struct Places<'a> {
    state: &'a State,
    workload: &'a Workload,
    need: Claims,
    taken: Takings,
    queue: Queue<'a>,
}

/// What one decision takes from nodes beyond what the state says.
#[derive(Debug, Default)]
pub(crate) struct Takings(BTreeMap<NodeId, Taken>);

#[derive(Debug, Default)]
struct Taken {
    resources: Resources,
    copies: u32,
    /// Those of them that are of the workload that is being placed.
    own_copies: u32,
    ports: BTreeSet<Port>,
}

enum Queue<'a> {
    /// The first node is filled before the next is looked at.
    Pack(Peekable<Nodes<'a>>),
    Spread {
        /// Nodes without a copy of the workload, the least loaded first; others are passed over.
        fresh: Nodes<'a>,
        /// Nodes with copies: how many, how loaded, which.
        hosts: BTreeSet<(u32, u64, NodeId)>,
        /// Whether the nodes that had copies before this decision are among the hosts yet.
        is_seeded: bool,
    },
}

impl Takings {
    pub(crate) fn resources(&self, node: NodeId) -> Resources {
        let taken = self.0.get(&node);
        taken.map_or(Resources::ZERO, |taken| taken.resources)
    }

    pub(crate) fn copies(&self, node: NodeId) -> usize {
        self.0.get(&node).map_or(0, |taken| taken.copies as usize)
    }

    pub(crate) fn has_port(&self, node: NodeId, port: Port) -> bool {
        let taken = self.0.get(&node);
        taken.is_some_and(|taken| taken.ports.contains(&port))
    }
}

impl<'a> Places<'a> {
    /// `taken` is what the decision has taken for other workloads.
    pub(crate) fn new(state: &'a State, workload: &'a Workload, taken: Takings) -> Self {
        let spec = &workload.spec;
        let yard = state.yard();
        let few = yard.narrowed(spec.runs_on(), &spec.placement.constraints);
        let queue = match spec.placement.strategy {
            Strategy::Pack => {
                let nodes: Nodes<'a> = match few {
                    Some(few) => sorted(few, |node| yard.spot(node).map(Spot::rank)),
                    None => Box::new(yard.packed(spec.resources)),
                };
                Queue::Pack(nodes.peekable())
            }
            Strategy::Spread => Queue::Spread {
                fresh: match few {
                    Some(few) => sorted(few, |node| yard.spot(node).map(Spot::load)),
                    // Where no node has the room, that is known at once.
                    None if yard.packed(spec.resources).next().is_none() => {
                        Box::new(std::iter::empty())
                    }
                    None => Box::new(yard.spread()),
                },
                hosts: BTreeSet::new(),
                is_seeded: false,
            },
        };
        Self {
            state,
            workload,
            need: spec.claims(),
            taken,
            queue,
        }
    }

    /// What the decision has taken in all, for the workload that is placed next.
    pub(crate) fn into_takings(mut self) -> Takings {
        for taken in self.taken.0.values_mut() {
            taken.own_copies = 0;
        }
        self.taken
    }

    /// Takes the next place; `None` once nothing fits any more.
    pub(crate) fn take(&mut self) -> Option<NodeId> {
        let node = self.next_fit()?;
        self.occupy(node);
        Some(node)
    }

    /// Takes a place on this node, if there is one.
    pub(crate) fn take_at(&mut self, node: NodeId) -> Option<NodeId> {
        if !self.fits(node) {
            return None;
        }
        let key = self.host_key(node);
        if let (Queue::Spread { hosts, .. }, Some(key)) = (&mut self.queue, key) {
            hosts.remove(&key);
        }
        self.occupy(node);
        Some(node)
    }

    fn occupy(&mut self, node: NodeId) {
        let need = self.need.resources;
        self.reserve(node, &need);
        let taken = self.taken.0.entry(node).or_default();
        taken.copies += 1;
        taken.own_copies += 1;
        if let Queue::Spread { .. } = self.queue {
            let key = self.host_key(node);
            if let (Queue::Spread { hosts, .. }, Some(key)) = (&mut self.queue, key) {
                hosts.insert(key);
            }
        }
    }

    /// Another rule of this decision takes this much more of the node.
    pub(crate) fn reserve(&mut self, node: NodeId, claims: &Resources) {
        let taken = self.taken.0.entry(node).or_default();
        taken.resources = taken.resources.plus(claims);
        // An update in place may bring new ports with it.
        taken.ports.extend(&self.need.ports);
    }

    /// What this decision has taken of the node already.
    pub(crate) fn reserved(&self, node: NodeId) -> Resources {
        self.taken.resources(node)
    }

    /// Whether this decision has taken none of the workload's ports there.
    pub(crate) fn leaves_ports(&self, node: NodeId) -> bool {
        let taken = self.taken.0.get(&node);
        taken.is_none_or(|taken| taken.ports.is_disjoint(&self.need.ports))
    }

    fn next_fit(&mut self) -> Option<NodeId> {
        loop {
            let node = match &mut self.queue {
                Queue::Pack(nodes) => *nodes.peek()?,
                Queue::Spread {
                    fresh,
                    hosts,
                    is_seeded,
                } => {
                    let hosting = self.state.copies(self.workload.id);
                    let taken = &self.taken.0;
                    let is_host = |node: &NodeId| {
                        taken.get(node).is_some_and(|taken| taken.own_copies > 0)
                            || hosting.is_some_and(|copies| copies.per_node.contains_key(node))
                    };
                    match fresh.find(|node| !is_host(node)) {
                        Some(node) => node,
                        None if !*is_seeded => {
                            *is_seeded = true;
                            self.seed_hosts();
                            continue;
                        }
                        None => hosts.pop_first()?.2,
                    }
                }
            };
            if self.fits(node) {
                return Some(node);
            }
            if let Queue::Pack(nodes) = &mut self.queue {
                nodes.next();
            }
        }
    }

    fn fits(&self, node: NodeId) -> bool {
        let Some(spot) = self.state.yard().spot(node) else {
            return false;
        };
        let spec = &self.workload.spec;
        let taken = self.taken.0.get(&node);
        let free = match taken {
            Some(taken) => spot.free.minus(&taken.resources),
            None => spot.free,
        };
        let has_ports = self.need.ports.is_empty()
            || (self.leaves_ports(node) && self.state.room(node).has_ports(&self.need.ports, None));
        let copies = self.state.room(node).copies.len();
        let copies = copies + taken.map_or(0, |taken| taken.copies as usize);
        copies < MOST_COPIES_PER_NODE
            && free.holds(&self.need.resources)
            && has_ports
            && spot.node.can_run_copy(spec)
            && satisfies(&spot.node, &spec.placement.constraints)
    }

    fn seed_hosts(&mut self) {
        let Some(copies) = self.state.copies(self.workload.id) else {
            return;
        };
        let keys: Vec<_> = copies
            .per_node
            .keys()
            .filter_map(|node| self.host_key(*node))
            .collect();
        if let Queue::Spread { hosts, .. } = &mut self.queue {
            hosts.extend(keys);
        }
    }

    /// How many copies of the workload a node has and how loaded it is, with what was taken.
    fn host_key(&self, node: NodeId) -> Option<(u32, u64, NodeId)> {
        let spot = self.state.yard().spot(node)?;
        let copies = self.state.copies(self.workload.id);
        let copies = copies.and_then(|copies| copies.per_node.get(&node));
        let copies = copies.copied().unwrap_or(0);
        Some(match self.taken.0.get(&node) {
            Some(taken) => {
                let used = spot.used.plus(&taken.resources);
                let load = load(&spot.node.capacity, &used, spot.holding + taken.copies);
                (copies + taken.own_copies, load, node)
            }
            None => (copies, spot.load(), node),
        })
    }
}

fn sorted<'a, K: Ord>(mut nodes: Vec<NodeId>, key: impl Fn(NodeId) -> K) -> Nodes<'a> {
    nodes.sort_by_cached_key(|node| (key(*node), *node));
    nodes.dedup();
    Box::new(nodes.into_iter())
}

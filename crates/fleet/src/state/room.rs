//! What the copies on one node take from it. Rebuilt from the records; owned by the state.

use std::collections::BTreeSet;

use hostler_model::spec::Port;
use hostler_model::{Assignment, AssignmentId, Resources};

/// The copies on one node and what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Every copy with a record, whatever its intent.
    pub(crate) copies: BTreeSet<AssignmentId>,
    /// What the copies that hold claims take together.
    pub(crate) used: Resources,
    /// How many copies hold claims.
    pub(crate) holding: u32,
    /// Host ports and who holds them.
    ports: BTreeSet<(Port, AssignmentId)>,
}

/// The room of a node without copies.
pub(crate) static EMPTY_ROOM: Room = Room {
    copies: BTreeSet::new(),
    used: Resources::ZERO,
    holding: 0,
    ports: BTreeSet::new(),
};

impl Room {
    /// Who holds the port.
    pub(crate) fn holder(&self, port: Port) -> Option<AssignmentId> {
        let holders = (port, AssignmentId::LEAST)..=(port, AssignmentId::MOST);
        self.ports.range(holders).next().map(|(_, holder)| *holder)
    }

    /// Whether none of the ports is held, but for what `besides` holds.
    pub(crate) fn has_ports(&self, ports: &BTreeSet<Port>, besides: Option<AssignmentId>) -> bool {
        let free = |port: &Port| {
            let holder = self.holder(*port);
            holder.is_none() || holder == besides
        };
        ports.iter().all(free)
    }

    pub(crate) fn insert(&mut self, copy: &Assignment) {
        self.copies.insert(copy.id);
        if copy.holds_claims() {
            self.used = self.used.plus(&copy.claims.resources);
            self.holding += 1;
            self.ports
                .extend(copy.claims.ports.iter().map(|port| (*port, copy.id)));
        }
    }

    pub(crate) fn remove(&mut self, copy: &Assignment) {
        self.copies.remove(&copy.id);
        if copy.holds_claims() {
            self.used = self.used.minus(&copy.claims.resources);
            self.holding -= 1;
            for port in &copy.claims.ports {
                self.ports.remove(&(*port, copy.id));
            }
        }
    }
}

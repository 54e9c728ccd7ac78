//! The invariants, looked at after every tick:
//!
//! 1. Nothing acknowledged is lost (in `client`, which knows what was acknowledged).
//! 2. At most one unit of a slot runs beyond its disconnect rule: of a `singleton` never two; of a `keep`
//!    two only while a node or the server is in trouble, and for a bounded time after that.
//! 3. Once everything is healed, exactly what is wanted runs and nothing else is left anywhere; and no node
//!    is judged lost that was never away, however the clocks jump.
//!
//! Owns what it remembers of slots and troubles. A broken invariant is a [`Violation`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hostler_control::Control;
use hostler_control::fleet::State;
use hostler_model::spec::DisconnectPolicy;
use hostler_model::{
    Admission, AssignmentId, Desired, Event, EventKind, Liveness, UnitId, UnitState,
};
use hostler_runtime::FoundState;

use crate::client::Client;
use crate::node::Node;
use crate::report::Violation;

/// How long two units of a `keep` slot may run once all troubles are over: noticing a dead connection,
/// reconnecting after the longest backoff, the grace of the unit, and some more.
const DOUBLE_AT_MOST: Duration = Duration::from_secs(15);
/// How long after it was away a node may be judged lost: until the dead connection is noticed and another
/// one stands.
const AWAY_COUNTS_FOR: Duration = Duration::from_secs(15);

/// What the checks remember.
#[derive(Default)]
pub(crate) struct Checks {
    slots: BTreeMap<AssignmentId, Slot>,
    /// Since when two run although nothing is in trouble.
    doubles: BTreeMap<(String, u32), Duration>,
    last_away: BTreeMap<&'static str, Duration>,
}

/// Which copy an assignment is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    workload: String,
    number: u32,
    policy: DisconnectPolicy,
}

/// How a node stands at this tick.
pub(crate) struct Standing {
    pub(crate) name: &'static str,
    pub(crate) running: Vec<UnitId>,
    /// Its agent is down, or its link drops what is sent.
    pub(crate) is_away: bool,
    /// Away, or its link is held or the server is down.
    pub(crate) is_troubled: bool,
}

impl Checks {
    /// Learns which copies there are.
    pub(crate) fn learn(&mut self, view: &State) {
        for copy in view.assignments() {
            if self.slots.contains_key(&copy.id) {
                continue;
            }
            let Some(item) = view.intent_item(copy) else {
                continue;
            };
            let slot = Slot {
                workload: item.workload_name,
                number: copy.slot,
                policy: item.spec.disconnect.policy,
            };
            self.slots.insert(copy.id, slot);
        }
    }

    /// The second invariant.
    pub(crate) fn doubles(&mut self, now: Duration, nodes: &[Standing]) -> Result<(), Violation> {
        let mut slots: BTreeMap<(String, u32), Vec<(usize, UnitId)>> = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate() {
            if node.is_away {
                self.last_away.insert(node.name, now);
            }
            for unit in &node.running {
                if let Some(slot) = self.slots.get(&unit.assignment) {
                    let key = (slot.workload.clone(), slot.number);
                    slots.entry(key).or_default().push((index, *unit));
                }
            }
        }
        self.doubles
            .retain(|key, _| slots.get(key).is_some_and(|units| units.len() > 1));
        for (key, units) in slots.into_iter().filter(|(_, units)| units.len() > 1) {
            self.double(now, nodes, key, &units)?;
        }
        Ok(())
    }

    fn double(
        &mut self,
        now: Duration,
        nodes: &[Standing],
        key: (String, u32),
        units: &[(usize, UnitId)],
    ) -> Result<(), Violation> {
        let found = || {
            let places = units
                .iter()
                .map(|(node, unit)| format!("{unit} on {}", nodes[*node].name));
            let places: Vec<String> = places.collect();
            Violation::Doubled(format!("{}/{}: {}", key.0, key.1, places.join(", ")))
        };
        let of_singleton = |unit: &UnitId| {
            let slot = self.slots.get(&unit.assignment);
            slot.is_some_and(|slot| slot.policy == DisconnectPolicy::Singleton)
        };
        let assignments: BTreeSet<_> = units.iter().map(|(_, unit)| unit.assignment).collect();
        if units.iter().any(|(_, unit)| of_singleton(unit)) || assignments.len() < units.len() {
            return Err(found());
        }
        let is_troubled = units.iter().any(|(node, _)| nodes[*node].is_troubled);
        let since = *self
            .doubles
            .entry(key.clone())
            .and_modify(|since| {
                if is_troubled {
                    *since = now;
                }
            })
            .or_insert(now);
        if now.saturating_sub(since) > DOUBLE_AT_MOST {
            return Err(found());
        }
        Ok(())
    }

    /// The third invariant's second half.
    pub(crate) fn event(
        &self,
        now: Duration,
        view: &State,
        event: &Event,
    ) -> Result<(), Violation> {
        if event.kind != EventKind::NodeLost {
            return Ok(());
        }
        let node = event.subject.node.and_then(|id| view.node(id));
        let name = node.map_or("", |node| node.name.as_str());
        let was_away = self
            .last_away
            .get(name)
            .is_some_and(|away| now.saturating_sub(*away) <= AWAY_COUNTS_FOR);
        if was_away {
            return Ok(());
        }
        Err(Violation::Misjudged(event.message.clone()))
    }
}

/// What is still missing until the fleet is at rest with exactly what is wanted; none if nothing is.
pub(crate) fn unsettled(control: &Control, client: &Client, nodes: &[Arc<Node>]) -> Option<String> {
    if !client.is_done() {
        return Some("the operator waits for an answer".to_owned());
    }
    let view = control.view();
    let not_alive = |name: &&str| {
        let node = view.node_by_name(name);
        node.is_none_or(|node| {
            let is_open = node.admission == Admission::Open;
            node.liveness != Liveness::Alive || node.held_back.is_some() || !is_open
        })
    };
    if let Some(name) = nodes.iter().map(|node| node.name).find(not_alive) {
        let held = view
            .node_by_name(name)
            .and_then(|node| node.held_back.clone());
        return Some(format!(
            "node {name} is not alive, open and in step: {held:?}"
        ));
    }
    records(&view, client).or_else(|| units(control, &view, nodes))
}

/// What the records lack.
fn records(view: &State, client: &Client) -> Option<String> {
    for (name, wanted) in client.wanted() {
        let count = match wanted {
            Some(wanted) if wanted.desired == Desired::Running => wanted.count,
            _ => 0,
        };
        let Some(workload) = view.workload_by_name(name) else {
            if wanted.is_some() {
                return Some(format!("{name} is not there"));
            }
            continue;
        };
        let copies = view.assignments_of(workload.id);
        let present = copies.filter(|copy| copy.is_wanted() && copy.template == workload.template);
        let slots: BTreeSet<u32> = present.map(|copy| copy.slot).collect();
        if !slots.iter().copied().eq(0..count) {
            return Some(format!("{name} has the copies {slots:?} of {count}"));
        }
    }
    let leftover = view.assignments().find(|copy| !copy.is_wanted())?;
    Some(format!(
        "the record of {} is left: {:?}",
        leftover.unit(),
        leftover.intent
    ))
}

/// What the machines lack or hold too much, and what the server knows wrong of them.
fn units(control: &Control, view: &State, nodes: &[Arc<Node>]) -> Option<String> {
    for node in nodes {
        let id = view.node_by_name(node.name)?.id;
        let wanted: BTreeSet<UnitId> = view.assignments_on(id).map(|copy| copy.unit()).collect();
        let found = node.found();
        if let Some(stray) = found.iter().find(|found| !wanted.contains(&found.id)) {
            return Some(format!("{} is left on {}", stray.id, node.name));
        }
        for unit in wanted {
            let runs = |found: &&hostler_runtime::Found| {
                found.id == unit && matches!(found.state, FoundState::Running { .. })
            };
            if !found.iter().any(|found| runs(&found)) {
                return Some(format!("{unit} does not run on {}", node.name));
            }
            let told = control.observed_at(id, unit.assignment);
            let is_known = told.is_some_and(|told| {
                told.unit == unit && matches!(told.state, UnitState::Running { .. })
            });
            if !is_known {
                return Some(format!(
                    "the server does not know that {unit} runs on {}",
                    node.name
                ));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hostler_model::{Level, Subject, Timestamp};

    use super::*;

    fn copies(policy: DisconnectPolicy) -> (Checks, [UnitId; 2]) {
        let mut checks = Checks::default();
        let unit = |n| UnitId {
            assignment: AssignmentId::mint(Timestamp::from_millis(1), n),
            generation: 1,
        };
        let units = [unit(1), unit(2)];
        for unit in units {
            let workload = "web".to_owned();
            let slot = Slot {
                workload,
                number: 0,
                policy,
            };
            checks.slots.insert(unit.assignment, slot);
        }
        (checks, units)
    }

    fn standings(units: [UnitId; 2], is_troubled: bool) -> [Standing; 2] {
        let standing = |name, unit| Standing {
            name,
            running: vec![unit],
            is_away: false,
            is_troubled,
        };
        [standing("a", units[0]), standing("b", units[1])]
    }

    #[test]
    fn two_of_a_singleton_are_too_many_at_once() {
        let (mut checks, units) = copies(DisconnectPolicy::Singleton);
        let found = checks.doubles(Duration::ZERO, &standings(units, true));
        assert!(matches!(found, Err(Violation::Doubled(_))));
    }

    #[test]
    fn two_that_are_kept_are_too_many_only_a_while_after_the_trouble() {
        let (mut checks, units) = copies(DisconnectPolicy::Keep);
        let at = |seconds| Duration::from_secs(seconds);
        assert_eq!(checks.doubles(at(0), &standings(units, false)), Ok(()));
        assert_eq!(checks.doubles(at(99), &standings(units, true)), Ok(()));
        assert_eq!(checks.doubles(at(110), &standings(units, false)), Ok(()));
        let found = checks.doubles(at(115), &standings(units, false));
        assert!(matches!(found, Err(Violation::Doubled(_))));
    }

    #[test]
    fn two_generations_of_one_copy_never_run_at_once() {
        let (mut checks, [unit, _]) = copies(DisconnectPolicy::Keep);
        let newer = UnitId {
            generation: 2,
            ..unit
        };
        let found = checks.doubles(Duration::ZERO, &standings([unit, newer], true));
        assert!(matches!(found, Err(Violation::Doubled(_))));
    }

    #[test]
    fn a_node_that_was_never_away_is_not_to_be_lost() {
        let event = Event {
            sequence: 1,
            at: Timestamp::default(),
            kind: EventKind::NodeLost,
            level: Level::Warning,
            subject: Subject::default(),
            message: String::new(),
            actor: String::new(),
        };
        let found = Checks::default().event(Duration::ZERO, &State::default(), &event);
        assert!(matches!(found, Err(Violation::Misjudged(_))));
    }
}

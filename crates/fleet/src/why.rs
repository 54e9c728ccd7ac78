//! Why: what keeps copies of a workload from a node, every reason of every node at once, and the nearest
//! fix. Plain data with sentences; computed on request by looking at every node, which no decision does.

use std::collections::BTreeMap;
use std::fmt;

use hostler_model::spec::{Constraint, Kind, Operator, Port, Protocol, WorkloadSpec};
use hostler_model::{
    Assignment, Bytes, Desired, MilliCpu, Node, NodeState, Pressure, Resources, Workload,
    WorkloadId,
};
use serde::Serialize;

use crate::State;
use crate::placement::{MOST_COPIES_PER_NODE, Takings, satisfies, value_of};
use crate::state::{Copies, Footing, is_singleton};

/// Groups of nodes that are told apart; beyond it only their number is told.
const MOST_GROUPS: usize = 20;
/// Nodes of a group that are named.
const NAMED_NODES: usize = 5;

/// What keeps the copies of a workload from running as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    pub workload: WorkloadId,
    pub name: String,
    /// Copies that have no node.
    pub pending: u32,
    /// What holds for the workload as a whole.
    pub findings: Vec<Finding>,
    /// What each node says to one more copy, or to the new form of the outdated one that it has; the nearest
    /// to fitting first, and alike nodes are told together.
    pub nodes: Vec<NodeFinding>,
    /// Nodes beyond those told about.
    pub omitted_nodes: usize,
    /// The smallest step that would make a place.
    pub nearest: Option<String>,
}

/// Nodes that say the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeFinding {
    /// How many nodes.
    pub count: usize,
    /// Some of their names, the nearest to fitting first.
    pub names: Vec<String>,
    /// Everything that speaks against them; nothing if a copy fits.
    pub findings: Vec<Finding>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Finding {
    /// The workload is not to run.
    NotDesired { desired: Desired },
    /// The fleet has no nodes.
    NoNodes,
    /// Slots wait for copies that are still being stopped.
    StillStopping { copies: usize, nodes: Vec<String> },
    /// A singleton's old copy may still run on a node that cannot be reached.
    AwaitsFence { node: String },
    /// Copies that run an older revision because the new one fits nowhere.
    Outdated { copies: usize },
    /// The node is not ready.
    State { state: NodeState },
    /// The node's agent holds the fleet's intent back.
    HeldBack { because: String },
    /// The node is short of something.
    Pressure { short_of: Vec<Pressure> },
    /// The node cannot run this kind; the note is the driver's own.
    NoDriver { kind: Kind, note: String },
    /// The node has not the storage that a volume needs; the note is the driver's own.
    NoStorage { driver: String, note: String },
    /// Secrets do not go to the node: it came through another contract.
    NoSecrets,
    /// A constraint does not hold there.
    Constraint {
        constraint: Constraint,
        value: Option<String>,
    },
    Cpu {
        short: MilliCpu,
        free: MilliCpu,
        capacity: MilliCpu,
    },
    Memory {
        short: Bytes,
        free: Bytes,
        capacity: Bytes,
    },
    Disk {
        short: Bytes,
        free: Bytes,
        capacity: Bytes,
    },
    /// A host port is held by a copy of that workload.
    PortTaken { port: Port, holder: String },
    /// The node has as many copies as a node may have.
    Full { copies: usize },
}

/// What keeps the workload from running as wanted; `None` if it is unknown.
#[must_use]
pub fn why(state: &State, workload: WorkloadId) -> Option<Why> {
    let record = state.workload(workload)?;
    let pending = state.pending_copies(workload);
    Some(explain(state, record, pending, &Takings::default()))
}

/// The same for a workload as it would be, after what the decision has taken.
pub(crate) fn explain(state: &State, workload: &Workload, pending: u32, taken: &Takings) -> Why {
    let mut why = Why {
        workload: workload.id,
        name: workload.name.clone(),
        pending,
        findings: of_workload(state, workload),
        nodes: Vec::new(),
        omitted_nodes: 0,
        nearest: None,
    };
    let is_stuck = why
        .findings
        .iter()
        .any(|finding| matches!(finding, Finding::Outdated { .. }));
    if workload.desired != Desired::Running || (pending == 0 && !is_stuck) {
        return why;
    }
    let mut groups = grouped(state, workload, pending, taken);
    if groups.is_empty() {
        why.findings.push(Finding::NoNodes);
        why.nearest = Some("start an agent that joins the fleet".to_owned());
    }
    groups.sort_by_key(|group| (group.findings.len(), std::cmp::Reverse(group.count)));
    why.nearest = groups
        .first()
        .map_or(why.nearest, |group| Some(nearest_fix(group)));
    why.omitted_nodes = groups
        .iter()
        .skip(MOST_GROUPS)
        .map(|group| group.count)
        .sum();
    groups.truncate(MOST_GROUPS);
    why.nodes = groups;
    why
}

fn of_workload(state: &State, workload: &Workload) -> Vec<Finding> {
    let mut findings = Vec::new();
    if workload.desired != Desired::Running {
        findings.push(Finding::NotDesired {
            desired: workload.desired,
        });
    }
    let Some(copies) = state.copies(workload.id) else {
        return findings;
    };
    let name_of = |node| {
        state
            .node(node)
            .map_or_else(|| "?".to_owned(), |node| node.name.clone())
    };
    if !copies.blocking.is_empty() {
        let ids = copies.blocking.iter().take(NAMED_NODES);
        let nodes = ids.filter_map(|(_, id)| state.assignment(*id));
        findings.push(Finding::StillStopping {
            copies: copies.blocking.len(),
            nodes: nodes.map(|copy| name_of(copy.node)).collect(),
        });
    }
    if is_singleton(Some(workload)) {
        findings.extend(awaiting_fence(state, copies).take(NAMED_NODES).map(|node| {
            Finding::AwaitsFence {
                node: name_of(node),
            }
        }));
    }
    let outdated = copies.outdated(workload).count();
    // In a rollout most wait for their turn.
    let is_their_turn = workload.rollout.as_ref().is_none_or(|rollout| {
        !rollout.stage.is_held()
            && copies.on_trial.is_empty()
            && copies.unproven(workload.spec.copies(), 1) == 0
    });
    if outdated > 0 && is_their_turn {
        findings.push(Finding::Outdated { copies: outdated });
    }
    findings
}

fn awaiting_fence<'a>(
    state: &'a State,
    copies: &'a Copies,
) -> impl Iterator<Item = hostler_model::NodeId> + 'a {
    let uneasy = copies
        .uneasy
        .iter()
        .filter_map(|(_, id)| state.assignment(*id));
    uneasy
        .filter(|copy| !copy.fenced && state.footing(copy.node) == Footing::Lost)
        .map(|copy| copy.node)
}

/// Every node that is not gone, by what it says. Amounts do not tell nodes apart: the smallest is kept.
fn grouped(state: &State, workload: &Workload, pending: u32, taken: &Takings) -> Vec<NodeFinding> {
    let mut groups: BTreeMap<Vec<String>, (NodeFinding, u64)> = BTreeMap::new();
    for node in state.nodes().filter(|node| !node.is_gone()) {
        // With no copy pending, an outdated one is what needs a place: its own makes room for it.
        let outdated = (pending == 0).then(|| outdated_on(state, workload, node));
        let findings = of_node(state, workload, node, outdated.flatten(), taken);
        let key = findings.iter().map(Finding::kind).collect();
        let distance = findings.iter().map(Finding::distance).max().unwrap_or(0);
        let (group, nearest) = groups.entry(key).or_insert_with(|| {
            let group = NodeFinding {
                count: 0,
                names: Vec::new(),
                findings: findings.clone(),
            };
            (group, distance)
        });
        group.count += 1;
        if distance < *nearest {
            *nearest = distance;
            group.findings = findings;
            group.names.insert(0, node.name.clone());
            group.names.truncate(NAMED_NODES);
        } else if group.names.len() < NAMED_NODES {
            group.names.push(node.name.clone());
        }
    }
    groups.into_values().map(|(group, _)| group).collect()
}

/// A copy of the workload there that runs another form of it.
fn outdated_on<'a>(state: &'a State, workload: &Workload, node: &Node) -> Option<&'a Assignment> {
    let copies = state.room(node.id).copies.iter();
    copies
        .filter_map(|id| state.assignment(*id))
        .map(AsRef::as_ref)
        .find(|copy| {
            let form = (copy.template, copy.restart);
            copy.workload == workload.id
                && copy.is_wanted()
                && form != (workload.template, workload.restart)
        })
}

/// What the node lacks to run a copy at all.
fn lacking_driver(node: &Node, spec: &WorkloadSpec) -> Option<Finding> {
    if !node.knows_jobs_of(spec) {
        let note = "its agent knows no jobs".to_owned();
        let kind = spec.kind();
        return Some(Finding::NoDriver { kind, note });
    }
    let kind = spec.runs_on();
    if node.can_run(kind) {
        return None;
    }
    let mut facts = node.facts.runtimes.iter();
    let fact = facts.find(|fact| fact.kind == kind);
    let note = fact.map_or_else(String::new, |fact| fact.note.clone());
    Some(Finding::NoDriver { kind, note })
}

/// The storage that the node lacks for the copy's volumes.
fn lacking_storage(node: &Node, spec: &WorkloadSpec) -> Option<Finding> {
    let driver = node.lacking_storage(spec)?;
    let mut facts = node.facts.storage.iter();
    let fact = facts.find(|fact| fact.driver == driver);
    Some(Finding::NoStorage {
        driver: driver.to_owned(),
        note: fact.map_or_else(String::new, |fact| fact.note.clone()),
    })
}

/// Everything that speaks against one more copy on the node, or against one instead of `outdated`.
fn of_node(
    state: &State,
    workload: &Workload,
    node: &Node,
    outdated: Option<&Assignment>,
    taken: &Takings,
) -> Vec<Finding> {
    let spec = &workload.spec;
    let mut findings = Vec::new();
    if node.state() != NodeState::Ready {
        findings.push(Finding::State {
            state: node.state(),
        });
    }
    if let Some(because) = &node.held_back {
        findings.push(Finding::HeldBack {
            because: because.clone(),
        });
    }
    if !node.pressure.is_empty() {
        let short_of = node.pressure.iter().copied().collect();
        findings.push(Finding::Pressure { short_of });
    }
    findings.extend(lacking_driver(node, spec));
    findings.extend(lacking_storage(node, spec));
    if !node.takes_secrets_of(spec) {
        findings.push(Finding::NoSecrets);
    }
    let constraints = &spec.placement.constraints;
    for constraint in constraints
        .iter()
        .filter(|one| !satisfies(node, std::slice::from_ref(*one)))
    {
        let id = node.id.to_string();
        let value = value_of(node, &constraint.key, &id).map(str::to_owned);
        findings.push(Finding::Constraint {
            constraint: constraint.clone(),
            value,
        });
    }
    let held = outdated.filter(|copy| copy.holds_claims());
    let freed = held.map_or(Resources::ZERO, |copy| copy.claims.resources);
    let free = state
        .free(node.id)
        .plus(&freed)
        .minus(&taken.resources(node.id));
    let short = spec.resources.minus(&free);
    if short.cpu.0 > 0 {
        findings.push(Finding::Cpu {
            short: short.cpu,
            free: free.cpu,
            capacity: node.capacity.cpu,
        });
    }
    if short.memory.0 > 0 {
        findings.push(Finding::Memory {
            short: short.memory,
            free: free.memory,
            capacity: node.capacity.memory,
        });
    }
    if short.disk.0 > 0 {
        findings.push(Finding::Disk {
            short: short.disk,
            free: free.disk,
            capacity: node.capacity.disk,
        });
    }
    for port in spec.claims().ports {
        let holder = state.room(node.id).holder(port);
        if let Some(holder) = holder.filter(|holder| held.is_none_or(|copy| copy.id != *holder)) {
            let holder = state
                .assignment(holder)
                .and_then(|copy| state.workload(copy.workload));
            let holder = holder.map_or_else(|| "?".to_owned(), |holder| holder.name.clone());
            findings.push(Finding::PortTaken { port, holder });
        } else if taken.has_port(node.id, port) {
            let holder = "the rest of this request".to_owned();
            findings.push(Finding::PortTaken { port, holder });
        }
    }
    let copies = state.room(node.id).copies.len() + taken.copies(node.id);
    if outdated.is_none() && copies >= MOST_COPIES_PER_NODE {
        findings.push(Finding::Full { copies });
    }
    findings
}

fn nearest_fix(group: &NodeFinding) -> String {
    let Some(node) = group.names.first() else {
        return String::new();
    };
    if group.findings.is_empty() {
        return format!("a copy fits on {node}: it is about to be placed");
    }
    let steps: Vec<String> = group
        .findings
        .iter()
        .map(|finding| finding.fix(node))
        .collect();
    steps.join(", and ")
}

impl Finding {
    /// The reason without its amounts.
    fn kind(&self) -> String {
        match self {
            Self::State { state } => format!("state {state}"),
            Self::Constraint { constraint, .. } => format!("constraint {constraint}"),
            Self::PortTaken { port, holder } => format!("port {} {holder}", port_name(*port)),
            Self::Cpu { .. } => "cpu".to_owned(),
            Self::Memory { .. } => "memory".to_owned(),
            Self::Disk { .. } => "disk".to_owned(),
            Self::Full { .. } => "full".to_owned(),
            Self::NotDesired { .. }
            | Self::NoNodes
            | Self::StillStopping { .. }
            | Self::AwaitsFence { .. }
            | Self::Outdated { .. }
            | Self::HeldBack { .. }
            | Self::Pressure { .. }
            | Self::NoDriver { .. }
            | Self::NoStorage { .. }
            | Self::NoSecrets => self.to_string(),
        }
    }

    /// How much is missing, for choosing the nearest of nodes that say the same.
    fn distance(&self) -> u64 {
        match self {
            Self::Cpu { short, .. } => short.0.saturating_mul(4 << 20),
            Self::Memory { short, .. } | Self::Disk { short, .. } => short.0,
            Self::NotDesired { .. }
            | Self::NoNodes
            | Self::StillStopping { .. }
            | Self::AwaitsFence { .. }
            | Self::Outdated { .. }
            | Self::State { .. }
            | Self::HeldBack { .. }
            | Self::Pressure { .. }
            | Self::NoDriver { .. }
            | Self::NoStorage { .. }
            | Self::Constraint { .. }
            | Self::PortTaken { .. }
            | Self::NoSecrets
            | Self::Full { .. } => 0,
        }
    }

    fn fix(&self, node: &str) -> String {
        match self {
            Self::State {
                state: NodeState::Cordoned,
            } => format!("uncordon {node}"),
            Self::State {
                state: NodeState::Draining | NodeState::Drained,
            } => format!("undrain {node}"),
            Self::State { state } => format!("bring {node} back, it is {state}"),
            Self::HeldBack { .. } => format!("accept the fleet's intent on {node}"),
            Self::Pressure { short_of } => {
                format!("free {} on {node}", Pressure::phrase(short_of))
            }
            Self::NoDriver { kind, .. } => format!("make the {kind} driver work on {node}"),
            Self::NoStorage { driver, .. } => {
                format!("make the storage driver {driver} work on {node}")
            }
            Self::NoSecrets => format!("run our own agent on {node}"),
            Self::Constraint { constraint, .. } => fix_constraint(constraint, node),
            Self::Cpu {
                short,
                free,
                capacity,
            } => {
                let can_be_freed = short.0 + free.0 <= capacity.0;
                fix_shortage(node, &format!("{short} cpu"), capacity, can_be_freed)
            }
            Self::Memory {
                short,
                free,
                capacity,
            } => {
                let can_be_freed = short.0 + free.0 <= capacity.0;
                let short = format!("{} memory", short.rough_at_least());
                fix_shortage(node, &short, capacity.rough(), can_be_freed)
            }
            Self::Disk {
                short,
                free,
                capacity,
            } => {
                let can_be_freed = short.0 + free.0 <= capacity.0;
                let short = format!("{} disk", short.rough_at_least());
                fix_shortage(node, &short, capacity.rough(), can_be_freed)
            }
            Self::PortTaken { port, holder } => {
                format!(
                    "use another port than {}, which {holder} holds on {node}",
                    port_name(*port)
                )
            }
            Self::Full { .. } => format!("add a node, or make room on {node}"),
            Self::NotDesired { .. }
            | Self::NoNodes
            | Self::StillStopping { .. }
            | Self::AwaitsFence { .. }
            | Self::Outdated { .. } => self.to_string(),
        }
    }
}

fn fix_shortage(
    node: &str,
    short: &str,
    capacity: impl fmt::Display,
    can_be_freed: bool,
) -> String {
    if can_be_freed {
        format!("free {short} on {node} or ask for that much less")
    } else {
        format!("ask for {short} less, for {node} has {capacity} in all")
    }
}

fn fix_constraint(constraint: &Constraint, node: &str) -> String {
    let key = &constraint.key;
    if key.starts_with("node.") {
        return format!("relax the constraint `{constraint}`");
    }
    match (constraint.operator, constraint.values.first()) {
        (Operator::In, Some(value)) => format!("label {node} with {key}={value}"),
        (Operator::Exists, _) => format!("label {node} with {key}"),
        (Operator::Absent | Operator::NotIn, _) => format!("remove the label {key} from {node}"),
        (Operator::In, None) => format!("relax the constraint `{constraint}`"),
    }
}

fn port_name(port: Port) -> String {
    match port.protocol {
        Protocol::Tcp => port.number.to_string(),
        Protocol::Udp => format!("{}/udp", port.number),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDesired { desired } => write!(f, "it is to be {}", desired.as_str()),
            Self::NoNodes => f.write_str("the fleet has no nodes"),
            Self::StillStopping { copies, nodes } => {
                write!(
                    f,
                    "old copies are still being stopped ({copies}) on {}",
                    nodes.join(", ")
                )
            }
            Self::AwaitsFence { node } => write!(
                f,
                "a singleton waits until its copy on {node}, which cannot be reached, has surely stopped"
            ),
            Self::Outdated { copies } => write!(f, "copies at an older revision: {copies}"),
            Self::State { state } => write!(f, "is {state}"),
            Self::HeldBack { because } => write!(f, "holds the fleet's intent back: {because}"),
            Self::Pressure { short_of } => {
                write!(f, "is short of {}", Pressure::phrase(short_of))
            }
            Self::NoDriver { kind, note } if note.is_empty() => {
                write!(f, "has no working {kind} driver")
            }
            Self::NoDriver { kind, note } => write!(f, "has no working {kind} driver: {note}"),
            Self::NoStorage { driver, note } if note.is_empty() => {
                write!(f, "has no storage driver {driver}")
            }
            Self::NoStorage { driver, note } => {
                write!(f, "has no storage driver {driver}: {note}")
            }
            Self::NoSecrets => f.write_str("is given no secrets: its agent is of another kind"),
            Self::Constraint {
                constraint,
                value: Some(value),
            } => {
                write!(
                    f,
                    "`{constraint}` does not hold: {} is {value}",
                    constraint.key
                )
            }
            Self::Constraint {
                constraint,
                value: None,
            } => {
                write!(
                    f,
                    "`{constraint}` does not hold: {} is not set",
                    constraint.key
                )
            }
            Self::Cpu { short, free, .. } => write!(f, "{short} cpu short, {free} free"),
            Self::Memory { short, free, .. } => {
                let (short, free) = (short.rough_at_least(), free.rough());
                write!(f, "{short} memory short, {free} free")
            }
            Self::Disk { short, free, .. } => {
                let (short, free) = (short.rough_at_least(), free.rough());
                write!(f, "{short} disk short, {free} free")
            }
            Self::PortTaken { port, holder } => {
                write!(f, "port {} is held by {holder}", port_name(*port))
            }
            Self::Full { copies } => {
                write!(
                    f,
                    "has {copies} copies already, the most that a node may have"
                )
            }
        }
    }
}

impl fmt::Display for NodeFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.count.saturating_sub(self.names.len()) {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        f.write_str(": ")?;
        if self.findings.is_empty() {
            return f.write_str("a copy fits");
        }
        let reasons: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        f.write_str(&reasons.join("; "))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pending {
            0 => write!(f, "{}: every copy has its node", self.name)?,
            1 => write!(f, "{}: 1 copy is pending", self.name)?,
            pending => write!(f, "{}: {pending} copies are pending", self.name)?,
        }
        for finding in &self.findings {
            write!(f, "\n  {finding}")?;
        }
        for node in &self.nodes {
            write!(f, "\n  {node}")?;
        }
        if self.omitted_nodes > 0 {
            write!(f, "\n  and {} more nodes", self.omitted_nodes)?;
        }
        match &self.nearest {
            Some(nearest) => write!(f, "\nnearest fix: {nearest}"),
            None => Ok(()),
        }
    }
}

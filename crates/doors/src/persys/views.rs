//! Nodes and workloads in the contract's words.

use std::sync::Arc;
use std::time::Duration;

use hostler_control::LiveNode;
use hostler_control::fleet::State;
use hostler_model::{
    Admission, AliasKey, AliasOwner, Assignment, Contract, Desired, Liveness, Node, NodeState,
    Timestamp, UnitState, Workload,
};
use hostler_wire::persys::{agent, control};

use super::drive::tries;
use super::notes::Note;
use super::register::Said;
use super::{Door, words};

/// What a workload has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    word: &'static str,
    node: Option<Arc<Node>>,
    /// Code and message of what stands in the way.
    failure: Option<(String, String)>,
}

/// Every node that is not gone, with that status.
pub(super) fn nodes(door: &Door, status: &str) -> Vec<control::NodeView> {
    let view = door.control.view();
    let nodes: Vec<Arc<Node>> = view.nodes().filter(|it| !it.is_gone()).cloned().collect();
    let views = nodes.iter().map(|it| node(door, &view, it));
    views
        .filter(|it| words::passes(status, &it.status))
        .collect()
}

/// The node of that foreign id, or of ours by its name, unless it is gone.
pub(super) fn find_node(door: &Door, id: &str) -> Option<control::NodeView> {
    let view = door.control.view();
    let found = view
        .node_by_alias(&words::node_key(id))
        .filter(|it| !it.is_gone());
    let by_name = || {
        let node = view.node_by_name(id)?;
        (node.contract != Contract::Persys).then_some(node)
    };
    let found = Arc::clone(found.or_else(by_name)?);
    Some(node(door, &view, &found))
}

/// Every workload on that node, with that status.
pub(super) fn workloads(door: &Door, node: &str, status: &str) -> Vec<control::WorkloadView> {
    let view = door.control.view();
    let views = view.workloads().map(|it| workload(door, &view, it));
    views
        .filter(|it| node.is_empty() || it.assigned_node_id == node)
        .filter(|it| {
            let word = it.status.split(" (").next().unwrap_or_default();
            words::passes(status, word) || words::passes(status, &it.status)
        })
        .collect()
}

pub(super) fn find_workload(door: &Door, id: &str) -> Option<control::WorkloadView> {
    let found = door.workload(id)?;
    let view = door.control.view();
    Some(workload(door, &view, &found))
}

pub(super) fn summary(door: &Door) -> control::GetClusterSummaryResponse {
    let (nodes, workloads) = (nodes(door, ""), workloads(door, "", ""));
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let with = |words: &[&str]| {
        let is_one = |it: &&control::WorkloadView| {
            let word = it.status.split(" (").next().unwrap_or_default();
            words.contains(&word)
        };
        count(workloads.iter().filter(is_one).count())
    };
    let ready = nodes.iter().filter(|it| it.status == "Ready").count();
    control::GetClusterSummaryResponse {
        total_nodes: count(nodes.len()),
        ready_nodes: count(ready),
        not_ready_nodes: count(nodes.len() - ready),
        total_workloads: count(workloads.len()),
        running_workloads: with(&["Running"]),
        pending_workloads: with(&[
            "Pending",
            "Scheduled",
            "Unknown",
            "Updating",
            "RetryPending",
        ]),
        failed_workloads: with(&["Failed"]),
        deleted_workloads: with(&["Deleting"]),
        generated_at: Some(words::stamp(door.now())),
    }
}

/// How many nodes and workloads have each word, and how many are to run, stop and go: for the figures.
pub(super) fn words_of(door: &Door) -> (Vec<String>, Vec<(String, String)>) {
    let nodes = nodes(door, "").into_iter().map(|it| it.status);
    let workloads = workloads(door, "", "").into_iter();
    let workloads = workloads.map(|it| {
        let word = it.status.split(" (").next().unwrap_or_default();
        (word.to_owned(), it.desired_state)
    });
    (nodes.collect(), workloads.collect())
}

fn node(door: &Door, view: &State, node: &Node) -> control::NodeView {
    let live = door.control.live(node.id).filter(|it| it.beats > 0);
    let (status, reason, by, at) = status(node, live.as_ref());
    let total = node.capacity;
    let used = live.as_ref().and_then(|it| it.usage.as_ref());
    let cpu_used = used.map_or(0.0, |it| {
        cores(total.cpu.0) * f64::from(it.cpu_percent) / 100.0
    });
    let memory_used = used.map_or(0, |it| it.memory_used.0);
    let said = Said::of(node);
    control::NodeView {
        node_id: node_id(view, node),
        status: status.to_owned(),
        status_reason: reason,
        status_updated_by: by.to_owned(),
        status_updated_at: Some(words::stamp(at)),
        last_heartbeat: live.as_ref().map(|it| words::stamp(it.last_seen)),
        grpc_endpoint: said.grpc_endpoint,
        total_cpu_cores: cores(total.cpu.0),
        available_cpu_cores: thousandths((cores(total.cpu.0) - cpu_used).max(0.0)),
        total_memory_mb: megabytes(total.memory.0),
        available_memory_mb: megabytes(total.memory.0.saturating_sub(memory_used)),
        supported_workload_types: kinds(node),
        labels: node.labels.clone(),
    }
}

fn kinds(node: &Node) -> Vec<String> {
    let runtimes = node.facts.runtimes.iter().filter(|it| it.available);
    runtimes.map(|it| it.kind.as_str().to_owned()).collect()
}

/// The id under which the node registered, or our name for it.
fn node_id(view: &State, node: &Node) -> String {
    let mut aliases = view.aliases_of(AliasOwner::Node(node.id));
    let ours = aliases.find(|it| it.key.contract == Contract::Persys);
    ours.map_or_else(|| node.name.clone(), |it| it.key.foreign.clone())
}

/// Word, reason, who said so, and when.
fn status(node: &Node, live: Option<&LiveNode>) -> (&'static str, String, &'static str, Timestamp) {
    let seen = live.map_or(node.joined_at, |it| it.last_seen);
    let by = if live.is_some_and(|it| it.beats > 1) {
        "heartbeat"
    } else {
        "register"
    };
    if let Some(reason) = &node.held_back {
        return ("NotReady", reason.clone(), "reconciler", seen);
    }
    let silence = |live: Option<&LiveNode>| {
        let age = live.map_or(Duration::ZERO, |it| it.last_beat_age);
        format!("no heartbeat for {} s", age.as_secs())
    };
    match (node.state(), node.liveness, node.admission) {
        (NodeState::Lost, Liveness::Lost { since }, _) => {
            ("NotReady", silence(live), "monitor", since)
        }
        (NodeState::Suspect, ..) => ("NotReady", silence(live), "monitor", seen),
        (_, _, Admission::Draining { since }) => (
            "Draining",
            "its copies move away".to_owned(),
            "reconciler",
            since,
        ),
        (_, _, Admission::Drained { since }) => (
            "Draining",
            "no copy is left".to_owned(),
            "reconciler",
            since,
        ),
        (NodeState::Cordoned, ..) => ("Ready", "takes no new copies".to_owned(), by, seen),
        _ => ("Ready", String::new(), by, seen),
    }
}

fn workload(door: &Door, view: &State, workload: &Workload) -> control::WorkloadView {
    let standing = standing(door, view, workload);
    let note = door.notes.of(workload.id);
    let id = foreign_id(workload).map_or_else(|| workload.name.clone(), |it| it.foreign.clone());
    let is_on_its_way = !matches!(standing.word, "Running" | "Stopped");
    let updated = words::stamp(workload.updated_at);
    control::WorkloadView {
        workload_id: id,
        r#type: workload.spec.kind().as_str().to_owned(),
        desired_state: words::desired_word(workload.desired).to_owned(),
        status: shown(standing.word, &note),
        assigned_node_id: standing
            .node
            .as_ref()
            .map(|node| node_id(view, node))
            .unwrap_or_default(),
        revision_id: revision(workload),
        retry_attempts: i32::try_from(note.attempts).unwrap_or(i32::MAX),
        retry_max_attempts: i32::try_from(tries::MOST).unwrap_or(i32::MAX),
        retry_next_at: note.next_at.filter(|_| is_on_its_way).map(words::stamp),
        failure_reason: standing
            .failure
            .as_ref()
            .map(|(_, message)| message.clone())
            .unwrap_or_default(),
        last_updated: Some(updated),
        reason: standing
            .failure
            .map(|(code, message)| control::ReasonDetail {
                code,
                message,
                last_transition: Some(updated),
                next_retry_at: note.next_at.map(words::stamp),
                retryable: note.next_at.is_some(),
            }),
        usage: note.usage,
    }
}

fn shown(word: &str, note: &Note) -> String {
    if note.address.is_empty() || word != "Running" {
        return word.to_owned();
    }
    format!("{word} (ip={})", note.address)
}

/// The id under which a workload came through this contract.
pub(super) fn foreign_id(workload: &Workload) -> Option<&AliasKey> {
    let key = &workload.foreign.as_ref()?.key;
    (key.contract == Contract::Persys).then_some(key)
}

fn revision(workload: &Workload) -> String {
    match &workload.foreign {
        Some(foreign) if foreign.key.contract == Contract::Persys => foreign.revision.clone(),
        _ => workload.revision.to_string(),
    }
}

/// What its copies have come to: the gravest of them.
fn standing(door: &Door, view: &State, workload: &Workload) -> Standing {
    let of = |word| Standing {
        word,
        node: None,
        failure: None,
    };
    let mut copies: Vec<&Arc<Assignment>> = view.assignments_of(workload.id).collect();
    let on = |copy: &Assignment| view.node(copy.node).cloned();
    let ending = |word| Standing {
        node: copies.first().and_then(|copy| on(copy)),
        ..of(word)
    };
    match workload.desired {
        Desired::Deleted => return ending("Deleting"),
        Desired::Stopped if copies.is_empty() => return of("Stopped"),
        Desired::Stopped => return ending("Updating"),
        Desired::Running => copies.retain(|copy| copy.is_wanted()),
    }
    let found = copies.iter().map(|copy| {
        let (word, failure) = copy_word(door, copy, view.node(copy.node).map(Arc::as_ref));
        (rank(word), word, failure, on(copy))
    });
    let gravest = found.max_by_key(|(rank, ..)| *rank);
    let is_short = view.pending_copies(workload.id) > 0;
    match gravest {
        Some((_, word, failure, node)) if !is_short || rank(word) > rank("Pending") => Standing {
            word,
            node,
            failure,
        },
        Some((.., node)) => Standing {
            node,
            ..of("Pending")
        },
        None => of("Pending"),
    }
}

fn rank(word: &str) -> u8 {
    match word {
        "Failed" => 6,
        "RetryPending" => 5,
        "Unknown" => 4,
        "Pending" => 3,
        "Scheduled" => 2,
        "Stopped" => 1,
        _ => 0,
    }
}

fn copy_word(
    door: &Door,
    copy: &Assignment,
    node: Option<&Node>,
) -> (&'static str, Option<(String, String)>) {
    if let Some(outcome) = &copy.outcome {
        if outcome.exit.is_success() {
            return ("Stopped", None);
        }
        let failure = ("RUNTIME_ERROR".to_owned(), outcome.exit.to_string());
        return ("Failed", Some(failure));
    }
    if node.is_some_and(|node| matches!(node.liveness, Liveness::Lost { .. })) {
        return ("Unknown", None);
    }
    let seen = door.control.observed_at(copy.node, copy.id);
    let seen = seen.filter(|seen| seen.unit == copy.unit());
    match seen.map(|seen| seen.state) {
        None => ("Scheduled", None),
        Some(UnitState::Running { .. }) => ("Running", None),
        Some(UnitState::Failed { code, message, .. }) => ("Failed", Some((code, message))),
        Some(UnitState::Waiting { exit, .. }) => {
            let failure = ("RUNTIME_ERROR".to_owned(), exit.to_string());
            ("RetryPending", Some(failure))
        }
        Some(UnitState::Finished { .. } | UnitState::Gone) => ("Stopped", None),
        Some(UnitState::Preparing { .. } | UnitState::Starting | UnitState::Stopping) => {
            ("Pending", None)
        }
    }
}

/// A sample of the agent contract as one of the control contract.
pub(super) fn usage(told: &agent::WorkloadUsageSnapshot) -> control::WorkloadUsageSnapshot {
    let kind = match told.r#type() {
        agent::WorkloadType::Container => "container",
        agent::WorkloadType::Compose => "compose",
        agent::WorkloadType::Vm => "vm",
        agent::WorkloadType::Unspecified => "",
    };
    control::WorkloadUsageSnapshot {
        workload_id: told.workload_id.clone(),
        r#type: kind.to_owned(),
        cpu_percent: told.cpu_percent,
        memory_bytes: told.memory_bytes,
        disk_read_bytes: told.disk_read_bytes,
        disk_write_bytes: told.disk_write_bytes,
        net_rx_bytes: told.net_rx_bytes,
        net_tx_bytes: told.net_tx_bytes,
        collected_at: words::from_seconds(told.collected_at).map(words::stamp),
        source: told.source.clone(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody has 2^53 thousandths of a core"
)]
fn cores(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

/// Percentages lose a little on their way; thousandths of a core are what was told.
fn thousandths(cores: f64) -> f64 {
    (cores * 1_000.0).round() / 1_000.0
}

fn megabytes(bytes: u64) -> i64 {
    i64::try_from(bytes >> 20).unwrap_or(i64::MAX)
}

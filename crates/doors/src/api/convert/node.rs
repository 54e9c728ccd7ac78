//! Nodes: our record, what the node last said, and MIaaS's picture of both.

use std::time::Duration;

use hostler_control::fleet::State;
use hostler_control::{Control, LiveNode};
use hostler_model::{
    Admission, Bytes, Command, CommandKind, CommandState, Contract, Disk, Instance, Liveness, Node,
    NodeFacts, NodeState, RuntimeFact, StorageFact, Usage,
};
use hostler_wire::api;

use super::{moment, resources};

/// A node as the API shows it.
pub(in crate::api) fn node(control: &Control, state: &State, node: &Node) -> api::Node {
    let live = control.live(node.id).filter(|_| !node.is_gone());
    let copies = state.copies_on(node.id);
    api::Node {
        id: node.id.to_string(),
        name: node.name.clone(),
        ip: node.facts.addresses.first().cloned().unwrap_or_default(),
        capabilities: capabilities(node.contract, &node.facts),
        last_seen: last_seen(node, live.as_ref()),
        status: status(node),
        metrics: live
            .as_ref()
            .and_then(|live| live.usage.as_ref())
            .map(metrics),
        state: word(node.state()),
        revision: node.revision,
        labels: node.labels.clone(),
        contract: node.contract.as_str().to_owned(),
        facts: facts(&node.facts),
        capacity: resources(node.capacity),
        free: resources(state.free(node.id)),
        copies,
        joined_at: moment(node.joined_at),
        gone_at: node.gone_at.map(moment),
        held_back: node.held_back.clone(),
        pressure: node.pressure.iter().map(ToString::to_string).collect(),
        drain: drain(node, copies),
        clock_offset_ms: live.as_ref().and_then(|live| live.clock_offset),
        lease: live.filter(|live| live.beats > 0).map(|live| api::Lease {
            age_ms: millis(live.last_beat_age),
            window_ms: millis(live.window),
            spacing_ms: live.spacing.map(millis),
            advised_ms: live.advised.map(millis),
        }),
        instance: node.instance.as_ref().map(instance),
    }
}

fn instance(instance: &Instance) -> api::Instance {
    api::Instance {
        provider: instance.provider.clone(),
        id: instance.id.clone(),
        instance_type: instance.instance_type.clone(),
        zone: instance.zone.clone(),
        market: instance.market.as_str().to_owned(),
    }
}

/// When it was heard; a node that this server has not heard yet was heard when it joined, at least.
fn last_seen(node: &Node, live: Option<&LiveNode>) -> f64 {
    let heard = live
        .filter(|live| live.beats > 0)
        .map(|live| live.last_seen);
    heard
        .unwrap_or(node.joined_at)
        .max(node.joined_at)
        .as_seconds()
}

const fn status(node: &Node) -> api::NodeStatus {
    match node.liveness {
        Liveness::Lost { .. } => api::NodeStatus::Offline,
        _ if node.is_gone() => api::NodeStatus::Offline,
        Liveness::Joining | Liveness::Alive | Liveness::Suspect => api::NodeStatus::Online,
    }
}

const fn word(state: NodeState) -> api::NodeState {
    match state {
        NodeState::Pending => api::NodeState::Pending,
        NodeState::Joining => api::NodeState::Joining,
        NodeState::Ready => api::NodeState::Ready,
        NodeState::Suspect => api::NodeState::Suspect,
        NodeState::Lost => api::NodeState::Lost,
        NodeState::Cordoned => api::NodeState::Cordoned,
        NodeState::Draining => api::NodeState::Draining,
        NodeState::Drained => api::NodeState::Drained,
        NodeState::Gone => api::NodeState::Gone,
    }
}

fn metrics(usage: &Usage) -> api::Metrics {
    api::Metrics {
        cpu_usage: percent(usage.cpu_percent),
        mem_usage: percent(usage.memory_percent),
        disk_free_mb: megabytes(usage.disk_free),
        running_containers: usage.running_containers.clone(),
    }
}

/// The shortest decimal that the figure came from: 15.2 stays 15.2 on its way through an `f32`. JSON has no word
/// for what is not finite.
fn percent(figure: f32) -> f64 {
    let figure = if figure.is_finite() { figure } else { 0.0 };
    figure.to_string().parse().unwrap_or_default()
}

const fn megabytes(bytes: Bytes) -> u64 {
    bytes.0 >> 20
}

/// MIaaS's capabilities: as its agent wrote them, or made from what another agent found out.
fn capabilities(contract: Contract, facts: &NodeFacts) -> api::Capabilities {
    let written = facts
        .foreign
        .as_deref()
        .filter(|_| contract == Contract::Miaas)
        .and_then(|json| serde_json::from_str(json).ok());
    written.unwrap_or_else(|| api::Capabilities {
        os: facts.os.clone(),
        cpu_count: facts.cpu_count,
        mem_mb: megabytes(facts.memory),
        disk_mb: main_disk(&facts.disks).map(|disk| megabytes(disk.total)),
        ..api::Capabilities::default()
    })
}

/// The root's disk, or the largest.
fn main_disk(disks: &[Disk]) -> Option<&Disk> {
    let root = disks.iter().find(|disk| disk.mount == "/");
    root.or_else(|| disks.iter().max_by_key(|disk| disk.total))
}

fn facts(facts: &NodeFacts) -> api::NodeFacts {
    let runtime = |fact: &RuntimeFact| api::RuntimeFact {
        kind: fact.kind.as_str().to_owned(),
        available: fact.available,
        version: fact.version.clone(),
        note: fact.note.clone(),
    };
    let storage = |fact: &StorageFact| api::StorageFact {
        driver: fact.driver.clone(),
        available: fact.available,
        note: fact.note.clone(),
    };
    let disk = |disk: &Disk| api::DiskFact {
        mount: disk.mount.clone(),
        total_bytes: disk.total.0,
        free_bytes: disk.free.0,
    };
    api::NodeFacts {
        hostname: facts.hostname.clone(),
        arch: facts.arch.clone(),
        kernel: facts.kernel.clone(),
        boot_id: facts.boot_id.clone(),
        agent_version: facts.agent_version.clone(),
        addresses: facts.addresses.clone(),
        runtimes: facts.runtimes.iter().map(runtime).collect(),
        storage: facts.storage.iter().map(storage).collect(),
        disks: facts.disks.iter().map(disk).collect(),
        foreign: facts
            .foreign
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok()),
    }
}

fn drain(node: &Node, left: u32) -> Option<api::DrainState> {
    match node.admission {
        Admission::Draining { since } => Some(api::DrainState {
            since: moment(since),
            left,
        }),
        Admission::Drained { since } => Some(api::DrainState {
            since: moment(since),
            left: 0,
        }),
        Admission::Open | Admission::Pending | Admission::Cordoned => None,
    }
}

/// A command as the API shows it.
pub(in crate::api) fn command(command: &Command) -> api::Command {
    let kind = match &command.kind {
        CommandKind::AcceptIntent { .. } => "accept-intent",
        CommandKind::Cleanup => "cleanup",
        CommandKind::Collect { .. } => "collect",
        CommandKind::ListAdoptable { .. } => "list-adoptable",
        CommandKind::Switch { .. } => "switch",
        CommandKind::Terminate { .. } => "terminate",
    };
    let (word, at, message) = match &command.state {
        CommandState::Pending => (api::CommandProgress::Pending, None, String::new()),
        CommandState::Done { at, result } => {
            (api::CommandProgress::Done, Some(*at), result.clone())
        }
        CommandState::Failed { at, error } => {
            (api::CommandProgress::Failed, Some(*at), error.clone())
        }
    };
    api::Command {
        id: command.id.to_string(),
        node: command.node.to_string(),
        kind: kind.to_owned(),
        created_at: moment(command.created_at),
        state: api::CommandState {
            word,
            at: at.map(moment),
            message,
        },
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_keeps_its_decimals() {
        assert!((percent(15.2) - 15.2).abs() < f64::EPSILON);
        assert!(
            [f32::NAN, f32::INFINITY]
                .into_iter()
                .all(|odd| percent(odd).abs() < f64::EPSILON)
        );
    }

    #[test]
    fn what_a_foreign_agent_wrote_is_shown_as_it_was() {
        let foreign =
            r#"{"os":"linux","cpu_count":4,"mem_mb":15995,"gpus":[{"id":0,"model":"x"}]}"#;
        let facts = NodeFacts {
            foreign: Some(foreign.to_owned()),
            ..NodeFacts::default()
        };
        let shown = capabilities(Contract::Miaas, &facts);
        assert_eq!(
            (shown.cpu_count, shown.mem_mb, shown.gpus.len()),
            (4, 15_995, 1)
        );
        let other = capabilities(Contract::Orchion, &facts);
        assert_eq!(
            other.cpu_count, 0,
            "the words of another contract are not MIaaS's"
        );
    }

    #[test]
    fn the_root_is_the_main_disk_even_if_another_is_larger() {
        let disk = |mount: &str, total| Disk {
            mount: mount.to_owned(),
            total: Bytes(total),
            free: Bytes(0),
        };
        let facts = NodeFacts {
            disks: vec![disk("/", 5 << 20), disk("/data", 9 << 20)],
            ..NodeFacts::default()
        };
        assert_eq!(capabilities(Contract::Session, &facts).disk_mb, Some(5));
    }
}

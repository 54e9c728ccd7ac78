//! Heartbeats: a renewed lease in memory, figures, and word about the copies that the node owns.

use hostler_model::{Admission, Bytes, Code, Node, NodeId, Refusal, Usage};
use hostler_wire::persys::control;
use tonic::Status;

use super::holders::Say;
use super::register::{gibibytes, mebibytes};
use super::{Door, words};

/// Takes a heartbeat.
pub(super) async fn heartbeat(
    door: &Door,
    request: control::HeartbeatRequest,
) -> Result<control::HeartbeatResponse, Status> {
    if request.node_id.is_empty() {
        return Err(Status::invalid_argument("node_id is required"));
    }
    let unknown = || Status::not_found(format!("node {} not found", request.node_id));
    let node = door.node(&request.node_id).ok_or_else(unknown)?;
    let usage = request.usage.as_ref().map(|it| usage(&node, it));
    let beaten = door.control.linked_beat(node.id, usage).await;
    beaten.map_err(|refusal| status(&refusal, unknown))?;
    let answer = answer(door, node.id);
    door.notes
        .take_usage(&door.control.view(), node.id, &request);
    door.tell(node.id, Say::Statuses(request.workload_statuses));
    Ok(answer)
}

fn status(refusal: &Refusal, unknown: impl FnOnce() -> Status) -> Status {
    match refusal.code {
        Code::NodeNotFound | Code::NodeGone => unknown(),
        _ => Status::internal(refusal.sentence.clone()),
    }
}

fn answer(door: &Door, node: NodeId) -> control::HeartbeatResponse {
    let admission = door.control.view().node(node).map(|node| node.admission);
    control::HeartbeatResponse {
        acknowledged: true,
        drain_node: matches!(
            admission,
            Some(Admission::Draining { .. } | Admission::Drained { .. })
        ),
        lease_expires_at: Some(words::stamp(door.now().plus(door.rules().window))),
    }
}

/// What the contract tells in amounts, in parts of what the node has.
pub(super) fn usage(node: &Node, told: &control::NodeUsage) -> Usage {
    let amount = |it: i64| u64::try_from(it).unwrap_or_default();
    let memory = mebibytes(amount(told.memory_used_mb));
    let disk = gibibytes(amount(told.disk_used_gb));
    Usage {
        cpu_percent: percent(amount(told.cpu_used_millicores), node.capacity.cpu.0),
        memory_percent: percent(memory.0, node.capacity.memory.0),
        memory_used: memory,
        disk_free: Bytes(node.capacity.disk.0.saturating_sub(disk.0)),
        running_containers: Vec::new(),
        units: Vec::new(),
        pressure: None,
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "percentages lose nothing that matters"
)]
fn percent(part: u64, whole: u64) -> f32 {
    if whole == 0 {
        return 0.0;
    }
    (part as f64 * 100.0 / whole as f64) as f32
}

//! Replicas in the contract's keys: rows, words, and the ids of machines that nobody has named yet.

use axum::Json;
use axum::extract::{Path, State};
use hostler_model::{Pool, Replica, ReplicaId, ReplicaKind, ReplicaStatus, SyncStatus};
use serde_json::{Value, json};

use super::answer::Answer;
use super::{Spot, show};

/// A replica with its pool flat and nested, for agents that read the one or the other.
pub(super) fn row(spot: &Spot, replica: &Replica) -> Value {
    let sync = spot.control.sync_of(replica.id);
    let is_done = matches!(
        replica.status,
        ReplicaStatus::Ready | ReplicaStatus::Promoted
    );
    let progress = sync.map_or(if is_done { 100.0 } else { 0.0 }, |sync| sync.progress);
    let end = replica.ended_at.unwrap_or_else(|| spot.now());
    let age = end.since(replica.created_at).as_secs_f64();
    let hourly = replica.hourly_cost.map(hostler_model::Money::as_dollars);
    let tags: Value = serde_json::from_str(&replica.tags).unwrap_or_else(|_| json!({}));
    json!({
        "id": replica.id.to_string(),
        "instance_id": machine_of(replica),
        "type": kind(replica.kind),
        "replica_type": kind(replica.kind),
        "status": word(replica.status),
        "sync_status": sync_word(replica.sync),
        "sync_latency_ms": sync.map(|sync| sync.latency_ms),
        "state_transfer_progress": progress,
        "pool_id": replica.pool.as_str(),
        "az": replica.zone,
        "instance_type": replica.instance_type,
        "region": replica.region,
        "pool": {
            "id": replica.pool.as_str(),
            "name": format!("{} ({})", replica.instance_type, replica.zone),
            "instance_type": replica.instance_type,
            "region": replica.region,
            "az": replica.zone,
        },
        "cost": {"hourly": hourly, "total": hourly.map(|hourly| hourly * age / 3600.0)},
        "created_by": replica.author,
        "created_at": show::moment(replica.created_at),
        "ready_at": show::moment_or_null(replica.ready_at),
        "terminated_at": show::moment_or_null(replica.ended_at.filter(|_| replica.promoted_at.is_none())),
        "parent_instance_id": replica.parent,
        "error_message": replica.error,
        "age_seconds": end.since(replica.created_at).as_secs(),
        "is_active": replica.status.is_open(),
        "tags": tags,
    })
}

/// Every agent of a client that has a replica standing by.
pub(super) async fn of_client(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    let agents = spot.agents_of(account.id);
    let present = agents.iter().filter(|agent| !agent.node.is_gone());
    let rows = present.flat_map(|agent| {
        let primary = agent.rental.primary().map(|machine| {
            json!({
                "instanceId": machine.id,
                "instanceType": machine.instance_type,
                "region": machine.region,
                "az": machine.zone,
                "mode": show::market(machine.market),
            })
        });
        let spot = &spot;
        agent.rental.standing_by().map(move |replica| {
            let mut row = row(spot, replica);
            row["instanceId"] = row["instance_id"].clone();
            json!({"agentId": agent.id().to_string(), "primary": primary, "replica": row})
        })
    });
    Ok(Json(rows.collect()))
}

/// What stands for the id of a machine that is not launched yet.
pub(super) fn placeholder(prefix: &str, replica: ReplicaId) -> String {
    format!("{prefix}-{}", replica.short())
}

/// The id by which the dashboard knows the machine of a replica.
pub(super) fn machine_of(replica: &Replica) -> String {
    let prefix = match replica.kind {
        ReplicaKind::Manual => "replica",
        ReplicaKind::AutomaticRebalance | ReplicaKind::AutomaticTermination => "emergency",
    };
    let named = replica.machine.clone();
    named.unwrap_or_else(|| placeholder(prefix, replica.id))
}

pub(super) const fn word(status: ReplicaStatus) -> &'static str {
    match status {
        ReplicaStatus::Launching => "launching",
        ReplicaStatus::Syncing => "syncing",
        ReplicaStatus::Ready => "ready",
        ReplicaStatus::Promoted => "promoted",
        ReplicaStatus::Terminated => "terminated",
        ReplicaStatus::Failed => "failed",
    }
}

const fn sync_word(sync: SyncStatus) -> &'static str {
    match sync {
        SyncStatus::Initializing => "initializing",
        SyncStatus::Syncing => "syncing",
        SyncStatus::Synced => "synced",
        SyncStatus::OutOfSync => "out-of-sync",
    }
}

const fn kind(kind: ReplicaKind) -> &'static str {
    match kind {
        ReplicaKind::Manual => "manual",
        ReplicaKind::AutomaticRebalance => "automatic-rebalance",
        ReplicaKind::AutomaticTermination => "automatic-termination",
    }
}

/// The pool as an emergency's answer names it.
pub(super) fn short_pool(pool: &Pool) -> Value {
    json!({"id": pool.id.as_str(), "name": pool.title(), "az": pool.zone})
}

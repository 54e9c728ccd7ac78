//! Replicas: machines that stand by for an agent. Who orders, launches, synchronises and ends them is the agent and
//! its people; here is their book.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hostler_control::SyncBeat;
use hostler_control::fleet::{OldPrimary, RentedVerb, ReplicaChange, ReplicaOrder, Reply, Verb};
use hostler_model::{Pool, PoolId, Replica, ReplicaId, ReplicaKind, ReplicaStatus, SyncStatus};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::{submit, unexpected};
use super::answer::{Answer, No};
use super::body::Fields;
use super::who::{Agent, person};
use super::{Spot, show};

/// Most bytes of a replica's tags.
const TAGS_BYTES: usize = 4 << 10;

/// Which replicas to list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    include_terminated: String,
    status: String,
}

pub(super) async fn config(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let agent = spot.own(&headers, &Fields::default(), &id)?;
    let policy = agent.rental.policy;
    Ok(Json(
        json!({"enabled": policy.replica, "count": policy.replica_count}),
    ))
}

/// Orders a replica in the pool that is named. Which pool would be best is not decided here.
pub(super) async fn create(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Fields,
) -> Result<Response, No> {
    let agent = spot.agent_for(&headers, &id)?;
    if show::status(&agent.node, &agent.rental) != "online" {
        return Err(No::not_found("Agent not found or not online"));
    }
    if !agent.rental.policy.manual_replica {
        return Err(No::bad("Manual replica mode is not enabled"));
    }
    let pool = named_pool(&spot, &body)?;
    let pool = pool.ok_or_else(|| {
        No::bad("No suitable pool found").with("hint", "name one that agents report as pool_id")
    })?;
    let is_excluded = body
        .get("exclude_zones")
        .and_then(Value::as_array)
        .is_some_and(|zones| zones.iter().any(|zone| zone == pool.zone.as_str()));
    let limit = body.money("max_hourly_cost");
    if is_excluded
        || limit
            .zip(pool.spot)
            .is_some_and(|(most, price)| price > most)
    {
        return Err(No::bad("No suitable pool found"));
    }
    let tags = body.get("tags").filter(|tags| tags.is_object());
    let tags = tags.map_or_else(|| "{}".to_owned(), ToString::to_string);
    if tags.len() > TAGS_BYTES {
        return Err(No::bad("tags is too long"));
    }
    let order = ReplicaOrder {
        kind: ReplicaKind::Manual,
        pool: pool.id.clone(),
        author: body
            .word("created_by")?
            .unwrap_or_else(|| "manual".to_owned()),
        tags,
        signal: None,
    };
    let replica = add(&spot, &agent, order).await?;
    let answer = json!({
        "success": true,
        "replica_id": replica.to_string(),
        "instance_id": placeholder("replica", replica),
        "pool": show::pool(&pool),
        "hourly_cost": show::money(pool.spot),
        "status": "launching",
        "message": "Replica is launching",
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The pool that the body names; 404 if no agent has reported it.
pub(super) fn named_pool(spot: &Spot, body: &Fields) -> Result<Option<Arc<Pool>>, No> {
    let Some(pool) = body.pool("pool_id")? else {
        return Ok(None);
    };
    let known = spot.control.view().pool(&pool).cloned();
    known
        .map(Some)
        .ok_or_else(|| No::not_found("Pool not found"))
}

pub(super) async fn add(spot: &Spot, agent: &Agent, order: ReplicaOrder) -> Result<ReplicaId, No> {
    let verb = Verb::Rented {
        node: agent.id(),
        verb: Box::new(RentedVerb::AddReplica(Box::new(order))),
    };
    match spot.control.submit(person(), verb).await? {
        Reply::Replica { id } => Ok(id),
        other => Err(unexpected(&other)),
    }
}

/// What stands for the id of a machine that is not launched yet.
pub(super) fn placeholder(prefix: &str, replica: ReplicaId) -> String {
    format!("{prefix}-{}", replica.short())
}

fn machine_of(replica: &Replica) -> String {
    let prefix = match replica.kind {
        ReplicaKind::Manual => "replica",
        ReplicaKind::AutomaticRebalance | ReplicaKind::AutomaticTermination => "emergency",
    };
    let named = replica.machine.clone();
    named.unwrap_or_else(|| placeholder(prefix, replica.id))
}

pub(super) async fn list(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Result<axum::extract::Query<Listing>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let agent = spot.agent_for(&headers, &id)?;
    let listing = query.map(|query| query.0).unwrap_or_default();
    let is_all = listing.include_terminated.eq_ignore_ascii_case("true");
    let is_wanted = |replica: &&Replica| {
        if listing.status.is_empty() {
            is_all || replica.status.is_open()
        } else {
            word(replica.status) == listing.status
        }
    };
    let replicas = agent.rental.replicas.iter().rev().filter(is_wanted);
    let rows: Vec<Value> = replicas.map(|replica| row(&spot, replica)).collect();
    Ok(Json(json!({"total": rows.len(), "replicas": rows})))
}

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

/// The replica's machine is known.
pub(super) async fn told(
    State(spot): State<Spot>,
    Path((id, replica)): Path<(String, String)>,
    headers: HeaderMap,
    body: Fields,
) -> Answer {
    let (agent, replica) = find(&spot, &headers, (&id, &replica))?;
    let machine = body.needed("instance_id")?;
    let status = body.word("status")?.unwrap_or_else(|| "syncing".to_owned());
    let change = ReplicaChange {
        machine: Some(machine.clone()),
        status: Some(told_status(&status)?),
        ..ReplicaChange::default()
    };
    submit(&spot, &agent, RentedVerb::ChangeReplica { replica, change }).await?;
    Ok(Json(json!({
        "success": true,
        "replica_id": replica.to_string(),
        "instance_id": machine,
        "status": status,
    })))
}

pub(super) async fn status(
    State(spot): State<Spot>,
    Path((id, replica)): Path<(String, String)>,
    headers: HeaderMap,
    body: Fields,
) -> Answer {
    let (agent, replica) = find(&spot, &headers, (&id, &replica))?;
    let status = body.needed("status")?;
    let change = ReplicaChange {
        status: Some(told_status(&status)?),
        sync_began_at: body.moment("sync_started_at"),
        synced_at: body.moment("sync_completed_at"),
        error: body.prose("error_message"),
        ..ReplicaChange::default()
    };
    submit(&spot, &agent, RentedVerb::ChangeReplica { replica, change }).await?;
    Ok(Json(json!({
        "success": true,
        "replica_id": replica.to_string(),
        "status": status,
    })))
}

/// How far the replica's data has come. Told every second, so only what changes its status is written down.
pub(super) async fn sync_status(
    State(spot): State<Spot>,
    Path((id, replica)): Path<(String, String)>,
    headers: HeaderMap,
    body: Fields,
) -> Answer {
    let (agent, replica) = find(&spot, &headers, (&id, &replica))?;
    let sync = match body.word("sync_status")?.as_deref() {
        None => None,
        Some("initializing") => Some(SyncStatus::Initializing),
        Some("syncing") => Some(SyncStatus::Syncing),
        Some("synced") => Some(SyncStatus::Synced),
        Some("out-of-sync" | "out_of_sync") => Some(SyncStatus::OutOfSync),
        Some(_) => {
            return Err(No::bad(
                "sync_status is none of syncing, synced, out-of-sync",
            ));
        }
    };
    let progress = body.number("state_transfer_progress");
    let progress = progress.map(|progress| progress.clamp(0.0, 100.0));
    let told = body.word("status")?;
    let mut status = told.as_deref().map(told_status).transpose()?;
    if progress.is_some_and(|progress| progress >= 100.0) {
        status = Some(ReplicaStatus::Ready);
    }
    let known = agent.rental.replica(replica);
    if status.is_none() && known.is_some_and(|it| it.status == ReplicaStatus::Launching) {
        status = Some(ReplicaStatus::Syncing);
    }
    let before = spot.control.sync_of(replica);
    let beat = SyncBeat {
        at: spot.now(),
        latency_ms: body.number("sync_latency_ms").unwrap_or(0.0).max(0.0),
        progress: progress
            .or_else(|| before.map(|it| it.progress))
            .unwrap_or(0.0),
    };
    if known.is_some_and(|it| it.status.is_open()) {
        spot.control.sync_beat(agent.id(), replica, beat)?;
    }
    let is_news = known.is_some_and(|it| {
        sync.is_some_and(|sync| sync != it.sync) || status.is_some_and(|now| now != it.status)
    });
    if is_news {
        let change = ReplicaChange {
            status,
            sync,
            ..ReplicaChange::default()
        };
        submit(&spot, &agent, RentedVerb::ChangeReplica { replica, change }).await?;
    }
    Ok(Json(
        json!({"success": true, "message": "Sync status updated"}),
    ))
}

/// The replica takes the place of the machine that the agent is on.
pub(super) async fn promote(
    State(spot): State<Spot>,
    Path((id, replica)): Path<(String, String)>,
    headers: HeaderMap,
    body: Fields,
) -> Answer {
    let (agent, replica) = find(&spot, &headers, (&id, &replica))?;
    let known = agent.rental.replica(replica);
    let known = known.ok_or_else(|| No::not_found("Replica not found"))?;
    if !matches!(known.status, ReplicaStatus::Ready | ReplicaStatus::Syncing) {
        return Err(No::bad("The replica cannot be promoted now")
            .with("current_status", word(known.status))
            .with("required_status", json!(["ready", "syncing"])));
    }
    let is_demoted = body.flag("demote_old_primary").unwrap_or(true);
    let old = if is_demoted {
        OldPrimary::Demote
    } else {
        OldPrimary::Keep
    };
    let verb = Verb::Rented {
        node: agent.id(),
        verb: Box::new(RentedVerb::Promote { replica, old }),
    };
    spot.control.submit(person(), verb).await?;
    let before = agent.rental.primary().map(|machine| machine.id.clone());
    Ok(Json(json!({
        "success": true,
        "message": "Replica promoted",
        "new_instance_id": machine_of(known),
        "old_instance_id": before,
        "demoted": is_demoted,
        "switch_time": show::moment(spot.now()),
        "new_replica_id": Value::Null,
    })))
}

pub(super) async fn end(
    State(spot): State<Spot>,
    Path((id, replica)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (agent, replica) = find(&spot, &headers, (&id, &replica))?;
    let known = agent.rental.replica(replica);
    if known.is_some_and(|replica| !replica.status.is_open()) {
        return Err(No::bad("The replica is terminated already"));
    }
    let verb = Verb::Rented {
        node: agent.id(),
        verb: Box::new(RentedVerb::EndReplica { replica }),
    };
    spot.control.submit(person(), verb).await?;
    Ok(Json(json!({
        "success": true,
        "message": "Replica terminated",
        "replica_id": replica.to_string(),
        "terminated_at": show::moment(spot.now()),
        "new_replica_id": Value::Null,
    })))
}

/// The agent, and the id of a replica of its own.
fn find(
    spot: &Spot,
    headers: &HeaderMap,
    (id, replica): (&str, &str),
) -> Result<(Agent, ReplicaId), No> {
    let missing = || No::not_found("Replica not found");
    let agent = spot.agent_for(headers, id)?;
    let replica: ReplicaId = replica.parse().map_err(|_| missing())?;
    if agent.rental.replica(replica).is_none() {
        return Err(missing());
    }
    Ok((agent, replica))
}

/// The statuses that an agent may tell.
fn told_status(word: &str) -> Result<ReplicaStatus, No> {
    match word {
        "launching" => Ok(ReplicaStatus::Launching),
        "syncing" => Ok(ReplicaStatus::Syncing),
        "ready" => Ok(ReplicaStatus::Ready),
        "failed" => Ok(ReplicaStatus::Failed),
        "terminated" => Ok(ReplicaStatus::Terminated),
        _ => Err(No::bad(
            "status is none of launching, syncing, ready, failed, terminated",
        )),
    }
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
    let id: &PoolId = &pool.id;
    json!({"id": id.as_str(), "name": pool.title(), "az": pool.zone})
}

/// The id by which the agent's dashboard knows the machine of a replica.
pub(super) fn machine_id(agent: &Agent, replica: ReplicaId) -> Option<String> {
    agent.rental.replica(replica).map(machine_of)
}

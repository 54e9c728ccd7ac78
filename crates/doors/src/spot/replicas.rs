//! Replicas: machines that stand by for an agent. Who orders, launches, synchronises and ends them is the agent and
//! its people; here is their book.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use hostler_control::SyncBeat;
use hostler_control::fleet::{OldPrimary, RentedVerb, ReplicaChange, ReplicaOrder, Reply};
use hostler_model::{Code, Pool, Replica, ReplicaId, ReplicaKind, ReplicaStatus, SyncStatus};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::about::{About, Anybody, OfReplica, Own};
use super::agents::unexpected;
use super::answer::{Answer, No};
use super::body::Fields;
use super::instances::{Asked, asked};
use super::replica_rows::{machine_of, placeholder, row, word};
use super::who::{Agent, Asker};
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

pub(super) async fn config(Own(about): Own) -> Answer {
    let About { agent, .. } = about;
    let policy = agent.rental.policy;
    Ok(Json(
        json!({"enabled": policy.replica, "count": policy.replica_count}),
    ))
}

/// Orders a replica in the pool that is named. Which pool would be best is not decided here.
pub(super) async fn create(Anybody(about): Anybody) -> Result<Response, No> {
    let About {
        spot,
        agent,
        asker,
        body,
        ..
    } = about;
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
    let replica = add(&spot, &asker, (&agent, order)).await?;
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

pub(super) async fn add(
    spot: &Spot,
    asker: &Asker,
    (agent, order): (&Agent, ReplicaOrder),
) -> Result<ReplicaId, No> {
    let verb = RentedVerb::AddReplica(Box::new(order));
    match spot.rented(asker.actor(), agent, verb).await? {
        Reply::Replica { id } => Ok(id),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn list(query: Asked<Listing>, Anybody(about): Anybody) -> Answer {
    let About { spot, agent, .. } = about;
    let listing = asked(query);
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

/// The replica's machine is known.
pub(super) async fn told(OfReplica(about, replica): OfReplica) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let machine = body.needed("instance_id")?;
    let status = body.word("status")?.unwrap_or_else(|| "syncing".to_owned());
    let change = ReplicaChange {
        machine: Some(machine.clone()),
        status: Some(told_status(&status)?),
        ..ReplicaChange::default()
    };
    change_of(&spot, &agent, (replica, change)).await?;
    Ok(Json(json!({
        "success": true,
        "replica_id": replica.to_string(),
        "instance_id": machine,
        "status": status,
    })))
}

pub(super) async fn status(OfReplica(about, replica): OfReplica) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let status = body.needed("status")?;
    let change = ReplicaChange {
        status: Some(told_status(&status)?),
        sync_began_at: body.moment("sync_started_at"),
        synced_at: body.moment("sync_completed_at"),
        error: body.prose("error_message"),
        ..ReplicaChange::default()
    };
    change_of(&spot, &agent, (replica, change)).await?;
    Ok(Json(json!({
        "success": true,
        "replica_id": replica.to_string(),
        "status": status,
    })))
}

/// How far the replica's data has come. Told every second, so only what changes its status is written down. What is
/// over may be told of for a while, and changes nothing.
pub(super) async fn sync_status(OfReplica(about, replica): OfReplica) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let sync = body.word("sync_status")?;
    let sync = sync.as_deref().map(told_sync).transpose()?;
    let told = body.word("status")?;
    let told = told.as_deref().map(told_status).transpose()?;
    let progress = body.number("state_transfer_progress");
    let progress = progress.map(|progress| progress.clamp(0.0, 100.0));
    let answer = Ok(Json(
        json!({"success": true, "message": "Sync status updated"}),
    ));
    let open = agent.rental.replica(replica);
    let Some(known) = open.filter(|replica| replica.status.is_open()) else {
        return answer;
    };
    let status = match progress {
        Some(progress) if progress >= 100.0 => Some(ReplicaStatus::Ready),
        _ if told.is_none() && known.status == ReplicaStatus::Launching => {
            Some(ReplicaStatus::Syncing)
        }
        _ => told,
    };
    let before = spot.control.sync_of(replica);
    let latency = body.number("sync_latency_ms").map(|it| it.max(0.0));
    let beat = SyncBeat {
        at: spot.now(),
        latency_ms: latency
            .or_else(|| before.map(|it| it.latency_ms))
            .unwrap_or(0.0),
        progress: progress
            .or_else(|| before.map(|it| it.progress))
            .unwrap_or(0.0),
    };
    spot.control.sync_beat(agent.id(), replica, beat)?;
    let is_news = sync.is_some_and(|sync| sync != known.sync)
        || status.is_some_and(|status| status != known.status);
    if is_news {
        let change = ReplicaChange {
            status,
            sync,
            ..ReplicaChange::default()
        };
        change_of(&spot, &agent, (replica, change)).await?;
    }
    answer
}

/// The replica takes the place of the machine that the agent is on.
pub(super) async fn promote(OfReplica(about, replica): OfReplica) -> Answer {
    let About {
        spot,
        agent,
        asker,
        body,
        ..
    } = about;
    let is_demoted = body.flag("demote_old_primary").unwrap_or(true);
    let old = if is_demoted {
        OldPrimary::Demote
    } else {
        OldPrimary::Keep
    };
    let before = agent.rental.primary().map(|machine| machine.id.clone());
    let verb = RentedVerb::Promote { replica, old };
    let known = match spot.rented(asker.actor(), &agent, verb).await {
        Ok(_) => replica_now(&spot, &agent, replica)?,
        Err(refusal) if refusal.code == Code::ReplicaStateConflict => {
            let known = replica_now(&spot, &agent, replica)?;
            return Err(No::bad("The replica cannot be promoted now")
                .with("current_status", word(known.status))
                .with("required_status", json!(["ready", "syncing"])));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    Ok(Json(json!({
        "success": true,
        "message": "Replica promoted",
        "new_instance_id": machine_of(&known),
        "old_instance_id": before,
        "demoted": is_demoted,
        "switch_time": show::moment_or_null(known.promoted_at),
        "new_replica_id": Value::Null,
    })))
}

pub(super) async fn end(OfReplica(about, replica): OfReplica) -> Answer {
    let About {
        spot, agent, asker, ..
    } = about;
    let verb = RentedVerb::EndReplica { replica };
    match spot.rented(asker.actor(), &agent, verb).await {
        Ok(_) => {}
        Err(refusal) if refusal.code == Code::ReplicaStateConflict => {
            return Err(No::bad("The replica is terminated already"));
        }
        Err(refusal) => return Err(refusal.into()),
    }
    let known = replica_now(&spot, &agent, replica)?;
    Ok(Json(json!({
        "success": true,
        "message": "Replica terminated",
        "replica_id": replica.to_string(),
        "terminated_at": show::moment_or_null(known.ended_at),
        "new_replica_id": Value::Null,
    })))
}

/// The agent tells something new of its replica.
async fn change_of(
    spot: &Spot,
    agent: &Agent,
    (replica, change): (ReplicaId, ReplicaChange),
) -> Result<(), No> {
    let verb = RentedVerb::ChangeReplica { replica, change };
    spot.rented(agent.actor(), agent, verb).await?;
    Ok(())
}

/// The replica as it is by now.
fn replica_now(spot: &Spot, agent: &Agent, replica: ReplicaId) -> Result<Replica, No> {
    let view = spot.control.view();
    let known = view.rental(agent.id()).and_then(|it| it.replica(replica));
    known
        .cloned()
        .ok_or_else(|| No::not_found("Replica not found"))
}

fn told_sync(word: &str) -> Result<SyncStatus, No> {
    match word {
        "initializing" => Ok(SyncStatus::Initializing),
        "syncing" => Ok(SyncStatus::Syncing),
        "synced" => Ok(SyncStatus::Synced),
        "out-of-sync" | "out_of_sync" => Ok(SyncStatus::OutOfSync),
        _ => Err(No::bad(
            "sync_status is none of syncing, synced, out-of-sync",
        )),
    }
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

//! The market's warnings: a machine is at risk, or is being taken away.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{RentedVerb, ReplicaOrder, Reply};
use hostler_model::{PoolId, ReplicaKind, Signal};
use http::StatusCode;
use serde_json::json;

use super::about::{About, Anybody, Own};
use super::answer::{Answer, No};
use super::replica_rows::{machine_of, placeholder, short_pool};
use super::replicas::{add, named_pool};
use super::{Spot, show};

/// The days over which interruptions of a pool are counted; as many of them are the highest risk.
const DAYS: u32 = 30;

/// The machine is at risk. Whether to move is not decided here: the agent is told to watch, and how the pool did.
pub(super) async fn rebalance(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let known = agent.rental.primary();
    let machine = body.word("instance_id")?;
    let machine = machine.or_else(|| known.map(|machine| machine.id.clone()));
    let pool = known.and_then(|machine| machine.pool.clone());
    let verb = RentedVerb::AtRisk {
        machine: machine.unwrap_or_default(),
    };
    spot.rented(agent.actor(), &agent, verb).await?;
    let risk = pool.map_or(0.0, |pool| risk(&spot, &pool));
    Ok(Json(json!({
        "success": true,
        "action": "monitor",
        "risk_score": risk,
        "reason": "no decision engine is loaded: watch for the notice",
    })))
}

/// How often the pool's machines were interrupted lately, from 0 to 1.
fn risk(spot: &Spot, pool: &PoolId) -> f64 {
    let now = spot.now();
    let window = Duration::from_secs(u64::from(DAYS) * 24 * 3_600);
    let view = spot.control.view();
    let notices = view
        .rentals()
        .flat_map(|rental| rental.interruptions.iter());
    let count = notices
        .filter(|notice| notice.pool.as_ref() == Some(pool) && now.since(notice.at) <= window)
        .take(DAYS as usize)
        .count();
    f64::from(u32::try_from(count).unwrap_or(DAYS)) / f64::from(DAYS)
}

/// Orders a replica in the pool that is named, in an emergency.
pub(super) async fn create_replica(Anybody(about): Anybody) -> Result<Response, No> {
    let About {
        spot,
        agent,
        asker,
        body,
        ..
    } = about;
    let (kind, signal, urgency) = match body.word("signal_type")?.as_deref() {
        Some("rebalance-recommendation") => {
            (ReplicaKind::AutomaticRebalance, Signal::Rebalance, "high")
        }
        Some("termination-notice") => {
            let kind = ReplicaKind::AutomaticTermination;
            (kind, Signal::Termination, "critical")
        }
        _ => return Err(No::bad("Invalid signal_type")),
    };
    if !agent.rental.policy.auto_switch {
        return Err(No::new(
            StatusCode::FORBIDDEN,
            "Auto-switch is disabled for this agent",
        ));
    }
    let pool = named_pool(&spot, &body)?.ok_or_else(|| {
        No::new(StatusCode::INTERNAL_SERVER_ERROR, "No suitable pool found")
            .with("hint", "name one that agents report as pool_id")
    })?;
    let order = ReplicaOrder {
        kind,
        pool: pool.id.clone(),
        author: "emergency".to_owned(),
        tags: "{}".to_owned(),
        signal: Some((signal, body.moment("termination_time"))),
    };
    let replica = add(&spot, &asker, (&agent, order)).await?;
    let answer = json!({
        "success": true,
        "replica_id": replica.to_string(),
        "instance_id": placeholder("emergency", replica),
        "pool": short_pool(&pool),
        "hourly_cost": show::money(pool.spot),
        "message": "Emergency replica is launching",
        "urgency": urgency,
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The machine is being taken away: the best replica takes its place, or there is none.
pub(super) async fn imminent(Anybody(about): Anybody) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let began = spot.control.clock().uptime();
    let known = agent.rental.primary().map(|machine| machine.id.clone());
    let verb = RentedVerb::Taken {
        machine: body.word("instance_id")?.or(known).unwrap_or_default(),
        due_at: body.moment("termination_time"),
        replica: body.word("replica_id")?.and_then(|id| id.parse().ok()),
    };
    let reply = spot.rented(agent.actor(), &agent, verb).await?;
    let Reply::Replica { id: replica } = reply else {
        let no = No::new(StatusCode::INTERNAL_SERVER_ERROR, "No replica available");
        return Err(no
            .with("success", false)
            .with("action", "emergency_snapshot_required"));
    };
    let took = spot.control.clock().uptime().saturating_sub(began);
    Ok(Json(json!({
        "success": true,
        "message": "Replica promoted",
        "new_instance_id": agent.rental.replica(replica).map(machine_of),
        "replica_id": replica.to_string(),
        "failover_time_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "action": "replica_promoted",
    })))
}

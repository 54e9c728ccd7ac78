//! A client and its agents, as the dashboard shows and sets them.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{Expect, PolicyChange, RentedVerb, Verb};
use http::HeaderMap;
use serde_json::{Value, json};

use super::answer::{Answer, No};
use super::body::Fields;
use super::who::{Agent, Asker};
use super::{Spot, agents, show};

/// Whose token it is.
pub(super) async fn validate(State(spot): State<Spot>, headers: HeaderMap) -> Response {
    match spot.client(&headers, &Fields::default()) {
        Ok(account) => Json(json!({
            "valid": true,
            "client_id": account.id.to_string(),
            "name": account.name,
            "email": account.email,
        }))
        .into_response(),
        Err(no) => no.with("valid", false).into_response(),
    }
}

pub(super) async fn overview(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    Ok(Json(show::client(&spot, &account)))
}

pub(super) async fn agents(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    let agents = spot.agents_of(account.id);
    Ok(Json(agents::present_rows(&spot, agents)))
}

/// All agents that ever were: online, offline, deleted, then the others; the last heard first.
pub(super) async fn history(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    let rank = |agent: &Agent| match show::status(&agent.node, &agent.rental) {
        "online" => 0,
        "offline" => 1,
        "deleted" => 2,
        _ => 3,
    };
    let mut agents = spot.agents_of(account.id);
    agents.sort_by_key(|agent| {
        let heard = Reverse(show::heard(&spot.control, agent));
        (rank(agent), heard, agent.id())
    });
    let rows = agents.iter().map(|agent| show::past_agent(&spot, agent));
    Ok(Json(rows.collect()))
}

pub(super) async fn toggle(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    asker: Asker,
    body: Fields,
) -> Answer {
    let agent = spot.agent(&id)?;
    let enabled = body.flag("enabled");
    let enabled = enabled.ok_or_else(|| No::bad("Missing enabled"))?;
    let change = PolicyChange {
        enabled: Some(enabled),
        ..PolicyChange::default()
    };
    set(&spot, &asker, (&agent, change)).await?;
    Ok(Json(json!({"success": true})))
}

pub(super) async fn settings(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    asker: Asker,
    body: Fields,
) -> Answer {
    let agent = spot.agent(&id)?;
    let change = PolicyChange {
        auto_switch: body.flag("auto_switch_enabled"),
        auto_terminate: body.flag("auto_terminate_enabled"),
        replica: body.flag("replica_enabled"),
        replica_count: body.whole("replica_count"),
        ..PolicyChange::default()
    };
    set(&spot, &asker, (&agent, change)).await?;
    Ok(Json(json!({"success": true})))
}

pub(super) async fn configure(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    asker: Asker,
    body: Fields,
) -> Answer {
    let agent = spot.agent(&id)?;
    let minutes = body
        .whole("terminateWaitMinutes")
        .or_else(|| body.whole("terminate_wait_minutes"));
    let change = PolicyChange {
        auto_switch: body.flag("autoSwitchEnabled"),
        manual_replica: body.flag("manualReplicaEnabled"),
        auto_terminate: body.flag("autoTerminateEnabled"),
        terminate_wait_seconds: minutes.map(|minutes| minutes.saturating_mul(60)),
        ..PolicyChange::default()
    };
    set(&spot, &asker, (&agent, change)).await?;
    let policy = spot.agent(&id)?.rental.policy;
    Ok(Json(json!({
        "success": true,
        "auto_switch_enabled": policy.auto_switch,
        "manual_replica_enabled": policy.manual_replica,
        "auto_terminate_enabled": policy.auto_terminate,
        "terminate_wait_seconds": policy.terminate_wait_seconds,
    })))
}

async fn set(
    spot: &Spot,
    asker: &Asker,
    (agent, change): (&Agent, PolicyChange),
) -> Result<(), No> {
    let verb = Verb::Rented {
        node: agent.id(),
        verb: Box::new(RentedVerb::SetPolicy(change)),
    };
    spot.control.submit(asker.actor(), verb).await?;
    Ok(())
}

/// Removes an agent; it stays in the history.
pub(super) async fn delete(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    asker: Asker,
) -> Answer {
    let agent = spot.agent(&id)?;
    let verb = Verb::RemoveNode {
        node: agent.id(),
        force: true,
        expect: Expect::Any,
    };
    spot.control.submit(asker.actor(), verb).await?;
    let message = format!("Agent {} deleted", agent.rental.logical);
    Ok(Json::<Value>(json!({
        "success": true,
        "message": message,
        "agent_id": agent.id().to_string(),
    })))
}

//! Decisions: none are made here yet. Until an engine is there the contract's own safe default is answered, which is
//! to stay, and nothing is ever carried out by itself.

use axum::Json;
use axum::extract::{Path, State};
use hostler_model::{Code, CommandKind, CommandState, Event, EventKind, Level, PoolId};
use http::StatusCode;
use serde_json::{Value, json};

use super::about::{About, Own};
use super::answer::{Answer, No};
use super::who::Agent;
use super::{Spot, show};

/// Why nothing is recommended.
const NO_ENGINE: &str = "no decision engine is loaded: staying is the safe default";
/// Pools that are told as alternatives, and how fresh their prices are.
const MOST_POOLS: usize = 5;
const FRESH_MS: u128 = 5 * 60 * 1000;
/// Entries of each list of what an agent did lately.
const LATELY: usize = 5;
/// An agent is healthy that was heard within so long.
const HEALTHY_SECONDS: u64 = 5 * 60;
const REPORTED_SECONDS: u64 = 10 * 60;

pub(super) async fn decide(Own(about): Own) -> Answer {
    let About { agent, body, .. } = about;
    let (instance, pricing) = (body.child("instance"), body.child("pricing"));
    if instance.is_empty() || pricing.is_empty() {
        return Err(No::bad("instance and pricing are required"));
    }
    let known = agent.rental.primary();
    let machine = instance.word("instance_id")?;
    let mode = instance.word("current_mode")?;
    let mode = mode.unwrap_or_else(|| {
        let market = known.map(|machine| machine.market).unwrap_or_default();
        show::market(market).to_owned()
    });
    let reason = if agent.rental.policy.enabled {
        NO_ENGINE
    } else {
        "the agent is disabled"
    };
    Ok(Json(json!({
        "instance_id": machine.or_else(|| known.map(|machine| machine.id.clone())),
        "risk_score": 0.0,
        "recommended_action": "stay",
        "recommended_mode": mode,
        "recommended_pool_id": instance.word("current_pool_id")?,
        "expected_savings_per_hour": 0.0,
        "allowed": false,
        "reason": reason,
    })))
}

pub(super) async fn recommendation(Own(about): Own) -> Answer {
    let About { spot, agent, .. } = about;
    let machine = agent.rental.primary();
    let own = machine.and_then(|machine| machine.pool.clone());
    let market = machine.map(|machine| machine.market).unwrap_or_default();
    let stay = match market {
        hostler_model::Market::Spot => "stay_spot",
        hostler_model::Market::OnDemand | hostler_model::Market::Unknown => "stay_ondemand",
    };
    let current = own.as_ref().map(|own| {
        let zone = machine.map(|machine| machine.zone.as_str());
        json!({"id": own.as_str(), "name": title(&spot, own), "az": zone})
    });
    Ok(Json(json!({
        "decision_type": stay,
        "recommended_pool_id": own.as_ref().map(PoolId::as_str),
        "risk_score": 0.0,
        "expected_savings": 0.0,
        "confidence": 0.0,
        "reason": NO_ENGINE,
        "agent_id": agent.id().to_string(),
        "auto_switch_enabled": agent.rental.policy.auto_switch,
        "will_auto_execute": false,
        "current_pool": current,
        "alternative_pools": alternatives(&spot, &agent, own.as_ref()),
    })))
}

fn title(spot: &Spot, pool: &PoolId) -> String {
    let view = spot.control.view();
    let known = view.pool(pool).map(|pool| pool.title());
    known.unwrap_or_else(|| pool.to_string())
}

/// Other pools of the same kind in the region whose price was seen just now, the cheapest first.
fn alternatives(spot: &Spot, agent: &Agent, own: Option<&PoolId>) -> Vec<Value> {
    let Some(machine) = agent.rental.primary() else {
        return Vec::new();
    };
    let now = spot.now();
    let view = spot.control.view();
    let mut pools: Vec<_> = view
        .pools_of(&machine.instance_type, &machine.region)
        .filter(|pool| Some(&pool.id) != own && pool.spot.is_some())
        .filter(|pool| now.since(pool.seen_at).as_millis() <= FRESH_MS)
        .collect();
    pools.sort_by_key(|pool| pool.spot);
    let row = |pool: &std::sync::Arc<hostler_model::Pool>| {
        json!({
            "id": pool.id.as_str(),
            "name": pool.title(),
            "az": pool.zone,
            "spot_price": show::money(pool.spot),
        })
    };
    pools.into_iter().take(MOST_POOLS).map(row).collect()
}

/// What became of the agent's orders. No decision was made, so none is counted.
pub(super) async fn statistics(Own(about): Own) -> Answer {
    let About { spot, agent, .. } = about;
    let view = spot.control.view();
    let orders = view
        .commands_of(agent.id())
        .filter(|command| matches!(command.kind, CommandKind::Switch { .. }));
    let (mut done, mut failed) = (0_u32, 0_u32);
    for order in orders {
        match order.state {
            CommandState::Done { .. } => done += 1,
            CommandState::Failed { .. } => failed += 1,
            CommandState::Pending => {}
        }
    }
    let rate = if done + failed == 0 {
        0.0
    } else {
        f64::from(done) * 100.0 / f64::from(done + failed)
    };
    Ok(Json(json!({
        "totalDecisions": 0,
        "successfulSwitches": done,
        "failedSwitches": failed,
        "successRate": rate,
        "averageConfidence": 0.0,
    })))
}

/// What each agent of a client did lately.
pub(super) async fn of_client(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    let agents = spot.agents_of(account.id);
    let present = agents.iter().filter(|agent| !agent.node.is_gone());
    let (events, _) = spot.control.events(None, usize::MAX);
    let rows = present.map(|agent| lately(&spot, agent, &events));
    Ok(Json(rows.collect()))
}

fn lately(spot: &Spot, agent: &Agent, events: &[std::sync::Arc<Event>]) -> Value {
    let machine = agent.rental.primary();
    let pool = machine.and_then(|machine| machine.pool.as_ref());
    let status = show::status(&agent.node, &agent.rental);
    let heard = spot
        .now()
        .since(show::heard(&spot.control, agent))
        .as_secs();
    let view = spot.control.view();
    let mut quotes: Vec<_> = pool
        .into_iter()
        .flat_map(|pool| view.quotes(pool))
        .collect();
    quotes.sort_by_key(|quote| std::cmp::Reverse(quote.bucket));
    let seen = pool
        .and_then(|pool| view.pool(pool))
        .map(|pool| pool.seen_at);
    let is_reporting = seen.is_some_and(|at| spot.now().since(at).as_secs() <= REPORTED_SECONDS);
    let is_heard = heard <= HEALTHY_SECONDS;
    let is_healthy = is_heard && is_reporting && status == "online";
    let reports: Vec<Value> = quotes
        .iter()
        .take(LATELY)
        .map(|quote| {
            json!({
                "time": show::moment(quote.begins()),
                "spotPrice": quote.spot.as_dollars(),
                "onDemandPrice": show::money(quote.on_demand),
            })
        })
        .collect();
    let own = events.iter().rev();
    let own = own.filter(|event| event.subject.node == Some(agent.id()));
    let system: Vec<Value> = own.take(LATELY).map(|event| happening(event)).collect();
    let word = |is_well| if is_well { "healthy" } else { "unhealthy" };
    json!({
        "agentId": agent.id().to_string(),
        "agentName": agent.rental.logical,
        "status": status,
        "currentMode": show::market(machine.map(|it| it.market).unwrap_or_default()),
        "currentPoolId": pool.map(PoolId::as_str),
        "isHealthy": is_healthy,
        "lastHeartbeat": format!("{heard} s ago"),
        "lastDecision": Value::Null,
        "decisionHistory": [],
        "recentActivity": {
            "pricingReports": reports,
            "systemEvents": system,
            "healthStatus": {
                "overall": word(is_healthy),
                "heartbeat": word(is_heard),
                "activity": word(is_reporting),
                "recentReportsCount": quotes.len().min(LATELY),
                "decisionCount": 0,
            },
        },
    })
}

/// One event for the dashboard.
pub(super) fn happening(event: &Event) -> Value {
    json!({
        "id": event.sequence.to_string(),
        "type": event.kind.as_str(),
        "severity": severity(event),
        "message": event.message,
        "time": show::moment(event.at),
    })
}

/// The contract's word for how grave an event is.
pub(super) fn severity(event: &Event) -> &'static str {
    match (event.kind, event.level) {
        (EventKind::NodeLost | EventKind::InterruptionNoticed, _) => "warning",
        (_, Level::Warning) => "warning",
        (_, Level::Info) => "info",
    }
}

/// Engines and models are not taken yet.
pub(super) async fn no_engine() -> No {
    No::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "this server takes no decision engines or models",
    )
    .with("code", Code::DriverUnsupported.as_str())
}

/// There is no model before the present one.
pub(super) async fn no_fallback() -> No {
    No::not_found("there is no fallback model")
}

/// No model was ever uploaded.
pub(super) async fn sessions() -> Json<Value> {
    Json(json!([]))
}

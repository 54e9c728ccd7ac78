//! Orders to agents: fetched as often as wanted, until the agent says that it has carried them out.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{RentedVerb, Reply, SwitchOrder, Verb};
use hostler_model::{Code, Command, CommandId, CommandKind, PoolId, Refusal, SwitchTarget};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::about::Own;
use super::agents::unexpected;
use super::answer::{Answer, No};
use super::body::Fields;
use super::who::{Agent, Asker};
use super::{Spot, show};

/// The priority of an order that names none, and of one by hand.
const PRIORITY: u32 = 5;
const BY_HAND: u32 = 75;

/// The orders that wait for an agent, the most urgent first. Nobody else's are told.
pub(super) async fn pending(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let holder = spot.holder(&headers, &Fields::default())?;
    let Ok(agent) = spot.agent(&id) else {
        return Ok(Json(json!([])));
    };
    if !holder.owns(&agent) {
        return Ok(Json(json!([])));
    }
    let mut commands = spot.control.pending_commands(agent.id());
    commands.sort_by_key(|command| (Reverse(command.priority), command.created_at, command.id));
    let items: Vec<Value> = commands.iter().filter_map(item).collect();
    Ok(Json(items.into()))
}

/// The order in the contract's words; none for those that the contract does not know.
fn item(command: &Command) -> Option<Value> {
    let (mode, pool, machine, wait) = match &command.kind {
        CommandKind::Switch {
            to,
            machine,
            terminate_wait_seconds,
            ..
        } => {
            let (mode, pool) = match to {
                SwitchTarget::Spot(pool) => ("spot", Some(pool.as_str())),
                SwitchTarget::OnDemand => ("ondemand", None),
            };
            (mode, pool, machine, terminate_wait_seconds)
        }
        CommandKind::Terminate {
            machine,
            terminate_wait_seconds,
            ..
        } => ("terminate", None, machine, terminate_wait_seconds),
        CommandKind::AcceptIntent { .. }
        | CommandKind::Cleanup
        | CommandKind::Collect { .. }
        | CommandKind::ListAdoptable { .. } => return None,
    };
    Some(json!({
        "id": command.id.to_string(),
        "agent_id": command.node.to_string(),
        "instance_id": machine,
        "target_mode": mode,
        "target_pool_id": pool,
        "priority": command.priority,
        "terminate_wait_seconds": wait,
        "created_at": show::moment(command.created_at),
    }))
}

/// The agent's answer. A second one, or one to an order that is not known, has no effect.
pub(super) async fn executed(
    State(spot): State<Spot>,
    Path((id, command)): Path<(String, String)>,
    headers: HeaderMap,
    body: Fields,
) -> Answer {
    let holder = spot.holder(&headers, &body)?;
    let message = body.prose("message").unwrap_or_default();
    let result = if body.flag("success").unwrap_or(true) {
        Ok(message)
    } else {
        Err(message)
    };
    let own = spot.agent(&id).ok();
    let own = own.filter(|agent| holder.owns(agent));
    if let (Some(agent), Ok(command)) = (own, command.parse::<CommandId>()) {
        let verb = Verb::Acknowledge {
            node: agent.id(),
            command,
            result,
        };
        match spot.control.submit(agent.actor(), verb).await {
            Ok(_) => {}
            Err(refusal) if refusal.code == Code::CommandNotFound => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Ok(Json(json!({"success": true})))
}

/// Orders a switch, for the agent's own client.
pub(super) async fn issue_switch(Own(about): Own) -> Result<Response, No> {
    let (spot, agent, body) = (&about.spot, &about.agent, &about.body);
    let to = target(body, "target_pool_id", &body.needed("target_mode")?)?;
    let (mode, pool) = words(&to);
    let reason = body.prose("reason").unwrap_or_default();
    let author = body.word("created_by")?;
    let order = SwitchOrder {
        to,
        reason: reason.clone(),
        is_by_hand: false,
        priority: body.whole("priority").unwrap_or(PRIORITY),
        author: author.unwrap_or_else(|| "client".to_owned()),
        request: request(&about.headers, body)?,
    };
    let verb = RentedVerb::OrderSwitch(Box::new(order));
    let command = match spot.rented(agent.actor(), agent, verb).await {
        Ok(Reply::Command { id }) => id,
        Ok(_) => return there_already(spot, agent),
        Err(refusal) => return Err(may_not(refusal)),
    };
    let answer = json!({
        "success": true,
        "command_id": command.to_string(),
        "agent_id": agent.id().to_string(),
        "target_mode": mode,
        "target_pool_id": pool,
        "reason": reason,
        "message": "Switch command issued",
        "auto_switch_enabled": agent.rental.policy.auto_switch,
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn there_already(spot: &Spot, agent: &Agent) -> Result<Response, No> {
    let agent = spot.agent(&agent.id().to_string())?;
    let machine = agent.rental.primary();
    let answer = json!({
        "success": false,
        "message": "The agent is there already",
        "current_mode": show::market(machine.map(|it| it.market).unwrap_or_default()),
        "current_pool_id": machine.and_then(|it| it.pool.as_ref()).map(PoolId::as_str),
    });
    Ok(Json(answer).into_response())
}

/// Why an agent may not be switched, in the contract's words.
fn may_not(refusal: Refusal) -> No {
    match refusal.code {
        Code::NodeStateConflict => No::bad("Agent is disabled"),
        Code::Forbidden => No::new(
            StatusCode::FORBIDDEN,
            "Auto-switch is disabled for this agent",
        ),
        _ => refusal.into(),
    }
}

/// Orders a switch by hand, for the agent that is on that machine.
pub(super) async fn force_switch(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    (asker, headers): (Asker, HeaderMap),
    body: Fields,
) -> Answer {
    let agent = spot.agent_on(&id)?;
    let order = SwitchOrder {
        to: target(&body, "pool_id", &body.needed("target")?)?,
        reason: "by hand".to_owned(),
        is_by_hand: true,
        priority: BY_HAND,
        author: "manual".to_owned(),
        request: request(&headers, &body)?,
    };
    let verb = RentedVerb::OrderSwitch(Box::new(order));
    match spot.rented(asker.actor(), &agent, verb).await? {
        Reply::Command { id } => Ok(Json(json!({
            "success": true,
            "command_id": id.to_string(),
            "message": "Switch command issued",
        }))),
        other => Err(unexpected(&other)),
    }
}

fn target(body: &Fields, pool: &str, mode: &str) -> Result<SwitchTarget, No> {
    match mode {
        "ondemand" => Ok(SwitchTarget::OnDemand),
        "spot" | "pool" => {
            let named = body.pool(pool)?;
            named
                .map(SwitchTarget::Spot)
                .ok_or_else(|| No::bad(format!("{pool} is required for spot")))
        }
        _ => Err(No::bad("the target is neither spot nor ondemand")),
    }
}

fn words(target: &SwitchTarget) -> (&'static str, Option<String>) {
    match target {
        SwitchTarget::Spot(pool) => ("spot", Some(pool.to_string())),
        SwitchTarget::OnDemand => ("ondemand", None),
    }
}

/// The caller's own id of the request, if it gave one.
fn request(headers: &HeaderMap, body: &Fields) -> Result<Option<String>, No> {
    let header = headers.get("x-request-id").and_then(|it| it.to_str().ok());
    let header = header.filter(|it| (1..=super::body::WORD).contains(&it.len()));
    match header {
        Some(id) => Ok(Some(id.to_owned())),
        None => body.word("request_id"),
    }
}

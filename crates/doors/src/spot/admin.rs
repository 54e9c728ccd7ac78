//! Clients as administrators open and close them, and the whole fleet in figures.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{AccountVerb, Reply, Verb};
use hostler_model::{Account, AccountStatus, Code, EventKind, Timestamp, Token};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::agents::unexpected;
use super::answer::{Answer, No};
use super::body::Fields;
use super::instances::{Asked, asked};
use super::who::{Agent, Asker};
use super::{Spot, show};

/// How a token looks: a word that tells what it is, and so many letters and digits.
const TOKEN_PREFIX: &str = "token-";
const TOKEN_LENGTH: usize = 32;
/// Rows of one list.
const MOST_ROWS: usize = 500;
const MOST_ACTIVITY: usize = 50;
const MOST_FOUND: usize = 50;
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Health in the contract's words, on its own listener.
pub(super) async fn health(State(spot): State<Spot>) -> Response {
    let is_ready = spot.control.readiness().is_ready();
    let (status, word) = if is_ready {
        (StatusCode::OK, "healthy")
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, "unhealthy")
    };
    let body = json!({
        "status": word,
        "timestamp": show::moment(spot.now()),
        "decision_engine_loaded": false,
        "database": database(&spot),
        "version": env!("CARGO_PKG_VERSION"),
    });
    (status, Json(body)).into_response()
}

pub(super) fn database(spot: &Spot) -> &'static str {
    let readiness = spot.control.readiness();
    let mut checks = readiness.checks.iter();
    if checks.all(|check| check.name != "store" || check.is_ok) {
        "connected"
    } else {
        "unavailable"
    }
}

/// Opens an account with a token of its own.
pub(super) async fn create(
    State(spot): State<Spot>,
    asker: Asker,
    body: Fields,
) -> Result<Response, No> {
    let name = body.needed("name")?;
    let token = spot.draw_token();
    let verb = AccountVerb::Open {
        name: name.clone(),
        email: body.word("email")?,
        token: token.clone(),
    };
    match submit(&spot, &asker, verb).await? {
        Reply::Account { id } => {
            tracing::info!(account = %id, name, contract = "spot", "account opened");
            let client = json!({
                "id": id.to_string(),
                "name": name,
                "token": token.reveal(),
                "status": "active",
            });
            Ok(Json(json!({"success": true, "client": client})).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

/// Closes an account; its agents are deleted with it.
pub(super) async fn remove(
    State(spot): State<Spot>,
    Path(client): Path<String>,
    asker: Asker,
) -> Answer {
    let account = spot.client_of(&client)?;
    let verb = AccountVerb::Close {
        account: account.id,
    };
    submit(&spot, &asker, verb).await?;
    let message = format!("Client {} deleted", account.name);
    Ok(Json(json!({"success": true, "message": message})))
}

/// A new token; the old one is worth nothing from now on.
pub(super) async fn renew(
    State(spot): State<Spot>,
    Path(client): Path<String>,
    asker: Asker,
) -> Answer {
    let account = spot.client_of(&client)?;
    let token = spot.draw_token();
    let verb = AccountVerb::RenewToken {
        account: account.id,
        token: token.clone(),
    };
    submit(&spot, &asker, verb).await?;
    Ok(Json(json!({
        "success": true,
        "token": token.reveal(),
        "message": "The old token is not valid any more",
    })))
}

pub(super) async fn token(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    Ok(Json(json!({
        "token": account.token.reveal(),
        "client_name": account.name,
    })))
}

pub(super) async fn clients(State(spot): State<Spot>) -> Json<Value> {
    let accounts: Vec<_> = spot.control.view().accounts().cloned().collect();
    let rows = accounts.iter().map(|account| show::client(&spot, account));
    Json(rows.collect())
}

async fn submit(spot: &Spot, asker: &Asker, verb: AccountVerb) -> Result<Reply, No> {
    let verb = Verb::Account(Box::new(verb));
    let submitted = spot.control.submit(asker.actor(), verb).await;
    submitted.map_err(|refusal| match refusal.code {
        Code::AccountNameTaken => No::new(StatusCode::CONFLICT, refusal.sentence),
        _ => refusal.into(),
    })
}

impl Spot {
    /// A token that nobody can guess: each letter is drawn from the kernel's randomness, all alike.
    fn draw_token(&self) -> Token {
        let mut text = TOKEN_PREFIX.to_owned();
        while text.len() < TOKEN_PREFIX.len() + TOKEN_LENGTH {
            let drawn = self.entropy.next_u64().to_le_bytes();
            // Bytes beyond a multiple of 62 would make some letters likelier than others.
            let fair = drawn.iter().filter(|byte| **byte < 248);
            let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte % 62)]));
            text.extend(letters);
        }
        text.truncate(TOKEN_PREFIX.len() + TOKEN_LENGTH);
        Token::new(text)
    }
}

/// What the whole fleet comes to.
pub(super) fn figures(spot: &Spot) -> Value {
    let agents = spot.agents_ever();
    let present = || agents.iter().filter(|agent| !agent.node.is_gone());
    let online = present().filter(|it| show::status(&it.node, &it.rental) == "online");
    let view = spot.control.view();
    let saved = view.accounts().map(|account| account.savings.total);
    let saved = saved.fold(hostler_model::Money::ZERO, hostler_model::Money::plus);
    let by_hand = view.switches().filter(|it| it.trigger == "manual").count();
    let switches = view.switches().len();
    json!({
        "totalAccounts": view.accounts().len(),
        "agentsOnline": online.count(),
        "agentsTotal": present().count(),
        "poolsCovered": view.pools().len(),
        "totalSavings": saved.as_dollars(),
        "totalSwitches": switches,
        "manualSwitches": by_hand,
        "modelSwitches": switches - by_hand,
        "backendHealth": if spot.control.readiness().is_ready() { "Healthy" } else { "Unhealthy" },
        "decisionEngineLoaded": false,
        "mlModelsLoaded": false,
    })
}

pub(super) async fn stats(State(spot): State<Spot>) -> Json<Value> {
    Json(figures(&spot))
}

/// How many days back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Days {
    days: String,
}

/// How many accounts there were on each day. Accounts that were closed are not counted.
pub(super) async fn growth(State(spot): State<Spot>, query: Asked<Days>) -> Json<Value> {
    const DAY_MS: u64 = 24 * 3_600_000;
    let days = asked(query).days.parse::<u64>().unwrap_or(30).clamp(1, 365);
    let today = spot.now().as_millis() / DAY_MS;
    let view = spot.control.view();
    let rows = (0..days).rev().map(|back| {
        let day = today.saturating_sub(back);
        let opened = |account: &&Arc<Account>| account.created_at.as_millis() / DAY_MS;
        let of_day = || view.accounts().filter(|it| opened(it) <= day);
        let active = of_day().filter(|it| it.status == AccountStatus::Active);
        let date: String = show::moment(Timestamp::from_millis(day * DAY_MS));
        json!({
            "date": date.chars().take(10).collect::<String>(),
            "active": active.count(),
            "new": view.accounts().filter(|it| opened(it) == day).count(),
            "total": of_day().count(),
        })
    });
    Json(rows.collect())
}

/// Which agents to list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OfStatus {
    status: String,
}

pub(super) async fn agents(State(spot): State<Spot>, query: Asked<OfStatus>) -> Json<Value> {
    let wanted = asked(query).status;
    let is_wanted = |agent: &&Agent| {
        let status = show::status(&agent.node, &agent.rental);
        matches!(wanted.as_str(), "" | "all") || status == wanted
    };
    let all = spot.agents_ever();
    let rows = all
        .iter()
        .rev()
        .filter(is_wanted)
        .take(MOST_ROWS)
        .map(|agent| {
            let mut row = show::past_agent(&spot, agent);
            let client = spot.control.view().account(agent.rental.account).cloned();
            row["clientId"] = agent.rental.account.to_string().into();
            row["clientName"] = client.map_or(Value::Null, |it| it.name.clone().into());
            row
        });
    let rows: Vec<Value> = rows.collect();
    Json(json!({"total": rows.len(), "agents": rows, "filters": {"status": wanted}}))
}

pub(super) async fn agents_health(State(spot): State<Spot>) -> Json<Value> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for agent in spot.agents_ever() {
        *counts
            .entry(show::status(&agent.node, &agent.rental))
            .or_default() += 1;
    }
    let of = |word| counts.get(word).copied().unwrap_or(0);
    let present: u32 = counts.values().sum::<u32>() - of("deleted");
    Json(json!({
        "total": present,
        "online": of("online"),
        "offline": of("offline"),
        "deleted": of("deleted"),
        "other": present - of("online") - of("offline"),
        "timestamp": show::moment(spot.now()),
    }))
}

/// The last happenings, in short.
pub(super) async fn activity(State(spot): State<Spot>) -> Json<Value> {
    let (events, _) = spot.control.events(None, MOST_ACTIVITY);
    let rows = events.iter().rev().map(|event| {
        let kind = match event.kind {
            EventKind::SwitchCompleted => "switch",
            _ if event.subject.node.is_some() => "agent",
            _ => "event",
        };
        json!({
            "id": event.sequence.to_string(),
            "type": kind,
            "text": event.message,
            "time": show::moment(event.at),
        })
    });
    Json(rows.collect())
}

pub(super) async fn system_health(State(spot): State<Spot>) -> Json<Value> {
    let is_ready = spot.control.readiness().is_ready();
    Json(json!({
        "apiStatus": if is_ready { "Healthy" } else { "Unhealthy" },
        "database": database(&spot),
        "decisionEngine": "Not Loaded",
        "connectionPool": "1/1",
        "timestamp": show::moment(spot.now()),
        "modelStatus": {"loaded": false, "filesUploaded": 0},
        "decisionEngineStatus": {"loaded": false, "type": Value::Null, "version": Value::Null},
    }))
}

/// What to look for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sought {
    q: String,
}

/// Clients, agents and machines with that text in their names or ids.
pub(super) async fn search(State(spot): State<Spot>, query: Asked<Sought>) -> Answer {
    let sought = asked(query).q.trim().to_lowercase();
    if sought.is_empty() {
        return Err(No::bad("Missing q"));
    }
    let has = |texts: &[&str]| texts.iter().any(|it| it.to_lowercase().contains(&sought));
    let accounts: Vec<_> = spot.control.view().accounts().cloned().collect();
    let accounts = accounts
        .iter()
        .filter(|it| has(&[&it.name, &it.id.to_string()]));
    let clients = accounts
        .take(MOST_FOUND)
        .map(|it| json!({"id": it.id.to_string(), "name": it.name}));
    let all = spot.agents_ever();
    let found = all.iter().filter(|it| {
        let id = it.id().to_string();
        has(&[&it.rental.logical, &it.node.facts.hostname, &id])
    });
    let agents = found.take(MOST_FOUND).map(|it| show::agent(&spot, it));
    let machines = all.iter().flat_map(|agent| {
        let machines = agent.rental.machines.iter();
        machines.map(move |machine| (agent, machine))
    });
    let machines = machines.filter(|(_, it)| has(&[&it.id, &it.instance_type]));
    let instances = machines.take(MOST_FOUND).map(|(agent, it)| {
        json!({
            "id": it.id,
            "type": it.instance_type,
            "az": it.zone,
            "agentId": agent.id().to_string(),
        })
    });
    Ok(Json(json!({
        "clients": clients.collect::<Vec<_>>(),
        "agents": agents.collect::<Vec<_>>(),
        "instances": instances.collect::<Vec<_>>(),
    })))
}

/// The pools that agents reported, with how many machines are in each.
pub(super) async fn pools(State(spot): State<Spot>) -> Json<Value> {
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    for agent in spot.agents_ever() {
        let active = agent.rental.machines.iter().filter(|it| it.is_active());
        for pool in active.filter_map(|machine| machine.pool.as_ref()) {
            *used.entry(pool.to_string()).or_default() += 1;
        }
    }
    let view = spot.control.view();
    let rows = view.pools().map(|pool| {
        json!({
            "id": pool.id.as_str(),
            "name": pool.title(),
            "instanceType": pool.instance_type,
            "region": pool.region,
            "az": pool.zone,
            "spotPrice": show::money(pool.spot),
            "onDemandPrice": show::money(pool.on_demand),
            "instances": used.get(pool.id.as_str()).copied().unwrap_or(0),
            "lastSeen": show::moment(pool.seen_at),
        })
    });
    let rows: Vec<Value> = rows.collect();
    Json(json!({"total": rows.len(), "pools": rows}))
}

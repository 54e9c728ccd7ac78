//! The rented machines of agents: what they are, what they cost, and what else could be rented.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use hostler_model::{Machine, Market, Money, Pool, PoolId, Quote, Role, Switch, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, No};
use super::who::Agent;
use super::{Spot, decisions, show};

/// Most rows of one list.
const MOST_ROWS: usize = 500;
const MOST_LOGS: usize = 100;
const HOUR_MS: u64 = 3_600_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Which machines to list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    status: String,
    mode: String,
    region: String,
    search: String,
}

/// How far back, and in which steps.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Span {
    pub days: String,
    pub interval: String,
    pub agent_id: String,
}

pub(super) type Asked<T> =
    Result<axum::extract::Query<T>, axum::extract::rejection::QueryRejection>;

pub(super) fn asked<T: Default>(query: Asked<T>) -> T {
    query.map(|query| query.0).unwrap_or_default()
}

pub(super) async fn of_client(
    State(spot): State<Spot>,
    Path(client): Path<String>,
    query: Asked<Filter>,
) -> Answer {
    let account = spot.client_of(&client)?;
    let filter = asked(query);
    let agents = spot.agents_of(account.id);
    Ok(Json(rows(&spot, &agents, &filter).into()))
}

pub(super) async fn all(State(spot): State<Spot>, query: Asked<Filter>) -> Answer {
    let filter = asked(query);
    let agents = spot.agents_ever();
    let rows = rows(&spot, &agents, &filter);
    Ok(Json(json!({
        "total": rows.len(),
        "instances": rows,
        "filters": {"status": filter.status, "mode": filter.mode, "region": filter.region},
    })))
}

fn rows(spot: &Spot, agents: &[Agent], filter: &Filter) -> Vec<Value> {
    let machines = agents.iter().flat_map(|agent| {
        let machines = agent.rental.machines.iter().rev();
        machines.map(move |machine| (agent, machine))
    });
    let is_wanted = |(agent, machine): &(&Agent, &Machine)| {
        let is_active = is_active(agent, machine);
        let status = match filter.status.as_str() {
            "active" => is_active,
            "terminated" => !is_active,
            _ => true,
        };
        let mode = matches!(filter.mode.as_str(), "" | "all")
            || show::market(machine.market) == filter.mode;
        let region =
            matches!(filter.region.as_str(), "" | "all") || machine.region == filter.region;
        let search = filter.search.to_lowercase();
        let found = [&machine.id, &machine.instance_type, &machine.zone]
            .iter()
            .any(|text| text.to_lowercase().contains(&search));
        status && mode && region && found
    };
    let wanted = machines.filter(is_wanted).take(MOST_ROWS);
    wanted
        .map(|(agent, machine)| row(spot, agent, machine))
        .collect()
}

fn is_active(agent: &Agent, machine: &Machine) -> bool {
    machine.is_active() && !agent.node.is_gone()
}

fn row(spot: &Spot, agent: &Agent, machine: &Machine) -> Value {
    let (spot_price, on_demand) = prices(spot, machine);
    json!({
        "id": machine.id,
        "agentId": agent.id().to_string(),
        "type": machine.instance_type,
        "region": machine.region,
        "az": machine.zone,
        "mode": show::market(machine.market),
        "poolId": machine.pool.as_ref().map_or("n/a", PoolId::as_str),
        "spotPrice": spot_price.unwrap_or_default().as_dollars(),
        "onDemandPrice": on_demand.unwrap_or_default().as_dollars(),
        "isActive": is_active(agent, machine),
        "instanceStatus": show::role(machine.role),
        "lastSwitch": show::moment_or_null(agent.rental.switched_at),
    })
}

/// The last spot and on-demand prices of the machine's kind, as far as agents have told them.
fn prices(spot: &Spot, machine: &Machine) -> (Option<Money>, Option<Money>) {
    let view = spot.control.view();
    let own = machine.pool.as_ref().and_then(|pool| view.pool(pool));
    let kin = view.pools_of(&machine.instance_type, &machine.region);
    let newest = kin
        .filter(|pool| pool.on_demand.is_some())
        .max_by_key(|pool| pool.seen_at);
    let on_demand = newest.and_then(|pool| pool.on_demand).or(machine.baseline);
    (own.and_then(|pool| pool.spot), on_demand)
}

/// The machine of that id, with its agent.
fn find(spot: &Spot, id: &str) -> Result<(Agent, Machine), No> {
    let agent = spot.agent_on(id)?;
    let machine = agent.rental.machine(id).cloned();
    let machine = machine.ok_or_else(|| No::not_found("Instance not found"))?;
    Ok((agent, machine))
}

pub(super) async fn pricing(State(spot): State<Spot>, Path(id): Path<String>) -> Answer {
    let (_, machine) = find(&spot, &id)?;
    let (_, on_demand) = prices(&spot, &machine);
    let pools = kin(&spot, &machine);
    let row = |pool: &Arc<Pool>| {
        json!({
            "id": pool.id.as_str(),
            "name": pool.title(),
            "az": pool.zone,
            "price": show::money(pool.spot),
            "savings": saving(pool.spot, on_demand),
        })
    };
    let current = machine.pool.as_ref().map(|id| {
        let known = pools.iter().find(|pool| pool.id == *id);
        let name = known.map_or_else(|| id.to_string(), |pool| pool.title());
        json!({"id": id.as_str(), "name": name, "az": machine.zone})
    });
    Ok(Json(json!({
        "currentMode": show::market(machine.market),
        "currentPool": current,
        "onDemand": {"name": "On-Demand", "price": show::money(on_demand)},
        "pools": pools.iter().map(row).collect::<Vec<_>>(),
    })))
}

/// The pools of the machine's kind in its region, the cheapest first.
fn kin(spot: &Spot, machine: &Machine) -> Vec<Arc<Pool>> {
    let view = spot.control.view();
    let kin = view.pools_of(&machine.instance_type, &machine.region);
    let mut pools: Vec<_> = kin.filter(|pool| pool.spot.is_some()).cloned().collect();
    pools.sort_by_key(|pool| pool.spot);
    pools
}

/// What the price saves of the on-demand price, in percent.
fn saving(price: Option<Money>, on_demand: Option<Money>) -> f64 {
    match (price, on_demand) {
        (Some(price), Some(whole)) if whole > Money::ZERO => {
            whole.minus(price).as_dollars() * 100.0 / whole.as_dollars()
        }
        _ => 0.0,
    }
}

pub(super) async fn metrics(State(spot): State<Spot>, Path(id): Path<String>) -> Answer {
    let (agent, machine) = find(&spot, &id)?;
    let (spot_price, on_demand) = prices(&spot, &machine);
    let now = spot.now();
    let switches: Vec<Arc<Switch>> = {
        let view = spot.control.view();
        view.switches_of(agent.id()).cloned().collect()
    };
    let since = |days: u32| {
        let from = switches.iter();
        from.filter(move |switch| now.since(switch.at) < DAY * days)
    };
    let saved = |switch: &Arc<Switch>| switch.prices.impact().max(Money::ZERO).times(24);
    let total = |saved: &mut dyn Iterator<Item = Money>| saved.fold(Money::ZERO, Money::plus);
    let hours = |at: Timestamp| now.since(at).as_secs_f64() / 3_600.0;
    let end = machine.ended_at.unwrap_or(now);
    Ok(Json(json!({
        "id": machine.id,
        "instanceType": machine.instance_type,
        "currentMode": show::market(machine.market),
        "currentPoolId": machine.pool.as_ref().map(PoolId::as_str),
        "spotPrice": show::money(spot_price),
        "onDemandPrice": show::money(on_demand),
        "baselineOnDemandPrice": show::money(machine.baseline),
        "uptimeHours": end.since(machine.since).as_secs_f64() / 3_600.0,
        "hoursSinceLastSwitch": agent.rental.switched_at.map(hours),
        "totalSwitches": switches.len(),
        "switchesLast7Days": since(7).count(),
        "switchesLast30Days": since(30).count(),
        "savingsLast30Days": total(&mut since(30).map(saved)).as_dollars(),
        "totalSavings": total(&mut switches.iter().map(saved)).as_dollars(),
    })))
}

pub(super) async fn price_history(
    State(spot): State<Spot>,
    Path(id): Path<String>,
    query: Asked<Span>,
) -> Answer {
    let (_, machine) = find(&spot, &id)?;
    Ok(Json(history(&spot, &machine, &asked(query))))
}

/// The mean price of each pool of the machine's kind in each hour or day.
pub(super) fn history(spot: &Spot, machine: &Machine, span: &Span) -> Value {
    let days = span.days.parse::<u32>().unwrap_or(7).clamp(1, 90);
    let step = if span.interval == "day" {
        24 * HOUR_MS
    } else {
        HOUR_MS
    };
    let (_, on_demand) = prices(spot, machine);
    let pools = kin(spot, machine);
    let mut steps: BTreeMap<u64, BTreeMap<String, Vec<Money>>> = BTreeMap::new();
    let mut add = |quote: &Quote, key: String, price: Money| {
        let at = quote.begins().as_millis() / step * step;
        let prices = steps.entry(at).or_default().entry(key).or_default();
        prices.push(price);
    };
    let now = spot.now();
    let view = spot.control.view();
    for pool in &pools {
        let quotes = view.quotes(&pool.id);
        for quote in quotes.filter(|quote| now.since(quote.begins()) < DAY * days) {
            add(quote, format!("pool_{}", pool.id), quote.spot);
            if let Some(price) = quote.on_demand {
                add(quote, "onDemand".to_owned(), price);
            }
        }
    }
    drop(view);
    let data = steps.into_iter().map(|(at, prices)| {
        let mut row = Map::from_iter([
            (
                "time".to_owned(),
                show::moment(Timestamp::from_millis(at)).into(),
            ),
            ("onDemand".to_owned(), show::money(on_demand)),
        ]);
        row.extend(
            prices
                .into_iter()
                .map(|(key, prices)| (key, mean(&prices).into())),
        );
        Value::Object(row)
    });
    let named = |pool: &Arc<Pool>| {
        json!({
            "id": pool.id.as_str(),
            "name": pool.title(),
            "az": pool.zone,
            "key": format!("pool_{}", pool.id),
        })
    };
    json!({
        "data": data.collect::<Vec<_>>(),
        "pools": pools.iter().map(named).collect::<Vec<_>>(),
        "onDemandPrice": show::money(on_demand),
    })
}

fn mean(prices: &[Money]) -> f64 {
    let sum = prices.iter().copied().fold(Money::ZERO, Money::plus);
    let count = u32::try_from(prices.len()).unwrap_or(u32::MAX).max(1);
    sum.as_dollars() / f64::from(count)
}

pub(super) async fn options(State(spot): State<Spot>, Path(id): Path<String>) -> Answer {
    let (_, machine) = find(&spot, &id)?;
    let family = |kind: &str| kind.split('.').next().unwrap_or_default().to_owned();
    let own = family(&machine.instance_type);
    let pools = kin(&spot, &machine);
    let view = spot.control.view();
    let mut kinds: BTreeSet<String> = view
        .pools()
        .filter(|pool| pool.region == machine.region && family(&pool.instance_type) == own)
        .map(|pool| pool.instance_type.clone())
        .collect();
    kinds.insert(machine.instance_type.clone());
    let row = |pool: &Arc<Pool>| {
        json!({
            "id": pool.id.as_str(),
            "az": pool.zone,
            "instanceType": pool.instance_type,
            "price": show::money(pool.spot),
        })
    };
    Ok(Json(json!({
        "currentType": machine.instance_type,
        "currentRegion": machine.region,
        "currentAz": machine.zone,
        "availablePools": pools.iter().map(row).collect::<Vec<_>>(),
        "availableTypes": kinds,
    })))
}

/// The last happenings of the machine's agent.
pub(super) async fn logs(State(spot): State<Spot>, Path(id): Path<String>) -> Answer {
    let (agent, _) = find(&spot, &id)?;
    let (events, _) = spot.control.events(None, usize::MAX);
    let own = events.iter().rev();
    let own = own.filter(|event| event.subject.node == Some(agent.id()));
    let rows = own.take(MOST_LOGS).map(|event| decisions::happening(event));
    Ok(Json(rows.collect()))
}

/// How machines are paid for: each mode with its count of active primaries.
pub(super) fn modes(agents: &[Agent]) -> Vec<Value> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for agent in agents.iter().filter(|agent| !agent.node.is_gone()) {
        let active = agent.rental.machines.iter();
        for machine in active.filter(|machine| machine.role == Role::Primary) {
            let market: Market = machine.market;
            *counts.entry(show::market(market)).or_default() += 1;
        }
    }
    let row = |(mode, count)| json!({"mode": mode, "count": count});
    counts.into_iter().map(row).collect()
}

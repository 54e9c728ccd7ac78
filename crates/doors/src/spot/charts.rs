//! Savings and switches over time. Months come from the accounts' books, which outlive single switches.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use hostler_model::{Account, AccountId, Month, Switch, SwitchEnd};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, No};
use super::instances::{Asked, Span, asked, history, modes};
use super::{Spot, show};

/// Months and switches of one answer.
const MOST_MONTHS: usize = 12;
const MOST_SWITCHES: usize = 100;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Whose switches.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Of {
    instance_id: String,
}

/// The month of a book's key, such as `2025-11`: its year, number and name.
pub(super) fn month(key: &str) -> (&str, usize, &'static str) {
    let (year, month) = key.split_once('-').unwrap_or((key, ""));
    let number: usize = month.parse().unwrap_or(0);
    let name = number.checked_sub(1).and_then(|at| MONTHS.get(at));
    (year, number, name.copied().unwrap_or("?"))
}

/// The last months of an account, the oldest first.
pub(super) fn months(account: &Account) -> Vec<(&String, &Month)> {
    let months = &account.savings.months;
    months
        .iter()
        .skip(months.len().saturating_sub(MOST_MONTHS))
        .collect()
}

pub(super) async fn savings(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    let rows = months(&account).into_iter().map(|(key, book)| {
        json!({
            "name": month(key).2,
            "savings": book.saved.as_dollars(),
            "onDemandCost": book.baseline.as_dollars(),
            "modelCost": book.paid.as_dollars(),
        })
    });
    Ok(Json(rows.collect()))
}

/// The kept switches of an account, the newest first.
pub(super) fn switches(spot: &Spot, account: AccountId) -> Vec<Arc<Switch>> {
    let view = spot.control.view();
    let own = view.switches().rev();
    own.filter(|switch| switch.account == account)
        .cloned()
        .collect()
}

pub(super) async fn switch_history(
    State(spot): State<Spot>,
    Path(client): Path<String>,
    query: Asked<Of>,
) -> Answer {
    let account = spot.client_of(&client)?;
    let machine = asked(query).instance_id;
    let is_of = |switch: &&Arc<Switch>| {
        machine.is_empty() || [&switch.from.machine, &switch.to.machine].contains(&&machine)
    };
    let switches = switches(&spot, account.id);
    let rows = switches.iter().filter(is_of).take(MOST_SWITCHES);
    Ok(Json(rows.map(|switch| row(switch)).collect()))
}

pub(super) fn pool_of(end: &SwitchEnd) -> &str {
    end.pool.as_ref().map_or("n/a", |pool| pool.as_str())
}

fn row(switch: &Switch) -> Value {
    let seconds = |millis: Option<u64>| millis.map(|millis| millis / 1000);
    json!({
        "id": switch.id.to_string(),
        "agentId": switch.node.to_string(),
        "oldInstanceId": switch.from.machine,
        "newInstanceId": switch.to.machine,
        "timestamp": show::moment(switch.at),
        "fromMode": show::market(switch.from.market),
        "toMode": show::market(switch.to.market),
        "fromPool": pool_of(&switch.from),
        "toPool": pool_of(&switch.to),
        "trigger": switch.trigger,
        "price": switch.prices.after().as_dollars(),
        "savingsImpact": switch.prices.impact().as_dollars(),
        "downtimeSeconds": seconds(switch.stamps.downtime_ms()),
        "totalDurationSeconds": seconds(switch.stamps.total_ms()),
    })
}

pub(super) async fn charts(State(spot): State<Spot>, Path(client): Path<String>) -> Answer {
    let account = spot.client_of(&client)?;
    let trend = months(&account).into_iter().map(|(key, book)| {
        json!({
            "month": month(key).2,
            "savings": book.saved.as_dollars(),
            "baseline": book.baseline.as_dollars(),
            "actual": book.paid.as_dollars(),
        })
    });
    let mut days: BTreeMap<String, u32> = BTreeMap::new();
    for switch in switches(&spot, account.id) {
        let day: String = show::moment(switch.at).chars().take(10).collect();
        *days.entry(day).or_default() += 1;
    }
    let days = days
        .into_iter()
        .map(|(date, switches)| json!({"date": date, "switches": switches}));
    Ok(Json(json!({
        "savingsTrend": trend.collect::<Vec<_>>(),
        "modeDistribution": modes(&spot.agents_of(account.id)),
        "switchFrequency": days.collect::<Vec<_>>(),
    })))
}

/// The price history of the machine that an agent is on.
pub(super) async fn pricing_history(State(spot): State<Spot>, query: Asked<Span>) -> Answer {
    let span = asked(query);
    if span.agent_id.is_empty() {
        return Err(No::bad("Missing agent_id"));
    }
    let agent = spot.agent(&span.agent_id)?;
    let machine = show::machine(&agent.rental);
    let machine = machine.ok_or_else(|| No::not_found("Instance not found"))?;
    Ok(Json(history(&spot, machine, &span)))
}

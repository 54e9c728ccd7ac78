//! Notifications: events of a client's agents that a person should see, with marks of those that were read.
//!
//! They are no records of their own: an event is one by its kind, and its number is the notification's id.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use hostler_control::fleet::{AccountVerb, Notices, Verb};
use hostler_model::{Account, AccountId, Event, EventKind, Level, NodeId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, No};
use super::body::Fields;
use super::decisions::severity;
use super::instances::{Asked, asked};
use super::who::Asker;
use super::{Spot, show};

/// Notifications of one answer, unless told otherwise, and at most.
const FEW: usize = 10;
const MOST: usize = 500;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listing {
    client_id: String,
    limit: String,
}

/// Whether a person is told of the event.
const fn is_notice(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::NodeJoined
            | EventKind::NodeLost
            | EventKind::NodeReturned
            | EventKind::NodeRemoved
            | EventKind::InstanceChanged
            | EventKind::InstanceEnded
            | EventKind::InterruptionNoticed
            | EventKind::SwitchCompleted
            | EventKind::ReplicaChanged
    ) || matches!(
        (event.kind, event.level),
        (EventKind::CommandFinished, Level::Warning)
    )
}

/// The kept notifications of one client or of all, the newest first, each with its account.
fn notices(spot: &Spot, only: Option<AccountId>) -> Vec<(Arc<Event>, Arc<Account>)> {
    let (events, _) = spot.control.events(None, usize::MAX);
    let view = spot.control.view();
    let mut owners: BTreeMap<NodeId, Option<Arc<Account>>> = BTreeMap::new();
    let mut owner = |node: NodeId| {
        let found = || view.account(view.rental(node)?.account).cloned();
        owners.entry(node).or_insert_with(found).clone()
    };
    let told = events.into_iter().rev().filter(|event| is_notice(event));
    told.filter_map(|event| {
        let account = owner(event.subject.node?)?;
        only.is_none_or(|only| only == account.id)
            .then_some((event, account))
    })
    .collect()
}

pub(super) async fn list(State(spot): State<Spot>, asker: Asker, query: Asked<Listing>) -> Answer {
    let listing = asked(query);
    let only = only(&spot, &asker, &listing.client_id)?;
    let limit = listing.limit.parse().unwrap_or(FEW).clamp(1, MOST);
    let notices = notices(&spot, only);
    let rows = notices.iter().take(limit).map(|(event, account)| {
        json!({
            "id": event.sequence.to_string(),
            "message": event.message,
            "severity": severity(event),
            "isRead": account.read.has(event.sequence),
            "time": show::moment(event.at),
            "clientId": account.id.to_string(),
        })
    });
    Ok(Json(rows.collect()))
}

/// The client that is asked about; of whose token is good for one alone, that one.
fn only(spot: &Spot, asker: &Asker, client: &str) -> Result<Option<AccountId>, No> {
    let own = asker.0.account();
    if client.is_empty() {
        return Ok(own);
    }
    let named = spot.client_of(client)?.id;
    if own.is_some_and(|own| own != named) {
        return Err(No::no_client());
    }
    Ok(Some(named))
}

/// One notification was read. One that is not there any more has been read as well.
pub(super) async fn mark(State(spot): State<Spot>, Path(id): Path<String>, asker: Asker) -> Answer {
    let number: u64 = id
        .parse()
        .map_err(|_| No::not_found("Notification not found"))?;
    let notices = notices(&spot, asker.0.account());
    let found = notices.iter().find(|(event, _)| event.sequence == number);
    if let Some((_, account)) = found {
        submit(&spot, &asker, (account.id, Notices::One(number))).await?;
    }
    Ok(Json(json!({"success": true})))
}

pub(super) async fn mark_all(
    State(spot): State<Spot>,
    asker: Asker,
    query: Asked<Listing>,
    body: Fields,
) -> Answer {
    let client = body.word("client_id")?;
    let client = client.unwrap_or_else(|| asked(query).client_id);
    let only = only(&spot, &asker, &client)?;
    let mut newest: BTreeMap<AccountId, u64> = BTreeMap::new();
    for (event, account) in notices(&spot, only) {
        let mark = newest.entry(account.id).or_default();
        *mark = event.sequence.max(*mark);
    }
    for (account, number) in newest {
        submit(&spot, &asker, (account, Notices::Through(number))).await?;
    }
    Ok(Json(json!({"success": true})))
}

async fn submit(
    spot: &Spot,
    asker: &Asker,
    (account, notices): (AccountId, Notices),
) -> Result<(), No> {
    let verb = AccountVerb::MarkRead { account, notices };
    let verb = Verb::Account(Box::new(verb));
    spot.control.submit(asker.actor(), verb).await?;
    Ok(())
}

/// The kept notifications of a client behind a number, the oldest first.
pub(super) fn after(spot: &Spot, client: AccountId, number: u64) -> Vec<Arc<Event>> {
    let notices = notices(spot, Some(client)).into_iter().rev();
    let behind = notices.filter(|(event, _)| event.sequence > number);
    behind.map(|(event, _)| event).collect()
}

/// The event's data on a stream.
pub(super) fn data(event: &Event) -> Value {
    json!({
        "data": {
            "agent_id": event.subject.node.map(|node| node.to_string()),
            "message": event.message,
            "severity": severity(event),
        },
        "timestamp": show::moment(event.at),
    })
}

//! `GET /api/events/stream/{client}`: what happens to a client's agents, as server-sent events.
//!
//! A stream begins with `CONNECTED` and says `HEARTBEAT` every half minute. It ends when the server stops, and when who
//! reads it may not any more.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{self, Sse};
use futures::StreamExt as _;
use futures::stream::{self, Stream};
use hostler_model::{AccountId, AccountStatus, EventKind};
use http::HeaderMap;
use serde_json::json;
use tokio::sync::watch;

use super::answer::No;
use super::who::{Asker, bearer};
use super::{Spot, notices, show};
use crate::access::Who;

const HEARTBEAT: Duration = Duration::from_secs(30);

/// Where one stream stands.
struct Place {
    spot: Spot,
    client: AccountId,
    /// The client's own token, where that let the reader in.
    token: Option<String>,
    news: watch::Receiver<u64>,
    told: u64,
    waiting: std::collections::VecDeque<sse::Event>,
}

pub(super) async fn events(
    State(spot): State<Spot>,
    Path(client): Path<String>,
    (Asker(who), headers): (Asker, HeaderMap),
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, No> {
    let client = spot.client_of(&client)?.id;
    let stay = spot.access.warrant(&who);
    let token = match who {
        Who::Account(_) => bearer(&headers).map(str::to_owned),
        _ => None,
    };
    let news = spot.control.watch_events();
    let told = *news.borrow();
    let connected = named("CONNECTED", json!({"client_id": client.to_string()}), &spot);
    let place = Place {
        spot,
        client,
        token,
        news,
        told,
        waiting: [connected].into(),
    };
    // The contract has no last word.
    let told = stream::unfold(place, next).take_until(Box::pin(stay.over()));
    Ok(Sse::new(told))
}

impl Place {
    /// Whether the client's token is still its token. A change of it is news.
    fn is_let_in(&self) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let view = self.spot.control.view();
        view.account_by_token(token)
            .is_some_and(|it| it.id == self.client && it.status == AccountStatus::Active)
    }
}

async fn next(mut place: Place) -> Option<(Result<sse::Event, Infallible>, Place)> {
    loop {
        if let Some(event) = place.waiting.pop_front() {
            return Some((Ok(event), place));
        }
        let tasks = place.spot.control.tasks().clone();
        // Cancel-safe: a change that was not seen is still there for the next wait.
        let woken = tokio::select! {
            biased;
            () = tasks.stopping() => return None,
            woken = tokio::time::timeout(HEARTBEAT, place.news.changed()) => woken,
        };
        if !place.is_let_in() {
            return None;
        }
        match woken {
            Err(_) => {
                let beat = named("HEARTBEAT", json!({}), &place.spot);
                place.waiting.push_back(beat);
            }
            Ok(Err(_)) => return None,
            Ok(Ok(())) => {
                let newest = *place.news.borrow_and_update();
                let events = notices::after(&place.spot, place.client, place.told);
                place.told = newest;
                for event in events {
                    place.told = place.told.max(event.sequence);
                    let named = sse::Event::default().event(name(event.kind));
                    let data = notices::data(&event).to_string();
                    place.waiting.push_back(named.data(data));
                }
            }
        }
    }
}

fn named(name: &str, data: serde_json::Value, spot: &Spot) -> sse::Event {
    let data = json!({"data": data, "timestamp": show::moment(spot.now())});
    sse::Event::default().event(name).data(data.to_string())
}

/// The contract's name of a happening.
const fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::InstanceEnded => "INSTANCE_TERMINATED",
        EventKind::InstanceChanged | EventKind::SwitchCompleted => "INSTANCE_RUNNING",
        EventKind::ReplicaChanged => "INSTANCE_STATE_CHANGED",
        EventKind::InterruptionNoticed => "EMERGENCY_EVENT",
        EventKind::CommandFinished => "COMMAND_EXECUTED",
        _ => "AGENT_STATUS_CHANGED",
    }
}

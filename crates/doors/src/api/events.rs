//! Events: a list, or a stream that resumes where a client stopped.
//!
//! The stream reads the bounded log of the control plane and waits on its watch; a client that is slow, or
//! comes back late, misses what is no longer kept and is told so by a `gap`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt as _, stream};
use hostler_control::Control;
use hostler_model::Event;
use hostler_wire::api::{self, EventGap, EventQuery, media};
use http::{HeaderMap, Uri, header};
use serde::Serialize;
use tokio::sync::watch;

use super::page::PageQuery;
use super::refuse::{Failure, problem};
use super::take::{Query, Stay};
use super::{Api, convert};

/// Events that one look at the log takes.
const CHUNK: usize = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(api::stream::KEEP_ALIVE_SECONDS);

/// What happened, the oldest first: a list, or with `follow` or `Accept: text/event-stream` a stream.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(EventQuery, ("limit" = Option<usize>, Query, description = "At most so many, 1 to 1000"),
        ("Last-Event-ID" = Option<String>, Header, description = "Where a stream goes on")),
    responses((status = 200, body = Vec<api::Event>), (status = "default", body = api::Problem)))]
pub(super) async fn events(
    State(api): State<Api>,
    uri: Uri,
    (headers, Stay(stay)): (HeaderMap, Stay),
    Query(query): Query<EventQuery>,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    if !query.follow && !wants_stream(&headers) {
        return list(&api.control, query.after, &page, &uri);
    }
    let after = resume_id(&headers)?.or(query.after);
    let following = Following::start(&api.control, after);
    let told = stream::unfold(following, Following::next);
    let word = |refusal| sse_event(api::stream::PROBLEM, &problem(refusal));
    Ok(answer(stay.limit(told, word), &api.control))
}

fn list(
    control: &Control,
    after: Option<u64>,
    page: &PageQuery,
    uri: &Uri,
) -> Result<Response, Failure> {
    let limit = page.checked_limit()?;
    let (events, _) = control.events(after, limit + usize::from(after.is_some()));
    let page = page.cut(events, |event| event.sequence)?;
    Ok(page.map(|event| convert::event(&event)).answer(uri))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|it| it.to_str().ok())
        .any(|it| it.contains(media::EVENT_STREAM))
}

fn resume_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    let refused = || Failure::bad("Last-Event-ID: this is no sequence number of an event");
    id.map(Some).ok_or_else(refused)
}

/// A stream as the answer: it ends when the server stops, and is kept alive by comments.
pub(super) fn answer(
    events: impl Stream<Item = sse::Event> + Send + 'static,
    control: &Control,
) -> Response {
    let tasks = control.tasks().clone();
    let stopping = Box::pin(async move { tasks.stopping().await });
    let events = events.take_until(stopping).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    (no_store, Sse::new(events).keep_alive(keep_alive)).into_response()
}

/// One event of a stream.
pub(super) fn sse_event(name: &str, body: &impl Serialize) -> sse::Event {
    // Our bodies are plain structs: writing them cannot fail.
    sse::Event::default()
        .event(name)
        .json_data(body)
        .unwrap_or_default()
}

/// A client that follows.
struct Following {
    control: Control,
    newest: watch::Receiver<u64>,
    /// The last event that was told; none yet means all that is kept.
    after: Option<u64>,
    ready: VecDeque<Arc<Event>>,
}

impl Following {
    fn start(control: &Control, after: Option<u64>) -> Self {
        let (control, newest) = (control.clone(), control.watch_events());
        Self {
            control,
            newest,
            after,
            ready: VecDeque::new(),
        }
    }

    async fn next(mut self) -> Option<(sse::Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.after = Some(event.sequence);
                let shown = sse_event(api::stream::EVENT, &convert::event(&event));
                return Some((shown.id(event.sequence.to_string()), self));
            }
            if let Some(gap) = self.read() {
                return Some((sse_event(api::stream::GAP, &gap), self));
            }
            // Cancel-safe; a change since the last look is seen at once.
            if self.ready.is_empty() && self.newest.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Takes what the log holds now, and says whether something between is forgotten.
    fn read(&mut self) -> Option<EventGap> {
        let newest = *self.newest.borrow_and_update();
        let (events, oldest) = self.kept();
        self.ready = events.into();
        let after = self.after?;
        // A place that this fleet has not reached was another fleet's, or is from before a restore.
        let is_ahead = after > newest;
        if !is_ahead && oldest <= after.saturating_add(1) {
            return None;
        }
        self.after = None;
        self.ready = self.kept().0.into();
        Some(EventGap { oldest })
    }

    /// The next events of the log, which is bounded; without a place all of them.
    fn kept(&self) -> (Vec<Arc<Event>>, u64) {
        let limit = if self.after.is_some() {
            CHUNK
        } else {
            usize::MAX
        };
        self.control.events(self.after, limit)
    }
}

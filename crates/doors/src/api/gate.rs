//! What every request passes on its way in and out: its id, the check against foreign pages, who asks, its time-out,
//! and the writing of problem documents. One layer does all of it, because each layer of a router makes a request
//! copy every layer below. Owns nothing; what it refuses is a [`Failure`] as any other.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use hostler_kit::trust::veiled;
use hostler_model::{Code, Refusal};
use hostler_wire::api::media;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::cors::Sharing;
use super::refuse::{Failure, Unwritten};
use super::{Api, login, miaas, origin};
use crate::Peer;
use crate::access::{Knock, Session, Who, takes_cookie};
use crate::audit::Entry;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a change by a session carries beside its cookie.
const PROOF: HeaderName = HeaderName::from_static("x-csrf-token");
/// Most bytes of a request id that a caller chooses.
const REQUEST_ID_BYTES: usize = 64;
/// How long a request that is no stream may take, its body included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives the request an id, refuses what may not come in, and finishes the answer.
pub(super) async fn pass(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| is_request_id(id))
        .cloned();
    let id = given.unwrap_or_else(|| api.request_id());
    let mut entry = Entry::begin(&api.access, "api", &request).called(&id);
    let (method, path) = (entry.method.clone(), veiled(&entry.path).into_owned());
    let sharing = Sharing::of(&api.miaas, &request, may_show_cookie(&api, &request));
    let response = match admit((&api, &mut entry), &request, &sharing) {
        Ok((who, session)) => {
            request.extensions_mut().insert(who);
            if let Some(session) = session {
                request.extensions_mut().insert(session);
            }
            answer(request, next).await
        }
        Err(refused) => {
            if !entry.is_known() {
                entry.by(api.access.by_shown(request.headers()));
            }
            *refused
        }
    };
    let problem = response.extensions().get::<Unwritten>();
    let code = problem.map(|problem| problem.0.code.clone());
    entry.answered(&response, code.as_deref()).await;
    let mut response = written(response, &id, &method, &path);
    sharing.mark(response.headers_mut());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Who asks, and the session of a browser that says so.
type Asking = (Who, Option<Session>);

/// Answers preflights, and refuses what no handler is to see. Answers who asks.
fn admit(
    (api, entry): (&Api, &mut Entry),
    request: &Request,
    sharing: &Sharing,
) -> Result<Asking, Box<Response>> {
    if let Some(answer) = sharing.preflight(&api.miaas, request) {
        return Err(Box::new(answer));
    }
    if !sharing.is_open() {
        let kept_out = origin::keep_pages_out(request, api.access.is_guarded());
        kept_out.map_err(|failure| Box::new(failure.into_response()))?;
    }
    let asking = identify((api, entry), request);
    let asking = asking.map_err(|refusal| Box::new(Failure(refusal).into_response()))?;
    miaas::refuse_head(&api.miaas, request).map_err(Box::new)?;
    Ok(asking)
}

/// Who asks, if they may ask this. A path that no route has is told to everybody.
fn identify((api, entry): (&Api, &mut Entry), request: &Request) -> Result<Asking, Refusal> {
    let (headers, peer) = (request.headers(), request.extensions().get());
    let Some(route) = route(request) else {
        let who = api.access.who(headers, peer)?;
        entry.of(&who);
        return Ok((who, None));
    };
    // Whoever shows a token or a key means that, whatever the browser adds.
    let has_key = peer.is_some_and(|peer: &Peer| peer.key.is_some());
    let shows_nothing = !headers.contains_key(http::header::AUTHORIZATION) && !has_key;
    let is_looked_at = shows_nothing && may_show_cookie(api, request);
    let session = is_looked_at.then(|| api.access.session(headers)).flatten();
    let knock = Knock {
        method: request.method(),
        route,
        headers,
        peer,
    };
    let asked = api.access.ask(knock, session.as_ref())?;
    entry.of(&asked.who);
    if let Some(session) = &session {
        is_meant(request, session)?;
    }
    asked.check()?;
    Ok((asked.who, session))
}

fn route(request: &Request) -> Option<&str> {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map(MatchedPath::as_str)
}

/// Whether the cookie of a session is looked at.
fn may_show_cookie(api: &Api, request: &Request) -> bool {
    api.access.is_guarded() && route(request).is_some_and(takes_cookie)
}

/// A browser adds a cookie by itself, so what changes something needs more: that it comes from a page of our own, and
/// what only such a page knows. A page cannot send headers with a socket.
fn is_meant(request: &Request, session: &Session) -> Result<(), Refusal> {
    let is_change = origin::is_write(request);
    if !is_change && !origin::is_socket(request) {
        return Ok(());
    }
    if !origin::is_own_page(request) {
        return Err(origin::of_another_site());
    }
    let proof = request.headers().get(PROOF);
    let is_proved = || proof.is_some_and(|it| session.is_proof(it.to_str().unwrap_or_default()));
    if !is_change || login::has_own_proof(request.uri().path()) || is_proved() {
        return Ok(());
    }
    let sentence = "a change by a session needs its proof, and none that fits was sent";
    let advice =
        "send `csrf` of `GET /api/v1/whoami` as `X-CSRF-Token`, or a token instead of the cookie";
    Err(Refusal::new(Code::Forbidden, sentence, advice))
}

/// A panic in a handler is a bug of ours, and an answer all the same.
async fn answer(request: Request, next: Next) -> Response {
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        tracing::error!("a handler panicked");
        let advice = "look for the request id in the server's log, and report it";
        Failure(Refusal::new(
            Code::Internal,
            "the server has a bug here",
            advice,
        ))
        .into_response()
    })
}

/// The answer, its problem document written if there is one.
fn written(mut response: Response, id: &HeaderValue, method: &Method, path: &str) -> Response {
    let Some(Unwritten(problem)) = response.extensions_mut().remove::<Unwritten>() else {
        tracing::debug!(%method, path, ?id, status = response.status().as_u16(), "answered");
        return response;
    };
    let problem = problem.with_request_id(id.to_str().unwrap_or_default());
    let detail = veiled(&problem.detail);
    tracing::debug!(%method, path, ?id, code = problem.code, %detail, "refused");
    let content_type = [(header::CONTENT_TYPE, media::PROBLEM)];
    let headers = std::mem::take(response.headers_mut());
    let mut written = (response.status(), content_type, Json(problem)).into_response();
    keep(headers, written.headers_mut());
    written
}

/// Takes over what the handlers and the router said beside the body, such as `Allow`.
fn keep(from: HeaderMap, into: &mut HeaderMap) {
    for (name, value) in from {
        let Some(name) = name else { continue };
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            into.insert(name, value);
        }
    }
}

fn is_request_id(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= REQUEST_ID_BYTES
        && bytes.iter().all(|byte| byte.is_ascii_graphic())
}

/// Ends a request that takes too long.
pub(super) async fn hurry(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(PATIENCE, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let sentence = format!("the request took longer than {} s", PATIENCE.as_secs());
        let advice = "whether it took effect is unknown: look before you try again";
        Failure(Refusal::new(Code::Overloaded, sentence, advice)).into_response()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_one_short_word() {
        for (id, expected) in [("abc-1", true), ("", false), ("a b", false)] {
            assert_eq!(
                is_request_id(&HeaderValue::from_static(id)),
                expected,
                "{id}"
            );
        }
        assert!(!is_request_id(&"x".repeat(65).parse().unwrap()));
    }
}

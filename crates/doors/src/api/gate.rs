//! What every request passes on its way in and out: its id, the check against foreign pages, its time-out,
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
use super::{Api, miaas};
use crate::access::{Who, need};
use crate::audit::Entry;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
    let sharing = Sharing::of(&api.miaas, &request);
    let response = match admit((&api, &mut entry), &request, &sharing) {
        Ok(who) => {
            request.extensions_mut().insert(who);
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

/// Answers preflights, and refuses what no handler is to see. Answers who asks.
fn admit(
    (api, entry): (&Api, &mut Entry),
    request: &Request,
    sharing: &Sharing,
) -> Result<Who, Box<Response>> {
    if let Some(answer) = sharing.preflight(&api.miaas, request) {
        return Err(Box::new(answer));
    }
    if !sharing.is_open() {
        keep_pages_out(request).map_err(|failure| Box::new(failure.into_response()))?;
    }
    let who = identify((api, entry), request);
    let who = who.map_err(|refusal| Box::new(Failure(refusal).into_response()))?;
    miaas::refuse_head(&api.miaas, request).map_err(Box::new)?;
    Ok(who)
}

/// Who asks, if they may ask this. A path that no route has is told to everybody.
fn identify((api, entry): (&Api, &mut Entry), request: &Request) -> Result<Who, Refusal> {
    let (headers, peer) = (request.headers(), request.extensions().get());
    let who = api.access.who(headers, peer)?;
    entry.of(&who);
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        who.check(need(request.method(), route.as_str()))?;
    }
    Ok(who)
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

/// Without login, a page of another site that a person has open could order this server about: a browser
/// sends plain posts anywhere. So a write that names an origin must come from this server's own address,
/// and that must not be a name that another site could point here.
fn keep_pages_out(request: &Request) -> Result<(), Failure> {
    let is_write = !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    // What comes over a socket a browser shows to any page that opened it: no rule of sharing holds there.
    let is_socket = request.headers().contains_key(header::UPGRADE);
    let is_of_files = is_of_files(request.uri().path());
    if ((is_write || is_socket) && !is_same_origin(request.headers()))
        || (is_of_files && is_under_foreign_name(request.headers()))
    {
        let sentence =
            "a page of another site may neither change this fleet nor read its streams and files";
        let advice = "use the command line, or a client that sends no `Origin`";
        return Err(Failure(Refusal::new(Code::Forbidden, sentence, advice)));
    }
    Ok(())
}

/// Where files of copies are read and written, and where all that is kept can be had.
fn is_of_files(path: &str) -> bool {
    let is_of_copies = path.starts_with("/api/v1/assignments/") && path.ends_with("/files");
    is_of_copies || path == "/api/v1/backup"
}

/// Whoever owns the name of a page can point it here once the page is open. The page then reads from what its browser
/// takes for its own site, so that no origin is named. But a browser always says which encodings it takes, whatever the
/// page wants; command lines do not, and may know this server by any name.
fn is_under_foreign_name(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ACCEPT_ENCODING) && !host_of(headers).is_some_and(is_own_name)
}

fn host_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return true;
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let (Some((_, authority)), Some(host)) = (authority, host_of(headers)) else {
        return false;
    };
    authority == host && is_own_name(host)
}

/// An address or `localhost`: nobody else can make such a name point here.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: Option<&str>, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_our_own_address_may_be_the_origin_of_a_write() {
        for (origin, host, expected) in [
            (None, "127.0.0.1:8080", true),
            (Some("http://127.0.0.1:8080"), "127.0.0.1:8080", true),
            (Some("http://localhost:8080"), "localhost:8080", true),
            (Some("http://[::1]:8080"), "[::1]:8080", true),
            (Some("http://evil.example"), "127.0.0.1:8080", false),
            (Some("http://evil.example:8080"), "evil.example:8080", false),
            (Some("null"), "127.0.0.1:8080", false),
        ] {
            assert_eq!(
                is_same_origin(&headers(origin, host)),
                expected,
                "{origin:?} {host}"
            );
        }
    }

    #[test]
    fn no_page_reads_files_under_a_name_that_others_could_point_here() {
        let files = "/api/v1/assignments/x/files?path=/etc";
        for (path, host, encodings, expected) in [
            (files, "evil.example:8080", Some("gzip"), false),
            (files, "evil.example:8080", None, true),
            (files, "127.0.0.1:8080", Some("gzip"), true),
            (files, "localhost:8080", Some("gzip"), true),
            ("/api/v1/backup", "evil.example:8080", Some("gzip"), false),
            ("/api/v1/nodes", "evil.example:8080", Some("gzip"), true),
        ] {
            let mut request = Request::new(axum::body::Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            *request.headers_mut() = headers(None, host);
            if let Some(encodings) = encodings {
                let encodings = HeaderValue::from_static(encodings);
                request
                    .headers_mut()
                    .insert(header::ACCEPT_ENCODING, encodings);
            }
            let passes = keep_pages_out(&request).is_ok();
            assert_eq!(passes, expected, "{path} {host} {encodings:?}");
        }
    }

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

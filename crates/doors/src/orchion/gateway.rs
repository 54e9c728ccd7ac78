//! The HTTP gateway's routes about the cluster: `/api/nodes` and `/api/logs`, open to pages of any origin as the
//! contract has them. They take no cookie, and nothing but GET.
//!
//! Errors are what Go's `http.Error` writes: the sentence as plain text, with a line break.

use std::any::Any;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Extension, Json, Router};
use hostler_model::{Code, Contract};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Door, entries, picture};
use crate::access::{Knock, Who};

/// What pages may do with a route.
#[derive(Debug, Clone, Copy)]
pub(super) struct Openness {
    pub methods: &'static str,
    pub headers: &'static str,
}

pub(super) fn routes(door: Door) -> Router {
    Router::new()
        .route("/api/nodes", any(nodes))
        .route("/api/logs", any(logs))
        .with_state(door)
}

/// Lets through whoever may ask this. Pages of any origin may read that they may not.
pub(super) async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let knock = Knock {
        method: request.method(),
        route: request.uri().path(),
        headers: request.headers(),
        peer: request.extensions().get(),
    };
    let admitted = (door.access).admit_to(Contract::Orchion, knock, |headers| door.shown(headers));
    let refusal = match admitted {
        Ok((who, _)) => {
            request.extensions_mut().insert(who.clone());
            let mut response = next.run(request).await;
            door.access.tell_by(&who, &mut response);
            return response;
        }
        Err(refusal) => refusal,
    };
    let mut response = match refusal.code {
        Code::Unauthenticated | Code::NodeKeyUnknown => {
            refused(StatusCode::UNAUTHORIZED, "Unauthorized")
        }
        Code::TooManyAttempts => refused(StatusCode::TOO_MANY_REQUESTS, &refusal.sentence),
        _ => refused(StatusCode::FORBIDDEN, "Forbidden"),
    };
    let any = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

async fn nodes(State(door): State<Door>, method: Method) -> Response {
    const OPENNESS: Openness = Openness {
        methods: "GET, OPTIONS",
        headers: "Content-Type",
    };
    let response = match method {
        Method::GET => Json(picture::living(&door.control)).into_response(),
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => wrong_method(OPENNESS),
    };
    open(response, OPENNESS)
}

/// A stream for who asks for one, as dashboards do; else the newest entries as a list.
async fn logs(
    State(door): State<Door>,
    who: Option<Extension<Who>>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    const OPENNESS: Openness = Openness {
        methods: "GET, OPTIONS",
        headers: "Cache-Control",
    };
    let response = match method {
        Method::GET if wants_stream(&headers) => {
            let who = who.map_or(Who::Nobody, |who| who.0);
            entries::events(&door.control, door.access.warrant(&who)).into_response()
        }
        Method::GET => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, entries::recent(&door.control)).into_response()
        }
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => wrong_method(OPENNESS),
    };
    let mut response = open(response, OPENNESS);
    let vary = HeaderValue::from_static("accept");
    response.headers_mut().insert(header::VARY, vary);
    response
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|it| it.to_str().ok())
        .any(|it| it.contains("text/event-stream"))
}

/// A refusal in the contract's form.
pub(super) fn refused(status: StatusCode, sentence: &str) -> Response {
    const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, format!("{sentence}\n")).into_response()
}

pub(super) fn wrong_method(openness: Openness) -> Response {
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    let methods = HeaderValue::from_static(openness.methods);
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

/// Marks an answer of a route that pages of any origin may use.
pub(super) fn open(mut response: Response, openness: Openness) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, openness.methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, openness.headers),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A panic in a handler is a bug of ours, and an answer all the same.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    refused(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the server has a bug here",
    )
}

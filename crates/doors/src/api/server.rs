//! The server about itself: root, version, health and readiness. No secrets, no login.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hostler_control::Readiness;
use hostler_model::Timestamp;
use hostler_wire::api;
use hostler_wire::session::{VERSION_HIGHEST, VERSION_LOWEST};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::take::Asker;
use super::{Api, login, pages};
use crate::access::{Session, Who};

/// The version of this build.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `GET /`: the keys of both of MIaaS's dialects.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Root {
    message: &'static str,
    service: &'static str,
    version: &'static str,
    docs: &'static str,
}

/// What this is: as JSON, or for a browser as a page. Where there is login, the page is for whoever is logged in.
#[utoipa::path(get, path = "/", tag = "server", responses((status = 200, body = Root)))]
pub(super) async fn root(
    State(api): State<Api>,
    Asker(who): Asker,
    session: Option<Extension<Session>>,
    headers: HeaderMap,
) -> Response {
    let mut response = match session {
        _ if !pages::wants_page(&headers) => Json(Root {
            message: "Hostler control plane",
            service: "hostler",
            version: VERSION,
            docs: "/docs",
        })
        .into_response(),
        Some(Extension(session)) => login::greeting(&session),
        None if who == Who::Nobody => login::asked(),
        None => pages::docs().await,
    };
    let vary = if api.access.is_guarded() {
        "accept, cookie"
    } else {
        "accept"
    };
    let vary = HeaderValue::from_static(vary);
    response.headers_mut().insert(header::VARY, vary);
    response
}

/// The versions of the server and of its contracts.
#[utoipa::path(get, path = "/version", tag = "server",
    responses((status = 200, body = api::Version)))]
pub(super) async fn version() -> Json<api::Version> {
    Json(api::Version {
        version: VERSION.to_owned(),
        api: "v1".to_owned(),
        session: api::SessionVersions {
            lowest: VERSION_LOWEST,
            highest: VERSION_HIGHEST,
        },
    })
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "server",
    responses((status = 200, body = api::Live)))]
pub(super) async fn live() -> Json<api::Live> {
    Json(api::Live {
        status: "ok".to_owned(),
    })
}

/// Whether requests can be served; each check with `?verbose`.
#[utoipa::path(get, path = "/readyz", tag = "server",
    params(("verbose" = Option<String>, Query, description = "List the checks that pass, too")),
    responses((status = 200, body = api::Ready), (status = 503, body = api::Ready)))]
pub(super) async fn ready(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let readiness = api.control.readiness();
    let query = query.unwrap_or_default();
    let is_verbose = query
        .split('&')
        .any(|pair| pair == "verbose" || pair == "verbose=true");
    let shown = readiness
        .checks
        .iter()
        .filter(|check| is_verbose || !check.is_ok);
    let checks = shown.map(|check| api::Check {
        name: check.name.to_owned(),
        ok: check.is_ok,
        detail: check.message.clone(),
    });
    let ready = api::Ready {
        ready: readiness.is_ready(),
        checks: checks.collect(),
    };
    (status(&readiness), Json(ready)).into_response()
}

/// Health in the words of MIaaS and of the spot manager.
#[utoipa::path(get, path = "/health", tag = "server",
    responses((status = 200, body = api::Health), (status = 503, body = api::Health)))]
pub(super) async fn health(State(api): State<Api>) -> Response {
    let readiness = api.control.readiness();
    let has_store = readiness
        .checks
        .iter()
        .all(|check| check.name != "store" || check.is_ok);
    let word = if readiness.is_ready() {
        "healthy"
    } else {
        "unhealthy"
    };
    let health = api::Health {
        status: word.to_owned(),
        timestamp: Timestamp::from_millis(api.control.clock().wall_millis()).to_string(),
        database: if has_store {
            "connected"
        } else {
            "unavailable"
        }
        .to_owned(),
        version: VERSION.to_owned(),
        decision_engine_loaded: false,
    };
    (status(&readiness), Json(health)).into_response()
}

fn status(readiness: &Readiness) -> StatusCode {
    if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

//! The spot manager's contract over HTTP: agents, clients and administrators. `docs/routes.md` lists the routes,
//! `docs/decisions/0013-spot.md` says what was chosen.
//!
//! An *agent* is our node, its id is the node's; a *client* is our account; what an agent is beside a node is its
//! rental. Each handler reads a body leniently (`body`), says who may (`who`), makes one `Control` call and writes
//! the contract's keys (`show`). The door owns no state. What can fail leaves as `{"error": …}` (`answer`).

mod about;
mod admin;
mod agents;
mod answer;
mod body;
mod charts;
mod clients;
mod commands;
mod csv;
mod decisions;
mod emergencies;
mod instances;
mod notices;
mod replica_rows;
mod replicas;
mod reports;
mod show;
mod stream;
mod who;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use hostler_control::Control;
use hostler_kit::Entropy;
use hostler_model::Timestamp;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower_http::catch_panic::CatchPanicLayer;

use self::answer::No;
pub(crate) use self::who::bearer;
use crate::{Access, Parts};

/// Seconds for which a browser remembers the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// How long a request may take, a body of the largest size included.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Spot {
    control: Control,
    entropy: Arc<dyn Entropy>,
    access: Access,
}

impl Spot {
    fn new(parts: &Parts) -> Self {
        Self {
            control: parts.control.clone(),
            entropy: Arc::clone(&parts.entropy),
            access: parts.access.clone(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.control.clock().wall_millis())
    }
}

/// The routes beside those of other contracts, without a fallback.
pub(crate) fn beside(parts: &Parts) -> Router {
    let spot = Spot::new(parts);
    dress(routes(), &spot).with_state(spot)
}

/// The routes on a listener of their own, with the contract's answers for unknown paths.
pub(crate) fn alone(parts: &Parts) -> Router {
    let routes = routes()
        .route("/health", get(admin::health))
        .fallback(no_route);
    let spot = Spot::new(parts);
    dress(routes, &spot).with_state(spot)
}

/// What every request passes: any page may ask, who asks may, a panic is an answer, and bodies are limited by `body`.
fn dress(routes: Router<Spot>, spot: &Spot) -> Router<Spot> {
    routes
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(spot.clone(), who::admit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(hurry))
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(open_to_pages))
}

fn routes() -> Router<Spot> {
    of_agents()
        .merge(of_replicas())
        .merge(of_clients())
        .merge(of_instances())
        .merge(of_admin())
}

fn of_agents() -> Router<Spot> {
    Router::new()
        .route("/api/agents", get(agents::list))
        .route("/api/agents/register", post(agents::register))
        .route("/api/agents/{id}", get(agents::show))
        .route("/api/agents/{id}/heartbeat", post(agents::heartbeat))
        .route("/api/agents/{id}/config", get(agents::config))
        .route("/api/agents/{id}/termination", post(agents::termination))
        .route("/api/agents/{id}/pending-commands", get(commands::pending))
        .route(
            "/api/agents/{id}/commands/{command}/executed",
            post(commands::executed),
        )
        .route(
            "/api/agents/{id}/issue-switch-command",
            post(commands::issue_switch),
        )
        .route("/api/agents/{id}/pricing-report", post(reports::prices))
        .route("/api/agents/{id}/switch-report", post(reports::switch))
        .route("/api/agents/{id}/cleanup-report", post(reports::cleanup))
        .route(
            "/api/agents/{id}/termination-report",
            post(reports::machine_ended),
        )
        .route(
            "/api/agents/{id}/register-instance",
            post(reports::register_instance),
        )
        .route(
            "/api/agents/{id}/instances-to-terminate",
            get(reports::to_terminate),
        )
        .route("/api/agents/{id}/decide", post(decisions::decide))
        .route(
            "/api/agents/{id}/switch-recommendation",
            get(decisions::recommendation),
        )
        .route("/api/agents/{id}/statistics", get(decisions::statistics))
}

fn of_replicas() -> Router<Spot> {
    Router::new()
        .route("/api/agents/{id}/replica-config", get(replicas::config))
        .route(
            "/api/agents/{id}/replicas",
            get(replicas::list).post(replicas::create),
        )
        .route(
            "/api/agents/{id}/replicas/{replica}",
            put(replicas::told).delete(replicas::end),
        )
        .route(
            "/api/agents/{id}/replicas/{replica}/status",
            post(replicas::status),
        )
        .route(
            "/api/agents/{id}/replicas/{replica}/sync-status",
            post(replicas::sync_status),
        )
        .route(
            "/api/agents/{id}/replicas/{replica}/promote",
            post(replicas::promote),
        )
        .route(
            "/api/agents/{id}/rebalance-recommendation",
            post(emergencies::rebalance),
        )
        .route(
            "/api/agents/{id}/create-emergency-replica",
            post(emergencies::create_replica),
        )
        .route(
            "/api/agents/{id}/termination-imminent",
            post(emergencies::imminent),
        )
}

fn of_clients() -> Router<Spot> {
    Router::new()
        .route("/api/client/validate", get(clients::validate))
        .route("/api/client/pricing-history", get(charts::pricing_history))
        .route("/api/client/{client}", get(clients::overview))
        .route("/api/client/{client}/agents", get(clients::agents))
        .route("/api/client/{client}/agents/history", get(clients::history))
        .route(
            "/api/client/{client}/agents/decisions",
            get(decisions::of_client),
        )
        .route("/api/client/{client}/instances", get(instances::of_client))
        .route(
            "/api/client/{client}/replicas",
            get(replica_rows::of_client),
        )
        .route("/api/client/{client}/savings", get(charts::savings))
        .route(
            "/api/client/{client}/switch-history",
            get(charts::switch_history),
        )
        .route("/api/client/{client}/stats/charts", get(charts::charts))
        .route("/api/client/{client}/export/savings", get(csv::savings))
        .route(
            "/api/client/{client}/export/switch-history",
            get(csv::switch_history),
        )
        .route(
            "/api/client/agents/{id}/toggle-enabled",
            post(clients::toggle),
        )
        .route("/api/client/agents/{id}/settings", post(clients::settings))
        .route("/api/client/agents/{id}/config", post(clients::configure))
        .route("/api/client/agents/{id}", delete(clients::delete))
        .route("/api/notifications", get(notices::list))
        .route("/api/notifications/{id}/mark-read", post(notices::mark))
        .route("/api/notifications/mark-all-read", post(notices::mark_all))
        .route("/api/events/stream/{client}", get(stream::events))
}

fn of_instances() -> Router<Spot> {
    Router::new()
        .route(
            "/api/client/instances/{id}/pricing",
            get(instances::pricing),
        )
        .route(
            "/api/client/instances/{id}/metrics",
            get(instances::metrics),
        )
        .route(
            "/api/client/instances/{id}/price-history",
            get(instances::price_history),
        )
        .route(
            "/api/client/instances/{id}/available-options",
            get(instances::options),
        )
        .route(
            "/api/client/instances/{id}/force-switch",
            post(commands::force_switch),
        )
        .route("/api/client/instances/{id}/logs", get(instances::logs))
}

fn of_admin() -> Router<Spot> {
    Router::new()
        .route("/api/admin/clients", get(admin::clients))
        .route("/api/admin/clients/create", post(admin::create))
        .route("/api/admin/clients/growth", get(admin::growth))
        .route("/api/admin/clients/{client}", delete(admin::remove))
        .route(
            "/api/admin/clients/{client}/regenerate-token",
            post(admin::renew),
        )
        .route("/api/admin/clients/{client}/token", get(admin::token))
        .route("/api/admin/stats", get(admin::stats))
        .route("/api/admin/instances", get(instances::all))
        .route("/api/admin/agents", get(admin::agents))
        .route(
            "/api/admin/agents/health-summary",
            get(admin::agents_health),
        )
        .route("/api/admin/activity", get(admin::activity))
        .route("/api/admin/system-health", get(admin::system_health))
        .route("/api/admin/search", get(admin::search))
        .route("/api/admin/pools/statistics", get(admin::pools))
        .route("/api/admin/export/global-stats", get(csv::global))
        .route(
            "/api/admin/decision-engine/upload",
            post(decisions::no_engine),
        )
        .route("/api/admin/ml-models/upload", post(decisions::no_engine))
        .route("/api/admin/ml-models/activate", post(decisions::no_engine))
        .route(
            "/api/admin/ml-models/fallback",
            post(decisions::no_fallback),
        )
        .route("/api/admin/ml-models/sessions", get(decisions::sessions))
}

async fn no_route(State(_): State<Spot>, request: Request) -> No {
    No::not_found(format!("there is no route {}", request.uri().path()))
}

async fn no_method(request: Request) -> No {
    let (path, method) = (request.uri().path(), request.method());
    No::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not take {method}"),
    )
}

fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    No::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the server has a bug here",
    )
    .into_response()
}

/// Ends a request that takes too long to be read or decided. A stream has begun by then.
async fn hurry(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(PATIENCE, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let sentence = "the request took too long; whether it took effect is unknown";
        No::new(StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
    })
}

/// Any page may ask: these routes know tokens, not cookies, and no credentials are allowed.
async fn open_to_pages(request: Request, next: Next) -> Response {
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

fn preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let allowed = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
    allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    allowed.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

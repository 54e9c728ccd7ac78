//! The REST API under `/api/v1`, the routes about the server itself, and MIaaS's routes: `docs/routes.md`
//! lists them.
//!
//! Each handler decodes, makes one `Control` call and encodes. `take` holds what handlers take, `convert` turns
//! nouns into bodies, `refuse` turns refusals into problem documents, `gate` is what every request passes.
//! The door owns no state. What can fail is a refusal of the domain, or of `take`.

mod access;
mod assignments;
mod audit;
mod backup;
mod convert;
mod cors;
mod errands;
mod errors;
mod events;
mod gate;
mod jobs;
mod login;
mod logs;
mod metrics;
pub mod miaas;
mod nodes;
mod openapi;
mod origin;
mod page;
mod pages;
mod plan;
mod refuse;
mod secrets;
mod server;
mod socket;
mod take;
mod tunnel;
mod workloads;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{delete, get, patch, post, put};
use hostler_control::Control;
use hostler_kit::Entropy;
use hostler_model::{Code, Refusal, Timestamp};
use http::HeaderValue;

use self::refuse::Failure;
use crate::{Access, Crowd, Parts, grpc, orchion};

pub use self::backup::Backups;
pub use self::openapi::{OPENAPI, described};

/// What every handler has. Each request copies it several times, hence one pointer.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

pub(crate) struct Inner {
    control: Control,
    entropy: Arc<dyn Entropy>,
    /// The number of the next request. It begins anywhere, so that ids of two runs are told apart.
    requests: AtomicU64,
    miaas: miaas::Config,
    miaas_keys: miaas::Keys,
    has_orchion_key: bool,
    access: Access,
    sockets: socket::Room,
    backups: Option<Arc<dyn Backups>>,
    crowd: Option<Crowd>,
}

impl Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// The door for one control plane.
    #[must_use]
    pub(crate) fn new(parts: &Parts) -> Self {
        miaas::warn(&parts.miaas, &parts.miaas_keys);
        Self(Arc::new(Inner {
            control: parts.control.clone(),
            entropy: Arc::clone(&parts.entropy),
            requests: AtomicU64::new(parts.entropy.next_u64()),
            miaas: parts.miaas.clone(),
            miaas_keys: parts.miaas_keys.clone(),
            has_orchion_key: parts.orchion.has_key(),
            access: parts.access.clone(),
            sockets: socket::Room::default(),
            backups: parts.backups.clone(),
            crowd: parts.crowd.clone(),
        }))
    }

    /// All routes of this door, with its fallback.
    pub(crate) fn router(self) -> Router {
        // A stream lasts; everything else has its time.
        let routes = Router::new()
            .merge(nodes())
            .merge(workloads())
            .merge(jobs())
            .merge(coming_in())
            .merge(secrets())
            .merge(deployments())
            .merge(about())
            .route_layer(from_fn(gate::hurry))
            .merge(streams());
        routes
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(from_fn_with_state(self.clone(), gate::pass))
            .with_state(self)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.control.clock().wall_millis())
    }

    fn request_id(&self) -> HeaderValue {
        let id = format!("{:016x}", self.requests.fetch_add(1, Ordering::Relaxed));
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }
}

fn nodes() -> Router<Api> {
    Router::new()
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/register", post(miaas::register))
        .route("/api/v1/nodes/{id}", get(nodes::show).delete(nodes::remove))
        .route("/api/v1/nodes/{id}/heartbeat", post(miaas::heartbeat))
        .route("/api/v1/nodes/{id}/labels", patch(nodes::label))
        .route("/api/v1/nodes/{id}/cordon", post(nodes::cordon))
        .route("/api/v1/nodes/{id}/uncordon", post(nodes::uncordon))
        .route("/api/v1/nodes/{id}/drain", post(nodes::drain))
        .route("/api/v1/nodes/{id}/undrain", post(nodes::undrain))
        .route("/api/v1/nodes/{id}/accept", post(nodes::accept))
        .route("/api/v1/nodes/{id}/cleanup", post(nodes::cleanup))
        .route("/api/v1/nodes/{id}/gc", post(nodes::gc))
        .route("/api/v1/nodes/{id}/adoptable", post(nodes::adoptable))
        .route("/api/v1/nodes/{id}/commands", get(nodes::commands))
}

fn workloads() -> Router<Api> {
    Router::new()
        .route(
            "/api/v1/workloads",
            get(workloads::list).post(workloads::apply),
        )
        .route("/api/v1/workloads/plan", post(plan::plan))
        .route(
            "/api/v1/workloads/{id}",
            get(workloads::show).delete(workloads::delete),
        )
        .route("/api/v1/workloads/{id}/stop", post(workloads::stop))
        .route("/api/v1/workloads/{id}/start", post(workloads::start))
        .route("/api/v1/workloads/{id}/restart", post(workloads::restart))
        .route("/api/v1/workloads/{id}/promote", post(workloads::promote))
        .route("/api/v1/workloads/{id}/rollback", post(workloads::rollback))
        .route("/api/v1/workloads/{id}/history", get(workloads::history))
        .route("/api/v1/workloads/{id}/why", get(workloads::why))
        .route("/api/v1/assignments", get(assignments::list))
        .route("/api/v1/assignments/{id}", get(assignments::show))
}

fn jobs() -> Router<Api> {
    Router::new()
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{id}", get(jobs::show))
        .route("/api/v1/jobs/{id}/rerun", post(jobs::rerun))
}

fn coming_in() -> Router<Api> {
    Router::new()
        .route("/login", get(login::form).post(login::login))
        .route("/logout", post(login::logout))
        .route("/api/v1/whoami", get(access::whoami))
        .route("/api/v1/tokens", get(access::tokens).post(access::issue))
        .route("/api/v1/tokens/{id}", delete(access::revoke))
        .route(
            "/api/v1/join-tokens",
            get(access::join_tokens).post(access::invite),
        )
        .route("/api/v1/join-tokens/{id}", delete(access::uninvite))
        .route("/api/v1/nodes/{id}/approve", post(access::approve))
        .route("/api/v1/authority", get(access::authority))
        .route("/api/v1/authority/rotate", post(access::rotate))
        .route("/api/v1/authority/retire", post(access::retire))
        .route("/api/v1/doors", get(access::doors))
        .route("/api/v1/audit", get(audit::audit))
        .route("/api/v1/miaas/rotate-key", post(access::rotate_key))
}

fn secrets() -> Router<Api> {
    Router::new()
        .route("/api/v1/secrets", get(secrets::list))
        .route(
            "/api/v1/secrets/{name}",
            put(secrets::set).delete(secrets::remove),
        )
        .route("/api/v1/rekey-secrets", post(secrets::rekey))
}

fn deployments() -> Router<Api> {
    Router::new()
        .route(
            "/api/v1/deployments",
            get(miaas::list_deployments).post(miaas::deploy),
        )
        .route(
            "/api/v1/deployments/{id}",
            get(miaas::show_deployment).delete(miaas::remove_deployment),
        )
}

fn streams() -> Router<Api> {
    Router::new()
        .route("/api/v1/events", get(events::events))
        .route("/api/v1/backup", get(backup::backup))
        .route("/api/v1/workloads/{id}/logs", get(logs::of_workload))
        .route("/api/v1/assignments/{id}/logs", get(logs::of_assignment))
        .route("/ws/logs", get(miaas::tail))
        .route("/api/v1/assignments/{id}/exec", get(errands::exec))
        .route("/api/v1/assignments/{id}/forward", get(errands::forward))
        .route(
            "/api/v1/assignments/{id}/files",
            get(errands::read_files).put(errands::write_files),
        )
}

fn about() -> Router<Api> {
    Router::new()
        .route("/", get(server::root))
        .route("/version", get(server::version))
        .route("/healthz", get(server::live))
        .route("/readyz", get(server::ready))
        .route("/health", get(server::health))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(pages::docs))
        .route("/redoc", get(pages::docs))
        .route("/docs/errors/{code}", get(errors::page))
}

/// No such path: in gRPC's words for a gRPC call, in a contract's for what lies below its routes, MIaaS's way for its
/// routes with a slash too many, else a problem document.
async fn no_route(request: Request) -> Response {
    if grpc::is_call(request.headers()) {
        return tonic::Status::unimplemented("no such service or method")
            .into_http::<axum::body::Body>();
    }
    let path = request.uri().path();
    if orchion::owns(path) {
        return orchion::not_found();
    }
    if let Some(path) = miaas::without_slash(path) {
        let query = request
            .uri()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        return Redirect::temporary(&format!("{path}{query}")).into_response();
    }
    let advice = format!("there is no route {path}: GET /openapi.json lists every route");
    Failure(Refusal::new(Code::RouteNotFound, "Not Found", advice)).into_response()
}

/// The sentence is MIaaS's, as for an unknown path; what helps is in the advice.
async fn no_method(request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let advice = format!("{path} does not take {method}: the `Allow` header lists what it takes");
    let sentence = "Method Not Allowed";
    Failure(Refusal::new(Code::MethodNotAllowed, sentence, advice)).into_response()
}

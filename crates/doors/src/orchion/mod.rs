//! Orchion's contract: `orchion.v1` over gRPC, and its HTTP gateway.
//!
//! ```text
//!   node agent ── RegisterNode, Heartbeat, UpdateNode ──► orchestrator ──► Verb::Announce, poll_beat
//!   dashboard, curl ── GET /api/nodes, /api/logs ───────► gateway ───────► the view, the event log
//!   whoever asks a model ── OrchionLLM, /v1/* ──────────► inference ─────► checked, then "no nodes available"
//! ```
//!
//! - `picture` turns nodes into Orchion's words and back; `entries` does the same for the event log.
//! - A node is known by the id that its agent sends, under the alias (`orchion`, `node`, id). Such a node names no
//!   drivers, so nothing is placed on it.
//!
//! The door owns no state but that of its streams. What can fail is answered with the contract's own codes and texts;
//! `docs/decisions/0015-orchion-and-miaas.md` says where those had to be chosen.

mod entries;
mod gateway;
mod inference;
mod orchestrator;
mod picture;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use hostler_control::Control;
use hostler_model::Contract;
use hostler_wire::orchion::v1::log_streamer_server::{self, LogStreamerServer};
use hostler_wire::orchion::v1::orchestrator_server::{self, OrchestratorServer};
use hostler_wire::orchion::v1::orchion_llm_server::{self, OrchionLlmServer};
use http::{HeaderMap, StatusCode, header};
use tonic::Status;
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::{Shown, Who};
use crate::reflection::Told;
use crate::{Access, Parts, grpc};

/// What reflection tells of it.
pub(crate) const TOLD: Told = Told {
    descriptors: hostler_wire::orchion::DESCRIPTORS,
    services: &[
        orchestrator_server::SERVICE_NAME,
        orchion_llm_server::SERVICE_NAME,
        log_streamer_server::SERVICE_NAME,
    ],
};

/// How this door behaves.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// What callers of `/v1/*` must send; none or empty lets everybody in. Never shown.
    pub api_key: Option<Arc<str>>,
}

impl Config {
    /// Whether there is anything that callers could know.
    pub(crate) fn has_key(&self) -> bool {
        self.api_key.as_ref().is_some_and(|key| !key.is_empty())
    }
}

/// What every handler has.
#[derive(Clone)]
struct Door {
    control: Control,
    access: Access,
    api_key: Option<Arc<str>>,
}

impl Door {
    fn new(parts: &Parts) -> Self {
        let key = parts.orchion.api_key.clone();
        Self {
            control: parts.control.clone(),
            access: parts.access.clone(),
            api_key: key.filter(|key| !key.is_empty()),
        }
    }

    /// What the key in a request's headers came to.
    fn shown(&self, headers: &HeaderMap) -> Shown {
        let has_any = [header::AUTHORIZATION, inference::KEY]
            .iter()
            .any(|name| headers.contains_key(name));
        match &self.api_key {
            Some(key) if inference::is_key(key, headers) => {
                Shown::Known(Who::Program(Contract::Orchion))
            }
            _ if has_any => Shown::Worthless,
            _ => Shown::Nothing,
        }
    }
}

/// The routes beside those of other contracts, without a fallback. `/v1/*` is OpenAI's there.
pub(crate) fn beside(parts: &Parts) -> Router {
    let door = Door::new(parts);
    services(&door).merge(dress(gateway::routes(door.clone()), door))
}

/// The routes on a listener of their own, with the contract's answers for unknown paths.
pub(crate) fn alone(parts: &Parts) -> Router {
    let door = Door::new(parts);
    beside(parts)
        .merge(dress(inference::routes(door.clone()), door))
        .fallback(unknown)
}

/// What every request over HTTP passes.
fn dress(routes: Router, door: Door) -> Router {
    routes
        .layer(from_fn_with_state(door, gateway::admit))
        .layer(CatchPanicLayer::custom(gateway::panicked))
}

/// Whether a path that no route takes belongs to this contract.
pub(crate) fn owns(path: &str) -> bool {
    ["/api/nodes", "/api/logs"].iter().any(|root| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.starts_with('/'))
    })
}

/// What the contract answers for paths that it does not know.
pub(crate) fn not_found() -> Response {
    gateway::refused(StatusCode::NOT_FOUND, "404 page not found")
}

fn services(door: &Door) -> Router {
    let reader = door.clone();
    let own = move |headers: &HeaderMap| reader.shown(headers);
    let admit = grpc::Admit::new(&door.access, Contract::Orchion, own);
    Router::new()
        .route_service(
            "/orchion.v1.Orchestrator/{*method}",
            OrchestratorServer::new(door.clone()),
        )
        .route_service(
            "/orchion.v1.OrchionLLM/{*method}",
            OrchionLlmServer::new(door.clone()),
        )
        .route_service(
            "/orchion.v1.LogStreamer/{*method}",
            LogStreamerServer::new(door.clone()),
        )
        .route_layer(from_fn_with_state(admit, grpc::admit))
        .route_layer(from_fn(grpc::only_calls))
}

async fn unknown(request: Request) -> Response {
    if grpc::is_call(request.headers()) {
        let path = request.uri().path();
        let service = path.trim_start_matches('/').split('/').next();
        let sentence = format!("unknown service {}", service.unwrap_or_default());
        return Status::unimplemented(sentence).into_http::<axum::body::Body>();
    }
    not_found().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_its_routes_is_this_contracts() {
        assert!(owns("/api/nodes/x") && owns("/api/logs/"));
        for other in [
            "/api/nodes",
            "/api/v1/nodes/x",
            "/api/agents/x",
            "/api/nodesx/y",
        ] {
            assert!(!owns(other), "{other}");
        }
    }
}

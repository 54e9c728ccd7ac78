//! What an agent answers on an address of its own, where it is given one: whether it lives, whether it has
//! joined, its version and its figures. Nothing can be changed here.

use std::fmt::Write as _;
use std::net::SocketAddr;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hostler_agent::{AgentStatus, Vitals};
use hostler_doors::{Bound, Caps, Listener};
use hostler_kit::Tasks;
use hostler_wire::api::{Check, Live, Ready};
use hostler_wire::session::{VERSION_HIGHEST, VERSION_LOWEST};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::failure::Failure;

/// A probe and a collector of figures need few.
const CAPS: Caps = Caps {
    connections: 64,
    per_address: 64,
};
const VERSION: &str = env!("CARGO_PKG_VERSION");
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Takes the port.
pub(crate) async fn bind(addr: SocketAddr) -> Result<Bound, Failure> {
    let listener = Listener {
        caps: CAPS,
        ..Listener::plain(addr)
    };
    Ok(listener.bind().await?)
}

/// Answers until the family stops.
pub(crate) fn serve(bound: Bound, vitals: Vitals, tasks: &Tasks) {
    let router = Router::new()
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .fallback(no_route)
        .with_state(vitals);
    let served = hostler_doors::serve(bound, router, tasks.clone());
    tasks.spawn("agent listener", served);
}

async fn live(State(vitals): State<Vitals>) -> Response {
    let (status, word) = if vitals.is_alive() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "ended")
    };
    let live = Live {
        status: word.to_owned(),
    };
    (status, Json(live)).into_response()
}

async fn ready(State(vitals): State<Vitals>) -> Response {
    let now = vitals.status();
    let is_ready = vitals.is_alive() && is_joined(&now);
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let check = Check {
        name: "control-plane".to_owned(),
        ok: is_ready,
        detail: now.to_string(),
    };
    let ready = Ready {
        ready: is_ready,
        checks: vec![check],
    };
    (status, Json(ready)).into_response()
}

/// An agent whose orders are held back is a member all the same.
const fn is_joined(status: &AgentStatus) -> bool {
    match status {
        AgentStatus::Joined { .. } | AgentStatus::Held { .. } | AgentStatus::Registered { .. } => {
            true
        }
        AgentStatus::Connecting { .. } | AgentStatus::Refused { .. } => false,
    }
}

async fn version() -> Json<Value> {
    let session = json!({ "lowest": VERSION_LOWEST, "highest": VERSION_HIGHEST });
    Json(json!({ "version": VERSION, "session": session }))
}

async fn metrics(State(vitals): State<Vitals>) -> Response {
    let status = vitals.status();
    let is_held = matches!(status, AgentStatus::Held { .. });
    let mut body = String::new();
    let mut gauge = |name: &str, help: &str, values: Vec<(String, u64)>| {
        // A string takes whatever is written.
        let _ = writeln!(
            body,
            "# HELP hostler_agent_{name} {help}\n# TYPE hostler_agent_{name} gauge"
        );
        for (labels, value) in values {
            let _ = writeln!(body, "hostler_agent_{name}{labels} {value}");
        }
    };
    let alone = |value: bool| vec![(String::new(), u64::from(value))];
    gauge(
        "build_info",
        "The build that runs",
        vec![(format!("{{version=\"{VERSION}\"}}"), 1)],
    );
    gauge(
        "joined",
        "Whether the agent is a member of its fleet now",
        alone(is_joined(&status)),
    );
    gauge(
        "held",
        "Whether the agent holds its orders back until an operator accepts them",
        alone(is_held),
    );
    let units = vitals.units().into_iter();
    gauge(
        "units",
        "Units on this node by state",
        units
            .map(|(state, count)| (format!("{{state=\"{state}\"}}"), count))
            .collect(),
    );
    let down = vitals.down().into_iter();
    gauge(
        "engine_down",
        "Kinds of workloads whose engine does not answer",
        down.map(|kind| (format!("{{kind=\"{kind}\"}}"), 1))
            .collect(),
    );
    ([(header::CONTENT_TYPE, METRICS_TYPE)], body).into_response()
}

async fn no_route() -> (StatusCode, &'static str) {
    let sentence = "an agent answers /healthz, /readyz, /version and /metrics\n";
    (StatusCode::NOT_FOUND, sentence)
}

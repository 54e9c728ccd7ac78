//! Persys's second port over HTTP: its metric names over our figures, and its health.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hostler_control::MetricsSnapshot;
use http::{StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Door, views};

const PREFIX: &str = "persys_scheduler";
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The buckets that Prometheus's own clients begin with, in seconds.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

type Labels<const N: usize> = [(&'static str, String); N];
type Counts<const N: usize> = Family<Labels<N>, Counter>;
type Spans<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// What this door counts itself.
pub(super) struct Figures {
    registry: Registry,
    served: Counts<2>,
    served_seconds: Spans<2>,
    called: Counts<2>,
    called_seconds: Spans<2>,
    reconciled: Counts<2>,
    cycles: Counts<1>,
    cycle_seconds: Histogram,
}

fn seconds() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Figures {
    pub(super) fn new() -> Self {
        let mut it = Self {
            registry: Registry::with_prefix(PREFIX),
            served: Family::default(),
            served_seconds: Family::new_with_constructor(seconds),
            called: Family::default(),
            called_seconds: Family::new_with_constructor(seconds),
            reconciled: Family::default(),
            cycles: Family::default(),
            cycle_seconds: seconds(),
        };
        it.register();
        it
    }

    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("grpc_server_requests", "Calls served", self.served.clone());
        to.register(
            "grpc_server_request_duration_seconds",
            "How long calls took",
            self.served_seconds.clone(),
        );
        to.register("agent_rpc_requests", "Calls to agents", self.called.clone());
        to.register(
            "agent_rpc_duration_seconds",
            "How long calls to agents took",
            self.called_seconds.clone(),
        );
        to.register(
            "reconciliation_results",
            "What was done on agents, by its end",
            self.reconciled.clone(),
        );
        to.register(
            "reconciliation_cycles",
            "Looks at agents",
            self.cycles.clone(),
        );
        to.register(
            "reconciliation_cycle_duration_seconds",
            "How long looks at agents took",
            self.cycle_seconds.clone(),
        );
    }

    /// A call was served.
    pub(super) fn served(&self, method: &str, code: &'static str, took: Duration) {
        let method = format!("/persys.control.v1.AgentControl/{method}");
        let labels = [("method", method), ("code", code.to_owned())];
        self.served.get_or_create(&labels).inc();
        self.served_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// An agent was called.
    pub(super) fn agent_call(&self, rpc: &'static str, code: &'static str, took: Duration) {
        let labels = [("rpc", rpc.to_owned()), ("code", code.to_owned())];
        self.called.get_or_create(&labels).inc();
        self.called_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Something was done on an agent.
    pub(super) fn reconciled(&self, action: &'static str, is_success: bool) {
        let labels = [
            ("action", action.to_owned()),
            ("success", is_success.to_string()),
        ];
        self.reconciled.get_or_create(&labels).inc();
    }

    /// An agent was looked at.
    pub(super) fn cycle(&self, is_success: bool, took: Duration) {
        let result = if is_success { "success" } else { "error" };
        self.cycles
            .get_or_create(&[("result", result.to_owned())])
            .inc();
        self.cycle_seconds.observe(took.as_secs_f64());
    }
}

pub(super) fn routes(door: Arc<Door>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(door)
}

async fn metrics(State(door): State<Arc<Door>>) -> Response {
    let mut fleet = Registry::with_prefix(PREFIX);
    fleet.register_collector(Box::new(Fleet::of(&door)));
    let mut body = String::new();
    let written = text::encode_registry(&mut body, &door.figures.registry)
        .and_then(|()| text::encode_registry(&mut body, &fleet))
        .and_then(|()| text::encode_eof(&mut body));
    match written {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn health(State(door): State<Arc<Door>>) -> Response {
    let (mode, reason, since) = door.look_at_mode();
    Json(json!({
        "status": "ok",
        "mode": mode,
        "reason": reason,
        "modeChangedAt": since.to_string(),
    }))
    .into_response()
}

/// One look at the fleet.
#[derive(Debug)]
struct Fleet {
    nodes: BTreeMap<String, u64>,
    workloads: BTreeMap<String, u64>,
    desired: BTreeMap<String, u64>,
    writes: [(&'static str, u64); 4],
}

impl Fleet {
    fn of(door: &Door) -> Self {
        let zeros = |words: &[&str]| -> BTreeMap<String, u64> {
            words.iter().map(|word| ((*word).to_owned(), 0)).collect()
        };
        let mut it = Self {
            nodes: zeros(&["ready", "active", "notready", "unknown"]),
            workloads: zeros(&[
                "pending", "running", "stopped", "failed", "deleted", "updating", "unknown",
            ]),
            desired: zeros(&["running", "stopped", "deleted", "unknown"]),
            writes: writes(&door.control.metrics()),
        };
        let (nodes, workloads) = views::words_of(door);
        for word in nodes {
            *it.nodes.entry(word.to_ascii_lowercase()).or_default() += 1;
        }
        for (word, desired) in workloads {
            *it.workloads.entry(word.to_ascii_lowercase()).or_default() += 1;
            *it.desired.entry(desired.to_ascii_lowercase()).or_default() += 1;
        }
        it
    }
}

/// Verbs that changed something, by what they write.
fn writes(snapshot: &MetricsSnapshot) -> [(&'static str, u64); 4] {
    let of = |verbs: &[&str]| {
        let counts = snapshot.verbs.iter();
        let changed = counts.filter(|it| it.result == "changed" && verbs.contains(&it.verb));
        changed.map(|it| it.count).sum()
    };
    [
        (
            "spec",
            of(&["apply", "apply-foreign", "set-desired", "restart", "delete"]),
        ),
        (
            "status",
            of(&[
                "announce",
                "resume",
                "suspect",
                "silent",
                "returned",
                "report",
                "held-back",
            ]),
        ),
        ("assignment", of(&["settle"])),
        ("event", snapshot.event_sequence),
    ]
}

impl Collector for Fleet {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        gauge(&mut to, ("nodes_status", "status"), &self.nodes)?;
        gauge(&mut to, ("workloads_status", "status"), &self.workloads)?;
        gauge(
            &mut to,
            ("workloads_desired_state", "desired_state"),
            &self.desired,
        )?;
        let help = "Changes written, by what they are of";
        let mut family =
            to.encode_descriptor("state_store_writes", help, None, MetricType::Counter)?;
        for (category, count) in self.writes {
            let labels = [("category", category)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauge(
    to: &mut DescriptorEncoder<'_>,
    (name, label): (&str, &'static str),
    counts: &BTreeMap<String, u64>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, "How many there are", None, MetricType::Gauge)?;
    for (word, count) in counts {
        let value = ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX));
        let labels = [(label, word.as_str())];
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

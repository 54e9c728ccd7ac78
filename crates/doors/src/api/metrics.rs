//! `GET /metrics`: what the control plane counts, in OpenMetrics text. Names begin with `hostler_`, units are
//! base units, labels have few values.

use std::fmt;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hostler_control::{Histogram, MetricsSnapshot, WorkloadUsage};
use http::header;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Api;
use super::refuse::Failure;
use super::server::VERSION;
use crate::listener::CrowdCounts;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, Failure> {
    let mut registry = Registry::with_prefix("hostler");
    let audit = api.access.audit().counts();
    registry.register_collector(Box::new(Snapshot(api.control.metrics(), audit)));
    if let Some(crowd) = &api.crowd {
        registry.register_collector(Box::new(Connections(crowd.counts())));
    }
    let mut body = String::new();
    text::encode(&mut body, &registry)
        .map_err(|_| Failure::bad("the figures cannot be written"))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response())
}

/// One look at the counters, and at the lines of the audit: written and lost.
#[derive(Debug)]
struct Snapshot(MetricsSnapshot, Option<(u64, u64)>);

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.0;
        gauge(
            &mut to,
            "build_info",
            "The build that runs",
            [([("version", VERSION)], 1)],
        )?;
        let leads = [([("", ""); 0], u64::from(it.is_leading))];
        gauge(&mut to, "leading", "Whether this server decides", leads)?;
        self.fleet(&mut to)?;
        self.store(&mut to)?;
        let beats = [
            ([("result", "accepted")], it.beats),
            ([("result", "stale")], it.beats_stale),
        ];
        counter(
            &mut to,
            "beats",
            "Beats of nodes by how they were taken",
            beats,
        )?;
        if let Some((written, lost)) = self.1 {
            let lines = [
                ([("result", "written")], written),
                ([("result", "lost")], lost),
            ];
            counter(&mut to, "audit_lines", "Lines of the audit", lines)?;
        }
        let verbs = it.verbs.iter();
        let verbs = verbs.map(|it| ([("verb", it.verb), ("result", it.result)], it.count));
        counter(&mut to, "verbs", "Verbs decided, by their result", verbs)
    }
}

/// One look at the connections of the main listener.
#[derive(Debug)]
struct Connections(CrowdCounts);

impl Collector for Connections {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.0;
        let open = [
            ([("of", "members")], it.members as u64),
            ([("of", "strangers")], it.strangers as u64),
        ];
        let help = "Connections to the main port: with a node's key, and without";
        gauge(&mut to, "connections", help, open)?;
        let refused = [
            ([("reason", "address")], it.refused_of_address),
            ([("reason", "crowded")], it.refused_crowded),
        ];
        let help = "Connections that were closed at once, for too many were open";
        counter(&mut to, "connections_refused", help, refused)
    }
}

impl Snapshot {
    fn fleet(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.0;
        let by_state = |(state, count): (&&'static str, &u64)| ([("state", *state)], *count);
        gauge(to, "nodes", "Nodes by state", it.nodes.iter().map(by_state))?;
        let connected = [([("", ""); 0], it.nodes_connected)];
        gauge(
            to,
            "nodes_connected",
            "Nodes that hold a connection",
            connected,
        )?;
        gauge(
            to,
            "copies",
            "Copies by state",
            it.copies.iter().map(by_state),
        )?;
        gauge(
            to,
            "workloads",
            "Workloads",
            [([("", ""); 0], it.workloads)],
        )?;
        let used = |value: fn(&WorkloadUsage) -> u64| {
            let each = it.usage.iter();
            each.map(move |it| ([("workload", it.workload.as_str())], value(it)))
        };
        gauge(
            to,
            "workload_cpu_milli",
            "Thousandths of a core that the running copies of a workload use",
            used(|it| it.milli_cpu),
        )?;
        gauge(
            to,
            "workload_memory_bytes",
            "Memory that the running copies of a workload use",
            used(|it| it.memory),
        )?;
        counter(
            to,
            "events",
            "Events in the life of the fleet",
            [([("", ""); 0], it.event_sequence)],
        )
    }

    fn store(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.0;
        let commits = [
            ([("result", "done")], it.commits),
            ([("result", "failed")], it.commits_failed),
        ];
        counter(to, "commits", "Batches committed to the store", commits)?;
        let lost = [([("", ""); 0], it.batches_lost)];
        counter(to, "batches_lost", "Batches lost and decided again", lost)?;
        gauge(
            to,
            "store_revision",
            "The store's revision",
            [([("", ""); 0], it.store_revision)],
        )?;
        let seconds = (Some(&Unit::Seconds), 1e6);
        histogram(
            to,
            "commit_duration",
            "How long commits took",
            (&it.commit_micros, seconds),
        )?;
        histogram(
            to,
            "batch_changes",
            "Changes per batch",
            (&it.batch_changes, (None, 1.0)),
        )
    }
}

/// Values by their labels.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

fn gauge<'a, const N: usize>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        if labels.is_empty() {
            return value.encode(family);
        }
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter<'a, const N: usize>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<'a, N>, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        let value = ConstCounter::new(value);
        if labels.is_empty() {
            return value.encode(family);
        }
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for a graph")]
fn histogram(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (figures, (unit, scale)): (&Histogram, (Option<&Unit>, f64)),
) -> fmt::Result {
    let mut encoder = to.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    let bounds = figures.bounds.iter().map(|bound| *bound as f64 / scale);
    let bounds = bounds.chain(std::iter::once(f64::INFINITY));
    let buckets: Vec<(f64, u64)> = bounds.zip(figures.counts.iter().copied()).collect();
    let count = figures.counts.iter().sum();
    let sum = figures.sum as f64 / scale;
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

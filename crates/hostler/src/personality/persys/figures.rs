//! `/metrics` and `/health` of `persys-agent`: the agent's figures under the contract's names. Nothing can be changed
//! here.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hostler_agent::persys::{Figures, Snapshot, Work};
use http::{StatusCode, header};
use serde_json::json;

const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn router(figures: Figures) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .fallback(no_route)
        .with_state(figures)
}

async fn health(State(figures): State<Figures>) -> Response {
    if figures.read().is_some() {
        Json(json!({ "status": "healthy" })).into_response()
    } else {
        let body = Json(json!({ "status": "stopping" }));
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    }
}

async fn metrics(State(figures): State<Figures>) -> Response {
    let shown = figures.read().unwrap_or_default();
    ([(header::CONTENT_TYPE, TYPE)], text(&shown)).into_response()
}

async fn no_route() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "this port answers /metrics and /health\n",
    )
}

/// Families in the text form of Prometheus.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        values: impl IntoIterator<Item = (String, f64)>,
    ) {
        // A string takes whatever is written.
        let _ = writeln!(
            self.0,
            "# HELP persys_agent_{name} {help}\n# TYPE persys_agent_{name} {kind}"
        );
        for (labels, value) in values {
            let _ = writeln!(self.0, "persys_agent_{name}{labels} {value}");
        }
    }

    fn single(&mut self, family: (&str, &str, &str), value: f64) {
        self.family(family, [(String::new(), value)]);
    }

    /// The time that some tasks took in all, and how many they were.
    fn span(&mut self, name: &str, help: &str, values: Vec<(String, f64, u64)>) {
        let _ = writeln!(
            self.0,
            "# HELP persys_agent_{name} {help}\n# TYPE persys_agent_{name} summary"
        );
        for (labels, seconds, count) in values {
            let _ = writeln!(self.0, "persys_agent_{name}_sum{labels} {seconds}");
            let _ = writeln!(self.0, "persys_agent_{name}_count{labels} {count}");
        }
    }
}

fn text(shown: &Snapshot) -> String {
    let mut page = Page::default();
    workloads(&mut page, shown);
    tasks(&mut page, shown);
    spans(&mut page, shown);
    system(&mut page, shown);
    page.0
}

fn workloads(page: &mut Page, shown: &Snapshot) {
    let counts = shown.workloads.iter().map(|((state, kind), count)| {
        let state = state.to_lowercase();
        (
            format!("{{state=\"{state}\",type=\"{kind}\"}}"),
            float(*count),
        )
    });
    page.family(
        ("workload_count", "gauge", "Workloads by state and type"),
        counts,
    );
    for (name, help, count) in [
        (
            "workload_created_total",
            "Workloads that were new",
            shown.created,
        ),
        (
            "workload_deleted_total",
            "Workloads that were deleted",
            shown.deleted,
        ),
        (
            "workload_failed_total",
            "Failures of workloads",
            shown.failed,
        ),
        (
            "workload_reconcile_total",
            "Comparisons of what runs with what should",
            shown.looks,
        ),
    ] {
        page.single((name, "counter", help), float(count));
    }
    let errors = shown.errors.iter();
    page.family(
        (
            "errors_total",
            "counter",
            "Causes of failures by their code",
        ),
        errors.map(|(code, count)| (format!("{{error_code=\"{code}\"}}"), float(*count))),
    );
}

fn work(shown: &Snapshot) -> impl Iterator<Item = (&'static str, &'static str, Work)> {
    shown
        .work
        .iter()
        .map(|((task, how), work)| (*task, *how, *work))
}

fn labels(task: &str, how: &str) -> String {
    format!("{{type=\"{task}\",status=\"{how}\"}}")
}

fn tasks(page: &mut Page, shown: &Snapshot) {
    page.single(
        ("task_queue_depth", "gauge", "Requests that have not ended"),
        float(shown.open),
    );
    page.family(
        (
            "task_executions_total",
            "counter",
            "Requests that have ended",
        ),
        work(shown).map(|(task, how, work)| (labels(task, how), float(work.count))),
    );
    let failed = work(shown).filter(|(_, how, _)| *how == "failed");
    page.family(
        ("task_failures_total", "counter", "Requests that failed"),
        failed.map(|(task, _, work)| (format!("{{type=\"{task}\"}}"), float(work.count))),
    );
}

fn spans(page: &mut Page, shown: &Snapshot) {
    let each = work(shown).map(|(task, how, work)| (labels(task, how), work.seconds, work.count));
    page.span(
        "task_latency_seconds",
        "From a request to its end",
        each.collect(),
    );
    for (task, name, help) in [
        (
            "apply_workload",
            "workload_apply_duration_seconds",
            "From an apply to its end",
        ),
        (
            "delete_workload",
            "workload_delete_duration_seconds",
            "From a deletion to its end",
        ),
    ] {
        let of_task = work(shown).filter(|(other, ..)| *other == task);
        let (seconds, count) = of_task.fold((0.0, 0), |(seconds, count), (_, _, work)| {
            (seconds + work.seconds, count + work.count)
        });
        page.span(name, help, vec![(String::new(), seconds, count)]);
    }
}

fn system(page: &mut Page, shown: &Snapshot) {
    let health = shown.runtimes.iter().map(|(kind, answers)| {
        (
            format!("{{runtime_type=\"{kind}\"}}"),
            float(u64::from(*answers)),
        )
    });
    page.family(
        (
            "runtime_health_status",
            "gauge",
            "Whether the driver of a type answers",
        ),
        health,
    );
    let memory = (
        "system_memory_utilization_percent",
        "gauge",
        "Memory in use",
    );
    page.single(memory, shown.memory_percent);
    let cpu = (
        "system_cpu_utilization_percent",
        "gauge",
        "Processor time in use",
    );
    page.single(cpu, shown.cpu_percent);
    page.family(
        ("system_disk_utilization_percent", "gauge", "Disk in use"),
        [("{mount_point=\"/\"}".to_owned(), shown.disk_percent)],
    );
}

#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 is more than anything here is counted to"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_figures_have_the_names_of_the_contract() {
        let work = Work {
            count: 2,
            seconds: 3.5,
        };
        let shown = Snapshot {
            workloads: BTreeMap::from([(("Running", "container"), 4)]),
            created: 5,
            open: 1,
            errors: BTreeMap::from([("STORAGE_FULL", 6)]),
            work: BTreeMap::from([
                (("apply_workload", "completed"), work),
                (("apply_workload", "failed"), work),
            ]),
            runtimes: BTreeMap::from([("container", true), ("vm", false)]),
            cpu_percent: 12.5,
            ..Snapshot::default()
        };
        let text = text(&shown);
        for line in [
            "# TYPE persys_agent_workload_count gauge",
            "persys_agent_workload_count{state=\"running\",type=\"container\"} 4",
            "persys_agent_workload_created_total 5",
            "persys_agent_task_queue_depth 1",
            "persys_agent_errors_total{error_code=\"STORAGE_FULL\"} 6",
            "persys_agent_task_executions_total{type=\"apply_workload\",status=\"completed\"} 2",
            "persys_agent_task_failures_total{type=\"apply_workload\"} 2",
            "persys_agent_task_latency_seconds_sum{type=\"apply_workload\",status=\"failed\"} 3.5",
            "persys_agent_workload_apply_duration_seconds_count 4",
            "persys_agent_runtime_health_status{runtime_type=\"vm\"} 0",
            "persys_agent_system_cpu_utilization_percent 12.5",
            "persys_agent_system_disk_utilization_percent{mount_point=\"/\"} 0",
        ] {
            assert!(
                text.lines().any(|it| it == line),
                "{line} is not in\n{text}"
            );
        }
    }
}

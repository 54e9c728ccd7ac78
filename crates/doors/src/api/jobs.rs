//! Jobs: what there is, and once more.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{Reply, Verb};
use hostler_model::WorkloadId;
use hostler_wire::api;
use http::{StatusCode, Uri};

use super::nodes::{gone_meanwhile, unexpected};
use super::page::PageQuery;
use super::refuse::Failure;
use super::take::{Caller, Condition, Query, Target};
use super::{Api, convert};

impl Api {
    fn shown_job(&self, id: WorkloadId) -> Result<api::Job, Failure> {
        let view = self.control.view();
        let workload = view.workload(id).ok_or_else(gone_meanwhile)?;
        Ok(convert::job(&self.control, &view, workload))
    }
}

/// Every job and every schedule.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(PageQuery),
    responses((status = 200, body = Vec<api::Job>), (status = "default", body = api::Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    uri: Uri,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let view = api.control.view();
    let jobs = view.workloads().filter(|it| it.spec.job.is_some());
    let page = page.cut(jobs, |job| job.id)?;
    Ok(page
        .map(|job| convert::job(&api.control, &view, job))
        .answer(&uri))
}

/// One job or schedule.
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    responses((status = 200, body = api::Job), (status = "default", body = api::Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Target(target): Target,
) -> Result<Json<api::Job>, Failure> {
    let id = api.control.view().find_workload(&target)?.id;
    Ok(Json(api.shown_job(id)?))
}

/// Runs a job once more, or makes a schedule's job now; answers with the job that runs.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/rerun", tag = "jobs",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Job), (status = "default", body = api::Problem)))]
pub(super) async fn rerun(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let workload = api.control.view().find_workload(&target)?.id;
    let verb = Verb::Rerun { workload, expect };
    match api.control.submit(caller, verb).await? {
        Reply::Workload { id, .. } => {
            Ok((StatusCode::ACCEPTED, Json(api.shown_job(id)?)).into_response())
        }
        other => Err(unexpected(&other)),
    }
}

//! Assignments: the copies of workloads on nodes.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use hostler_model::Assignment;
use hostler_wire::api;
use http::Uri;

use super::page::PageQuery;
use super::refuse::Failure;
use super::take::{Query, Target};
use super::{Api, convert};

/// Every copy, or those of a workload, on a node, or both.
#[utoipa::path(get, path = "/api/v1/assignments", tag = "assignments",
    params(api::AssignmentFilter, PageQuery),
    responses((status = 200, body = Vec<api::Assignment>), (status = "default", body = api::Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    uri: Uri,
    Query(filter): Query<api::AssignmentFilter>,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let view = api.control.view();
    let workload = filter
        .workload
        .map(|text| view.find_workload(&text).map(|it| it.id))
        .transpose()?;
    let node = filter
        .node
        .map(|text| view.find_node(&text).map(|it| it.id))
        .transpose()?;
    let mut copies: Vec<&Assignment> = match (workload, node) {
        (Some(workload), _) => view.assignments_of(workload).map(AsRef::as_ref).collect(),
        (None, Some(node)) => view.assignments_on(node).map(AsRef::as_ref).collect(),
        (None, None) => view.assignments().map(AsRef::as_ref).collect(),
    };
    copies.retain(|copy| node.is_none_or(|node| copy.node == node));
    copies.sort_by_key(|copy| copy.id);
    let page = page.cut(copies, |copy| copy.id)?;
    Ok(page
        .map(|copy| convert::assignment(&api.control, &view, copy))
        .answer(&uri))
}

/// One copy.
#[utoipa::path(get, path = "/api/v1/assignments/{id}", tag = "assignments",
    params(("id" = String, Path, description = "Id or part of an id")),
    responses((status = 200, body = api::Assignment), (status = "default", body = api::Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Target(target): Target,
) -> Result<Json<api::Assignment>, Failure> {
    let view = api.control.view();
    let copy = view.find_assignment(&target)?;
    Ok(Json(convert::assignment(&api.control, &view, copy)))
}

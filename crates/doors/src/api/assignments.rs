//! Assignments: the copies of workloads on nodes.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use hostler_model::{Assignment, AssignmentId};
use hostler_wire::api;
use http::Uri;

use super::page::PageQuery;
use super::refuse::Failure;
use super::take::{Query, Target};
use super::{Api, convert};

/// Every copy, or those of a workload, on a node, or both; those of a workload come by slot.
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
    // Whatever the size of the fleet, a page looks at the copies of that page, or at those of one node.
    let page = match (workload, node) {
        (workload, Some(node)) => {
            let copies = view.assignments_on(node).map(AsRef::as_ref);
            let copies = copies.filter(|copy| workload.is_none_or(|it| copy.workload == it));
            page.cut(copies, |copy: &&Assignment| copy.id)?
        }
        (Some(workload), None) => {
            let after = page.cursor::<Place>()?.map(|Place(slot, id)| (slot, id));
            let copies = view.copies_after(workload, after, page.checked_limit()? + 1);
            let copies = copies.into_iter().map(AsRef::as_ref);
            page.take(copies, |copy| format!("{}.{}", copy.slot, copy.id))?
        }
        (None, None) => {
            let copies = view.assignments_after(page.cursor()?).map(AsRef::as_ref);
            page.take(copies, |copy| copy.id.to_string())?
        }
    };
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

/// Where a copy stands among those of its workload: the cursor of that list.
struct Place(u32, AssignmentId);

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (slot, id) = text.split_once('.').ok_or(())?;
        let slot = slot.parse().map_err(drop)?;
        id.parse().map(|id| Self(slot, id)).map_err(drop)
    }
}

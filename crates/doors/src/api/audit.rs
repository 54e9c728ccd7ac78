//! The audit, read from afar: who did what. It tells what everybody did, so that reading it is written down, too.

use axum::Json;
use axum::extract::State;
use hostler_model::Timestamp;
use hostler_wire::api::{self, AuditPage, AuditQuery};

use super::Api;
use super::page::PageQuery;
use super::refuse::Failure;
use super::take::Query;
use crate::audit::Wanted;

/// The newest lines that are wanted, the oldest of them first; `before` of the answer leads to older ones.
#[utoipa::path(get, path = "/api/v1/audit", tag = "access", params(AuditQuery),
    responses((status = 200, body = AuditPage), (status = "default", body = api::Problem)))]
pub(super) async fn audit(
    State(api): State<Api>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<AuditPage>, Failure> {
    let page = api.access.audit().read(wanted(query)?).await?;
    Ok(Json(page))
}

fn wanted(query: AuditQuery) -> Result<Wanted, Failure> {
    let page = PageQuery {
        limit: query.limit,
        after: None,
    };
    let before = query.before.as_deref().map(|text| {
        let refused = |()| Failure::bad("before: this is no place that a page has told");
        text.parse().map_err(refused)
    });
    let since = query.since.as_deref().map(|text| {
        let refused = || Failure::bad("since: this is no moment as `2026-01-31T08:00:00Z`");
        Timestamp::parse(text).ok_or_else(refused)
    });
    Ok(Wanted {
        limit: page.checked_limit()?,
        before: before.transpose()?,
        since: since.transpose()?,
        query,
    })
}

//! Workloads: apply, list, show, stop, start, restart, delete, and their history.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{self, ApplyOptions, Expect, Reply, Verb};
use hostler_model::spec::{self, WorkloadSpec};
use hostler_model::{Actor, Desired, Refusal, WorkloadId};
use hostler_wire::api;
use http::{StatusCode, Uri, header};

use super::nodes::{gone_meanwhile, unexpected};
use super::page::PageQuery;
use super::refuse::Failure;
use super::take::{Caller, Condition, Query, SpecText, Target};
use super::{Api, convert};
use crate::audit::Thing;

/// The longest that a request may wait for news, and that changes gather meanwhile.
const MOST_WAIT: Duration = Duration::from_secs(20);
const MOST_PAUSE: Duration = Duration::from_millis(250);

impl Api {
    fn workload_id(&self, text: &str) -> Result<WorkloadId, Refusal> {
        self.control
            .view()
            .find_workload(text)
            .map(|workload| workload.id)
    }

    /// The workload as it is now, with its revision as the tag.
    fn shown_workload(&self, status: StatusCode, id: WorkloadId) -> Result<Response, Failure> {
        let view = self.control.view();
        let workload = view.workload(id).ok_or_else(gone_meanwhile)?;
        let tag = [(header::ETAG, format!("\"{}\"", workload.revision))];
        let shown = convert::workload_in_detail(&self.control, &view, workload);
        drop(view);
        Ok((status, tag, Json(shown)).into_response())
    }

    /// Returns once the workload is not as it was seen. Cancel-safe.
    async fn news(&self, id: WorkloadId, seen: &str) {
        let mut changes = self.control.watch_changes();
        loop {
            changes.borrow_and_update();
            let Some(pause) = self.still_as(id, seen) else {
                return;
            };
            if changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// How long to let changes gather before the next look, if the workload is as it was seen: a look goes
    /// over all copies, and in a large fleet something changes at any time.
    fn still_as(&self, id: WorkloadId, seen: &str) -> Option<Duration> {
        let view = self.control.view();
        let workload = view.workload(id)?;
        let shown = convert::workload_in_detail(&self.control, &view, workload);
        let pause = Duration::from_millis(u64::from(workload.spec.count) / 10);
        (shown.standing.mark == seen).then(|| pause.min(MOST_PAUSE))
    }

    async fn change_workload(
        &self,
        caller: Actor,
        target: &str,
        verb: impl FnOnce(WorkloadId) -> Verb,
    ) -> Result<Response, Failure> {
        let id = self.workload_id(target)?;
        self.control.submit(caller, verb(id)).await?;
        self.shown_workload(StatusCode::ACCEPTED, id)
    }

    /// Applies all documents, or none.
    async fn apply_all(
        &self,
        caller: Actor,
        specs: Vec<Arc<WorkloadSpec>>,
        options: ApplyOptions,
    ) -> Result<Vec<api::ApplyResult>, Failure> {
        match self
            .control
            .submit(caller, Verb::Apply { specs, options })
            .await?
        {
            Reply::Applied(applied) => Ok(applied.into_iter().map(convert::applied).collect()),
            other => Err(unexpected(&other)),
        }
    }
}

/// Creates or changes workloads: one or more specs, as YAML or JSON.
#[utoipa::path(post, path = "/api/v1/workloads", tag = "workloads",
    params(api::ApplyQuery,
        ("If-Match" = Option<String>, Header, description = "The revision that was seen"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: it must be new")),
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = Vec<api::ApplyResult>), (status = 201, body = Vec<api::ApplyResult>),
        (status = "default", body = api::Problem)))]
pub(super) async fn apply(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<api::ApplyQuery>,
    Condition(expect): Condition,
    SpecText(text): SpecText,
) -> Result<Response, Failure> {
    let specs = specs(&text, expect)?;
    let api::ApplyQuery {
        dry_run,
        require_placement,
    } = query;
    let options = ApplyOptions {
        expect,
        require_placement,
        dry_run,
    };
    let results = api.apply_all(caller, specs, options).await?;
    let is_new = !dry_run && results.iter().any(|result| result.created);
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = (status, Json(&results)).into_response();
    let names: Vec<&str> = results.iter().map(|it| it.name.as_str()).collect();
    response.extensions_mut().insert(Thing {
        thing: names.join(" "),
        name: None,
    });
    if let ([only], false) = (results.as_slice(), dry_run)
        && let Ok(tag) = format!("\"{}\"", only.revision).parse()
    {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Reads the documents; a condition can only be meant for one.
pub(super) fn specs(text: &str, expect: Expect) -> Result<Vec<Arc<WorkloadSpec>>, Failure> {
    let specs = spec::parse(text)?;
    if specs.len() > 1 && matches!(expect, Expect::Revision(_)) {
        return Err(Failure::bad(
            "If-Match is for one document, and the body holds several",
        ));
    }
    Ok(specs.into_iter().map(Arc::new).collect())
}

/// Every workload, without its copies.
#[utoipa::path(get, path = "/api/v1/workloads", tag = "workloads", params(PageQuery),
    responses((status = 200, body = Vec<api::Workload>)))]
pub(super) async fn list(
    State(api): State<Api>,
    uri: Uri,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let view = api.control.view();
    let page = page.cut(view.workloads(), |workload| workload.id)?;
    Ok(page
        .map(|workload| convert::workload(&api.control, &view, workload))
        .answer(&uri))
}

/// One workload, and how its copies stand; with `wait` once that is not as it was seen.
#[utoipa::path(get, path = "/api/v1/workloads/{id}", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"), api::WaitQuery),
    responses((status = 200, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    Target(target): Target,
    Query(query): Query<api::WaitQuery>,
) -> Result<Response, Failure> {
    let id = api.workload_id(&target)?;
    if let (Some(wait), Some(seen)) = (query.wait, &query.after) {
        let most = Duration::from_millis(wait).min(MOST_WAIT);
        tokio::select! {
            _ = tokio::time::timeout(most, api.news(id, seen)) => {}
            () = api.control.tasks().stopping() => {}
        }
    }
    // It may have gone while the caller waited; its id is nobody else's then.
    let gone = |failure| {
        api.workload_id(&id.to_string())
            .err()
            .map_or(failure, Failure)
    };
    api.shown_workload(StatusCode::OK, id).map_err(gone)
}

/// Stops the copies; then the record goes.
#[utoipa::path(delete, path = "/api/v1/workloads/{id}", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn delete(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let id = api.workload_id(&target)?;
    let before = api.shown_workload(StatusCode::ACCEPTED, id)?;
    api.control
        .submit(
            caller,
            Verb::Delete {
                workload: id,
                expect,
            },
        )
        .await?;
    // Without copies the record may be gone already; then the answer is what was deleted.
    Ok(api
        .shown_workload(StatusCode::ACCEPTED, id)
        .unwrap_or(before))
}

/// Stops the copies and keeps the record.
#[utoipa::path(post, path = "/api/v1/workloads/{id}/stop", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn stop(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let desired = Desired::Stopped;
    let verb = |workload| Verb::SetDesired {
        workload,
        desired,
        expect,
    };
    api.change_workload(caller, &target, verb).await
}

/// Starts copies again.
#[utoipa::path(post, path = "/api/v1/workloads/{id}/start", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn start(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let desired = Desired::Running;
    let verb = |workload| Verb::SetDesired {
        workload,
        desired,
        expect,
    };
    api.change_workload(caller, &target, verb).await
}

/// Gives every copy a new generation, in place.
#[utoipa::path(post, path = "/api/v1/workloads/{id}/restart", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn restart(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |workload| Verb::Restart { workload, expect };
    api.change_workload(caller, &target, verb).await
}

/// A rollout that waits for a person goes on: its canaries become the rule, or what has failed is tried on.
#[utoipa::path(post, path = "/api/v1/workloads/{id}/promote", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"),
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn promote(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |workload| Verb::Promote { workload, expect };
    api.change_workload(caller, &target, verb).await
}

/// Applies the spec of an earlier revision as a new one.
#[utoipa::path(post, path = "/api/v1/workloads/{id}/rollback", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"), api::RollbackQuery,
        ("If-Match" = Option<String>, Header, description = "The revision that was seen")),
    responses((status = 202, body = api::Workload), (status = "default", body = api::Problem)))]
pub(super) async fn rollback(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
    Query(query): Query<api::RollbackQuery>,
    Condition(expect): Condition,
) -> Result<Response, Failure> {
    let verb = |workload| Verb::Rollback {
        workload,
        to: query.to,
        expect,
    };
    api.change_workload(caller, &target, verb).await
}

/// The revisions that are kept, the newest first.
#[utoipa::path(get, path = "/api/v1/workloads/{id}/history", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name"), PageQuery),
    responses((status = 200, body = Vec<api::Revision>), (status = "default", body = api::Problem)))]
pub(super) async fn history(
    State(api): State<Api>,
    uri: Uri,
    Target(target): Target,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let view = api.control.view();
    let workload = view.find_workload(&target)?.id;
    let mut revisions: Vec<_> = view.history(workload).collect();
    revisions.sort_by_key(|revision| std::cmp::Reverse(revision.number));
    // The cursor counts down, so that the newest comes first.
    let page = page.cut(revisions, |revision| u64::MAX - revision.number)?;
    Ok(page
        .map(|revision| {
            let before = view.revision(workload, revision.number - 1);
            convert::revision(revision, before.map(AsRef::as_ref))
        })
        .answer(&uri))
}

/// Why copies have no node, or have one and do not run: every reason.
#[utoipa::path(get, path = "/api/v1/workloads/{id}/why", tag = "workloads",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    responses((status = 200, body = api::Why), (status = "default", body = api::Problem)))]
pub(super) async fn why(
    State(api): State<Api>,
    Target(target): Target,
) -> Result<Json<api::Why>, Failure> {
    let view = api.control.view();
    let workload = view.find_workload(&target)?;
    let why = fleet::why(&view, workload.id).ok_or_else(gone_meanwhile)?;
    let ailing = convert::ailing(&api.control, &view, workload);
    Ok(Json(convert::why(&why, ailing)))
}

//! MIaaS's deployments: each is a compose workload, known by its foreign id and kept with the request as it came.
//!
//! Statuses and messages are the contract's; behind them stands what the fleet says of the workload. A deployment that
//! is being deleted is there until its last copy is gone, and only then may its id be used again.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use hostler_control::fleet::{self, Expect, State as Fleet, Verb};
use hostler_model::spec::{ComposeSpec, MAX_ENCODED_SPEC_BYTES, WorkloadSpec};
use hostler_model::{
    AliasKey, Code, Contract, Desired, Foreign, NodeId, Refusal, Workload, WorkloadId,
};
use hostler_wire::api;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::No;
use super::reading::{DEPLOYMENT_BYTES, Findings};
use crate::api::page::PageQuery;
use crate::api::refuse::Failure;
use crate::api::take::{Caller, Query, Target};
use crate::api::{Api, convert};

const SCOPE: &str = "deployment";
/// Groups of nodes whose reasons are told.
const MOST_REASONS: usize = 3;
/// Longest name of a workload.
const NAME_BYTES: usize = 63;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = MiaasDeployment)]
pub(super) struct Deployment {
    pub deployment_id: String,
    pub template_id: String,
    /// The text of a compose file.
    pub rendered_compose: String,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `remove` deletes; every other word creates.
    pub action: String,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MiaasDeploymentStatus)]
pub(in crate::api) struct Standing {
    deployment_id: String,
    /// `accepted` when it was asked for, `deleting`, or the workload's status.
    status: String,
    message: String,
}

/// What of the kept request is shown.
#[derive(Deserialize)]
struct Kept {
    template_id: String,
}

/// Creates a deployment; with the action `remove` deletes it.
#[utoipa::path(post, path = "/api/v1/deployments", tag = "miaas", request_body = Deployment,
    responses((status = 202, body = Standing), (status = 400, body = api::Problem),
        (status = 404, body = api::Problem), (status = 422, description = "A list of findings")))]
pub(in crate::api) async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    request: Request,
) -> Result<Response, No> {
    let mut findings = Findings::read(request, DEPLOYMENT_BYTES).await?.object()?;
    let payload = findings.take_text();
    let deployment = findings.deployment()?;
    let verb = if deployment.action == "remove" {
        let known = api.deployment(&deployment.deployment_id);
        deletion(known.ok_or_else(not_found)?.id)
    } else {
        Verb::ApplyForeign {
            spec: Arc::new(spec(&deployment)?),
            desired: Desired::Running,
            foreign: Arc::new(Foreign {
                key: key(&deployment.deployment_id),
                revision: String::new(),
                payload,
            }),
            expect: Expect::Absent,
        }
    };
    let submitted = api.control.submit(caller, verb).await;
    submitted.map_err(|refusal| match refusal.code {
        Code::SpecInvalid => No::finding("rendered_compose", &refusal.sentence),
        Code::RevisionConflict | Code::WorkloadDeleting => taken(&deployment.deployment_id).into(),
        Code::WorkloadNotFound => not_found().into(),
        _ => refusal.into(),
    })?;
    let message = "Deployment request accepted and queued for processing";
    let standing = Standing::new(deployment.deployment_id, "accepted", message);
    Ok((StatusCode::ACCEPTED, Json(standing)).into_response())
}

/// Every deployment.
///
/// Without `limit` and `after` the list comes whole.
#[utoipa::path(get, path = "/api/v1/deployments", tag = "miaas", params(PageQuery),
    responses((status = 200, body = Vec<Standing>)))]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    uri: Uri,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let read = |page: &PageQuery| {
        let view = api.control.view();
        let deployments = view.workloads().filter_map(|it| Some((it, id_of(it)?)));
        let page = page.cut(deployments, |(workload, _)| workload.id)?;
        Ok(page.map(|(workload, id)| {
            let message = format!("Deployment on node {}", place(&view, workload.id));
            Standing::new(id, &status(&api, &view, workload), &message)
        }))
    };
    Ok(page.page_or_all(read).await?.answer(&uri))
}

/// One deployment; what it waits for stands behind the message.
#[utoipa::path(get, path = "/api/v1/deployments/{id}", tag = "miaas",
    params(("id" = String, Path, description = "The deployment's id")),
    responses((status = 200, body = Standing), (status = 404, body = api::Problem)))]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    Target(id): Target,
) -> Result<Json<Standing>, No> {
    let workload = api.deployment(&id).ok_or_else(not_found)?;
    let view = api.control.view();
    let kept = workload.foreign.as_ref();
    let kept = kept.and_then(|it| serde_json::from_slice::<Kept>(&it.payload).ok());
    let template = kept.map_or_else(String::new, |kept| kept.template_id);
    let place = place(&view, workload.id);
    let waits = waits(&view, workload.id);
    let fails = fails(&api, &view, workload.id);
    let message = format!("Deployment '{template}' on node {place}{waits}{fails}");
    Ok(Json(Standing::new(
        id,
        &status(&api, &view, &workload),
        &message,
    )))
}

/// Marks a deployment for deletion: it goes when its last copy is gone.
#[utoipa::path(delete, path = "/api/v1/deployments/{id}", tag = "miaas",
    params(("id" = String, Path, description = "The deployment's id")),
    responses((status = 200, body = Standing), (status = 404, body = api::Problem)))]
pub(in crate::api) async fn remove(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(id): Target,
) -> Result<Json<Standing>, No> {
    let workload = api.deployment(&id).ok_or_else(not_found)?.id;
    let deleted = api.control.submit(caller, deletion(workload)).await;
    deleted.map_err(|refusal| match refusal.code {
        Code::WorkloadNotFound => not_found(),
        _ => refusal,
    })?;
    Ok(Json(Standing::new(
        id,
        "deleting",
        "Deployment marked for deletion",
    )))
}

impl Api {
    pub(super) fn deployment(&self, id: &str) -> Option<Arc<Workload>> {
        self.control.view().workload_by_alias(&key(id)).cloned()
    }
}

impl Standing {
    fn new(deployment_id: String, status: &str, message: &str) -> Self {
        Self {
            deployment_id,
            status: status.to_owned(),
            message: message.to_owned(),
        }
    }
}

fn key(id: &str) -> AliasKey {
    AliasKey {
        contract: Contract::Miaas,
        scope: SCOPE.to_owned(),
        foreign: id.to_owned(),
    }
}

/// The deployment's id, if the workload is one.
fn id_of(workload: &Workload) -> Option<String> {
    let key = &workload.foreign.as_ref()?.key;
    let is_one = key.contract == Contract::Miaas && key.scope == SCOPE;
    is_one.then(|| key.foreign.clone())
}

const fn deletion(workload: WorkloadId) -> Verb {
    Verb::Delete {
        workload,
        expect: Expect::Any,
    }
}

/// The workload; one that no node could be told of is refused at once, for it would wait for ever.
fn spec(deployment: &Deployment) -> Result<WorkloadSpec, No> {
    let mut spec = WorkloadSpec::of_process(&name(&deployment.deployment_id), Vec::new());
    spec.process = None;
    spec.compose = Some(ComposeSpec::of_text(&deployment.rendered_compose));
    spec.env.clone_from(&deployment.env);
    let bytes = serde_json::to_vec(&spec).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_ENCODED_SPEC_BYTES {
        let sentence = format!(
            "with its env it has {bytes} bytes; at most {MAX_ENCODED_SPEC_BYTES} reach a node"
        );
        return Err(No::finding("rendered_compose", &sentence));
    }
    Ok(spec)
}

/// A name for the workload that reads like the id.
fn name(id: &str) -> String {
    let letter = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() { c } else { '-' }
    };
    let plain: String = id.chars().map(letter).take(NAME_BYTES).collect();
    match plain.trim_matches('-') {
        "" => SCOPE.to_owned(),
        name => name.to_owned(),
    }
}

fn status(api: &Api, view: &Fleet, workload: &Workload) -> String {
    if workload.desired == Desired::Deleted {
        return "deleting".to_owned();
    }
    let status = convert::workload(&api.control, view, workload).status;
    let word = serde_json::to_value(status).ok();
    word.and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The node that has it.
fn place(view: &Fleet, workload: WorkloadId) -> String {
    let copies = view.assignments_of(workload);
    let newest = copies.max_by_key(|copy| (copy.is_wanted(), copy.generation));
    let node = newest.map(|copy| copy.node);
    node.map_or_else(|| "unassigned".to_owned(), |node: NodeId| node.to_string())
}

/// Why it has no node.
fn waits(view: &Fleet, workload: WorkloadId) -> String {
    let why = fleet::why(view, workload).filter(|why| why.pending > 0);
    let Some(why) = why else { return String::new() };
    let nodes = why.nodes.iter().take(MOST_REASONS).map(ToString::to_string);
    let reasons: Vec<String> = why
        .findings
        .iter()
        .map(ToString::to_string)
        .chain(nodes)
        .collect();
    format!(" (waits: {})", reasons.join(", "))
}

/// Why its copy does not run as it should: what its node says, or the services that have failed.
fn fails(api: &Api, view: &Fleet, workload: WorkloadId) -> String {
    let copies = view
        .assignments_of(workload)
        .filter(|copy| copy.is_wanted());
    let why = copies
        .map(|copy| convert::assignment(&api.control, view, copy))
        .find_map(|copy| {
            let state = copy.state;
            let failed = copy.parts.iter().filter(|part| part.state != "running");
            let failed: Vec<String> = failed
                .filter_map(|part| Some(format!("{}: {}", part.name, part.exit.as_ref()?)))
                .filter(|part| !part.ends_with("exit code 0"))
                .collect();
            match (state.code, failed.is_empty(), state.exit) {
                (Some(_), _, _) => Some(state.detail),
                (None, false, _) => Some(failed.join(", ")),
                (None, true, Some(exit)) if exit != "exit code 0" => Some(exit),
                (None, true, _) => None,
            }
        });
    why.map_or_else(String::new, |why| format!(" (fails: {why})"))
}

fn taken(id: &str) -> Refusal {
    let sentence = format!("Deployment with ID {id} already exists");
    let advice = "use another id, or delete that one and wait until it is gone";
    Refusal::new(Code::BadRequest, sentence, advice)
}

fn not_found() -> Refusal {
    let advice = "GET /api/v1/deployments lists them";
    Refusal::new(Code::WorkloadNotFound, "Deployment not found", advice)
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::is_dns_label;

    use super::*;

    #[test]
    fn every_id_gives_a_name() {
        for (id, expected) in [
            ("dep-1", "dep-1"),
            ("Postgres_Main/2", "postgres-main-2"),
            ("", "deployment"),
            ("---", "deployment"),
            ("é", "deployment"),
        ] {
            assert_eq!(name(id), expected, "{id}");
        }
        for id in ["x".repeat(200), format!("{}-{}", "a".repeat(62), "b")] {
            assert!(is_dns_label(&name(&id)), "{id}");
        }
    }
}

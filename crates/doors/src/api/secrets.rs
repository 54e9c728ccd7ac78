//! Secrets: given, listed, taken away, and sealed with another key. No route gives a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{self, Verb};
use hostler_model::{Secret, WorkloadId};
use hostler_wire::api;
use http::{StatusCode, Uri};

use super::Api;
use super::page::PageQuery;
use super::refuse::Failure;
use super::take::{Caller, Condition, Query, Target, Value};

/// Every secret, by name, without its value.
#[utoipa::path(get, path = "/api/v1/secrets", tag = "secrets", params(PageQuery),
    responses((status = 200, body = Vec<api::Secret>), (status = "default", body = api::Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    uri: Uri,
    Query(page): Query<PageQuery>,
) -> Result<Response, Failure> {
    let view = api.control.view();
    let page = page.cut(view.secrets(), |secret| secret.name.clone())?;
    let users = users(&view);
    let page = page.map(|secret| {
        let workloads = users.get(secret.name.as_str()).cloned();
        shown(secret, workloads.unwrap_or_default())
    });
    Ok(page.answer(&uri))
}

/// Gives a secret the value that is the body, byte for byte. Copies that run keep the value that they have, unless
/// they are to restart.
#[utoipa::path(put, path = "/api/v1/secrets/{name}", tag = "secrets",
    params(("name" = String, Path, description = "The secret's name"), api::SecretQuery,
        ("If-Match" = Option<String>, Header, description = "The version that was seen"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: it must be new")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = api::SecretSet), (status = 201, body = api::SecretSet),
        (status = "default", body = api::Problem)))]
pub(super) async fn set(
    State(api): State<Api>,
    (Caller(caller), Target(name)): (Caller, Target),
    Condition(expect): Condition,
    Query(query): Query<api::SecretQuery>,
    Value(value): Value,
) -> Result<Response, Failure> {
    let setting = api
        .control
        .set_secret(caller.clone(), &name, &value, expect);
    let version = setting.await?;
    let mut answer = api::SecretSet {
        name,
        version,
        restarted: Vec::new(),
        not_restarted: Vec::new(),
    };
    if query.restart {
        for (workload, named) in api.users_of(&answer.name) {
            let verb = Verb::Restart {
                workload,
                expect: fleet::Expect::Any,
            };
            // The value is set whatever becomes of one of them.
            match api.control.submit(caller.clone(), verb).await {
                Ok(_) => answer.restarted.push(named),
                Err(refusal) => answer.not_restarted.push(format!("{named}: {refusal}")),
            }
        }
    }
    let status = match version {
        1 => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(answer)).into_response())
}

/// Forgets a secret that no workload names.
#[utoipa::path(delete, path = "/api/v1/secrets/{name}", tag = "secrets",
    params(("name" = String, Path, description = "The secret's name"),
        ("If-Match" = Option<String>, Header, description = "The version that was seen")),
    responses((status = 200, body = api::Secret), (status = "default", body = api::Problem)))]
pub(super) async fn remove(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(name): Target,
    Condition(expect): Condition,
) -> Result<Json<api::Secret>, Failure> {
    let present = api.control.view().secret(&name).cloned();
    let verb = Verb::RemoveSecret { name, expect };
    api.control.submit(caller, verb).await?;
    let gone = present.ok_or_else(super::nodes::gone_meanwhile)?;
    Ok(Json(shown(&gone, Vec::new())))
}

/// Seals every secret with a new key, and forgets the old one. If it is broken off, the server goes on by itself.
#[utoipa::path(post, path = "/api/v1/rekey-secrets", tag = "secrets",
    responses((status = 200, body = api::Rekeyed), (status = "default", body = api::Problem)))]
pub(super) async fn rekey(
    State(api): State<Api>,
    Caller(caller): Caller,
) -> Result<Json<api::Rekeyed>, Failure> {
    let done = api.control.rekey(caller).await?;
    Ok(Json(api::Rekeyed {
        resealed: done.count as u64,
        unopened: done.unopened as u64,
    }))
}

impl Api {
    /// The workloads that name the secret and are to run.
    fn users_of(&self, name: &str) -> Vec<(WorkloadId, String)> {
        let view = self.control.view();
        let users = view.users_of_secret(name);
        let running = users.filter(|it| it.desired == hostler_model::Desired::Running);
        running.map(|it| (it.id, it.name.clone())).collect()
    }
}

/// The workloads whose specs name each secret.
fn users(view: &fleet::State) -> BTreeMap<&str, Vec<String>> {
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for workload in view.workloads() {
        for secret in &workload.spec.secrets {
            let of_secret = users.entry(&secret.name).or_default();
            if of_secret.last() != Some(&workload.name) {
                of_secret.push(workload.name.clone());
            }
        }
    }
    users
}

fn shown(secret: &Arc<Secret>, workloads: Vec<String>) -> api::Secret {
    api::Secret {
        name: secret.name.clone(),
        version: secret.version,
        created_at: secret.created_at.to_string(),
        key: secret.sealed.key.clone(),
        workloads,
    }
}

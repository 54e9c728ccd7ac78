//! Who may come in: tokens, nodes that wait, and the fleet's authority. Secrets are drawn here and told once.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hostler_control::fleet::{AccessVerb, JoinTokenOrder, TokenOrder, Verb};
use hostler_kit::trust::{Bearer, Invitation, secret};
use hostler_model::{
    AccessRole, Account, AccountId, ApiToken, Code, JoinToken, JoinTokenId, Refusal, Timestamp,
    TokenId,
};
use hostler_wire::api;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::convert::moment;
use super::nodes::gone_meanwhile;
use super::refuse::Failure;
use super::take::{Asker, Body, Caller, Query, Target};
use crate::access::{Chosen, Session, Who};
use crate::audit::Thing;

/// How long a join token is good unless told otherwise.
const JOIN_TTL: u64 = 60 * 60;
/// Longest life of a token that ends: ten years.
const MOST_SECONDS: u64 = 10 * 366 * 24 * 60 * 60;

/// How to let the authority's former keys go.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct RetireQuery {
    /// Although nodes know nothing newer: they are shut out.
    force: bool,
}

impl Api {
    fn known_token(&self, target: &str) -> Result<Arc<ApiToken>, Refusal> {
        let view = self.control.view();
        let is_meant = |it: &&Arc<ApiToken>| it.name == target || it.id.to_string() == target;
        let known = view.tokens().find(is_meant).cloned();
        known.ok_or_else(|| no_token(target))
    }

    fn known_join_token(&self, target: &str) -> Result<Arc<JoinToken>, Refusal> {
        let id = target.parse().ok();
        let view = self.control.view();
        let known = id.and_then(|id| view.join_token(id).cloned());
        known.ok_or_else(|| no_token(target))
    }
}

/// Who asks, as the server knows them.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "access",
    responses((status = 200, body = api::Whoami), (status = "default", body = api::Problem)))]
pub(super) async fn whoami(
    State(api): State<Api>,
    Asker(who): Asker,
    session: Option<Extension<Session>>,
) -> Json<api::Whoami> {
    Json(whoever(&api, &who, session.as_deref()))
}

/// Who that is, with what goes with their session if they have one.
pub(super) fn whoever(api: &Api, who: &Who, session: Option<&Session>) -> api::Whoami {
    let role = match who {
        Who::Person { role, .. } => Some(role_word(*role)),
        Who::Anybody | Who::Nobody | Who::Node(_) | Who::Account(_) | Who::Program(_) => None,
    };
    let session = session.map(|session| {
        let left = u64::try_from(session.left.as_millis()).unwrap_or(u64::MAX);
        let ends = api.now().as_millis().saturating_add(left);
        api::BrowserSession {
            csrf: session.proof(),
            expires_at: moment(Timestamp::from_millis(ends)),
        }
    });
    let name = who.actor().name().to_owned();
    api::Whoami {
        name,
        role,
        session,
    }
}

/// The tokens of people and programs, the oldest first.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access",
    responses((status = 200, body = [api::Token]), (status = "default", body = api::Problem)))]
pub(super) async fn tokens(State(api): State<Api>) -> Json<Vec<api::Token>> {
    Json(api.control.view().tokens().map(|it| token(it)).collect())
}

/// Makes a token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", request_body = api::NewToken,
    responses((status = 201, body = api::IssuedToken), (status = "default", body = api::Problem)))]
pub(super) async fn issue(
    State(api): State<Api>,
    Caller(caller): Caller,
    Body(new): Body<api::NewToken>,
) -> Result<Response, Failure> {
    // One that was made where there is no login would outlive that.
    api.access.trust().ok_or_else(no_login)?;
    let now = api.now();
    let id = TokenId::mint(now, api.entropy.next_u128());
    let bearer = Bearer {
        id: id.to_string(),
        secret: secret(api.entropy.as_ref()),
    };
    let account = new
        .account
        .map(|text| account_id(&api, &text))
        .transpose()?;
    let order = TokenOrder {
        id,
        name: new.name,
        role: role(new.role)?,
        account,
        hash: bearer.secret.hash(),
        expires_at: new.ttl_seconds.map(|ttl| until(now, ttl)).transpose()?,
    };
    let verb = AccessVerb::Issue(order);
    api.control
        .submit(caller, Verb::Access(Box::new(verb)))
        .await?;
    let view = api.control.view();
    let about = token(view.token(id).ok_or_else(gone_meanwhile)?);
    drop(view);
    let issued = api::IssuedToken {
        about,
        token: bearer.reveal(),
    };
    let thing = Extension(Thing {
        thing: issued.about.id.clone(),
        name: Some(issued.about.name.clone()),
    });
    Ok((StatusCode::CREATED, thing, Json(issued)).into_response())
}

/// The token is worth nothing from now on.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "access",
    params(("id" = String, Path, description = "Id or name")),
    responses((status = 200, body = api::Token), (status = "default", body = api::Problem)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
) -> Result<Json<api::Token>, Failure> {
    let known = api.known_token(&target)?;
    let verb = AccessVerb::Revoke { token: known.id };
    api.control
        .submit(caller, Verb::Access(Box::new(verb)))
        .await?;
    Ok(Json(token(&known)))
}

/// The tokens with which machines join, the oldest first.
#[utoipa::path(get, path = "/api/v1/join-tokens", tag = "access",
    responses((status = 200, body = [api::JoinToken]), (status = "default", body = api::Problem)))]
pub(super) async fn join_tokens(State(api): State<Api>) -> Json<Vec<api::JoinToken>> {
    let now = api.now();
    let view = api.control.view();
    Json(view.join_tokens().map(|it| join_token(it, now)).collect())
}

/// Makes a join token. Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "access", request_body = api::NewJoinToken,
    responses((status = 201, body = api::IssuedJoinToken), (status = "default", body = api::Problem)))]
pub(super) async fn invite(
    State(api): State<Api>,
    Caller(caller): Caller,
    Body(new): Body<api::NewJoinToken>,
) -> Result<Response, Failure> {
    let trust = api.access.trust().ok_or_else(no_login)?;
    let now = api.now();
    let id = JoinTokenId::mint(now, api.entropy.next_u128());
    let invitation = Invitation {
        id: id.to_string(),
        secret: secret(api.entropy.as_ref()),
        authority: trust.print(),
    };
    let replaces = new.replaces.map(|node| api.node_id(&node)).transpose()?;
    let order = JoinTokenOrder {
        id,
        hash: invitation.secret.hash(),
        labels: new.labels,
        uses: new.uses,
        replaces,
        needs_approval: new.needs_approval,
        expires_at: until(now, new.ttl_seconds.unwrap_or(JOIN_TTL))?,
    };
    let verb = AccessVerb::Invite(order);
    api.control
        .submit(caller, Verb::Access(Box::new(verb)))
        .await?;
    let view = api.control.view();
    let about = join_token(view.join_token(id).ok_or_else(gone_meanwhile)?, now);
    drop(view);
    let issued = api::IssuedJoinToken {
        about,
        token: invitation.reveal(),
    };
    let thing = Extension(Thing {
        thing: issued.about.id.clone(),
        name: None,
    });
    Ok((StatusCode::CREATED, thing, Json(issued)).into_response())
}

/// No more machines join with it.
#[utoipa::path(delete, path = "/api/v1/join-tokens/{id}", tag = "access",
    params(("id" = String, Path, description = "Id")),
    responses((status = 200, body = api::JoinToken), (status = "default", body = api::Problem)))]
pub(super) async fn uninvite(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
) -> Result<Json<api::JoinToken>, Failure> {
    let known = api.known_join_token(&target)?;
    let verb = AccessVerb::RevokeJoin { token: known.id };
    api.control
        .submit(caller, Verb::Access(Box::new(verb)))
        .await?;
    Ok(Json(join_token(&known, api.now())))
}

/// Lets a node in that waits.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/approve", tag = "nodes",
    params(("id" = String, Path, description = "Id, part of an id, or name")),
    responses((status = 200, body = api::Node), (status = "default", body = api::Problem)))]
pub(super) async fn approve(
    State(api): State<Api>,
    Caller(caller): Caller,
    Target(target): Target,
) -> Result<Response, Failure> {
    let verb = |node| Verb::Access(Box::new(AccessVerb::Approve { node }));
    api.change_node((caller, &target, StatusCode::OK), verb)
        .await
}

/// Whom the fleet's members believe.
#[utoipa::path(get, path = "/api/v1/authority", tag = "access",
    responses((status = 200, body = api::Authority), (status = "default", body = api::Problem)))]
pub(super) async fn authority(State(api): State<Api>) -> Result<Json<api::Authority>, Failure> {
    let trust = api.access.trust().ok_or_else(no_login)?;
    Ok(Json(api::Authority {
        print: trust.print().to_string(),
        certificates: trust.bundle(),
        urls: trust.urls().to_vec(),
        behind: trust.behind(&api.control),
    }))
}

/// Gives the fleet's authority a new key. The old one stays believed.
#[utoipa::path(post, path = "/api/v1/authority/rotate", tag = "access",
    responses((status = 200, body = api::Authority), (status = "default", body = api::Problem)))]
pub(super) async fn rotate(
    State(api): State<Api>,
    Caller(caller): Caller,
) -> Result<Json<api::Authority>, Failure> {
    let trust = api.access.trust().ok_or_else(no_login)?.clone();
    trust.rotate(&api.control, caller).await?;
    authority(State(api)).await
}

/// Believes the authority's former keys no more.
#[utoipa::path(post, path = "/api/v1/authority/retire", tag = "access", params(RetireQuery),
    responses((status = 200, body = api::Authority), (status = "default", body = api::Problem)))]
pub(super) async fn retire(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<RetireQuery>,
) -> Result<Json<api::Authority>, Failure> {
    let trust = api.access.trust().ok_or_else(no_login)?.clone();
    trust.retire(&api.control, (caller, query.force)).await?;
    authority(State(api)).await
}

/// The doors of other contracts that this server opens by name, and what each of them relaxes. Without login there is
/// nothing to relax, and the list is empty.
#[utoipa::path(get, path = "/api/v1/doors", tag = "access",
    responses((status = 200, body = [api::Door]), (status = "default", body = api::Problem)))]
pub(super) async fn doors(State(api): State<Api>) -> Json<Vec<api::Door>> {
    Json(api.access.opened().told(Chosen {
        beats_are_open: api.beats_are_open(),
        has_key: api.has_orchion_key,
    }))
}

/// Another key signs the tokens of MIaaS's nodes from now on.
#[utoipa::path(post, path = "/api/v1/miaas/rotate-key", tag = "access", params(api::RotateKeyQuery),
    responses((status = 200, body = api::MiaasKeys), (status = "default", body = api::Problem)))]
pub(super) async fn rotate_key(
    State(api): State<Api>,
    Caller(caller): Caller,
    Query(query): Query<api::RotateKeyQuery>,
) -> Result<Json<api::MiaasKeys>, Failure> {
    let (asked, life) = (api.clone(), (api.now(), api.miaas.ttl));
    let rotating = move || {
        let entropy = asked.entropy.as_ref();
        asked.miaas_keys.rotate(life, entropy, query.at_once)
    };
    let rotated = tokio::task::spawn_blocking(rotating).await;
    let rotated = rotated.map_err(|_| {
        let advice = "look at the server's log";
        Failure(Refusal::new(
            Code::Internal,
            "the server has a bug here",
            advice,
        ))
    })??;
    tracing::info!(
        key = rotated.key,
        by = caller.name(),
        query.at_once,
        "another key signs MIaaS's tokens"
    );
    Ok(Json(rotated))
}

fn account_id(api: &Api, text: &str) -> Result<AccountId, Failure> {
    let view = api.control.view();
    let is_meant = |it: &&Arc<Account>| it.name == text || it.id.to_string() == text;
    let account = view.accounts().find(is_meant).map(|account| account.id);
    account.ok_or_else(|| {
        let sentence = format!("there is no account `{}`", text.escape_debug());
        let advice = "list the accounts in the spot contract's own pages";
        Failure(Refusal::new(Code::AccountNotFound, sentence, advice))
    })
}

fn token(token: &ApiToken) -> api::Token {
    api::Token {
        id: token.id.to_string(),
        name: token.name.clone(),
        role: role_word(token.role),
        account: token.account.map(|account| account.to_string()),
        created_at: moment(token.created_at),
        created_by: token.created_by.clone(),
        expires_at: token.expires_at.map(moment),
    }
}

fn join_token(token: &JoinToken, now: Timestamp) -> api::JoinToken {
    api::JoinToken {
        id: token.id.to_string(),
        labels: token.labels.clone(),
        uses_left: token.uses_left,
        replaces: token.replaces.map(|node| node.to_string()),
        needs_approval: token.needs_approval,
        created_at: moment(token.created_at),
        created_by: token.created_by.clone(),
        expires_at: moment(token.expires_at),
        is_spent: token.is_spent(now),
    }
}

const fn role_word(role: AccessRole) -> api::AccessRole {
    match role {
        AccessRole::Viewer => api::AccessRole::Viewer,
        AccessRole::Operator => api::AccessRole::Operator,
        AccessRole::Admin => api::AccessRole::Admin,
    }
}

fn role(word: api::AccessRole) -> Result<AccessRole, Failure> {
    match word {
        api::AccessRole::Viewer => Ok(AccessRole::Viewer),
        api::AccessRole::Operator => Ok(AccessRole::Operator),
        api::AccessRole::Admin => Ok(AccessRole::Admin),
        api::AccessRole::Unknown => Err(Failure::bad("`role` is one of viewer, operator, admin")),
    }
}

fn until(now: Timestamp, seconds: u64) -> Result<Timestamp, Failure> {
    if !(1..=MOST_SECONDS).contains(&seconds) {
        let sentence = format!("`ttl_seconds` is 1 to {MOST_SECONDS}");
        return Err(Failure::bad(sentence));
    }
    Ok(Timestamp::from_millis(now.as_millis() + seconds * 1_000))
}

fn no_token(target: &str) -> Refusal {
    let sentence = format!("there is no token `{}`", target.escape_debug());
    let advice = "list the tokens with `hostler token ls`";
    Refusal::new(Code::TokenNotFound, sentence, advice)
}

fn no_login() -> Refusal {
    let sentence = "this server runs without login: everybody may join, and nobody needs a token";
    let advice = "start the server without --insecure";
    Refusal::new(Code::BadRequest, sentence, advice)
}

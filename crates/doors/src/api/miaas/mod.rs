//! MIaaS's routes, in both of its dialects: register and heartbeat here, deployments in `deployments`. The list of
//! nodes is `nodes::list`, whose entries are a superset of MIaaS's.
//!
//! ```text
//!   heartbeat, later dialect: JSON? ─422─► token there? ─401─► token good? ─401─► body fits? ─422─► own node? ─403─► known? ─404
//!   heartbeat, seed dialect:  JSON? ─422─────────────────────────────────────────► body fits? ─422─────────────────► known? ─404
//! ```
//!
//! A node is known by the name under which it registers; `docs/decisions/0008-miaas-nodes.md` says why. Such a
//! node has no drivers, so nothing is placed on it. Bodies are read as leniently as MIaaS reads them, and refused
//! in its words: a list of findings with status 422.

mod config;
mod deployments;
mod keys;
mod logs;
mod reading;
mod routes;
mod token;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{NodeAnnouncement, Reply, Verb};
use hostler_model::{
    AccessRole, Actor, AliasKey, Bytes, Code, Contract, Disk, MilliCpu, NodeFacts, NodeId, Refusal,
    Resources, Usage,
};
use hostler_wire::api;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

pub use self::config::{Config, Dialect};
pub(super) use self::deployments::{
    create as deploy, list as list_deployments, remove as remove_deployment,
    show as show_deployment,
};
pub use self::keys::Keys;
// The description of the API names handlers by their path.
pub(super) use self::deployments::{
    __path_create as __path_deploy, __path_list as __path_list_deployments,
    __path_remove as __path_remove_deployment, __path_show as __path_show_deployment,
};
pub(super) use self::logs::tail;
use self::reading::{Findings, WORD_BYTES};
pub(super) use self::routes::{Openness, openness, refuse_head, without_slash};
use super::Api;
use super::nodes::unexpected;
use super::refuse::{Failure, problem};
use super::take::{Asker, Target};
use crate::access::{Auth, Who};

/// What an agent tells when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = MiaasRegistration)]
pub(super) struct Registration {
    name: String,
    ip: String,
    capabilities: api::Capabilities,
}

/// What it gets.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MiaasRegistered)]
pub(super) struct Registered {
    node_id: String,
    /// A JWT; agents carry it unread.
    node_token: String,
    control_plane_url: String,
}

/// What an agent tells with each beat.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[schema(as = MiaasHeartbeat)]
pub(super) struct Heartbeat {
    cpu_usage: f64,
    mem_usage: f64,
    disk_free_mb: i64,
    running_containers: Vec<String>,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = MiaasBeaten)]
pub(super) struct Beaten {
    status: &'static str,
    /// Seconds since 1970.
    timestamp: f64,
}

/// A refusal on these routes.
#[derive(Debug)]
pub(super) enum No {
    /// The body is not as expected: MIaaS's list.
    Findings(Vec<Value>),
    /// Everything else: a problem document.
    Failure(Failure),
}

/// Registers a node, or the same node again: a node is known by its name.
#[utoipa::path(post, path = "/api/v1/nodes/register", tag = "miaas", request_body = Registration,
    responses((status = 200, description = "In the seed's dialect", body = Registered),
        (status = 201, description = "In the later dialect", body = Registered),
        (status = 422, description = "A list of findings")))]
pub(super) async fn register(
    State(api): State<Api>,
    headers: HeaderMap,
    request: Request,
) -> Result<(StatusCode, Json<Registered>), No> {
    let registration = Findings::read(request, WORD_BYTES)
        .await?
        .object()?
        .registration()?;
    let name = registration.name.clone();
    let verb = Verb::Announce(Box::new(announcement(registration)));
    match api.control.submit(Actor::Node(name.clone()), verb).await? {
        Reply::Node { id, .. } => {
            api.control.poll_beat(id, None).await?;
            let (status, dialect) = match api.miaas.dialect {
                Dialect::Seed => (StatusCode::OK, "seed"),
                Dialect::Later => (StatusCode::CREATED, "later"),
            };
            tracing::info!(node = %id, name, contract = "miaas", dialect, "node joined");
            Ok((
                status,
                Json(api.registered(&id.to_string(), &name, &headers)),
            ))
        }
        other => Err(No::Failure(unexpected(&other))),
    }
}

/// A beat of a registered node. In the seed's dialect it needs no authorization, and none is read, unless the door is
/// opened to those with tokens only.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/heartbeat", tag = "miaas", request_body = Heartbeat,
    params(("id" = String, Path, description = "The node's id"),
        ("Authorization" = Option<String>, Header, description = "`Bearer` and the node's token, in the later dialect")),
    responses((status = 200, body = Beaten), (status = 401, body = api::Problem),
        (status = 403, body = api::Problem), (status = 404, body = api::Problem),
        (status = 422, description = "A list of findings")))]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Target(target): Target,
    Asker(who): Asker,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Beaten>, No> {
    let sent = Findings::read(request, WORD_BYTES).await?;
    let claimed = api.authenticated(&headers, &who)?;
    let usage = usage(sent.object()?.heartbeat()?);
    if claimed.is_some_and(|node| node != target) {
        let sentence = "Cannot send heartbeat for a different node";
        let advice = "send the token that came with this node's id";
        return Err(Refusal::new(Code::Forbidden, sentence, advice).into());
    }
    let node = api.miaas_node(&target).ok_or_else(not_found)?;
    let beaten = api.control.poll_beat(node, Some(usage)).await;
    beaten.map_err(|refusal| match refusal.code {
        Code::NodeNotFound | Code::NodeGone => not_found(),
        _ => refusal,
    })?;
    Ok(Json(Beaten {
        status: "ok",
        timestamp: api.now().as_seconds(),
    }))
}

impl Api {
    /// The node with that id, if it registered here: nodes of other contracts speak for themselves.
    fn miaas_node(&self, id: &str) -> Option<NodeId> {
        let view = self.control.view();
        let node = view.node(id.parse().ok()?)?;
        (node.contract == Contract::Miaas).then_some(node.id)
    }

    /// Whether a beat may come without a token.
    pub(in crate::api) fn beats_are_open(&self) -> bool {
        let is_asked = self.access.opened().doors.get(&Contract::Miaas) == Some(&Auth::Token);
        self.miaas.dialect == Dialect::Seed && !is_asked
    }

    /// The node whose token the request carries; none where no token is read, and for who may speak for every node.
    fn authenticated(&self, headers: &HeaderMap, who: &Who) -> Result<Option<String>, Refusal> {
        if self.beats_are_open() || who.is(AccessRole::Operator) {
            return Ok(None);
        }
        let refused = |sentence| {
            let advice = "register the node, and send its token as `Authorization: Bearer <token>`";
            Refusal::new(Code::Unauthenticated, sentence, advice)
        };
        let token = token::of(headers).ok_or_else(|| refused("Missing authentication token"))?;
        let claims = token::read(&self.miaas_keys, token, self.now());
        let claims = claims.ok_or_else(|| refused("Invalid or expired token"))?;
        Ok(Some(claims.node_id))
    }

    /// The address is the one that the agent has used: it works from there.
    fn registered(&self, id: &str, name: &str, headers: &HeaderMap) -> Registered {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let scheme = if self.access.is_guarded() {
            "https"
        } else {
            "http"
        };
        let life = (self.now(), self.miaas.ttl);
        Registered {
            node_id: id.to_owned(),
            node_token: token::issue(&self.miaas_keys, (id, name), life),
            control_plane_url: format!("{scheme}://{}", host.unwrap_or("localhost:8080")),
        }
    }
}

/// Says at the start what whoever runs this must know.
pub(super) fn warn(config: &Config, keys: &Keys) {
    if config.dialect == Dialect::Later && keys.signs_publicly() {
        tracing::warn!(
            "the tokens of MIaaS's nodes are signed with the secret that everybody knows: set one of your own"
        );
    }
}

fn announcement(registration: Registration) -> NodeAnnouncement {
    let Registration {
        name,
        ip,
        capabilities,
    } = registration;
    let capacity = Resources {
        cpu: MilliCpu(u64::from(capabilities.cpu_count) * 1000),
        memory: megabytes(capabilities.mem_mb),
        disk: megabytes(capabilities.disk_mb.unwrap_or_default()),
    };
    let (contract, scope) = (Contract::Miaas, "node".to_owned());
    NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: AliasKey {
            contract,
            scope,
            foreign: name.clone(),
        },
        contract,
        facts: facts(name.clone(), ip, capabilities),
        name,
        capacity,
        labels: BTreeMap::new(),
        instance: None,
    }
}

fn facts(name: String, ip: String, capabilities: api::Capabilities) -> NodeFacts {
    let root = |total| Disk {
        mount: "/".to_owned(),
        total,
        free: Bytes(0),
    };
    NodeFacts {
        hostname: name,
        cpu_count: capabilities.cpu_count,
        memory: megabytes(capabilities.mem_mb),
        disks: capabilities
            .disk_mb
            .map(megabytes)
            .map(root)
            .into_iter()
            .collect(),
        addresses: vec![ip],
        foreign: serde_json::to_string(&capabilities).ok(),
        os: capabilities.os,
        ..NodeFacts::default()
    }
}

const fn megabytes(count: u64) -> Bytes {
    Bytes(count.saturating_mul(1 << 20))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "percentages lose nothing that matters"
)]
fn usage(beat: Heartbeat) -> Usage {
    Usage {
        cpu_percent: beat.cpu_usage as f32,
        memory_percent: beat.mem_usage as f32,
        memory_used: Bytes(0),
        disk_free: megabytes(u64::try_from(beat.disk_free_mb).unwrap_or_default()),
        running_containers: beat.running_containers,
        units: Vec::new(),
        pressure: None,
    }
}

fn not_found() -> Refusal {
    Refusal::new(
        Code::NodeNotFound,
        "Node not found",
        "register the node again",
    )
}

impl No {
    /// One thing that does not fit.
    fn finding(key: &str, message: &str) -> Self {
        let finding =
            json!({"type": "value_error", "loc": ["body", key], "msg": message, "input": null});
        Self::Findings(vec![finding])
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Failure(Failure(refusal))
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        match self {
            Self::Failure(failure) => {
                let is_nobody = failure.0.code == Code::Unauthenticated;
                let mut response = failure.into_response();
                if is_nobody {
                    let scheme = HeaderValue::from_static("Bearer");
                    response
                        .headers_mut()
                        .insert(header::WWW_AUTHENTICATE, scheme);
                }
                response
            }
            Self::Findings(findings) => {
                // The keys of a problem document stay beside the list, which stands where the sentence would.
                let advice = "`detail` lists what is wrong and where";
                let refusal = Refusal::new(Code::BadRequest, "", advice);
                let mut body = serde_json::to_value(problem(refusal)).unwrap_or_default();
                body["status"] = StatusCode::UNPROCESSABLE_ENTITY.as_u16().into();
                body["detail"] = Value::Array(findings);
                (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
            }
        }
    }
}

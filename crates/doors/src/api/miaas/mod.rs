//! MIaaS's node routes, in the dialect of its first version: register and heartbeat. The list is `nodes::list`,
//! whose entries are a superset of MIaaS's.
//!
//! A node is known by the name under which it registers; `docs/decisions/0008-miaas-nodes.md` says why. Such a
//! node has no drivers, so nothing is placed on it. Bodies are read as leniently as MIaaS reads them, and refused
//! in its words: a list of findings with status 422.

mod reading;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use hostler_control::fleet::{NodeAnnouncement, Reply, Verb};
use hostler_model::{
    Actor, AliasKey, Bytes, Code, Contract, Disk, MilliCpu, NodeFacts, Refusal, Resources,
    Timestamp, Usage,
};
use hostler_wire::api;
use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use self::reading::Findings;
use super::Api;
use super::nodes::unexpected;
use super::refuse::{Failure, problem};
use super::take::Target;

/// What an agent tells when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = MiaasRegistration)]
pub(super) struct Registration {
    name: String,
    ip: String,
    capabilities: api::Capabilities,
}

/// What it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = MiaasRegistered)]
pub(super) struct Registered {
    node_id: String,
    /// Opaque; agents carry it unread.
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
    responses((status = 200, body = Registered), (status = 422, description = "A list of findings")))]
pub(super) async fn register(
    State(api): State<Api>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<Registered>, No> {
    let registration = Findings::read(request).await?.registration()?;
    let name = registration.name.clone();
    let verb = Verb::Announce(Box::new(announcement(registration)));
    match api.control.submit(Actor::Node(name.clone()), verb).await? {
        Reply::Node { id, .. } => {
            api.control.poll_beat(id, None).await?;
            tracing::info!(node = %id, name, contract = "miaas", "node joined");
            Ok(Json(registered(&id.to_string(), &headers)))
        }
        other => Err(No::Failure(unexpected(&other))),
    }
}

/// A beat of a registered node. It needs no authorization.
#[utoipa::path(post, path = "/api/v1/nodes/{id}/heartbeat", tag = "miaas", request_body = Heartbeat,
    params(("id" = String, Path, description = "The node's id")),
    responses((status = 200, body = Beaten), (status = 404, body = api::Problem),
        (status = 422, description = "A list of findings")))]
pub(super) async fn heartbeat(
    State(api): State<Api>,
    Target(target): Target,
    request: Request,
) -> Result<Json<Beaten>, No> {
    let usage = usage(Findings::read(request).await?.heartbeat()?);
    let node = target.parse().map_err(|_| not_found())?;
    let beaten = api.control.poll_beat(node, Some(usage)).await;
    beaten.map_err(|refusal| match refusal.code {
        Code::NodeNotFound | Code::NodeGone => not_found(),
        _ => refusal,
    })?;
    let now = Timestamp::from_millis(api.control.clock().wall_millis());
    Ok(Json(Beaten {
        status: "ok",
        timestamp: now.as_seconds(),
    }))
}

/// Whether pages of other sites may use this route: MIaaS's page lives elsewhere.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    match (words.as_slice(), method) {
        ([""] | ["health"] | ["api", "v1", "nodes"], &Method::GET | &Method::HEAD)
        | (["api", "v1", "nodes", _, "heartbeat"], &Method::POST) => true,
        (["api", "v1", "nodes", "register"], method) => *method == Method::POST,
        (["api", "v1", "nodes", _], &Method::GET | &Method::HEAD) => true,
        _ => false,
    }
}

/// MIaaS's routes with one slash too many lead to those without.
pub(super) fn without_slash(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/')?;
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let is_known = match words.as_slice() {
        ["health"] | ["api", "v1", "nodes"] => true,
        ["api", "v1", "nodes", id] => !id.is_empty(),
        ["api", "v1", "nodes", id, "heartbeat"] => !id.is_empty(),
        _ => false,
    };
    is_known.then_some(path)
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
    }
}

/// The address is the one that the agent has used: it works from there.
fn registered(id: &str, headers: &HeaderMap) -> Registered {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    Registered {
        node_id: id.to_owned(),
        node_token: format!("node-token-{id}"),
        control_plane_url: format!("http://{}", host.unwrap_or("localhost:8080")),
    }
}

fn not_found() -> Refusal {
    Refusal::new(
        Code::NodeNotFound,
        "Node not found",
        "register the node again",
    )
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Failure(Failure(refusal))
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        match self {
            Self::Failure(failure) => failure.into_response(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_miaas_routes_lose_a_slash() {
        assert_eq!(without_slash("/api/v1/nodes/"), Some("/api/v1/nodes"));
        assert_eq!(
            without_slash("/api/v1/nodes/x/heartbeat/"),
            Some("/api/v1/nodes/x/heartbeat")
        );
        assert_eq!(without_slash("/api/v1/workloads/"), None);
        assert_eq!(without_slash("/api/v1/nodes"), None);
        assert_eq!(without_slash("//"), None);
    }

    #[test]
    fn pages_may_read_and_register_but_not_remove() {
        assert!(is_open(&Method::GET, "/api/v1/nodes"));
        assert!(is_open(&Method::POST, "/api/v1/nodes/register"));
        assert!(is_open(&Method::POST, "/api/v1/nodes/x/heartbeat"));
        assert!(is_open(&Method::GET, "/health"));
        assert!(!is_open(&Method::DELETE, "/api/v1/nodes/x"));
        assert!(!is_open(&Method::POST, "/api/v1/nodes/x/drain"));
        assert!(!is_open(&Method::POST, "/api/v1/workloads"));
    }
}

//! MIaaS's node routes, in the dialect of its first version: register and heartbeat. The list is `nodes::list`,
//! whose entries are a superset of MIaaS's.
//!
//! A node is known by the name under which it registers; `docs/decisions/0008-miaas-nodes.md` says why. Such a
//! node has no drivers, so nothing is placed on it. Bodies are read as leniently as MIaaS reads them, and refused
//! in its words: a list of findings with status 422.

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
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::Api;
use super::nodes::unexpected;
use super::refuse::{Failure, problem};
use super::take::{Target, read};

/// Most bytes of a body; agents send some hundred.
const BODY_BYTES: usize = 64 << 10;
/// Most bytes of a name; it becomes part of a key of the store.
const NAME_BYTES: usize = 128;

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
    let verb = Verb::Announce(Box::new(announcement(registration)?));
    match api.control.submit(Actor::Node(name.clone()), verb).await? {
        Reply::Node { id, .. } => {
            api.control.poll_beat(id, None, None).await?;
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
    let beaten = api.control.poll_beat(node, Some(usage), None).await;
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

fn announcement(registration: Registration) -> Result<NodeAnnouncement, Refusal> {
    let Registration {
        name,
        ip,
        capabilities,
    } = registration;
    let foreign = serde_json::to_string(&capabilities).ok();
    let memory = Bytes(capabilities.mem_mb << 20);
    let disk = Bytes(capabilities.disk_mb.unwrap_or_default() << 20);
    let disks = Disk {
        mount: "/".to_owned(),
        total: disk,
        free: Bytes(0),
    };
    let facts = NodeFacts {
        hostname: name.clone(),
        os: capabilities.os,
        cpu_count: capabilities.cpu_count,
        memory,
        disks: capabilities.disk_mb.map(|_| disks).into_iter().collect(),
        addresses: vec![ip],
        foreign,
        ..NodeFacts::default()
    };
    let cpu = MilliCpu(u64::from(facts.cpu_count) * 1000);
    let identity = AliasKey {
        contract: Contract::Miaas,
        scope: "node".to_owned(),
        foreign: name.clone(),
    };
    let capacity = Resources { cpu, memory, disk };
    let labels = BTreeMap::new();
    Ok(NodeAnnouncement {
        identity,
        contract: Contract::Miaas,
        name,
        facts,
        capacity,
        labels,
    })
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
        disk_free: Bytes(u64::try_from(beat.disk_free_mb).unwrap_or_default() << 20),
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

/// A body being read with MIaaS's leniency; what does not fit is gathered.
#[derive(Debug)]
struct Findings {
    body: Map<String, Value>,
    found: Vec<Value>,
}

impl Findings {
    async fn read(request: Request) -> Result<Self, No> {
        let bytes = read(request, BODY_BYTES).await.map_err(No::Failure)?;
        let one = |kind: &str, at: Value, message: &str| {
            No::Findings(vec![
                json!({"type": kind, "loc": ["body", at], "msg": message, "input": null}),
            ])
        };
        if bytes.is_empty() {
            let missing =
                json!({"type": "missing", "loc": ["body"], "msg": "Field required", "input": null});
            return Err(No::Findings(vec![missing]));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(body)) => Ok(Self {
                body,
                found: Vec::new(),
            }),
            Ok(_) => {
                let message = "Input should be a valid dictionary or object to extract fields from";
                let loc = json!({"type": "model_attributes_type", "loc": ["body"], "msg": message, "input": null});
                Err(No::Findings(vec![loc]))
            }
            Err(error) => {
                let message = format!("JSON decode error: {error}");
                Err(one("json_invalid", error.column().into(), &message))
            }
        }
    }

    fn registration(mut self) -> Result<Registration, No> {
        let name = self.text(&["name"]);
        let ip = self.text(&["ip"]);
        if name.len() > NAME_BYTES {
            self.find(
                "string_too_long",
                &["name"],
                &format!("at most {NAME_BYTES} bytes"),
            );
        }
        let capabilities = self.capabilities();
        self.close(Registration {
            name,
            ip,
            capabilities,
        })
    }

    fn capabilities(&mut self) -> api::Capabilities {
        let at = "capabilities";
        if self.body.get(at).is_some_and(|it| !it.is_object()) {
            self.find(
                "model_attributes_type",
                &[at],
                "Input should be a valid dictionary",
            );
            return api::Capabilities::default();
        }
        if !self.body.contains_key(at) {
            self.find("missing", &[at], "Field required");
            return api::Capabilities::default();
        }
        api::Capabilities {
            os: self.text(&[at, "os"]),
            cpu_count: self.number(&[at, "cpu_count"], None),
            mem_mb: self.number(&[at, "mem_mb"], None),
            disk_mb: self
                .present(&[at, "disk_mb"])
                .then(|| self.number(&[at, "disk_mb"], None)),
            gpus: self.objects(&[at, "gpus"]),
            docker: self.object(&[at, "docker"]),
            k8s: self.object(&[at, "k8s"]),
        }
    }

    fn heartbeat(mut self) -> Result<Heartbeat, No> {
        let beat = Heartbeat {
            cpu_usage: self.float(&["cpu_usage"]),
            mem_usage: self.float(&["mem_usage"]),
            disk_free_mb: self.number(&["disk_free_mb"], Some(0)),
            running_containers: self.words(&["running_containers"]),
        };
        self.close(beat)
    }

    fn close<T>(self, read: T) -> Result<T, No> {
        if self.found.is_empty() {
            Ok(read)
        } else {
            Err(No::Findings(self.found))
        }
    }

    fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.body.get(*first)?, |value, key| value.get(*key))
    }

    fn present(&self, path: &[&str]) -> bool {
        self.get(path).is_some_and(|value| !value.is_null())
    }

    fn find(&mut self, kind: &str, path: &[&str], message: &str) {
        let input = self.get(path).cloned().unwrap_or_default();
        let loc: Vec<&str> = std::iter::once("body")
            .chain(path.iter().copied())
            .collect();
        self.found
            .push(json!({"type": kind, "loc": loc, "msg": message, "input": input}));
    }

    fn text(&mut self, path: &[&str]) -> String {
        match self.get(path) {
            Some(Value::String(text)) => text.clone(),
            Some(_) => {
                self.find("string_type", path, "Input should be a valid string");
                String::new()
            }
            None => {
                self.find("missing", path, "Field required");
                String::new()
            }
        }
    }

    /// A whole number, also as text (`"8"`) or as a float without fraction (`8.0`).
    fn number<T: TryFrom<i64> + Default>(&mut self, path: &[&str], default: Option<T>) -> T {
        let Some(value) = self.get(path) else {
            return default.unwrap_or_else(|| {
                self.find("missing", path, "Field required");
                T::default()
            });
        };
        let whole = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => {
                let text = text.trim();
                text.parse()
                    .ok()
                    .or_else(|| text.parse().ok().and_then(whole))
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        whole
            .and_then(|number| T::try_from(number).ok())
            .unwrap_or_else(|| {
                self.find("int_parsing", path, "Input should be a valid integer");
                T::default()
            })
    }

    fn float(&mut self, path: &[&str]) -> f64 {
        let Some(value) = self.get(path) else {
            return 0.0;
        };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        // JSON has no word for what is not finite, so it could not be shown again.
        number
            .filter(|number| number.is_finite())
            .unwrap_or_else(|| {
                self.find("float_parsing", path, "Input should be a valid number");
                0.0
            })
    }

    fn words(&mut self, path: &[&str]) -> Vec<String> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        self.list(
            path,
            word,
            "string_type",
            "Input should be a valid list of strings",
        )
    }

    fn objects(&mut self, path: &[&str]) -> Vec<Value> {
        let object = |value: &Value| value.is_object().then(|| value.clone());
        self.list(
            path,
            object,
            "dict_type",
            "Input should be a valid list of dictionaries",
        )
    }

    fn list<T>(
        &mut self,
        path: &[&str],
        entry: impl Fn(&Value) -> Option<T>,
        kind: &str,
        message: &str,
    ) -> Vec<T> {
        let Some(value) = self.get(path) else {
            return Vec::new();
        };
        let read = value
            .as_array()
            .and_then(|list| list.iter().map(entry).collect());
        read.unwrap_or_else(|| {
            self.find(kind, path, message);
            Vec::new()
        })
    }

    fn object(&mut self, path: &[&str]) -> Option<Value> {
        let value = self.get(path).filter(|value| !value.is_null())?;
        if value.is_object() {
            return Some(value.clone());
        }
        self.find("dict_type", path, "Input should be a valid dictionary");
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the value is whole and within the range"
)]
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(body: Value) -> Findings {
        let Value::Object(body) = body else {
            panic!("the test gives an object")
        };
        Findings {
            body,
            found: Vec::new(),
        }
    }

    fn kinds(no: No) -> Vec<String> {
        let No::Findings(found) = no else {
            panic!("{no:?}")
        };
        found
            .iter()
            .map(|it| it["type"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn whole_numbers_are_taken_in_every_form_that_miaas_takes() {
        for (value, expected) in [
            (json!(8), 8),
            (json!("8"), 8),
            (json!(8.0), 8),
            (json!(" 8 "), 8),
        ] {
            let body = json!({"name": "a", "ip": "b", "capabilities":
                {"os": "linux", "cpu_count": value, "mem_mb": 1}});
            assert_eq!(
                findings(body)
                    .registration()
                    .unwrap()
                    .capabilities
                    .cpu_count,
                expected
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_listed_whole() {
        let body =
            json!({"ip": 1, "capabilities": {"os": "linux", "cpu_count": 1.5, "mem_mb": true}});
        let found = kinds(findings(body).registration().unwrap_err());
        assert_eq!(
            found,
            ["missing", "string_type", "int_parsing", "int_parsing"]
        );
        let body = json!({"cpu_usage": "x", "running_containers": [1]});
        let found = kinds(findings(body).heartbeat().unwrap_err());
        assert_eq!(found, ["float_parsing", "string_type"]);
    }

    #[test]
    fn an_empty_beat_is_a_beat() {
        let beat = findings(json!({})).heartbeat().unwrap();
        assert_eq!((beat.disk_free_mb, beat.running_containers.len()), (0, 0));
    }

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

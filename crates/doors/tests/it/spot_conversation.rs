//! A conversation in raw HTTP text, as the contract has it: against our door, and against the original program
//! where `outside` finds one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::outside::Outsider;
use crate::server::Server;

/// One side of the conversation.
struct Caller {
    addr: String,
    token: String,
}

impl Caller {
    /// Sends the request as text and reads the whole answer: its status, its head and its body.
    fn raw(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.addr).expect("the program listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a timeout");
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}",
            self.addr
        );
        stream
            .write_all(text.as_bytes())
            .expect("the request is sent");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .expect("the answer is whole");
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        (
            status.expect("a status"),
            head.to_lowercase(),
            body.to_owned(),
        )
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let headers = format!("Authorization: Bearer {}\r\n", self.token);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, head, text) = self.raw(method, path, &headers, &body);
        assert!(head.contains("content-type: application/json"), "{head}");
        let read = serde_json::from_str(&text);
        (
            status,
            read.unwrap_or_else(|error| panic!("{error}: {text}")),
        )
    }

    fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }
}

/// What a value must be.
type Kind = fn(&Value) -> bool;

/// Asserts the keys of an object and the kind of each.
fn has_kinds(object: &Value, kinds: &[(&str, Kind)]) {
    for (key, is_kind) in kinds {
        let value = object
            .get(key)
            .unwrap_or_else(|| panic!("{key} is missing: {object}"));
        assert!(is_kind(value), "{key}: {value}");
    }
}

/// What both a seed's server and ours answer. A program of the first kind wants the token in the body too.
fn converse(addr: String, wants_token: bool) {
    let mut caller = Caller {
        addr,
        token: String::new(),
    };
    let stamp = std::process::id();
    let name = format!("conversation-{stamp}-{wants_token}");
    let created = caller.ok(
        "POST",
        "/api/admin/clients/create",
        &json!({"name": name, "email": format!("{name}@example.com")}),
    );
    has_kinds(
        &created["client"],
        &[
            ("id", Value::is_string),
            ("token", Value::is_string),
            ("status", Value::is_string),
        ],
    );
    let client = created["client"]["id"].as_str().expect("an id").to_owned();
    let (status, again) = caller.ask("POST", "/api/admin/clients/create", &json!({"name": name}));
    assert_eq!((status, again["error"].is_string()), (409, true));
    caller.token = created["client"]["token"]
        .as_str()
        .expect("a token")
        .to_owned();

    let valid = caller.ok("GET", "/api/client/validate", &Value::Null);
    assert_eq!(
        (&valid["valid"], &valid["client_id"]),
        (&json!(true), &json!(client))
    );
    let mut body = crate::spot::registration(&format!("agent-{stamp}"), "i-00000001");
    if wants_token {
        body["client_token"] = caller.token.as_str().into();
    }
    let registered = caller.ok("POST", "/api/agents/register", &body);
    let agent = registered["agent_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        caller.ok("POST", "/api/agents/register", &body)["agent_id"],
        agent.as_str()
    );

    let at = |rest: &str| format!("/api/agents/{agent}/{rest}");
    let beat = json!({"status": "online", "instance_id": "i-00000001", "instance_type": "t3.medium", "mode": "spot", "az": "ap-south-1a"});
    assert_eq!(
        caller.ok("POST", &at("heartbeat"), &beat),
        json!({"success": true})
    );
    let config = caller.ok("GET", &at("config"), &Value::Null);
    has_kinds(
        &config,
        &[
            ("enabled", Value::is_boolean),
            ("auto_switch_enabled", Value::is_boolean),
            ("auto_terminate_enabled", Value::is_boolean),
            ("terminate_wait_seconds", Value::is_number),
            ("replica_enabled", Value::is_boolean),
            ("replica_count", Value::is_number),
            ("manual_replica_enabled", Value::is_boolean),
            ("min_savings_percent", Value::is_number),
            ("risk_threshold", Value::is_number),
            ("max_switches_per_week", Value::is_number),
            ("min_pool_duration_hours", Value::is_number),
        ],
    );
    assert_eq!(
        caller.ok("GET", &at("pending-commands"), &Value::Null),
        json!([])
    );
    let unknown = "/api/agents/00000000-0000-4000-8000-000000000000/heartbeat";
    let (status, refused) = caller.ask("POST", unknown, &beat);
    assert_eq!((status, refused["error"].is_string()), (404, true));

    let agents = caller.ok("GET", &format!("/api/client/{client}/agents"), &Value::Null);
    let row = &agents.as_array().expect("a bare array")[0];
    assert_eq!(
        (&row["id"], &row["status"]),
        (&json!(agent), &json!("online"))
    );
    has_kinds(
        row,
        &[
            ("logicalAgentId", Value::is_string),
            ("instanceId", Value::is_string),
            ("instanceType", Value::is_string),
            ("region", Value::is_string),
            ("az", Value::is_string),
            ("currentMode", Value::is_string),
            ("lastHeartbeat", Value::is_string),
            ("instanceCount", Value::is_number),
            ("enabled", Value::is_boolean),
            ("autoSwitchEnabled", Value::is_boolean),
            ("autoTerminateEnabled", Value::is_boolean),
        ],
    );
    caller.ok("POST", &at("heartbeat"), &json!({"status": "offline"}));
    let agents = caller.ok("GET", &format!("/api/client/{client}/agents"), &Value::Null);
    assert_eq!(agents[0]["status"], "offline");
    let deleted = caller.ok(
        "DELETE",
        &format!("/api/client/agents/{agent}"),
        &Value::Null,
    );
    assert_eq!(deleted["success"], true);
    assert_eq!(
        caller.ok("GET", &format!("/api/client/{client}/agents"), &Value::Null),
        json!([])
    );
    let history = caller.ok(
        "GET",
        &format!("/api/client/{client}/agents/history"),
        &Value::Null,
    );
    assert_eq!(history[0]["status"], "deleted");
    assert_eq!(
        caller.ok(
            "DELETE",
            &format!("/api/admin/clients/{client}"),
            &Value::Null
        )["success"],
        true
    );
    let (status, _) = caller.ask("GET", "/api/client/validate", &Value::Null);
    assert_eq!(status, 401);
}

async fn aside(work: impl FnOnce() + Send + 'static) {
    tokio::task::spawn_blocking(work)
        .await
        .expect("the conversation goes well");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_door_holds_the_conversation() {
    let server = Server::start().await;
    let addr = server.addr.to_string();
    aside(move || converse(addr, false)).await;
    server.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_holds_the_conversation() {
    if let Some(theirs) = Outsider::of("HOSTLER_FOREIGN_SPOT") {
        let addr = theirs.addr.clone();
        aside(move || converse(addr, true)).await;
    }
}

/// The steps of the seed's debugging section, as `curl` would send them.
#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_debugging_steps_work() {
    let server = Server::start().await;
    let (client, token) = crate::spot::create(&server, "acme").await;
    let addr = server.addr.to_string();
    aside(move || {
        let caller = Caller { addr, token };
        let body = crate::spot::registration("agent-box-1700000000", "i-1");
        let agent = caller.ok("POST", "/api/agents/register", &body)["agent_id"].clone();
        let agent = agent.as_str().expect("an id");
        // Verify Registration: no token.
        let (status, _, text) = caller.raw("GET", &format!("/api/client/{client}/agents"), "", "");
        let agents: Value = serde_json::from_str(&text).expect("a list");
        assert_eq!((status, &agents[0]["id"]), (200, &json!(agent)));
        // Test Heartbeat: the status alone.
        let headers = format!("Authorization: Bearer {}\r\n", caller.token);
        let beat = format!("/api/agents/{agent}/heartbeat");
        let (status, _, text) = caller.raw("POST", &beat, &headers, r#"{"status":"online"}"#);
        assert_eq!((status, text.as_str()), (200, r#"{"success":true}"#));
    })
    .await;
    server.shut_down().await;
}

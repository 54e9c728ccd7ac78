//! Secrets through the doors: given and listed over REST, delivered over the session of the node that has the copy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hostler_control::ControlConfig;
use hostler_kit::SystemEntropy;
use hostler_kit::sealed::Keyring;
use hostler_wire::session::v1::{self, server_message};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{Server, calm};
use crate::session::Node;

const CANARY: &str = "canary-b5a1c3";

async fn start() -> Server {
    // Every client of the process needs what this one brings.
    hostler_wire::client::Client::new("http://127.0.0.1:1", None).expect("a client");
    Server::with(ControlConfig {
        secrets: Some(Arc::new(Keyring::in_memory(&SystemEntropy))),
        ..calm()
    })
    .await
}

async fn put(server: &Server, name: &str, value: &str) -> (StatusCode, String) {
    let path = format!("/api/v1/secrets/{name}");
    let answer = server.send(Method::PUT, &path, &[], value.to_owned()).await;
    (answer.status, answer.text)
}

fn naming(name: &str, node: &str, secret: &str) -> Value {
    json!({
        "name": name,
        "process": { "command": ["sleep", "9"] },
        "secrets": [{ "name": secret, "env": "DB" }],
        "placement": { "constraints": [format!("node.name == {node}")] },
    })
}

async fn apply(server: &Server, spec: &Value) {
    let answer = server.post("/api/v1/workloads", &spec.to_string()).await;
    assert!(answer.status.is_success(), "{answer:?}");
}

async fn call(server: &Server, method: Method, path: &str) -> (StatusCode, Value) {
    let answer = server.send(method, path, &[], "").await;
    assert!(!answer.text.contains(CANARY), "{answer:?}");
    let body = serde_json::from_str(&answer.text).unwrap_or_default();
    (answer.status, body)
}

#[tokio::test]
async fn a_secret_is_given_listed_and_removed_and_no_route_gives_its_value() {
    let server = start().await;
    let (status, text) = put(&server, "db", CANARY).await;
    assert_eq!(
        (status, text.contains(CANARY)),
        (StatusCode::CREATED, false)
    );
    let (status, text) = put(&server, "db", CANARY).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert!(text.contains(r#""version":2"#), "{text}");
    apply(&server, &naming("web", "nowhere", "db")).await;

    let (status, listed) = call(&server, Method::GET, "/api/v1/secrets").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(listed[0]["name"], "db");
    assert_eq!(listed[0]["version"], 2);
    assert_eq!(listed[0]["workloads"], json!(["web"]));
    let (status, _) = call(&server, Method::GET, "/api/v1/secrets/db").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    for path in [
        "/api/v1/workloads/web",
        "/api/v1/workloads/web/history",
        "/api/v1/workloads/web/why",
        "/metrics",
    ] {
        let (status, _) = call(&server, Method::GET, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }

    let (status, refused) = call(&server, Method::DELETE, "/api/v1/secrets/db").await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::CONFLICT, &json!("secret-in-use"))
    );
    call(&server, Method::DELETE, "/api/v1/workloads/web").await;
    let deadline = tokio::time::Instant::now() + crate::server::DEADLINE;
    loop {
        let (status, gone) = call(&server, Method::DELETE, "/api/v1/secrets/db").await;
        if status == StatusCode::OK {
            assert_eq!(gone["name"], "db");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{gone}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, _) = call(&server, Method::DELETE, "/api/v1/secrets/db").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_refused_and_not_repeated() {
    let server = start().await;
    let (status, text) = put(&server, "a%20b", CANARY).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
    assert!(!text.contains(CANARY));
    let (status, _) = put(&server, "db", &CANARY.repeat(3_000)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = put(&server, "db", &CANARY.repeat(30_000)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let spec = naming("web", "nowhere", "unknown").to_string();
    let answer = server.post("/api/v1/workloads", &spec).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text.contains("secret-not-found"), "{answer:?}");
    let (status, done) = call(&server, Method::POST, "/api/v1/rekey-secrets").await;
    assert_eq!(
        (status, done),
        (StatusCode::OK, json!({ "resealed": 0, "unopened": 0 }))
    );
}

/// Hears until the node is told a value, or an intent with the copy. Answers the values before that.
async fn told(node: &mut Node, copies: usize) -> Vec<v1::SecretValue> {
    let mut values = Vec::new();
    let mut items = HashMap::new();
    loop {
        match node.hear().await {
            server_message::Message::Secrets(secrets) => values.extend(secrets.values),
            server_message::Message::Intent(part) => {
                for item in part.items {
                    let unit = item.unit.clone().expect("a unit");
                    items.insert(unit.assignment, item);
                }
                if items.len() >= copies {
                    return values;
                }
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn only_the_node_with_the_copy_is_told_the_value_and_before_the_copy() {
    let server = start().await;
    put(&server, "db", CANARY).await;
    put(&server, "other", "of the other one").await;
    let (mut one, _) = Node::join(&server, "one").await;
    let (mut two, _) = Node::join(&server, "two").await;
    assert!(told(&mut one, 0).await.is_empty());
    assert!(told(&mut two, 0).await.is_empty());
    apply(&server, &naming("web", "one", "db")).await;
    apply(&server, &naming("side", "two", "other")).await;
    let values = told(&mut one, 1).await;
    assert_eq!(values.len(), 1);
    assert_eq!((values[0].name.as_str(), values[0].version), ("db", 1));
    assert_eq!(values[0].value, CANARY.as_bytes());
    let values = told(&mut two, 1).await;
    assert_eq!(values.len(), 1, "{values:?}");
    assert_eq!(values[0].value, b"of the other one");

    // A new value wakes the node that has a copy, and nobody else.
    put(&server, "db", "another").await;
    let server_message::Message::Secrets(secrets) = one.hear().await else {
        panic!("a value is expected")
    };
    assert_eq!(secrets.values[0].value, b"another");
    apply(&server, &naming("more", "two", "other")).await;
    assert!(
        told(&mut two, 1).await.is_empty(),
        "it has the value already"
    );

    // A new session is told again: whoever was started anew has nothing.
    let (mut again, _) = Node::join(&server, "one").await;
    let values = told(&mut again, 1).await;
    assert_eq!(values[0].value, b"another");
}

#[tokio::test]
async fn a_new_value_restarts_what_names_it_only_if_it_is_asked_to() {
    let server = start().await;
    put(&server, "db", CANARY).await;
    apply(&server, &naming("web", "nowhere", "db")).await;
    let restarts = || {
        let view = server.control.view();
        view.workload_by_name("web").unwrap().restart
    };
    put(&server, "db", "second").await;
    assert_eq!(restarts(), 0);
    let (status, text) = put(&server, "db?restart=true", "third").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains(r#""restarted":["web"]"#), "{text}");
    assert_eq!(restarts(), 1);
}

//! Conversations of the foreign contracts, word for word. Each is held with our own door on loopback, and with the
//! original program where `outside` finds one. They say only what holds on both sides; what is ours alone is tested
//! elsewhere.

use hostler_control::ControlConfig;
use hostler_doors::{Dialect, miaas};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::orchestrator_client::OrchestratorClient;
use serde_json::{Value, json};
use tonic::Code;

use crate::outside::Outsider;
use crate::raw::{Said, say};
use crate::server::{Server, store};

/// Tells one run's nodes from another's.
fn fresh(name: &str) -> String {
    format!("hostler-{name}-{}", std::process::id())
}

async fn server_of(dialect: miaas::Dialect) -> Server {
    Server::of(ControlConfig::default(), &store(), |mut parts| {
        parts.miaas.dialect = dialect;
        parts.router(Dialect::Hostler)
    })
    .await
}

async fn post(addr: &str, path: &str, headers: &str, body: &Value) -> Said {
    let text = format!("POST {path}\ncontent-type: application/json{headers}\n\n{body}");
    say(addr, &text).await
}

/// What both dialects have in common: register, list, be refused with a list.
async fn miaas(addr: &str, created: u16) -> (String, String) {
    assert!(
        say(addr, "GET /api/v1/nodes")
            .await
            .is(200)
            .json()
            .is_array()
    );
    let name = fresh("box");
    let body = json!({"name": name, "ip": "192.168.1.10", "unknown": true,
        "capabilities": {"os": "linux", "cpu_count": "8", "mem_mb": 32000.0, "gpus": []}});
    let registered = post(addr, "/api/v1/nodes/register", "", &body)
        .await
        .is(created);
    assert_eq!(registered.header("content-type"), "application/json");
    let registered = registered.has(&["node_id", "node_token", "control_plane_url"]);
    let text = |key: &str| registered[key].as_str().expect("text").to_owned();
    let (id, token) = (text("node_id"), text("node_token"));

    let list = say(addr, "GET /api/v1/nodes").await.is(200).json();
    let is_ours = |node: &&Value| node["id"] == id.as_str();
    let node = list.as_array().and_then(|list| list.iter().find(is_ours));
    let node = node.expect("the node is listed");
    assert_eq!(
        (&node["name"], &node["ip"]),
        (&name.as_str().into(), &body["ip"])
    );
    assert_eq!(node["status"], "online");
    assert!(node["last_seen"].is_f64(), "{node}");
    for (key, value) in [
        ("os", json!("linux")),
        ("cpu_count", json!(8)),
        ("mem_mb", json!(32000)),
        ("gpus", json!([])),
    ] {
        assert_eq!(node["capabilities"][key], value, "{key}");
    }

    let refused = post(addr, "/api/v1/nodes/register", "", &json!({"ip": "x"}))
        .await
        .is(422);
    let first = &refused.json()["detail"][0];
    assert_eq!(
        (&first["type"], &first["loc"]),
        (&"missing".into(), &json!(["body", "name"]))
    );
    assert!(first["msg"].is_string());
    for (key, value) in [
        ("cpu_count", json!(1.5)),
        ("cpu_count", json!("many")),
        ("os", json!(7)),
    ] {
        let mut bad = body.clone();
        bad["capabilities"][key] = value;
        let refused = post(addr, "/api/v1/nodes/register", "", &bad)
            .await
            .is(422)
            .json();
        assert_eq!(
            refused["detail"][0]["loc"],
            json!(["body", "capabilities", key])
        );
    }
    (id, token)
}

/// How beats are answered, whoever may send them.
async fn miaas_beats(addr: &str, id: &str, headers: &str) {
    let path = format!("/api/v1/nodes/{id}/heartbeat");
    let beat = json!({"cpu_usage": 15.2, "mem_usage": 45.8, "disk_free_mb": 102_400, "running_containers": []});
    for beat in [beat, json!({}), json!({"cpu_usage": 250, "mem_usage": -3})] {
        let beaten = post(addr, &path, headers, &beat).await.is(200).json();
        assert_eq!(beaten["status"], "ok");
        assert!(beaten["timestamp"].is_f64());
        assert_eq!(beaten.as_object().map(serde_json::Map::len), Some(2));
    }
    let bad = json!({"disk_free_mb": 1.5});
    let refused = post(addr, &path, headers, &bad).await.is(422);
    assert!(refused.json()["detail"][0]["loc"].is_array());
    let absent = say(addr, &format!("POST {path}{headers}")).await.is(422);
    assert_eq!(absent.json()["detail"][0]["type"], "missing");
    let malformed = format!("POST {path}\ncontent-type: application/json{headers}\n\n{{\"cpu");
    let malformed = say(addr, &malformed).await.is(422);
    assert_eq!(malformed.json()["detail"][0]["type"], "json_invalid");
}

async fn miaas_deployments(addr: &str) {
    const ROUTE: &str = "/api/v1/deployments";
    let id = fresh("deployment");
    let one = format!("{ROUTE}/{id}");
    let body = json!({"deployment_id": id, "template_id": "postgres", "env": {"A": "b"}, "action": "apply",
        "rendered_compose": "services: {db: {image: postgres:16}}"});
    let standing = |status: &str, message: &str| json!({"deployment_id": id, "status": status, "message": message});
    let accepted = standing(
        "accepted",
        "Deployment request accepted and queued for processing",
    );
    assert_eq!(post(addr, ROUTE, "", &body).await.is(202).json(), accepted);
    let again = post(addr, ROUTE, "", &body).await.is(400).json();
    assert_eq!(
        again["detail"],
        format!("Deployment with ID {id} already exists")
    );
    let list = say(addr, &format!("GET {ROUTE}")).await.is(200).json();
    let listed = standing("pending", "Deployment on node unassigned");
    assert!(
        list.as_array().is_some_and(|list| list.contains(&listed)),
        "{list}"
    );
    let shown = say(addr, &format!("GET {one}")).await.is(200).json();
    let message = shown["message"].as_str().expect("text");
    assert!(
        message.starts_with("Deployment 'postgres' on node unassigned"),
        "{message}"
    );
    assert_eq!(shown["status"], "pending");
    for (key, value) in [
        ("env", json!({"A": 1})),
        ("action", json!(null)),
        ("rendered_compose", json!(3)),
    ] {
        let mut bad = body.clone();
        bad["deployment_id"] = format!("{id}-bad").into();
        bad[key] = value;
        post(addr, ROUTE, "", &bad).await.is(422);
    }
    let deleted = standing("deleting", "Deployment marked for deletion");
    assert_eq!(
        say(addr, &format!("DELETE {one}")).await.is(200).json(),
        deleted
    );
    for method in ["GET", "DELETE"] {
        let unknown = say(addr, &format!("{method} {one}-unknown")).await.is(404);
        assert_eq!(unknown.json()["detail"], "Deployment not found");
    }
}

/// What holds for every route of it.
async fn miaas_edges(addr: &str) {
    let unknown = say(
        addr,
        "GET /api/v1/nodes/00000000-0000-4000-8000-000000000000",
    )
    .await
    .is(404);
    assert_eq!(unknown.json()["detail"], "Node not found");
    assert_eq!(
        say(addr, "GET /nowhere").await.is(404).json()["detail"],
        "Not Found"
    );
    let wrong = say(addr, "PUT /api/v1/nodes").await.is(405);
    assert_eq!(wrong.json()["detail"], "Method Not Allowed");
    assert!(wrong.header("allow").contains("GET"), "{wrong:?}");
    for path in [
        "/api/v1/nodes",
        "/health",
        "/api/v1/nodes/x",
        "/api/v1/nodes/x/heartbeat",
    ] {
        let moved = say(addr, &format!("GET {path}/")).await.is(307);
        assert!(moved.header("location").ends_with(path), "{moved:?}");
    }
    let preflight = "OPTIONS /api/v1/nodes/register\norigin: http://localhost:3000
access-control-request-method: POST\naccess-control-request-headers: content-type";
    let preflight = say(addr, preflight).await.is(200);
    assert_eq!(preflight.body, "OK");
    assert!(preflight.header("content-type").starts_with("text/plain"));
    assert_eq!(preflight.header("access-control-max-age"), "600");
    assert_eq!(
        preflight.header("access-control-allow-origin"),
        "http://localhost:3000"
    );
    assert_eq!(preflight.header("access-control-allow-credentials"), "true");
    assert!(
        preflight
            .header("access-control-allow-methods")
            .contains("POST")
    );
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        "content-type"
    );
}

async fn miaas_seed(addr: &str) {
    let (id, _) = miaas(addr, 200).await;
    miaas_beats(addr, &id, "").await;
    let path = format!("/api/v1/nodes/{}/heartbeat", fresh("nobody"));
    post(addr, &path, "", &json!({})).await.is(404);
}

async fn miaas_later(addr: &str) {
    let health = say(addr, "GET /health").await.is(200);
    assert_eq!(health.json()["status"], "healthy");
    let (id, token) = miaas(addr, 201).await;
    assert_eq!(token.split('.').count(), 3, "{token}");
    miaas_beats(addr, &id, &format!("\nauthorization: bearer {token}")).await;
    let path = format!("/api/v1/nodes/{id}/heartbeat");
    let good = format!("\nauthorization: Bearer {token}");
    // The first control plane took any list here.
    let bad = json!({"running_containers": [1]});
    post(addr, &path, &good, &bad).await.is(422);
    for (headers, sentence) in [
        ("", "Missing authentication token"),
        ("\nauthorization: Basic abc", "Missing authentication token"),
        ("\nauthorization: Bearer a.b.c", "Invalid or expired token"),
    ] {
        let refused = post(addr, &path, headers, &json!({"cpu_usage": []}))
            .await
            .is(401);
        assert_eq!(refused.json()["detail"], sentence);
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    let other = format!("/api/v1/nodes/{}/heartbeat", fresh("nobody"));
    let headers = format!("\nauthorization: Bearer {token}");
    let refused = post(addr, &other, &headers, &json!({})).await.is(403);
    assert_eq!(
        refused.json()["detail"],
        "Cannot send heartbeat for a different node"
    );
    for path in ["/health", "/", "/api/v1/nodes"] {
        let refused = say(addr, &format!("HEAD {path}")).await.is(405);
        assert_eq!(
            (refused.header("allow"), refused.body.as_str()),
            ("GET", ""),
            "{path}"
        );
    }
    let root = say(addr, "GET /")
        .await
        .is(200)
        .has(&["message", "version", "docs"]);
    assert_eq!(root["docs"], "/docs");
    for page in ["/docs", "/redoc"] {
        let page = say(addr, &format!("GET {page}")).await.is(200);
        assert!(page.header("content-type").starts_with("text/html"));
    }
    say(addr, "GET /openapi.json")
        .await
        .is(200)
        .has(&["openapi", "paths"]);
    miaas_deployments(addr).await;
    miaas_edges(addr).await;
}

#[tokio::test]
async fn our_door_holds_the_conversation_of_miaas_seed() {
    let server = server_of(miaas::Dialect::Seed).await;
    let addr = server.addr.to_string();
    miaas_seed(&addr).await;
    miaas_deployments(&addr).await;
    miaas_edges(&addr).await;
    server.shut_down().await;
}

#[tokio::test]
async fn our_door_holds_the_conversation_of_later_miaas() {
    let server = server_of(miaas::Dialect::Later).await;
    miaas_later(&server.addr.to_string()).await;
    server.shut_down().await;
}

#[tokio::test]
async fn their_first_control_plane_holds_the_same_conversation() {
    if let Some(theirs) = Outsider::of("HOSTLER_FOREIGN_MIAAS_SEED") {
        miaas_seed(&theirs.addr).await;
    }
}

#[tokio::test]
async fn their_later_control_plane_holds_the_same_conversation() {
    if let Some(theirs) = Outsider::of("HOSTLER_FOREIGN_MIAAS") {
        miaas_later(&theirs.addr).await;
    }
}

/// The conversation of a node agent and of whoever looks at the cluster.
async fn orchion(grpc: &str, http: &str) {
    let client = OrchestratorClient::connect(format!("http://{grpc}")).await;
    let mut client = client.expect("it listens");
    let id = fresh("node");
    let beat = |id: &str| v1::HeartbeatRequest {
        node_id: id.to_owned(),
    };
    let refused = client
        .heartbeat(beat(&id))
        .await
        .expect_err("it is unknown");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::NotFound, "node not found")
    );
    let node = v1::Node {
        id: id.clone(),
        hostname: "box".to_owned(),
        capabilities: Some(v1::Capabilities {
            cpu: "8 cores".to_owned(),
            memory: "15.62 GB".to_owned(),
            os: "linux/amd64".to_owned(),
            ..v1::Capabilities::default()
        }),
        last_seen_unix: 0,
        agent_address: "box:50052".to_owned(),
    };
    let register = v1::RegisterNodeRequest {
        node: Some(node.clone()),
    };
    client
        .register_node(register.clone())
        .await
        .expect("it is taken");
    client
        .register_node(register)
        .await
        .expect("it is taken again");
    client.heartbeat(beat(&id)).await.expect("it is known");
    let list = client
        .list_nodes(v1::ListNodesRequest {})
        .await
        .expect("a list");
    let nodes = list.into_inner().nodes;
    let mine: Vec<_> = nodes.into_iter().filter(|it| it.id == id).collect();
    assert_eq!(mine.len(), 1, "the same id is the same node");
    assert!(mine[0].last_seen_unix > 1_700_000_000);
    let seen = v1::Node {
        last_seen_unix: 0,
        ..mine[0].clone()
    };
    assert_eq!(seen, node);

    let list = say(http, "GET /api/nodes").await.is(200);
    assert!(list.header("content-type").starts_with("application/json"));
    assert_eq!(list.header("access-control-allow-origin"), "*");
    let list = list.json();
    let mine = list
        .as_array()
        .and_then(|list| list.iter().find(|it| it["id"] == id.as_str()));
    let mine = mine.expect("it is listed");
    assert_eq!(mine["hostname"], "box");
    assert_eq!(
        mine["capabilities"],
        json!({"cpu": "8 cores", "memory": "15.62 GB", "os": "linux/amd64"})
    );
    assert_eq!(mine["agent_address"], "box:50052");
    assert!(mine["last_seen_unix"].is_i64());
    let options = say(http, "OPTIONS /api/nodes").await.is(200);
    assert_eq!(
        (
            options.body.as_str(),
            options.header("access-control-allow-methods")
        ),
        ("", "GET, OPTIONS")
    );
    let wrong = say(http, "POST /api/nodes").await.is(405);
    assert_eq!(wrong.body, "Method not allowed\n");
    assert_eq!(wrong.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(wrong.header("x-content-type-options"), "nosniff");
    assert_eq!(
        say(http, "GET /nowhere").await.is(404).body,
        "404 page not found\n"
    );
    for (path, body, sentence) in [
        (
            "/v1/chat/completions",
            "{}",
            "Invalid request: model is required\n",
        ),
        (
            "/v1/chat/completions",
            r#"{"model": "m"}"#,
            "Invalid request: messages are required\n",
        ),
        (
            "/v1/chat/completions",
            r#"{"model": "m", "messages": [1]}"#,
            "Invalid request: invalid message format\n",
        ),
        (
            "/v1/embeddings",
            r#"{"model": "m"}"#,
            "Invalid request: input is required\n",
        ),
    ] {
        let refused = say(http, &format!("POST {path}\n\n{body}")).await.is(400);
        assert_eq!(refused.body, sentence);
    }
    let refused = say(http, "POST /v1/embeddings\n\n{").await.is(400);
    assert!(refused.body.starts_with("Invalid JSON: "), "{refused:?}");
}

#[tokio::test]
async fn our_door_holds_the_conversation_of_orchion() {
    let server = Server::of(ControlConfig::default(), &store(), |parts| {
        parts.router(Dialect::Orchion)
    })
    .await;
    let addr = server.addr.to_string();
    orchion(&addr, &addr).await;
    server.shut_down().await;
}

#[tokio::test]
async fn their_orchestrator_holds_the_same_conversation() {
    if let Some(theirs) = Outsider::of("HOSTLER_FOREIGN_ORCHION") {
        orchion(&theirs.addr, &theirs.http).await;
    }
}

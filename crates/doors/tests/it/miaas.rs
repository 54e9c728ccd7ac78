//! MIaaS's seed steps, as its documents write them, against this server.

use std::io;
use std::sync::{Arc, Mutex};

use hostler_control::{ControlConfig, LiveNode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::orchion::{self, agent};
use crate::server::Server;

const REGISTER: &str = "/api/v1/nodes/register";

fn worker() -> Value {
    json!({
        "name": "worker-node-01",
        "ip": "192.168.1.10",
        "capabilities": {
            "os": "linux", "cpu_count": 8, "mem_mb": 16000, "disk_mb": 500_000, "gpus": [],
        },
    })
}

async fn register(server: &Server, body: &Value) -> String {
    let answer = server.post(REGISTER, &body.to_string()).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
    let registered = answer.json();
    let id = registered["node_id"].as_str().expect("an id").to_owned();
    let token = registered["node_token"].as_str().expect("a token");
    assert_eq!(token.split('.').count(), 3, "{token}");
    assert_eq!(
        registered["control_plane_url"],
        format!("http://{}", server.addr)
    );
    id
}

#[tokio::test]
async fn curl_steps_work_without_credentials() {
    let server = Server::start().await;
    assert_eq!(server.get("/health").await.json()["status"], "healthy");
    assert_eq!(server.get("/api/v1/nodes").await.json(), json!([]));
    let id = register(&server, &worker()).await;
    let beat = json!({"cpu_usage": 15.2, "mem_usage": 45.8, "disk_free_mb": 102_400,
        "running_containers": ["db"]});
    let path = format!("/api/v1/nodes/{id}/heartbeat");
    let beaten = server.post(&path, &beat.to_string()).await;
    assert_eq!(
        (beaten.status.as_u16(), &beaten.json()["status"]),
        (200, &"ok".into())
    );
    assert!(beaten.json()["timestamp"].is_f64());
    let list = server.get("/api/v1/nodes").await.json();
    let node = &list[0];
    assert_eq!(
        (&node["id"], &node["status"]),
        (&id.as_str().into(), &"online".into())
    );
    assert_eq!(
        (&node["name"], &node["ip"]),
        (&worker()["name"], &worker()["ip"])
    );
    assert_eq!(node["metrics"], beat);
    assert!(node["last_seen"].is_f64());
    assert_eq!(node["contract"], "miaas");
    server.shut_down().await;
}

#[tokio::test]
async fn capabilities_come_back_as_they_were_written() {
    let server = Server::start().await;
    let mut body = worker();
    body["capabilities"]["gpus"] = json!([{"id": 0, "model": "a", "mem_mb": 24}]);
    body["capabilities"]["docker"] = json!({"version": "27", "available": true});
    register(&server, &body).await;
    let node = server.get("/api/v1/nodes/worker-node-01").await.json();
    let mut expected = body["capabilities"].clone();
    expected["k8s"] = Value::Null;
    assert_eq!(node["capabilities"], expected);
    let least = json!({"name": "b", "ip": "", "capabilities":
        {"os": "linux", "cpu_count": "8", "mem_mb": 32000.0, "unknown": 1}});
    register(&server, &least).await;
    let node = server.get("/api/v1/nodes/b").await.json();
    let expected = json!({"os": "linux", "cpu_count": 8, "mem_mb": 32_000, "disk_mb": null,
        "gpus": [], "docker": null, "k8s": null});
    assert_eq!(node["capabilities"], expected);
    assert!(node.get("metrics").is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn the_same_name_is_the_same_node_and_any_name_is_taken() {
    let server = Server::start().await;
    let first = register(&server, &worker()).await;
    let mut more = worker();
    more["capabilities"]["mem_mb"] = 32_000.into();
    assert_eq!(register(&server, &more).await, first);
    let node = server.get(&format!("/api/v1/nodes/{first}")).await.json();
    assert_eq!(node["capabilities"]["mem_mb"], 32_000);
    let mut others = Vec::new();
    for name in ["", "Über Box / 1", "worker-node-02"] {
        let mut body = worker();
        body["name"] = name.into();
        others.push(register(&server, &body).await);
    }
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 3);
    server.shut_down().await;
}

#[tokio::test]
async fn what_does_not_fit_is_a_list_of_findings() {
    let server = Server::start().await;
    let id = register(&server, &worker()).await;
    let beat = format!("/api/v1/nodes/{id}/heartbeat");
    for (path, body, kind, loc) in [
        (REGISTER, "", "missing", json!(["body"])),
        (REGISTER, "[]", "model_attributes_type", json!(["body"])),
        (REGISTER, "{}", "missing", json!(["body", "name"])),
        (
            REGISTER,
            r#"{"name": 1}"#,
            "string_type",
            json!(["body", "name"]),
        ),
        (
            beat.as_str(),
            r#"{"disk_free_mb": 1.5}"#,
            "int_from_float",
            json!(["body", "disk_free_mb"]),
        ),
        (
            beat.as_str(),
            r#"{"cpu_usage": []}"#,
            "float_type",
            json!(["body", "cpu_usage"]),
        ),
    ] {
        let answer = server.post(path, body).await;
        assert_eq!(answer.status.as_u16(), 422, "{body}: {}", answer.text);
        let found = &answer.json()["detail"][0];
        assert_eq!(
            (&found["type"], &found["loc"]),
            (&kind.into(), &loc),
            "{body}"
        );
        assert!(found["msg"].is_string());
    }
    let answer = server.post(REGISTER, "{\"name\":").await;
    assert_eq!(answer.json()["detail"][0]["type"], "json_invalid");
    assert_eq!(server.post(&beat, "{}").await.status.as_u16(), 200);
    assert_eq!(
        server
            .post(&beat, r#"{"cpu_usage": 250, "mem_usage": -3}"#)
            .await
            .status
            .as_u16(),
        200
    );
    server.shut_down().await;
}

#[tokio::test]
async fn figures_beyond_all_measure_do_not_spoil_the_list() {
    let server = Server::start().await;
    let mut body = worker();
    body["capabilities"]["mem_mb"] = i64::MAX.into();
    body["capabilities"]["cpu_count"] = u32::MAX.into();
    let id = register(&server, &body).await;
    let beat = r#"{"cpu_usage": 1e300, "disk_free_mb": 9223372036854775807}"#;
    assert_eq!(
        server
            .post(&format!("/api/v1/nodes/{id}/heartbeat"), beat)
            .await
            .status
            .as_u16(),
        200
    );
    let node = server.get("/api/v1/nodes").await.json()[0].clone();
    let read: hostler_wire::api::Node = serde_json::from_value(node).expect("a node");
    assert_eq!(read.capabilities.mem_mb, u64::MAX / 2);
    server.shut_down().await;
}

#[tokio::test]
async fn a_beat_of_nobody_is_told_to_register() {
    let server = Server::start().await;
    for id in ["nobody", "0199c0de-0000-7000-8000-000000000001"] {
        let answer = server
            .post(&format!("/api/v1/nodes/{id}/heartbeat"), "{}")
            .await;
        assert_eq!(
            answer.is_problem(404, "node-not-found")["detail"],
            "Node not found"
        );
    }
    let id = register(&server, &worker()).await;
    server
        .send(Method::DELETE, &format!("/api/v1/nodes/{id}"), &[], "")
        .await;
    let answer = server
        .post(&format!("/api/v1/nodes/{id}/heartbeat"), "{}")
        .await;
    assert_eq!(
        answer.is_problem(404, "node-not-found")["detail"],
        "Node not found"
    );
    server
        .post(REGISTER, &worker().to_string())
        .await
        .is_problem(410, "node-gone");
    server.shut_down().await;
}

#[tokio::test]
async fn nobody_beats_for_a_node_of_another_contract() {
    let server = Server::start().await;
    let ours = server.node("ours").await.id();
    let mut orchion = agent(&server).await;
    let theirs = crate::orchion::node("n-1");
    orchion::register(&mut orchion, theirs)
        .await
        .expect("it is taken");
    let theirs = server.get("/api/v1/nodes/box").await.json()["id"].clone();
    for id in [ours.to_string(), theirs.as_str().expect("an id").to_owned()] {
        let before = server.control.live(id.parse().expect("an id"));
        let beat = r#"{"cpu_usage": 99.5, "running_containers": ["x"]}"#;
        let answer = server
            .post(&format!("/api/v1/nodes/{id}/heartbeat"), beat)
            .await;
        assert_eq!(
            answer.is_problem(404, "node-not-found")["detail"],
            "Node not found"
        );
        let after = server.control.live(id.parse().expect("an id"));
        let said = |live: Option<LiveNode>| live.map(|live| (live.beats, live.usage));
        assert_eq!(said(after), said(before), "the beat counts for nothing");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_silent_node_goes_offline_and_a_beat_brings_it_back() {
    let mut config = ControlConfig::default();
    config.foreign.miaas.beat = std::time::Duration::from_millis(50);
    config.foreign.miaas.window = std::time::Duration::from_millis(400);
    config.foreign.miaas.suspect_after = std::time::Duration::from_millis(300);
    // What the first silence teaches: after the beat there is time to see the node online, on a busy machine as well.
    config.foreign.miaas.most = std::time::Duration::from_secs(60);
    let server = Server::with(config).await;
    let id = register(&server, &worker()).await;
    let path = format!("/api/v1/nodes/{id}");
    server
        .until(&path, |node| node["status"] == "offline")
        .await;
    server.post(&format!("{path}/heartbeat"), "{}").await;
    server.until(&path, |node| node["status"] == "online").await;
    server.shut_down().await;
}

#[tokio::test]
async fn nothing_is_placed_on_a_node_without_drivers() {
    let server = Server::start().await;
    register(&server, &worker()).await;
    server.apply("web", 1).await;
    let why = server.get("/api/v1/workloads/web/why").await.json();
    assert_eq!(why["nodes"][0]["reasons"][0]["code"], "no-driver", "{why}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_slash_too_many_leads_to_the_route_without() {
    let server = Server::start().await;
    for (path, location) in [
        ("/api/v1/nodes/?limit=3", "/api/v1/nodes?limit=3"),
        ("/api/v1/nodes/register/", "/api/v1/nodes/register"),
        ("/api/v1/nodes/x/heartbeat/", "/api/v1/nodes/x/heartbeat"),
    ] {
        let answer = server.post(path, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (307, location)
        );
    }
    server
        .get("/api/v1/workloads/")
        .await
        .is_problem(404, "route-not-found");
    server.shut_down().await;
}

#[tokio::test]
async fn its_page_may_live_anywhere() {
    let server = Server::start().await;
    let page = [("origin", "http://localhost:3000")];
    let list = server.send(Method::GET, "/api/v1/nodes", &page, "").await;
    // A login will open this list by a cookie, too, so no credentials are let in from elsewhere.
    assert_eq!(list.header("access-control-allow-origin"), "*");
    assert!(
        list.headers
            .get("access-control-allow-credentials")
            .is_none()
    );
    let preflight = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let answer = server.send(Method::OPTIONS, REGISTER, &preflight, "").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "OK"));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        "content-type"
    );
    assert_eq!(answer.header("access-control-max-age"), "600");
    let registered = server
        .send(Method::POST, REGISTER, &page, worker().to_string())
        .await;
    assert_eq!(registered.status.as_u16(), 200);
    server.shut_down().await;
}

#[tokio::test]
async fn the_log_names_a_node_before_it_is_answered() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    // The test's runtime has one thread, so the server's tasks log here as well.
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let server = Server::start().await;
    let id = register(&server, &worker()).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let joined = text
        .lines()
        .find(|line| line.contains("node joined"))
        .expect("a line");
    for word in [id.as_str(), "worker-node-01", "miaas", "INFO"] {
        assert!(joined.contains(word), "{word} in {joined}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_browser_gets_pages_and_a_program_gets_keys() {
    let server = Server::start().await;
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for path in ["/", "/docs", "/redoc"] {
        let page = server.send(Method::GET, path, &browser, "").await;
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.text.contains("href=\"/openapi.json\""), "{path}");
    }
    let root = server.get("/").await;
    assert_eq!(root.header("vary"), "accept");
    for key in ["message", "service", "version", "docs"] {
        assert!(root.json()[key].is_string(), "{key}");
    }
    server.shut_down().await;
}

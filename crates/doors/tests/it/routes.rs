//! What holds for every route: problem documents, methods, limits, conditions, ids, transport.

use futures::StreamExt as _;
use hostler_wire::api::NodeFilter;
use hostler_wire::client::Client;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server, spec};

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let server = Server::start().await;
    let get = Method::GET;
    for (method, path, body, status, code) in [
        (&get, "/api/v1/nodes/nobody", "", 404, "node-not-found"),
        (&get, "/api/v1/nodes/%FF", "", 400, "bad-request"),
        (&get, "/api/v1/backup?keys=some", "", 400, "bad-request"),
        // Nothing of this control plane lies on a disk.
        (&get, "/api/v1/backup", "", 503, "store-unavailable"),
        (
            &get,
            "/api/v1/workloads/nothing",
            "",
            404,
            "workload-not-found",
        ),
        (
            &get,
            "/api/v1/workloads/nothing/history",
            "",
            404,
            "workload-not-found",
        ),
        (
            &get,
            "/api/v1/workloads/nothing/why",
            "",
            404,
            "workload-not-found",
        ),
        (
            &get,
            "/api/v1/workloads/nothing/logs",
            "",
            404,
            "workload-not-found",
        ),
        (
            &get,
            "/api/v1/assignments/nothing",
            "",
            404,
            "assignment-not-found",
        ),
        (
            &get,
            "/api/v1/assignments/nothing/logs",
            "",
            404,
            "assignment-not-found",
        ),
        (
            &get,
            "/api/v1/assignments?workload=nothing",
            "",
            404,
            "workload-not-found",
        ),
        (
            &get,
            "/api/v1/assignments?node=nobody",
            "",
            404,
            "node-not-found",
        ),
        (&get, "/api/v1/nodes?limit=0", "", 400, "bad-request"),
        (&get, "/api/v1/nodes?limit=1001", "", 400, "bad-request"),
        (&get, "/api/v1/nodes?limit=many", "", 400, "bad-request"),
        (&get, "/api/v1/nodes?after=x", "", 400, "bad-request"),
        (&get, "/api/v1/events?after=x", "", 400, "bad-request"),
        (&get, "/api/v1/nowhere", "", 404, "route-not-found"),
        (
            &Method::POST,
            "/api/v1/nodes/nobody/drain",
            "",
            404,
            "node-not-found",
        ),
        (
            &Method::POST,
            "/api/v1/nodes/nobody/cleanup",
            "",
            404,
            "node-not-found",
        ),
        (
            &Method::POST,
            "/api/v1/nodes/nobody/adoptable",
            "{}",
            404,
            "node-not-found",
        ),
        (
            &Method::DELETE,
            "/api/v1/nodes/nobody",
            "",
            404,
            "node-not-found",
        ),
        (
            &Method::DELETE,
            "/api/v1/nodes/nobody?force=perhaps",
            "",
            400,
            "bad-request",
        ),
        (
            &Method::POST,
            "/api/v1/workloads/nothing/stop",
            "",
            404,
            "workload-not-found",
        ),
        (
            &Method::POST,
            "/api/v1/workloads/nothing/restart",
            "",
            404,
            "workload-not-found",
        ),
        (
            &Method::DELETE,
            "/api/v1/workloads/nothing",
            "",
            404,
            "workload-not-found",
        ),
        (&Method::POST, "/api/v1/workloads", "", 422, "spec-invalid"),
        (
            &Method::POST,
            "/api/v1/workloads/plan",
            "name: [",
            422,
            "spec-invalid",
        ),
        (
            &Method::POST,
            "/api/v1/workloads?dry_run=maybe",
            "",
            400,
            "bad-request",
        ),
    ] {
        let answer = server.send(method.clone(), path, &[], body).await;
        let problem = answer.is_problem(status, code);
        assert!(problem["title"].is_string(), "{path}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_body_of_the_wrong_form_is_refused() {
    let server = Server::start().await;
    let node = server.node("box").await;
    let broken = server
        .post("/api/v1/workloads", "{\"name\": \"web\",\n \"cuont\": 1}")
        .await;
    let problem = broken.is_problem(422, "spec-invalid");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("line 2, column 2"),
        "{problem}"
    );
    let wrong = server
        .post("/api/v1/workloads", "name: web\nprocess: {command: 7}")
        .await;
    wrong.is_problem(422, "spec-invalid");
    let twice = format!("{}---\n{}", spec("web", 1), spec("web", 2));
    server
        .post("/api/v1/workloads", &twice)
        .await
        .is_problem(422, "spec-invalid");
    let path = format!("/api/v1/nodes/{}/labels", node.id());
    for body in ["{\"zone\": 7}", "{\"zone\":", "[]", ""] {
        let answer = server.send(Method::PATCH, &path, &[], body).await;
        let problem = answer.is_problem(400, "bad-request");
        assert!(
            problem["detail"].as_str().unwrap().contains("line"),
            "{problem}"
        );
    }
    let bytes = vec![0xff_u8, 0xfe];
    let answer = server
        .send(Method::POST, "/api/v1/workloads", &[], bytes)
        .await;
    answer.is_problem(400, "bad-request");
    assert_eq!(
        server.get("/api/v1/workloads").await.json(),
        Value::Array(Vec::new())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn an_oversize_body_is_refused() {
    let server = Server::start().await;
    let node = server.node("box").await;
    let huge = format!("name: x # {}", "x".repeat(1 << 20));
    server
        .post("/api/v1/workloads", &huge)
        .await
        .is_problem(413, "body-too-large");
    server
        .post("/api/v1/workloads/plan", &huge)
        .await
        .is_problem(413, "body-too-large");
    let heavy = format!("{}env: {{A: {}}}\n", spec("x", 1), "x".repeat(60_000));
    server
        .post("/api/v1/workloads", &heavy)
        .await
        .is_problem(413, "body-too-large");
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(64 << 10));
    let path = format!("/api/v1/nodes/{}/labels", node.id());
    let answer = server.send(Method::PATCH, &path, &[], large.clone()).await;
    answer.is_problem(413, "body-too-large");
    server
        .post("/api/v1/nodes/register", &large)
        .await
        .is_problem(413, "body-too-large");
    server.shut_down().await;
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let server = Server::start().await;
    for (method, path, allowed) in [
        (Method::PUT, "/api/v1/nodes", "GET,HEAD"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::GET, "/api/v1/nodes/x/drain", "POST"),
        (Method::DELETE, "/api/v1/workloads", "GET,HEAD,POST"),
    ] {
        let answer = server.send(method, path, &[], "").await;
        answer.is_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), allowed, "{path}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn an_unknown_route_is_refused_in_the_callers_tongue() {
    let server = Server::start().await;
    server
        .get("/nowhere")
        .await
        .is_problem(404, "route-not-found");
    for path in [
        "/nowhere.Service/Method",
        "/hostler.session.v1.Session/Nothing",
    ] {
        let grpc = [("content-type", "application/grpc")];
        let answer = server.send(Method::POST, path, &grpc, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("grpc-status")),
            (200, "12"),
            "{path}"
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_request_keeps_the_id_that_it_brings() {
    let server = Server::start().await;
    let path = "/api/v1/nodes/nobody";
    let answer = server
        .send(Method::GET, path, &[("x-request-id", "mine-1")], "")
        .await;
    assert_eq!(answer.header("x-request-id"), "mine-1");
    assert_eq!(
        answer.is_problem(404, "node-not-found")["request_id"],
        "mine-1"
    );
    let answer = server
        .send(Method::GET, path, &[("x-request-id", "not one word")], "")
        .await;
    assert_eq!(answer.header("x-request-id").len(), 16);
    server.shut_down().await;
}

#[tokio::test]
async fn lists_page_by_link_header() {
    let server = Server::start().await;
    for number in 0..5 {
        server.apply(&format!("web-{number}"), 0).await;
    }
    let mut names = Vec::new();
    let mut next = Some("/api/v1/workloads?limit=2".to_owned());
    while let Some(path) = next {
        let answer = server.get(&path).await;
        let page = answer.json();
        let page = page.as_array().unwrap();
        assert!(page.len() <= 2);
        names.extend(
            page.iter()
                .map(|it| it["name"].as_str().unwrap().to_owned()),
        );
        let link = answer.header("link").to_owned();
        next = link.strip_prefix('<').map(|link| {
            let (path, rest) = link.split_once('>').unwrap();
            assert_eq!(rest, "; rel=\"next\"");
            path.to_owned()
        });
    }
    names.sort();
    assert_eq!(names, ["web-0", "web-1", "web-2", "web-3", "web-4"]);
    server.shut_down().await;
}

/// One more than a page has.
const COUNT: usize = 501;

/// A server whose list at that path is longer than a page, after it was seen to come whole.
async fn whole(path: &str, post: &str, body: impl Fn(usize) -> Value) -> Server {
    let server = Server::start().await;
    let make = |number: usize| {
        let (server, body) = (&server, body(number).to_string());
        async move {
            let made = server.post(post, &body).await;
            assert!(made.status.is_success(), "{}", made.text);
        }
    };
    let entries = |answer: &Answer| answer.json().as_array().map_or(0, Vec::len);
    let making = futures::stream::iter(0..COUNT).map(make);
    making.buffer_unordered(16).collect::<()>().await;
    let whole = server.get(path).await;
    assert_eq!(entries(&whole), COUNT, "{path}");
    assert_eq!(whole.header("link"), "");
    let page = server.get(&format!("{path}?limit=500")).await;
    assert_eq!(entries(&page), 500, "{path}");
    assert!(page.header("link").contains("rel=\"next\""), "{path}");
    server
}

/// MIaaS's tools follow no links.
#[tokio::test]
async fn lists_of_miaas_come_whole_to_who_asks_for_no_page() {
    let nodes = whole("/api/v1/nodes", "/api/v1/nodes/register", |number| {
        json!({"name": format!("box-{number}"), "ip": "",
            "capabilities": {"os": "linux", "cpu_count": 1, "mem_mb": 1}})
    });
    let server = nodes.await;
    let client = Client::new(&server.url(""), None).unwrap();
    let nodes = client.nodes(NodeFilter::default()).await.unwrap();
    assert_eq!(nodes.len(), COUNT, "our client follows links");
    server.shut_down().await;
    let route = "/api/v1/deployments";
    let deployments = whole(route, route, |number| {
        json!({"deployment_id": format!("d-{number}"), "template_id": "t",
            "rendered_compose": "services: {}", "action": "apply"})
    });
    deployments.await.shut_down().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let server = Server::start().await;
    let evil = [("origin", "http://evil.example")];
    for (method, path) in [
        (Method::POST, "/api/v1/workloads"),
        (Method::DELETE, "/api/v1/nodes/x"),
        (Method::PATCH, "/api/v1/nodes/x/labels"),
    ] {
        let answer = server.send(method, path, &evil, spec("web", 1)).await;
        answer.is_problem(403, "forbidden");
        assert!(answer.headers.get("access-control-allow-origin").is_none());
    }
    // A name that its owner made point here is no better.
    let bound = [
        ("origin", "http://evil.example:8080"),
        ("host", "evil.example:8080"),
    ];
    let answer = server
        .send(Method::POST, "/api/v1/workloads", &bound, spec("web", 1))
        .await;
    answer.is_problem(403, "forbidden");
    let preflight = [
        ("origin", "http://evil.example"),
        ("access-control-request-method", "DELETE"),
    ];
    let answer = server
        .send(Method::OPTIONS, "/api/v1/nodes/x", &preflight, "")
        .await;
    assert!(answer.headers.get("access-control-allow-origin").is_none());
    let own = format!("http://{}", server.addr);
    let own = [("origin", own.as_str())];
    let answer = server
        .send(Method::POST, "/api/v1/workloads", &own, spec("web", 1))
        .await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
    server.shut_down().await;
}

#[tokio::test]
async fn health_speaks_to_miaas_and_spot() {
    let server = Server::start().await;
    let health = server.get("/health").await;
    assert_eq!(health.status.as_u16(), 200);
    let health = health.json();
    assert_eq!(
        (&health["status"], &health["database"]),
        (&"healthy".into(), &"connected".into())
    );
    assert!(health["timestamp"].is_string() && health["version"].is_string());
    let head = server.send(Method::HEAD, "/health", &[], "").await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    server.shut_down().await;
}

#[tokio::test]
async fn the_server_tells_about_itself() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.json()["status"], "ok");
    let ready = server.get("/readyz").await.json();
    assert_eq!(
        (&ready["ready"], ready["checks"].as_array().unwrap().len()),
        (&true.into(), 0)
    );
    let verbose = server.get("/readyz?verbose").await.json();
    let checks = verbose["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["name"] == "store" && check["ok"] == true)
    );
    let version = server.get("/version").await.json();
    assert_eq!(
        (&version["api"], &version["session"]["highest"]),
        (&"v1".into(), &1.into())
    );
    let root = server.get("/").await.json();
    for key in ["message", "service", "version", "docs"] {
        assert!(root[key].is_string(), "{key}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_server_that_does_not_decide_says_that_it_is_not_ready() {
    let server = Server::start().await;
    server.control.crash();
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status.as_u16(), 503);
    let checks = ready.json();
    assert_eq!(checks["checks"][0]["name"], "leader");
    assert_eq!(server.get("/health").await.status.as_u16(), 503);
    let answer = server.apply("web", 1).await;
    answer.is_problem(503, "not-leader");
    assert_eq!(answer.header("retry-after"), "1");
    server.shut_down().await;
}

#[tokio::test]
async fn metrics_carry_our_names() {
    let server = Server::start().await;
    let node = server.node("box").await;
    node.beat();
    server.apply("web", 1).await;
    let metrics = server.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    for line in [
        "hostler_build_info{version=",
        "hostler_leading 1",
        "hostler_nodes{state=\"ready\"} 1",
        "hostler_beats_total{result=\"accepted\"} 1",
        "hostler_verbs_total{verb=\"apply\",result=\"changed\"} 1",
        "hostler_commit_duration_seconds_bucket{le=\"+Inf\"}",
        "hostler_commits_total{result=\"done\"}",
    ] {
        let is_there = metrics.text.lines().any(|it| it.starts_with(line));
        assert!(is_there, "{line} is not in\n{}", metrics.text);
    }
    for line in metrics.text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("hostler_"), "{line}");
    }
    assert!(metrics.text.ends_with("# EOF\n"));
    server.shut_down().await;
}

#[tokio::test]
async fn the_openapi_is_served_as_committed() {
    let server = Server::start().await;
    let served = server.get("/openapi.json").await;
    let committed = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/openapi.json"
    ));
    let advice = "write it anew with `cargo xtask openapi`";
    assert!(
        served.text == committed.expect("the committed description"),
        "{advice}"
    );
    let served = served.json();
    for (path, method) in [
        ("/api/v1/nodes", "get"),
        ("/api/v1/nodes/register", "post"),
        ("/api/v1/workloads/{id}/logs", "get"),
        ("/api/v1/events", "get"),
        ("/metrics", "get"),
    ] {
        assert!(served["paths"][path][method].is_object(), "{method} {path}");
    }
    server.shut_down().await;
}

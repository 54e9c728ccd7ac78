//! MIaaS's deployments behind their routes: the workload that each is, what may be asked twice, and what pages of
//! other sites may do.

use futures::future::join_all;
use hostler_control::ControlConfig;
use hostler_doors::Dialect;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, store};

const ROUTE: &str = "/api/v1/deployments";
const COMPOSE: &str = "services:\n  db:\n    image: postgres:16\n";

fn deployment(id: &str, action: &str) -> Value {
    json!({"deployment_id": id, "template_id": "postgres", "rendered_compose": COMPOSE,
        "env": {"DB_USER": "anna"}, "action": action})
}

async fn deploy(server: &Server, body: &Value) -> u16 {
    server.post(ROUTE, &body.to_string()).await.status.as_u16()
}

#[tokio::test]
async fn a_deployment_is_a_compose_workload_with_the_request_as_it_came() {
    let server = Server::start().await;
    let text = deployment("Main DB/1", "apply")
        .to_string()
        .replace("\"env\"", "\"extra\": 1,  \"env\"");
    assert_eq!(server.post(ROUTE, &text).await.status.as_u16(), 202);
    let workload = server.get("/api/v1/workloads/main-db-1").await.json();
    assert_eq!(
        (&workload["kind"], &workload["status"]),
        (&"compose".into(), &"pending".into())
    );
    assert_eq!(workload["spec"]["compose"]["file"], COMPOSE);
    assert_eq!(workload["spec"]["env"], json!({"DB_USER": "anna"}));
    let view = server.control.view();
    let kept = view
        .workload_by_name("main-db-1")
        .expect("it is there")
        .foreign
        .clone();
    let kept = kept.expect("it is foreign");
    assert_eq!(
        (kept.key.scope.as_str(), kept.key.foreign.as_str()),
        ("deployment", "Main DB/1")
    );
    assert_eq!(&*kept.payload, text.as_bytes());
    drop(view);
    server.shut_down().await;
}

#[tokio::test]
async fn what_it_waits_for_stands_behind_the_message() {
    let server = Server::start().await;
    deploy(&server, &deployment("db", "apply")).await;
    let shown = server.get("/api/v1/deployments/db").await.json();
    assert_eq!(
        shown["message"],
        "Deployment 'postgres' on node unassigned (waits: the fleet has no nodes)"
    );
    let _node = server.node("box").await;
    let shown = server.get("/api/v1/deployments/db").await.json();
    let expected =
        "Deployment 'postgres' on node unassigned (waits: box: has no working compose driver)";
    assert_eq!(
        (&shown["message"], &shown["status"]),
        (&expected.into(), &"pending".into())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_deployment_on_a_node_names_it_and_stays_until_its_copy_is_gone() {
    let server = Server::start().await;
    let mut machine = hostler_control::fake::FakeMachine::named("box");
    machine.kinds.push(hostler_model::spec::Kind::Compose);
    let joined = hostler_control::fake::FakeNode::join(&server.control, machine).await;
    let node = joined.expect("it joins");
    deploy(&server, &deployment("db", "apply")).await;
    let shown = server
        .until("/api/v1/deployments/db", |it| it["status"] == "running")
        .await;
    let place = node.id().to_string();
    assert_eq!(
        shown["message"],
        format!("Deployment 'postgres' on node {place}")
    );
    let list = server.get(ROUTE).await.json();
    assert_eq!(list[0]["message"], format!("Deployment on node {place}"));
    node.freeze(true);
    for _ in 0..2 {
        let answer = server
            .send(Method::DELETE, "/api/v1/deployments/db", &[], "")
            .await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["status"]),
            (200, &"deleting".into())
        );
    }
    assert_eq!(server.get(ROUTE).await.json()[0]["status"], "deleting");
    let again = server
        .post(ROUTE, &deployment("db", "apply").to_string())
        .await;
    assert_eq!(
        again.is_problem(400, "bad-request")["detail"],
        "Deployment with ID db already exists"
    );
    node.freeze(false);
    server.until(ROUTE, |list| list == &json!([])).await;
    assert_eq!(deploy(&server, &deployment("db", "apply")).await, 202);
    server.shut_down().await;
}

#[tokio::test]
async fn the_action_remove_deletes_and_any_other_word_creates() {
    let server = Server::start().await;
    assert_eq!(deploy(&server, &deployment("db", "remove")).await, 404);
    assert_eq!(deploy(&server, &deployment("db", "whatever")).await, 202);
    assert_eq!(deploy(&server, &deployment("db", "remove")).await, 202);
    server.until(ROUTE, |list| list == &json!([])).await;
    server.shut_down().await;
}

#[tokio::test]
async fn of_many_who_create_one_deployment_at_once_one_does() {
    let server = Server::start().await;
    let bodies: Vec<Value> = (0..12)
        .map(|number| {
            let mut body = deployment("db", "apply");
            body["template_id"] = number.to_string().into();
            body
        })
        .collect();
    let mut statuses = join_all(bodies.iter().map(|body| deploy(&server, body))).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [[202].as_slice(), &[400; 11]].concat());
    assert_eq!(
        server.get("/api/v1/workloads/db").await.json()["revision"],
        1
    );
    server.shut_down().await;
}

#[tokio::test]
async fn what_no_node_could_be_told_is_refused_where_it_stands() {
    let server = Server::start().await;
    let mut large = deployment("db", "apply");
    large["rendered_compose"] = "x".repeat(60_000).into();
    let mut odd = deployment("db", "apply");
    odd["env"] = json!({"A=B": "c"});
    for body in [large, odd] {
        let answer = server.post(ROUTE, &body.to_string()).await;
        assert_eq!(answer.status.as_u16(), 422, "{}", answer.text);
        assert_eq!(
            answer.json()["detail"][0]["loc"],
            json!(["body", "rendered_compose"])
        );
    }
    assert_eq!(server.get(ROUTE).await.json(), json!([]));
    server.shut_down().await;
}

#[tokio::test]
async fn workloads_of_ours_are_no_deployments() {
    let server = Server::start().await;
    server.apply("web", 1).await;
    assert_eq!(server.get(ROUTE).await.json(), json!([]));
    assert_eq!(
        server.get("/api/v1/deployments/web").await.status.as_u16(),
        404
    );
    server.shut_down().await;
}

#[tokio::test]
async fn pages_of_other_sites_deploy_only_where_that_is_switched_on() {
    let page = [("origin", "http://localhost:3000")];
    let preflight = [page[0], ("access-control-request-method", "POST")];
    let body = deployment("db", "apply").to_string();
    let server = Server::start().await;
    let refused = server.send(Method::POST, ROUTE, &page, body.clone()).await;
    refused.is_problem(403, "forbidden");
    let asked = server.send(Method::OPTIONS, ROUTE, &preflight, "").await;
    assert!(asked.headers.get("access-control-allow-origin").is_none());
    let read = server.send(Method::GET, ROUTE, &page, "").await;
    assert_eq!(
        (
            read.text.as_str(),
            read.header("access-control-allow-origin")
        ),
        ("[]", page[0].1)
    );
    server.shut_down().await;
    let server = Server::of(ControlConfig::default(), &store(), |mut parts| {
        parts.miaas.pages_deploy = true;
        parts.router(Dialect::Hostler)
    })
    .await;
    let asked = server.send(Method::OPTIONS, ROUTE, &preflight, "").await;
    assert_eq!((asked.status.as_u16(), asked.text.as_str()), (200, "OK"));
    assert_eq!(
        asked.header("access-control-allow-methods"),
        "GET, HEAD, POST"
    );
    let taken = server.send(Method::POST, ROUTE, &page, body).await;
    assert_eq!(
        (
            taken.status.as_u16(),
            taken.header("access-control-allow-credentials")
        ),
        (202, "true")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_restart_keeps_nodes_deployments_and_tokens() {
    let store = store();
    let later = |mut parts: hostler_doors::Parts| {
        parts.miaas.dialect = hostler_doors::miaas::Dialect::Later;
        parts.router(Dialect::Hostler)
    };
    let server = Server::of(ControlConfig::default(), &store, later).await;
    let node = json!({"name": "box", "ip": "10.0.0.1", "capabilities": {"os": "linux", "cpu_count": 1, "mem_mb": 1}});
    let registered = server
        .post("/api/v1/nodes/register", &node.to_string())
        .await
        .json();
    deploy(&server, &deployment("db", "apply")).await;
    let shown = server.get("/api/v1/deployments/db").await.text;
    server.shut_down().await;

    let server = Server::of(ControlConfig::default(), &store, later).await;
    assert_eq!(server.get("/api/v1/deployments/db").await.text, shown);
    assert_eq!(deploy(&server, &deployment("db", "apply")).await, 400);
    let id = registered["node_id"].as_str().expect("an id");
    let bearer = format!(
        "Bearer {}",
        registered["node_token"].as_str().expect("a token")
    );
    let headers = [("authorization", bearer.as_str())];
    let beat = server
        .send(
            Method::POST,
            &format!("/api/v1/nodes/{id}/heartbeat"),
            &headers,
            "{}",
        )
        .await;
    assert_eq!(beat.status.as_u16(), 200, "{}", beat.text);
    let listed = server.get("/api/v1/nodes").await.json();
    assert_eq!(
        (&listed[0]["id"], &listed[0]["ip"]),
        (&id.into(), &"10.0.0.1".into())
    );
    server.shut_down().await;
}

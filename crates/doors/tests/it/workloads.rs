//! Workload and assignment routes over fake nodes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Server, spec};

#[tokio::test]
async fn a_workload_is_applied_runs_and_is_found() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    let applied = server.apply("web", 2).await;
    assert_eq!(
        (applied.status.as_u16(), applied.header("etag")),
        (201, "\"1\"")
    );
    let result = &applied.json()[0];
    assert_eq!(
        (&result["created"], &result["changed"]),
        (&true.into(), &true.into())
    );
    let shown = server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    assert_eq!(
        (&shown["running"], &shown["pending"]),
        (&2.into(), &0.into())
    );
    let standing = &shown["standing"];
    assert_eq!(
        (&standing["settled"], &standing["nodes"]),
        (&2.into(), &json!(["box"]))
    );
    let copies = server
        .get("/api/v1/assignments?workload=web&node=box")
        .await
        .json();
    assert_eq!(copies.as_array().unwrap().len(), 2);
    assert_eq!(
        (&copies[0]["node_name"], &copies[0]["state"]["word"]),
        (&"box".into(), &"running".into())
    );
    let short = copies[0]["short"].as_str().unwrap();
    let one = server
        .get(&format!("/api/v1/assignments/{short}"))
        .await
        .json();
    assert_eq!(one["id"], copies[0]["id"]);
    server.shut_down().await;
}

#[tokio::test]
async fn the_same_spec_again_changes_nothing_and_conditions_guard_it() {
    let server = Server::start().await;
    server.apply("web", 1).await;
    let again = server.apply("web", 1).await;
    assert_eq!(
        (again.status.as_u16(), &again.json()[0]["changed"]),
        (200, &false.into())
    );
    let path = "/api/v1/workloads";
    let more = spec("web", 2);
    for (condition, value, status) in [
        ("if-none-match", "*", 412),
        ("if-match", "\"7\"", 412),
        ("if-match", "\"x\"", 400),
        ("if-match", "\"1\"", 200),
    ] {
        let answer = server
            .send(Method::POST, path, &[(condition, value)], more.clone())
            .await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{condition}: {value}: {}",
            answer.text
        );
    }
    let two = format!("{}---\n{}", spec("a", 1), spec("b", 1));
    let answer = server
        .send(Method::POST, path, &[("if-match", "\"1\"")], two)
        .await;
    answer.is_problem(400, "bad-request");
    server.shut_down().await;
}

#[tokio::test]
async fn of_several_documents_all_are_applied_or_none() {
    let server = Server::start().await;
    let broken = format!("{}---\nname: b\nprocess: {{command: []}}\n", spec("a", 1));
    server
        .post("/api/v1/workloads", &broken)
        .await
        .is_problem(422, "spec-invalid");
    let both = format!("{}---\n{}", spec("a", 1), spec("b", 1));
    let path = "/api/v1/workloads?require_placement=true";
    server
        .post(path, &both)
        .await
        .is_problem(409, "no-placement");
    assert_eq!(server.get("/api/v1/workloads").await.json(), json!([]));
    let applied = server.post("/api/v1/workloads", &both).await;
    assert_eq!(
        (
            applied.status.as_u16(),
            applied.json().as_array().unwrap().len()
        ),
        (201, 2)
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_dry_run_and_a_plan_change_nothing() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    let dry = server
        .post("/api/v1/workloads?dry_run=true", &spec("web", 1))
        .await;
    assert_eq!(
        (dry.status.as_u16(), &dry.json()[0]["created"]),
        (200, &true.into())
    );
    let plan = server
        .post("/api/v1/workloads/plan", &spec("web", 2))
        .await
        .json();
    let planned = &plan["workloads"][0];
    assert_eq!(
        (&planned["action"], &planned["name"]),
        (&"create".into(), &"web".into())
    );
    assert_eq!(planned["placements"][1]["node_name"], "box");
    assert_eq!(server.get("/api/v1/workloads").await.json(), json!([]));

    server.apply("web", 2).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    let plan = server
        .post("/api/v1/workloads/plan", &spec("web", 2))
        .await
        .json();
    assert_eq!(plan["workloads"][0]["action"], "unchanged");
    let fewer = spec("web", 1).replace("inf", "9");
    let plan = server.post("/api/v1/workloads/plan", &fewer).await.json();
    let planned = &plan["workloads"][0];
    assert_eq!(
        (&planned["action"], &planned["stops"]),
        (&"update".into(), &1.into())
    );
    assert_eq!(planned["restarts_copies"], true);
    let paths: Vec<&Value> = planned["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| &change["path"])
        .collect();
    assert_eq!(paths, ["count", "process.command"]);
    let many = spec("web", 2) + "resources: {cpu: 5000m}\n";
    let plan = server.post("/api/v1/workloads/plan", &many).await.json();
    let pending = &plan["workloads"][0]["pending"];
    assert_eq!(pending["nodes"][0]["reasons"][0]["code"], "cpu", "{plan}");
    server.shut_down().await;
}

#[tokio::test]
async fn pending_copies_tell_every_reason() {
    let server = Server::start().await;
    server.apply("web", 1).await;
    let why = server.get("/api/v1/workloads/web/why").await.json();
    assert_eq!(
        (&why["pending"], &why["workload_name"]),
        (&1.into(), &"web".into())
    );
    let _node = server.node("box").await;
    let text = spec("big", 1) + "resources: {cpu: 999, memory: 1TiB}\n";
    server.post("/api/v1/workloads", &text).await;
    let why = server.get("/api/v1/workloads/big/why").await.json();
    let reasons = why["nodes"][0]["reasons"].as_array().expect("reasons");
    let codes: Vec<&Value> = reasons.iter().map(|reason| &reason["code"]).collect();
    assert_eq!(codes, ["cpu", "memory"], "{why}");
    assert_eq!(why["nodes"][0]["names"][0], "box");
    let shown = server.get("/api/v1/workloads/big").await.json();
    assert_eq!(
        (&shown["status"], &shown["pending"]),
        (&"pending".into(), &1.into())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_workload_is_stopped_started_restarted_and_deleted() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    server.apply("web", 1).await;
    let path = "/api/v1/workloads/web";
    server.until(path, |it| it["status"] == "running").await;
    let copies = "/api/v1/assignments?workload=web";
    let first = server.get(copies).await.json();
    let generation = first[0]["generation"].as_u64().unwrap();
    let stopped = server.post(&format!("{path}/stop"), "").await;
    assert_eq!(
        (stopped.status.as_u16(), &stopped.json()["desired"]),
        (202, &"stopped".into())
    );
    server.until(path, |it| it["status"] == "stopped").await;
    let stale = [("if-match", "\"1\"")];
    let answer = server
        .send(Method::POST, &format!("{path}/start"), &stale, "")
        .await;
    answer.is_problem(412, "revision-conflict");
    server.post(&format!("{path}/start"), "").await;
    server.until(path, |it| it["status"] == "running").await;
    let again = format!("{path}/restart");
    let before = server.get(copies).await.json();
    let answer = server.send(Method::POST, &again, &stale, "").await;
    answer.is_problem(412, "revision-conflict");
    assert_eq!(server.get(copies).await.json(), before);
    let seen = [("if-match", "\"3\"")];
    let restarted = server.send(Method::POST, &again, &seen, "").await;
    assert_eq!(restarted.status.as_u16(), 202, "{}", restarted.text);
    let is_newer = |it: &Value| {
        it[0]["state"]["word"] == "running" && it[0]["generation"].as_u64() > Some(generation + 1)
    };
    server.until(copies, is_newer).await;
    let history = server.get(&format!("{path}/history?limit=2")).await;
    let revisions = history.json();
    assert!(
        revisions[0]["revision"].as_u64() > revisions[1]["revision"].as_u64(),
        "{revisions}"
    );
    assert!(revisions[0]["actor"].as_str().unwrap().starts_with("user/"));
    let deleted = server.send(Method::DELETE, path, &[], "").await;
    assert_eq!(deleted.status.as_u16(), 202);
    server
        .until("/api/v1/workloads", |list| list == &json!([]))
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_workload_without_copies_can_be_deleted_and_is_shown_as_it_was() {
    let server = Server::start().await;
    server.apply("web", 0).await;
    let deleted = server
        .send(Method::DELETE, "/api/v1/workloads/web", &[], "")
        .await;
    assert_eq!(
        (deleted.status.as_u16(), &deleted.json()["name"]),
        (202, &"web".into())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn two_that_race_for_the_last_slot_end_with_one_placed_and_one_pending() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    let text = |name| spec(name, 1) + "resources: {cpu: 8}\n";
    let (one, two) = (text("one"), text("two"));
    tokio::join!(
        server.post("/api/v1/workloads", &one),
        server.post("/api/v1/workloads", &two)
    );
    let is_settled = |list: &Value| {
        let list = list.as_array().unwrap();
        let count = |status: &str| list.iter().filter(|it| it["status"] == status).count();
        count("running") == 1 && count("pending") == 1
    };
    server.until("/api/v1/workloads", is_settled).await;
    server.shut_down().await;
}

//! Rollouts over the API: planned, seen, promoted, rolled back, and kept in the history.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::Server;

const WEB: &str = "/api/v1/workloads/web";

fn web(form: &str, rest: &str) -> String {
    format!(
        "name: web\ncount: 2\nprocess: {{command: [sleep, inf]}}\nenv: {{FORM: {form}}}\n\
         update: {{min_healthy_ms: 0{rest}}}\n"
    )
}

fn is_settled(it: &Value) -> bool {
    it["standing"]["settled"] == 2 && it["rollout"].is_null()
}

async fn applied(server: &Server, spec: &str) {
    let answer = server.post("/api/v1/workloads", spec).await;
    assert!(answer.status.is_success(), "{}", answer.text);
}

#[tokio::test]
async fn canaries_are_planned_seen_and_promoted() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    applied(&server, &web("old", "")).await;
    server.until(WEB, is_settled).await;

    let new = web("new", ", canary: 1");
    let plan = server.post("/api/v1/workloads/plan", &new).await.json();
    let planned = &plan["workloads"][0];
    assert_eq!(
        planned["rollout"],
        "1 canary runs beside the old copies until they are promoted; then 2 copies are replaced, 1 at a time"
    );
    assert_eq!(planned["beside"][0]["node_name"], "box");
    assert_eq!(
        planned["placements"],
        json!([]),
        "they are replaced in place"
    );
    assert_eq!(planned["changes"][0]["path"], "env.FORM");
    assert_eq!(
        server.get(WEB).await.json()["revision"],
        1,
        "a plan changes nothing"
    );

    applied(&server, &new).await;
    let held = server
        .until(WEB, |it| it["rollout"]["needs_person"] == true)
        .await;
    let rollout = &held["rollout"];
    assert_eq!(
        rollout["summary"],
        "trying revision 2: 1 of 1 canaries healthy, waiting for a person to promote it or to roll it back"
    );
    assert_eq!(
        (
            &rollout["stage"],
            &rollout["from"],
            &rollout["beside"],
            &rollout["renewed"]
        ),
        (&"canary".into(), &1.into(), &1.into(), &0.into())
    );
    server
        .post(&format!("{WEB}/restart"), "")
        .await
        .is_problem(409, "rollout-held");
    let promote = format!("{WEB}/promote");
    server
        .send(
            Method::POST,
            &promote,
            &[("if-match", "\"1\"")],
            String::new(),
        )
        .await
        .is_problem(412, "revision-conflict");
    let promoted = server
        .send(
            Method::POST,
            &promote,
            &[("if-match", "\"2\"")],
            String::new(),
        )
        .await;
    assert_eq!(
        (promoted.status.as_u16(), promoted.header("etag")),
        (202, "\"2\"")
    );
    let done = server.until(WEB, is_settled).await;
    assert_eq!(done["standing"]["wanted"], 2, "the canary has gone");
    server
        .post(&promote, "")
        .await
        .is_problem(409, "no-rollout");
    server.shut_down().await;
}

#[tokio::test]
async fn a_rollback_is_a_revision_that_says_why_and_the_history_what_changed() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    applied(&server, &web("old", "")).await;
    applied(&server, &web("new", "")).await;
    server.until(WEB, is_settled).await;
    let rollback = format!("{WEB}/rollback");
    for (path, status, code) in [
        (format!("{rollback}?to=9"), 404, "revision-not-found"),
        (format!("{rollback}?to=x"), 400, "bad-request"),
    ] {
        server.post(&path, "").await.is_problem(status, code);
    }
    server
        .send(
            Method::POST,
            &rollback,
            &[("if-match", "\"1\"")],
            String::new(),
        )
        .await
        .is_problem(412, "revision-conflict");
    let back = server
        .send(
            Method::POST,
            &rollback,
            &[("if-match", "\"2\"")],
            String::new(),
        )
        .await;
    assert_eq!(
        (back.status.as_u16(), &back.json()["revision"]),
        (202, &3.into())
    );
    let shown = server.until(WEB, is_settled).await;
    assert_eq!(
        (&shown["note"], &shown["spec"]["env"]["FORM"]),
        (&"rolled back to revision 1".into(), &"old".into())
    );
    let history = server.get(&format!("{WEB}/history")).await.json();
    assert_eq!(history[0]["note"], "rolled back to revision 1");
    assert_eq!(
        history[0]["changes"],
        json!([{ "path": "env.FORM", "from": "new", "to": "old" }])
    );
    assert_eq!(
        (&history[1]["note"], &history[2]["changes"]),
        (&Value::Null, &json!([]))
    );
    let again = server.post(&format!("{rollback}?to=1"), "").await;
    assert_eq!(again.json()["revision"], 3, "it is so already");
    server.shut_down().await;
}

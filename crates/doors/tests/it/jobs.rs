//! Jobs over fake nodes: how they end, once more, and schedules.

use hostler_model::Exit;
use reqwest::Method;

use crate::server::Server;

const JOB: &str = "name: fetch\njob: {command: [fetch], retries: 1}\nresources: {cpu: 10m}\n";
const SCHEDULE: &str = "name: nightly\njob: {command: [tidy], schedule: '30 2 * * *'}\n";

#[tokio::test]
async fn a_job_is_run_ends_with_its_reason_and_runs_once_more() {
    let server = Server::start().await;
    let node = server.node("box").await;
    server.post("/api/v1/workloads", JOB).await;
    let path = "/api/v1/jobs/fetch";
    let shown = server.until(path, |it| it["status"] == "running").await;
    assert_eq!((&shown["running"], &shown["count"]), (&1.into(), &1.into()));
    assert!(shown.get("ended_at").is_none(), "{shown}");

    let unit = node.units()[0].unit;
    node.finish(unit, Exit::TimedOut)
        .await
        .expect("it is taken");
    let shown = server.until(path, |it| it["status"] == "failed").await;
    assert_eq!(
        (&shown["failed"], &shown["succeeded"]),
        (&1.into(), &0.into())
    );
    let reason = shown["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("1 of 1 failed; copy 0 after"),
        "{reason}"
    );
    assert!(reason.ends_with(": timed out"), "{reason}");
    assert!(shown["ended_at"].is_string(), "{shown}");
    let workload = server.get("/api/v1/workloads/fetch").await.json();
    assert_eq!(workload["standing"]["reason"], reason);

    let again = server
        .send(Method::POST, "/api/v1/jobs/fetch/rerun", &[], "")
        .await;
    assert_eq!(
        (again.status.as_u16(), &again.json()["name"]),
        (202, &"fetch".into())
    );
    server.until(path, |it| it["status"] == "running").await;
    let unit = node
        .units()
        .into_iter()
        .map(|it| it.unit)
        .max()
        .expect("a unit");
    node.finish(unit, Exit::Code(0)).await.expect("it is taken");
    let shown = server.until(path, |it| it["status"] == "finished").await;
    assert_eq!(
        (&shown["succeeded"], shown.get("reason")),
        (&1.into(), None)
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_schedule_runs_nothing_and_makes_a_job_when_asked() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    server.post("/api/v1/workloads", SCHEDULE).await;
    let path = "/api/v1/jobs/nightly";
    let shown = server.get(path).await.json();
    assert_eq!(
        (&shown["status"], &shown["running"]),
        (&"scheduled".into(), &0.into())
    );
    let next = shown["next_due"].as_str().expect("a moment");
    assert!(next.contains("T02:30:00"), "{next}");

    let made = server
        .send(Method::POST, "/api/v1/jobs/nightly/rerun", &[], "")
        .await;
    let made = made.json();
    let name = made["name"].as_str().expect("a name");
    assert!(name.starts_with("nightly-"), "{name}");
    assert_eq!(
        (&made["parent"], made.get("schedule")),
        (&"nightly".into(), None)
    );
    server
        .until(&format!("/api/v1/jobs/{name}"), |it| {
            it["status"] == "running"
        })
        .await;
    let listed = server.get("/api/v1/jobs").await.json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");

    let long = SCHEDULE.replace("nightly", &"n".repeat(52));
    let refused = server.post("/api/v1/workloads", &long).await;
    assert!(refused.text.contains("longer than 51"), "{}", refused.text);
    server.apply("web", 1).await;
    let refused = server
        .send(Method::POST, "/api/v1/jobs/web/rerun", &[], "")
        .await;
    refused.is_problem(400, "bad-request");
    server.shut_down().await;
}

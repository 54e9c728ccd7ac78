//! How the copies of a workload stand: the bounded answer, news of it, the pages of copies, and why they do
//! not run.

use std::sync::Arc;

use hostler_control::fake::FakeNode;
use hostler_model::{CrashLoop, Exit, Health, ObservedUnit, Timestamp, UnitState};
use reqwest::Method;
use serde_json::Value;

use crate::server::{Server, spec};

const WEB: &str = "/api/v1/workloads/web";

/// The node says this of all its units.
async fn tell(node: &FakeNode, state: UnitState, runs: u32) {
    let told = |unit: ObservedUnit| ObservedUnit {
        state: state.clone(),
        runs,
        ..unit
    };
    let units = node.units().into_iter().map(told).collect();
    let attachment = node.attachment().expect("it is connected");
    attachment.observed_delta(units).await.expect("it is taken");
}

fn strings<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|it| it[key].as_str().expect("text"))
        .collect()
}

#[tokio::test]
async fn the_answer_of_a_large_workload_stays_small() {
    let server = Server::start().await;
    let node = server.node("box").await;
    server.apply("web", 300).await;
    let shown = server
        .until(WEB, |it| it["standing"]["settled"] == 300)
        .await;
    assert_eq!(shown["standing"]["nodes"], serde_json::json!(["box"]));
    assert!(shown["standing"].get("troubles").is_none());
    let exit = Exit::Code(7);
    let retry_at = Timestamp::default();
    tell(&node, UnitState::Waiting { exit, retry_at }, 4).await;
    let shown = server.get(WEB).await;
    let standing = &shown.json()["standing"];
    assert_eq!(standing["troubles"].as_array().unwrap().len(), 5);
    assert_eq!(
        (&standing["restarts"], &standing["last_exit"]),
        (&900.into(), &"exit code 7".into())
    );
    assert!(shown.text.len() < 8_000, "{} bytes", shown.text.len());
    let listed = server.get("/api/v1/workloads").await.json();
    assert!(listed[0]["standing"].get("troubles").is_none());
    server.shut_down().await;
}

#[tokio::test]
async fn news_of_a_workload_is_told_once_there_is_some() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    server.apply("web", 1).await;
    let seen = server.until(WEB, |it| it["status"] == "running").await;
    let mark = seen["standing"]["mark"].as_str().unwrap();
    let unchanged = server.get(&format!("{WEB}?wait=1&after={mark}")).await;
    assert_eq!(unchanged.json(), seen);
    let waiting = format!("{WEB}?wait=20000&after={mark}");
    let more = spec("web", 2);
    let (news, _) = tokio::join!(
        server.get(&waiting),
        server.post("/api/v1/workloads", &more)
    );
    assert_eq!(news.json()["count"], 2, "{}", news.text);
    let seen = server.until(WEB, |it| it["running"] == 2).await;
    server.send(Method::DELETE, WEB, &[], "").await;
    let mut mark = seen["standing"]["mark"].clone();
    loop {
        let mark_text = mark.as_str().expect("a mark");
        let news = server
            .get(&format!("{WEB}?wait=20000&after={mark_text}"))
            .await;
        if !news.status.is_success() {
            news.is_problem(404, "workload-not-found");
            break;
        }
        mark = news.json()["standing"]["mark"].clone();
    }
    server
        .get(&format!("{WEB}?wait=long"))
        .await
        .is_problem(400, "bad-request");
    server.shut_down().await;
}

#[tokio::test]
async fn copies_are_listed_in_pages_that_follow_each_other() {
    let server = Server::start().await;
    let _nodes = (server.node("one").await, server.node("two").await);
    server.apply("web", 5).await;
    server.apply("api", 4).await;
    for name in ["web", "api"] {
        let path = format!("/api/v1/workloads/{name}");
        server.until(&path, |it| it["status"] == "running").await;
    }
    for (query, count) in [
        ("workload=web", 5),
        ("node=one", 4),
        ("workload=web&node=one", 2),
        ("", 9),
    ] {
        let all = server.get(&format!("/api/v1/assignments?{query}")).await;
        let all = all.json();
        let mut pages = Vec::new();
        let mut next = format!("/api/v1/assignments?{query}&limit=2");
        loop {
            let page = server.get(&next).await;
            assert!(page.json().as_array().unwrap().len() <= 2);
            pages.extend(page.json().as_array().unwrap().clone());
            let Some(link) = page.header("link").split(['<', '>']).nth(1) else {
                break;
            };
            next = link.to_owned();
        }
        let is_near = |seen: usize| (count - 1..=count + 1).contains(&seen);
        assert!(is_near(pages.len()), "{query}: {all}");
        assert_eq!(Value::from(pages), all, "{query}");
    }
    let web = server.get("/api/v1/assignments?workload=web").await.json();
    let slots: Vec<_> = web
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["slot"].as_u64())
        .collect();
    assert_eq!(slots, (0..5).map(Some).collect::<Vec<_>>());
    for query in ["workload=web&after=x", "workload=web&after=1.x", "after=x"] {
        let answer = server.get(&format!("/api/v1/assignments?{query}")).await;
        answer.is_problem(400, "bad-request");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn an_update_that_fits_nowhere_is_told() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    server.apply("web", 1).await;
    server.until(WEB, |it| it["status"] == "running").await;
    let larger = spec("web", 1) + "resources: {cpu: 9}\n";
    server.post("/api/v1/workloads", &larger).await;
    let shown = server.until(WEB, |it| it["status"] == "updating").await;
    assert_eq!(
        (&shown["running"], &shown["standing"]["outdated"]),
        (&1.into(), &1.into())
    );
    assert_eq!(shown["standing"]["settled"], 0);
    let why = server.get(&format!("{WEB}/why")).await.json();
    assert_eq!(why["pending"], 0);
    assert!(
        strings(&why["findings"], "code").contains(&"outdated"),
        "{why}"
    );
    assert!(
        strings(&why["nodes"][0]["reasons"], "code").contains(&"cpu"),
        "{why}"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn copies_that_have_a_node_and_do_not_run_are_told_by_reason() {
    let server = Server::start().await;
    let node = server.node("box").await;
    server.apply("web", 7).await;
    server.until(WEB, |it| it["status"] == "running").await;
    let why = server.get(&format!("{WEB}/why")).await.json();
    assert!(why.get("copies").is_none(), "{why}");
    let retry_at = Timestamp::default();
    let pull = UnitState::Failed {
        code: "image-unavailable".to_owned(),
        message: "image `web:2`: no such tag".to_owned(),
        retry_at,
    };
    let exit = Exit::Code(3);
    for (state, runs, code, said, remedy, reason) in [
        (
            pull,
            0,
            "image-unavailable",
            "no such tag",
            "image's name",
            "image-pull-failed",
        ),
        (
            UnitState::Waiting { exit, retry_at },
            5,
            "crash-loop",
            "exit code 3",
            "--previous web",
            "runtime-error",
        ),
        (
            UnitState::Waiting {
                exit: Exit::OutOfMemory,
                retry_at,
            },
            1,
            "ended",
            "out of memory",
            "resources.memory",
            "insufficient-resources",
        ),
    ] {
        tell(&node, state, runs).await;
        let why = server.get(&format!("{WEB}/why")).await.json();
        let groups = why["copies"].as_array().unwrap();
        assert_eq!(groups.len(), 1, "{why}");
        let group = &groups[0];
        assert_eq!((&group["count"], &group["runs"]), (&7.into(), &runs.into()));
        assert_eq!(group["names"].as_array().unwrap().len(), 5);
        assert_eq!(group["names"][0], "web.0 on box");
        assert_eq!(group["reason"]["code"], code);
        assert!(
            group["reason"]["sentence"].as_str().unwrap().contains(said),
            "{why}"
        );
        assert!(group["remedy"].as_str().unwrap().contains(remedy), "{why}");
        let copies = server.get("/api/v1/assignments?workload=web").await.json();
        let now = &copies[0]["state"];
        assert_eq!(now["reason"], reason, "{now}");
        if let Some(code) = now["code"].as_str() {
            assert_eq!(now["remedy"], group["remedy"], "{now}");
            let page = server.get(&format!("/docs/errors/{code}")).await;
            assert!(page.text.starts_with(&format!("# {code}\n")));
        }
        assert!(
            why["summary"]
                .as_str()
                .unwrap()
                .contains("7 copies have a node and do not run")
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn nodes_that_are_gone_can_be_left_out() {
    let server = Server::start().await;
    let _nodes = (server.node("one").await, server.node("two").await);
    server
        .send(Method::DELETE, "/api/v1/nodes/one", &[], "")
        .await;
    for (query, expected) in [
        ("", vec!["one", "two"]),
        ("?gone=false", vec!["two"]),
        ("?gone=true", vec!["one"]),
    ] {
        // Nodes of one millisecond are listed in any order.
        let list = server.get(&format!("/api/v1/nodes{query}")).await.json();
        let mut names = strings(&list, "name");
        names.sort_unstable();
        assert_eq!(names, expected, "{query}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn health_and_crash_loops_are_shown_explained_and_told_once() {
    let server = Server::start().await;
    let node = server.node("box").await;
    server.apply("web", 1).await;
    server.until(WEB, |it| it["status"] == "running").await;
    let tell = async |health: Option<Health>, crash_loop: Option<Arc<CrashLoop>>| {
        let units = node.units().into_iter().map(|unit| ObservedUnit {
            health: health.clone(),
            crash_loop: crash_loop.clone(),
            ..unit
        });
        let attachment = node.attachment().expect("it is connected");
        let units = units.collect();
        attachment.observed_delta(units).await.expect("it is taken");
    };
    tell(Some(Health::Starting), None).await;
    let shown = server.get(WEB).await.json();
    assert_eq!(
        (&shown["running"], &shown["status"]),
        (&0.into(), &"pending".into())
    );
    assert_eq!(shown["standing"]["settled"], 0, "a wait goes on");
    tell(Some(Health::Healthy), None).await;
    let shown = server.get(WEB).await.json();
    assert_eq!(
        (&shown["running"], &shown["status"]),
        (&1.into(), &"running".into())
    );
    let why = "status 503".to_owned();
    for _ in 0..2 {
        tell(Some(Health::Unhealthy { why: why.clone() }), None).await;
    }
    let shown = server.get(WEB).await.json();
    assert_eq!(shown["status"], "degraded", "{shown}");
    let state = &shown["standing"]["troubles"][0]["state"];
    assert_eq!(
        (&state["health"], &state["detail"]),
        (&"unhealthy".into(), &"status 503".into())
    );
    let why = server.get(&format!("{WEB}/why")).await.json();
    assert_eq!(why["copies"][0]["reason"]["code"], "unhealthy", "{why}");

    let first = CrashLoop {
        exit: Exit::Code(78),
        at: Timestamp::from_millis(7),
        run: 1,
        log: vec!["no configuration".to_owned()],
    };
    tell(None, Some(Arc::new(first))).await;
    let copies = server.get("/api/v1/assignments?workload=web").await.json();
    let crash_loop = &copies[0]["state"]["crash_loop"];
    assert_eq!(crash_loop["exit"], "exit code 78", "{copies}");
    let why = server.get(&format!("{WEB}/why")).await.json();
    assert_eq!(why["copies"][0]["reason"]["code"], "crash-loop", "{why}");
    assert_eq!(why["copies"][0]["log"][0], "no configuration", "{why}");
    tell(None, None).await;

    let events = server.get("/api/v1/events").await.json();
    let kinds = strings(&events, "kind");
    for kind in [
        "copy-healthy",
        "copy-unhealthy",
        "copy-crashing",
        "copy-recovered",
    ] {
        let times = kinds.iter().filter(|it| **it == kind).count();
        assert_eq!(times, 1, "{kind}: {kinds:?}");
    }
    server.shut_down().await;
}

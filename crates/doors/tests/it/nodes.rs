//! Node routes over fake nodes.

use reqwest::Method;
use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn the_node_list_is_a_superset_of_miaas() {
    let server = Server::start().await;
    let node = server.node("box").await;
    node.beat();
    let list = server.get("/api/v1/nodes").await.json();
    let shown = &list.as_array().expect("a bare array")[0];
    assert_eq!(shown["id"], node.id().to_string());
    assert_eq!(
        (&shown["status"], &shown["state"]),
        (&"online".into(), &"ready".into())
    );
    for key in [
        "id",
        "name",
        "ip",
        "capabilities",
        "last_seen",
        "metrics",
        "lease",
        "capacity",
    ] {
        assert!(!shown[key].is_null(), "{key} in {shown}");
    }
    for key in [
        "cpu_usage",
        "mem_usage",
        "disk_free_mb",
        "running_containers",
    ] {
        assert!(!shown["metrics"][key].is_null(), "{key}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_has_no_metrics_before_its_first_beat() {
    let server = Server::start().await;
    let node = server.node("box").await;
    let path = format!("/api/v1/nodes/{}", node.id());
    assert!(server.get(&path).await.json().get("metrics").is_none());
    node.beat();
    assert!(server.get(&path).await.json()["metrics"].is_object());
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_is_found_by_name_id_and_parts_of_it() {
    let server = Server::start().await;
    let node = server.node("box").await;
    let id = node.id().to_string();
    for text in ["box", &id, &id[..13], &node.id().short()] {
        let answer = server.get(&format!("/api/v1/nodes/{text}")).await;
        assert_eq!(answer.json()["id"], id, "{text}");
        assert_eq!(answer.header("etag"), "\"1\"");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn labels_are_set_removed_and_guarded_by_the_revision() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    let path = "/api/v1/nodes/box/labels";
    let seen = [("if-match", "\"1\"")];
    let body = r#"{"zone": "a", "old": null}"#;
    let answer = server.send(Method::PATCH, path, &seen, body).await;
    assert_eq!(
        (answer.json()["labels"].clone(), answer.header("etag")),
        (json!({"zone": "a"}), "\"2\"")
    );
    let answer = server
        .send(Method::PATCH, path, &seen, r#"{"zone": "b"}"#)
        .await;
    answer.is_problem(412, "revision-conflict");
    let answer = server
        .send(Method::PATCH, path, &[("if-match", "three")], "{}")
        .await;
    answer.is_problem(400, "bad-request");
    let answer = server
        .send(Method::PATCH, path, &[], r#"{"zone": null}"#)
        .await;
    assert_eq!(answer.json()["labels"], json!({}));
    server.shut_down().await;
}

#[tokio::test]
async fn a_node_is_cordoned_drained_and_removed() {
    let server = Server::start().await;
    let node = server.node("box").await;
    let state = |answer: crate::server::Answer| answer.json()["state"].clone();
    assert_eq!(
        state(server.post("/api/v1/nodes/box/cordon", "").await),
        "cordoned"
    );
    assert_eq!(
        state(server.post("/api/v1/nodes/box/uncordon", "").await),
        "ready"
    );
    server.apply("web", 1).await;
    server
        .until("/api/v1/workloads/web", |it| it["status"] == "running")
        .await;
    server
        .send(Method::DELETE, "/api/v1/nodes/box", &[], "")
        .await
        .is_problem(409, "node-busy");
    let drain = server.post("/api/v1/nodes/box/drain", "").await;
    assert_eq!(drain.status.as_u16(), 202);
    assert!(drain.json()["drain"]["since"].is_string());
    // There is no other node, so the copy stays where it is until the workload goes.
    server
        .send(Method::DELETE, "/api/v1/workloads/web", &[], "")
        .await;
    server
        .until("/api/v1/nodes/box", |it| it["state"] == "drained")
        .await;
    assert_eq!(
        state(server.post("/api/v1/nodes/box/undrain", "").await),
        "ready"
    );
    let removed = server
        .send(Method::DELETE, "/api/v1/nodes/box", &[], "")
        .await;
    let (status, removed) = (removed.status.as_u16(), removed.json());
    assert_eq!(
        (status, &removed["state"], &removed["status"]),
        (200, &"gone".into(), &"offline".into())
    );
    let again = server
        .post(&format!("/api/v1/nodes/{}/cordon", node.id()), "")
        .await;
    again.is_problem(410, "node-gone");
    server.shut_down().await;
}

#[tokio::test]
async fn commands_are_issued_done_and_listed() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    let issued = server.post("/api/v1/nodes/box/cleanup", "").await;
    assert_eq!(
        (issued.status.as_u16(), &issued.json()["kind"]),
        (202, &"cleanup".into())
    );
    let accepted = server.post("/api/v1/nodes/box/accept", "").await;
    assert_eq!(accepted.json()["kind"], "accept-intent");
    let done = |list: &serde_json::Value| {
        let list = list.as_array().unwrap();
        list.len() == 2
            && list
                .iter()
                .all(|command| command["state"]["word"] == "done")
    };
    let list = server.until("/api/v1/nodes/box/commands", done).await;
    assert_eq!(list[0]["state"]["message"], "done");
    server.shut_down().await;
}

#[tokio::test]
async fn a_write_of_a_node_that_moved_on_changes_nothing() {
    let server = Server::start().await;
    let _node = server.node("box").await;
    let post = Method::POST;
    let path = "/api/v1/nodes/box";
    let mut tag = "\"1\"".to_owned();
    for (method, verb, state) in [
        (&post, "/cordon", "cordoned"),
        (&post, "/uncordon", "ready"),
        (&post, "/drain", "drain"),
        (&post, "/undrain", "ready"),
        (&Method::DELETE, "", "gone"),
    ] {
        let target = format!("{path}{verb}");
        let before = server.get(path).await;
        assert_eq!(before.header("etag"), tag, "{verb}");
        let stale = server
            .send(method.clone(), &target, &[("if-match", "\"77\"")], "")
            .await;
        stale.is_problem(412, "revision-conflict");
        let after = server.get(path).await;
        assert_eq!(
            (after.header("etag"), &after.json()["state"]),
            (tag.as_str(), &before.json()["state"]),
            "{verb}"
        );
        let done = server
            .send(method.clone(), &target, &[("if-match", &tag)], "")
            .await;
        let shown = done.json()["state"].as_str().unwrap().to_owned();
        assert!(shown.starts_with(state), "{verb}: {}", done.text);
        // A drain of an empty node is finished by its keeper, which counts the revision up, too.
        tag = if verb == "/drain" {
            server.until(path, |it| it["state"] == "drained").await;
            server.get(path).await.header("etag").to_owned()
        } else {
            done.header("etag").to_owned()
        };
    }
    server.shut_down().await;
}

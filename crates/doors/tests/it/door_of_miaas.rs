//! The door of MIaaS on a server with login: what of our own routes it opens, and the tokens of its nodes.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::BTreeSet;

use hostler_doors::{Auth, miaas};
use hostler_kit::SystemEntropy;
use hostler_model::{AccessRole, Contract};
use reqwest::Method;
use serde_json::{Value, json};

use crate::access::{Guarded, is_let_in, needed, routes};
use crate::door_tables::{MIAAS, Row, ask, bearer, opened, rows};
use crate::server::Answer;

use AccessRole::{Admin, Operator};

#[tokio::test]
async fn of_our_own_routes_only_those_of_miaas_are_opened_with_it() {
    for auth in [Auth::Token, Auth::Contract] {
        let every = [
            Contract::Miaas,
            Contract::Orchion,
            Contract::Persys,
            Contract::Spot,
        ];
        let doors = opened(&every.map(|contract| (contract, auth)));
        let guarded = Guarded::opening(doors, |_, _| {}).await;
        let mut askers = vec![(None, String::new())];
        for role in AccessRole::ALL {
            askers.push((Some(role), guarded.token(role).await));
        }
        let exceptions = rows(MIAAS);
        for (method, path, filled) in routes() {
            let is_meant = |row: &&Row| row.path == path && row.method == method;
            let exception = exceptions.iter().find(is_meant);
            // The seed's beats come without anything, as that contract has it.
            let is_open = auth == Auth::Contract && exception.is_some();
            for (role, token) in &askers {
                let mut request = guarded.server.request(method.clone(), &filled);
                if !token.is_empty() {
                    request = request.bearer_auth(token);
                }
                let is_beat = path.ends_with("/heartbeat");
                let body = if is_beat { "{\"cpu_usage\": 1}" } else { "" };
                let answer = ask(request.body(body)).await;
                let need = needed(&method, &path);
                let may = need.is_none() || *role >= need || is_open;
                // A role that is too small for a beat is refused before its body is read.
                let may = may && !(is_beat && role.is_some() && *role < need);
                assert_eq!(
                    is_let_in(answer.status),
                    may,
                    "{auth:?} {role:?} {method} {path}: {}",
                    answer.text
                );
            }
        }
        guarded.server.shut_down().await;
    }
}

/// A server that asks MIaaS's nodes for tokens, which are signed with keys of its own.
async fn miaas_server(dialect: miaas::Dialect) -> Guarded {
    let doors = opened(&[(Contract::Miaas, Auth::Token)]);
    Guarded::opening(doors, |parts, dir| {
        let path = dir.path().join("trust/miaas.key");
        parts.miaas.dialect = dialect;
        parts.miaas_keys = miaas::Keys::open(&path, parts.miaas.ttl, &SystemEntropy).unwrap();
    })
    .await
}

async fn send(guarded: &Guarded, token: &str, path: &str, body: Value) -> Answer {
    let shown = bearer(token);
    let headers = [
        ("authorization", shown.as_str()),
        ("content-type", "application/json"),
    ];
    let body = body.to_string();
    guarded
        .server
        .send(Method::POST, path, &headers, body)
        .await
}

async fn register(guarded: &Guarded, token: &str, name: &str) -> (String, String) {
    let capabilities = json!({"os": "linux", "cpu_count": 1, "mem_mb": 1});
    let body = json!({"name": name, "ip": "", "capabilities": capabilities});
    let answer = send(guarded, token, "/api/v1/nodes/register", body).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let answer = answer.json();
    let text = |key: &str| answer[key].as_str().unwrap().to_owned();
    assert!(text("control_plane_url").starts_with("https://"));
    (text("node_id"), text("node_token"))
}

async fn beat(guarded: &Guarded, token: &str, id: &str) -> Answer {
    let body = json!({
        "cpu_usage": 1.0, "mem_usage": 1.0, "disk_free_mb": 1, "running_containers": []
    });
    send(
        guarded,
        token,
        &format!("/api/v1/nodes/{id}/heartbeat"),
        body,
    )
    .await
}

#[tokio::test]
async fn a_node_beats_for_itself_with_its_own_token_over_every_rotation_of_keys() {
    for dialect in [miaas::Dialect::Seed, miaas::Dialect::Later] {
        let guarded = miaas_server(dialect).await;
        let (operator, admin) = (guarded.token(Operator).await, guarded.token(Admin).await);
        let (id, token) = register(&guarded, &operator, "box").await;
        let (_, others) = register(&guarded, &operator, "other").await;
        assert!(beat(&guarded, &token, &id).await.status.is_success());
        let refused = beat(&guarded, &others, &id).await;
        refused.is_problem(403, "forbidden");
        let path = format!("/api/v1/nodes/{id}/heartbeat");
        let bare = guarded.server.post(&path, "{}").await;
        bare.is_problem(401, "unauthenticated");
        // The token of a node is good for its beats and for nothing else.
        let listed = guarded.server.request(Method::GET, "/api/v1/nodes");
        let listed = ask(listed.bearer_auth(&token)).await;
        listed.is_problem(401, "unauthenticated");
        let path = "/api/v1/miaas/rotate-key";
        let refused = send(&guarded, &operator, path, json!({})).await;
        refused.is_problem(403, "forbidden");
        let mut keys = BTreeSet::new();
        for former in 1..=3 {
            let rotated = send(&guarded, &admin, path, json!({})).await.json();
            assert_eq!(rotated["former"], former);
            keys.insert(rotated["key"].as_str().unwrap().to_owned());
            assert!(beat(&guarded, &token, &id).await.status.is_success());
        }
        assert_eq!(keys.len(), 3);
        let (_, fresh) = register(&guarded, &operator, "box").await;
        assert!(beat(&guarded, &fresh, &id).await.status.is_success());
        // One that must not be believed any more is refused, and its node registers anew.
        let at_once = format!("{path}?at_once=true");
        let rotated = send(&guarded, &admin, &at_once, json!({})).await.json();
        assert_eq!(rotated["former"], 0);
        for worthless in [&token, &fresh] {
            let refused = beat(&guarded, worthless, &id).await;
            let problem = refused.is_problem(401, "unauthenticated");
            assert_eq!(problem["detail"], "Invalid or expired token");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
        }
        let (same, token) = register(&guarded, &operator, "box").await;
        assert_eq!(same, id);
        assert!(beat(&guarded, &token, &id).await.status.is_success());
        let kept = std::fs::read_to_string(guarded.dir.path().join("trust/miaas.key"));
        assert!(kept.unwrap().contains("secret"));
        guarded.server.shut_down().await;
    }
}

//! MIaaS's tokens: what the later dialect asks for, what the first one lets pass, and that neither depends on where
//! the server stands.

use std::process::Command;
use std::time::Duration;

use hostler_control::ControlConfig;
use hostler_doors::{Dialect, miaas};
use hostler_kit::{Clock as _, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Answer, Server, store};

const REGISTER: &str = "/api/v1/nodes/register";

async fn server(change: impl FnOnce(&mut miaas::Config)) -> Server {
    with_keys(miaas::Keys::public(), change).await
}

async fn with_keys(keys: miaas::Keys, change: impl FnOnce(&mut miaas::Config)) -> Server {
    Server::of(ControlConfig::default(), &store(), |mut parts| {
        parts.miaas.dialect = miaas::Dialect::Later;
        parts.miaas_keys = keys;
        change(&mut parts.miaas);
        parts.router(Dialect::Hostler)
    })
    .await
}

/// The node's id and token.
async fn register(server: &Server, name: &str) -> (String, String) {
    let body = json!({"name": name, "ip": "", "capabilities": {"os": "linux", "cpu_count": 1, "mem_mb": 1}});
    let answer = server.post(REGISTER, &body.to_string()).await.json();
    let text = |key: &str| answer[key].as_str().expect("text").to_owned();
    (text("node_id"), text("node_token"))
}

async fn beat(server: &Server, id: &str, authorization: &str, body: &str) -> Answer {
    let path = format!("/api/v1/nodes/{id}/heartbeat");
    let headers = [("authorization", authorization)];
    let headers = if authorization.is_empty() {
        &headers[1..]
    } else {
        &headers
    };
    server
        .send(Method::POST, &path, headers, body.to_owned())
        .await
}

#[tokio::test]
async fn what_is_wrong_with_a_beat_is_told_in_the_order_of_the_contract() {
    let server = server(|_| {}).await;
    let (id, token) = register(&server, "box").await;
    let (other, others_token) = register(&server, "other").await;
    let nobody = "0199c0de-0000-7000-8000-000000000001";
    let ours = format!("Bearer {token}");
    let theirs = format!("Bearer {others_token}");
    for (node, authorization, body, status, sentence) in [
        (id.as_str(), "", "{", 422, ""),
        (&id, "Bearer x", "{", 422, ""),
        (&id, "", "{}", 401, "Missing authentication token"),
        (&id, "", "[]", 401, "Missing authentication token"),
        (&id, "Basic eDp5", "{}", 401, "Missing authentication token"),
        (&id, "Bearer x", "[]", 401, "Invalid or expired token"),
        (&other, &ours, "[]", 422, ""),
        (&other, &ours, "", 422, ""),
        (
            &other,
            &ours,
            "{}",
            403,
            "Cannot send heartbeat for a different node",
        ),
        (
            nobody,
            &ours,
            "{}",
            403,
            "Cannot send heartbeat for a different node",
        ),
        (
            &id,
            &theirs,
            "{}",
            403,
            "Cannot send heartbeat for a different node",
        ),
        (&id, &ours, "{}", 200, ""),
        (&id, &format!("bEARER {token}"), "{}", 200, ""),
    ] {
        let answer = beat(&server, node, authorization, body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{authorization} {body}: {}",
            answer.text
        );
        if !sentence.is_empty() {
            assert_eq!(answer.json()["detail"], sentence);
        }
        let challenge = if status == 401 { "Bearer" } else { "" };
        assert_eq!(answer.header("www-authenticate"), challenge);
    }
    server
        .send(Method::DELETE, &format!("/api/v1/nodes/{id}"), &[], "")
        .await;
    let gone = beat(&server, &id, &ours, "{}").await;
    assert_eq!(
        gone.is_problem(404, "node-not-found")["detail"],
        "Node not found"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_refused_beat_changes_nothing() {
    let server = server(|_| {}).await;
    let (id, _) = register(&server, "box").await;
    let figures = json!({"cpu_usage": 1.0}).to_string();
    beat(&server, &id, "Bearer x", &figures).await;
    let node = server.get(&format!("/api/v1/nodes/{id}")).await.json();
    assert!(node.get("metrics").is_none(), "{node}");
    server.shut_down().await;
}

#[tokio::test]
async fn a_token_expires_and_a_new_registration_brings_a_fresh_one() {
    let expired = server(|config| config.ttl = Duration::ZERO).await;
    let (id, token) = register(&expired, "box").await;
    let answer = beat(&expired, &id, &format!("Bearer {token}"), "{}").await;
    assert_eq!(
        answer.is_problem(401, "unauthenticated")["detail"],
        "Invalid or expired token"
    );
    expired.shut_down().await;
    let server = server(|_| {}).await;
    let (id, first) = register(&server, "box").await;
    let (again, second) = register(&server, "box").await;
    assert_eq!(id, again, "the same name is the same node");
    for token in [first, second] {
        assert_eq!(
            beat(&server, &id, &format!("Bearer {token}"), "{}")
                .await
                .status
                .as_u16(),
            200
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn another_secret_makes_another_token() {
    let ours = with_keys(miaas::Keys::given("ours", None), |_| {}).await;
    let theirs = with_keys(miaas::Keys::given("theirs", None), |_| {}).await;
    let (id, _) = register(&ours, "box").await;
    let (_, token) = register(&theirs, "box").await;
    let answer = beat(&ours, &id, &format!("Bearer {token}"), "{}").await;
    assert_eq!(answer.status.as_u16(), 401);
    ours.shut_down().await;
    theirs.shut_down().await;
}

#[tokio::test]
async fn the_first_dialect_reads_no_authorization_and_its_token_is_one_all_the_same() {
    let server = server(|config| config.dialect = miaas::Dialect::Seed).await;
    let (id, token) = register(&server, "box").await;
    assert_eq!(claims(&token)["node_id"], id);
    for authorization in [
        "",
        "Bearer x",
        "Basic eDp5",
        "nonsense",
        &format!("Bearer {token}"),
    ] {
        let answer = beat(&server, &id, authorization, "{}").await;
        assert_eq!(answer.status.as_u16(), 200, "{authorization}");
    }
    let head = server.send(Method::HEAD, "/health", &[], "").await;
    assert_eq!(head.status.as_u16(), 200);
    server.shut_down().await;
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).expect("three parts");
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part);
    serde_json::from_slice(&text.expect("base64")).expect("JSON")
}

/// MIaaS's own tokens are hours off west and east of Greenwich. The test runs itself in other time zones.
#[test]
fn a_token_is_good_at_once_in_every_time_zone() {
    const ZONE: &str = "HOSTLER_TEST_IN_ZONE";
    const NAME: &str = "miaas_later::a_token_is_good_at_once_in_every_time_zone";
    if std::env::var_os(ZONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        return runtime.expect("a runtime").block_on(a_token_is_good());
    }
    for zone in ["America/New_York", "Asia/Kolkata", "UTC"] {
        let itself = std::env::current_exe().expect("this program");
        let mut child = Command::new(itself);
        child
            .args(["--exact", NAME])
            .env("TZ", zone)
            .env(ZONE, zone);
        let output = child.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{zone}: {said}"
        );
    }
}

async fn a_token_is_good() {
    let server = server(|_| {}).await;
    let seconds = || SystemClock::new().wall_millis() / 1000;
    let before = seconds();
    let (id, token) = register(&server, "box").await;
    let claims = claims(&token);
    let iat = claims["iat"].as_u64().expect("a number");
    assert!((before..=seconds()).contains(&iat), "{claims}");
    assert_eq!(claims["exp"].as_u64(), Some(iat + 24 * 3600));
    assert_eq!(
        (&claims["node_name"], &claims["type"]),
        (&"box".into(), &"node_agent".into())
    );
    assert_eq!(
        beat(&server, &id, &format!("Bearer {token}"), "{}")
            .await
            .status
            .as_u16(),
        200
    );
    server.shut_down().await;
}

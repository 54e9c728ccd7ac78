//! The dashboard's and the administrators' routes.

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::DEADLINE;
use crate::spot::{Spot, create, is_error};

#[tokio::test]
async fn settings_are_set_as_either_route_names_them() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let settings = json!({"auto_switch_enabled": false, "auto_terminate_enabled": false, "replica_enabled": true, "replica_count": 1});
    let answer = spot
        .post(&format!("/api/client/agents/{id}/settings"), &settings)
        .await;
    assert_eq!(answer.json(), json!({"success": true}));
    let config = Spot::ok(&spot.get(&format!("/api/agents/{id}/config")).await);
    for (key, value) in settings.as_object().expect("an object") {
        assert_eq!(&config[key], value, "{key}");
    }
    let answer = Spot::ok(
        &spot
            .configure(
                &id,
                &json!({"manualReplicaEnabled": true, "terminate_wait_minutes": 10}),
            )
            .await,
    );
    assert_eq!(
        (
            &answer["auto_switch_enabled"],
            &answer["manual_replica_enabled"]
        ),
        (&json!(false), &json!(true))
    );
    let row = spot.agents().await[0].clone();
    assert_eq!(
        (&row["terminateWaitMinutes"], &row["manualReplicaEnabled"]),
        (&json!(10), &json!(true))
    );
    Spot::ok(
        &spot
            .configure(&id, &json!({"terminateWaitMinutes": 0}))
            .await,
    );
    assert_eq!(
        spot.agents().await[0]["terminateWaitMinutes"],
        30,
        "nothing is known of it"
    );
    let config = Spot::ok(&spot.get(&format!("/api/agents/{id}/config")).await);
    assert_eq!(config["terminate_wait_seconds"], 0);
    for path in ["config", "settings", "toggle-enabled"] {
        let unknown = format!("/api/client/agents/nobody/{path}");
        is_error(
            &spot.post(&unknown, &json!({"enabled": true})).await,
            404,
            "Agent not found",
        );
    }
    spot.server.shut_down().await;
}

#[tokio::test]
async fn words_of_the_paths_are_never_clients() {
    let spot = Spot::start().await;
    for word in ["agents", "instances"] {
        let named = spot.server.get(&format!("/api/client/{word}")).await;
        is_error(&named, 404, "Client not found");
    }
    let history = spot.server.get("/api/client/pricing-history").await;
    is_error(&history, 400, "Missing agent_id");
    is_error(
        &spot.server.get("/api/client/validate").await,
        401,
        "Missing client token",
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn accounts_are_opened_shown_and_closed() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let taken = spot
        .server
        .post("/api/admin/clients/create", r#"{"name":"acme"}"#)
        .await;
    assert_eq!(taken.status.as_u16(), 409);
    assert_eq!(
        spot.server
            .post("/api/admin/clients/create", "{}")
            .await
            .status
            .as_u16(),
        400
    );
    let (other, _) = create(&spot.server, "other").await;
    let token = Spot::ok(
        &spot
            .server
            .get(&format!("/api/admin/clients/{}/token", spot.client))
            .await,
    );
    assert_eq!(
        (&token["token"], &token["client_name"]),
        (&json!(spot.token), &json!("acme"))
    );
    let clients = spot.list("/api/admin/clients").await;
    assert_eq!(
        (
            clients.len(),
            &clients[0]["agentsOnline"],
            &clients[0]["status"]
        ),
        (2, &json!(1), &json!("active"))
    );
    let stats = Spot::ok(&spot.server.get("/api/admin/stats").await);
    assert_eq!(
        (&stats["totalAccounts"], &stats["agentsOnline"]),
        (&json!(2), &json!(1))
    );
    let growth = spot.list("/api/admin/clients/growth?days=3").await;
    assert_eq!(
        (growth.len(), &growth[2]["total"], &growth[2]["new"]),
        (3, &json!(2), &json!(2))
    );
    let agents = Spot::ok(&spot.server.get("/api/admin/agents?status=online").await);
    assert_eq!(
        (&agents["total"], &agents["agents"][0]["clientName"]),
        (&json!(1), &json!("acme"))
    );
    let machines = Spot::ok(&spot.server.get("/api/admin/instances?mode=spot").await);
    assert_eq!(machines["instances"][0]["id"], "i-1");
    let found = Spot::ok(&spot.server.get("/api/admin/search?q=I-1").await);
    assert_eq!(found["instances"][0]["agentId"], id.as_str());
    assert_eq!(
        spot.server.get("/api/admin/search").await.status.as_u16(),
        400
    );
    let health = Spot::ok(&spot.server.get("/api/admin/system-health").await);
    assert_eq!(
        (&health["apiStatus"], &health["database"]),
        (&json!("Healthy"), &json!("connected"))
    );
    assert_eq!(
        Spot::ok(&spot.server.get("/api/admin/agents/health-summary").await)["online"],
        1
    );
    assert!(!spot.list("/api/admin/activity").await.is_empty());
    let figures = spot.server.get("/api/admin/export/global-stats").await;
    assert!(figures.text.contains("totalAccounts,2\r\n"));
    let gone = spot
        .server
        .send(
            Method::DELETE,
            &format!("/api/admin/clients/{}", spot.client),
            &[],
            "",
        )
        .await;
    assert_eq!(Spot::ok(&gone)["success"], true);
    is_error(
        &spot.get(&format!("/api/agents/{id}/config")).await,
        401,
        "Invalid client token",
    );
    is_error(
        &spot
            .server
            .get(&format!("/api/client/{}", spot.client))
            .await,
        404,
        "Client not found",
    );
    is_error(
        &spot.server.get("/api/client/nobody/agents").await,
        404,
        "Client not found",
    );
    assert_eq!(
        spot.list("/api/admin/clients").await[0]["id"],
        other.as_str()
    );
    let node = spot.server.get(&format!("/api/v1/nodes/{id}")).await.json();
    assert_eq!(node["state"], "gone");
    spot.server.shut_down().await;
}

#[tokio::test]
async fn the_history_is_ordered_and_the_list_begins_with_the_last_heard() {
    let spot = Spot::start().await;
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(
            spot.register(&format!("agent-a-{number}"), &format!("i-{number}"))
                .await,
        );
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    spot.post(
        &format!("/api/agents/{}/heartbeat", ids[0]),
        &json!({"status": "online"}),
    )
    .await;
    // Two beats of one millisecond would tie.
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    spot.post(
        &format!("/api/agents/{}/heartbeat", ids[1]),
        &json!({"status": "error"}),
    )
    .await;
    spot.post(
        &format!("/api/agents/{}/heartbeat", ids[2]),
        &json!({"status": "offline"}),
    )
    .await;
    spot.server
        .send(
            Method::DELETE,
            &format!("/api/client/agents/{}", ids[3]),
            &[],
            "",
        )
        .await;
    let rows = spot.agents().await;
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["id"], ids[1].as_str());
    let history = spot
        .list(&format!("/api/client/{}/agents/history", spot.client))
        .await;
    let order: Vec<&Value> = history.iter().map(|row| &row["status"]).collect();
    assert_eq!(order, ["online", "offline", "deleted", "error"]);
    let lately = spot
        .list(&format!("/api/client/{}/agents/decisions", spot.client))
        .await;
    assert_eq!(
        (lately.len(), &lately[0]["decisionHistory"]),
        (3, &json!([]))
    );
    let all = spot.list("/api/agents").await;
    assert_eq!(all.len(), 3);
    assert_eq!(
        Spot::ok(&spot.server.get(&format!("/api/agents/{}", ids[0])).await)["status"],
        "online"
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn notifications_are_read_once_and_by_their_own_client() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    spot.post(&format!("/api/agents/{id}/termination"), &json!({}))
        .await;
    let path = format!("/api/notifications?client_id={}&limit=50", spot.client);
    let notices = spot.list(&path).await;
    assert!(
        notices.len() >= 2 && notices.iter().all(|it| it["isRead"] == false),
        "{notices:?}"
    );
    let newest = notices[0]["id"].as_str().expect("an id").to_owned();
    Spot::ok(
        &spot
            .server
            .post(&format!("/api/notifications/{newest}/mark-read"), "")
            .await,
    );
    let notices = spot.list(&path).await;
    assert_eq!(
        (&notices[0]["isRead"], &notices[1]["isRead"]),
        (&json!(true), &json!(false))
    );
    Spot::ok(
        &spot
            .server
            .post(
                "/api/notifications/mark-all-read",
                &json!({"client_id": spot.client}).to_string(),
            )
            .await,
    );
    assert!(spot.list(&path).await.iter().all(|it| it["isRead"] == true));
    let (other, _) = create(&spot.server, "other").await;
    assert!(
        spot.list(&format!("/api/notifications?client_id={other}"))
            .await
            .is_empty()
    );
    assert_eq!(
        spot.server
            .post("/api/notifications/x/mark-read", "")
            .await
            .status
            .as_u16(),
        404
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn no_engine_is_taken_and_it_says_so() {
    let spot = Spot::start().await;
    let upload = spot.server.post("/api/admin/ml-models/upload", "x").await;
    assert_eq!(upload.status.as_u16(), 500);
    assert!(upload.json()["error"].is_string());
    assert_eq!(
        spot.server
            .post("/api/admin/ml-models/fallback", "")
            .await
            .status
            .as_u16(),
        404
    );
    assert_eq!(spot.list("/api/admin/ml-models/sessions").await.len(), 0);
    spot.server.shut_down().await;
}

#[tokio::test]
async fn any_page_may_ask_and_none_with_credentials() {
    let spot = Spot::start().await;
    let page = [
        ("origin", "http://dashboard.example"),
        ("access-control-request-method", "DELETE"),
        ("access-control-request-headers", "authorization"),
    ];
    let asked = spot
        .server
        .send(Method::OPTIONS, "/api/client/agents/x", &page, "")
        .await;
    assert_eq!(asked.status.as_u16(), 200);
    assert_eq!(asked.header("access-control-allow-origin"), "*");
    assert_eq!(
        asked.header("access-control-allow-headers"),
        "authorization"
    );
    let list = spot
        .server
        .send(Method::GET, "/api/agents", &page[..1], "")
        .await;
    assert_eq!(list.header("access-control-allow-origin"), "*");
    assert!(
        list.headers
            .get("access-control-allow-credentials")
            .is_none()
    );
    let method = spot
        .server
        .send(Method::PATCH, "/api/agents", &[], "")
        .await;
    assert_eq!(
        (method.status.as_u16(), method.json()["error"].is_string()),
        (405, true)
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn a_stream_tells_what_happens_to_a_clients_agents() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let path = format!("/api/events/stream/{}", spot.client);
    let answer = spot
        .server
        .request(Method::GET, &path)
        .send()
        .await
        .expect("a stream");
    let mut stream = answer.bytes_stream();
    let mut text = String::new();
    let mut read_until = async |word: &str| {
        while !text.contains(word) {
            let next = tokio::time::timeout(DEADLINE, stream.next()).await;
            let bytes = next.expect("in time").expect("it goes on").expect("bytes");
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        text.clone()
    };
    read_until("event: CONNECTED").await;
    let (_, stranger) = create(&spot.server, "other").await;
    let bearer = format!("Bearer {stranger}");
    let others = crate::spot::registration("agent-b-1", "i-9").to_string();
    spot.server
        .send(
            Method::POST,
            "/api/agents/register",
            &[("authorization", bearer.as_str())],
            others,
        )
        .await;
    spot.post(
        &format!("/api/agents/{id}/heartbeat"),
        &json!({"instance_id": "i-2"}),
    )
    .await;
    let text = read_until("event: INSTANCE_RUNNING").await;
    assert!(text.contains(&id) && text.contains("\"timestamp\""));
    assert_eq!(
        text.matches("event: ").count(),
        2,
        "nothing of other clients: {text}"
    );
    drop(stream);
    spot.server.shut_down().await;
}

//! Replicas and emergencies: the book of machines that stand by.

use reqwest::Method;
use serde_json::{Value, json};

use crate::spot::{Spot, is_error, prices};

/// An agent with two reported pools and replicas by hand.
async fn ready() -> (Spot, String) {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let report = prices(&[("ap-south-1b", 0.02), ("ap-south-1c", 0.01)]);
    Spot::ok(
        &spot
            .post(&format!("/api/agents/{id}/pricing-report"), &report)
            .await,
    );
    Spot::ok(
        &spot
            .configure(&id, &json!({"manualReplicaEnabled": true}))
            .await,
    );
    (spot, id)
}

async fn create(spot: &Spot, agent: &str) -> String {
    let pool = json!({"pool_id": "t3.medium.ap-south-1b", "tags": {"a": 1}, "created_by": "ada"});
    let answer = spot
        .server
        .post(&format!("/api/agents/{agent}/replicas"), &pool.to_string())
        .await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
    let made = answer.json();
    assert_eq!(
        (&made["status"], &made["hourly_cost"]),
        (&json!("launching"), &json!(0.02))
    );
    assert!(
        made["instance_id"]
            .as_str()
            .expect("an id")
            .starts_with("replica-")
    );
    made["replica_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_replica_is_ordered_told_synchronised_and_promoted() {
    let (spot, id) = ready().await;
    let replica = create(&spot, &id).await;
    let path = format!("/api/agents/{id}/replicas/{replica}");
    let rows = Spot::ok(&spot.server.get(&format!("/api/agents/{id}/replicas")).await);
    let row = &rows["replicas"][0];
    assert_eq!(
        (&rows["total"], &row["id"], &row["status"]),
        (&json!(1), &json!(replica), &json!("launching"))
    );
    assert_eq!(
        (&row["pool_id"], &row["az"]),
        (&json!("t3.medium.ap-south-1b"), &json!("ap-south-1b")),
        "flat"
    );
    assert_eq!(
        row["pool"],
        json!({"id": "t3.medium.ap-south-1b", "name": "t3.medium (ap-south-1b)",
        "instance_type": "t3.medium", "region": "ap-south-1", "az": "ap-south-1b"}),
        "and nested"
    );
    assert_eq!(
        (&row["tags"], &row["created_by"], &row["is_active"]),
        (&json!({"a": 1}), &json!("ada"), &json!(true))
    );
    let early = spot.server.post(&format!("{path}/promote"), "").await;
    assert_eq!(
        (early.status.as_u16(), &early.json()["current_status"]),
        (400, &json!("launching"))
    );
    assert_eq!(
        spot.server
            .send(Method::PUT, &path, &[], "{}")
            .await
            .status
            .as_u16(),
        400
    );
    let told = spot
        .server
        .send(Method::PUT, &path, &[], r#"{"instance_id":"i-7"}"#)
        .await;
    assert_eq!(Spot::ok(&told)["status"], "syncing");
    let sync = |progress: f64| {
        json!({"sync_status": if progress < 100.0 { "syncing" } else { "synced" },
        "sync_latency_ms": 12.5, "state_transfer_progress": progress})
        .to_string()
    };
    let beat = format!("{path}/sync-status");
    Spot::ok(&spot.server.post(&beat, &sync(10.0)).await);
    Spot::ok(
        &spot
            .server
            .post(&beat, r#"{"state_transfer_progress":"15"}"#)
            .await,
    );
    let told = spot.server.control.sync_of(replica.parse().expect("an id"));
    let told = told.expect("heard");
    assert_eq!(
        (told.progress, told.latency_ms),
        (15.0, 12.5),
        "what is left out stays"
    );
    let before = spot.server.control.store_revision();
    for progress in [20.0, 30.0, 99.0] {
        Spot::ok(&spot.server.post(&beat, &sync(progress)).await);
    }
    assert_eq!(
        spot.server.control.store_revision(),
        before,
        "what comes every second is no commit"
    );
    let row = Spot::ok(&spot.server.get(&format!("/api/agents/{id}/replicas")).await)["replicas"]
        [0]
    .clone();
    assert_eq!(
        (&row["state_transfer_progress"], &row["sync_latency_ms"]),
        (&json!(99.0), &json!(12.5))
    );
    Spot::ok(&spot.server.post(&beat, &sync(100.0)).await);
    let row = Spot::ok(
        &spot
            .server
            .get(&format!("/api/agents/{id}/replicas?status=ready"))
            .await,
    )["replicas"][0]
        .clone();
    assert_eq!(
        (&row["status"], &row["sync_status"]),
        (&json!("ready"), &json!("synced"))
    );
    assert!(row["ready_at"].is_string());
    let shown = spot
        .list(&format!("/api/client/{}/replicas", spot.client))
        .await;
    assert_eq!(
        (
            &shown[0]["primary"]["instanceId"],
            &shown[0]["replica"]["instanceId"]
        ),
        (&json!("i-1"), &json!("i-7"))
    );
    let promoted = Spot::ok(&spot.server.post(&format!("{path}/promote"), "{}").await);
    assert_eq!(
        (&promoted["new_instance_id"], &promoted["old_instance_id"]),
        (&json!("i-7"), &json!("i-1"))
    );
    let agent = spot.agents().await[0].clone();
    assert_eq!(
        (&agent["id"], &agent["instanceId"]),
        (&json!(id), &json!("i-7"))
    );
    let twice = spot.server.post(&format!("{path}/promote"), "").await;
    assert_eq!(
        (twice.status.as_u16(), &twice.json()["current_status"]),
        (400, &json!("promoted"))
    );
    assert_eq!(twice.json()["required_status"], json!(["ready", "syncing"]));
    // Its agent goes on telling every second until it hears of it.
    let before = spot.server.control.store_revision();
    Spot::ok(&spot.server.post(&beat, &sync(100.0)).await);
    assert_eq!(spot.server.control.store_revision(), before);
    let none = spot.server.post(&beat, r#"{"sync_status":"x"}"#).await;
    assert_eq!(none.status.as_u16(), 400);
    assert_eq!(
        spot.server
            .send(Method::DELETE, &path, &[], "")
            .await
            .status
            .as_u16(),
        400
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_as_listed() {
    let (spot, id) = ready().await;
    let path = format!("/api/agents/{id}/replicas");
    for (body, status) in [
        (json!({}), 400),
        (json!({"pool_id": "t3.medium.nowhere"}), 404),
        (
            json!({"pool_id": "t3.medium.ap-south-1b", "max_hourly_cost": 0.001}),
            400,
        ),
        (
            json!({"pool_id": "t3.medium.ap-south-1b", "exclude_zones": ["ap-south-1b"]}),
            400,
        ),
    ] {
        assert_eq!(
            spot.post(&path, &body).await.status.as_u16(),
            status,
            "{body}"
        );
    }
    let replica = create(&spot, &id).await;
    let second = spot
        .post(&path, &json!({"pool_id": "t3.medium.ap-south-1c"}))
        .await;
    assert_eq!(second.status.as_u16(), 400, "one at a time");
    for rest in ["status", "sync-status", "promote"] {
        let unknown = format!("{path}/0199c0de-0000-7000-8000-000000000001/{rest}");
        is_error(
            &spot.post(&unknown, &json!({"status": "ready"})).await,
            404,
            "Replica not found",
        );
    }
    for body in [
        json!({}),
        json!({"status": "promoted"}),
        json!({"status": "x"}),
    ] {
        assert_eq!(
            spot.post(&format!("{path}/{replica}/status"), &body)
                .await
                .status
                .as_u16(),
            400,
            "{body}"
        );
    }
    let failed = json!({"status": "failed", "error_message": "no capacity"});
    Spot::ok(
        &spot
            .post(&format!("{path}/{replica}/status"), &failed)
            .await,
    );
    assert_eq!(Spot::ok(&spot.get(&path).await)["total"], 0);
    let all = Spot::ok(&spot.get(&format!("{path}?include_terminated=true")).await);
    assert_eq!(all["replicas"][0]["error_message"], "no capacity");
    Spot::ok(
        &spot
            .configure(&id, &json!({"autoSwitchEnabled": true}))
            .await,
    );
    is_error(
        &spot
            .post(&path, &json!({"pool_id": "t3.medium.ap-south-1b"}))
            .await,
        400,
        "Manual replica mode is not enabled",
    );
    let both = json!({"autoSwitchEnabled": true, "manualReplicaEnabled": true});
    assert_eq!(spot.configure(&id, &both).await.status.as_u16(), 400);
    spot.post(
        &format!("/api/agents/{id}/heartbeat"),
        &json!({"status": "offline"}),
    )
    .await;
    assert_eq!(
        spot.post(&path, &json!({"pool_id": "t3.medium.ap-south-1b"}))
            .await
            .status
            .as_u16(),
        404
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn an_emergency_takes_the_replica_that_is_there_and_says_if_there_is_none() {
    let (spot, id) = ready().await;
    let imminent = format!("/api/agents/{id}/termination-imminent");
    let notice = json!({"instance_id": "i-1", "termination_time": "2025-01-01T00:02:00Z"});
    let none = spot.post(&imminent, &notice).await;
    assert_eq!(none.status.as_u16(), 500);
    assert_eq!(
        (&none.json()["success"], &none.json()["action"]),
        (&json!(false), &json!("emergency_snapshot_required"))
    );
    let emergency = format!("/api/agents/{id}/create-emergency-replica");
    let order = json!({"signal_type": "termination-notice", "instance_id": "i-1", "pool_id": "t3.medium.ap-south-1c"});
    assert_eq!(
        spot.post(&emergency, &order).await.status.as_u16(),
        403,
        "switching by itself is off"
    );
    Spot::ok(
        &spot
            .configure(&id, &json!({"autoSwitchEnabled": true}))
            .await,
    );
    assert_eq!(
        spot.post(&emergency, &json!({"signal_type": "x"}))
            .await
            .status
            .as_u16(),
        400
    );
    let nowhere = spot
        .post(&emergency, &json!({"signal_type": "termination-notice"}))
        .await;
    assert_eq!(
        nowhere.status.as_u16(),
        500,
        "which pool is not chosen here"
    );
    let made = spot.post(&emergency, &order).await;
    assert_eq!(
        (made.status.as_u16(), &made.json()["urgency"]),
        (201, &json!("critical"))
    );
    let replica = made.json()["replica_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    spot.send(
        Method::PUT,
        &format!("/api/agents/{id}/replicas/{replica}"),
        &json!({"instance_id": "i-8"}),
    )
    .await;
    let source = async |zone: &str, machine: &str| {
        let mut report = prices(&[(zone, 0.03)]);
        report["instance"]["instance_id"] = machine.into();
        let path = format!("/api/agents/{id}/pricing-report");
        Spot::ok(&spot.post(&path, &report).await);
        let pool = hostler_model::PoolId::of("t3.medium", zone).expect("a pool");
        let view = spot.server.control.view();
        view.quotes(&pool).next().expect("a price").source
    };
    assert_eq!(
        source("ap-south-1d", "i-8").await,
        hostler_model::QuoteSource::ReplicaAutomatic
    );
    assert_eq!(
        source("ap-south-1e", "i-1").await,
        hostler_model::QuoteSource::Primary
    );
    let saved = Spot::ok(&spot.post(&imminent, &notice).await);
    assert_eq!(
        (&saved["new_instance_id"], &saved["action"]),
        (&json!("i-8"), &json!("replica_promoted"))
    );
    assert!(saved["failover_time_ms"].is_u64());
    let again = Spot::ok(&spot.post(&imminent, &notice).await);
    assert_eq!(
        (&again["new_instance_id"], &again["replica_id"]),
        (&json!("i-8"), &json!(replica)),
        "told again, it is the same"
    );
    assert_eq!(spot.agents().await[0]["instanceId"], "i-8");
    let risk = Spot::ok(
        &spot
            .post(
                &format!("/api/agents/{id}/rebalance-recommendation"),
                &json!({"instance_id": "i-8"}),
            )
            .await,
    );
    assert_eq!(risk["action"], "monitor");
    assert!(risk["risk_score"].as_f64().expect("a number") > 0.0);
    let config = Spot::ok(&spot.get(&format!("/api/agents/{id}/replica-config")).await);
    assert_eq!(config, json!({"enabled": false, "count": 0}));
    let notices = spot
        .list(&format!("/api/notifications?client_id={}", spot.client))
        .await;
    assert!(notices.iter().any(|it: &Value| it["severity"] == "warning"));
    spot.server.shut_down().await;
}

#[tokio::test]
async fn a_token_that_nobody_asked_for_must_be_the_owners_all_the_same() {
    let (spot, id) = ready().await;
    let replica = create(&spot, &id).await;
    let (_, stranger) = crate::spot::create(&spot.server, "other").await;
    let path = format!("/api/agents/{id}/replicas/{replica}/sync-status");
    let body = r#"{"sync_status":"synced","state_transfer_progress":100}"#;
    for (token, status) in [
        (format!("Bearer {stranger}"), 404),
        ("Bearer wrong".to_owned(), 401),
        (format!("Bearer {}", spot.token), 200),
        (String::new(), 200),
    ] {
        let headers = [("authorization", token.as_str())];
        let answer = spot.server.send(Method::POST, &path, &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        let is_ready = Spot::ok(&spot.server.get(&format!("/api/agents/{id}/replicas")).await);
        assert_eq!(is_ready["replicas"][0]["status"] == "ready", status == 200);
    }
    spot.server.shut_down().await;
}

//! What agents report, and what is made of it.

use serde_json::{Value, json};

use crate::spot::{Spot, is_error, prices};

fn switch(prices: &str, stamps: [&str; 4]) -> Value {
    let end = |id: &str, mode: &str| {
        json!({"instance_id": id, "instance_type": "t3.medium", "region": "ap-south-1",
            "az": "ap-south-1a", "mode": mode, "pool_id": null, "ami_id": "ami-1"})
    };
    let [begun, launched, ready, ended] = stamps;
    json!({
        "old_instance": end("i-1", "ondemand"),
        "new_instance": end("i-2", "spot"),
        "timing": {begun: "2025-01-01T00:00:00", launched: "2025-01-01T00:01:00Z",
            ready: "2025-01-01T00:02:00+00:00", ended: "2025-01-01T00:01:30"},
        prices: {"on_demand": 0.0448, "new_spot": 0.0134},
        "trigger": "manual",
    })
}

#[tokio::test]
async fn both_spellings_of_a_switch_report_come_to_the_same() {
    let a = [
        "initiated_at",
        "instance_launched_at",
        "instance_ready_at",
        "old_terminated_at",
    ];
    let b = [
        "switch_initiated_at",
        "new_instance_launched_at",
        "new_instance_ready_at",
        "old_instance_terminated_at",
    ];
    for (spelling, stamps) in [("pricing", a), ("prices", b)] {
        let spot = Spot::start().await;
        let id = spot.register("agent-a-1", "i-1").await;
        let path = format!("/api/agents/{id}/switch-report");
        for _ in 0..2 {
            let answer = spot.post(&path, &switch(spelling, stamps)).await;
            assert_eq!(answer.json(), json!({"success": true}));
        }
        let history = spot
            .list(&format!("/api/client/{}/switch-history", spot.client))
            .await;
        assert_eq!(history.len(), 1, "told twice is once");
        let row = &history[0];
        assert_eq!(
            (&row["oldInstanceId"], &row["newInstanceId"]),
            (&json!("i-1"), &json!("i-2"))
        );
        assert_eq!(
            (&row["fromMode"], &row["toMode"]),
            (&json!("ondemand"), &json!("spot"))
        );
        assert_eq!(
            (&row["fromPool"], &row["toPool"]),
            (&json!("n/a"), &json!("t3.medium.ap-south-1a"))
        );
        assert_eq!(
            (&row["savingsImpact"], &row["price"]),
            (&json!(0.0314), &json!(0.0134))
        );
        assert_eq!(
            (&row["downtimeSeconds"], &row["totalDurationSeconds"]),
            (&json!(30), &json!(120))
        );
        let agent = spot.agents().await[0].clone();
        assert_eq!(
            (&agent["id"], &agent["instanceId"], &agent["currentMode"]),
            (&json!(id), &json!("i-2"), &json!("spot"))
        );
        let client = Spot::ok(
            &spot
                .server
                .get(&format!("/api/client/{}", spot.client))
                .await,
        );
        assert_eq!(client["totalSavings"], 0.7536);
        let savings = spot
            .list(&format!(
                "/api/client/{}/savings?range=monthly",
                spot.client
            ))
            .await;
        assert_eq!(savings[0]["savings"], 0.7536);
        let old = spot
            .list(&format!(
                "/api/client/{}/instances?status=terminated",
                spot.client
            ))
            .await;
        assert_eq!(
            (&old[0]["id"], &old[0]["instanceStatus"]),
            (&json!("i-1"), &json!("terminated"))
        );
        let none = spot
            .list(&format!(
                "/api/client/{}/switch-history?instance_id=i-7",
                spot.client
            ))
            .await;
        assert!(none.is_empty());
        let csv = spot
            .server
            .get(&format!("/api/client/{}/export/savings", spot.client))
            .await;
        assert!(csv.text.starts_with(
            "Year,Month,Month Name,On-Demand Cost ($),Actual Cost ($),Savings ($)\r\n"
        ));
        assert!(csv.header("content-disposition").starts_with("attachment"));
        assert!(
            csv.text
                .lines()
                .nth(1)
                .expect("a month")
                .ends_with(",0.7536")
        );
        spot.server.shut_down().await;
    }
}

#[tokio::test]
async fn a_machine_that_nobody_ended_is_handed_out_to_be_ended_once_in_a_while() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let list = format!("/api/agents/{id}/instances-to-terminate");
    let mut report = switch("pricing", ["a", "b", "c", "d"]);
    report["timing"] = json!({});
    spot.post(&format!("/api/agents/{id}/switch-report"), &report)
        .await;
    let answer = Spot::ok(&spot.get(&list).await);
    assert_eq!(
        (&answer["instances"], &answer["terminate_wait_seconds"]),
        (&json!([]), &json!(300))
    );
    // Nobody waits in a test: a replica's machine is handed out at once.
    spot.post(
        &format!("/api/agents/{id}/pricing-report"),
        &prices(&[("ap-south-1b", 0.01)]),
    )
    .await;
    spot.configure(&id, &json!({"manualReplicaEnabled": true}))
        .await;
    let made = spot
        .post(
            &format!("/api/agents/{id}/replicas"),
            &json!({"pool_id": "t3.medium.ap-south-1b"}),
        )
        .await;
    let replica = Spot::ok(&made)["replica_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/api/agents/{id}/replicas/{replica}");
    spot.send(reqwest::Method::PUT, &path, &json!({"instance_id": "i-7"}))
        .await;
    spot.send(reqwest::Method::DELETE, &path, &Value::Null)
        .await;
    spot.configure(&id, &json!({"autoTerminateEnabled": false}))
        .await;
    assert_eq!(
        Spot::ok(&spot.get(&list).await)["instances"],
        json!([]),
        "nothing is ended by itself"
    );
    spot.configure(&id, &json!({"autoTerminateEnabled": true}))
        .await;
    let due = Spot::ok(&spot.get(&list).await)["instances"].clone();
    assert_eq!(
        (&due[0]["instance_id"], &due[0]["reason"]),
        (&json!("i-7"), &json!("replica_terminated"))
    );
    assert_eq!(
        Spot::ok(&spot.get(&list).await)["instances"],
        json!([]),
        "not again within five minutes"
    );
    let ended = format!("/api/agents/{id}/termination-report");
    assert_eq!(
        spot.post(&ended, &json!({"instance_id": "i-0", "success": true}))
            .await
            .status
            .as_u16(),
        400
    );
    assert_eq!(spot.post(&ended, &json!({})).await.status.as_u16(), 400);
    Spot::ok(
        &spot
            .post(&ended, &json!({"instance_id": "i-7", "success": true}))
            .await,
    );
    let gone = spot
        .list(&format!("/api/client/{}/instances?search=i-7", spot.client))
        .await;
    assert_eq!(gone[0]["instanceStatus"], "terminated");
    spot.server.shut_down().await;
}

#[tokio::test]
async fn prices_are_kept_by_pool_and_shown_the_cheapest_first() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let report = format!("/api/agents/{id}/pricing-report");
    let told = prices(&[("ap-south-1b", 0.02), ("ap-south-1c", 0.01)]);
    assert_eq!(
        spot.post(&report, &told).await.json(),
        json!({"success": true})
    );
    let before = spot.server.control.store_revision();
    spot.post(&report, &told).await;
    assert_eq!(
        spot.server.control.store_revision(),
        before,
        "the same again is nothing new"
    );
    let pricing = Spot::ok(&spot.server.get("/api/client/instances/i-1/pricing").await);
    let pools: Vec<_> = pricing["pools"]
        .as_array()
        .expect("pools")
        .iter()
        .map(|pool| &pool["az"])
        .collect();
    assert_eq!(pools, ["ap-south-1c", "ap-south-1a", "ap-south-1b"]);
    assert_eq!(pricing["currentPool"]["id"], "t3.medium.ap-south-1a");
    assert_eq!(pricing["onDemand"]["price"], 0.0448);
    let history = Spot::ok(
        &spot
            .server
            .get("/api/client/instances/i-1/price-history?days=1")
            .await,
    );
    assert_eq!(history["data"][0]["pool_t3.medium.ap-south-1c"], 0.01);
    assert_eq!(history["pools"].as_array().map(Vec::len), Some(3));
    let options = Spot::ok(
        &spot
            .server
            .get("/api/client/instances/i-1/available-options")
            .await,
    );
    assert_eq!(options["availableTypes"], json!(["t3.medium"]));
    let recommended = Spot::ok(
        &spot
            .get(&format!("/api/agents/{id}/switch-recommendation"))
            .await,
    );
    assert_eq!(
        (
            &recommended["decision_type"],
            &recommended["will_auto_execute"]
        ),
        (&json!("stay_spot"), &json!(false))
    );
    assert_eq!(
        recommended["alternative_pools"][0]["id"],
        "t3.medium.ap-south-1c"
    );
    let metrics = Spot::ok(&spot.server.get("/api/client/instances/i-1/metrics").await);
    assert_eq!(
        (&metrics["spotPrice"], &metrics["totalSwitches"]),
        (&json!(0.0134), &json!(0))
    );
    let decision = json!({"instance": {"instance_id": "i-1", "current_mode": "spot"}, "pricing": {"current_spot_price": 0.01}});
    let decided = Spot::ok(
        &spot
            .post(&format!("/api/agents/{id}/decide"), &decision)
            .await,
    );
    assert_eq!(
        (&decided["recommended_action"], &decided["allowed"]),
        (&json!("stay"), &json!(false))
    );
    assert_eq!(
        spot.post(&format!("/api/agents/{id}/decide"), &json!({}))
            .await
            .status
            .as_u16(),
        400
    );
    is_error(
        &spot.server.get("/api/client/instances/i-9/pricing").await,
        404,
        "Instance not found",
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn a_machine_that_is_registered_beside_does_not_take_over() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let path = format!("/api/agents/{id}/register-instance");
    let mut body = json!({"instance_id": "i-2", "instance_type": "t3.medium", "region": "ap-south-1",
        "az": "ap-south-1b", "mode": "spot", "is_primary": false});
    assert_eq!(
        Spot::ok(&spot.post(&path, &body).await)["is_primary"],
        false
    );
    assert_eq!(spot.agents().await[0]["instanceId"], "i-1");
    assert_eq!(spot.agents().await[0]["instanceCount"], 2);
    body["instance_id"] = "i-3".into();
    body["is_primary"] = true.into();
    Spot::ok(&spot.post(&path, &body).await);
    let row = spot.agents().await[0].clone();
    assert_eq!(
        (&row["instanceId"], &row["az"]),
        (&json!("i-3"), &json!("ap-south-1b"))
    );
    body["mode"] = Value::Null;
    assert_eq!(spot.post(&path, &body).await.status.as_u16(), 400);
    let node = spot.server.get(&format!("/api/v1/nodes/{id}")).await.json();
    assert_eq!(
        node["instance"],
        json!({"provider": "aws", "id": "i-3", "type": "t3.medium",
        "zone": "ap-south-1b", "market": "spot"})
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn what_was_cleaned_up_is_counted() {
    let spot = Spot::start().await;
    let id = spot.register("agent-a-1", "i-1").await;
    let body = json!({"timestamp": "2025-01-01T00:00:00", "snapshots": {"type": "snapshots", "deleted": ["a", "b"], "failed": []},
        "amis": {"deleted_amis": ["c"], "deleted_snapshots": ["d"], "failed": [{"id": "e"}]}});
    let answer = Spot::ok(
        &spot
            .post(&format!("/api/agents/{id}/cleanup-report"), &body)
            .await,
    );
    assert_eq!(
        (
            &answer["deleted_snapshots"],
            &answer["deleted_amis"],
            &answer["failed_count"]
        ),
        (&json!(3), &json!(1), &json!(1))
    );
    spot.server.shut_down().await;
}

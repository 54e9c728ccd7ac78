//! Whatever is sent to a route of the spot manager is answered in its words, and never by a fault of ours.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::Method;

use crate::spot::{Spot, prices};

/// Every route that reads a body; `{a}` is an agent, `{r}` a replica, `{c}` a client.
const ROUTES: [(&str, &str); 29] = [
    ("POST", "/api/agents/register"),
    ("POST", "/api/agents/{a}/heartbeat"),
    ("POST", "/api/agents/{a}/termination"),
    ("POST", "/api/agents/{a}/commands/x/executed"),
    ("POST", "/api/agents/{a}/issue-switch-command"),
    ("POST", "/api/agents/{a}/pricing-report"),
    ("POST", "/api/agents/{a}/switch-report"),
    ("POST", "/api/agents/{a}/cleanup-report"),
    ("POST", "/api/agents/{a}/termination-report"),
    ("POST", "/api/agents/{a}/register-instance"),
    ("POST", "/api/agents/{a}/rebalance-recommendation"),
    ("POST", "/api/agents/{a}/decide"),
    ("POST", "/api/agents/{a}/replicas"),
    ("PUT", "/api/agents/{a}/replicas/{r}"),
    ("POST", "/api/agents/{a}/replicas/{r}/status"),
    ("POST", "/api/agents/{a}/replicas/{r}/sync-status"),
    ("POST", "/api/agents/{a}/replicas/{r}/promote"),
    ("POST", "/api/client/agents/{a}/toggle-enabled"),
    ("POST", "/api/client/agents/{a}/settings"),
    ("POST", "/api/client/agents/{a}/config"),
    ("POST", "/api/client/instances/i-1/force-switch"),
    ("POST", "/api/notifications/mark-all-read"),
    ("POST", "/api/admin/clients/create"),
    ("GET", "/api/notifications"),
    ("GET", "/api/client/{c}/instances"),
    ("GET", "/api/client/{c}/switch-history"),
    ("GET", "/api/client/instances/i-1/price-history"),
    ("GET", "/api/agents/{a}/replicas"),
    ("GET", "/api/admin/search"),
];

const KEYS: [&str; 40] = [
    "logical_agent_id",
    "instance_id",
    "instance_type",
    "region",
    "az",
    "mode",
    "hostname",
    "public_ip",
    "status",
    "instance_status",
    "success",
    "message",
    "target_mode",
    "target_pool_id",
    "priority",
    "instance",
    "pricing",
    "prices",
    "timing",
    "spot_pools",
    "pool_id",
    "price",
    "on_demand_price",
    "old_instance",
    "new_instance",
    "on_demand",
    "old_spot",
    "new_spot",
    "initiated_at",
    "trigger",
    "command_id",
    "snapshots",
    "deleted",
    "sync_status",
    "state_transfer_progress",
    "sync_latency_ms",
    "autoSwitchEnabled",
    "terminateWaitMinutes",
    "name",
    "replica_count",
];

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec![
            "spot",
            "ondemand",
            "i-1",
            "i-2",
            "t3.medium.ap-south-1b",
            "ready",
            "syncing",
            "offline",
            ""
        ])
        .prop_map(|word| format!("\"{word}\"")),
        ".{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    leaf.prop_recursive(3, 32, 8, |inner| {
        let key = prop::sample::select(KEYS.to_vec());
        let object = prop::collection::vec((key, inner.clone()), 0..8);
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(|list| format!("[{}]", list.join(","))),
            3 => object.prop_map(|pairs| {
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", pairs.join(","))
            }),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        6 => json().prop_map(String::into_bytes),
        1 => "[ -~\n]{0,200}".prop_map(String::into_bytes),
    ]
}

#[test]
fn no_body_or_query_makes_the_spot_door_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (spot, agent, replica) = runtime.block_on(async {
        let spot = Spot::start().await;
        let agent = spot.register("agent-a-1", "i-1").await;
        spot.post(
            &format!("/api/agents/{agent}/pricing-report"),
            &prices(&[("ap-south-1b", 0.01)]),
        )
        .await;
        spot.configure(&agent, &serde_json::json!({"manualReplicaEnabled": true}))
            .await;
        let pool = serde_json::json!({"pool_id": "t3.medium.ap-south-1b"});
        let made = spot
            .post(&format!("/api/agents/{agent}/replicas"), &pool)
            .await;
        let replica = Spot::ok(&made)["replica_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        (Arc::new(spot), agent, replica)
    });
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(1024)
    };
    let input = (0..ROUTES.len(), body(), "[a-z_=&%0-9]{0,20}");
    let tried = TestRunner::new(config).run(&input, |(route, body, query)| {
        let (method, path) = ROUTES[route];
        let path = path
            .replace("{a}", &agent)
            .replace("{r}", &replica)
            .replace("{c}", &spot.client);
        let method: Method = method.parse().expect("a method");
        let bearer = format!("Bearer {}", spot.token);
        let headers = [("authorization", bearer.as_str())];
        let answer =
            runtime.block_on(
                spot.server
                    .send(method, &format!("{path}?{query}"), &headers, body),
            );
        let status = answer.status.as_u16();
        prop_assert!(status < 500, "{path}: {status} {}", answer.text);
        let json: serde_json::Value = serde_json::from_str(&answer.text)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(status >= 400, json["error"].is_string(), "{}", answer.text);
        Ok(())
    });
    tried.unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        assert_eq!(spot.server.get("/healthz").await.status.as_u16(), 200);
        let spot = Arc::into_inner(spot).expect("the only holder");
        spot.server.shut_down().await;
    });
}

//! Persys's second port: its metric names over real figures, and its health.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions, not in what they share"
)]

use serde_json::Value;

use crate::persys_world::{Double, Fleet, Plane, container, until};

async fn get(plane: &Plane, path: &str) -> (u16, String) {
    let url = format!("http://{}{path}", plane.figures);
    let client = crate::server::http().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn the_names_are_persys_and_the_figures_are_ours() {
    let plane = Fleet::new().start().await;
    let agent = Double::start().await;
    plane.register("node-1", &agent.endpoint()).await;
    plane.apply("web", "", container("busybox:1")).await;
    plane.until_status("web", "Running").await;
    // A look may see it run before the step that made it run has ended and is counted.
    let step = r#"{action="ReapplyRunning",success="true"}"#;
    let text = until(step, || async {
        let (status, text) = get(&plane, "/metrics").await;
        assert_eq!(status, 200);
        text.contains(step).then_some(text)
    })
    .await;
    let line = |name: &str| {
        let found = text.lines().find(|it| it.starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    let value = |name: &str| -> f64 { line(name).rsplit(' ').next().unwrap().parse().unwrap() };
    let served = r#"persys_scheduler_grpc_server_requests_total{method="/persys.control.v1.AgentControl/RegisterNode",code="OK"}"#;
    assert!((value(served) - 1.0).abs() < 1e-9);
    for name in [
        "persys_scheduler_grpc_server_request_duration_seconds_bucket",
        r#"persys_scheduler_agent_rpc_requests_total{rpc="ApplyWorkload",code="OK"}"#,
        "persys_scheduler_agent_rpc_duration_seconds_count",
        r#"persys_scheduler_reconciliation_results_total{action="ReapplyRunning",success="true"}"#,
        "persys_scheduler_reconciliation_cycle_duration_seconds_sum",
        r#"persys_scheduler_reconciliation_cycles_total{result="success"}"#,
        r#"persys_scheduler_state_store_writes_total{category="spec"}"#,
    ] {
        line(name);
    }
    for (name, meant) in [
        (r#"nodes_status{status="ready"}"#, 1.0),
        (r#"nodes_status{status="notready"}"#, 0.0),
        (r#"workloads_status{status="running"}"#, 1.0),
        (r#"workloads_status{status="failed"}"#, 0.0),
        (r#"workloads_desired_state{desired_state="running"}"#, 1.0),
    ] {
        let told = value(&format!("persys_scheduler_{name}"));
        assert!((told - meant).abs() < 1e-9, "{name}: {told}");
    }
    assert!(text.ends_with("# EOF\n"));
    plane.shut_down().await;
    agent.end().await;
}

#[tokio::test]
async fn health_has_the_contracts_keys_and_the_port_nothing_else() {
    let plane = Fleet::new().start().await;
    let (status, text) = get(&plane, "/health").await;
    let health: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        (&health["status"], &health["mode"], &health["reason"]),
        (&"ok".into(), &"normal".into(), &"".into())
    );
    let changed = health["modeChangedAt"].as_str().unwrap();
    assert!(
        hostler_model::Timestamp::parse(changed).is_some(),
        "{changed}"
    );
    assert_eq!(get(&plane, "/api/v1/nodes").await.0, 404);
    plane.shut_down().await;
}

//! Golden JSON of the bodies that others read, and the rules for readers.

use serde_json::{Value, json};

use super::*;

fn node() -> Value {
    json!({
        "id": "0199c0de-0000-7000-8000-000000000001",
        "name": "box-1",
        "ip": "10.0.0.7",
        "capabilities": {
            "os": "linux", "cpu_count": 8, "mem_mb": 32000,
            "disk_mb": null, "gpus": [], "docker": null, "k8s": null,
        },
        "last_seen": 1_759_856_899.5,
        "status": "online",
        "state": "ready",
        "revision": 1,
        "labels": {"zone": "a"},
        "contract": "session",
        "facts": {
            "hostname": "box-1", "arch": "x86_64", "kernel": "6.1", "boot_id": "b",
            "agent_version": "0.1.0", "addresses": ["10.0.0.7"],
            "runtimes": [{"kind": "process", "available": true}],
            "disks": [{"mount": "/", "total_bytes": 2, "free_bytes": 1}],
        },
        "capacity": {"milli_cpu": 8000, "memory_bytes": 2, "disk_bytes": 1},
        "free": {"milli_cpu": 7000, "memory_bytes": 1, "disk_bytes": 1},
        "copies": 1,
        "joined_at": "2026-01-31T08:00:00.000Z",
        "lease": {"age_ms": 300, "window_ms": 5000},
    })
}

#[test]
fn a_node_is_a_superset_of_the_miaas_entry() {
    let json = node();
    let read: Node = serde_json::from_value(json.clone()).expect("a node");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), json);
    assert_eq!(read.metrics, None);
}

#[test]
fn a_node_of_a_miaas_agent_alone_reads_with_defaults() {
    let mut json = node();
    let keys = json.as_object_mut().expect("an object");
    for ours in [
        "facts", "capacity", "free", "labels", "lease", "contract", "copies", "revision",
    ] {
        keys.remove(ours);
    }
    keys.insert(
        "metrics".into(),
        json!({"cpu_usage": 12.5, "mem_usage": 40.0, "disk_free_mb": 9, "running_containers": ["db"]}),
    );
    let read: Node = serde_json::from_value(json).expect("a node");
    assert_eq!(read.metrics.expect("metrics").running_containers, ["db"]);
    assert_eq!(read.capacity, Resources::default());
}

#[test]
fn words_and_keys_of_newer_servers_are_read() {
    let mut json = node();
    json["state"] = "hibernating".into();
    json["dreams"] = json!(["electric sheep"]);
    let read: Node = serde_json::from_value(json).expect("a node");
    assert_eq!(read.state, NodeState::Unknown);
}

#[test]
fn a_problem_has_the_keys_of_rfc_9457_and_ours() {
    let problem = Problem::new(404, "node-not-found", "no node is named `x`")
        .with_advice("list the nodes")
        .with_request_id("r1");
    assert_eq!(
        serde_json::to_value(problem).expect("JSON"),
        json!({
            "type": "/docs/errors/node-not-found",
            "title": "node not found",
            "status": 404,
            "detail": "no node is named `x`",
            "code": "node-not-found",
            "advice": "list the nodes",
            "request_id": "r1",
        })
    );
}

#[test]
fn a_label_patch_is_a_plain_object_with_nulls() {
    let patch: LabelPatch =
        serde_json::from_value(json!({"zone": "a", "old": null})).expect("a patch");
    assert_eq!(patch.0["zone"].as_deref(), Some("a"));
    assert_eq!(patch.0["old"], None);
    assert_eq!(
        serde_json::to_value(&patch).expect("JSON"),
        json!({"zone": "a", "old": null})
    );
}

#[test]
fn a_copy_reads_without_what_is_not_known_yet() {
    let json = json!({
        "id": "i", "short": "s", "workload": "w", "workload_name": "web", "slot": 0,
        "node": "n", "node_name": "box-1", "generation": 1, "revision": 1, "intent": "run",
        "state": {"word": "assigned"}, "runs": 0, "created_at": "2026-01-31T08:00:00.000Z",
        "claims": {"resources": {"milli_cpu": 0, "memory_bytes": 0, "disk_bytes": 0}},
    });
    let read: Assignment = serde_json::from_value(json.clone()).expect("a copy");
    assert_eq!(serde_json::to_value(read).expect("JSON"), json);
}

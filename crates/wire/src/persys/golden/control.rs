//! Golden bytes of every message of `persys.control.v1`, from the contract's tables of numbers and types, read and
//! written. Every field is set once; peers of any age send these bytes.

use std::collections::BTreeMap;

use crate::golden::golden;
use crate::persys::control::*;

#[test]
fn automation_suggestion_to_register_node_request_have_their_bytes() {
    golden(
        &AutomationSuggestion {
            suggestion_id: "b".into(),
            policy_id: "c".into(),
            policy_name: "d".into(),
            target_workload: "e".into(),
            action_type: AutomationActionType::AutomationActionRetryWorkload as i32,
            desired_state: "g".into(),
            desired_replicas: 207,
            replica_delta: 208,
            reason: "j".into(),
            suggested_at: Some(prost_types::Timestamp {
                seconds: 11,
                nanos: 510,
            }),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e(\x022\x01g8\xcf\x01@\xd0\x01J\x01jR\x05\x08\x0b\
          \x10\xfe\x03",
    );
    golden(
        &SubmitAutomationSuggestionRequest {
            suggestion: Some(AutomationSuggestion {
                suggestion_id: "c".into(),
                ..AutomationSuggestion::default()
            }),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &SubmitAutomationSuggestionResponse {
            accepted: true,
            decision: "c".into(),
            reason: "d".into(),
            applied_action: "e".into(),
            decided_at: Some(prost_types::Timestamp {
                seconds: 6,
                nanos: 505,
            }),
        },
        b"\x08\x01\x12\x01c\x1a\x01d\x22\x01e*\x05\x08\x06\x10\xf9\x03",
    );
    golden(
        &RegisterNodeRequest {
            node_id: "b".into(),
            capabilities: Some(NodeCapabilities {
                cpu_total_millicores: 1,
                ..NodeCapabilities::default()
            }),
            labels: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            agent_version: "e".into(),
            grpc_endpoint: "f".into(),
            cluster_id: "g".into(),
            timestamp: Some(prost_types::Timestamp {
                seconds: 8,
                nanos: 507,
            }),
        },
        b"\x0a\x01b\x12\x02\x08\x01\x1a\x06\x0a\x01a\x12\x01b\x1a\x06\x0a\x01k\x12\x01v\x22\
          \x01e*\x01f2\x01g:\x05\x08\x08\x10\xfb\x03",
    );
}

#[test]
fn node_capabilities_to_heartbeat_request_have_their_bytes() {
    golden(
        &NodeCapabilities {
            cpu_total_millicores: 301,
            memory_total_mb: 302,
            storage_pools: vec![
                StoragePool {
                    name: "c".into(),
                    ..StoragePool::default()
                },
                StoragePool::default(),
            ],
            supported_workload_types: vec!["e".into(), "f".into()],
            supported_storage_drivers: vec!["f".into(), "g".into()],
        },
        b"\x08\xad\x02\x10\xae\x02\x1a\x03\x0a\x01c\x1a\x00\x22\x01e\x22\x01f*\x01f*\x01g",
    );
    golden(
        &StoragePool {
            name: "b".into(),
            r#type: "c".into(),
            total_gb: 303,
        },
        b"\x0a\x01b\x12\x01c\x18\xaf\x02",
    );
    golden(
        &RegisterNodeResponse {
            accepted: true,
            reason: "c".into(),
            heartbeat_interval_seconds: 203,
            lease_expires_at: Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 504,
            }),
        },
        b"\x08\x01\x12\x01c\x18\xcb\x01\x22\x05\x08\x05\x10\xf8\x03",
    );
    golden(
        &HeartbeatRequest {
            node_id: "b".into(),
            usage: Some(NodeUsage {
                cpu_allocated_millicores: 1,
                ..NodeUsage::default()
            }),
            workload_statuses: vec![
                WorkloadStatus {
                    workload_id: "c".into(),
                    ..WorkloadStatus::default()
                },
                WorkloadStatus::default(),
            ],
            timestamp: Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 504,
            }),
            workload_usage: vec![
                WorkloadUsageSnapshot {
                    workload_id: "c".into(),
                    ..WorkloadUsageSnapshot::default()
                },
                WorkloadUsageSnapshot::default(),
            ],
        },
        b"\x0a\x01b\x12\x02\x08\x01\x1a\x03\x0a\x01c\x1a\x00\x22\x05\x08\x05\x10\xf8\x03*\x03\
          \x0a\x01c*\x00",
    );
}

#[test]
fn node_usage_to_apply_workload_response_have_their_bytes() {
    golden(
        &NodeUsage {
            cpu_allocated_millicores: 301,
            cpu_used_millicores: 302,
            memory_allocated_mb: 303,
            memory_used_mb: 304,
            disk_allocated_gb: 305,
            disk_used_gb: 306,
        },
        b"\x08\xad\x02\x10\xae\x02\x18\xaf\x02\x20\xb0\x02(\xb1\x020\xb2\x02",
    );
    golden(
        &HeartbeatResponse {
            acknowledged: true,
            drain_node: true,
            lease_expires_at: Some(prost_types::Timestamp {
                seconds: 4,
                nanos: 503,
            }),
        },
        b"\x08\x01\x10\x01\x1a\x05\x08\x04\x10\xf7\x03",
    );
    golden(
        &ApplyWorkloadRequest {
            workload_id: "b".into(),
            spec: Some(WorkloadSpec {
                r#type: "c".into(),
                ..WorkloadSpec::default()
            }),
            revision_id: "k".into(),
            desired_state: "l".into(),
        },
        b"\x0a\x01b\x12\x03\x0a\x01cR\x01kZ\x01l",
    );
    golden(
        &ApplyWorkloadResponse {
            success: true,
            failure_reason: FailureReason::InsufficientResources as i32,
            error_message: "d".into(),
        },
        b"\x08\x01\x10\x03\x1a\x01d",
    );
}

#[test]
fn delete_workload_request_to_resource_requirements_have_their_bytes() {
    golden(
        &DeleteWorkloadRequest {
            workload_id: "b".into(),
        },
        b"\x0a\x01b",
    );
    golden(
        &DeleteWorkloadResponse {
            success: true,
            error_message: "c".into(),
        },
        b"\x08\x01\x12\x01c",
    );
    golden(
        &WorkloadSpec {
            r#type: "b".into(),
            resources: Some(ResourceRequirements {
                cpu_millicores: 1,
                ..ResourceRequirements::default()
            }),
            metadata: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            workload: Some(workload_spec::Workload::Container(ContainerSpec {
                image: "c".into(),
                ..ContainerSpec::default()
            })),
        },
        b"\x0a\x01b\x12\x02\x08\x01R\x03\x0a\x01c\xa2\x01\x06\x0a\x01a\x12\x01b\xa2\x01\x06\
          \x0a\x01k\x12\x01v",
    );
    golden(
        &WorkloadSpec {
            workload: Some(workload_spec::Workload::Compose(ComposeSpec {
                source_type: "c".into(),
                ..ComposeSpec::default()
            })),
            ..WorkloadSpec::default()
        },
        b"Z\x03\x0a\x01c",
    );
    golden(
        &WorkloadSpec {
            workload: Some(workload_spec::Workload::Vm(VmSpec {
                vcpus: 1,
                ..VmSpec::default()
            })),
            ..WorkloadSpec::default()
        },
        b"b\x02\x08\x01",
    );
    golden(
        &ResourceRequirements {
            cpu_millicores: 301,
            memory_mb: 302,
            disk_gb: 303,
        },
        b"\x08\xad\x02\x10\xae\x02\x18\xaf\x02",
    );
}

#[test]
fn container_spec_to_compose_spec_have_their_bytes() {
    golden(
        &ContainerSpec {
            image: "b".into(),
            command: vec!["c".into(), "d".into()],
            env: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            volumes: vec![
                VolumeMount {
                    host_path: "c".into(),
                    ..VolumeMount::default()
                },
                VolumeMount::default(),
            ],
            ports: vec![
                Port {
                    host_port: 1,
                    ..Port::default()
                },
                Port::default(),
            ],
            restart_policy: "g".into(),
            privileged: true,
            managed_volumes: vec![
                ManagedVolumeSpec {
                    name: "c".into(),
                    ..ManagedVolumeSpec::default()
                },
                ManagedVolumeSpec::default(),
            ],
        },
        b"\x0a\x01b\x12\x01c\x12\x01d\x1a\x06\x0a\x01a\x12\x01b\x1a\x06\x0a\x01k\x12\x01v\x22\
          \x03\x0a\x01c\x22\x00*\x02\x08\x01*\x002\x01g8\x01B\x03\x0a\x01cB\x00",
    );
    golden(
        &VolumeMount {
            host_path: "b".into(),
            container_path: "c".into(),
            read_only: true,
        },
        b"\x0a\x01b\x12\x01c\x18\x01",
    );
    golden(
        &Port {
            host_port: 201,
            container_port: 202,
            protocol: "d".into(),
        },
        b"\x08\xc9\x01\x10\xca\x01\x1a\x01d",
    );
    golden(
        &ComposeSpec {
            source_type: "b".into(),
            git_repo: "c".into(),
            git_ref: "d".into(),
            inline_yaml: "e".into(),
            env: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e*\x06\x0a\x01a\x12\x01b*\x06\x0a\x01k\x12\x01v",
    );
}

#[test]
fn vm_spec_to_cloud_init_config_have_their_bytes() {
    golden(
        &VmSpec {
            vcpus: 201,
            memory_mb: 302,
            disks: vec![
                DiskConfig {
                    pool_name: "c".into(),
                    ..DiskConfig::default()
                },
                DiskConfig::default(),
            ],
            networks: vec![
                NetworkConfig {
                    bridge: "c".into(),
                    ..NetworkConfig::default()
                },
                NetworkConfig::default(),
            ],
            cloud_init: Some(CloudInitConfig {
                user_data: "c".into(),
                ..CloudInitConfig::default()
            }),
            os_image: "g".into(),
            managed_volumes: vec![
                ManagedVolumeSpec {
                    name: "c".into(),
                    ..ManagedVolumeSpec::default()
                },
                ManagedVolumeSpec::default(),
            ],
        },
        b"\x08\xc9\x01\x10\xae\x02\x1a\x03\x0a\x01c\x1a\x00\x22\x03\x0a\x01c\x22\x00*\x03\x0a\
          \x01c2\x01g:\x03\x0a\x01c:\x00",
    );
    golden(
        &DiskConfig {
            pool_name: "b".into(),
            size_gb: 302,
            mount_point: "d".into(),
        },
        b"\x0a\x01b\x10\xae\x02\x1a\x01d",
    );
    golden(
        &NetworkConfig {
            bridge: "b".into(),
            dhcp: true,
            static_ip: "d".into(),
        },
        b"\x0a\x01b\x10\x01\x1a\x01d",
    );
    golden(
        &CloudInitConfig {
            user_data: "b".into(),
            meta_data: "c".into(),
            network_config: "d".into(),
            vendor_data: "e".into(),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e",
    );
}

#[test]
fn managed_volume_spec_to_workload_status_have_their_bytes() {
    golden(
        &ManagedVolumeSpec {
            name: "b".into(),
            driver: "c".into(),
            size_gb: 303,
            access_mode: "e".into(),
            fs_type: "f".into(),
            mount_path: "g".into(),
            read_only: true,
            retain_policy: "i".into(),
        },
        b"\x0a\x01b\x12\x01c\x18\xaf\x02\x22\x01e*\x01f2\x01g8\x01B\x01i",
    );
    golden(
        &WorkloadUsageSnapshot {
            workload_id: "b".into(),
            r#type: "c".into(),
            cpu_percent: 3.5,
            memory_bytes: 304,
            disk_read_bytes: 305,
            disk_write_bytes: 306,
            net_rx_bytes: 307,
            net_tx_bytes: 308,
            collected_at: Some(prost_types::Timestamp {
                seconds: 10,
                nanos: 509,
            }),
            source: "k".into(),
        },
        b"\x0a\x01b\x12\x01c\x19\x00\x00\x00\x00\x00\x00\x0c@\x20\xb0\x02(\xb1\x020\xb2\x028\
          \xb3\x02@\xb4\x02J\x05\x08\x0a\x10\xfd\x03R\x01k",
    );
    golden(
        &ReasonDetail {
            code: "b".into(),
            message: "c".into(),
            last_transition: Some(prost_types::Timestamp {
                seconds: 4,
                nanos: 503,
            }),
            next_retry_at: Some(prost_types::Timestamp {
                seconds: 5,
                nanos: 504,
            }),
            retryable: true,
        },
        b"\x0a\x01b\x12\x01c\x1a\x05\x08\x04\x10\xf7\x03\x22\x05\x08\x05\x10\xf8\x03(\x01",
    );
    golden(
        &WorkloadStatus {
            workload_id: "b".into(),
            state: "c".into(),
            failure_reason: FailureReason::InvalidSpec as i32,
            message: "e".into(),
            last_transition: Some(prost_types::Timestamp {
                seconds: 6,
                nanos: 505,
            }),
            reason: Some(ReasonDetail {
                code: "c".into(),
                ..ReasonDetail::default()
            }),
            usage: Some(WorkloadUsageSnapshot {
                workload_id: "c".into(),
                ..WorkloadUsageSnapshot::default()
            }),
        },
        b"\x0a\x01b\x12\x01c\x18\x04\x22\x01e*\x05\x08\x06\x10\xf9\x032\x03\x0a\x01c:\x03\x0a\
          \x01c",
    );
}

#[test]
fn retry_workload_request_to_get_node_request_have_their_bytes() {
    golden(
        &RetryWorkloadRequest {
            workload_id: "b".into(),
        },
        b"\x0a\x01b",
    );
    golden(&RetryWorkloadResponse { accepted: true }, b"\x08\x01");
    golden(&ListNodesRequest { status: "b".into() }, b"\x0a\x01b");
    golden(
        &GetNodeRequest {
            node_id: "b".into(),
        },
        b"\x0a\x01b",
    );
}

#[test]
fn list_nodes_response_to_list_workloads_request_have_their_bytes() {
    golden(
        &ListNodesResponse {
            nodes: vec![
                NodeView {
                    node_id: "c".into(),
                    ..NodeView::default()
                },
                NodeView::default(),
            ],
        },
        b"\x0a\x03\x0a\x01c\x0a\x00",
    );
    golden(
        &GetNodeResponse {
            node: Some(NodeView {
                node_id: "c".into(),
                ..NodeView::default()
            }),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &NodeView {
            node_id: "b".into(),
            status: "c".into(),
            status_reason: "d".into(),
            status_updated_by: "e".into(),
            status_updated_at: Some(prost_types::Timestamp {
                seconds: 6,
                nanos: 505,
            }),
            last_heartbeat: Some(prost_types::Timestamp {
                seconds: 7,
                nanos: 506,
            }),
            grpc_endpoint: "h".into(),
            total_cpu_cores: 8.5,
            available_cpu_cores: 9.5,
            total_memory_mb: 310,
            available_memory_mb: 311,
            supported_workload_types: vec!["m".into(), "n".into()],
            labels: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e*\x05\x08\x06\x10\xf9\x032\x05\x08\x07\x10\xfa\
          \x03:\x01hA\x00\x00\x00\x00\x00\x00!@I\x00\x00\x00\x00\x00\x00#@P\xb6\x02X\xb7\x02b\
          \x01mb\x01nj\x06\x0a\x01a\x12\x01bj\x06\x0a\x01k\x12\x01v",
    );
    golden(
        &ListWorkloadsRequest {
            node_id: "b".into(),
            status: "c".into(),
        },
        b"\x0a\x01b\x12\x01c",
    );
}

#[test]
fn get_workload_request_to_workload_view_have_their_bytes() {
    golden(
        &GetWorkloadRequest {
            workload_id: "b".into(),
        },
        b"\x0a\x01b",
    );
    golden(
        &ListWorkloadsResponse {
            workloads: vec![
                WorkloadView {
                    workload_id: "c".into(),
                    ..WorkloadView::default()
                },
                WorkloadView::default(),
            ],
        },
        b"\x0a\x03\x0a\x01c\x0a\x00",
    );
    golden(
        &GetWorkloadResponse {
            workload: Some(WorkloadView {
                workload_id: "c".into(),
                ..WorkloadView::default()
            }),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &WorkloadView {
            workload_id: "b".into(),
            r#type: "c".into(),
            desired_state: "d".into(),
            status: "e".into(),
            assigned_node_id: "f".into(),
            revision_id: "g".into(),
            retry_attempts: 207,
            retry_max_attempts: 208,
            retry_next_at: Some(prost_types::Timestamp {
                seconds: 10,
                nanos: 509,
            }),
            failure_reason: "k".into(),
            last_updated: Some(prost_types::Timestamp {
                seconds: 12,
                nanos: 511,
            }),
            reason: Some(ReasonDetail {
                code: "c".into(),
                ..ReasonDetail::default()
            }),
            usage: Some(WorkloadUsageSnapshot {
                workload_id: "c".into(),
                ..WorkloadUsageSnapshot::default()
            }),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e*\x01f2\x01g8\xcf\x01@\xd0\x01J\x05\x08\x0a\x10\
          \xfd\x03R\x01kZ\x05\x08\x0c\x10\xff\x03b\x03\x0a\x01cj\x03\x0a\x01c",
    );
}

#[test]
fn get_cluster_summary_request_to_control_message_have_their_bytes() {
    golden(&GetClusterSummaryRequest {}, b"");
    golden(
        &GetClusterSummaryResponse {
            total_nodes: 201,
            ready_nodes: 202,
            not_ready_nodes: 203,
            total_workloads: 204,
            running_workloads: 205,
            pending_workloads: 206,
            failed_workloads: 207,
            deleted_workloads: 208,
            generated_at: Some(prost_types::Timestamp {
                seconds: 10,
                nanos: 509,
            }),
        },
        b"\x08\xc9\x01\x10\xca\x01\x18\xcb\x01\x20\xcc\x01(\xcd\x010\xce\x018\xcf\x01@\xd0\x01\
          J\x05\x08\x0a\x10\xfd\x03",
    );
    golden(
        &ControlMessage {
            message: Some(control_message::Message::Register(RegisterNodeRequest {
                node_id: "c".into(),
                ..RegisterNodeRequest::default()
            })),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &ControlMessage {
            message: Some(control_message::Message::Heartbeat(HeartbeatRequest {
                node_id: "c".into(),
                ..HeartbeatRequest::default()
            })),
        },
        b"\x12\x03\x0a\x01c",
    );
    golden(
        &ControlMessage {
            message: Some(control_message::Message::Apply(ApplyWorkloadRequest {
                workload_id: "c".into(),
                ..ApplyWorkloadRequest::default()
            })),
        },
        b"\x1a\x03\x0a\x01c",
    );
    golden(
        &ControlMessage {
            message: Some(control_message::Message::Delete(DeleteWorkloadRequest {
                workload_id: "c".into(),
            })),
        },
        b"\x22\x03\x0a\x01c",
    );
}

#[test]
fn every_enum_has_its_numbers_and_names() {
    assert_eq!(
        AutomationActionType::from_str_name("AUTOMATION_ACTION_TYPE_UNSPECIFIED")
            .map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        AutomationActionType::from_str_name("AUTOMATION_ACTION_SET_DESIRED_STATE")
            .map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        AutomationActionType::from_str_name("AUTOMATION_ACTION_RETRY_WORKLOAD").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        AutomationActionType::from_str_name("AUTOMATION_ACTION_DELETE_WORKLOAD")
            .map(|it| it as i32),
        Some(3)
    );
    assert_eq!(
        AutomationActionType::from_str_name("AUTOMATION_ACTION_SCALE_REPLICAS").map(|it| it as i32),
        Some(4)
    );
    assert_eq!(
        FailureReason::from_str_name("FAILURE_REASON_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        FailureReason::from_str_name("IMAGE_PULL_FAILED").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        FailureReason::from_str_name("IMAGE_NOT_FOUND").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        FailureReason::from_str_name("INSUFFICIENT_RESOURCES").map(|it| it as i32),
        Some(3)
    );
    assert_eq!(
        FailureReason::from_str_name("INVALID_SPEC").map(|it| it as i32),
        Some(4)
    );
    assert_eq!(
        FailureReason::from_str_name("RUNTIME_ERROR").map(|it| it as i32),
        Some(5)
    );
    assert_eq!(
        FailureReason::from_str_name("NETWORK_ERROR").map(|it| it as i32),
        Some(6)
    );
    assert_eq!(
        FailureReason::from_str_name("STORAGE_ERROR").map(|it| it as i32),
        Some(7)
    );
    assert_eq!(
        FailureReason::from_str_name("VM_BOOT_FAILED").map(|it| it as i32),
        Some(8)
    );
}

#[test]
fn every_call_has_its_path() {
    let generated = include_str!("../../gen/persys.control.v1.rs");
    let calls = [
        "/persys.control.v1.AgentControl/RegisterNode",
        "/persys.control.v1.AgentControl/Heartbeat",
        "/persys.control.v1.AgentControl/ApplyWorkload",
        "/persys.control.v1.AgentControl/DeleteWorkload",
        "/persys.control.v1.AgentControl/RetryWorkload",
        "/persys.control.v1.AgentControl/SubmitAutomationSuggestion",
        "/persys.control.v1.AgentControl/ListNodes",
        "/persys.control.v1.AgentControl/GetNode",
        "/persys.control.v1.AgentControl/ListWorkloads",
        "/persys.control.v1.AgentControl/GetWorkload",
        "/persys.control.v1.AgentControl/GetClusterSummary",
        "/persys.control.v1.AgentControl/ControlStream",
    ];
    for call in calls {
        // Once where it is served, once where it is called.
        assert_eq!(
            generated.matches(&format!("\"{call}\"")).count(),
            2,
            "{call}"
        );
    }
}

//! Golden bytes of every message of `persys.agent.v1`, from the contract's tables of numbers and types, read and
//! written. Every field is set once; peers of any age send these bytes.

use std::collections::BTreeMap;

use crate::golden::golden;
use crate::persys::agent::*;

#[test]
fn apply_workload_request_to_delete_workload_response_have_their_bytes() {
    golden(
        &ApplyWorkloadRequest {
            id: "b".into(),
            r#type: WorkloadType::Vm as i32,
            revision_id: "d".into(),
            desired_state: DesiredState::Running as i32,
            spec: Some(WorkloadSpec {
                spec: Some(workload_spec::Spec::Container(ContainerSpec {
                    image: "c".into(),
                    ..ContainerSpec::default()
                })),
            }),
        },
        b"\x0a\x01b\x10\x03\x1a\x01d\x20\x01*\x05\x0a\x03\x0a\x01c",
    );
    golden(
        &ApplyWorkloadResponse {
            applied: true,
            skipped: true,
            message: "d".into(),
            status: Some(WorkloadStatus {
                id: "c".into(),
                ..WorkloadStatus::default()
            }),
        },
        b"\x08\x01\x10\x01\x1a\x01d\x22\x03\x0a\x01c",
    );
    golden(&DeleteWorkloadRequest { id: "b".into() }, b"\x0a\x01b");
    golden(
        &DeleteWorkloadResponse {
            success: true,
            message: "c".into(),
        },
        b"\x08\x01\x12\x01c",
    );
}

#[test]
fn get_workload_status_request_to_list_workloads_response_have_their_bytes() {
    golden(&GetWorkloadStatusRequest { id: "b".into() }, b"\x0a\x01b");
    golden(
        &GetWorkloadStatusResponse {
            status: Some(WorkloadStatus {
                id: "c".into(),
                ..WorkloadStatus::default()
            }),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &ListWorkloadsRequest {
            r#type: WorkloadType::Compose as i32,
        },
        b"\x08\x02",
    );
    golden(
        &ListWorkloadsResponse {
            workloads: vec![
                WorkloadStatus {
                    id: "c".into(),
                    ..WorkloadStatus::default()
                },
                WorkloadStatus::default(),
            ],
        },
        b"\x0a\x03\x0a\x01c\x0a\x00",
    );
}

#[test]
fn health_check_request_to_agent_action_have_their_bytes() {
    golden(&HealthCheckRequest {}, b"");
    golden(
        &HealthCheckResponse {
            healthy: true,
            version: "c".into(),
            runtime_status: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            memory_utilization: 4.5,
            cpu_utilization: 5.5,
            disk_utilization: 6.5,
        },
        b"\x08\x01\x12\x01c\x1a\x06\x0a\x01a\x12\x01b\x1a\x06\x0a\x01k\x12\x01v!\x00\x00\x00\
          \x00\x00\x00\x12@)\x00\x00\x00\x00\x00\x00\x16@1\x00\x00\x00\x00\x00\x00\x1a@",
    );
    golden(
        &ListActionsRequest {
            workload_id: "b".into(),
            action_type: "c".into(),
            status: "d".into(),
            limit: 204,
            newest_first: true,
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x20\xcc\x01(\x01",
    );
    golden(
        &AgentAction {
            task_id: "b".into(),
            workload_id: "c".into(),
            action_type: "d".into(),
            status: "e".into(),
            error: "f".into(),
            created_at: 306,
            started_at: 307,
            ended_at: 308,
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x22\x01e*\x01f0\xb2\x028\xb3\x02@\xb4\x02",
    );
}

#[test]
fn list_actions_response_to_compose_spec_have_their_bytes() {
    golden(
        &ListActionsResponse {
            actions: vec![
                AgentAction {
                    task_id: "c".into(),
                    ..AgentAction::default()
                },
                AgentAction::default(),
            ],
        },
        b"\x0a\x03\x0a\x01c\x0a\x00",
    );
    golden(
        &WorkloadSpec {
            spec: Some(workload_spec::Spec::Container(ContainerSpec {
                image: "c".into(),
                ..ContainerSpec::default()
            })),
        },
        b"\x0a\x03\x0a\x01c",
    );
    golden(
        &WorkloadSpec {
            spec: Some(workload_spec::Spec::Compose(ComposeSpec {
                project_name: "c".into(),
                ..ComposeSpec::default()
            })),
        },
        b"\x12\x03\x0a\x01c",
    );
    golden(
        &WorkloadSpec {
            spec: Some(workload_spec::Spec::Vm(VmSpec {
                name: "c".into(),
                ..VmSpec::default()
            })),
        },
        b"\x1a\x03\x0a\x01c",
    );
    golden(
        &ContainerSpec {
            image: "b".into(),
            command: vec!["c".into(), "d".into()],
            args: vec!["d".into(), "e".into()],
            env: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            volumes: vec![
                VolumeMount {
                    host_path: "c".into(),
                    ..VolumeMount::default()
                },
                VolumeMount::default(),
            ],
            ports: vec![
                PortMapping {
                    host_port: 1,
                    ..PortMapping::default()
                },
                PortMapping::default(),
            ],
            resources: Some(ResourceLimits {
                cpu_shares: 1,
                ..ResourceLimits::default()
            }),
            restart_policy: Some(RestartPolicy {
                policy: "c".into(),
                ..RestartPolicy::default()
            }),
            labels: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            managed_volumes: vec![
                ManagedVolumeSpec {
                    name: "c".into(),
                    ..ManagedVolumeSpec::default()
                },
                ManagedVolumeSpec::default(),
            ],
        },
        b"\x0a\x01b\x12\x01c\x12\x01d\x1a\x01d\x1a\x01e\x22\x06\x0a\x01a\x12\x01b\x22\x06\x0a\
          \x01k\x12\x01v*\x03\x0a\x01c*\x002\x02\x08\x012\x00:\x02\x08\x01B\x03\x0a\x01cJ\x06\
          \x0a\x01a\x12\x01bJ\x06\x0a\x01k\x12\x01vR\x03\x0a\x01cR\x00",
    );
    golden(
        &ComposeSpec {
            project_name: "b".into(),
            compose_yaml: "c".into(),
            env: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
        },
        b"\x0a\x01b\x12\x01c\x1a\x06\x0a\x01a\x12\x01b\x1a\x06\x0a\x01k\x12\x01v",
    );
}

#[test]
fn vm_spec_to_volume_mount_have_their_bytes() {
    golden(
        &VmSpec {
            name: "b".into(),
            vcpus: 202,
            memory_mb: 303,
            disks: vec![
                DiskConfig {
                    path: "c".into(),
                    ..DiskConfig::default()
                },
                DiskConfig::default(),
            ],
            networks: vec![
                NetworkConfig {
                    network: "c".into(),
                    ..NetworkConfig::default()
                },
                NetworkConfig::default(),
            ],
            cloud_init: "g".into(),
            metadata: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            cloud_init_config: Some(CloudInitConfig {
                user_data: "c".into(),
                ..CloudInitConfig::default()
            }),
            managed_volumes: vec![
                ManagedVolumeSpec {
                    name: "c".into(),
                    ..ManagedVolumeSpec::default()
                },
                ManagedVolumeSpec::default(),
            ],
        },
        b"\x0a\x01b\x10\xca\x01\x18\xaf\x02\x22\x03\x0a\x01c\x22\x00*\x03\x0a\x01c*\x002\x01g:\
          \x06\x0a\x01a\x12\x01b:\x06\x0a\x01k\x12\x01vB\x03\x0a\x01cJ\x03\x0a\x01cJ\x00",
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
        &VolumeMount {
            host_path: "b".into(),
            container_path: "c".into(),
            read_only: true,
        },
        b"\x0a\x01b\x12\x01c\x18\x01",
    );
}

#[test]
fn port_mapping_to_disk_config_have_their_bytes() {
    golden(
        &PortMapping {
            host_port: 201,
            container_port: 202,
            protocol: "d".into(),
        },
        b"\x08\xc9\x01\x10\xca\x01\x1a\x01d",
    );
    golden(
        &ResourceLimits {
            cpu_shares: 301,
            memory_bytes: 302,
            memory_swap_bytes: 303,
        },
        b"\x08\xad\x02\x10\xae\x02\x18\xaf\x02",
    );
    golden(
        &RestartPolicy {
            policy: "b".into(),
            max_retry_count: 202,
        },
        b"\x0a\x01b\x10\xca\x01",
    );
    golden(
        &DiskConfig {
            path: "b".into(),
            device: "c".into(),
            format: "d".into(),
            size_gb: 304,
            r#type: "f".into(),
            boot: true,
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d\x20\xb0\x02*\x01f0\x01",
    );
}

#[test]
fn network_config_to_workload_usage_snapshot_have_their_bytes() {
    golden(
        &NetworkConfig {
            network: "b".into(),
            mac_address: "c".into(),
            ip_address: "d".into(),
        },
        b"\x0a\x01b\x12\x01c\x1a\x01d",
    );
    golden(
        &WorkloadStatus {
            id: "b".into(),
            r#type: WorkloadType::Vm as i32,
            revision_id: "d".into(),
            desired_state: DesiredState::Running as i32,
            actual_state: ActualState::Pending as i32,
            message: "g".into(),
            created_at: 307,
            updated_at: 308,
            metadata: BTreeMap::from([("k".into(), "v".into()), ("a".into(), "b".into())]),
            usage: Some(WorkloadUsageSnapshot {
                workload_id: "c".into(),
                ..WorkloadUsageSnapshot::default()
            }),
        },
        b"\x0a\x01b\x10\x03\x1a\x01d\x20\x01(\x012\x01g8\xb3\x02@\xb4\x02J\x06\x0a\x01a\x12\
          \x01bJ\x06\x0a\x01k\x12\x01vR\x03\x0a\x01c",
    );
    golden(
        &WorkloadUsageSnapshot {
            workload_id: "b".into(),
            r#type: WorkloadType::Vm as i32,
            cpu_percent: 3.5,
            memory_bytes: 304,
            disk_read_bytes: 305,
            disk_write_bytes: 306,
            net_rx_bytes: 307,
            net_tx_bytes: 308,
            collected_at: 309,
            source: "k".into(),
        },
        b"\x0a\x01b\x10\x03\x19\x00\x00\x00\x00\x00\x00\x0c@\x20\xb0\x02(\xb1\x020\xb2\x028\
          \xb3\x02@\xb4\x02H\xb5\x02R\x01k",
    );
}

#[test]
fn every_enum_has_its_numbers_and_names() {
    assert_eq!(
        WorkloadType::from_str_name("WORKLOAD_TYPE_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        WorkloadType::from_str_name("WORKLOAD_TYPE_CONTAINER").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        WorkloadType::from_str_name("WORKLOAD_TYPE_COMPOSE").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        WorkloadType::from_str_name("WORKLOAD_TYPE_VM").map(|it| it as i32),
        Some(3)
    );
    assert_eq!(
        DesiredState::from_str_name("DESIRED_STATE_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        DesiredState::from_str_name("DESIRED_STATE_RUNNING").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        DesiredState::from_str_name("DESIRED_STATE_STOPPED").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        ActualState::from_str_name("ACTUAL_STATE_UNSPECIFIED").map(|it| it as i32),
        Some(0)
    );
    assert_eq!(
        ActualState::from_str_name("ACTUAL_STATE_PENDING").map(|it| it as i32),
        Some(1)
    );
    assert_eq!(
        ActualState::from_str_name("ACTUAL_STATE_RUNNING").map(|it| it as i32),
        Some(2)
    );
    assert_eq!(
        ActualState::from_str_name("ACTUAL_STATE_STOPPED").map(|it| it as i32),
        Some(3)
    );
    assert_eq!(
        ActualState::from_str_name("ACTUAL_STATE_FAILED").map(|it| it as i32),
        Some(4)
    );
    assert_eq!(
        ActualState::from_str_name("ACTUAL_STATE_UNKNOWN").map(|it| it as i32),
        Some(5)
    );
}

#[test]
fn every_call_has_its_path() {
    let generated = include_str!("../../gen/persys.agent.v1.rs");
    let calls = [
        "/persys.agent.v1.AgentService/ApplyWorkload",
        "/persys.agent.v1.AgentService/DeleteWorkload",
        "/persys.agent.v1.AgentService/GetWorkloadStatus",
        "/persys.agent.v1.AgentService/ListWorkloads",
        "/persys.agent.v1.AgentService/HealthCheck",
        "/persys.agent.v1.AgentService/ListActions",
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

//! A unit as the engine's request to create a container. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use hostler_model::spec::{ContainerSpec, Protocol, WorkloadSpec};

use super::{LABEL_GRACE, LABEL_OWNER, LABEL_UNIT, LABEL_WORKLOAD};
use crate::{RuntimeError, Unit};

/// Of the engine's own log files, so that a container cannot fill the disk with words.
const LOG_BYTES: &str = "8m";
const LOG_FILES: &str = "4";

/// A name that people can read and that only this unit has.
pub(super) fn name_of(unit: &Unit) -> String {
    let short = unit.id.assignment.short();
    format!(
        "hostler-{}-{}-{short}-g{}",
        unit.workload_name, unit.slot, unit.id.generation
    )
}

/// Refuses what this driver would have to leave out.
pub(super) fn check(unit: &Unit) -> Result<(), RuntimeError> {
    let container = unit.spec.container.as_ref();
    match container.and_then(|container| container.volumes.first()) {
        None => Ok(()),
        Some(volume) => Err(RuntimeError::Unsatisfiable {
            code: "volumes-unsupported",
            message: format!(
                "this node's container driver manages no volumes, and `{}` is asked for",
                volume.name
            ),
        }),
    }
}

/// The whole request.
pub(super) fn body_of(unit: &Unit, owner: &str) -> ContainerCreateBody {
    let spec = &*unit.spec;
    let container = spec.container.as_ref();
    let of_container = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    ContainerCreateBody {
        image: container.map(|container| container.image.clone()),
        cmd: container.and_then(|container| of_container(&container.command)),
        entrypoint: container.and_then(|container| container.entrypoint.clone()),
        working_dir: container.and_then(|container| container.working_dir.clone()),
        user: container.and_then(|container| container.user.clone()),
        env: Some(environment(unit)),
        labels: Some(labels(unit, owner)),
        exposed_ports: Some(spec.ports.iter().map(target_of).collect()),
        stop_signal: Some(format!("SIG{}", spec.stop.signal)),
        // Only for people who stop it by hand; we count the grace ourselves, in milliseconds.
        stop_timeout: i64::try_from(spec.stop.grace_ms.div_ceil(1000)).ok(),
        host_config: Some(host_config(spec, container)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(spec: &WorkloadSpec, container: Option<&ContainerSpec>) -> HostConfig {
    let positive = |amount: u64| i64::try_from(amount).ok().filter(|amount| *amount > 0);
    let memory = spec
        .limits
        .memory
        .map_or(spec.resources.memory.0, |memory| memory.0);
    let nano_cpus = spec.limits.cpu.map(|cpu| cpu.0.saturating_mul(1_000_000));
    let log = [("max-size", LOG_BYTES), ("max-file", LOG_FILES)];
    HostConfig {
        nano_cpus: nano_cpus.and_then(positive),
        // The engine refuses fewer than two.
        cpu_shares: positive(spec.resources.cpu.0).map(|milli| (milli * 1024 / 1000).max(2)),
        memory: positive(memory),
        // No swap beside the memory, as for processes.
        memory_swap: positive(memory),
        pids_limit: spec.limits.pids.map(i64::from),
        ulimits: spec.limits.open_files.and_then(positive).map(|most| {
            vec![ResourcesUlimits {
                name: Some("nofile".to_owned()),
                soft: Some(most),
                hard: Some(most),
            }]
        }),
        port_bindings: Some(port_bindings(spec)),
        mounts: container.map(mounts),
        network_mode: container.and_then(|container| container.network.clone()),
        privileged: container.map(|container| container.privileged),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(
                log.map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
        }),
        ..HostConfig::default()
    }
}

fn port_bindings(spec: &WorkloadSpec) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        // Every address of the node, as the copy of a process would listen.
        let binding = PortBinding {
            host_ip: Some("0.0.0.0".to_owned()),
            host_port: Some(port.host.to_string()),
        };
        bindings
            .entry(target_of(port))
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    bindings
}

fn target_of(port: &hostler_model::spec::PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!("{}/{protocol}", port.target.unwrap_or(port.host))
}

fn mounts(container: &ContainerSpec) -> Vec<Mount> {
    let bind = |mount: &hostler_model::spec::Mount| Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    };
    container.mounts.iter().map(bind).collect()
}

fn environment(unit: &Unit) -> Vec<String> {
    let ours = [
        ("HOSTLER_WORKLOAD", unit.workload_name.clone()),
        ("HOSTLER_SLOT", unit.slot.to_string()),
        ("HOSTLER_ASSIGNMENT", unit.id.assignment.to_string()),
        ("HOSTLER_GENERATION", unit.id.generation.to_string()),
    ];
    let ours = ours
        .into_iter()
        .filter(|(key, _)| !unit.spec.env.contains_key(*key));
    let ours = ours.map(|(key, value)| format!("{key}={value}"));
    let theirs = unit
        .spec
        .env
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    ours.chain(theirs).collect()
}

/// The spec's labels first: ours win.
fn labels(unit: &Unit, owner: &str) -> HashMap<String, String> {
    let theirs = unit
        .spec
        .container
        .iter()
        .flat_map(|container| container.labels.clone());
    let mut labels: HashMap<String, String> = theirs.collect();
    labels.insert(LABEL_OWNER.to_owned(), owner.to_owned());
    labels.insert(LABEL_UNIT.to_owned(), unit.id.to_string());
    labels.insert(LABEL_WORKLOAD.to_owned(), unit.workload.to_string());
    labels.insert(LABEL_GRACE.to_owned(), unit.spec.stop.grace_ms.to_string());
    labels
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::spec::{Limits, PortMapping};
    use hostler_model::{AssignmentId, Bytes, MilliCpu, Timestamp, UnitId, WorkloadId};

    use super::*;

    #[test]
    fn a_spec_becomes_the_engines_words() {
        let mut spec = WorkloadSpec::of_container("web", "busybox:local", vec!["sh".to_owned()]);
        spec.resources.cpu = MilliCpu(500);
        spec.resources.memory = Bytes(64 << 20);
        spec.limits = Limits {
            cpu: Some(MilliCpu(1500)),
            ..Limits::default()
        };
        let mapping = |host, target, protocol| PortMapping {
            name: None,
            host,
            target,
            protocol,
        };
        spec.ports = vec![
            mapping(8081, Some(80), Protocol::Tcp),
            mapping(8082, Some(80), Protocol::Tcp),
        ];
        spec.env
            .insert("HOSTLER_SLOT".to_owned(), "mine".to_owned());
        let now = Timestamp::from_millis(1_700_000_000_000);
        let unit = Unit {
            id: UnitId {
                assignment: AssignmentId::mint(now, 7),
                generation: 3,
            },
            workload: WorkloadId::mint(now, 8),
            workload_name: "web".to_owned(),
            slot: 2,
            spec: Arc::new(spec),
        };
        assert_eq!(name_of(&unit), "hostler-web-2-00000007-g3");
        let body = body_of(&unit, "node");
        let host = body.host_config.unwrap();
        assert_eq!(
            (host.nano_cpus, host.cpu_shares),
            (Some(1_500_000_000), Some(512))
        );
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(64 << 20), Some(64 << 20))
        );
        assert_eq!(
            host.restart_policy.unwrap().name,
            Some(RestartPolicyNameEnum::NO)
        );
        let published = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
        assert_eq!(published.len(), 2, "two host ports lead to one");
        let environment = body.env.unwrap();
        assert!(
            environment.contains(&"HOSTLER_SLOT=mine".to_owned()),
            "{environment:?}"
        );
        assert_eq!(body.labels.unwrap()["hostler.owner"], "node");
    }

    #[test]
    fn a_managed_volume_is_refused_and_never_left_out() {
        let mut spec = WorkloadSpec::of_container("web", "busybox:local", Vec::new());
        let now = Timestamp::from_millis(1);
        let unit = |spec: &WorkloadSpec| Unit {
            id: UnitId {
                assignment: AssignmentId::mint(now, 7),
                generation: 1,
            },
            workload: WorkloadId::mint(now, 8),
            workload_name: "web".to_owned(),
            slot: 0,
            spec: Arc::new(spec.clone()),
        };
        assert!(check(&unit(&spec)).is_ok());
        let text = r#"{"name": "data", "target": "/data"}"#;
        let volume = serde_json::from_str(text).unwrap();
        spec.container.as_mut().unwrap().volumes.push(volume);
        let refused = check(&unit(&spec)).unwrap_err();
        assert!(refused.to_string().contains("`data`"), "{refused}");
    }

    #[test]
    fn a_container_is_privileged_only_if_its_spec_says_so() {
        let privileged = |asked: bool| {
            let mut spec = WorkloadSpec::of_container("web", "busybox:local", Vec::new());
            spec.container.as_mut().unwrap().privileged = asked;
            host_config(&spec, spec.container.as_ref()).privileged
        };
        assert_eq!(
            (privileged(true), privileged(false)),
            (Some(true), Some(false))
        );
    }
}

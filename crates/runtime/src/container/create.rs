//! A unit as the engine's request to create a container. Pure.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountTmpfsOptions, MountType, NetworkingConfig, PortBinding,
    ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use hostler_model::spec::{Capabilities, ContainerSpec, Healthcheck, Protocol, WorkloadSpec};

use super::{LABEL_GRACE, LABEL_OWNER, LABEL_UNIT, LABEL_VOLUMES, LABEL_WORKLOAD};
use crate::secrets::{self, Given};
use crate::{Attached, RuntimeError, Unit};

/// Of the engine's own log files, so that a container cannot fill the disk with words.
const LOG_BYTES: &str = "8m";
const LOG_FILES: &str = "4";
/// The engine's own default.
const LOG_DRIVER: &str = "json-file";
/// The drivers that know these bounds.
const BOUNDED_LOGS: [&str; 2] = [LOG_DRIVER, "local"];

/// A name that people can read and that only this unit has.
pub(super) fn name_of(unit: &Unit) -> String {
    let short = unit.id.assignment.short();
    format!(
        "hostler-{}-{}-{short}-g{}",
        unit.workload_name, unit.slot, unit.id.generation
    )
}

/// The whole request; the image is called as the engine knows it.
pub(super) fn body_of(unit: &Unit, image: &str, owner: &str) -> ContainerCreateBody {
    let spec = &*unit.spec;
    let container = spec.container.as_ref();
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: container.and_then(|container| listed(&container.command)),
        entrypoint: container.and_then(|container| container.entrypoint.clone()),
        working_dir: container.and_then(|container| container.working_dir.clone()),
        user: container.and_then(|container| container.user.clone()),
        env: Some(environment(unit)),
        labels: Some(labels(unit, owner)),
        exposed_ports: Some(spec.ports.iter().map(target_of).collect()),
        stop_signal: Some(format!("SIG{}", spec.stop.signal)),
        // Only for people who stop it by hand; we count the grace ourselves, in milliseconds.
        stop_timeout: i64::try_from(spec.stop.grace_ms.div_ceil(1000)).ok(),
        hostname: container.and_then(|container| container.hostname.clone()),
        healthcheck: container
            .and_then(|it| it.healthcheck.as_ref())
            .map(healthcheck),
        networking_config: container.and_then(endpoints),
        host_config: Some(HostConfig {
            mounts: container.map(|container| mounts(container, &unit.volumes)),
            ..host_config(spec, container)
        }),
        ..ContainerCreateBody::default()
    }
}

/// The same with the secrets: variables in clear, as the engine wants them and keeps them, and the places of files.
pub(super) fn with_secrets(
    mut body: ContainerCreateBody,
    files: &[hostler_model::spec::Mount],
    given: &[Given],
) -> Result<ContainerCreateBody, RuntimeError> {
    let env = body.env.get_or_insert_default();
    for (name, value) in secrets::variables(given)? {
        env.push(format!(
            "{name}={}",
            String::from_utf8_lossy(value.reveal())
        ));
    }
    if !files.is_empty() {
        let host = body.host_config.get_or_insert_default();
        let mounts = host.mounts.get_or_insert_default();
        mounts.extend(files.iter().map(bound));
    }
    Ok(body)
}

fn host_config(spec: &WorkloadSpec, container: Option<&ContainerSpec>) -> HostConfig {
    let memory = spec
        .limits
        .memory
        .map_or(spec.resources.memory.0, |memory| memory.0);
    let nano_cpus = spec.limits.cpu.map(|cpu| cpu.0.saturating_mul(1_000_000));
    HostConfig {
        nano_cpus: nano_cpus.and_then(positive),
        // The engine refuses fewer than two.
        cpu_shares: positive(spec.resources.cpu.0).map(|milli| (milli * 1024 / 1000).max(2)),
        memory: positive(memory),
        // No swap beside the memory, as for processes.
        memory_swap: positive(memory),
        pids_limit: spec.limits.pids.map(i64::from),
        ulimits: ulimits(spec, container),
        port_bindings: Some(port_bindings(spec)),
        network_mode: container.and_then(|container| container.network.clone()),
        dns: container.and_then(|container| listed(&container.dns)),
        extra_hosts: container.and_then(extra_hosts),
        privileged: container.map(|container| container.privileged),
        cap_add: container.and_then(|it| capabilities(&it.capabilities.add)),
        cap_drop: container.and_then(|it| capabilities(&it.capabilities.drop)),
        devices: container.and_then(devices),
        readonly_rootfs: container.map(|container| container.read_only),
        shm_size: container
            .and_then(|it| it.shm_size)
            .and_then(|size| positive(size.0)),
        init: container.filter(|container| container.init).map(|_| true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(log_config(container)),
        ..HostConfig::default()
    }
}

fn listed(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn ulimits(
    spec: &WorkloadSpec,
    container: Option<&ContainerSpec>,
) -> Option<Vec<ResourcesUlimits>> {
    let ulimit = |name: &str, soft: i64, hard: i64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft),
        hard: Some(hard),
    };
    let files = spec.limits.open_files.and_then(positive);
    let files = files.map(|most| ulimit("nofile", most, most));
    let others = container
        .into_iter()
        .flat_map(|container| &container.ulimits);
    let others = others.map(|(name, it)| ulimit(name, it.soft, it.hard.unwrap_or(it.soft)));
    let all: Vec<ResourcesUlimits> = files.into_iter().chain(others).collect();
    (!all.is_empty()).then_some(all)
}

fn positive(amount: u64) -> Option<i64> {
    i64::try_from(amount).ok().filter(|amount| *amount > 0)
}

fn capabilities(names: &[String]) -> Option<Vec<String>> {
    let names: Vec<String> = names.iter().map(|name| Capabilities::plain(name)).collect();
    listed(&names)
}

fn devices(container: &ContainerSpec) -> Option<Vec<DeviceMapping>> {
    let device = |device: &hostler_model::spec::Device| DeviceMapping {
        path_on_host: Some(device.source.clone()),
        path_in_container: Some(
            device
                .target
                .clone()
                .unwrap_or_else(|| device.source.clone()),
        ),
        cgroup_permissions: Some(
            device
                .permissions
                .clone()
                .unwrap_or_else(|| "rwm".to_owned()),
        ),
    };
    let devices: Vec<DeviceMapping> = container.devices.iter().map(device).collect();
    (!devices.is_empty()).then_some(devices)
}

fn extra_hosts(container: &ContainerSpec) -> Option<Vec<String>> {
    let hosts = container.extra_hosts.iter();
    let hosts: Vec<String> = hosts
        .map(|(name, address)| format!("{name}:{address}"))
        .collect();
    listed(&hosts)
}

/// The engine joins the network by its mode; only further names need an endpoint of their own.
fn endpoints(container: &ContainerSpec) -> Option<NetworkingConfig> {
    let network = container.named_network()?;
    let settings = EndpointSettings {
        aliases: Some(listed(&container.aliases)?),
        ..EndpointSettings::default()
    };
    Some(NetworkingConfig {
        endpoints_config: Some(HashMap::from([(network.to_owned(), settings)])),
    })
}

fn healthcheck(check: &Healthcheck) -> HealthConfig {
    let nanos = |millis: Option<u64>| {
        millis.and_then(|millis| i64::try_from(millis.saturating_mul(1_000_000)).ok())
    };
    let words = |first: &str| {
        let first = std::iter::once(first.to_owned());
        Some(first.chain(check.command.iter().cloned()).collect())
    };
    HealthConfig {
        test: match (check.disabled, check.command.is_empty()) {
            (true, _) => words("NONE"),
            (false, true) => None,
            (false, false) => words("CMD"),
        },
        interval: nanos(check.interval_ms),
        timeout: nanos(check.timeout_ms),
        start_period: nanos(check.start_period_ms),
        retries: check.retries.map(i64::from),
        start_interval: None,
    }
}

fn log_config(container: Option<&ContainerSpec>) -> HostConfigLogConfig {
    let asked = container.and_then(|container| container.log.as_ref());
    let driver = asked.map_or(LOG_DRIVER, |log| &log.driver);
    let bounds = [("max-size", LOG_BYTES), ("max-file", LOG_FILES)];
    let bounds = bounds
        .into_iter()
        .filter(|_| BOUNDED_LOGS.contains(&driver));
    let bounds = bounds.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let asked_options = asked.map(|log| log.options.clone()).unwrap_or_default();
    HostConfigLogConfig {
        typ: Some(driver.to_owned()),
        config: Some(bounds.chain(asked_options).collect()),
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

fn bound(mount: &hostler_model::spec::Mount) -> Mount {
    Mount {
        typ: Some(if mount.is_volume() {
            MountType::VOLUME
        } else {
            MountType::BIND
        }),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}

fn mounts(container: &ContainerSpec, volumes: &[Attached]) -> Vec<Mount> {
    let tmpfs = |tmpfs: &hostler_model::spec::Tmpfs| Mount {
        typ: Some(MountType::TMPFS),
        target: Some(tmpfs.target.clone()),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: tmpfs.size.and_then(|size| positive(size.0)),
            mode: tmpfs.mode_bits().map(i64::from),
            options: None,
        }),
        ..Mount::default()
    };
    let volume = |volume: &Attached| Mount {
        typ: Some(MountType::BIND),
        source: Some(volume.place.path().to_string_lossy().into_owned()),
        target: Some(volume.target.clone()),
        read_only: Some(volume.read_only),
        ..Mount::default()
    };
    let binds = container.mounts.iter().map(bound);
    let binds = binds.chain(volumes.iter().map(volume));
    binds.chain(container.tmpfs.iter().map(tmpfs)).collect()
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
    let mut mounts = unit.spec.container.iter().flat_map(|spec| &spec.mounts);
    if mounts.any(hostler_model::spec::Mount::is_volume) {
        labels.insert(LABEL_VOLUMES.to_owned(), "kept".to_owned());
    }
    labels
}

#[cfg(test)]
mod tests;

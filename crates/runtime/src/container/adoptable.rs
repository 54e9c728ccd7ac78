//! What runs on the engine that nobody of ours made, and the spec that each container would become. The spec says
//! only what differs from the image, so that the next one made from it is as this one was.

mod surroundings;
mod unsaid;

use std::collections::BTreeMap;

use bollard::models::{
    ContainerConfig, ContainerInspectResponse, ContainerSummary, HealthConfig, HostConfig,
    ImageConfig,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use hostler_model::spec::{
    Capabilities, ContainerSpec, Device, HealthSpec, Healthcheck, Restart, RestartPolicy,
    UlimitRange, WorkloadSpec, near_name,
};
use hostler_model::{Bytes, MilliCpu};

use self::surroundings::{hostname, in_memory, log, mounts, network, ports};
use super::engine::{Attempt as _, readable};
use super::{Inner, is_ours};
use crate::{Adoptable, RuntimeError};

/// What compose and its like write on what they make; of no use to somebody else.
const TOOLS_LABELS: [&str; 3] = ["com.docker.", "io.podman.", "desktop.docker."];
/// Of `/dev/shm`, as Docker and Podman make it.
const USUAL_SHM: [i64; 2] = [64 << 20, 65_536_000];
/// Of the engine's scheduler, in microseconds.
const USUAL_PERIOD: u64 = 100_000;
impl Inner {
    /// Every running container that is nobody's of Hostler's, in the order of their names.
    pub(super) async fn strangers(&self) -> Result<Vec<Adoptable>, RuntimeError> {
        let docker = self.engine.docker().await?;
        let listed = readable(|| docker.list_containers(None::<ListContainersOptions>)).await;
        let adopted = self.adoptions.living().await?;
        let is_stranger = |summary: &ContainerSummary| {
            let labels = summary.labels.as_ref();
            !labels.is_some_and(is_ours) && adopted.iter().all(|it| it.container != summary.id)
        };
        let mut strangers = Vec::new();
        for summary in listed.or_down()?.into_iter().filter(is_stranger) {
            let id = summary.id.unwrap_or_default();
            let options = None::<InspectContainerOptions>;
            let answer = readable(|| docker.inspect_container(&id, options.clone())).await;
            let seen = match answer.attempt()? {
                Ok(seen) => seen,
                // It ended since it was listed.
                Err(refused) if refused.is_not_found() => continue,
                Err(refused) => return Err(refused.of_engine()),
            };
            let image = seen.image.clone().unwrap_or_default();
            let image = match docker.inspect_image(&image).await.attempt()? {
                Ok(image) => image.config.unwrap_or_default(),
                // The container ended, and its image went with it.
                Err(refused) if refused.is_not_found() => continue,
                Err(refused) => return Err(refused.of_engine()),
            };
            strangers.push(adoptable(seen, &image));
        }
        strangers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(strangers)
    }
}

/// The spec of a container.
pub(super) fn adoptable(seen: ContainerInspectResponse, image: &ImageConfig) -> Adoptable {
    let mut notes = unsaid::notes(&seen);
    let name = seen.name.unwrap_or_default();
    let name = name.trim_start_matches('/').to_owned();
    let config = seen.config.unwrap_or_default();
    let host = seen.host_config.unwrap_or_default();
    let mut container = container(&config, &host, image, &mut notes);
    container.hostname = hostname(&config, &host, &seen.id.unwrap_or_default());
    mounts(seen.mounts.unwrap_or_default(), &mut container, &mut notes);
    let entrypoint = container
        .entrypoint
        .clone()
        .or_else(|| image.entrypoint.clone());
    if entrypoint.is_none() && container.command.is_empty() && image.cmd.is_none() {
        notes.push("it has no command of its own".to_owned());
    }
    container.adopt = Some(name.clone());
    let health = container.healthcheck.is_some() || image.healthcheck.is_some();
    let spec = WorkloadSpec {
        env: environment(&config, image),
        health: health.then(|| HealthSpec {
            native: true,
            ..HealthSpec::default()
        }),
        ports: ports(&host, &mut notes),
        restart: restart(&host),
        container: Some(container),
        ..WorkloadSpec::bare(&near_name(&name))
    };
    Adoptable {
        name,
        spec: bounded(spec, &config, &host, &mut notes),
        notes,
        shares_node: unsaid::shares_node(&host),
    }
}

/// An amount that the engine was told.
fn amount(amount: Option<i64>) -> Option<u64> {
    let amount = amount.and_then(|it| u64::try_from(it).ok());
    amount.filter(|it| *it > 0)
}

fn bounded(
    mut spec: WorkloadSpec,
    config: &ContainerConfig,
    host: &HostConfig,
    notes: &mut Vec<String>,
) -> WorkloadSpec {
    spec.limits.memory = amount(host.memory).map(Bytes);
    match amount(host.memory_reservation) {
        Some(reserved) if spec.limits.memory.is_some() => spec.resources.memory = Bytes(reserved),
        // A claim without a limit would be the limit.
        Some(reserved) => notes.push(format!(
            "it reserves {reserved} bytes of memory without a limit; the next one reserves none"
        )),
        None => {}
    }
    let quota = amount(host.cpu_quota).map(|quota| {
        let period = amount(host.cpu_period).unwrap_or(USUAL_PERIOD);
        MilliCpu(quota.saturating_mul(1000) / period)
    });
    let nanos = amount(host.nano_cpus).map(|nanos| MilliCpu(nanos / 1_000_000));
    spec.limits.cpu = nanos.or(quota);
    spec.limits.pids = amount(host.pids_limit).and_then(|it| u32::try_from(it).ok());
    if let Some(signal) = &config.stop_signal {
        spec.stop.signal = signal.strip_prefix("SIG").unwrap_or(signal).to_owned();
    }
    if let Some(seconds) = amount(config.stop_timeout) {
        spec.stop.grace_ms = seconds.saturating_mul(1000);
    }
    spec
}

fn container(
    config: &ContainerConfig,
    host: &HostConfig,
    image: &ImageConfig,
    notes: &mut Vec<String>,
) -> ContainerSpec {
    let reference = config.image.clone().unwrap_or_default();
    if reference.starts_with("sha256:") {
        notes.push(
            "its image has no name: name one under `container.image` before you change anything"
                .to_owned(),
        );
    }
    let own = |own: &Option<String>, images: &Option<String>| {
        own.clone()
            .filter(|text| !text.is_empty() && Some(text) != images.as_ref())
    };
    let mut spec = ContainerSpec::new(&reference, Vec::new());
    if config.entrypoint != image.entrypoint {
        spec.entrypoint = config.entrypoint.clone().filter(|words| !words.is_empty());
    }
    if config.cmd != image.cmd {
        spec.command = config.cmd.clone().unwrap_or_default();
    }
    spec.working_dir = own(&config.working_dir, &image.working_dir);
    spec.user = own(&config.user, &image.user);
    spec.labels = labels(config, image);
    spec.healthcheck = config
        .healthcheck
        .as_ref()
        .filter(|it| Some(*it) != image.healthcheck.as_ref())
        .map(healthcheck);
    spec.privileged = host.privileged.unwrap_or(false);
    spec.read_only = host.readonly_rootfs.unwrap_or(false);
    spec.init = host.init.unwrap_or(false);
    let names = |names: &Option<Vec<String>>| {
        let names = names.iter().flatten();
        names.map(|name| Capabilities::plain(name)).collect()
    };
    spec.capabilities = Capabilities {
        add: names(&host.cap_add),
        drop: names(&host.cap_drop),
    };
    spec.dns = host.dns.clone().unwrap_or_default();
    spec.extra_hosts = host
        .extra_hosts
        .iter()
        .flatten()
        .filter_map(|it| pair(it, ':'))
        .collect();
    spec.devices = host
        .devices
        .iter()
        .flatten()
        .filter_map(|it| {
            Some(Device {
                source: it.path_on_host.clone()?,
                target: it
                    .path_in_container
                    .clone()
                    .filter(|path| Some(path) != it.path_on_host.as_ref()),
                permissions: it.cgroup_permissions.clone().filter(|it| it != "rwm"),
            })
        })
        .collect();
    spec.ulimits = host
        .ulimits
        .iter()
        .flatten()
        .filter_map(|it| {
            Some((
                it.name.clone()?,
                UlimitRange {
                    soft: it.soft?,
                    hard: it.hard,
                },
            ))
        })
        .collect();
    let shm = host.shm_size.filter(|size| !USUAL_SHM.contains(size));
    spec.shm_size = amount(shm).map(Bytes);
    spec.tmpfs = in_memory(host, notes);
    spec.log = log(host, notes);
    spec.network = network(host, notes);
    if config.tty == Some(true) {
        notes.push("it has a terminal; the next one has none".to_owned());
    }
    spec
}

fn labels(config: &ContainerConfig, image: &ImageConfig) -> BTreeMap<String, String> {
    let of_image = |key: &str| image.labels.as_ref().and_then(|labels| labels.get(key));
    let labels = config.labels.clone().unwrap_or_default().into_iter();
    let own = labels.filter(|(key, value)| {
        of_image(key) != Some(value) && !TOOLS_LABELS.iter().any(|it| key.starts_with(it))
    });
    own.collect()
}

fn environment(config: &ContainerConfig, image: &ImageConfig) -> BTreeMap<String, String> {
    let of_image = image.env.clone().unwrap_or_default();
    let env = config
        .env
        .iter()
        .flatten()
        .filter(|it| !of_image.contains(it));
    env.filter_map(|it| pair(it, '=')).collect()
}

fn pair(text: &str, between: char) -> Option<(String, String)> {
    let (name, value) = text.split_once(between)?;
    Some((name.to_owned(), value.to_owned()))
}

fn healthcheck(check: &HealthConfig) -> Healthcheck {
    let millis = |nanos: Option<i64>| {
        nanos
            .and_then(|it| u64::try_from(it / 1_000_000).ok())
            .filter(|it| *it > 0)
    };
    Healthcheck {
        interval_ms: millis(check.interval),
        timeout_ms: millis(check.timeout),
        start_period_ms: millis(check.start_period),
        retries: check
            .retries
            .and_then(|it| u32::try_from(it).ok())
            .filter(|it| *it > 0),
        ..Healthcheck::of_engine(check.test.as_deref().unwrap_or_default())
    }
}

fn restart(host: &HostConfig) -> Restart {
    use bollard::models::RestartPolicyNameEnum as Name;
    let policy = host.restart_policy.clone().unwrap_or_default();
    let (policy, retries) = match policy.name {
        Some(Name::ALWAYS) => (RestartPolicy::Always, None),
        Some(Name::UNLESS_STOPPED) => (RestartPolicy::UnlessStopped, None),
        Some(Name::ON_FAILURE) => (RestartPolicy::OnFailure, policy.maximum_retry_count),
        _ => (RestartPolicy::No, None),
    };
    Restart {
        policy,
        retries: retries
            .and_then(|it| u32::try_from(it).ok())
            .filter(|it| *it > 0),
        ..Restart::default()
    }
}

#[cfg(test)]
mod tests;

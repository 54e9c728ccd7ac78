//! One service as a workload with a container.

use std::collections::BTreeMap;

use hostler_model::spec::{
    Capabilities, ContainerSpec, HealthSpec, Healthcheck, LogDriver, PullPolicy, Restart,
    RestartPolicy, UlimitRange, WorkloadSpec, near_name,
};
use hostler_runtime::compose::millis;
use serde_json::Value;

use super::keys::{Keys, scalar};
use super::{places, units};

/// Logs of other drivers could not be read back.
const LOG_DRIVERS: [&str; 3] = ["json-file", "local", "journald"];

/// Whether the service belongs to no profile, or to one that is taken along.
pub(super) fn is_on(keys: &mut Keys<'_>, profiles: &[String]) -> bool {
    let own = keys.list("profiles");
    let is_on = own.is_empty()
        || own
            .iter()
            .any(|it| profiles.iter().any(|on| on == it || on == "*"));
    if !is_on {
        keys.note(&format!(
            "is left out: `--profile {}` takes it along",
            own[0]
        ));
    }
    is_on
}

/// The service's workload; none if there is no image to run.
pub(super) fn spec(name: &str, keys: &mut Keys<'_>, file: &Value) -> Option<WorkloadSpec> {
    let is_built = keys.take("build").is_some();
    let Some(image) = keys.text("image") else {
        keys.note("is left out: it is built from a directory and has no image; build one, push it, and name it");
        return None;
    };
    if is_built {
        keys.note(&format!(
            "is built from a directory: see that the nodes can pull {image}"
        ));
    }
    let mut spec = WorkloadSpec::of_container(&near_name(name), &image, Vec::new());
    spec.env = keys.pairs("environment", '=');
    let ports = keys.take("ports");
    for port in ports
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        spec.ports.extend(places::port(port, keys));
    }
    let mut container = container(&image, keys, file);
    container.healthcheck = healthcheck(keys);
    let checks = container.healthcheck.as_ref();
    if let Some(check) = checks.filter(|check| !check.disabled) {
        let usual = HealthSpec::default();
        spec.health = Some(HealthSpec {
            native: true,
            interval_ms: check.interval_ms.unwrap_or(usual.interval_ms).max(100),
            start_period_ms: check.start_period_ms.unwrap_or_default(),
            ..usual
        });
    }
    spec.container = Some(container);
    amounts(keys, &mut spec);
    spec.restart = restart(keys);
    deploy(keys, &mut spec);
    stopping(keys, &mut spec);
    waiting(keys);
    keys.finish();
    Some(spec)
}

fn container(image: &str, keys: &mut Keys<'_>, file: &Value) -> ContainerSpec {
    let mut container = ContainerSpec::new(image, keys.words("command").unwrap_or_default());
    container.entrypoint = keys.words("entrypoint").filter(|words| !words.is_empty());
    container.working_dir = keys.text("working_dir");
    container.user = keys.text("user");
    container.hostname = keys.text("hostname");
    container.pull = match keys.text("pull_policy").as_deref() {
        Some("always") => PullPolicy::Always,
        Some("never") => PullPolicy::Never,
        _ => PullPolicy::Missing,
    };
    let volumes = keys.take("volumes");
    for volume in volumes
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        places::volume(volume, &mut container, keys);
    }
    let tmpfs = keys.list("tmpfs");
    container
        .tmpfs
        .extend(tmpfs.iter().map(|text| places::tmpfs(text)));
    let devices = keys.take("devices");
    let devices = devices
        .as_ref()
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    container.devices = devices.filter_map(places::device).collect();
    container.dns = keys.list("dns");
    container.extra_hosts = extra_hosts(keys);
    container.labels = keys.pairs("labels", '=');
    container.privileged = keys.flag("privileged");
    container.read_only = keys.flag("read_only");
    container.init = keys.flag("init");
    container.capabilities = Capabilities {
        add: keys.list("cap_add"),
        drop: keys.list("cap_drop"),
    };
    container.shm_size = keys.text("shm_size").as_deref().and_then(units::size);
    container.ulimits = ulimits(keys);
    container.log = log(keys);
    network(keys, file, &mut container);
    container
}

/// `name:address`, `name=address`, or a section.
fn extra_hosts(keys: &mut Keys<'_>) -> BTreeMap<String, String> {
    let hosts = keys.pairs("extra_hosts", '=');
    let split = |(name, address): (String, String)| match name.split_once(':') {
        Some((name, rest)) if address.is_empty() => (name.to_owned(), rest.to_owned()),
        _ => (name, address),
    };
    hosts.into_iter().map(split).collect()
}

fn ulimits(keys: &mut Keys<'_>) -> BTreeMap<String, UlimitRange> {
    let Some(Value::Object(limits)) = keys.take("ulimits") else {
        return BTreeMap::new();
    };
    let range = |value: &Value| match value {
        Value::Object(both) => Some(UlimitRange {
            soft: both.get("soft").and_then(Value::as_i64)?,
            hard: both.get("hard").and_then(Value::as_i64),
        }),
        single => Some(UlimitRange {
            soft: single.as_i64()?,
            hard: None,
        }),
    };
    limits
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), range(value)?)))
        .collect()
}

fn log(keys: &mut Keys<'_>) -> Option<LogDriver> {
    let logging = keys.take("logging")?;
    let driver = logging
        .get("driver")
        .and_then(scalar)
        .unwrap_or_else(|| LOG_DRIVERS[0].to_owned());
    if !LOG_DRIVERS.contains(&driver.as_str()) {
        keys.note(&format!(
            "logs by `{driver}`, which cannot be read back; the usual driver takes its place"
        ));
        return None;
    }
    let options = logging
        .get("options")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let options = options.filter_map(|(name, value)| Some((name.clone(), scalar(value)?)));
    Some(LogDriver {
        driver,
        options: options.collect(),
    })
}

/// The engine's own modes, or a network that exists outside of the project.
fn network(keys: &mut Keys<'_>, file: &Value, container: &mut ContainerSpec) {
    match keys.text("network_mode").as_deref() {
        None => {}
        Some(mode) if ContainerSpec::MODES.contains(&mode) => {
            container.network = Some(mode.to_owned())
        }
        Some(mode) => keys.note(&format!(
            "shares a network by `{mode}`, which only a project can; it is left out"
        )),
    }
    let networks = match keys.take("networks") {
        Some(Value::Object(networks)) => networks,
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(scalar)
            .map(|name| (name, Value::Null))
            .collect(),
        _ => return,
    };
    for (name, settings) in networks.iter().filter(|(name, _)| *name != "default") {
        let told = file.get("networks").and_then(|it| it.get(name));
        let is_external = told
            .and_then(|it| it.get("external"))
            .is_some_and(|it| *it != Value::Bool(false));
        if !is_external || container.network.is_some() {
            keys.note(&format!(
                "joins the project's network `{name}`; it is left out"
            ));
            continue;
        }
        let real = told.and_then(|it| it.get("name")).and_then(scalar);
        container.network = Some(real.unwrap_or_else(|| name.clone()));
        let aliases = settings
            .get("aliases")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        container.aliases = aliases.filter_map(scalar).collect();
    }
}

fn healthcheck(keys: &mut Keys<'_>) -> Option<Healthcheck> {
    let check = keys.take("healthcheck")?;
    let span = |key: &str| check.get(key).and_then(scalar).as_deref().and_then(millis);
    let words: Vec<String> = match check.get("test") {
        Some(Value::Array(words)) => words.iter().filter_map(scalar).collect(),
        Some(text) => scalar(text)
            .map(|text| vec!["CMD-SHELL".to_owned(), text])
            .unwrap_or_default(),
        None => Vec::new(),
    };
    let is_off = check.get("disable") == Some(&Value::Bool(true));
    let retries = check.get("retries").and_then(Value::as_u64);
    let told = Healthcheck::of_engine(&words);
    Some(Healthcheck {
        interval_ms: span("interval"),
        timeout_ms: span("timeout"),
        start_period_ms: span("start_period"),
        retries: retries.and_then(|it| u32::try_from(it).ok()),
        disabled: is_off || told.disabled,
        ..told
    })
}

/// Amounts in the older places.
fn amounts(keys: &mut Keys<'_>, spec: &mut WorkloadSpec) {
    let mut size = |key: &str| keys.text(key).as_deref().and_then(units::size);
    let (limit, reservation) = (size("mem_limit"), size("mem_reservation"));
    spec.limits.memory = limit;
    spec.resources.memory = reservation.or(limit).unwrap_or_default();
    spec.limits.cpu = keys.text("cpus").as_deref().and_then(units::cpu);
    spec.limits.pids = keys.text("pids_limit").and_then(|it| it.parse().ok());
    if let Some(count) = keys.text("scale").and_then(|it| it.parse().ok()) {
        spec.count = count;
    }
}

/// Without a word, compose starts nothing again.
fn restart(keys: &mut Keys<'_>) -> Restart {
    let word = keys.text("restart").unwrap_or_default();
    let (word, count) = word.split_once(':').unwrap_or((&word, ""));
    Restart {
        policy: policy(word).unwrap_or(RestartPolicy::No),
        retries: count.parse().ok(),
        ..Restart::default()
    }
}

fn policy(word: &str) -> Option<RestartPolicy> {
    match word {
        "always" | "any" => Some(RestartPolicy::Always),
        "on-failure" => Some(RestartPolicy::OnFailure),
        "unless-stopped" => Some(RestartPolicy::UnlessStopped),
        "no" | "none" => Some(RestartPolicy::No),
        _ => None,
    }
}

fn deploy(keys: &mut Keys<'_>, spec: &mut WorkloadSpec) {
    let Some(deploy) = keys.take("deploy") else {
        return;
    };
    let at = |path: &str| deploy.pointer(path).and_then(scalar);
    if let Some(count) = at("/replicas").and_then(|it| it.parse().ok()) {
        spec.count = count;
    }
    let size = |path: &str| at(path).as_deref().and_then(units::size);
    let cpu = |path: &str| at(path).as_deref().and_then(units::cpu);
    if let Some(memory) = size("/resources/limits/memory") {
        spec.limits.memory = Some(memory);
        spec.resources.memory = memory;
    }
    if let Some(memory) = size("/resources/reservations/memory") {
        spec.resources.memory = memory;
    }
    spec.limits.cpu = cpu("/resources/limits/cpus").or(spec.limits.cpu);
    spec.resources.cpu = cpu("/resources/reservations/cpus").unwrap_or(spec.resources.cpu);
    spec.limits.pids = at("/resources/limits/pids")
        .and_then(|it| it.parse().ok())
        .or(spec.limits.pids);
    if let Some(policy) = at("/restart_policy/condition").as_deref().and_then(policy) {
        spec.restart.policy = policy;
        let count = at("/restart_policy/max_attempts").and_then(|it| it.parse().ok());
        spec.restart.retries = count.filter(|_| policy == RestartPolicy::OnFailure);
    }
    if deploy.pointer("/resources/reservations/devices").is_some() {
        keys.note("reserves devices such as GPUs; that is left out");
    }
    for key in [
        "placement",
        "update_config",
        "rollback_config",
        "endpoint_mode",
        "mode",
    ] {
        if deploy.get(key).is_some() {
            keys.note(&format!(
                "says `deploy.{key}`; `placement` and `update` of the spec are for that"
            ));
        }
    }
}

fn stopping(keys: &mut Keys<'_>, spec: &mut WorkloadSpec) {
    if let Some(signal) = keys.text("stop_signal") {
        let signal = signal.to_ascii_uppercase();
        spec.stop.signal = signal.strip_prefix("SIG").unwrap_or(&signal).to_owned();
    }
    if let Some(grace) = keys.text("stop_grace_period").as_deref().and_then(millis) {
        spec.stop.grace_ms = grace;
    }
}

fn waiting(keys: &mut Keys<'_>) {
    let names: Vec<String> = match keys.take("depends_on") {
        Some(Value::Array(names)) => names.iter().filter_map(scalar).collect(),
        Some(Value::Object(names)) => names.keys().cloned().collect(),
        _ => return,
    };
    if !names.is_empty() {
        keys.note(&format!("starts without waiting for {}", names.join(", ")));
    }
}

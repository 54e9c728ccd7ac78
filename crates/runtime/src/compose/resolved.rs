//! What compose makes of a project's file, and what we put over it. Pure.
//!
//! The override says of each service whose it is, and takes restarts away from the engine: it would revive what
//! has moved away, and the agent restarts by the workload's policy. A service that names no log driver gets one
//! that cannot fill the disk.

use std::collections::BTreeMap;

use hostler_model::FailureCode;
use hostler_model::spec::WorkloadSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::project::Service;
use super::{LABEL_GRACE, LABEL_OWNER, LABEL_UNIT, LABEL_WORKLOAD};
use crate::{Asks, RuntimeError, Unit};

const LOG_BYTES: &str = "8m";
const LOG_FILES: &str = "4";

/// The file with its variables filled in, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resolved {
    version: Option<String>,
    services: BTreeMap<String, ResolvedService>,
    volumes: BTreeMap<String, Option<ResolvedVolume>>,
    networks: BTreeMap<String, Option<ResolvedNetwork>>,
    secrets: BTreeMap<String, Option<ResolvedFile>>,
    configs: BTreeMap<String, Option<ResolvedFile>>,
    /// Files that it was read from: see `given`.
    #[serde(skip)]
    files: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResolvedService {
    image: Option<String>,
    build: Option<Value>,
    deploy: Option<Deploy>,
    scale: Option<Value>,
    depends_on: Option<Value>,
    stop_grace_period: Option<String>,
    stop_signal: Option<String>,
    profiles: Vec<String>,
    pull_policy: Option<String>,
    logging: Option<Value>,
    user: Option<Value>,
    privileged: Option<bool>,
    cap_add: Vec<String>,
    devices: Vec<Value>,
    volumes: Vec<Value>,
    network_mode: Option<String>,
    networks: Option<Value>,
    // Each of these takes a wall between the container and the node away.
    pid: Option<String>,
    ipc: Option<String>,
    userns_mode: Option<String>,
    security_opt: Vec<String>,
    device_cgroup_rules: Vec<String>,
    cgroup_parent: Option<String>,
    /// The engine's socket, with which one is root of the node.
    use_api_socket: Option<bool>,
    /// `container:…` has what a container of anybody sees.
    volumes_from: Vec<String>,
    post_start: Vec<Hook>,
    pre_stop: Vec<Hook>,
}

/// A command inside the service's container, which may have rights that the service has not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Hook {
    user: Option<Value>,
    privileged: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResolvedVolume {
    external: Option<Value>,
    name: Option<String>,
    driver_opts: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResolvedNetwork {
    external: Option<Value>,
    name: Option<String>,
    driver: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ResolvedFile {
    file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Deploy {
    replicas: Option<Value>,
}

/// An image that has to be here before the project starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NeededImage {
    pub(super) service: String,
    pub(super) image: String,
    /// `always`, `never`, or another word that means: if it is missing.
    pub(super) policy: String,
}

pub(super) fn invalid(message: impl Into<String>) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::ComposeInvalid,
        message: message.into(),
    }
}

impl Resolved {
    /// Reads what `compose config` printed.
    pub(super) fn read(text: &str) -> Result<Self, RuntimeError> {
        let read: Self = serde_saphyr::from_str(text)
            .map_err(|error| invalid(format!("what compose makes of the file: {error}")))?;
        if read.version.as_deref() == Some("1") {
            return Err(invalid(
                "the file is of the first form, without `services`; put its services under `services:`",
            ));
        }
        if read.services.is_empty() {
            return Err(invalid("the file has no services"));
        }
        Ok(read)
    }

    /// The services as they are kept on record. Those of a profile that is not on have no container.
    pub(super) fn services(&self, profiles: Option<&String>) -> BTreeMap<String, Service> {
        let on: Vec<&str> =
            profiles.map_or_else(Vec::new, |it| it.split(',').map(str::trim).collect());
        let of = |service: &ResolvedService| Service {
            is_wanted: service.has_containers() && service.is_on(&on),
            grace_ms: service.stop_grace_period.as_deref().and_then(millis),
            depends_on: service.dependencies(),
        };
        self.services
            .iter()
            .map(|(name, service)| (name.clone(), of(service)))
            .collect()
    }

    /// The services that are built on the node.
    pub(super) fn built(&self) -> Vec<String> {
        let built = self.services.iter();
        built
            .filter(|(_, service)| service.build.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The images that are pulled.
    pub(super) fn images(&self) -> Vec<NeededImage> {
        let pulled = self.services.iter();
        let pulled =
            pulled.filter(|(_, service)| service.build.is_none() && service.has_containers());
        pulled
            .filter_map(|(name, service)| {
                Some(NeededImage {
                    service: name.clone(),
                    image: service.image.clone()?,
                    policy: service.pull_policy.clone().unwrap_or_default(),
                })
            })
            .collect()
    }

    /// The text of the override. JSON is YAML, and needs no quoting of ours.
    pub(super) fn covered(&self, unit: &Unit, owner: &str) -> String {
        let services = self.services.iter();
        let services: serde_json::Map<String, Value> = services
            .map(|(name, service)| (name.clone(), service.covered(unit, owner)))
            .collect();
        json!({ "services": services }).to_string()
    }
}

impl ResolvedService {
    /// The node's paths that it is built from.
    fn read_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        if let Some(build) = &self.build {
            let of = |key: &str| build.get(key);
            let parts = [
                of("context").or(Some(build)),
                of("dockerfile"),
                of("additional_contexts"),
            ];
            for part in parts.into_iter().flatten() {
                texts(part, &mut paths);
            }
        }
        // In a list, additional contexts have their names before them.
        let paths = paths.into_iter().map(|it| match it.split_once("=/") {
            Some((name, rest)) if !name.contains('/') => format!("/{rest}"),
            _ => it,
        });
        paths.filter(|it| it.starts_with('/')).collect()
    }

    /// Whether its build has rights that a container has not. A word that is not known may be such a right.
    fn is_built_privileged(&self) -> bool {
        let build = self.build.as_ref();
        let privileged = build.and_then(|build| build.get("privileged"));
        let is_let = |it: &Value| *it != Value::Bool(false) && it.as_str() != Some("false");
        privileged.is_some_and(is_let) || self.entitlements().any(|it| it != NODE_NETWORK)
    }

    /// The network of the node that its build is in.
    fn build_networks(&self) -> Option<String> {
        let network = self.build.as_ref().and_then(|build| build.get("network"));
        let is_node = network.and_then(Value::as_str) == Some("host");
        let is_node = is_node || self.entitlements().any(|it| it == NODE_NETWORK);
        is_node.then(|| "host".to_owned())
    }

    fn entitlements(&self) -> impl Iterator<Item = String> {
        let build = self.build.as_ref();
        let mut found = Vec::new();
        if let Some(entitlements) = build.and_then(|build| build.get("entitlements")) {
            texts(entitlements, &mut found);
        }
        found.into_iter()
    }

    fn has_containers(&self) -> bool {
        let replicas = self.deploy.as_ref().and_then(|it| it.replicas.as_ref());
        let count = replicas.or(self.scale.as_ref());
        count.is_none_or(|count| count.as_u64() != Some(0) && count.as_str() != Some("0"))
    }

    fn is_on(&self, profiles: &[&str]) -> bool {
        let is_one = |it: &String| profiles.contains(&it.as_str()) || profiles.contains(&"*");
        self.profiles.is_empty() || self.profiles.iter().any(is_one)
    }

    fn dependencies(&self) -> Vec<String> {
        match &self.depends_on {
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect()
            }
            Some(Value::Object(names)) => names.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn covered(&self, unit: &Unit, owner: &str) -> Value {
        let spec: &WorkloadSpec = &unit.spec;
        let mut over = json!({
            "restart": "no",
            "labels": {
                LABEL_OWNER: owner,
                LABEL_UNIT: unit.id.to_string(),
                LABEL_WORKLOAD: unit.workload.to_string(),
                LABEL_GRACE: spec.stop.grace_ms.to_string(),
            },
        });
        if self.deploy.is_some() {
            over["deploy"] = json!({ "restart_policy": { "condition": "none" } });
        }
        if self.stop_signal.is_none() && spec.stop.signal != "TERM" {
            over["stop_signal"] = json!(format!("SIG{}", spec.stop.signal));
        }
        let grace = self.stop_grace_period.as_deref().and_then(millis);
        if let Some(grace) = grace.filter(|grace| grace % 1000 != 0) {
            // The old program hands the engine what the engine knows only in whole seconds. The grace is ours to
            // count; this is for people who stop it by hand.
            over["stop_grace_period"] = json!(format!("{}s", grace.div_ceil(1000)));
        }
        if self.logging.is_none() {
            let options = json!({ "max-size": LOG_BYTES, "max-file": LOG_FILES });
            over["logging"] = json!({ "driver": "json-file", "options": options });
        }
        over
    }
}

/// What the services ask of the node.
impl Resolved {
    pub(super) fn asks(&self, project: &str) -> Vec<Asks> {
        let mut asks = Vec::new();
        for service in self.services.values() {
            let own = self.asks_of(service, project);
            let hooks = service.post_start.iter().chain(&service.pre_stop);
            let of_hooks = hooks.map(|hook| Asks {
                user: hook.user.as_ref().map(plain).or_else(|| own.user.clone()),
                privileged: own.privileged || hook.privileged == Some(true),
                ..own.clone()
            });
            let of_hooks: Vec<_> = of_hooks.collect();
            asks.push(own);
            asks.extend(of_hooks);
        }
        asks
    }

    /// Notes which files of the node it was read from.
    pub(super) fn note_files(&mut self, files: Vec<String>) {
        self.files.extend(files);
    }

    fn asks_of(&self, service: &ResolvedService, project: &str) -> Asks {
        let is_node = |mode: &Option<String>| mode.as_deref() == Some("host");
        let (mounts, volumes) = self.volumes_of(service, project);
        let files = self.secrets.values().chain(self.configs.values()).flatten();
        let files = files.filter_map(|it| it.file.clone());
        let files = files.chain(self.files.iter().cloned());
        Asks {
            image: service.image.clone().filter(|_| service.build.is_none()),
            user: service.user.as_ref().map(plain),
            privileged: service.privileged == Some(true)
                || service.is_built_privileged()
                || is_node(&service.pid)
                || is_node(&service.ipc)
                || is_node(&service.userns_mode)
                || service.cgroup_parent.is_some()
                || service.use_api_socket == Some(true)
                || service
                    .volumes_from
                    .iter()
                    .any(|it| it.starts_with("container:"))
                || !service.device_cgroup_rules.is_empty()
                || service
                    .security_opt
                    .iter()
                    .any(|it| !it.starts_with("no-new-privileges")),
            capabilities: service.cap_add.clone(),
            mounts: mounts
                .into_iter()
                .chain(files)
                .chain(service.read_paths())
                .collect(),
            volumes,
            devices: service.devices.iter().map(source).collect(),
            networks: self
                .networks_of(service)
                .into_iter()
                .chain(service.build_networks())
                .collect(),
        }
    }

    /// The node's paths behind its volumes, also behind named ones that are paths by their driver's options; and the
    /// names of volumes that are not the project's own: external ones, and those whose names say that they may be
    /// another project's.
    fn volumes_of(&self, service: &ResolvedService, project: &str) -> (Vec<String>, Vec<String>) {
        let own = format!("{project}_");
        let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
        for source in service.volumes.iter().map(source) {
            if source.starts_with(['/', '.', '~']) {
                mounts.push(source);
                continue;
            }
            let Some(Some(named)) = self.volumes.get(&source) else {
                continue;
            };
            mounts.extend(named.driver_opts.get("device").map(plain));
            let name = named.name.as_ref();
            if is_external(named.external.as_ref()) {
                volumes.push(name.unwrap_or(&source).clone());
            } else {
                volumes.extend(name.filter(|name| !name.starts_with(&own)).cloned());
            }
        }
        (mounts, volumes)
    }

    /// The node's own networks that it is in; a network of the project's own counts as a bridge.
    fn networks_of(&self, service: &ResolvedService) -> Vec<String> {
        if let Some(mode) = &service.network_mode {
            return match mode.split_once(':') {
                // It is in the network of another service, which is judged itself.
                Some(("service", _)) => Vec::new(),
                _ => vec![mode.clone()],
            };
        }
        let names: Vec<String> = match &service.networks {
            Some(Value::Array(list)) => list.iter().map(plain).collect(),
            Some(Value::Object(map)) => map.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let of = |name: &String| match self.networks.get(name).and_then(Option::as_ref) {
            Some(it) if is_external(it.external.as_ref()) => {
                it.name.clone().unwrap_or_else(|| name.clone())
            }
            Some(it) => it.driver.clone().unwrap_or_else(|| BRIDGE.to_owned()),
            None => BRIDGE.to_owned(),
        };
        if names.is_empty() {
            return vec![of(&"default".to_owned())];
        }
        names.iter().map(of).collect()
    }
}

const BRIDGE: &str = "bridge";
/// Of what builders let by a word of their own, the one that is about a network.
const NODE_NETWORK: &str = "network.host";

fn is_external(external: Option<&Value>) -> bool {
    external.is_some_and(|it| *it != Value::Bool(false))
}

/// The texts in a value, however deep.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(list) => {
            for it in list {
                texts(it, found);
            }
        }
        Value::Object(map) => {
            for it in map.values() {
                texts(it, found);
            }
        }
        _ => {}
    }
}

/// Of a volume or a device in either of its forms.
fn source(value: &Value) -> String {
    match value {
        Value::Object(map) => map.get("source").map(plain).unwrap_or_default(),
        Value::String(text) => text.split(':').next().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A span as compose writes it, such as `1m30s` or `500ms`, in milliseconds.
#[must_use]
pub fn millis(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        sum += number
            * match &rest[..end] {
                "h" => 3_600_000.0,
                "m" => 60_000.0,
                "s" => 1000.0,
                "ms" => 1.0,
                "us" | "µs" => 0.001,
                "ns" => 0.000_001,
                _ => return None,
            };
        rest = &rest[end..];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "digits have no sign, and the conversion saturates"
    )]
    Some(sum as u64)
}

/// A variable that a compose file uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// The file says that it cannot do without: `${NAME:?…}`.
    pub is_needed: bool,
    /// The file says what counts if nobody gives it.
    pub has_default: bool,
}

/// The variables that the text uses, each once, as its first use has it.
#[must_use]
pub fn variables(text: &str) -> Vec<Variable> {
    let mut found: Vec<Variable> = Vec::new();
    let lines = text.lines();
    for line in lines.filter(|line| !line.trim_start().starts_with('#')) {
        let mut rest = line;
        while let Some(at) = rest.find('$') {
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
                continue;
            }
            let (name, after) = split_name(rest.strip_prefix('{').unwrap_or(rest));
            let rule = after.strip_prefix(':').unwrap_or(after);
            let is_braced = rest.starts_with('{');
            rest = after;
            if !name.is_empty() && !found.iter().any(|it| it.name == name) {
                found.push(Variable {
                    name: name.to_owned(),
                    is_needed: is_braced && rule.starts_with('?'),
                    has_default: is_braced && rule.starts_with(['-', '+']),
                });
            }
        }
    }
    found
}

fn split_name(text: &str) -> (&str, &str) {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = match text.starts_with(|c: char| c.is_ascii_digit()) {
        true => 0,
        false => text.find(|c| !is_letter(c)).unwrap_or(text.len()),
    };
    text.split_at(end)
}

/// The variables that the text cannot do without and that nobody gives.
pub(super) fn missing_variables(text: &str, is_given: impl Fn(&str) -> bool) -> Vec<String> {
    let needed = variables(text).into_iter().filter(|it| it.is_needed);
    let names = needed.map(|it| it.name);
    names.filter(|name| !is_given(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::{AssignmentId, Timestamp, UnitId, WorkloadId};

    use super::*;

    /// As 1.29 prints it.
    const OLD: &str = "services:\n  db:\n    image: postgres:16\n    stop_grace_period: 1m30s\n    volumes:\n    - data:/data:rw\n  web:\n    command:\n    - sh\n    - -c\n    - echo $$HOSTNAME\n    depends_on:\n      db:\n        condition: service_started\n    deploy:\n      replicas: 2\n    build:\n      context: /srv/x\n  idle:\n    image: a\n    deploy:\n      replicas: 0\n  debug:\n    image: b\n    pull_policy: always\n    profiles:\n    - tools\nversion: '3.9'\nvolumes:\n  data: {}\n";

    fn unit() -> Unit {
        let now = Timestamp::from_millis(1);
        let mut spec = WorkloadSpec::bare("shop");
        spec.stop.signal = "INT".to_owned();
        Unit {
            id: UnitId {
                assignment: AssignmentId::mint(now, 7),
                generation: 3,
            },
            workload: WorkloadId::mint(now, 8),
            workload_name: "shop".to_owned(),
            slot: 0,
            spec: Arc::new(spec),
            volumes: Vec::new(),
        }
    }

    #[test]
    fn the_services_of_a_file_are_read_as_compose_resolved_it() {
        let read = Resolved::read(OLD).unwrap();
        let services = read.services(None);
        assert_eq!(services["db"].grace_ms, Some(90_000));
        assert_eq!(services["web"].depends_on, ["db"]);
        let wanted = |profiles: Option<&str>| {
            let services = read.services(profiles.map(str::to_owned).as_ref());
            let wanted = services.into_iter().filter(|(_, it)| it.is_wanted);
            wanted.map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(wanted(None), ["db", "web"]);
        assert_eq!(wanted(Some("x, tools")), ["db", "debug", "web"]);
        assert_eq!(read.built(), ["web"]);
        let images = read.images();
        let images = images
            .iter()
            .map(|it| (it.image.as_str(), it.policy.as_str()));
        assert_eq!(
            images.collect::<Vec<_>>(),
            [("postgres:16", ""), ("b", "always")]
        );
    }

    #[test]
    fn a_file_without_services_is_invalid() {
        for text in [
            "services: {}",
            "name: x",
            "services: [",
            "services: {w: {image: a}}\nversion: '1'",
        ] {
            let refused = Resolved::read(text).unwrap_err();
            assert_eq!(refused.code(), "compose-invalid", "{text}");
        }
    }

    #[test]
    fn the_override_marks_every_service_and_lets_the_engine_restart_none() {
        let text = Resolved::read(OLD).unwrap().covered(&unit(), "node");
        let over: Value = serde_json::from_str(&text).unwrap();
        for service in ["db", "web", "idle", "debug"] {
            let service = &over["services"][service];
            assert_eq!(service["restart"], "no");
            assert_eq!(service["labels"]["hostler.compose.owner"], "node");
            assert_eq!(
                service["labels"]["hostler.compose.unit"],
                unit().id.to_string()
            );
            assert_eq!(service["stop_signal"], "SIGINT");
            assert_eq!(service["logging"]["options"]["max-size"], "8m");
        }
        assert_eq!(
            over["services"]["web"]["deploy"]["restart_policy"]["condition"],
            "none"
        );
        assert_eq!(over["services"]["db"].get("deploy"), None);
    }

    #[test]
    fn a_grace_of_less_than_a_second_is_kept_from_the_engine_and_counts_all_the_same() {
        let text = "services: {a: {image: b, stop_grace_period: 1s500ms}, c: {image: d, stop_grace_period: 2s}}";
        let read = Resolved::read(text).unwrap();
        let services = read.services(None);
        assert_eq!(services["a"].grace_ms, Some(1500));
        let over: Value = serde_json::from_str(&read.covered(&unit(), "node")).unwrap();
        assert_eq!(over["services"]["a"]["stop_grace_period"], "2s");
        assert_eq!(over["services"]["c"].get("stop_grace_period"), None);
    }

    #[test]
    fn what_services_ask_of_the_node_is_read_in_either_form() {
        let of = |service: &str| {
            let text = format!(
                "services: {{w: {{image: a, {service}}}}}\nvolumes: {{data: {{}}, etc: {{driver_opts: {{device: /etc}}}}}}\n\
                 networks: {{out: {{external: true, name: lan}}, own: {{}}}}\n"
            );
            Resolved::read(&text).unwrap().asks("x").remove(0)
        };
        let mounts = |volumes: &str| of(&format!("volumes: [{volumes}]")).mounts;
        assert_eq!(mounts("'data:/d:rw', '/srv/x:/x:ro'"), ["/srv/x"]);
        assert_eq!(
            mounts("{type: bind, source: /srv/y, target: /y}, {type: tmpfs, target: /t}"),
            ["/srv/y"]
        );
        assert_eq!(mounts("'etc:/e'"), ["/etc"], "a volume that is a path");
        for wall in [
            "privileged: true",
            "pid: host",
            "ipc: host",
            "userns_mode: host",
            "security_opt: ['seccomp:unconfined']",
            "cgroup_parent: /",
            "device_cgroup_rules: ['a *:* rwm']",
        ] {
            assert!(of(wall).privileged, "{wall}");
        }
        assert!(!of("security_opt: ['no-new-privileges:true']").privileged);
        assert_eq!(of("user: 1000").user.as_deref(), Some("1000"));
        assert_eq!(
            of("devices: ['/dev/kvm:/dev/kvm:rwm']").devices,
            ["/dev/kvm"]
        );
        assert_eq!(
            of("devices: [{source: /dev/x, target: /y}]").devices,
            ["/dev/x"]
        );
        assert_eq!(of("network_mode: host").networks, ["host"]);
        assert_eq!(
            of("networks: {out: null, own: null}").networks,
            ["lan", "bridge"]
        );
        assert_eq!(of("cap_add: [NET_ADMIN]").networks, ["bridge"]);
        assert_eq!(of("build: {context: /x}").image, None);
    }

    #[test]
    fn what_goes_around_the_walls_of_a_service_counts_as_asked_for() {
        let all = |service: &str| {
            let text = format!(
                "services: {{w: {{image: a, user: app, {service}}}}}\n\
                 volumes: {{theirs: {{external: true, name: other}}, own: {{name: x_own}}}}\n"
            );
            Resolved::read(&text).unwrap().asks("x")
        };
        for wall in ["use_api_socket: true", "volumes_from: ['container:db']"] {
            assert!(all(wall)[0].privileged, "{wall}");
        }
        assert!(!all("volumes_from: [db, 'x:ro'], use_api_socket: false")[0].privileged);
        let hooks = all(
            "post_start: [{command: a, user: root}], pre_stop: [{command: b, privileged: true}]",
        );
        let hooks = hooks
            .iter()
            .map(|it| (it.user.as_deref().unwrap(), it.privileged));
        let expected = [("app", false), ("root", false), ("app", true)];
        assert_eq!(hooks.collect::<Vec<_>>(), expected);

        let mounts = |service: &str| all(service).remove(0).mounts;
        assert_eq!(mounts("build: /etc"), ["/etc"]);
        assert_eq!(mounts("build: {context: /etc, args: {P: /x}}"), ["/etc"]);
        assert_eq!(
            mounts("build: {context: ., additional_contexts: {a: /a, b: 'https://b/c'}}"),
            ["/a"]
        );
        assert_eq!(
            mounts("build: {context: ., additional_contexts: ['a=/a', 'b=docker-image://b']}"),
            ["/a"]
        );
    }

    #[test]
    fn volumes_of_others_are_asked_for_by_their_names() {
        let text = "services: {w: {image: a, volumes: ['theirs:/t', 'own:/o', 'plain:/p', 'named:/n', '/srv:/s', 'disk:/d']}}\n\
             volumes: {theirs: {external: true, name: other}, own: {name: x_own}, plain: {}, named: {name: y_data},\
             disk: {name: z, driver_opts: {device: /dev/sdb}}}\n";
        let asks = Resolved::read(text).unwrap().asks("x").remove(0);
        assert_eq!(asks.volumes, ["other", "y_data", "z"]);
        assert_eq!(asks.mounts, ["/srv", "/dev/sdb"]);
    }

    #[test]
    fn a_build_with_rights_of_its_own_counts_as_privileged_or_in_the_network_of_the_node() {
        let of = |build: &str| {
            let text = format!("services: {{w: {{build: {{context: ., {build}}}}}}}");
            let asks = Resolved::read(&text).unwrap().asks("x").remove(0);
            (asks.privileged, asks.networks.contains(&"host".to_owned()))
        };
        assert_eq!(of("args: {A: b}"), (false, false));
        assert_eq!(of("privileged: false"), (false, false));
        assert_eq!(of("privileged: true"), (true, false));
        assert_eq!(of("entitlements: [security.insecure]"), (true, false));
        assert_eq!(of("entitlements: [network.host]"), (false, true));
        assert_eq!(of("entitlements: [device, network.host]"), (true, true));
        assert_eq!(of("network: host"), (false, true));
    }

    #[test]
    fn files_that_a_project_was_read_from_are_asked_for() {
        let mut read = Resolved::read("services: {w: {image: a}}").unwrap();
        read.note_files(vec!["/etc/e".to_owned()]);
        assert_eq!(read.asks("x").remove(0).mounts, ["/etc/e"]);
    }

    #[test]
    fn spans_are_read_as_compose_writes_them() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("250ms", Some(250)),
            ("2h", Some(7_200_000)),
            ("10", None),
            ("1 fortnight", None),
        ] {
            assert_eq!(millis(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_that_the_text_cannot_do_without_are_named() {
        let text = "a: ${A:?say}\nb: ${B?}\nc: ${C:-x} $D ${D} $${E:?no} ${A:?again} ${F:?}";
        let missing = missing_variables(text, |name| name == "F");
        assert_eq!(missing, ["A", "B"]);
        assert!(missing_variables("$ ${ ${é:?} $1", |_| false).is_empty());
        let used = variables("a: $A-${B:-$C}\n# $NO\nd: ${D+x}${A:?}");
        let used = used.iter().map(|it| (it.name.as_str(), it.has_default));
        let expected = [("A", false), ("B", true), ("C", false), ("D", true)];
        assert_eq!(used.collect::<Vec<_>>(), expected);
    }
}

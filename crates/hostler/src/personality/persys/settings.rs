//! The settings of `persys-agent`, resolved: flag, `PERSYS_*` variable, `agent_config.yaml`, default.
//!
//! Every documented variable counts. A key of the file is its variable's name without `PERSYS_`, in lower case. What has
//! no effect here is said once at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hostler_agent::persys::Admission;
use hostler_kit::trust::MemberFiles;
use hostler_model::spec::Kind;
use hostler_runtime::vm::VmSettings;
use hostler_runtime::volumes::VolumeSettings;

use super::file;
use super::line::{Given, truth};
use crate::failure::Failure;
use crate::settings::{Environment, PERSYS_AGENT_FILES, machines, volumes};

/// Resolved.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) grpc: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) scheduler: String,
    pub(super) tls: Tls,
    pub(super) standalone: bool,
    pub(super) grpc_endpoint: Option<String>,
    pub(super) node_id: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) version: String,
    pub(super) data_dir: PathBuf,
    pub(super) docker_socket: String,
    pub(super) vm: VmSettings,
    pub(super) volumes: VolumeSettings,
    pub(super) kinds: BTreeSet<Kind>,
    pub(super) admission: Admission,
    pub(super) control_stream: bool,
    /// The filter of our own log.
    pub(super) log: String,
    /// What was said and has no effect.
    pub(super) notes: Vec<String>,
}

/// Where TLS is spoken; none: plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// By the service.
    pub(super) service: Option<MemberFiles>,
    /// With the scheduler.
    pub(super) scheduler: Option<MemberFiles>,
}

/// Variables over the file.
struct Layers<'a> {
    environment: &'a Environment,
    file: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn resolve(given: &Given, environment: &Environment) -> Result<Self, Failure> {
        let layers = Layers {
            environment,
            file: file::read(given.config.as_deref(), environment)?,
        };
        let addr = layers
            .text("PERSYS_GRPC_ADDR")
            .unwrap_or_else(|| "0.0.0.0".to_owned());
        let state = layers.state_path()?;
        let data_dir = data_dir(&state);
        Ok(Self {
            vm: machines(Default::default(), environment, &data_dir)?,
            volumes: layers.volumes(&state)?,
            grpc: layers.listen(&addr, "PERSYS_GRPC_PORT", 50051)?,
            metrics: layers.listen(&addr, "PERSYS_METRICS_PORT", 8089)?,
            scheduler: layers
                .text("PERSYS_SCHEDULER_ADDR")
                .unwrap_or_else(|| "127.0.0.1:8085".to_owned()),
            tls: layers.tls(given.insecure)?,
            standalone: given.standalone,
            grpc_endpoint: layers.endpoint()?,
            node_id: layers.text("PERSYS_NODE_ID").unwrap_or_else(node_id),
            labels: layers.labels()?,
            version: layers.text("PERSYS_VERSION").unwrap_or_default(),
            data_dir,
            docker_socket: layers
                .text("DOCKER_HOST")
                .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned()),
            kinds: layers.kinds()?,
            admission: layers.admission()?,
            control_stream: layers.truth("PERSYS_CONTROL_STREAM", false)?,
            log: layers.log(),
            notes: layers.notes(),
        })
    }
}

impl Layers<'_> {
    /// A variable, or its key in the file.
    fn text(&self, name: &str) -> Option<String> {
        let key = key_of(name);
        let told = self.environment.get(name).map(str::to_owned);
        told.or_else(|| self.file.get(&key).cloned())
            .filter(|text| !text.is_empty())
    }

    fn truth(&self, name: &str, usual: bool) -> Result<bool, Failure> {
        self.text(name).map_or(Ok(usual), |text| truth(name, &text))
    }

    /// TLS that is off is off both ways, unless the word about the scheduler says otherwise.
    fn tls(&self, is_plain: bool) -> Result<Tls, Failure> {
        let serves = self.truth("PERSYS_TLS_ENABLED", true)?;
        let calls = !self.truth("PERSYS_SCHEDULER_INSECURE", !serves)?;
        let path = |name: &str, key: &str, file: &str| {
            let told = self.text(name).or_else(|| self.file.get(key).cloned());
            told.map_or_else(|| Path::new(PERSYS_AGENT_FILES).join(file), PathBuf::from)
        };
        let files = MemberFiles {
            certificate: path("PERSYS_TLS_CERT", "tls_cert_path", "compute-agent.pem"),
            key: path("PERSYS_TLS_KEY", "tls_key_path", "compute-agent-key.pem"),
            authority: path("PERSYS_TLS_CA", "tls_ca_path", "ca.pem"),
        };
        Ok(Tls {
            service: (serves && !is_plain).then(|| files.clone()),
            scheduler: (calls && !is_plain).then_some(files),
        })
    }

    fn listen(&self, addr: &str, port: &str, usual: u16) -> Result<SocketAddr, Failure> {
        let number = match self.text(port) {
            None => usual,
            Some(text) => text.trim().parse().map_err(|_| {
                Failure::usage(
                    format!("{port} is `{text}`, which is no port"),
                    "set it to a number from 1 to 65535",
                )
            })?,
        };
        let host = addr.trim().trim_start_matches('[').trim_end_matches(']');
        let host = host.parse().map_err(|_| {
            Failure::usage(
                format!("PERSYS_GRPC_ADDR is `{addr}`, which is no address"),
                "set it to an address of this machine, or to 0.0.0.0 for all",
            )
        })?;
        Ok(SocketAddr::new(host, number))
    }

    fn endpoint(&self) -> Result<Option<String>, Failure> {
        let Some(text) = self.text("PERSYS_AGENT_GRPC_ENDPOINT") else {
            return Ok(None);
        };
        let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(port)) if port > 0 => Ok(Some(text)),
            _ => Err(Failure::usage(
                format!("PERSYS_AGENT_GRPC_ENDPOINT is `{text}`, which names no host and port"),
                "write it as HOST:PORT",
            )),
        }
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut labels = BTreeMap::new();
        let words = self.text("PERSYS_NODE_LABELS").unwrap_or_default();
        for word in words
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            let (key, value) = word.split_once('=').ok_or_else(|| {
                Failure::usage(
                    format!("PERSYS_NODE_LABELS: `{word}` is no label"),
                    "write it as KEY=VALUE,KEY=VALUE",
                )
            })?;
            labels.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        for (name, key) in [("PERSYS_NODE_REGION", "region"), ("PERSYS_NODE_ENV", "env")] {
            if let Some(value) = self.text(name) {
                labels.insert(key.to_owned(), value);
            }
        }
        Ok(labels)
    }

    fn state_path(&self) -> Result<PathBuf, Failure> {
        let named = self
            .text("PERSYS_STATE_PATH")
            .or_else(|| self.text("PERSYS_STATE_STORE_PATH"));
        let path = PathBuf::from(named.unwrap_or_else(|| "/var/lib/persys/state.db".to_owned()));
        std::path::absolute(&path).map_err(|error| {
            Failure::usage(format!("PERSYS_STATE_PATH: {error}"), "set it to a path")
        })
    }

    /// The keys are those of the contract. Local volumes are beside the state, as it has them; images are only had
    /// of a cluster of which something is said, in the pool `rbd` unless it is another.
    fn volumes(&self, state: &Path) -> Result<VolumeSettings, Failure> {
        let told = |name: &str| self.text(&format!("PERSYS_STORAGE_{name}"));
        let mut settings = volumes(Default::default(), told)?;
        let beside = match state.parent() {
            Some(parent) if !state.is_dir() => parent,
            _ => state,
        };
        let local = settings.local_root.take();
        settings.local_root = local.or_else(|| Some(beside.join("volumes/local")));
        let ceph = &mut settings.ceph;
        let is_meant = ceph.user.is_some() || ceph.cluster.is_some() || ceph.keyring.is_some();
        if ceph.pool.is_none() && is_meant {
            ceph.pool = Some("rbd".to_owned());
        }
        Ok(settings)
    }

    fn kinds(&self) -> Result<BTreeSet<Kind>, Failure> {
        let switches = [
            ("PERSYS_DOCKER_ENABLED", Kind::Container),
            ("PERSYS_COMPOSE_ENABLED", Kind::Compose),
            ("PERSYS_VM_ENABLED", Kind::Vm),
        ];
        let mut kinds = BTreeSet::new();
        for (name, kind) in switches {
            if self.truth(name, true)? {
                kinds.insert(kind);
            }
        }
        Ok(kinds)
    }

    /// The contract fixes these figures; the file may move them, for machines that are always busy.
    fn admission(&self) -> Result<Admission, Failure> {
        let usual = Admission::default();
        let percent = |key: &str, usual: f64| match self.file.get(key) {
            None => Ok(usual),
            Some(text) => text.trim().parse().map_err(|_| {
                Failure::usage(
                    format!("{key} is `{text}`, which is no percentage"),
                    "set it to a number",
                )
            }),
        };
        Ok(Admission {
            memory: percent("admission_memory_percent", usual.memory)?,
            cpu: percent("admission_cpu_percent", usual.cpu)?,
            disk: percent("admission_disk_percent", usual.disk)?,
        })
    }

    fn log(&self) -> String {
        let level = self.text("PERSYS_LOG_LEVEL").unwrap_or_default();
        let level = level.to_ascii_lowercase();
        let level = match level.as_str() {
            level @ ("trace" | "debug" | "error") => level,
            "warn" | "warning" => "warn",
            "fatal" | "panic" => "error",
            _ => "info",
        };
        level.to_owned()
    }

    /// What was set and changes nothing here.
    fn notes(&self) -> Vec<String> {
        let none = "certificates are read from files, and again when those change; nothing is asked of a Vault";
        let quiet = [
            ("PERSYS_VAULT_ENABLED", none),
            ("PERSYS_VAULT_ADDR", none),
            ("PERSYS_VAULT_APPROLE_ROLE_ID", none),
            ("PERSYS_VAULT_APPROLE_SECRET_ID", none),
            ("PERSYS_VAULT_SERVICE_NAME", none),
            ("PERSYS_VAULT_SERVICE_DOMAIN", none),
            ("PERSYS_VAULT_AUTH_METHOD", none),
            ("PERSYS_VAULT_TOKEN", none),
            ("PERSYS_VAULT_PKI_MOUNT", none),
            ("PERSYS_VAULT_PKI_ROLE", none),
            ("PERSYS_VAULT_CERT_TTL", none),
            ("PERSYS_VAULT_RETRY_INTERVAL", none),
            (
                "PERSYS_COMPOSE_BINARY",
                "`docker compose` is looked for in PATH, then `docker-compose`",
            ),
            (
                "PERSYS_LIBVIRT_URI",
                "machines run under QEMU itself, without libvirt",
            ),
            (
                "PERSYS_RECONCILE_ENABLED",
                "what runs is always kept as it is wanted",
            ),
            (
                "PERSYS_RECONCILE_INTERVAL",
                "what changes is seen at once, not at an interval",
            ),
        ];
        let set = quiet.iter().filter(|(name, _)| self.text(name).is_some());
        let mut notes: Vec<String> = set
            .map(|(name, why)| format!("{name} has no effect: {why}"))
            .collect();
        let known = |key: &String| {
            KNOWN.contains(&key.as_str()) || quiet.iter().any(|(name, _)| key_of(name) == **key)
        };
        let strange = self.file.keys().filter(|key| !known(key));
        notes.extend(strange.map(|key| format!("the key `{key}` of the file has no effect here")));
        notes
    }
}

/// The keys of the file that mean something here.
const KNOWN: [&str; 41] = [
    "grpc_addr",
    "grpc_port",
    "metrics_port",
    "tls_enabled",
    "tls_cert",
    "tls_cert_path",
    "tls_key",
    "tls_key_path",
    "tls_ca",
    "tls_ca_path",
    "scheduler_addr",
    "scheduler_insecure",
    "agent_grpc_endpoint",
    "node_id",
    "node_region",
    "node_env",
    "node_labels",
    "version",
    "state_path",
    "state_store_path",
    "docker_host",
    "docker_enabled",
    "compose_enabled",
    "vm_enabled",
    "log_level",
    "control_stream",
    "admission_memory_percent",
    "admission_cpu_percent",
    "admission_disk_percent",
    "reconcile_enabled",
    "reconcile_interval",
    "storage_local_root",
    "storage_nfs_server",
    "storage_nfs_export",
    "storage_nfs_options",
    "storage_nfs_stage_dir",
    "storage_ceph_cluster",
    "storage_ceph_pool",
    "storage_ceph_user",
    "storage_ceph_keyring",
    "storage_ceph_stage_dir",
];

/// The state path names a file; ours is a directory beside it, unless there is a directory of that name.
fn data_dir(state: &Path) -> PathBuf {
    if state.is_dir() {
        return state.to_owned();
    }
    let mut name = state.file_name().unwrap_or_default().to_os_string();
    name.push(".d");
    state.with_file_name(name)
}

fn key_of(name: &str) -> String {
    name.trim_start_matches("PERSYS_").to_ascii_lowercase()
}

/// The host name and what tells the machine from others of that name.
fn node_id() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let hostname = read("/proc/sys/kernel/hostname");
    let machine = read("/etc/machine-id");
    let links = std::fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    let mut cards: Vec<String> = links
        .map(|link| std::fs::read_to_string(link.path().join("address")).unwrap_or_default())
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty() && address != "00:00:00:00:00:00")
        .collect();
    cards.sort_unstable();
    named(
        hostname.trim(),
        machine.trim(),
        cards.first().map(String::as_str),
    )
}

fn named(hostname: &str, machine: &str, card: Option<&str>) -> String {
    let hostname = if hostname.is_empty() {
        "node"
    } else {
        hostname
    };
    if let Some(start) = machine.get(..12) {
        return format!("{hostname}-{start}");
    }
    match card {
        Some(card) => {
            // FNV-1a: the same card always gives the same name.
            let hash = card.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("{hostname}-{:012x}", hash >> 16)
        }
        None => hostname.to_owned(),
    }
}

#[cfg(test)]
mod tests;

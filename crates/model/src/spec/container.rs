//! The `container` section: a container of the node's Docker-compatible engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ManagedVolume;
use crate::Bytes;

mod check;

/// A container of the node's Docker-compatible engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    pub image: String,
    /// Arguments, or the whole command if the image has no entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default)]
    pub pull: PullPolicy,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// `bridge` (default), `host`, `none`, or a network that the node's engine has already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Further names on such a network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Addresses of name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Names and their addresses; `host-gateway` is the node's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// All of the node's devices and capabilities: as root on the node itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Nothing of the image's own file system can be written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// By name, such as `memlock`; `limits.open_files` is `nofile`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, UlimitRange>,
    /// Size of `/dev/shm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// A first process of the engine's that reaps orphans and passes signals on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// What the engine itself asks the container; the image's own if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogDriver>,
    /// The name of a container that runs on the node already: the workload's first copy takes it over, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<String>,
    /// Volumes that the node makes and keeps; only drivers that manage volumes run them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ManagedVolume>,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    #[default]
    Missing,
    Always,
    Never,
}

/// A directory or file of the node, or a volume of its engine, inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the node, or the name of a volume, which the engine makes if it has none of that name.
    pub source: String,
    /// Absolute path inside.
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
}

/// A file system in memory, gone with the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Absolute path inside.
    pub target: String,
    /// Half of the node's memory if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Octal digits, such as `"1777"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// A device of the node inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path on the node.
    pub source: String,
    /// Absolute path inside; the same if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of `r`, `w` and `m`; all if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
}

/// What a container's root may do more, or less, than the engine lets it. Names with or without `CAP_`; `ALL`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// What a process may take of one thing; -1 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UlimitRange {
    pub soft: i64,
    /// As `soft` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<i64>,
}

/// The engine's own check of a container; what is left out is as the image says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Healthcheck {
    /// Program and arguments, run inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Failures in this time do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period_ms: Option<u64>,
    /// So many failures in a row are ill health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// The image's check is not run either.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// Where the engine keeps what a container writes. Only drivers whose logs it can read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogDriver {
    /// `json-file`, `local` or `journald`.
    pub driver: String,
    /// As the driver has them, such as `max-size`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl Mount {
    /// Whether the source is a volume of the node's engine.
    #[must_use]
    pub fn is_volume(&self) -> bool {
        !self.source.contains('/')
    }
}

impl Healthcheck {
    /// The check that an engine writes as `CMD …`, `CMD-SHELL …` or `NONE`.
    #[must_use]
    pub fn of_engine(words: &[String]) -> Self {
        const SHELL: [&str; 2] = ["/bin/sh", "-c"];
        let (first, rest) = match words.split_first() {
            Some((first, rest)) => (first.as_str(), rest),
            None => ("", words),
        };
        let shell = SHELL.iter().filter(|_| first == "CMD-SHELL");
        let command = shell.map(|word| (*word).to_owned());
        Self {
            command: command.chain(rest.iter().cloned()).collect(),
            disabled: first == "NONE",
            ..Self::default()
        }
    }
}

impl Capabilities {
    /// Whether nothing is changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.add.is_empty() && self.drop.is_empty()
    }

    /// A name without `CAP_`, in capitals.
    #[must_use]
    pub fn plain(name: &str) -> String {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
    }
}

impl ContainerSpec {
    /// The networks that every engine has.
    pub const MODES: [&'static str; 3] = ["bridge", "host", "none"];

    /// A container with all defaults.
    #[must_use]
    pub fn new(image: &str, command: Vec<String>) -> Self {
        Self {
            image: image.to_owned(),
            command,
            entrypoint: None,
            working_dir: None,
            user: None,
            pull: PullPolicy::default(),
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            network: None,
            aliases: Vec::new(),
            hostname: None,
            dns: Vec::new(),
            extra_hosts: BTreeMap::new(),
            labels: BTreeMap::new(),
            privileged: false,
            capabilities: Capabilities::default(),
            devices: Vec::new(),
            read_only: false,
            ulimits: BTreeMap::new(),
            shm_size: None,
            init: false,
            healthcheck: None,
            log: None,
            adopt: None,
            volumes: Vec::new(),
        }
    }

    /// The network of the node's own that it joins, if it is none that every engine has.
    #[must_use]
    pub fn named_network(&self) -> Option<&str> {
        let network = self.network.as_deref()?;
        (!Self::MODES.contains(&network)).then_some(network)
    }
}

//! The section of each kind. `process` and `container` are run by drivers of this version; the others parse
//! and are refused by nodes without the driver.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Bytes;

/// A plain process of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// Program and arguments. A program without a slash is looked up in the copy's PATH.
    pub command: Vec<String>,
    /// Absolute; the copy's own directory if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Name or number; the agent's user if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

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
    /// `bridge` (default), `host` or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// All of the node's devices and capabilities: as root on the node itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
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

/// A directory or file of the node inside a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path on the node.
    pub source: String,
    /// Absolute path inside.
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
}

/// A volume that the node provides by a storage driver and mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedVolume {
    pub name: String,
    /// `local` (default), `nfs` or `ceph-rbd`.
    #[serde(default = "local", skip_serializing_if = "is_local")]
    pub driver: String,
    /// Absolute path inside.
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Kept when the workload is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
}

/// A compose project: its text, or the repository that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeSpec {
    /// The compose file's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
}

/// A repository and what to check out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    pub repo: String,
    /// Branch, tag or commit; the repository's default if left out.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Path or URL of the boot disk; may be left out if there are `disks`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<VmDisk>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<VmNetwork>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInit>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<ManagedVolume>,
}

/// A disk of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmDisk {
    /// The storage pool of the node; its default if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Where the guest finds it: a device such as `vdb`, or a mount point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A network of a virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmNetwork {
    /// The node's bridge or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dhcp: bool,
    /// The guest's fixed address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
}

/// What cloud-init reads at the first boot, each part as text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudInit {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meta_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network_config: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor_data: String,
}

/// Work that runs to completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default)]
    pub retries: u32,
}

/// A model server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The model's name, as its engine knows it.
    pub name: String,
    /// `vllm`, `ollama` or `llama-cpp`.
    pub engine: String,
}

impl ProcessSpec {
    /// A process with all defaults.
    #[must_use]
    pub const fn new(command: Vec<String>) -> Self {
        Self {
            command,
            working_dir: None,
            user: None,
        }
    }

    pub(super) fn check(&self, findings: &mut Vec<String>) {
        if self.command.first().is_none_or(String::is_empty) {
            findings.push("process.command: names no program".to_owned());
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            findings.push("process.command: holds a NUL character".to_owned());
        }
        if self
            .working_dir
            .as_ref()
            .is_some_and(|path| !path.starts_with('/'))
        {
            findings.push("process.working_dir: is no absolute path".to_owned());
        }
    }
}

impl ContainerSpec {
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
            network: None,
            labels: BTreeMap::new(),
            privileged: false,
            volumes: Vec::new(),
        }
    }

    pub(super) fn check(&self, findings: &mut Vec<String>) {
        if self.image.is_empty() || self.image.contains(char::is_whitespace) {
            findings.push(format!(
                "container.image: `{}` is no image reference",
                self.image
            ));
        }
        for mount in &self.mounts {
            if !mount.source.starts_with('/') || !mount.target.starts_with('/') {
                findings.push(format!(
                    "container.mounts: `{}` to `{}`: both must be absolute paths",
                    mount.source, mount.target
                ));
            }
        }
        let networks = ["bridge", "host", "none"];
        if self
            .network
            .as_ref()
            .is_some_and(|network| !networks.contains(&network.as_str()))
        {
            findings.push(format!(
                "container.network: is none of {}",
                networks.join(", ")
            ));
        }
        check_volumes("container", &self.volumes, findings);
    }
}

impl ComposeSpec {
    pub(super) fn check(&self, findings: &mut Vec<String>) {
        match &self.git {
            None if self.file.trim().is_empty() => {
                findings.push("compose: neither `file` nor `git` is there".to_owned());
            }
            Some(_) if !self.file.is_empty() => {
                findings.push("compose: `file` and `git` exclude each other".to_owned());
            }
            Some(git) if git.repo.trim().is_empty() => {
                findings.push("compose.git.repo: is empty".to_owned());
            }
            None | Some(_) => {}
        }
    }
}

impl VmSpec {
    pub(super) fn check(&self, findings: &mut Vec<String>) {
        if self.image.is_empty() && self.disks.is_empty() {
            findings.push("vm: neither `image` nor `disks` is there".to_owned());
        }
        if self.cpus == Some(0) {
            findings.push("vm.cpus: 0 is no machine".to_owned());
        }
        let mut targets = BTreeSet::new();
        for target in self.disks.iter().filter_map(|disk| disk.target.as_ref()) {
            if target.is_empty() || !targets.insert(target) {
                findings.push(format!(
                    "vm.disks: target `{target}` is empty or named twice"
                ));
            }
        }
        for ip in self
            .networks
            .iter()
            .filter_map(|network| network.ip.as_ref())
        {
            // With or without the length of its prefix.
            let address = ip
                .split_once('/')
                .map_or(ip.as_str(), |(address, _)| address);
            if address.parse::<std::net::IpAddr>().is_err() {
                findings.push(format!("vm.networks: `{ip}` is no address"));
            }
        }
        let parts = self.cloud_init.iter();
        let parts = parts.flat_map(|it| {
            [
                &it.user_data,
                &it.meta_data,
                &it.network_config,
                &it.vendor_data,
            ]
        });
        if parts.into_iter().any(|part| part.contains('\0')) {
            findings.push("vm.cloud_init: holds a NUL character".to_owned());
        }
        check_volumes("vm", &self.volumes, findings);
    }
}

impl ManagedVolume {
    /// The driver that every node has.
    pub const LOCAL: &'static str = "local";
    /// Every driver.
    pub const DRIVERS: [&'static str; 3] = [Self::LOCAL, "nfs", "ceph-rbd"];
}

fn check_volumes(section: &str, volumes: &[ManagedVolume], findings: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for volume in volumes {
        let name = &volume.name;
        if name.is_empty() || !names.insert(name) {
            findings.push(format!(
                "{section}.volumes: the name `{name}` is empty or given twice"
            ));
        }
        if !ManagedVolume::DRIVERS.contains(&volume.driver.as_str()) {
            findings.push(format!(
                "{section}.volumes: `{}` is none of {}",
                volume.driver,
                ManagedVolume::DRIVERS.join(", ")
            ));
        }
        if !volume.target.starts_with('/') {
            findings.push(format!(
                "{section}.volumes: `{}` is no absolute path",
                volume.target
            ));
        }
    }
}

fn local() -> String {
    ManagedVolume::LOCAL.to_owned()
}

fn is_local(driver: &String) -> bool {
    driver == ManagedVolume::LOCAL
}

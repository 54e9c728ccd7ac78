//! The `vm` section: a virtual machine.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::ManagedVolume;
use super::volume;
use crate::Bytes;

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
        volume::check("vm", &self.volumes, findings);
    }
}

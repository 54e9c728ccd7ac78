//! Volumes that the node provides, which several sections take.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Bytes;

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

impl ManagedVolume {
    /// The driver that every node has.
    pub const LOCAL: &'static str = "local";
    /// Every driver.
    pub const DRIVERS: [&'static str; 3] = [Self::LOCAL, "nfs", "ceph-rbd"];
}

pub(super) fn check(section: &str, volumes: &[ManagedVolume], findings: &mut Vec<String>) {
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

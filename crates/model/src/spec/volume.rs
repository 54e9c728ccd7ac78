//! Volumes that the node provides, which several sections take.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::WorkloadSpec;
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
    /// The most that it holds. A disk of a machine and a new Ceph image need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// A word of [`AccessMode`]; `ReadWriteOnce` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<String>,
    /// What a blank disk is formatted with: one of [`ManagedVolume::FILE_SYSTEMS`], `ext4` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_type: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Kept when the workload is deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
}

/// Who may use a volume at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum AccessMode {
    /// One copy, which has a volume of its own.
    #[default]
    ReadWriteOnce,
    /// Any number of copies, none of which writes.
    ReadOnlyMany,
    /// Any number of copies.
    ReadWriteMany,
}

impl ManagedVolume {
    /// The driver that every node has.
    pub const LOCAL: &'static str = "local";
    pub const NFS: &'static str = "nfs";
    pub const CEPH: &'static str = "ceph-rbd";
    /// Every driver.
    pub const DRIVERS: [&'static str; 3] = [Self::LOCAL, Self::NFS, Self::CEPH];
    /// What disks can be formatted with; the first is the usual one.
    pub const FILE_SYSTEMS: [&'static str; 3] = ["ext4", "xfs", "btrfs"];

    /// The label of a node by which a foreign agent says that it has the driver, with the value `true`.
    #[must_use]
    pub fn label(driver: &str) -> String {
        format!("storage.{driver}")
    }

    /// Who may use it; a word that is none counts as the usual one.
    #[must_use]
    pub fn access(&self) -> AccessMode {
        let told = self.access_mode.as_deref().and_then(AccessMode::parse);
        told.unwrap_or_default()
    }

    /// Whether a copy may only read from it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only || self.access() == AccessMode::ReadOnlyMany
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !Self::DRIVERS.contains(&self.driver.as_str()) {
            let known = Self::DRIVERS.join(", ");
            problems.push(format!("`{}` is none of {known}", self.driver));
        }
        let climbs = self.target.split('/').any(|part| part == "..");
        if !self.target.starts_with('/') || self.target.trim_matches('/').is_empty() || climbs {
            problems.push(format!("`{}` is no absolute path", self.target));
        }
        if let Some(mode) = &self.access_mode
            && AccessMode::parse(mode).is_none()
        {
            let known = "ReadWriteOnce, ReadOnlyMany, ReadWriteMany";
            problems.push(format!("access_mode: `{mode}` is none of {known}"));
        }
        if let Some(fs) = &self.fs_type
            && !Self::FILE_SYSTEMS.contains(&fs.as_str())
        {
            let known = Self::FILE_SYSTEMS.join(", ");
            problems.push(format!("fs_type: `{fs}` is none of {known}"));
        }
        if self.driver == Self::CEPH && self.access() == AccessMode::ReadWriteMany {
            problems.push(format!(
                "`{}`: a disk has one writer; ReadWriteMany needs the driver nfs",
                self.name
            ));
        }
        if self.size == Some(Bytes(0)) {
            problems.push(format!("size: 0 is no size of `{}`", self.name));
        }
        problems
    }
}

impl AccessMode {
    /// Reads the word in full or short, whatever its case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "readwriteonce" | "rwo" => Some(Self::ReadWriteOnce),
            "readonlymany" | "rox" => Some(Self::ReadOnlyMany),
            "readwritemany" | "rwx" => Some(Self::ReadWriteMany),
            _ => None,
        }
    }
}

impl WorkloadSpec {
    /// The volumes that its copies need of their node.
    #[must_use]
    pub fn volumes(&self) -> &[ManagedVolume] {
        let Self {
            process,
            container,
            vm,
            ..
        } = self;
        let of_process = process.as_ref().map(|process| &process.volumes);
        let of_container = container.as_ref().map(|container| &container.volumes);
        let of_vm = vm.as_ref().map(|vm| &vm.volumes);
        let volumes = of_process.or(of_container).or(of_vm);
        volumes.map_or(&[], Vec::as_slice)
    }

    /// Whether a copy leaves data on its node's own disk.
    #[must_use]
    pub fn has_local_data(&self) -> bool {
        let mut volumes = self.volumes().iter();
        volumes.any(|volume| volume.driver == ManagedVolume::LOCAL)
    }
}

pub(super) fn check(section: &str, volumes: &[ManagedVolume], findings: &mut Vec<String>) {
    let (mut names, mut targets) = (BTreeSet::new(), BTreeSet::new());
    for volume in volumes {
        let name = &volume.name;
        let is_name = name.chars().any(|c| c.is_ascii_alphanumeric());
        if !is_name || !names.insert(name) {
            findings.push(format!(
                "{section}.volumes: the name `{name}` says nothing or is given twice"
            ));
        }
        if !targets.insert(volume.target.trim_end_matches('/')) {
            let target = &volume.target;
            findings.push(format!("{section}.volumes: two are to be at `{target}`"));
        }
        let problems = volume.problems().into_iter();
        findings.extend(problems.map(|problem| format!("{section}.volumes: {problem}")));
    }
}

fn local() -> String {
    ManagedVolume::LOCAL.to_owned()
}

fn is_local(driver: &String) -> bool {
    driver == ManagedVolume::LOCAL
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check("process", &[read(text)], &mut findings);
        findings
    }

    fn read(text: &str) -> ManagedVolume {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_makes_no_sense_in_a_volume_is_a_finding() {
        assert_eq!(findings(r#"{"name":"a","target":"/a"}"#), [""; 0]);
        for (text, part) in [
            (r#"{"name":"..","target":"/a"}"#, "says nothing"),
            (r#"{"name":"a","target":"/"}"#, "no absolute path"),
            (r#"{"name":"a","target":"/a/../etc"}"#, "no absolute path"),
            (
                r#"{"name":"a","target":"/a","access_mode":"often"}"#,
                "`often`",
            ),
            (r#"{"name":"a","target":"/a","fs_type":"../x"}"#, "fs_type"),
            (r#"{"name":"a","target":"/a","size":0}"#, "no size"),
            (
                r#"{"name":"a","target":"/a","driver":"ceph-rbd","access_mode":"RWX"}"#,
                "one writer",
            ),
        ] {
            let found = findings(text);
            assert!(
                matches!(found.as_slice(), [one] if one.contains(part)),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn who_may_use_a_volume_is_read_in_every_spelling() {
        let mode = |word: &str| {
            read(&format!(
                r#"{{"name":"a","target":"/a","access_mode":"{word}"}}"#
            ))
        };
        assert_eq!(
            read(r#"{"name":"a","target":"/a"}"#).access(),
            AccessMode::ReadWriteOnce
        );
        assert_eq!(mode("readwritemany").access(), AccessMode::ReadWriteMany);
        assert!(mode("ROX").is_read_only() && !mode("RWO").is_read_only());
    }
}

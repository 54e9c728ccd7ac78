//! The `container` section: a container of the node's Docker-compatible engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ManagedVolume;
use super::volume;

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
        volume::check("container", &self.volumes, findings);
    }
}

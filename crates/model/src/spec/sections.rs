//! The section of each kind. `process` and `container` are run by drivers of this version; the others parse
//! and are refused by nodes without the driver.

use std::collections::BTreeMap;

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

/// A compose project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeSpec {
    /// The compose file's text.
    pub file: String,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Path or URL of the boot disk.
    pub image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
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
    }
}

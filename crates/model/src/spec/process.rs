//! The `process` section: a plain process of the node.

use serde::{Deserialize, Serialize};

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

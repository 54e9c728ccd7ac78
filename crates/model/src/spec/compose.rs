//! The `compose` section: a compose project.

use serde::{Deserialize, Serialize};

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

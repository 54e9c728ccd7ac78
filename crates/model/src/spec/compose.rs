//! The `compose` section: a compose project.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A compose project: its text, or the repository that holds it. The workload's `env` fills the `${NAME}` of the
/// text; it is not the environment of every container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeSpec {
    /// The compose file's text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The same in base64, for programs that cannot quote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base64: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
}

/// A repository and what to check out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// What `git clone` takes, without any password or token in it.
    pub repo: String,
    /// Branch, tag or commit; the repository's default if left out.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The compose file within the repository; if left out, the first of the usual names at its top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Absolute path of a file on the node that holds the token, or `user:token`. The token itself never
    /// leaves the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<String>,
}

/// Variables that the compose program itself, or what runs it, would obey.
const OBEYED: [&str; 4] = ["PATH", "HOME", "BASH_ENV", "TMPDIR"];
const OBEYED_FAMILIES: [&str; 11] = [
    "LD_",
    "DOCKER_",
    "COMPOSE_",
    "BUILDKIT_",
    "BUILDX_",
    "PYTHON",
    "GIT_",
    "SSH_",
    "SSL_",
    "GODEBUG",
    "XDG_",
];
/// The one of them that is for users.
const PROFILES: &str = "COMPOSE_PROFILES";

impl ComposeSpec {
    /// A project of that text.
    #[must_use]
    pub fn of_text(file: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            ..Self::default()
        }
    }

    /// The text of the compose file, unless a repository holds it.
    ///
    /// # Errors
    /// The base64 is none, or none of a text.
    pub fn text(&self) -> Result<Option<String>, String> {
        if self.git.is_some() {
            return Ok(None);
        }
        if self.base64.is_empty() {
            return Ok(Some(self.file.clone()));
        }
        let packed: String = self.base64.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(packed).map_err(|error| error.to_string())?;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| "is no text in UTF-8".to_owned())
    }

    pub(super) fn check(&self, env: &BTreeMap<String, String>, findings: &mut Vec<String>) {
        let sources = [
            !self.file.trim().is_empty(),
            !self.base64.trim().is_empty(),
            self.git.is_some(),
        ];
        match sources.into_iter().filter(|is_there| *is_there).count() {
            0 => {
                findings.push("compose: neither `file` nor `base64` nor `git` is there".to_owned())
            }
            1 => {}
            _ => {
                findings.push("compose: `file`, `base64` and `git` exclude each other".to_owned());
            }
        }
        match self.text() {
            Err(why) => findings.push(format!("compose.base64: {why}")),
            Ok(Some(text)) if text.contains('\0') => {
                findings.push("compose: the text holds a NUL character".to_owned());
            }
            Ok(_) => {}
        }
        if let Some(git) = &self.git {
            git.check(findings);
        }
        for name in env.keys().filter(|name| is_obeyed(name)) {
            findings.push(format!(
                "env: `{name}` would steer the compose program itself; give the variable another name"
            ));
        }
    }
}

impl GitSource {
    /// No finding repeats the repository: it may hold a credential.
    fn check(&self, findings: &mut Vec<String>) {
        let is_plain = |text: &str| {
            let is_odd = |c: char| c.is_whitespace() || c.is_control();
            !text.is_empty() && !text.starts_with('-') && !text.contains(is_odd)
        };
        if !is_plain(&self.repo) {
            findings.push("compose.git.repo: is empty or no repository".to_owned());
        }
        if self.holds_credential() {
            findings.push(
                "compose.git.repo: holds a credential, which every reader of the spec would see; keep it in a file \
                 on the node and name that as `token_file`"
                    .to_owned(),
            );
        }
        let reference = self.reference.as_deref();
        if reference.is_some_and(|it| !is_plain(it) || it.contains("..") || it.contains(':')) {
            findings.push("compose.git.ref: is no branch, tag or commit".to_owned());
        }
        let is_within = |path: &str| {
            let mut parts = path.split('/');
            !path.is_empty() && parts.all(|part| !part.is_empty() && part != ".." && part != ".git")
        };
        if self.path.as_deref().is_some_and(|path| !is_within(path)) {
            findings.push("compose.git.path: is no path within the repository".to_owned());
        }
        if let Some(path) = &self.token_file {
            if !path.starts_with('/') {
                findings.push("compose.git.token_file: is no absolute path".to_owned());
            }
            if !self.repo.starts_with("http://") && !self.repo.starts_with("https://") {
                findings
                    .push("compose.git.token_file: only http and https take a token".to_owned());
            }
        }
    }

    /// Whether there is a user or password in a web address, or a password in any other.
    fn holds_credential(&self) -> bool {
        let Some((scheme, rest)) = self.repo.split_once("://") else {
            return false;
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let Some((user, _)) = authority.rsplit_once('@') else {
            return false;
        };
        scheme.starts_with("http") || user.contains(':')
    }
}

fn is_obeyed(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let is_one = OBEYED.contains(&name.as_str())
        || OBEYED_FAMILIES
            .iter()
            .any(|family| name.starts_with(family))
        || name.ends_with("_PROXY");
    is_one && name != PROFILES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(repo: &str) -> Vec<String> {
        let git = GitSource {
            repo: repo.to_owned(),
            ..GitSource::default()
        };
        let mut findings = Vec::new();
        git.check(&mut findings);
        findings
    }

    #[test]
    fn the_text_comes_plain_or_packed_or_from_a_repository() {
        let plain = ComposeSpec::of_text("services: {}");
        let packed = ComposeSpec {
            base64: STANDARD.encode("services: {}"),
            ..ComposeSpec::default()
        };
        assert_eq!(plain.text(), Ok(Some("services: {}".to_owned())));
        assert_eq!(packed.text(), plain.text());
        let git = ComposeSpec {
            git: Some(GitSource::default()),
            ..ComposeSpec::default()
        };
        assert_eq!(git.text(), Ok(None));
    }

    #[test]
    fn a_credential_in_the_repository_is_refused_and_not_repeated() {
        for repo in [
            "https://s3cret@host/repo.git",
            "http://anna:s3cret@host:3000/repo",
            "ssh://git:s3cret@host/repo",
        ] {
            let found = findings(repo);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains("credential"), "{found:?}");
            assert!(!found[0].contains("s3cret"), "{found:?}");
        }
        for repo in [
            "https://host/repo@v1.git",
            "ssh://git@host/repo",
            "git@host:team/repo.git",
            "/srv/repo.git",
        ] {
            assert_eq!(findings(repo), Vec::<String>::new(), "{repo}");
        }
    }

    #[test]
    fn only_what_would_steer_the_program_is_refused_as_a_variable() {
        for name in [
            "PATH",
            "path",
            "DOCKER_HOST",
            "COMPOSE_FILE",
            "https_proxy",
            "PYTHONPATH",
        ] {
            assert!(is_obeyed(name), "{name}");
        }
        for name in [
            "COMPOSE_PROFILES",
            "DB_PATH",
            "HOMEPAGE",
            "TAG",
            "GITEA_PORT",
        ] {
            assert!(!is_obeyed(name), "{name}");
        }
    }
}

//! The `secrets` list: which secrets a copy gets, and how. A spec holds their names only.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Kind, WorkloadSpec};
use crate::Secret;

/// Where files of secrets are unless the spec says otherwise; of a compose project the variable says it.
const DIRECTORY: &str = "/run/secrets";

/// One secret of a copy: as a variable, or as a file in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    pub name: String,
    /// The variable that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Absolute path of the file that holds it, of a process below `/run/secrets`; `/run/secrets/NAME` without `env`
    /// and `file`. Of a compose project a plain name, below the directory that `${HOSTLER_SECRETS}` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Of the file, in octal digits; `"0444"` if left out: nobody but the copy sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// Where a copy finds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    Env(String),
    File { path: String, mode: u32 },
}

impl SecretUse {
    /// The variable that stands for the directory of a compose project's secrets.
    pub const DIRECTORY_VARIABLE: &'static str = "HOSTLER_SECRETS";

    /// Where a copy of that kind finds it.
    #[must_use]
    pub fn place(&self, kind: Kind) -> SecretPlace {
        if let Some(variable) = &self.env {
            return SecretPlace::Env(variable.clone());
        }
        let usual = || match kind {
            Kind::Compose => self.name.clone(),
            _ => format!("{DIRECTORY}/{}", self.name),
        };
        SecretPlace::File {
            path: self.file.clone().unwrap_or_else(usual),
            mode: self.mode_bits().unwrap_or(0o444),
        }
    }

    fn mode_bits(&self) -> Option<u32> {
        let bits = u32::from_str_radix(self.mode.as_deref()?, 8).ok()?;
        (bits <= 0o777).then_some(bits)
    }

    fn check(&self, spec: &WorkloadSpec, findings: &mut Vec<String>) {
        let name = self.name.escape_debug();
        if !Secret::is_name(&self.name) {
            findings.push(format!("secrets: `{name}` is no name of a secret"));
        }
        if self.env.is_some() && (self.file.is_some() || self.mode.is_some()) {
            findings.push(format!(
                "secrets.{name}: is either a variable or a file; name it twice to have both"
            ));
        }
        if self.mode.is_some() && self.mode_bits().is_none() {
            findings.push(format!("secrets.{name}.mode: is no octal mode up to 0777"));
        }
        if let Some(variable) = &self.env {
            let is_odd = variable.is_empty() || variable.contains(['=', '\0']);
            if is_odd {
                findings.push(format!("secrets.{name}.env: is no variable name"));
            }
            if spec.env.contains_key(variable) {
                findings.push(format!(
                    "secrets.{name}.env: `{variable}` is in `env` already"
                ));
            }
        }
        let runs_on = spec.runs_on();
        let is_compose = runs_on == Kind::Compose;
        if is_compose && self.env.is_some() {
            findings.push(format!(
                "secrets.{name}.env: a compose project gets secrets as files alone; name `${{{}}}/{name}` in its file",
                Self::DIRECTORY_VARIABLE
            ));
        }
        let is_refused = |path: &String| !is_path(path, runs_on);
        if self.file.as_ref().is_some_and(is_refused) {
            let what = match runs_on {
                Kind::Compose => "plain file name",
                // What is missing there is made, and elsewhere on a node that could mean something.
                Kind::Process => "path below /run/secrets, where a process has its secrets",
                _ => "absolute path of a file",
            };
            findings.push(format!("secrets.{name}.file: is no {what}"));
        }
    }
}

fn is_path(path: &str, runs_on: Kind) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let are_parts = |inner: &str| inner.split('/').all(is_part) && !path.contains('\0');
    match runs_on {
        Kind::Compose => Secret::is_name(path),
        Kind::Process => {
            let inner = path.strip_prefix(DIRECTORY);
            inner
                .and_then(|it| it.strip_prefix('/'))
                .is_some_and(are_parts)
        }
        _ => path.strip_prefix('/').is_some_and(are_parts),
    }
}

/// Every finding about the list.
pub(super) fn check(spec: &WorkloadSpec, findings: &mut Vec<String>) {
    if spec.secrets.is_empty() {
        return;
    }
    if matches!(spec.kind(), Kind::Vm | Kind::Model) {
        findings.push(format!(
            "secrets: a {} gets none: what it is begun with lies on the node's disk",
            spec.kind()
        ));
    }
    let mut places = BTreeSet::new();
    for secret in &spec.secrets {
        secret.check(spec, findings);
        let place = match secret.place(spec.kind()) {
            SecretPlace::Env(variable) => (true, variable),
            SecretPlace::File { path, .. } => (false, path),
        };
        if !places.insert(place) {
            findings.push(format!(
                "secrets.{}: another one has its place already",
                secret.name.escape_debug()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(secrets: &str) -> Vec<String> {
        let mut spec = WorkloadSpec::of_process("web", vec!["true".to_owned()]);
        spec.env.insert("PORT".to_owned(), "1".to_owned());
        spec.secrets = serde_json::from_str(secrets).unwrap();
        let mut findings = Vec::new();
        check(&spec, &mut findings);
        findings
    }

    #[test]
    fn a_secret_is_a_variable_or_a_file_and_by_itself_a_file_below_run_secrets() {
        let read = |text: &str| serde_json::from_str::<SecretUse>(text).unwrap();
        let place = |text: &str| read(text).place(Kind::Process);
        assert_eq!(
            place(r#"{"name":"db","env":"DB"}"#),
            SecretPlace::Env("DB".to_owned())
        );
        let file = |path: &str, mode| SecretPlace::File {
            path: path.to_owned(),
            mode,
        };
        assert_eq!(place(r#"{"name":"db"}"#), file("/run/secrets/db", 0o444));
        assert_eq!(
            place(r#"{"name":"db","file":"/etc/db","mode":"0400"}"#),
            file("/etc/db", 0o400)
        );
        let of_project = read(r#"{"name":"db"}"#).place(Kind::Compose);
        assert_eq!(of_project, file("db", 0o444));
    }

    #[test]
    fn what_could_not_be_given_is_found_in_the_spec() {
        for (secrets, part) in [
            (r#"[{"name":"a/b"}]"#, "no name"),
            (r#"[{"name":"a","env":"X","mode":"0400"}]"#, "either"),
            (r#"[{"name":"a","env":"A=B"}]"#, "no variable name"),
            (r#"[{"name":"a","env":"PORT"}]"#, "already"),
            (r#"[{"name":"a","file":"x"}]"#, "below /run/secrets"),
            (r#"[{"name":"a","file":"/run/secrets/../y"}]"#, "below"),
            (r#"[{"name":"a","file":"/etc/nologin"}]"#, "below"),
            (r#"[{"name":"a","mode":"9"}]"#, "octal"),
            (
                r#"[{"name":"a"},{"name":"b","file":"/run/secrets/a"}]"#,
                "its place",
            ),
        ] {
            let found = findings(secrets);
            assert!(
                found.len() == 1 && found[0].contains(part),
                "{secrets}: {found:?}"
            );
        }
        assert_eq!(
            findings(r#"[{"name":"a"},{"name":"a","env":"A"}]"#),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_machine_gets_none_and_a_project_gets_files() {
        let mut spec = WorkloadSpec::bare("web");
        spec.compose = Some(super::super::ComposeSpec::of_text("services: {}"));
        spec.secrets = serde_json::from_str(r#"[{"name":"a","env":"A"}]"#).unwrap();
        let mut found = Vec::new();
        check(&spec, &mut found);
        assert!(found[0].contains("as files alone"), "{found:?}");
        let text = "name: m\nvm: { disks: [{ image: /x.qcow2 }] }\nsecrets: [{ name: a }]";
        let refusal = super::super::parse(text).unwrap_err();
        assert!(refusal.to_string().contains("a vm gets none"), "{refusal}");
    }
}

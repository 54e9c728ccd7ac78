//! TLS of Persys's contract on the control plane's side: its own files, under its own names. They have nothing to do
//! with the fleet's authority.

use std::path::{Path, PathBuf};

use hostler_doors::Dialect;
use hostler_kit::trust::{ClientTls, MemberFiles, ServerTls, TrustError};
use serde::Deserialize;

use super::{CompatListener, Environment};
use crate::failure::Failure;

/// Where Persys's scheduler looks; its documents spell the directory the second way.
const USUAL: [&str; 2] = [
    "/etc/persys/certs/persys_scheduler",
    "/etc/persys/certs/persys-scheduler",
];

/// Where Persys's agent looks.
pub(crate) const AGENTS: &str = "/etc/persys/certs/agent";

/// `[persys]` of `server.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PersysFile {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// Where TLS is spoken; none: plain text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PersysTls {
    /// On Persys's own port.
    pub(crate) port: Option<MemberFiles>,
    /// With agents that are dialled.
    pub(crate) agents: Option<MemberFiles>,
}

impl PersysTls {
    /// Agents are dialled as the port is served, unless Persys's own variable says otherwise.
    pub(super) fn resolve(
        file: PersysFile,
        environment: &Environment,
        (open, is_plain): (&[CompatListener], bool),
    ) -> Self {
        let is_persys = |it: &CompatListener| it.historic.dialect == Dialect::Persys;
        let serves = !is_plain && open.iter().any(is_persys);
        let told = environment.get("SCHEDULER_AGENT_TLS_ENABLED");
        let dials = told.map_or(serves, |text| text.eq_ignore_ascii_case("true"));
        let dir = USUAL.map(Path::new);
        let usual = dir.iter().find(|dir| dir.is_dir()).unwrap_or(&dir[0]);
        let path = |variable: &str, file: Option<PathBuf>, name: &str| {
            let told = environment.get(variable).filter(|text| !text.is_empty());
            let told = told.map(PathBuf::from).or(file);
            told.unwrap_or_else(|| usual.join(name))
        };
        let files = MemberFiles {
            certificate: path("PERSYS_TLS_CERT", file.certificate, "persys_scheduler.crt"),
            key: path("PERSYS_TLS_KEY", file.key, "persys_scheduler-key.key"),
            authority: path("PERSYS_TLS_CA", file.ca, "ca.pem"),
        };
        Self {
            port: serves.then(|| files.clone()),
            agents: dials.then_some(files),
        }
    }

    /// Reads the files.
    pub(crate) fn open(&self) -> Result<(Option<ServerTls>, Option<ClientTls>), Failure> {
        let refused = |what: &'static str| move |error| refused(what, &error);
        let port = self.port.clone().map(ServerTls::of_files).transpose();
        let agents = self.agents.clone().map(ClientTls::of_files).transpose();
        Ok((
            port.map_err(refused("Persys's port"))?,
            agents.map_err(refused("what calls Persys's agents"))?,
        ))
    }
}

/// The files that server and agent of this machine would use, as far as they are there.
pub(super) fn files_here(file: PersysFile, environment: &Environment) -> Vec<PathBuf> {
    let named = ["PERSYS_TLS_CERT", "PERSYS_TLS_KEY", "PERSYS_TLS_CA"];
    let named = named.into_iter().filter_map(|name| environment.get(name));
    let mut files: Vec<PathBuf> = named.map(PathBuf::from).collect();
    files.extend([file.certificate, file.key, file.ca].into_iter().flatten());
    let usual = USUAL.into_iter().chain([AGENTS]);
    let usual = usual
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten();
    files.extend(usual.flatten().map(|entry| entry.path()));
    files.retain(|path| path.is_file());
    files.sort_unstable();
    files.dedup();
    files
}

/// Persys's files cannot be used.
pub(crate) fn refused(what: &str, error: &TrustError) -> Failure {
    Failure::usage(
        format!("{what} speaks TLS, and {error}"),
        "put the certificates of Persys's authority there, or name others with PERSYS_TLS_CERT, PERSYS_TLS_KEY and \
         PERSYS_TLS_CA; where the network is trusted, `-insecure`, with one dash as Persys spells it, means plain text",
    )
}

#[cfg(test)]
mod tests {
    use super::super::compat;
    use super::*;

    fn of(words: &[&str], is_plain: bool, variables: &[(&str, &str)]) -> PersysTls {
        let environment = Environment::of(variables);
        let around = compat::Around {
            environment: &environment,
            host: [127, 0, 0, 1].into(),
            insecure: false,
            login: false,
            persys_insecure: is_plain,
        };
        let words = compat::Words {
            names: words.iter().map(|word| (*word).to_owned()).collect(),
            ..compat::Words::default()
        };
        let open = compat::resolve(&words, &around).unwrap().listeners;
        let file = toml::from_str("key = \"/of/file.key\"\nca = \"/of/ca.pem\"").unwrap();
        PersysTls::resolve(file, &environment, (&open, is_plain))
    }

    #[test]
    fn the_port_speaks_tls_with_persys_files_unless_it_is_told_otherwise() {
        let named = [("PERSYS_TLS_KEY", "/of/variable.key")];
        let tls = of(&["persys"], false, &named);
        let files = tls.port.clone().unwrap();
        assert_eq!(tls.agents, tls.port);
        assert_eq!(files.key, Path::new("/of/variable.key"));
        assert_eq!(files.authority, Path::new("/of/ca.pem"));
        assert!(files.certificate.ends_with("persys_scheduler.crt"));
        assert!(files.certificate.starts_with("/etc/persys/certs"));
        for (words, is_plain) in [(&["persys"][..], true), (&["spot"], false), (&[], true)] {
            let tls = of(words, is_plain, &[]);
            assert_eq!(tls, PersysTls::default(), "{words:?}");
        }
    }

    #[test]
    fn persys_variable_says_how_agents_are_dialled() {
        let dials = |words: &[&str], is_plain, told| {
            let tls = of(words, is_plain, &[("SCHEDULER_AGENT_TLS_ENABLED", told)]);
            tls.agents.is_some()
        };
        assert!(dials(&["persys"], true, "True"));
        assert!(!dials(&["persys"], false, "1"), "only `true` is true");
        assert!(dials(&[], false, "true"));
    }

    #[test]
    fn a_missing_file_is_one_sentence_with_its_path() {
        let variables = [("PERSYS_TLS_CERT", "/nonexistent/own.pem")];
        let refused = of(&["persys"], false, &variables).open().err().unwrap();
        let expected = "Persys's port speaks TLS, and /nonexistent/own.pem cannot be read: ";
        assert!(
            refused.sentence.starts_with(expected),
            "{}",
            refused.sentence
        );
        assert!(refused.advice.contains("PERSYS_TLS_CERT"));
    }
}

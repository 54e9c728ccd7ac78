//! Configuration files: TOML, every key optional, unknown keys refused with their line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hostler_model::Resources;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::care::{GcFile, PressureFile};
use super::contracts::{MiaasFile, OrchionFile, SpotFile};
use super::persys::PersysFile;
use super::registries::ContainerFile;
use super::trust::{AgentTlsFile, ServerTlsFile};
use super::vm::VmFile;
use super::volumes::VolumesFile;
use crate::args::{Dialect, LogFormat};
use crate::failure::Failure;

/// `server.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerFile {
    pub(crate) listen: Option<String>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) insecure: Option<bool>,
    pub(crate) connections: Option<usize>,
    pub(crate) connections_per_address: Option<usize>,
    /// As words of `--compat`.
    pub(crate) compat: Vec<String>,
    /// As words of `--compat-auth` and `--compat-tls`.
    pub(crate) compat_auth: Vec<String>,
    pub(crate) compat_tls: Vec<String>,
    pub(crate) persys_insecure: Option<bool>,
    pub(crate) tls: ServerTlsFile,
    pub(crate) miaas: MiaasFile,
    pub(crate) orchion: OrchionFile,
    pub(crate) persys: PersysFile,
    pub(crate) spot: SpotFile,
    pub(crate) secrets_key: Option<PathBuf>,
    pub(crate) secrets_passphrase_file: Option<PathBuf>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
}

/// `agent.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AgentFile {
    pub(crate) server: Option<String>,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) data_dir: Option<PathBuf>,
    /// The token to join with.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) tls: AgentTlsFile,
    pub(crate) name: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) insecure: Option<bool>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) docker_socket: Option<String>,
    /// Where the node's owner says what may run here.
    pub(crate) guard: Option<PathBuf>,
    pub(crate) container: ContainerFile,
    /// What is kept for the machine itself.
    pub(crate) reserve: Option<Resources>,
    pub(crate) vm: VmFile,
    pub(crate) gc: GcFile,
    pub(crate) pressure: PressureFile,
    pub(crate) volumes: VolumesFile,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
}

/// Reads the named file, or the usual one if it is there.
pub(crate) fn read<T>(named: Option<&Path>, usual: &Path) -> Result<T, Failure>
where
    T: DeserializeOwned + Default,
{
    let path = named.unwrap_or(usual);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok(T::default());
        }
        Err(error) => {
            let sentence = format!(
                "cannot read the configuration file {}: {error}",
                path.display()
            );
            return Err(Failure::usage(
                sentence,
                "name a readable file with --config",
            ));
        }
    };
    toml::from_str(&text).map_err(|error| unreadable(path, &text, &error))
}

fn unreadable(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let before = error
        .span()
        .and_then(|span| text.get(..span.start))
        .unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let message = error.message().replace('\n', " ");
    let sentence = format!("{}:{line}:{column}: {message}", path.display());
    Failure::usage(
        sentence,
        "correct the line; docs/guide/config.md lists every key",
    )
}

//! Whose agent an agent is, and what the agent of a foreign contract takes from its surroundings beside its contract's
//! own settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{AgentTrust, DEFAULT_ADDR, Environment, Layers, LogSettings, allowed, url};
use crate::args::{Dialect, LogArgs};
use crate::failure::Failure;

/// Whom an agent calls, and in which contract.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Our own control plane.
    Session { server: String },
    Foreign {
        dialect: Foreign,
        /// As it was given; the contract has its own default, and reads it in its own way.
        server: Option<String>,
        /// The file of that contract's own agent.
        file: Option<PathBuf>,
    },
}

/// A contract that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    Miaas,
    Orchion,
    Spot,
    Persys,
}

/// Resolved.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) data_dir: PathBuf,
    /// Where the agent answers about itself; none means nowhere.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) docker_socket: String,
    /// Whom to believe and what to show where the contract's address says https.
    pub(crate) trust: AgentTrust,
    pub(crate) log: LogSettings,
}

/// What the command line says of it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) listen: Option<String>,
}

impl Surroundings {
    /// `own` is the directory below the usual one: agents of several contracts may share a machine.
    pub(crate) fn resolve(
        told: Told,
        own: &str,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let layers = Layers { environment };
        let is_chosen = told.data_dir.is_some() || environment.get("HOSTLER_DATA_DIR").is_some();
        let chosen = layers.data_dir(told.data_dir, None)?;
        let listen = layers.text(told.listen, "HOSTLER_AGENT_LISTEN", None);
        let insecure = layers.switch(false, "HOSTLER_INSECURE", None)?;
        Ok(Self {
            data_dir: if is_chosen { chosen } else { chosen.join(own) },
            listen: listen.map(|text| allowed(&text, insecure)).transpose()?,
            docker_socket: layers.docker_socket(None, None),
            trust: AgentTrust::of_foreign(environment)?,
            // What people look for is on stdout; here is only what troubles this program.
            log: layers.log(LogArgs::default(), (None, None), "warn")?,
        })
    }
}

/// Who is meant; only our own server's address is read here.
pub(super) fn target(
    (dialect, server): (Dialect, Option<String>),
    file: Option<PathBuf>,
) -> Result<Target, Failure> {
    let dialect = match dialect {
        Dialect::Session => {
            let server = url(server.as_deref().unwrap_or(DEFAULT_ADDR), "--server")?;
            return Ok(Target::Session { server });
        }
        Dialect::Miaas => Foreign::Miaas,
        Dialect::Orchion => Foreign::Orchion,
        Dialect::Spot => Foreign::Spot,
        Dialect::Persys => Foreign::Persys,
    };
    Ok(Target::Foreign {
        dialect,
        server,
        file,
    })
}

//! `install` and `uninstall`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::pair;

/// What changes the services of this machine.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Make control plane or agent a service of this machine, or bring it to this version
    Install(Box<InstallArgs>),
    /// Take a service off this machine; what it runs and its data stay
    Uninstall(UninstallArgs),
}

/// What runs on a machine as a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The control plane
    Server,
    /// The agent
    Agent,
    /// The agent of the spot contract
    SpotAgent,
    /// MIaaS's agent
    MiaasAgent,
    /// Orchion's agent
    NodeAgent,
    /// Persys's agent
    PersysAgent,
}

#[derive(Args)]
pub(crate) struct InstallArgs {
    /// What to install
    #[arg(value_name = "PART")]
    pub(crate) part: Part,
    /// The control plane that an agent joins, as that agent's own settings write it
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// What the agent shows to join; `--token-file` keeps it out of the list of processes
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file that has the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The node's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A label that the node gets when it first joins; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// Where the control plane listens [default: 0.0.0.0:8080, with --insecure 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// No TLS and no login: the control plane, or Persys's contract, is open to everyone who reaches it
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// The token is not shown.
impl std::fmt::Debug for InstallArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InstallArgs({:?})", self.part)
    }
}

#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// What to take off this machine
    #[arg(value_name = "PART")]
    pub(crate) part: Part,
    /// Delete its settings and all its data as well: identity, store, volumes, logs
    #[arg(long)]
    pub(crate) purge: bool,
    /// Do not ask before data is deleted
    #[arg(short, long)]
    pub(crate) yes: bool,
}

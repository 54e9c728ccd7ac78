//! The long-running parts: `up`, `server` and `agent`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{AgentTrustArgs, ServerTrustArgs, pair, span};

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Run two sample workloads and show them
    #[arg(long)]
    pub(crate) demo: bool,
    /// Where the API listens; port 0 takes any free one [env: HOSTLER_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Allow --listen beyond this machine: there is no login, so whoever reaches it can do everything
    /// [env: HOSTLER_INSECURE]
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) compat: CompatArgs,
    /// Where state is kept [env: HOSTLER_DATA_DIR] [default: /var/lib/hostler as root, else
    /// ~/.local/share/hostler]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The Docker engine's socket [env: HOSTLER_DOCKER_SOCKET] [default: DOCKER_HOST, else
    /// /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) docker_socket: Option<String>,
    /// The node's name [env: HOSTLER_NAME] [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) secrets: SecretsArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// What seals the secrets.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SecretsArgs {
    /// The file of keys that seal secrets; made if it is missing [env: HOSTLER_SECRETS_KEY] [default:
    /// secrets.key in the data directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets_key: Option<PathBuf>,
    /// A file with the passphrase that locks the file of keys; the passphrase itself may be in
    /// HOSTLER_SECRETS_PASSPHRASE [env: HOSTLER_SECRETS_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets_passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Where the API listens; port 0 takes any free one [env: HOSTLER_LISTEN] [default: 0.0.0.0:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Where state is kept [env: HOSTLER_DATA_DIR] [default: /var/lib/hostler as root, else
    /// ~/.local/share/hostler]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Serve in plain text and without login: whoever reaches it can do everything
    /// [env: HOSTLER_INSECURE]
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) trust: ServerTrustArgs,
    #[command(flatten)]
    pub(crate) compat: CompatArgs,
    /// The configuration file [env: HOSTLER_CONFIG] [default: /etc/hostler/server.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) secrets: SecretsArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AgentArgs {
    /// The control plane [env: HOSTLER_SERVER] [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The contract that the control plane speaks [env: HOSTLER_DIALECT] [default: session]
    #[arg(long, value_name = "CONTRACT")]
    pub(crate) dialect: Option<Dialect>,
    /// The file of that contract's own agent, such as node-agent's YAML or spot-agent's agent.conf
    /// [env: HOSTLER_DIALECT_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) dialect_config: Option<PathBuf>,
    /// Speak Persys's contract in plain text; Persys's own spelling `-insecure` means the same
    #[arg(long)]
    pub(crate) persys_insecure: bool,
    /// Where identity, ledger and units are kept [env: HOSTLER_DATA_DIR] [default: /var/lib/hostler as
    /// root, else ~/.local/share/hostler]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The node's name [env: HOSTLER_NAME] [default: the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Tells this machine from those with a copy of its disk; must not lie on the disk itself
    /// [env: HOSTLER_MACHINE_ID] [default: what board and network devices say]
    #[arg(long, value_name = "TEXT")]
    pub(crate) machine_id: Option<String>,
    #[command(flatten)]
    pub(crate) trust: AgentTrustArgs,
    /// Where the agent answers /healthz, /readyz, /version and /metrics [env: HOSTLER_AGENT_LISTEN]
    /// [default: nowhere]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Allow --listen beyond this machine: whoever reaches it can read the agent's figures
    /// [env: HOSTLER_INSECURE]
    #[arg(long)]
    pub(crate) insecure: bool,
    /// A label that the node gets when it first joins; repeatable [env: HOSTLER_LABELS, comma-separated]
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// The Docker engine's socket [env: HOSTLER_DOCKER_SOCKET] [default: DOCKER_HOST, else
    /// /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) docker_socket: Option<String>,
    /// What the node's owner lets run here [env: HOSTLER_GUARD] [default: /etc/hostler/guard.toml, if it is
    /// there]
    #[arg(long, value_name = "FILE")]
    pub(crate) guard: Option<PathBuf>,
    /// Processor time kept for the machine itself [env: HOSTLER_RESERVE_CPU] [default: 0]
    #[arg(long, value_name = "CPU")]
    pub(crate) reserve_cpu: Option<String>,
    /// Memory kept for the machine itself [env: HOSTLER_RESERVE_MEMORY] [default: 0]
    #[arg(long, value_name = "BYTES")]
    pub(crate) reserve_memory: Option<String>,
    /// Room on the disk kept for the machine itself [env: HOSTLER_RESERVE_DISK] [default: 0]
    #[arg(long, value_name = "BYTES")]
    pub(crate) reserve_disk: Option<String>,
    /// Delete what nothing needs once so many percent of a disk are in use; 100 is never
    /// [env: HOSTLER_GC_START] [default: 85]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) gc_start: Option<u64>,
    /// Until no more than so many are in use [env: HOSTLER_GC_STOP] [default: 75]
    #[arg(long, value_name = "PERCENT")]
    pub(crate) gc_stop: Option<u64>,
    /// What was of use within this span stays [env: HOSTLER_GC_MIN_AGE] [default: 1h]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) gc_min_age: Option<std::time::Duration>,
    /// The configuration file [env: HOSTLER_CONFIG] [default: /etc/hostler/agent.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// The ports of other systems.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CompatArgs {
    /// Open the port that another system's programs expect, and on a server with login its door: miaas, orchion,
    /// persys, spot or all; repeatable [env: HOSTLER_COMPAT, comma-separated] [default: none; without login all
    /// contracts are at --listen]
    #[arg(long, value_name = "NAME[=HOST:PORT]", help_heading = "Other systems")]
    pub(crate) compat: Vec<String>,
    /// Who may use a door of a server with login: whoever shows a token, or whoever its contract lets in; repeatable
    /// [env: HOSTLER_COMPAT_AUTH, comma-separated] [default: token]
    #[arg(
        long,
        value_name = "NAME=token|contract",
        help_heading = "Other systems"
    )]
    pub(crate) compat_auth: Vec<String>,
    /// What a port of another system speaks on a server with login, sniff being both; repeatable
    /// [env: HOSTLER_COMPAT_TLS, comma-separated] [default: on, and off for a port on this machine alone]
    #[arg(long, value_name = "NAME=on|off|sniff", help_heading = "Other systems")]
    pub(crate) compat_tls: Vec<String>,
    /// Serve Persys's ports in plain text; Persys's own spelling `-insecure` means the same
    #[arg(long, help_heading = "Other systems")]
    pub(crate) persys_insecure: bool,
}

/// What is logged, on stderr.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LogArgs {
    /// What to log, such as `info` or `hostler_agent=debug,warn` [env: HOSTLER_LOG_LEVEL, RUST_LOG]
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub(crate) log_level: Option<String>,
    /// How log lines look [env: HOSTLER_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORM", help_heading = "Logging")]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The contracts that an agent speaks with its control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    /// Our own
    Session,
    /// As miaas-agent
    Miaas,
    /// As node-agent
    Orchion,
    /// As spot-agent
    Spot,
    /// As persys-agent
    Persys,
}

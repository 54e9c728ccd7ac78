//! The command line as it is typed: one file per noun. Everything here is `Option` or text; what it means
//! together with environment and files is decided in `settings`.

mod access;
mod backup;
mod errand;
mod fleet;
mod import;
mod install;
mod job;
mod node;
mod secret;
mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use access::{
    AccessCommand, AgentTrustArgs, AuthorityArgs, AuthorityCommand, LoginArgs, MiaasCommand,
    RoleWord, RotateKeyArgs, ServerTrustArgs, TokenCommand, TokenCreateArgs, TokenIssueArgs,
    TokenLsArgs, TokenRmArgs,
};
pub(crate) use backup::{BackupArgs, RestoreArgs, UpkeepCommand};
pub(crate) use errand::{CpArgs, ErrandCommand, ExecArgs, PortForwardArgs};
pub(crate) use fleet::{
    AgentArgs, CompatArgs, Dialect, LogArgs, LogFormat, SecretsArgs, ServerArgs, UpArgs,
};
pub(crate) use import::{ImportArgs, ImportForm, ImportOutput};
pub(crate) use install::{InstallArgs, Part, ServiceCommand, UninstallArgs};
pub(crate) use job::{JobCommand, JobLsArgs, JobRerunArgs};
pub(crate) use node::{
    AdoptArgs, DrainArgs, LabelArgs, NodeCommand, NodeGcArgs, NodeLsArgs, NodeRmArgs,
    NodeTargetArgs,
};
pub(crate) use secret::{
    SecretCommand, SecretLsArgs, SecretRekeyArgs, SecretRmArgs, SecretSetArgs,
};
pub(crate) use workload::{
    ApplyArgs, HistoryArgs, LogsArgs, PlanArgs, PortText, PromoteArgs, PsArgs, RestartArgs, RmArgs,
    RollbackArgs, RunArgs, RunKind, RunPull, RunRestart, RunStrategy, ShowArgs, StartArgs,
    StopArgs, WhyArgs,
};

const EXIT_CODES: &str = "\
To begin:
  hostler up --demo                                     a fleet on this machine, with something to see
  hostler run hello -- sh -c 'while date; do sleep 1; done'
  hostler ps; hostler logs -f hello; hostler rm hello   in a second terminal, while `up` runs

Exit codes:
  0   done
  1   refused or failed
  2   the command line or the configuration makes no sense
  3   plan: applying would change something
  4   no server answers, or it broke off or stayed silent
  5   the wait was over before everything ran
  10  the port is taken
  11  the data directory cannot be written
  12  the data is newer than this program
  13  the data directory is in use
  14  another server decides now

Environment: HOSTLER_ADDR is the server's address, HOSTLER_TOKEN the token, HOSTLER_CA whom to believe there,
NO_COLOR turns colours off.
Guide: docs/guide/cli.md";

/// Keeps a fleet of machines and runs on them what you ask for.
///
/// One program is the control plane (`server`), the agent of each machine (`agent`), both at once (`up`)
/// and the command line.
#[derive(Debug, Parser)]
#[command(name = "hostler", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run control plane and agent here, in one process, on loopback
    Up(UpArgs),
    /// Run the control plane
    Server(ServerArgs),
    /// Run this machine's agent
    Agent(Box<AgentArgs>),
    #[command(flatten)]
    Service(ServiceCommand),

    /// Run one workload, described by flags
    Run(Box<RunArgs>),
    /// Create or change workloads from specs
    Apply(ApplyArgs),
    /// Show what applying specs would change
    Plan(PlanArgs),
    /// Show a compose file as specs, or apply it so
    Import(Box<ImportArgs>),
    /// List workloads, or the copies of one
    Ps(PsArgs),
    /// Show one workload
    #[command(visible_alias = "status")]
    Show(ShowArgs),
    /// Say why copies of a workload do not run
    Why(WhyArgs),
    /// Say what the code of a refusal or a failure means, and what to do about it
    Explain(ExplainArgs),
    /// Read what a workload writes
    Logs(LogsArgs),
    #[command(flatten)]
    Errand(ErrandCommand),
    /// Stop a workload and keep it
    Stop(StopArgs),
    /// Start a stopped workload
    Start(StartArgs),
    /// Start every copy of a workload anew
    Restart(RestartArgs),
    /// Stop workloads and forget them
    Rm(RmArgs),
    /// Show who changed a workload, when, and what
    History(HistoryArgs),
    /// Apply the spec of an earlier revision again
    Rollback(RollbackArgs),
    /// Go on with a rollout that waits for a person
    Promote(PromoteArgs),

    /// Look after jobs and schedules
    #[command(subcommand)]
    Job(JobCommand),
    /// Look after secrets: values that only the copies that name them see
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Look after nodes
    #[command(subcommand)]
    Node(NodeCommand),
    #[command(flatten)]
    Access(AccessCommand),
    /// Show what happened in the fleet
    Events(EventsArgs),
    #[command(flatten)]
    Upkeep(UpkeepCommand),
    /// Show the versions of this program and of the server
    Version(VersionArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write the manual's pages, one for each command
    #[command(hide = true)]
    Man(ManArgs),
    /// Print the OpenAPI document of the API
    #[command(hide = true)]
    Openapi,
}

/// Where the server is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ClientArgs {
    /// The server [env: HOSTLER_ADDR] [default: that of `hostler login`, else http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", help_heading = "Server")]
    pub(crate) addr: Option<String>,
}

/// How data is shown.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OutputArgs {
    /// How to show it [default: table]
    #[arg(short, long, value_name = "FORM", help_heading = "Output")]
    pub(crate) output: Option<OutputForm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputForm {
    /// A table for people
    Table,
    /// A table with more columns
    Wide,
    /// As the API gives it
    Json,
    /// As the API gives it, as YAML
    Yaml,
    /// Names only, one a line
    Name,
}

/// Whether to wait for the effect.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the change is recorded
    #[arg(short, long, alias = "no-wait", help_heading = "Waiting")]
    pub(crate) detach: bool,
    /// Wait no longer than this for the effect [default: 60s]
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with = "detach", help_heading = "Waiting")]
    pub(crate) wait_timeout: Option<Duration>,
    /// Wait for the effect (the default)
    #[arg(long, conflicts_with = "detach", help_heading = "Waiting")]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what is still to happen
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many of those that are kept
    #[arg(long, value_name = "COUNT")]
    pub(crate) tail: Option<usize>,
    /// Only events after this sequence number
    #[arg(long, value_name = "SEQUENCE")]
    pub(crate) after: Option<u64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only the last so many of those that are kept [default: 100]
    #[arg(long, value_name = "COUNT")]
    pub(crate) tail: Option<usize>,
    /// Only lines since then: a span such as `10m`, or a moment in RFC 3339
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only what this one did: a name, an id, or a kind such as `node` or `anonymous`
    #[arg(long, value_name = "WHO")]
    pub(crate) actor: Option<String>,
    /// Only what was done to this: a workload, a node, a token
    #[arg(long, value_name = "WHAT")]
    pub(crate) thing: Option<String>,
    /// Only what ended so
    #[arg(long, value_name = "HOW")]
    pub(crate) outcome: Option<OutcomeWord>,
    /// Only what came by this door, such as `api` or `session`
    #[arg(long, value_name = "DOOR")]
    pub(crate) door: Option<String>,
    /// What strangers were refused, which is kept apart
    #[arg(long)]
    pub(crate) strangers: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// How what was asked has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutcomeWord {
    /// It was done
    Done,
    /// It was refused
    Refused,
    /// The server failed
    Failed,
    /// Whoever asked went away before the answer; it may have been done
    BrokenOff,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at this machine only, and ask no server
    #[arg(long)]
    pub(crate) here: bool,
    /// The data directory to look at [env: HOSTLER_DATA_DIR] [default: those of server.toml and agent.toml, else as for
    /// `server`]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The Docker engine's socket [env: HOSTLER_DOCKER_SOCKET] [default: as for `agent`]
    #[arg(long, value_name = "PATH")]
    pub(crate) docker_socket: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The code, such as `image-not-found`
    pub(crate) code: String,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// End with 4 if no server answers, as checks of a container's health want it
    #[arg(long)]
    pub(crate) require_server: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell to print for
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where the pages go
    pub(crate) dir: PathBuf,
}

/// The words as clap takes them: servers and agents know Persys's `-insecure`, which acts on what speaks Persys's
/// contract alone.
pub(crate) fn spelled(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    if words
        .get(1)
        .is_some_and(|verb| verb == "server" || verb == "up" || verb == "agent")
    {
        for word in words.iter_mut().filter(|word| *word == "-insecure") {
            *word = OsString::from("--persys-insecure");
        }
    }
    words
}

/// Reads a span such as `500ms`, `30s`, `10m`, `2h` or `1d`; a bare number is seconds.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let refused =
        || format!("`{text}` is no span of time; write `500ms`, `30s`, `10m`, `2h` or `1d`");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let millis = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(refused)
}

/// Reads `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no `key=value`")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_span_has_a_unit_or_is_seconds() {
        assert_eq!(span("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(span("5"), Ok(Duration::from_secs(5)));
        for text in ["", "m", "-1s", "1.5s", "10 m", "99999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_dash_before_insecure_is_persys_word() {
        let parse = |line: &[&str]| {
            let words = spelled(line.iter().map(OsString::from));
            let Command::Server(server) = Cli::try_parse_from(words).unwrap().command else {
                panic!("parsed as something else");
            };
            (server.insecure, server.compat.persys_insecure)
        };
        assert_eq!(parse(&["hostler", "server", "-insecure"]), (false, true));
        assert_eq!(parse(&["hostler", "server", "--insecure"]), (true, false));
        let run = ["hostler", "run", "x", "--", "tool", "-insecure"].map(OsString::from);
        assert_eq!(spelled(run.clone()), run);
    }

    #[test]
    fn flags_may_stand_between_the_name_and_the_command() {
        let line = [
            "hostler", "run", "ticker", "--kind", "process", "--", "bash", "-c", "echo -n",
        ];
        let Command::Run(run) = Cli::try_parse_from(line).unwrap().command else {
            panic!("parsed as something else");
        };
        assert_eq!(run.name, "ticker");
        assert_eq!(run.image, None);
        assert_eq!(run.command, ["bash", "-c", "echo -n"]);
    }
}

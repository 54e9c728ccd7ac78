//! Workloads: `run`, `apply`, `plan`, `ps`, `show`, `why`, `logs`, `stop`, `start`, `restart`, `rm`,
//! `history`, `rollback`, `promote`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hostler_model::spec::{Constraint, PortMapping, Protocol};
use hostler_model::{Bytes, MilliCpu};

use super::{ClientArgs, OutputArgs, WaitArgs, pair, span};

const RUN_EXAMPLES: &str = "\
Examples:
  hostler run ticker -- sh -c 'while date; do sleep 1; done'
  hostler run web busybox:1 --port 8081:80 -- httpd -f -p 80
  hostler run backup --job --retries 2 --schedule '30 2 * * *' -- /usr/local/bin/backup";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The workload's name
    pub(crate) name: String,
    /// The image of a container; leave it out to run a process of the node itself
    pub(crate) image: Option<String>,
    /// The command with its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Run it to completion, once or at the moments of a schedule
    #[arg(long, conflicts_with_all = ["kind", "restart", "singleton", "pull", "ports"])]
    pub(crate) job: bool,
    /// The image of a job's container
    #[arg(
        long = "image",
        value_name = "IMAGE",
        requires = "job",
        conflicts_with = "image"
    )]
    pub(crate) job_image: Option<String>,
    /// How often a copy of a job that failed is started again
    #[arg(long, value_name = "COUNT", requires = "job")]
    pub(crate) retries: Option<u32>,
    /// How long one run of a job may take, such as `10m`
    #[arg(long, value_name = "SPAN", value_parser = span, requires = "job")]
    pub(crate) timeout: Option<Duration>,
    /// When a job is to run, as a cron expression such as `30 2 * * *`
    #[arg(long, value_name = "CRON", requires = "job")]
    pub(crate) schedule: Option<String>,
    /// The time zone that the schedule is read in [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "schedule")]
    pub(crate) timezone: Option<String>,
    /// What to run [default: container if an image is given, else process]
    #[arg(long)]
    pub(crate) kind: Option<RunKind>,
    /// How many copies
    #[arg(long, default_value_t = 1)]
    pub(crate) count: u32,
    /// Processor time that each copy reserves: `2` is two cores, `250m` a quarter of one
    #[arg(long)]
    pub(crate) cpu: Option<MilliCpu>,
    /// Memory that each copy reserves, such as `64MiB`
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<Bytes>,
    /// Reserve a port of the node: `8081`, or `8081:80` for port 80 of a container; repeatable
    #[arg(short, long = "port", value_name = "HOST[:TARGET][/udp]")]
    pub(crate) ports: Vec<PortText>,
    /// An environment variable; repeatable
    #[arg(short, long = "env", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// What to do when a copy ends [default: always]
    #[arg(long)]
    pub(crate) restart: Option<RunRestart>,
    /// Which nodes may run copies, by their labels, such as `zone == eu-1`; repeatable
    #[arg(long = "constraint", value_name = "RULE")]
    pub(crate) constraints: Vec<Constraint>,
    /// Whether copies go to many nodes or fill few [default: spread]
    #[arg(long)]
    pub(crate) strategy: Option<RunStrategy>,
    /// Start no replacement before the former copy has surely stopped, even when its node is cut off
    #[arg(long)]
    pub(crate) singleton: bool,
    /// A label of the workload; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// The user that runs it, by name or number
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// The directory it starts in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// When the image is pulled [default: missing]
    #[arg(long)]
    pub(crate) pull: Option<RunPull>,
    /// Check and show, but change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Refuse unless every copy can be placed at once
    #[arg(long)]
    pub(crate) require_placement: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunKind {
    Process,
    Container,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunRestart {
    Always,
    OnFailure,
    UnlessStopped,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunStrategy {
    Spread,
    Pack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunPull {
    Missing,
    Always,
    Never,
}

/// A port as `--port` spells it: `8081`, `8081:80`, `5353/udp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortText(pub(crate) PortMapping);

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// A spec, a directory of specs, or `-` for stdin; repeatable
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Check and show, but change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Refuse unless every copy can be placed at once
    #[arg(long)]
    pub(crate) require_placement: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// A spec, a directory of specs, or `-` for stdin; repeatable
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Only this workload, copy by copy
    pub(crate) workload: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    /// Go on with what is still to be written
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines of each copy
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) tail: Option<u64>,
    /// Only lines since then: a span such as `10m`, or a moment in RFC 3339
    #[arg(long, value_name = "SPAN|MOMENT")]
    pub(crate) since: Option<String>,
    /// The run before the latest
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Only this copy
    #[arg(long)]
    pub(crate) slot: Option<u32>,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) workloads: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) workloads: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) workloads: Vec<String>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    /// The revision to go back to [default: the one before the rollout, else the last that differs]
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// Name, id, or the beginning of an id
    pub(crate) workload: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) workloads: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

impl FromStr for PortText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || format!("`{text}` is no port; write `8081`, `8081:80` or `5353/udp`");
        let (numbers, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((numbers, "tcp")) => (numbers, Protocol::Tcp),
            Some((numbers, "udp")) => (numbers, Protocol::Udp),
            Some(_) => return Err(refused()),
        };
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(refused)
        };
        let (host, target) = match numbers.split_once(':') {
            None => (number(numbers)?, None),
            Some((host, target)) => (number(host)?, Some(number(target)?)),
        };
        Ok(Self(PortMapping {
            name: None,
            host,
            target,
            protocol,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_name_its_target_and_protocol() {
        let PortText(port) = "8081:80/tcp".parse().unwrap();
        assert_eq!(
            (port.host, port.target, port.protocol),
            (8081, Some(80), Protocol::Tcp)
        );
        let PortText(port) = "5353/udp".parse().unwrap();
        assert_eq!(
            (port.host, port.target, port.protocol),
            (5353, None, Protocol::Udp)
        );
        for text in ["", "0", "80:", ":80", "80/sctp", "65536", "80:90:100"] {
            assert!(text.parse::<PortText>().is_err(), "{text}");
        }
    }
}

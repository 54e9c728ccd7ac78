//! Jobs: `job ls`, `job logs`, `job rerun`.

use clap::{Args, Subcommand};

use super::{ClientArgs, LogsArgs, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List jobs and schedules
    Ls(JobLsArgs),
    /// Read what a job writes; of a schedule, its newest job
    Logs(LogsArgs),
    /// Run a job once more, or a schedule's job now
    Rerun(JobRerunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct JobLsArgs {
    /// Only this schedule and the jobs that it made
    pub(crate) schedule: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobRerunArgs {
    /// Name, id, or the beginning of an id
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

impl JobCommand {
    /// Where its server is.
    pub(crate) const fn client(&self) -> &ClientArgs {
        match self {
            Self::Ls(args) => &args.client,
            Self::Logs(args) => &args.client,
            Self::Rerun(args) => &args.client,
        }
    }
}

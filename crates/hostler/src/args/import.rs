//! `import`: what somebody else's file would be here.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ClientArgs, WaitArgs};

const EXAMPLES: &str = "\
Examples:
  hostler import compose.yaml > shop.yaml
  hostler import compose.yaml --as containers
  hostler import compose.yaml -f compose.prod.yaml --as containers --profile debug --apply";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The compose file
    pub(crate) file: PathBuf,
    /// A further file over it; repeatable
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) over: Vec<PathBuf>,
    /// One project, or a container for each service
    #[arg(long = "as", value_name = "FORM", default_value = "compose")]
    pub(crate) form: ImportForm,
    /// What it is called [default: the file's own name for it, else its directory's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where variables are, in place of `.env` beside the file; repeatable
    #[arg(long = "env-file", value_name = "PATH")]
    pub(crate) env_files: Vec<PathBuf>,
    /// Take the services of this profile along; repeatable
    #[arg(long = "profile", value_name = "PROFILE")]
    pub(crate) profiles: Vec<String>,
    /// How the specs are shown
    #[arg(short, long, default_value = "yaml")]
    pub(crate) output: ImportOutput,
    /// Apply the specs as well
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportForm {
    Compose,
    Containers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImportOutput {
    Yaml,
    Json,
}

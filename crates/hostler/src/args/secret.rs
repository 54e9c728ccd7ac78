//! Secrets: `secret set`, `secret ls`, `secret rm`, `secret rekey`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ClientArgs, OutputArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Give a secret its value, from standard input or a file
    Set(SecretSetArgs),
    /// List secrets; nothing shows a value
    Ls(SecretLsArgs),
    /// Forget a secret that no workload names
    Rm(SecretRmArgs),
    /// Seal every secret with a new key
    Rekey(SecretRekeyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SecretSetArgs {
    /// Letters, digits, `-`, `_` and `.`
    pub(crate) name: String,
    /// Where the value is, byte for byte; `-` is standard input [default: -]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
    /// Restart the workloads that name it; without this, what runs keeps the value that it has
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SecretLsArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SecretRmArgs {
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SecretRekeyArgs {
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

impl SecretCommand {
    /// Where its server is.
    pub(crate) const fn client(&self) -> &ClientArgs {
        match self {
            Self::Set(args) => &args.client,
            Self::Ls(args) => &args.client,
            Self::Rm(args) => &args.client,
            Self::Rekey(args) => &args.client,
        }
    }
}

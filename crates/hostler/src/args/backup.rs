//! Upkeep: `audit`, `doctor`, `backup` and `restore`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AuditArgs, ClientArgs, DoctorArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum UpkeepCommand {
    /// Show who did what, from where, and how it ended
    Audit(AuditArgs),
    /// Look the fleet over: what is wrong, what to do about it
    Doctor(DoctorArgs),
    /// Copy all that the running server keeps into one archive
    Backup(BackupArgs),
    /// Put a backup into the data directory of a server that does not run
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write, or `-` for stdout [default: hostler-DATE.tar in this directory]
    pub(crate) file: Option<PathBuf>,
    /// Also the fleet's authority and the key of its secrets: whoever has the archive then has them
    #[arg(long)]
    pub(crate) with_keys: bool,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The archive that `backup` wrote
    pub(crate) file: PathBuf,
    /// The server's data directory [env: HOSTLER_DATA_DIR] [default: as for `server`]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The server's configuration file, for its data directory [env: HOSTLER_CONFIG] [default:
    /// /etc/hostler/server.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set aside what is in the data directory; nothing of it is deleted
    #[arg(long)]
    pub(crate) force: bool,
}

//! Files of this machine as compose reads them, for programs that want to know what they say.

use std::path::PathBuf;
use std::time::Duration;

use super::program::{self, Programs};
use super::resolved::invalid;
use super::tool::{Call, Lost};
use crate::RuntimeError;

const PATIENCE: Duration = Duration::from_secs(120);

/// What `compose config` is asked about.
#[derive(Debug, Clone, Copy)]
pub struct FileSet<'a> {
    /// The compose files, each over the ones before.
    pub files: &'a [PathBuf],
    /// Where variables are, in place of `.env` beside the first file.
    pub env_files: &'a [PathBuf],
    pub profiles: &'a [String],
}

/// The files as one text, with every variable filled in and every reference followed.
///
/// # Errors
/// `compose-missing` if no compose program works here; `compose-invalid` with its words if it does not take the files.
pub async fn resolve(
    programs: &Programs,
    env: &[(String, String)],
    files: FileSet<'_>,
) -> Result<String, RuntimeError> {
    let found = program::find(programs, env).await;
    let program = found.ok_or_else(program::missing)?;
    let mut call = Call::new(&program.path, env, PATIENCE).args(program.begin.iter().copied());
    for path in files.env_files {
        call = call.args(["--env-file".as_ref(), path.as_os_str()]);
    }
    for profile in files.profiles {
        call = call.args(["--profile", profile]);
    }
    for path in files.files {
        call = call.args(["--file".as_ref(), path.as_os_str()]);
    }
    match call.args(["config"]).run().await {
        Ok(read) if read.is_success() => Ok(read.text()),
        Ok(read) => Err(invalid(read.words())),
        Err(Lost::Missing) => Err(program::missing()),
        Err(Lost::TimedOut(_)) => Err(invalid("compose does not come to an end with it")),
        Err(Lost::Io(source)) => Err(crate::disk::error("run compose", source)),
    }
}

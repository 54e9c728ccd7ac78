//! A command inside a unit that runs: the shim's program enters the unit's cgroup and becomes the command, with
//! the user, directory, environment and limits of the unit's own process. No shim stays behind.
//!
//! The words come in a variable of the environment, so that input and outputs are free for the command. What
//! goes wrong before the command begins is said on the standard error output, with the exits of shells: 127 for
//! a program that is not there, 126 for all else.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::{Failure, child};
use crate::cgroup::{self, Cgroups};
use crate::record::UnitDir;

/// Holds the words as a list in JSON. It does not reach the command.
pub const COMMAND_VARIABLE: &str = "HOSTLER_SHIM_COMMAND";

const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// The words of a command, if this process is to become one.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is a process of its own, and this is how it is told"
)]
pub(super) fn asked() -> Option<Vec<String>> {
    let words = std::env::var(COMMAND_VARIABLE).ok()?;
    serde_json::from_str(&words).ok()
}

/// Becomes the command, or says why not.
pub(super) fn become_it(unit_dir: &Path, words: &[String]) -> ExitCode {
    let (code, message) = attempt(unit_dir, words);
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(code)
}

fn attempt(unit_dir: &Path, words: &[String]) -> (u8, String) {
    let dir = UnitDir::at(unit_dir);
    let record = match dir.unit() {
        Ok(Some(record)) => record,
        Ok(None) => return (NOT_RUNNABLE, "the unit is gone".to_owned()),
        Err(error) => return (NOT_RUNNABLE, format!("cannot read the unit: {error}")),
    };
    let prepared = match child::prepare_words(words, &record, &dir) {
        Ok(prepared) => prepared,
        Err(Failure::Unsatisfiable { message, .. }) => return (NOT_RUNNABLE, message),
        Err(Failure::Command { .. } | Failure::Io { .. }) => {
            return (NOT_RUNNABLE, "the command cannot be prepared".to_owned());
        }
    };
    // Where the unit has no cgroup, as the driver's note says, there is none to enter.
    let _ = Cgroups::detect(Path::new(cgroup::ROOT)).enter(record.unit);
    let error = prepared.exec();
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_RUNNABLE,
    };
    let program = words.first().map_or("", String::as_str);
    (code, format!("cannot run `{program}`: {error}"))
}

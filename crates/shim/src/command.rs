//! A command inside a unit that runs: the shim's program enters the unit's cgroup and mounts and becomes the command, with
//! the user, directory, environment and limits of the unit's own process. No shim stays behind.
//!
//! The words come in a variable of the environment, so that input and outputs are free for the command. What
//! goes wrong before the command begins is said on the standard error output, with the exits of shells: 127 for
//! a program that is not there, 126 for all else.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::thread::LinkNameSpaceType;

use super::{Failure, child};
use crate::cgroup::{self, Cgroups};
use crate::record::{ProcessName, UnitDir};
use crate::{disk, kernel};

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
    if !record.mounts.is_empty()
        && let Err(error) = enter_mounts(&dir)
    {
        let message = format!("cannot get to the volumes of the unit: {error}");
        return (NOT_RUNNABLE, message);
    }
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

/// The unit's volumes are seen only in the mounts of its process.
fn enter_mounts(dir: &UnitDir) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let main: ProcessName = disk::read(&dir.child_file(dir.latest_run()?))?.ok_or_else(gone)?;
    let mounts = File::open(format!("/proc/{}/ns/mnt", main.pid))?;
    // Looked at with the file open: it is of this process, or of none.
    let is_same = kernel::stat(main.pid).is_some_and(|stat| stat.start_ticks == main.ticks);
    if !is_same {
        return Err(gone());
    }
    let kind = Some(LinkNameSpaceType::Mount);
    Ok(rustix::thread::move_into_link_name_space(
        mounts.as_fd(),
        kind,
    )?)
}

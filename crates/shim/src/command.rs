//! A command inside a unit that runs: the shim's program enters the unit's cgroup and namespaces and becomes the
//! command, with the user, directory, environment and limits of the unit's own process. No shim stays behind.
//!
//! The order comes in a variable of the environment, so that input and outputs are free for the command. What
//! goes wrong before the command begins is said on the standard error output, with the exits of shells: 127 for
//! a program that is not there, 126 for all else.
//!
//! A command without a terminal dies with the process that started it, however that ends; one with a terminal hears
//! that it is closed. What a command has started itself goes on until it finds its pipes closed, or the unit ends.
//!
//! A pid namespace holds for children only, so there the program starts itself once more, inside, and waits:
//!
//! ```text
//!   outer: cgroup, pid namespace ──spawn──► inner: other namespaces, terminal, limits ──exec──► the command
//!      └── ends as the inner ended               └── dies with the outer
//! ```

use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use hostler_model::ExecCommand;
use hostler_model::spec::ProcessSpec;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::child::{self, Tie};
use super::{Failure, launch};
use crate::cgroup::{self, Cgroups};
use crate::record::{ProcessName, UnitDir, UnitRecord};
use crate::{disk, kernel};

/// Holds a [`CommandOrder`] in JSON. It does not reach the command.
pub const COMMAND_VARIABLE: &str = "HOSTLER_SHIM_COMMAND";

const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// How shells tell a signal.
const SIGNALLED: u8 = 128;

/// What this process is to become.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommandOrder {
    pub command: ExecCommand,
    /// It is in the unit's cgroup and pid namespace already.
    pub is_inner: bool,
    /// The number of the process that starts it, where both see the same numbers.
    pub parent: Option<i32>,
}

/// The command, if this process is to become one.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is a process of its own, and this is how it is told"
)]
pub(super) fn asked() -> Option<CommandOrder> {
    let order = std::env::var(COMMAND_VARIABLE).ok()?;
    serde_json::from_str(&order).ok()
}

/// Becomes the command, or says why not.
pub(super) fn become_it(unit_dir: &Path, order: &CommandOrder) -> ExitCode {
    match attempt(unit_dir, order) {
        Ok(status) => as_it_ended(status),
        Err((code, message)) => {
            let _ = writeln!(io::stderr(), "{message}");
            ExitCode::from(code)
        }
    }
}

/// Answers if the command was another process, or if there is none.
fn attempt(unit_dir: &Path, order: &CommandOrder) -> Result<ExitStatus, (u8, String)> {
    let not_runnable = |message: String| (NOT_RUNNABLE, message);
    let dir = UnitDir::at(unit_dir);
    let record = match dir.unit() {
        Ok(Some(record)) => record,
        Ok(None) => return Err(not_runnable("the unit is gone".to_owned())),
        Err(error) => return Err(not_runnable(format!("cannot read the unit: {error}"))),
    };
    let (prepared, place) =
        child::prepare_command(&order.command, &record, &dir).map_err(exit_of)?;
    if !order.is_inner {
        // Where the unit has no cgroup, as the driver's note says, there is none to enter.
        let joined = Cgroups::detect(Path::new(cgroup::ROOT)).join(record.unit);
        joined.map_err(|error| not_runnable(format!("cannot enter the unit's cgroup: {error}")))?;
    }
    let tie = if order.is_inner || order.command.terminal.is_none() {
        Tie::Parent(order.parent)
    } else {
        Tie::None
    };
    // Only now: whoever sees the unit's end finds this process in its cgroup, and kills it.
    let beside = unit_process(&record, &dir).map_err(not_runnable)?;
    if !order.is_inner
        && let Some(process) = beside.filter(|_| isolation(&record).is_some_and(|it| it.pid))
    {
        return tie
            .take_on()
            .and_then(|()| start_inner(order, process))
            .map_err(exit_of);
    }
    if order.command.terminal.is_some() {
        take_terminal()
            .map_err(|error| not_runnable(format!("cannot have a terminal: {error}")))?;
    }
    Err(exit_of(prepared.exec(&place, beside, tie)))
}

/// The process whose namespaces are to be joined, if it has any of its own. In a unit that has ended nothing begins.
fn unit_process(record: &UnitRecord, dir: &UnitDir) -> Result<Option<Pid>, String> {
    let is_isolated = isolation(record).is_some_and(|isolation| !isolation.is_none());
    let is_apart = is_isolated || !record.mounts.is_empty();
    let gone = |error: io::Error| format!("cannot find the unit's process: {error}");
    let run = dir.latest_run().map_err(gone)?;
    let name: Option<ProcessName> = disk::read(&dir.child_file(run)).map_err(gone)?;
    match name {
        // A disk that was full then has no record of it.
        None if !is_apart => Ok(None),
        Some(name) if kernel::lives(name) => Ok(Pid::from_raw(name.pid).filter(|_| is_apart)),
        _ => Err("the unit's process has ended".to_owned()),
    }
}

fn isolation(record: &UnitRecord) -> Option<&hostler_model::spec::Isolation> {
    let process: Option<&ProcessSpec> = record.spec.process.as_ref();
    process.map(|process| &process.isolation)
}

/// A session of its own, which owns the terminal.
fn take_terminal() -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(io::stdin())
}

fn start_inner(order: &CommandOrder, process: Pid) -> Result<ExitStatus, Failure> {
    let failed = |error: io::Error| Failure::Io {
        context: "start a command in the unit's pid namespace".to_owned(),
        errno: super::errno(&error),
    };
    // Whoever kills this group leaves the agent's alone; it leads one already unless there is a terminal.
    let _ = rustix::process::setpgid(None, None);
    launch::join_pids(process)?;
    let order = CommandOrder {
        is_inner: true,
        parent: None,
        ..order.clone()
    };
    let order = serde_json::to_string(&order).map_err(|error| failed(error.into()))?;
    Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .env(COMMAND_VARIABLE, order)
        .status()
        .map_err(failed)
}

fn exit_of(failure: Failure) -> (u8, String) {
    match failure {
        Failure::Unsatisfiable { message, .. } => (NOT_RUNNABLE, message),
        Failure::Command { program, errno } => {
            let error = io::Error::from_raw_os_error(errno);
            let code = match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_RUNNABLE,
            };
            (code, format!("cannot run `{program}`: {error}"))
        }
        Failure::Io { context, errno } => {
            let error = io::Error::from_raw_os_error(errno);
            (NOT_RUNNABLE, format!("{context}: {error}"))
        }
    }
}

/// Ends as the other process ended, by its signal too.
fn as_it_ended(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        if let Some(signal) = Signal::from_named_raw(signal) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        }
        let code = u8::try_from(signal).unwrap_or_default();
        return ExitCode::from(SIGNALLED.saturating_add(code));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(NOT_RUNNABLE))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::spec::WorkloadSpec;
    use hostler_model::{AssignmentId, Timestamp, UnitId, WorkloadId};

    use super::*;

    #[test]
    fn nothing_begins_in_a_unit_that_has_ended() {
        let home = tempfile::tempdir().unwrap();
        let dir = UnitDir::at(home.path());
        let at = Timestamp::from_millis(1);
        let record = UnitRecord {
            unit: UnitId {
                assignment: AssignmentId::mint(at, 2),
                generation: 3,
            },
            workload: WorkloadId::mint(at, 2),
            workload_name: "one".to_owned(),
            slot: 0,
            spec: Arc::new(WorkloadSpec::of_process("one", vec!["true".to_owned()])),
            mounts: Vec::new(),
        };
        std::fs::create_dir(dir.runs()).unwrap();
        std::fs::write(dir.start_file(1), "").unwrap();
        assert_eq!(unit_process(&record, &dir), Ok(None), "of no record");
        let me = kernel::name_of(rustix::process::getpid()).unwrap();
        disk::write_whole(&dir.child_file(1), &me).unwrap();
        assert_eq!(unit_process(&record, &dir), Ok(None), "it lives");
        let earlier = ProcessName {
            ticks: me.ticks + 1,
            ..me
        };
        disk::write_whole(&dir.child_file(1), &earlier).unwrap();
        assert!(unit_process(&record, &dir).is_err());
    }
}

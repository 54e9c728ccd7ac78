//! What became of a run whose shim is gone without a word: killed, or taken along by a reboot.
//!
//! Nothing may be left of such a run, because its output is read by nobody and its end would be noticed by
//! nobody. Its processes are found by cgroup, by the mark in their environment and by the recorded main
//! process, killed, and the exit is recorded as unknown.

use std::io;
use std::time::Duration;

use hostler_model::{Exit, Timestamp, UnitId};
use hostler_shim::cgroup::Cgroups;
use hostler_shim::kernel;
use hostler_shim::record::{ExitRecord, ProcessName, UnitDir};
use rustix::process::{Pid, Signal};

use crate::disk;

const LOOKS: u32 = 500;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Kills what is left of the run and records its end. The caller has made sure that no shim lives and no
/// verb works on the unit.
pub(super) fn settle(
    dir: &UnitDir,
    id: UnitId,
    run: u32,
    cgroups: &Cgroups,
    at: Timestamp,
) -> io::Result<ExitRecord> {
    // After a reboot nothing of it runs, and its numbers belong to others.
    let start = dir.start(run);
    if start.is_none_or(|start| start.boot_id == disk::boot_id()) {
        kill_all(dir, id, run, cgroups)?;
    }
    cgroups.remove(id);
    let record = ExitRecord {
        exit: Exit::Unknown,
        at,
    };
    disk::write_reserved(&dir.exit_file(run), &record)?;
    tracing::warn!(unit = %id, run, "the shim is gone; what was left of the run has been killed");
    Ok(record)
}

/// Kills every process of the unit, whoever watches over it, until none is left.
pub(super) fn kill_all(dir: &UnitDir, id: UnitId, run: u32, cgroups: &Cgroups) -> io::Result<()> {
    let main: Option<ProcessName> = disk::read(&dir.child_file(run)).unwrap_or_default();
    for _ in 0..LOOKS {
        let mut left = cgroups.living(id);
        left.extend(main.filter(|main| !left.contains(main) && kernel::lives(*main)));
        if left.is_empty() {
            return Ok(());
        }
        cgroups.kill(id);
        for name in left {
            // The group is the main process's own for as long as that lives.
            if Some(name) == main
                && let Some(pid) = Pid::from_raw(name.pid)
            {
                kernel::signal_group(pid, Signal::KILL)?;
            }
            kernel::kill(name)?;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    Err(io::ErrorKind::TimedOut.into())
}

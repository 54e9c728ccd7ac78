//! What the driver keeps of a unit on disk. The shim writes the records of runs, the driver the unit's; a
//! person can read all of them.
//!
//! ```text
//!   <dir>/<assignment>.<generation>/
//!     unit.json        the unit; written last, so that a directory without it was never prepared
//!     work/            the working directory, unless the spec names one
//!     control          a named pipe: orders to the living shim
//!     shim.lock        locked by the shim for as long as it lives
//!     runs/3.start     run 3 began (before the process exists)
//!     runs/3.child     the process of run 3
//!     runs/3.exit      run 3 ended
//!     runs/3-1.log     the first segment of its log, then 3-2.log and so on
//! ```
//!
//! What must outlive a power cut (start, exit) is synced; the rest only has to outlive processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_model::spec::{Mount, WorkloadSpec};
use hostler_model::{Exit, Timestamp, UnitId, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::disk;

/// A unit's directory.
#[derive(Debug, Clone)]
pub struct UnitDir {
    path: PathBuf,
}

/// `unit.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnitRecord {
    pub unit: UnitId,
    pub workload: WorkloadId,
    pub workload_name: String,
    pub slot: u32,
    pub spec: Arc<WorkloadSpec>,
    /// What the process finds where there is something else on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
}

/// `runs/<n>.start`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartRecord {
    pub at: Timestamp,
    /// The machine's boot in which the run began.
    pub boot_id: String,
    pub shim: ProcessName,
}

/// `runs/<n>.exit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExitRecord {
    pub exit: Exit,
    pub at: Timestamp,
}

/// A process that cannot be confused with a later one of the same number. Also `runs/<n>.child`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessName {
    pub pid: i32,
    /// When it began, in the kernel's ticks since boot.
    pub ticks: u64,
}

impl UnitDir {
    pub fn of(base: &Path, id: UnitId) -> Self {
        Self {
            path: base.join(id.to_string()),
        }
    }

    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn unit_file(&self) -> PathBuf {
        self.path.join("unit.json")
    }

    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    pub fn control(&self) -> PathBuf {
        self.path.join("control")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.path.join("shim.lock")
    }

    pub fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    pub fn start_file(&self, run: u32) -> PathBuf {
        self.runs().join(format!("{run}.start"))
    }

    pub fn child_file(&self, run: u32) -> PathBuf {
        self.runs().join(format!("{run}.child"))
    }

    pub fn exit_file(&self, run: u32) -> PathBuf {
        self.runs().join(format!("{run}.exit"))
    }

    pub fn segment(&self, run: u32, number: u32) -> PathBuf {
        self.runs().join(format!("{run}-{number}.log"))
    }

    /// The unit's record, if the directory was ever prepared.
    pub fn unit(&self) -> io::Result<Option<UnitRecord>> {
        disk::read(&self.unit_file())
    }

    /// The number of the latest run; 0 if it never ran.
    pub fn latest_run(&self) -> io::Result<u32> {
        let mut latest = 0;
        self.each_run_file(|run, rest| {
            if rest == ".start" {
                latest = latest.max(run);
            }
        })?;
        Ok(latest)
    }

    /// The record of a run's start. A power cut may have torn it; its name alone says that the run began.
    pub fn start(&self, run: u32) -> Option<StartRecord> {
        disk::read(&self.start_file(run)).ok().flatten()
    }

    /// The numbers of the segments of a run's log that are still kept, in order.
    pub fn segments(&self, run: u32) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        self.each_run_file(|of_run, rest| {
            let number = rest
                .strip_prefix('-')
                .and_then(|rest| rest.strip_suffix(".log"));
            if let Some(number) = number.and_then(|number| number.parse().ok())
                && of_run == run
            {
                numbers.push(number);
            }
        })?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Deletes what is kept of runs before `run`. What cannot be deleted is tried again at the next run.
    pub fn forget_before(&self, run: u32) -> io::Result<()> {
        let mut old = Vec::new();
        self.each_run_file(|of_run, rest| {
            if of_run < run {
                old.push(format!("{of_run}{rest}"));
            }
        })?;
        for name in old {
            let _ = fs::remove_file(self.runs().join(name));
        }
        Ok(())
    }

    /// Calls with the run's number and the rest of the name, for each file of a run.
    fn each_run_file(&self, mut visit: impl FnMut(u32, &str)) -> io::Result<()> {
        for entry in fs::read_dir(self.runs())? {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let digits = name.bytes().take_while(u8::is_ascii_digit).count();
            if let Ok(run) = name[..digits].parse() {
                visit(run, &name[digits..]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_complete_or_absent_and_old_runs_are_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let dir = UnitDir::at(home.path());
        fs::create_dir(dir.runs()).unwrap();
        assert_eq!(dir.latest_run().unwrap(), 0);
        let exit = ExitRecord {
            exit: Exit::Code(3),
            at: Timestamp::from_millis(7),
        };
        for run in 1..=12 {
            let shim = ProcessName { pid: 1, ticks: 2 };
            let at = Timestamp::from_millis(5);
            let start = StartRecord {
                at,
                boot_id: "boot".to_owned(),
                shim,
            };
            disk::write_new(&dir.start_file(run), &start).unwrap();
            disk::reserve(&dir.exit_file(run)).unwrap();
            assert!(
                disk::read::<ExitRecord>(&dir.exit_file(run))
                    .unwrap()
                    .is_none()
            );
            disk::write_reserved(&dir.exit_file(run), &exit).unwrap();
            fs::write(dir.segment(run, 2), "").unwrap();
            fs::write(dir.segment(run, 11), "").unwrap();
        }
        assert_eq!(dir.latest_run().unwrap(), 12);
        assert_eq!(dir.segments(1).unwrap(), [2, 11]);
        let kept: ExitRecord = disk::read(&dir.exit_file(12)).unwrap().unwrap();
        assert_eq!(kept.exit, Exit::Code(3));
        dir.forget_before(11).unwrap();
        assert_eq!(dir.segments(10).unwrap(), [0_u32; 0]);
        assert!(dir.start_file(11).exists() && !dir.start_file(10).exists());
    }

    /// Shims outlive upgrades of their agent, and agents those of their shims: what either wrote is read for good.
    #[test]
    fn records_that_earlier_versions_wrote_are_read() {
        const UNIT: &str = r#"{"unit":{"assignment":"018bcfe5-6800-7000-8000-000000000001","generation":3},
            "workload":"018bcfe5-6800-7000-8000-000000000002","workload_name":"web","slot":1,
            "spec":{"name":"web","count":1,"process":{"command":["sleep","9"]}}}"#;
        let home = tempfile::tempdir().unwrap();
        let dir = UnitDir::at(home.path());
        fs::create_dir(dir.runs()).unwrap();
        let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
        write(dir.unit_file(), UNIT);
        write(
            dir.start_file(2),
            r#"{"at":1700000000000,"boot_id":"b","shim":{"pid":41,"ticks":900}}"#,
        );
        write(dir.child_file(2), r#"{"pid":42,"ticks":901}"#);
        let unit = dir.unit().unwrap().unwrap();
        assert_eq!(
            (unit.unit.generation, unit.slot, unit.spec.name.as_str()),
            (3, 1, "web")
        );
        assert_eq!(unit.spec.process.as_ref().unwrap().command, ["sleep", "9"]);
        assert_eq!(dir.latest_run().unwrap(), 2);
        let start = dir.start(2).unwrap();
        assert_eq!(
            (start.at.as_millis(), start.boot_id.as_str()),
            (1_700_000_000_000, "b")
        );
        assert_eq!(
            start.shim,
            ProcessName {
                pid: 41,
                ticks: 900
            }
        );
        let child: ProcessName = disk::read(&dir.child_file(2)).unwrap().unwrap();
        assert_eq!(
            child,
            ProcessName {
                pid: 42,
                ticks: 901
            }
        );
        for (text, exit) in [
            (r#"{"code":3}"#, Exit::Code(3)),
            (r#"{"signal":9}"#, Exit::Signal(9)),
            (r#""out-of-memory""#, Exit::OutOfMemory),
            (r#""unknown""#, Exit::Unknown),
        ] {
            write(dir.exit_file(2), &format!(r#"{{"exit":{text},"at":7}}"#));
            let read: ExitRecord = disk::read(&dir.exit_file(2)).unwrap().unwrap();
            assert_eq!((read.exit, read.at), (exit, Timestamp::from_millis(7)));
        }
    }
}

//! When each run of a container began. The engine keeps one log per container and remembers only its last
//! start; these moments cut the log into runs and count them.
//!
//! A start is on record before the engine is asked. One that the engine never carried out is told apart by
//! the engine's own moment of the last start, which is earlier.

use std::path::PathBuf;
use std::sync::Arc;

use hostler_model::{Timestamp, UnitId};
use serde::{Deserialize, Serialize};

use crate::RuntimeError;
use crate::disk;

/// So many starts are kept of each unit; older lines count to the oldest.
const STARTS_KEPT: usize = 16;

/// The directory of the records.
#[derive(Clone)]
pub(crate) struct Starts {
    dir: Arc<PathBuf>,
}

/// The starts of a unit, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) starts: Vec<Start>,
}

/// The start of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) run: u32,
    pub(crate) at: Timestamp,
    /// The machine's boot in which it began.
    pub(crate) boot_id: String,
}

impl Starts {
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self { dir: Arc::new(dir) }
    }

    /// What is on record of the unit; nothing if the record is lost.
    pub(crate) async fn history(&self, id: UnitId) -> Result<History, RuntimeError> {
        let path = self.path(id);
        let read = disk::off_thread("read the starts", move || disk::read(&path)).await;
        Ok(read?.unwrap_or_default())
    }

    /// Puts a start on record, durably.
    pub(crate) async fn begin(
        &self,
        id: UnitId,
        run: u32,
        at: Timestamp,
    ) -> Result<(), RuntimeError> {
        let (dir, path) = (Arc::clone(&self.dir), self.path(id));
        let written = disk::off_thread("record the start", move || {
            std::fs::create_dir_all(&*dir)?;
            let mut history: History = disk::read(&path)?.unwrap_or_default();
            // A start that came to nothing is replaced.
            history.starts.retain(|start| start.run < run);
            history.starts.push(Start {
                run,
                at,
                boot_id: disk::boot_id(),
            });
            let surplus = history.starts.len().saturating_sub(STARTS_KEPT);
            history.starts.drain(..surplus);
            disk::write_durably(&path, &history)
        });
        written.await
    }

    /// Takes back a start that came to nothing.
    pub(crate) async fn take_back(&self, id: UnitId, run: u32) -> Result<(), RuntimeError> {
        let path = self.path(id);
        let written = disk::off_thread("take back the start", move || {
            let Some(mut history) = disk::read::<History>(&path)? else {
                return Ok(());
            };
            history.starts.retain(|start| start.run != run);
            disk::write_durably(&path, &history)
        });
        written.await
    }

    pub(crate) async fn forget(&self, id: UnitId) -> Result<(), RuntimeError> {
        let path = self.path(id);
        disk::off_thread("forget the starts", move || {
            disk::gone(std::fs::remove_file(&path))
        })
        .await
    }

    fn path(&self, id: UnitId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

impl History {
    /// The last start that the engine carried out, by the engine's moment of its last start.
    pub(crate) fn last_until(&self, started_at: Timestamp) -> Option<&Start> {
        self.starts
            .iter()
            .rev()
            .find(|start| start.at <= started_at)
    }

    /// The run in which something was written at that moment.
    pub(crate) fn run_at(&self, at: Timestamp) -> u32 {
        let oldest = self.starts.first().map_or(1, |start| start.run);
        self.last_until(at).map_or(oldest, |start| start.run)
    }

    /// When the run began, if that is on record.
    pub(crate) fn start_of(&self, run: u32) -> Option<Timestamp> {
        self.starts
            .iter()
            .find(|start| start.run == run)
            .map(|start| start.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(starts: &[(u32, u64)]) -> History {
        let start = |&(run, at): &(u32, u64)| Start {
            run,
            at: Timestamp::from_millis(at),
            boot_id: String::new(),
        };
        History {
            starts: starts.iter().map(start).collect(),
        }
    }

    #[test]
    fn lines_belong_to_the_run_that_had_begun() {
        let history = history(&[(4, 100), (5, 200)]);
        let run_at = |millis| history.run_at(Timestamp::from_millis(millis));
        assert_eq!(
            [run_at(50), run_at(100), run_at(199), run_at(200)],
            [4, 4, 4, 5]
        );
        assert_eq!(History::default().run_at(Timestamp::from_millis(1)), 1);
    }

    #[test]
    fn a_start_that_the_engine_never_carried_out_does_not_count() {
        let history = history(&[(1, 100), (2, 200)]);
        let last = history.last_until(Timestamp::from_millis(150)).unwrap();
        assert_eq!(last.run, 1);
    }
}

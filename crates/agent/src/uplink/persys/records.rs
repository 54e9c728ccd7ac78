//! The records of what a scheduler has had this node run, one file each.
//!
//! ```text
//! <data>/agent/persys/<assignment>.json   what was asked, as it came, and what the node made of it
//! ```
//!
//! A file is replaced as a whole. One that cannot be understood is set aside: its unit goes on by the reconciler's own
//! ledger, and the scheduler, which misses it, applies it again.

use std::io;
use std::path::{Path, PathBuf};

use hostler_model::{AssignmentId, Timestamp};
use serde::{Deserialize, Serialize};

use super::spec::assignment_of;
use crate::StartError;
use crate::ledger::files;

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) revision: String,
    pub(super) desired: Desired,
    /// Of its unit; larger with each revision and each new start.
    pub(super) generation: u64,
    pub(super) created_at: Timestamp,
    pub(super) changed_at: Timestamp,
    /// The request as it came, encoded and in base64.
    pub(super) request: String,
    /// Why the node does not run it, if it was asked to and does not try any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) given_up: Option<GivenUp>,
    /// What was wrong with it when it was told to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_error: Option<String>,
}

/// Why something is not tried any more; the scheduler may ask again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenUp {
    /// A driver's code, or `node-busy`.
    pub(super) code: String,
    pub(super) message: String,
}

/// What the scheduler wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Desired {
    Running,
    Stopped,
    /// Forgotten once nothing of it is left.
    Deleted,
}

/// The directory of the records.
#[derive(Debug, Clone)]
pub(super) struct Records {
    dir: PathBuf,
}

fn dir_of(data_dir: &Path) -> PathBuf {
    data_dir.join("agent").join("persys")
}

pub(super) fn make_dir(data_dir: &Path) -> Result<(), StartError> {
    let dir = dir_of(data_dir);
    files::make_dir(&dir).map_err(|source| StartError::Data {
        path: dir.display().to_string(),
        source,
    })
}

impl Records {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self {
            dir: dir_of(data_dir),
        }
    }

    /// All that can be understood.
    pub(super) fn load(&self) -> Vec<Record> {
        files::sweep(&self.dir);
        let read = |path: PathBuf| files::read::<Record>(&path).ok().flatten();
        files::list(&self.dir)
            .into_iter()
            .filter_map(read)
            .collect()
    }

    /// When it answers, the record is on the disk.
    pub(super) fn keep(&self, record: &Record) -> io::Result<()> {
        files::write(&self.path(assignment_of(&record.id)), record)?;
        files::sync_dir(&self.dir)
    }

    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        files::delete(&self.path(assignment_of(id)))?;
        files::sync_dir(&self.dir)
    }

    fn path(&self, assignment: AssignmentId) -> PathBuf {
        self.dir.join(format!("{assignment}.json"))
    }
}

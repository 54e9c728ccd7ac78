//! Whose kept data is: one small file per assignment, written before there can be any data, because neither a disk
//! nor a volume says for which workload it was made. Deleted with the data.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_model::{AssignmentId, Timestamp, WorkloadId};
use serde::{Deserialize, Serialize};

use crate::turns::lock;
use crate::{RuntimeError, disk};

/// Between two looks at whether an assignment is let go of.
const PAUSE: Duration = Duration::from_millis(20);

/// The directory of the files.
#[derive(Debug, Clone)]
pub(crate) struct Whose {
    dir: PathBuf,
    /// Assignments of which a unit is being made, or whose data is being deleted.
    held: Arc<Mutex<HashSet<AssignmentId>>>,
}

/// Keeps data from being deleted while a unit is made of it, and the other way round.
#[derive(Debug)]
pub(crate) struct Hold {
    assignment: AssignmentId,
    held: Arc<Mutex<HashSet<AssignmentId>>>,
}

/// Whose the data of an assignment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owned {
    pub(crate) workload: WorkloadId,
    /// When there could be data for the first time.
    pub(crate) made_at: Timestamp,
    /// When a unit used it last, as far as that was written down.
    pub(crate) used_at: Timestamp,
}

impl Whose {
    pub(crate) fn in_dir(dir: PathBuf) -> Self {
        Self {
            dir,
            held: Arc::default(),
        }
    }

    /// Waits until nobody else holds the assignment.
    pub(crate) async fn hold(&self, assignment: AssignmentId) -> Hold {
        loop {
            match self.try_hold(assignment) {
                Some(hold) => return hold,
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// The same, unless somebody holds it.
    pub(crate) fn try_hold(&self, assignment: AssignmentId) -> Option<Hold> {
        let held = Arc::clone(&self.held);
        let is_free = lock(&held).insert(assignment);
        is_free.then_some(Hold { assignment, held })
    }

    /// A unit of the assignment is about to be there. Answers whether that is news.
    pub(crate) async fn note(
        &self,
        assignment: AssignmentId,
        workload: WorkloadId,
        now: Timestamp,
    ) -> Result<bool, RuntimeError> {
        let (dir, path) = (self.dir.clone(), self.path(assignment));
        disk::off_thread("note whose data it is", move || {
            fs::create_dir_all(dir)?;
            let known = read(&path)?;
            let made_at = known.map_or(now, |known| known.made_at);
            let owned = Owned {
                workload,
                made_at,
                used_at: now,
            };
            disk::write_durably(&path, &owned)?;
            Ok(known.is_none())
        })
        .await
    }

    /// The last unit of the assignment has gone, its data stays.
    pub(crate) async fn left(
        &self,
        assignment: AssignmentId,
        now: Timestamp,
    ) -> Result<(), RuntimeError> {
        let path = self.path(assignment);
        disk::off_thread("note that data is kept", move || match read(&path)? {
            Some(owned) => disk::write_whole(
                &path,
                &Owned {
                    used_at: now,
                    ..owned
                },
            ),
            None => Ok(()),
        })
        .await
    }

    /// There is no data any more.
    pub(crate) async fn forget(&self, assignment: AssignmentId) -> Result<(), RuntimeError> {
        let path = self.path(assignment);
        disk::off_thread("forget whose data it was", move || {
            disk::gone(fs::remove_file(path))
        })
        .await
    }

    /// Every assignment that there may be data of.
    pub(crate) async fn all(&self) -> Result<Vec<(AssignmentId, Owned)>, RuntimeError> {
        let dir = self.dir.clone();
        disk::off_thread("read whose data there is", move || {
            let mut all = Vec::new();
            for (path, name) in disk::entries(&dir)? {
                let assignment = name.strip_suffix(".json").and_then(|id| id.parse().ok());
                if let Some(assignment) = assignment
                    && let Some(owned) = read(&path)?
                {
                    all.push((assignment, owned));
                }
            }
            Ok(all)
        })
        .await
    }

    fn path(&self, assignment: AssignmentId) -> PathBuf {
        self.dir.join(format!("{assignment}.json"))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.assignment);
    }
}

/// A file that a power cut has emptied says nothing: the data stays for good.
fn read(path: &Path) -> io::Result<Option<Owned>> {
    match disk::read(path) {
        Err(error) if disk::is_damage(&error) => Ok(None),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_noted_is_found_until_it_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let whose = Whose::in_dir(home.path().join("whose"));
        let at = Timestamp::from_millis;
        let assignment = AssignmentId::mint(at(1), 1);
        let owned = Owned {
            workload: WorkloadId::mint(at(1), 2),
            made_at: at(1),
            used_at: at(7),
        };
        assert_eq!(whose.all().await.unwrap(), []);
        whose.left(assignment, at(5)).await.unwrap();
        assert_eq!(whose.all().await.unwrap(), [], "it was never noted");
        for (moment, is_news) in [(at(1), true), (at(2), false)] {
            let noted = whose.note(assignment, owned.workload, moment);
            assert_eq!(noted.await.unwrap(), is_news);
        }
        whose.left(assignment, at(7)).await.unwrap();
        assert_eq!(whose.all().await.unwrap(), [(assignment, owned)]);
        std::fs::write(home.path().join("whose/x.json"), "").unwrap();
        let hold = whose.try_hold(assignment);
        assert!(hold.is_some() && whose.try_hold(assignment).is_none());
        drop(hold);
        assert!(whose.try_hold(assignment).is_some());
        whose.forget(assignment).await.unwrap();
        whose.forget(assignment).await.unwrap();
        assert_eq!(whose.all().await.unwrap(), []);
    }
}

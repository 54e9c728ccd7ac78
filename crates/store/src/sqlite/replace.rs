//! A copy of a store: looked over, and put in the place of the store that is there.
//!
//! The directory is locked all the while, so no server can open it. Between the first move and the last a mark
//! lies in the directory: a store with the mark is not opened, because a log of the one must never meet the
//! database of the other. Whoever was interrupted does it again; what was there before is never deleted.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::open::{self, DATABASE, DirectoryLock, OpenError, classify, sync_directory};
use super::{reader, schema};
use crate::Revision;

/// Lies in the data directory while the store is being replaced.
const MARK: &str = "store.restoring";

/// Looks a copy over, which nobody writes: it is ours, not newer than this program, and whole. Gives the
/// revision that it shows.
///
/// # Errors
/// `Foreign`, `NewerVersion`, `Corrupt`, or the disk fails.
pub fn examine(copy: &Path) -> Result<Revision, OpenError> {
    let failed = |source| classify(copy, source);
    let connection = open::read_connection(copy).map_err(failed)?;
    let found = schema::identify(&connection, copy, schema::MIGRATIONS)?;
    let foreign = || OpenError::Foreign {
        path: copy.to_owned(),
    };
    if found == 0 {
        return Err(foreign());
    }
    let check = "PRAGMA integrity_check(1)";
    let verdict: String = connection
        .query_row(check, [], |row| row.get(0))
        .map_err(failed)?;
    if verdict != "ok" {
        return Err(OpenError::Corrupt {
            path: copy.to_owned(),
            source: rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_CORRUPT),
                Some(verdict),
            ),
        });
    }
    reader::present_revision(&connection).map_err(failed)
}

/// A data directory whose store is to be replaced; nobody else can open it meanwhile.
pub struct Replacement {
    directory: PathBuf,
    _lock: DirectoryLock,
}

impl Replacement {
    /// Makes the directory if it does not exist, and locks it.
    ///
    /// # Errors
    /// `InUse` while a server runs on it, or it cannot be written.
    pub fn begin(directory: &Path) -> Result<Self, OpenError> {
        let unwritable = |source| OpenError::DirectoryUnwritable {
            path: directory.to_owned(),
            source,
        };
        open::make_private(directory).map_err(unwritable)?;
        Ok(Self {
            _lock: open::lock(directory)?,
            directory: directory.to_owned(),
        })
    }

    /// Whether a store is there already.
    #[must_use]
    pub fn is_occupied(&self) -> bool {
        fs::metadata(self.directory.join(DATABASE)).is_ok_and(|about| about.len() > 0)
    }

    /// Puts `staged/hostler.db`, and what else of `names` lies in `staged`, into the directory. What has these names
    /// there moves to `aside`, the old store always; `aside` is made only if there is something.
    ///
    /// # Errors
    /// The disk fails. Whether it failed before the end tells the mark: then the directory opens no more before this
    /// is done again.
    pub fn put(self, staged: &Path, names: &[&str], aside: &Path) -> io::Result<()> {
        let mut mark = File::create(self.directory.join(MARK))?;
        writeln!(mark, "{}", aside.display())?;
        mark.sync_all()?;
        sync_directory(&self.directory)?;
        // The log goes first: a database without it is old, a log without its database is poison.
        let log = format!("{DATABASE}-wal");
        let shared = format!("{DATABASE}-shm");
        let old = [log.as_str(), shared.as_str(), DATABASE].into_iter();
        for name in old.chain(names.iter().copied()) {
            let comes = name.starts_with(DATABASE) || staged.join(name).exists();
            if comes {
                self.set_aside(name, aside)?;
            }
        }
        for name in [DATABASE].iter().chain(names) {
            let from = staged.join(name);
            if from.exists() {
                fs::rename(from, self.directory.join(name))?;
            }
        }
        sync_directory(&self.directory)?;
        fs::remove_file(self.directory.join(MARK))?;
        sync_directory(&self.directory)
    }

    fn set_aside(&self, name: &str, aside: &Path) -> io::Result<()> {
        let present = self.directory.join(name);
        if !present.exists() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(aside)?;
        fs::rename(present, aside.join(name))?;
        sync_directory(aside)
    }
}

/// Whether the store of that directory is half replaced.
pub(super) fn is_under_way(directory: &Path) -> bool {
    directory.join(MARK).exists()
}

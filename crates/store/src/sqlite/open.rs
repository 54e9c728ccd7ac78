//! Opening: the directory, its lock, the connections and their settings, and every way it can fail.
//!
//! The lock is `flock` on `store.lock`: the kernel drops it with the process, so a killed server leaves
//! nothing to clean up. File systems without working `flock` and shared memory (NFS, some FUSE ones) are
//! not fit for the data directory.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::checkpoint::Checkpoints;
use super::failpoint::Tripwire;
use super::writer::Writer;
use super::{SqliteOptions, reader, replace, schema};
use crate::history::Journal;
use crate::leases::Leases;

/// The database's name in the data directory.
pub(super) const DATABASE: &str = "hostler.db";
/// The lock's name in the data directory.
const LOCK: &str = "store.lock";
/// How long a connection waits for another one of this process, which only ever holds a lock for moments.
const BUSY: Duration = Duration::from_secs(5);

/// Why the store could not be opened. Each says what is wrong; [`OpenError::advice`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot write to the data directory: {}", path.display())]
    DirectoryUnwritable { path: PathBuf, source: io::Error },
    #[error("another process uses the data directory: {}", path.display())]
    InUse { path: PathBuf },
    #[error("the data is of version {found}, this program knows versions up to {known}")]
    NewerVersion { found: u32, known: u32 },
    #[error("the file is no store of this program: {}", path.display())]
    Foreign { path: PathBuf },
    #[error("a restore into {} was begun and not finished", path.display())]
    HalfRestored { path: PathBuf },
    #[error("the store is damaged: {}", path.display())]
    Corrupt {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot copy the store before its migration: {}", path.display())]
    Backup {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot migrate the store to version {to}")]
    Migration { to: u32, source: rusqlite::Error },
    #[error("cannot open the store: {}", path.display())]
    Sqlite {
        path: PathBuf,
        source: rusqlite::Error,
    },
    #[error("cannot start a thread of the store")]
    Thread { source: io::Error },
}

impl OpenError {
    /// What the operator can do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::DirectoryUnwritable { .. } => {
                "choose another --data-dir, or give this user the right to write there"
            }
            Self::InUse { .. } => {
                "stop the other process, whose id is in store.lock, or choose another --data-dir"
            }
            Self::NewerVersion { .. } => {
                "start the newer program again, or restore the backup made before its migration"
            }
            Self::Foreign { .. } => "choose another --data-dir; this file is left as it is",
            Self::HalfRestored { .. } => {
                "run `hostler restore` again; what was there before lies beside it in before-restore-*"
            }
            Self::Corrupt { .. } => "keep a copy of the data directory, then restore a backup",
            Self::Backup { .. } => "free as much space as the store takes, then start again",
            Self::Migration { .. } => {
                "the failed step is undone; start the former program on the backup, and report this"
            }
            Self::Sqlite { .. } => "look for a full or failing disk, then start again",
            Self::Thread { .. } => "raise the limit of threads or processes, then start again",
        }
    }
}

/// The open lock file; closing it unlocks.
pub(super) struct DirectoryLock(#[expect(dead_code, reason = "held for its lock")] File);

/// What opening gives.
pub(super) struct Opened {
    pub(super) lock: DirectoryLock,
    pub(super) path: PathBuf,
    pub(super) writer: Writer,
}

/// Makes the directory, locks it, migrates what is in it and reads where it stands.
pub(super) fn open(data_dir: &Path, options: SqliteOptions) -> Result<Opened, OpenError> {
    let unwritable = |source| OpenError::DirectoryUnwritable {
        path: data_dir.to_owned(),
        source,
    };
    make_private(data_dir).map_err(unwritable)?;
    let lock = lock(data_dir)?;
    if replace::is_under_way(data_dir) {
        return Err(OpenError::HalfRestored {
            path: data_dir.to_owned(),
        });
    }
    let path = data_dir.join(DATABASE);
    make_private_file(&path).map_err(unwritable)?;
    sync_directory(data_dir).map_err(unwritable)?;

    let failed = |source| classify(&path, source);
    let mut connection = Connection::open(&path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let found = schema::identify(&connection, &path, options.migrations)?;
    settle(&connection, &options).map_err(failed)?;
    let mut tripwire = Tripwire::new(options.failpoint);
    schema::migrate(
        &mut connection,
        (&path, found),
        options.migrations,
        &mut tripwire,
    )?;
    let revision = reader::present_revision(&connection).map_err(failed)?;
    let lease = last_lease(&connection).map_err(failed)?;

    let beside = Connection::open(&path).map_err(failed)?;
    settle(&beside, &options).map_err(failed)?;
    let checkpoints = Checkpoints::start(&path, beside, options.checkpoint_after, tripwire)
        .map_err(|source| OpenError::Thread { source })?;
    let writer = Writer {
        connection,
        journal: Arc::new(Journal::starting_at(revision, options.history)),
        leases: Leases::counting_from(lease),
        revision,
        checkpoints,
        tripwire,
    };
    Ok(Opened { lock, path, writer })
}

/// A connection that only reads.
pub(super) fn read_connection(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Settings that are not SQLite's defaults, each with its reason:
/// WAL, so that a commit is one append and one sync, and readers do not wait;
/// FULL, so that the sync happens before the commit is answered;
/// no automatic checkpoint, since that would run inside a commit;
/// the log is cut back when it starts over, so that its length tells how much is in it;
/// untrusted schema and checked cells, so that a damaged file is an error and not a surprise.
fn settle(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -8000;",
    )?;
    let log = i64::try_from(options.checkpoint_after).unwrap_or(i64::MAX);
    connection.pragma_update(None, "journal_size_limit", log)?;
    if let Some(pages) = options.most_pages {
        connection.pragma_update(None, "max_page_count", pages)?;
    }
    Ok(())
}

fn last_lease(connection: &Connection) -> rusqlite::Result<u64> {
    let select = "SELECT value FROM meta WHERE name = 'lease'";
    connection.query_row(select, [], |row| reader::unsigned(row, 0))
}

pub(super) fn lock(data_dir: &Path) -> Result<DirectoryLock, OpenError> {
    let unwritable = |source| OpenError::DirectoryUnwritable {
        path: data_dir.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(data_dir.join(LOCK)).map_err(unwritable)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(OpenError::InUse {
                path: data_dir.to_owned(),
            });
        }
        Err(errno) => return Err(unwritable(errno.into())),
    }
    // The process id is for people; nothing reads it back.
    file.set_len(0).map_err(unwritable)?;
    writeln!(file, "{}", std::process::id()).map_err(unwritable)?;
    Ok(DirectoryLock(file))
}

pub(super) fn make_private(data_dir: &Path) -> io::Result<()> {
    if data_dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)?;
    match data_dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// SQLite gives the log and the shared memory the rights of the database.
pub(super) fn make_private_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Tells damage from other failures.
pub(super) fn classify(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    let damaged = matches!(
        source.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    );
    let incomplete = matches!(
        source,
        rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::IntegralValueOutOfRange(..)
    );
    if damaged || incomplete {
        OpenError::Corrupt { path, source }
    } else {
        OpenError::Sqlite { path, source }
    }
}

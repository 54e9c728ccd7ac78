//! The schema, its versions, and copies of the whole file.
//!
//! Versions only go forward. The version is SQLite's `user_version`, changed in the same transaction as
//! what it describes; before each step the file is copied beside itself, and the copy is durable before
//! the step begins. A step that fails leaves the file as it was.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::OpenError;
use super::failpoint::{Point, Tripwire};
use super::open::{classify, make_private_file, sync_directory};

/// Step `n` leads from version `n` to version `n + 1`. Steps are never changed once released.
pub(super) const MIGRATIONS: &[&str] = &[
    // WITHOUT ROWID: one tree, in key order, instead of a table and an index.
    "CREATE TABLE kv (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL)
         STRICT, WITHOUT ROWID;
     CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     INSERT INTO meta (name, value) VALUES ('revision', 0), ('lease', 0);",
];

/// Marks the file as ours: "HOST".
const APPLICATION: i64 = 0x484f_5354;

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("the file exists: {}", .0.display())]
    Exists(PathBuf),
    #[error("nobody waits for the copy any more")]
    Over,
    #[error("cannot write the copy")]
    Io(#[from] io::Error),
    #[error("cannot copy the store")]
    Sqlite(#[from] rusqlite::Error),
}

/// The version of the file, which is only read: a file that is not ours, or newer than we are, stays as
/// it is.
pub(super) fn identify(
    connection: &Connection,
    path: &Path,
    steps: &[&str],
) -> Result<u32, OpenError> {
    let found = version(connection).map_err(|source| classify(path, source))?;
    let is_ours = is_ours(connection, found).map_err(|source| classify(path, source))?;
    let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
    if !is_ours {
        Err(OpenError::Foreign {
            path: path.to_owned(),
        })
    } else if found > known {
        Err(OpenError::NewerVersion { found, known })
    } else {
        Ok(found)
    }
}

/// Leads the file from version `found` to the newest, one step at a time.
pub(super) fn migrate(
    connection: &mut Connection,
    (path, found): (&Path, u32),
    steps: &[&str],
    tripwire: &mut Tripwire,
) -> Result<(), OpenError> {
    for (to, step) in (1..).zip(steps).skip(found as usize) {
        let from = to - 1;
        if from > 0 {
            let backup = backup_path(path, from);
            replace_copy(connection, &backup, || false).map_err(|source| OpenError::Backup {
                path: backup,
                source: source.into(),
            })?;
            tripwire.pass(Point::DuringMigrationAfterBackup);
            tracing::info!(from, to, "migrating the store");
        }
        apply(connection, step, to).map_err(|source| OpenError::Migration { to, source })?;
    }
    Ok(())
}

/// Copies the store to a path where nothing is, unless it is over by then.
pub(super) fn copy_to(
    connection: &Connection,
    path: &Path,
    is_over: impl Fn() -> bool,
) -> Result<(), CopyError> {
    if path.exists() {
        return Err(CopyError::Exists(path.to_owned()));
    }
    replace_copy(connection, path, is_over)
}

/// Copies the store, durably, in place of whatever is at the path. The path never shows half a copy, and what fails
/// leaves nothing behind.
fn replace_copy(
    connection: &Connection,
    path: &Path,
    is_over: impl Fn() -> bool,
) -> Result<(), CopyError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let name = partial
        .to_str()
        .ok_or(io::ErrorKind::InvalidFilename)
        .map_err(io::Error::from)?;
    // SQLite fills an empty file as it is, so the copy is as private as the store from its first byte on.
    make_private_file(&partial)?;
    let discard = || drop(std::fs::remove_file(&partial));
    let file = File::open(&partial).inspect_err(|_| discard())?;
    // While the file is open its number is nobody else's.
    let number = file.metadata().inspect_err(|_| discard())?.ino();
    let is_own = || std::fs::metadata(&partial).is_ok_and(|it| it.ino() == number);
    let copy = || -> Result<(), CopyError> {
        connection.execute("VACUUM INTO ?1", [name])?;
        // SQLite does not sync what VACUUM INTO writes.
        file.sync_all()?;
        if is_over() || !is_own() {
            return Err(CopyError::Over);
        }
        Ok(std::fs::rename(&partial, path)?)
    };
    if let Err(error) = copy() {
        // A full disk needs the room. A copy that was begun since has a file of its own under that name.
        if is_own() {
            discard();
        }
        return Err(error);
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => Ok(sync_directory(parent)?),
        _ => Ok(sync_directory(Path::new("."))?),
    }
}

fn backup_path(path: &Path, version: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".v{version}.backup"));
    name.into()
}

fn apply(connection: &mut Connection, step: &str, to: u32) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", to)?;
    transaction.commit()
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// A file without a version is ours if it is empty.
fn is_ours(connection: &Connection, version: u32) -> rusqlite::Result<bool> {
    if version == 0 {
        let count = "SELECT count(*) FROM sqlite_schema";
        return connection.query_row(count, [], |row| Ok(row.get::<_, i64>(0)? == 0));
    }
    connection.pragma_query_value(None, "application_id", |row| {
        Ok(row.get::<_, i64>(0)? == APPLICATION)
    })
}

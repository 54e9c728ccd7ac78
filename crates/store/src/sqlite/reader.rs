//! Reads: a few connections on the runtime's blocking pool, each reading one snapshot.
//!
//! The pool owns the idle connections and opens more as needed, up to [`AT_ONCE`]. A connection that failed
//! is not used again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};
use tokio::sync::Semaphore;

use super::open;
use super::writer::Failure;
use crate::history::{self, Journal};
use crate::{Entry, Listing, Page, Revision, StoreError};

/// Reads that run at the same time.
const AT_ONCE: usize = 4;
/// Connections that are kept while nobody reads.
const IDLE: usize = 2;

pub(super) struct Readers {
    path: PathBuf,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn of(path: PathBuf) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self {
            path,
            turns,
            idle: Mutex::default(),
        }
    }

    /// Runs a job on a connection of its own.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|closed| StoreError::Unavailable(closed.into()))?;
        let readers = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let connection = readers.take()?;
            let outcome = job(&connection);
            if !matches!(outcome, Err(StoreError::Unavailable(_))) {
                readers.give_back(connection);
            }
            outcome
        });
        done.await
            .unwrap_or_else(|failed| Err(StoreError::Unavailable(failed.into())))
    }

    /// Where the store is.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Lets nobody begin to read any more.
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        match idle {
            Some(connection) => Ok(connection),
            None => Ok(open::read_connection(&self.path).map_err(Failure::from)?),
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE && !self.turns.is_closed() {
            idle.push(connection);
        }
    }
}

/// The present entry of a key.
pub(super) fn get(connection: &Connection, key: String) -> Result<Option<Entry>, StoreError> {
    let found = || {
        let mut select =
            connection.prepare_cached("SELECT value, revision FROM kv WHERE key = ?1")?;
        select.query_row([&key], value_and_revision).optional()
    };
    let found = found().map_err(Failure::from)?;
    Ok(found.map(|(value, revision)| Entry {
        key,
        value,
        revision,
    }))
}

/// One page, with later writes undone where an older revision is asked for.
pub(super) fn list(
    connection: &Connection,
    journal: &Journal,
    prefix: &str,
    page: &Page,
) -> Result<Listing, StoreError> {
    // One transaction, so that revision and entries are of the same snapshot; it ends with the guard.
    let snapshot = connection.unchecked_transaction().map_err(Failure::from)?;
    let seen = present_revision(&snapshot).map_err(Failure::from)?;
    let revision = page.at.unwrap_or(seen);
    let after = page.after.as_deref();
    let overlay = journal.undo((revision, seen), prefix, after)?;
    let start = after.unwrap_or_default().max(prefix);
    let select = if after == Some(start) {
        "SELECT key, value, revision FROM kv WHERE key > ?1 ORDER BY key"
    } else {
        "SELECT key, value, revision FROM kv WHERE key >= ?1 ORDER BY key"
    };
    let mut select = snapshot.prepare_cached(select).map_err(Failure::from)?;
    let present = select.query_map([start], to_entry).map_err(Failure::from)?;
    let present = present
        .take_while(|entry| {
            entry
                .as_ref()
                .map_or(true, |entry| entry.key.starts_with(prefix))
        })
        .map(|entry| Ok::<_, StoreError>(entry.map_err(Failure::from)?));
    let (entries, more) = history::first_page(present, overlay, history::page_limit(page))?;
    Ok(Listing {
        entries,
        revision,
        more,
    })
}

/// The revision of the snapshot that the connection sees.
pub(super) fn present_revision(connection: &Connection) -> rusqlite::Result<Revision> {
    let mut select = connection.prepare_cached("SELECT value FROM meta WHERE name = 'revision'")?;
    select.query_row([], |row| unsigned(row, 0))
}

/// Columns 0 and 1 as a value and its revision.
pub(super) fn value_and_revision(row: &Row<'_>) -> rusqlite::Result<(Bytes, Revision)> {
    let value: Vec<u8> = row.get(0)?;
    Ok((value.into(), unsigned(row, 1)?))
}

/// SQLite's integers are signed; ours are never negative.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(index)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, value))
}

fn to_entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let value: Vec<u8> = row.get(1)?;
    Ok(Entry {
        key: row.get(0)?,
        value: value.into(),
        revision: unsigned(row, 2)?,
    })
}

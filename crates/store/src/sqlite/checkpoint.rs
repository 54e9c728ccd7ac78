//! Folds the write-ahead log into the database file, beside the commits.
//!
//! A thread of its own with a connection of its own runs passive checkpoints, which wait for nobody and
//! make nobody wait. A log starts over only at a moment when all of it is folded, and commits that follow
//! each other without a gap leave no such moment. So when the log has become [`LONG`] times as long as a
//! checkpoint is asked for, the writer folds the last frames itself, between two groups.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::failpoint::{Point, Tripwire};

/// How many times the usual length the log has when the writer helps.
const LONG: u64 = 8;

/// The writer's end: looks at the size of the log and asks for checkpoints.
pub(super) struct Checkpoints {
    log: PathBuf,
    every: u64,
    asked_at: u64,
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread.
    pub(super) fn start(
        database: &Path,
        connection: Connection,
        every: u64,
        tripwire: Tripwire,
    ) -> std::io::Result<Self> {
        let (ask, asked) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || serve(&connection, &asked, tripwire))?;
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let (ask, thread) = (Some(ask), Some(thread));
        Ok(Self {
            log: log.into(),
            every,
            asked_at: 0,
            ask,
            thread,
        })
    }

    /// Looks at the log after a group; `writer` is used only when the log has grown too far.
    pub(super) fn after_group(&mut self, writer: &Connection) {
        // The log is cut back to `every` when it starts over (`journal_size_limit`), so its length tells.
        let length = std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        if length < self.asked_at {
            self.asked_at = 0;
        }
        if length < self.asked_at.saturating_add(self.every) || length <= self.every {
            return;
        }
        self.asked_at = length;
        if length > self.every.saturating_mul(LONG) {
            passive(writer);
        } else if let Some(ask) = &self.ask {
            // A full channel means that a checkpoint is asked for already.
            let _ = ask.try_send(());
        }
    }

    /// Ends the thread, then empties the log.
    pub(super) fn finish(mut self, writer: &Connection) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's checkpointer panicked");
        }
        checkpoint(writer, "PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

fn serve(connection: &Connection, asked: &Receiver<()>, mut tripwire: Tripwire) {
    while asked.recv().is_ok() {
        tripwire.pass_beside(Point::DuringCheckpoint);
        passive(connection);
    }
}

fn passive(connection: &Connection) {
    checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)");
}

/// A failed checkpoint loses nothing: the log stays, and the next one tries again.
fn checkpoint(connection: &Connection, pragma: &str) {
    let frames = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    match connection.query_row(pragma, [], frames) {
        Ok((frames, folded)) => tracing::debug!(frames, folded, "store checkpoint"),
        Err(error) => tracing::warn!(%error, "store checkpoint failed"),
    }
}

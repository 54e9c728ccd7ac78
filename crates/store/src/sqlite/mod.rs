//! The store on disk: one SQLite file in WAL mode, `synchronous=FULL`, in the data directory.
//!
//! ```text
//!  commit, lease ──► bounded queue ──► store-writer ──► one transaction, one fsync ──► journal ──► answers
//!  get, list ──► a few read connections (blocking pool)         │ the log grew
//!                                                               ▼
//!                                                      store-checkpoint ──► the database file
//! ```
//!
//! The directory is locked, so this process is the only one that writes: the table of leases and the
//! recent history live in memory and are owned by the writer thread and the journal. On disk are the
//! entries, the revision and the last lease number. Opening fails with [`OpenError`]; afterwards a failing
//! disk turns into [`StoreError::Unavailable`], nothing is acknowledged, and the store works again when
//! the disk does.

mod checkpoint;
mod copy;
mod failpoint;
mod open;
mod reader;
mod replace;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use hostler_kit::Clock;
use tokio::sync::{mpsc, oneshot};

use crate::admission;
use crate::history::{HistoryBound, Journal};
use crate::{
    CommitError, Entry, Guard, LeaseError, LeaseToken, Limits, Listing, Page, Revision, Store,
    StoreError, Watch, Write,
};

pub use failpoint::{Failpoint, Point};
pub use open::OpenError;
pub use replace::{Replacement, examine};

use reader::Readers;
use writer::{Command, CommitRequest, LeaseRequest};

/// Commands that may wait for the writer; whoever comes after that waits to be let in.
const QUEUE: usize = 1_024;

/// What a store may be opened with. The default is right for everything but tests.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// What fits into one commit.
    pub limits: Limits,
    /// How much history is kept for watches and for listing at older revisions.
    pub history: HistoryBound,
    /// The steps that lead from each version of the schema to the next.
    pub migrations: &'static [&'static str],
    /// Bytes of log after which a checkpoint is asked for.
    pub checkpoint_after: u64,
    /// Most pages of the database file; the disk is as good as full then.
    pub most_pages: Option<u32>,
    /// Where the process ends itself, to show that nothing acknowledged is lost.
    pub failpoint: Option<Failpoint>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            history: HistoryBound::default(),
            migrations: schema::MIGRATIONS,
            checkpoint_after: 4 << 20,
            most_pages: None,
            failpoint: None,
        }
    }
}

/// The embedded store of a single server.
pub struct SqliteStore {
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
    readers: Arc<Readers>,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    /// Locked for as long as the store is open; dropped last.
    _lock: open::DirectoryLock,
}

#[derive(Debug, thiserror::Error)]
#[error("the store's writer has ended")]
struct WriterEnded;

impl SqliteStore {
    /// Opens the store in the directory, which is made if it does not exist.
    ///
    /// Reads run on the blocking pool of the caller's runtime, commits on a thread that a paused tokio
    /// clock does not know of: simulations use [`MemoryStore`](crate::MemoryStore).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::open_with(data_dir, clock, SqliteOptions::default())
    }

    /// Opens the store with other limits, or with a failure built in.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(
        data_dir: &Path,
        clock: Arc<dyn Clock>,
        options: SqliteOptions,
    ) -> Result<Self, OpenError> {
        let limits = options.limits;
        let opened = open::open(data_dir, options)?;
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = opened.writer;
        let journal = Arc::clone(writer.journal());
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self {
            commands: Some(commands),
            writer: Some(writer),
            readers: Arc::new(Readers::of(opened.path)),
            journal,
            clock,
            limits,
            _lock: opened.lock,
        })
    }

    /// Copies the store, as it is now, into a file that is durable when this returns. The copy opens as
    /// `hostler.db` of another data directory. It breaks off when this is dropped.
    ///
    /// # Errors
    /// The path exists, its directory is not writable, or the disk fails.
    pub async fn backup_to(&self, path: &Path) -> Result<(), StoreError> {
        copy::copy(self.readers.path(), path.to_owned()).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command + Send,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(writer_ended)?;
        commands
            .send(command(reply))
            .await
            .map_err(|_| writer_ended())?;
        answer.await.map_err(|_| writer_ended())
    }
}

fn writer_ended() -> StoreError {
    StoreError::Unavailable(Box::new(WriterEnded))
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.readers
            .read(move |connection| reader::get(connection, key))
            .await
    }

    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        let journal = Arc::clone(&self.journal);
        self.readers
            .read(move |connection| reader::list(connection, &journal, &prefix, &page))
            .await
    }

    async fn commit(
        &self,
        writes: Vec<Write>,
        guards: Vec<Guard>,
    ) -> Result<Revision, CommitError> {
        admission::check_writes(self.limits, &writes)?;
        let now = self.clock.uptime();
        let request = CommitRequest {
            writes,
            guards,
            now,
        };
        self.ask(|reply| Command::Commit(request, reply)).await?
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.journal.watch(prefix, from)
    }

    async fn lease(
        &self,
        name: &str,
        ttl: Duration,
        token: Option<&LeaseToken>,
    ) -> Result<LeaseToken, LeaseError> {
        let span = (self.clock.uptime(), ttl);
        let request = LeaseRequest {
            name: name.to_owned(),
            span,
            token: token.cloned(),
        };
        self.ask(|reply| Command::Lease(request, reply)).await?
    }

    async fn release(&self, token: &LeaseToken) -> Result<(), StoreError> {
        let token = token.clone();
        self.ask(|reply| Command::Release(token, reply)).await?
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

impl Drop for SqliteStore {
    /// Lets the writer finish what is queued and fold the log into the database.
    fn drop(&mut self) {
        self.journal.close();
        self.readers.close();
        drop(self.commands.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

//! The store contract: an ordered map of small values with one revision counter, atomic guarded commits,
//! watches and named leases; and its engines.
//!
//! [`Store`] is owned by its consumer, `control`. Every engine passes `contract::run`. What every engine
//! promises:
//!
//! - A commit is atomic, and durable when it is answered. Revisions grow by one per commit.
//! - All entries of one commit carry its revision.
//! - [`Store::list`] pages at a fixed revision, or answers [`StoreError::Compacted`]: start over.
//! - [`Store::watch`] gives every commit after a revision once and in order, or answers
//!   [`StoreError::Compacted`]: relist.
//! - A commit guarded by a leader token that is no longer the holder's fails with
//!   [`CommitError::LeaderLost`] and changes nothing. Leader guards are looked at before all others.
//! - A commit without writes checks its guards and answers the present revision.
//!
//! The state belongs to the engine; what can fail is in [`StoreError`], [`CommitError`], [`LeaseError`]
//! and, while opening, [`OpenError`].

mod admission;
mod faults;
mod history;
mod leases;
mod memory;
mod sqlite;

#[cfg(any(test, feature = "contract"))]
pub mod contract;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use faults::{Fault, Gate};
pub use history::HistoryBound;
pub use memory::MemoryStore;
pub use sqlite::{Failpoint, OpenError, Point, Replacement, SqliteOptions, SqliteStore, examine};

/// Most bytes of a key.
pub const KEY_BYTES: usize = 512;

/// A key: `/`-separated words, at most 512 bytes, ordered bytewise.
pub type Key = String;

/// Counts commits. 0 is the empty store.
pub type Revision = u64;

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put { key: Key, value: Bytes },
    Delete { key: Key },
}

/// What must hold for a commit to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key exists and was last written at this revision.
    Unchanged { key: Key, revision: Revision },
    /// The key does not exist.
    Absent { key: Key },
    /// The token is that of the present holder of the lease.
    Leader { token: LeaseToken },
}

/// A value with the revision of the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Bytes,
    pub revision: Revision,
}

/// Which part of a prefix to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Only keys after this one.
    pub after: Option<Key>,
    /// At most so many entries; 0 means the engine's own limit. An engine may give fewer, never none
    /// while there are some; `more` tells.
    pub limit: usize,
    /// As of this revision; none means now. A revision that is forgotten or not yet reached answers
    /// [`StoreError::Compacted`].
    pub at: Option<Revision>,
}

/// One page of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<Entry>,
    /// The revision that the page shows; ask for the next one `at` it.
    pub revision: Revision,
    /// Whether keys follow after the last entry.
    pub more: bool,
}

/// The writes of one commit that fall under a watched prefix, in the order of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub revision: Revision,
    pub writes: Vec<Write>,
}

/// What an engine takes in one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most writes in one commit.
    pub writes: usize,
    /// Most bytes of keys and values in one commit.
    pub bytes: usize,
}

impl Default for Limits {
    /// What the engines of this crate take unless they are told otherwise.
    fn default() -> Self {
        Self {
            writes: 4_096,
            bytes: 8 << 20,
        }
    }
}

/// Names one holding of a lease. A later holding has a larger number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseToken {
    pub name: String,
    pub number: u64,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// History before `oldest` is forgotten; list anew.
    #[error("history before revision {oldest} is compacted")]
    Compacted { oldest: Revision },
    /// The engine is closed, or its disk or peer fails. Whether a commit under way happened is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a commit did not happen.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The guard at this index does not hold. Nothing was changed.
    #[error("guard {index} does not hold")]
    GuardFailed { index: usize },
    /// The leader token is stale: another one decides now. Step down; never retry. Nothing was changed.
    #[error("the leader lease is lost")]
    LeaderLost,
    /// More writes or bytes than [`Store::limits`] allows, or a key of more than [`KEY_BYTES`]. Nothing
    /// was changed.
    #[error("the commit is larger than the engine takes")]
    TooLarge,
    /// A key occurs more than once among the writes. Nothing was changed.
    #[error("the key is written twice in one commit: {key}")]
    DuplicateKey { key: Key },
    /// The engine failed. Whether the commit happened is unknown: read before deciding again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a lease was not given.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else holds it and has not let it run out.
    #[error("the lease is held by another")]
    Held,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The ordered map behind everything that must not be lost.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The present entry of a key.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// The entries under a prefix in key order, a page at a time, at a fixed revision.
    async fn list(&self, prefix: &str, page: Page) -> Result<Listing, StoreError>;

    /// Makes all writes if all guards hold, else none. When it answers, they are durable. A key may occur
    /// once per commit. Dropping the future does not take a commit back that is under way.
    async fn commit(&self, writes: Vec<Write>, guards: Vec<Guard>)
    -> Result<Revision, CommitError>;

    /// Every commit after `from` that touches the prefix, then those to come. A `from` that is forgotten
    /// or not yet reached answers [`StoreError::Compacted`].
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Takes the named lease, or renews it if `token` is the present holder's. It runs out `ttl` after the
    /// last renewal; then nobody holds it, and its old token does not renew but takes it anew. Taking it
    /// gives a larger number than any before.
    async fn lease(
        &self,
        name: &str,
        ttl: Duration,
        token: Option<&LeaseToken>,
    ) -> Result<LeaseToken, LeaseError>;

    /// Gives the lease back early. A token that is not the holder's does nothing.
    async fn release(&self, token: &LeaseToken) -> Result<(), StoreError>;

    /// What fits into one commit.
    fn limits(&self) -> Limits;
}

/// The receiving end of a watch.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next commit. [`StoreError::Compacted`] means that the watcher was too slow and must
    /// list anew. Cancel-safe.
    async fn next(&mut self) -> Result<Committed, StoreError>;
}

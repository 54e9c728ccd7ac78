//! The bounded memory of recent commits, shared by the engines of one process.
//!
//! ```text
//!     base                    published         prepared
//!      │ base+1 … … … … … … … … │ … … … … … … … … │
//!  forgotten    undo and watch        undo only
//! ```
//!
//! - Up to *base*, history is forgotten: listing or watching from before it answers `Compacted`.
//! - Up to *published*, commits are durable and watchers get them.
//! - *Prepared* commits are being made durable. A reader of the disk may see them an instant before they
//!   are published, so they can be undone, but no watcher gets them.
//!
//! The engine owns the [`Journal`]; watches hold it by reference count and keep only their position, so a
//! slow watcher costs nothing and is told `Compacted` when the ring has moved past it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::{Committed, Entry, Key, Page, Revision, StoreError, Watch, Write};

/// Entries of a page whose limit is 0.
const DEFAULT_PAGE: usize = 1_000;
/// Most entries of a page.
const MOST_PAGE: usize = 10_000;
/// A page ends after so many bytes, so that large values do not pile up in memory.
const PAGE_BYTES: usize = 8 << 20;
/// What a remembered change costs beside its bytes.
const CHANGE_OVERHEAD: usize = 96;

/// How much history an engine remembers; the newest commit always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBound {
    /// Most commits.
    pub commits: usize,
    /// Most bytes of keys and values, old and new.
    pub bytes: usize,
}

impl Default for HistoryBound {
    fn default() -> Self {
        Self {
            commits: 8_192,
            bytes: 32 << 20,
        }
    }
}

/// One write with what it replaced.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) before: Option<(Bytes, Revision)>,
    pub(crate) after: Option<Bytes>,
}

/// One commit.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
}

/// What keys were at an older revision, where that differs from now.
pub(crate) type Overlay = BTreeMap<Key, Option<(Bytes, Revision)>>;

/// The ring of recent commits and the signal that it grew.
#[derive(Debug)]
pub(crate) struct Journal {
    ring: Mutex<Ring>,
    published: watch::Sender<Revision>,
    bound: HistoryBound,
}

#[derive(Debug)]
struct Ring {
    records: VecDeque<Arc<Record>>,
    base: Revision,
    published: Revision,
    bytes: usize,
    closed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
pub(crate) struct Closed;

impl Journal {
    /// An empty journal of a store that is at `revision`.
    pub(crate) fn starting_at(revision: Revision, bound: HistoryBound) -> Self {
        let ring = Ring {
            records: VecDeque::new(),
            base: revision,
            published: revision,
            bytes: 0,
            closed: false,
        };
        Self {
            ring: Mutex::new(ring),
            published: watch::Sender::new(revision),
            bound,
        }
    }

    /// The newest durable revision.
    pub(crate) fn published(&self) -> Revision {
        self.lock().published
    }

    /// Adds the next commit, not yet durable.
    pub(crate) fn prepare(&self, record: Record) {
        let mut ring = self.lock();
        ring.bytes += record.cost();
        ring.records.push_back(Arc::new(record));
    }

    /// All that is prepared is durable: watchers get it.
    pub(crate) fn publish(&self) {
        let mut ring = self.lock();
        let Some(newest) = ring.records.back().map(|record| record.revision) else {
            return;
        };
        ring.published = newest;
        while ring.records.len() > 1
            && (ring.records.len() > self.bound.commits || ring.bytes > self.bound.bytes)
        {
            ring.forget_oldest();
        }
        drop(ring);
        self.published.send_replace(newest);
    }

    /// What is prepared did not become durable.
    pub(crate) fn retract(&self) {
        let mut ring = self.lock();
        while ring
            .records
            .back()
            .is_some_and(|record| record.revision > ring.published)
        {
            if let Some(record) = ring.records.pop_back() {
                ring.bytes -= record.cost();
            }
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.published.send_modify(|_| {});
    }

    /// What must be laid over a reading at `seen` to show the prefix at the older revision `at`.
    pub(crate) fn undo(
        &self,
        (at, seen): (Revision, Revision),
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Overlay, StoreError> {
        if at == seen {
            return Ok(Overlay::new());
        }
        let mut overlay = Overlay::new();
        for record in self.between(at, seen)?.iter().rev() {
            for change in &record.changes {
                let listed = change.key.starts_with(prefix)
                    && after.is_none_or(|after| change.key.as_str() > after);
                if listed {
                    overlay.insert(change.key.clone(), change.before.clone());
                }
            }
        }
        Ok(overlay)
    }

    /// A watch of the commits after `from`.
    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        from: Revision,
    ) -> Result<Box<dyn Watch>, StoreError> {
        let ring = self.lock();
        if from < ring.base || from > ring.newest() {
            return Err(StoreError::Compacted { oldest: ring.base });
        }
        drop(ring);
        Ok(Box::new(Watcher {
            journal: Arc::clone(self),
            published: self.published.subscribe(),
            prefix: prefix.to_owned(),
            position: from,
        }))
    }

    fn between(&self, at: Revision, seen: Revision) -> Result<Vec<Arc<Record>>, StoreError> {
        let ring = self.lock();
        if at < ring.base || at > seen {
            return Err(StoreError::Compacted { oldest: ring.base });
        }
        let first = ring.index_after(at);
        let wanted = ring
            .records
            .iter()
            .skip(first)
            .take_while(|record| record.revision <= seen);
        Ok(wanted.cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn newest(&self) -> Revision {
        self.records
            .back()
            .map_or(self.base, |record| record.revision)
    }

    /// Where the commit after `revision` is; revisions in the ring have no gaps.
    fn index_after(&self, revision: Revision) -> usize {
        usize::try_from(revision.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }

    fn forget_oldest(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.base = record.revision;
            self.bytes -= record.cost();
        }
    }

    /// The next published commit after `position` that touches the prefix; moves `position` along.
    fn next_for(
        &self,
        prefix: &str,
        position: &mut Revision,
    ) -> Result<Option<Committed>, StoreError> {
        if self.closed {
            return Err(StoreError::Unavailable(Box::new(Closed)));
        }
        if *position < self.base {
            return Err(StoreError::Compacted { oldest: self.base });
        }
        for record in self.records.iter().skip(self.index_after(*position)) {
            if record.revision > self.published {
                break;
            }
            *position = record.revision;
            let writes = record.writes_under(prefix);
            if !writes.is_empty() {
                return Ok(Some(Committed {
                    revision: record.revision,
                    writes,
                }));
            }
        }
        Ok(None)
    }
}

impl Record {
    fn cost(&self) -> usize {
        self.changes.iter().map(Change::cost).sum()
    }

    fn writes_under(&self, prefix: &str) -> Vec<Write> {
        let touched = self
            .changes
            .iter()
            .filter(|change| change.key.starts_with(prefix));
        touched.map(Change::write).collect()
    }
}

impl Change {
    fn cost(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |(value, _)| value.len());
        let after = self.after.as_ref().map_or(0, Bytes::len);
        self.key.len() + before + after + CHANGE_OVERHEAD
    }

    fn write(&self) -> Write {
        let key = self.key.clone();
        match &self.after {
            Some(value) => Write::Put {
                key,
                value: value.clone(),
            },
            None => Write::Delete { key },
        }
    }
}

/// A position in the journal.
struct Watcher {
    journal: Arc<Journal>,
    published: watch::Receiver<Revision>,
    prefix: String,
    position: Revision,
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self) -> Result<Committed, StoreError> {
        loop {
            // Marked as seen before the ring is read, so that a commit in between wakes us again.
            self.published.borrow_and_update();
            let found = self
                .journal
                .lock()
                .next_for(&self.prefix, &mut self.position)?;
            if let Some(committed) = found {
                return Ok(committed);
            }
            let grown = self.published.changed().await;
            grown.map_err(|_| StoreError::Unavailable(Box::new(Closed)))?;
        }
    }
}

/// How many entries a page may have.
pub(crate) const fn page_limit(page: &Page) -> usize {
    match page.limit {
        0 => DEFAULT_PAGE,
        limit if limit > MOST_PAGE => MOST_PAGE,
        limit => limit,
    }
}

/// The first entries of `present` with the overlay laid over it, and whether more follow.
pub(crate) fn first_page<E>(
    present: impl Iterator<Item = Result<Entry, E>>,
    overlay: Overlay,
    limit: usize,
) -> Result<(Vec<Entry>, bool), E> {
    let mut page = Filling {
        entries: Vec::new(),
        bytes: 0,
        limit,
    };
    let mut overlay = overlay.into_iter().peekable();
    for entry in present {
        let entry = entry?;
        while let Some(older) = overlay.next_if(|(key, _)| *key < entry.key) {
            if !page.take(older_entry(older)) {
                return Ok((page.entries, true));
            }
        }
        let replaced = overlay.next_if(|(key, _)| *key == entry.key);
        if !page.take(replaced.map_or(Some(entry), older_entry)) {
            return Ok((page.entries, true));
        }
    }
    for older in overlay {
        if !page.take(older_entry(older)) {
            return Ok((page.entries, true));
        }
    }
    Ok((page.entries, false))
}

fn older_entry((key, value): (Key, Option<(Bytes, Revision)>)) -> Option<Entry> {
    value.map(|(value, revision)| Entry {
        key,
        value,
        revision,
    })
}

/// A page that is being filled.
struct Filling {
    entries: Vec<Entry>,
    bytes: usize,
    limit: usize,
}

impl Filling {
    /// False when there is an entry and no room for it.
    fn take(&mut self, entry: Option<Entry>) -> bool {
        let Some(entry) = entry else { return true };
        if self.entries.len() >= self.limit || self.bytes >= PAGE_BYTES {
            return false;
        }
        self.bytes += entry.key.len() + entry.value.len();
        self.entries.push(entry);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: Revision, bytes: usize) -> Record {
        let after = Some(Bytes::from(vec![0; bytes]));
        Record {
            revision,
            changes: vec![Change {
                key: "k".to_owned(),
                before: None,
                after,
            }],
        }
    }

    fn oldest(journal: &Journal, newest: Revision) -> Revision {
        match journal.undo((0, newest), "", None) {
            Err(StoreError::Compacted { oldest }) => oldest,
            other => panic!("the beginning is remembered: {other:?}"),
        }
    }

    #[test]
    fn the_ring_is_bounded_by_bytes_and_keeps_the_newest_commit() {
        let bound = HistoryBound {
            commits: 100,
            bytes: 1_000,
        };
        let journal = Journal::starting_at(0, bound);
        for revision in 1..=20 {
            journal.prepare(record(revision, 100));
            journal.publish();
        }
        assert_eq!(oldest(&journal, 20), 15, "five of 197 bytes fit");
        journal.prepare(record(21, 5_000));
        journal.publish();
        assert_eq!(oldest(&journal, 21), 20, "the newest stays, however large");
    }

    #[tokio::test]
    async fn a_prepared_commit_is_undone_but_not_watched() {
        let journal = Arc::new(Journal::starting_at(0, HistoryBound::default()));
        let mut watch = journal.watch("", 0).expect("from the beginning");
        journal.prepare(record(1, 1));
        assert_eq!(
            journal.undo((0, 1), "", None).expect("it is known").len(),
            1
        );
        journal.retract();
        journal.prepare(record(1, 2));
        journal.publish();
        let given = watch.next().await.expect("the one that happened");
        assert_eq!(given.writes, vec![record(1, 2).changes[0].write()]);
        journal.close();
        let closed = watch.next().await;
        assert!(
            matches!(closed, Err(StoreError::Unavailable(_))),
            "{closed:?}"
        );
    }
}

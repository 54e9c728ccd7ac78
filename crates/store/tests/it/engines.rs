//! The engines as the contract suite wants them: fresh, with a short history and a clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hostler_kit::Clock;
use hostler_store::contract::Engine;
use hostler_store::{HistoryBound, Limits, MemoryStore, SqliteOptions, SqliteStore, Store};
use tempfile::TempDir;

/// Commits that the engines under test remember.
pub(crate) const HISTORY: usize = 32;

/// Time that stands still until it is told to pass.
#[derive(Debug, Default)]
pub(crate) struct ManualClock {
    millis: AtomicU64,
}

impl ManualClock {
    pub(crate) fn let_pass(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("tests do not wait for aeons");
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_millis(&self) -> u64 {
        self.millis.load(Ordering::SeqCst)
    }

    fn uptime(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
pub(crate) struct Memory {
    clock: Arc<ManualClock>,
}

pub(crate) struct Sqlite {
    clock: Arc<ManualClock>,
    root: TempDir,
    opened: AtomicU64,
}

impl Sqlite {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory of our own");
        Self {
            clock: Arc::default(),
            root,
            opened: AtomicU64::new(0),
        }
    }
}

fn short_history() -> HistoryBound {
    HistoryBound {
        commits: HISTORY,
        ..HistoryBound::default()
    }
}

#[async_trait]
impl Engine for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Arc::new(MemoryStore::with_history(
            clock,
            Limits::default(),
            short_history(),
        ))
    }

    async fn let_pass(&self, span: Duration) {
        self.clock.let_pass(span);
    }

    fn history(&self) -> usize {
        HISTORY
    }
}

#[async_trait]
impl Engine for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        let number = self.opened.fetch_add(1, Ordering::SeqCst);
        let directory = self.root.path().join(number.to_string());
        let options = SqliteOptions {
            history: short_history(),
            ..SqliteOptions::default()
        };
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let opened = SqliteStore::open_with(&directory, clock, options);
        Arc::new(opened.expect("a fresh directory opens"))
    }

    async fn let_pass(&self, span: Duration) {
        self.clock.let_pass(span);
    }

    fn history(&self) -> usize {
        HISTORY
    }
}

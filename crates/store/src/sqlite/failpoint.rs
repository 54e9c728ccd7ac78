//! Named places between durable steps at which a test's child process ends itself.
//!
//! Set by [`SqliteOptions::failpoint`](super::SqliteOptions::failpoint) and by nothing else. The process
//! aborts: no destructor runs, no buffer is flushed, as with SIGKILL.

/// A place, and how often it is passed before it strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failpoint {
    pub at: Point,
    /// Passes that go well.
    pub after: u32,
}

/// The places, in the order in which a commit comes by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The group is gathered, no transaction is open.
    BeforeBegin,
    /// Half of a group of commits, or the only one, is written into the transaction.
    AfterWrites,
    /// All is written, nothing is synced.
    BeforeCommit,
    /// All is synced, nobody is answered.
    AfterCommitBeforeAnswer,
    /// A checkpoint runs beside; how far it is differs from run to run.
    DuringCheckpoint,
    /// A migration's backup is complete, the migration is not begun.
    DuringMigrationAfterBackup,
}

/// Counts passes; one per thread that can pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tripwire {
    failpoint: Option<Failpoint>,
    passed: u32,
}

impl Tripwire {
    pub(super) const fn new(failpoint: Option<Failpoint>) -> Self {
        Self {
            failpoint,
            passed: 0,
        }
    }

    /// Ends the process if it is told to end here.
    pub(super) fn pass(&mut self, point: Point) {
        if self.strikes(point) {
            std::process::abort();
        }
    }

    /// Ends the process from another thread while this one goes on.
    pub(super) fn pass_beside(&mut self, point: Point) {
        if self.strikes(point) {
            std::thread::spawn(|| std::process::abort());
        }
    }

    fn strikes(&mut self, point: Point) -> bool {
        let Some(failpoint) = self.failpoint else {
            return false;
        };
        if failpoint.at != point {
            return false;
        }
        self.passed += 1;
        self.passed > failpoint.after
    }
}

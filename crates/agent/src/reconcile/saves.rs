//! Writing the ledger without waiting for it. Changes gather while a write is under way.
//!
//! Starts do not wait for the disk: a unit that runs is found again anyway. Ends do: an order to stop that
//! is not on disk could be forgotten after its effect was reported, and the next agent would start the unit
//! again. A disk that does not take the order is no reason to keep the unit, though: the intent is then
//! followed from memory, the log says so, and the write is tried again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hostler_model::{AssignmentId, Intent};
use tokio::sync::oneshot;

use super::{Input, Reconciler};
use crate::config::LedgerIo;
use crate::ledger::{Batch, Entry, Fleet, Ledger};
use crate::notes::Moment;

/// How long copies that are to run may gather before they are written: a disk that syncs the ledger at the
/// moment of a start makes the start wait.
const GATHER: Duration = Duration::from_millis(100);
/// Wait before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct Saves {
    io: LedgerIo,
    waiting: Batch,
    /// Uptime at which what waits is written; none while nothing does.
    due: Option<Duration>,
    waiting_answers: Vec<oneshot::Sender<()>>,
    under_way: Option<Batch>,
    under_way_answers: Vec<oneshot::Sender<()>>,
    /// Set while the disk takes nothing: when it is tried again.
    failing: Option<Moment>,
    /// Written, and to be answered once the picture shows what came of it.
    written: Vec<oneshot::Sender<()>>,
}

impl Saves {
    pub(super) fn new(io: LedgerIo) -> Self {
        Self {
            io,
            waiting: Batch::default(),
            due: None,
            waiting_answers: Vec::new(),
            under_way: None,
            under_way_answers: Vec::new(),
            failing: None,
            written: Vec::new(),
        }
    }

    /// Only a copy that is to run can wait: it is found again in any case.
    pub(super) fn set_entry(
        &mut self,
        assignment: AssignmentId,
        entry: Option<Entry>,
        now: Moment,
    ) {
        let can_wait = entry
            .as_ref()
            .is_some_and(|entry| entry.item.intent == Intent::Run && entry.finished.is_none());
        self.waiting.entries.insert(assignment, entry);
        self.write_by(if can_wait { now.later(GATHER) } else { now });
    }

    /// A newer revision alone can wait for the entries that came with it: what is lost of it only makes the
    /// guard see less.
    pub(super) fn set_fleet(&mut self, fleet: Fleet, can_wait: bool, now: Moment) {
        self.waiting.fleet = Some(fleet);
        self.write_by(if can_wait { now.later(GATHER) } else { now });
    }

    fn write_by(&mut self, moment: Moment) {
        self.due = Some(self.due.map_or(moment.uptime, |due| due.min(moment.uptime)));
    }

    /// Answers once all that was set until now is on disk.
    pub(super) fn answer(&mut self, done: oneshot::Sender<()>) {
        if !self.waiting.is_empty() {
            self.waiting_answers.push(done);
        } else if self.under_way.is_some() {
            self.under_way_answers.push(done);
        } else {
            self.written.push(done);
        }
    }

    /// Answers for all that was written.
    pub(super) fn answer_written(&mut self) {
        for done in self.written.drain(..) {
            // A session that has gone asks for everything anew.
            let _ = done.send(());
        }
    }

    /// Whether what is known of the assignment is on disk, or the disk takes nothing.
    pub(super) fn is_open(&self, assignment: AssignmentId) -> bool {
        let under_way = self.under_way.as_ref();
        let is_unsaved = self.waiting.entries.contains_key(&assignment)
            || under_way.is_some_and(|batch| batch.entries.contains_key(&assignment));
        self.failing.is_some() || !is_unsaved
    }

    /// Somebody waits for what is not on disk.
    pub(super) fn hurry(&mut self, now: Moment) {
        if self.due.is_some() {
            self.write_by(now);
        }
    }

    /// Uptime at which there is something to write.
    pub(super) fn due(&self) -> Option<Duration> {
        let due = self.due.filter(|_| self.under_way.is_none())?;
        Some(self.failing.map_or(due, |retry| due.max(retry.uptime)))
    }

    /// A write has ended.
    pub(super) fn done(&mut self, result: io::Result<()>, now: Moment) {
        let Some(batch) = self.under_way.take() else {
            return;
        };
        match result {
            Ok(()) => {
                if self.failing.take().is_some() {
                    tracing::info!("the ledger can be written again");
                }
                self.written.append(&mut self.under_way_answers);
            }
            Err(error) => {
                if self.failing.is_none() {
                    tracing::error!(%error, "cannot write the ledger; the intent is followed from memory");
                }
                self.failing = Some(now.later(RETRY));
                let newer = std::mem::replace(&mut self.waiting, batch);
                self.waiting.entries.extend(newer.entries);
                self.waiting.fleet = newer.fleet.or(self.waiting.fleet);
                self.waiting_answers.append(&mut self.under_way_answers);
                self.write_by(now);
            }
        }
    }

    /// The batch to write now, if there is any.
    fn take(&mut self, now: Moment) -> Option<Batch> {
        if self.due().is_none_or(|due| due > now.uptime) {
            return None;
        }
        self.due = None;
        let batch = std::mem::take(&mut self.waiting);
        self.under_way_answers.append(&mut self.waiting_answers);
        self.under_way = Some(batch.clone());
        Some(batch)
    }
}

impl Reconciler {
    /// Writes what still gathers when the agent is told to stop. What a write under way leaves over is lost,
    /// and found again.
    pub(super) fn write_the_rest(&mut self) {
        if self.saves.under_way.is_none()
            && let Err(error) = self.ledger.save(&self.saves.waiting)
        {
            tracing::error!(%error, "cannot write the ledger at the end");
        }
    }

    /// Begins to write what has gathered.
    pub(super) fn flush(&mut self) {
        let now = self.now();
        let Some(batch) = self.saves.take(now) else {
            return;
        };
        match self.saves.io {
            LedgerIo::Inline => self.saves.done(self.ledger.save(&batch), now),
            LedgerIo::Threads => self.at_ledger(move |ledger| ledger.save(&batch), Input::Saved),
        }
    }

    /// A single piece of ledger work; what comes of it is taken in like anything else.
    pub(super) fn at_ledger<T, W, I>(&self, work: W, input: I)
    where
        T: Send + 'static,
        W: FnOnce(&Ledger) -> io::Result<T> + Send + 'static,
        I: FnOnce(io::Result<T>) -> Input + Send + 'static,
    {
        let (ledger, io) = (Arc::clone(&self.ledger), self.saves.io);
        let (sender, alive) = (self.sender.clone(), Arc::clone(&self.alive));
        self.tasks.spawn("ledger work", async move {
            let done = match io {
                LedgerIo::Inline => work(&ledger),
                LedgerIo::Threads => tokio::task::spawn_blocking(move || work(&ledger))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error))),
            };
            // The receiver is gone only when the agent stops.
            let _ = sender.send(input(done)).await;
            drop(alive);
        });
    }
}

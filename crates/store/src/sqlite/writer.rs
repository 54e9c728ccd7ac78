//! The one thread that writes.
//!
//! ```text
//!  wait for a command ─► gather what else waits ─► begin ─► each: guards, writes ─► commit (one fsync)
//!         ▲                                                                              │
//!         └────────────── answer all ◄── publish to the journal ◄────────────────────────┘
//! ```
//!
//! The writer owns the write connection, the table of leases and the revision. Guards are checked before
//! the first write of a command, so a refused command leaves nothing to undo and costs its neighbours
//! nothing. If the engine fails at any step, the whole group is rolled back and all of it answered
//! `Unavailable`: also the refusals, which may rest on a neighbour's write that did not happen.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpoints;
use super::failpoint::{Point, Tripwire};
use super::reader;
use crate::admission;
use crate::history::{Change, Journal, Record};
use crate::leases::Leases;
use crate::{CommitError, Guard, LeaseError, LeaseToken, Revision, StoreError, Write};

/// Commands in one transaction.
const GROUP: usize = 256;
/// Bytes after which a group takes no more commands.
const GROUP_BYTES: usize = 8 << 20;

type Reply<T> = oneshot::Sender<T>;

/// What the writer is asked to do.
pub(super) enum Command {
    Commit(CommitRequest, Reply<Result<Revision, CommitError>>),
    Lease(LeaseRequest, Reply<Result<LeaseToken, LeaseError>>),
    Release(LeaseToken, Reply<Result<(), StoreError>>),
}

pub(super) struct CommitRequest {
    pub(super) writes: Vec<Write>,
    pub(super) guards: Vec<Guard>,
    /// When it was asked. The order of the queue decides who holds a lease; the time only when it runs out.
    pub(super) now: Duration,
}

pub(super) struct LeaseRequest {
    pub(super) name: String,
    /// When it was asked, and for how long.
    pub(super) span: (Duration, Duration),
    pub(super) token: Option<LeaseToken>,
}

/// An answer that waits for the group to be durable.
enum Answer {
    Commit(
        Result<Revision, CommitError>,
        Reply<Result<Revision, CommitError>>,
    ),
    Lease(
        Result<LeaseToken, LeaseError>,
        Reply<Result<LeaseToken, LeaseError>>,
    ),
    Release(Result<(), StoreError>, Reply<Result<(), StoreError>>),
}

/// Why the engine failed; shared by all whom it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub(super) struct Failure(Arc<rusqlite::Error>);

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) journal: Arc<Journal>,
    pub(super) leases: Leases,
    pub(super) revision: Revision,
    pub(super) checkpoints: Checkpoints,
    pub(super) tripwire: Tripwire,
}

impl Writer {
    pub(super) const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let group = gather(first, &mut queue);
            self.serve(group);
            self.checkpoints.after_group(&self.connection);
        }
        let Self {
            connection,
            checkpoints,
            ..
        } = self;
        checkpoints.finish(&connection);
    }

    fn serve(&mut self, group: Vec<Command>) {
        let leases = self.leases.clone();
        let mut answers = Vec::with_capacity(group.len());
        match self.make_durable(group, &mut answers) {
            Ok(()) => {
                self.tripwire.pass(Point::AfterCommitBeforeAnswer);
                self.journal.publish();
                answers.into_iter().for_each(Answer::send);
            }
            Err(failure) => {
                tracing::error!(error = %failure, commands = answers.len(), "store group failed");
                self.take_back(leases);
                answers
                    .into_iter()
                    .for_each(|answer| answer.failed(&failure).send());
            }
        }
    }

    /// Runs the group in one transaction. Every command leaves an answer, whatever happens.
    fn make_durable(
        &mut self,
        group: Vec<Command>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Failure> {
        self.tripwire.pass(Point::BeforeBegin);
        let middle = group.len().div_ceil(2);
        let (revision, lease) = (self.revision, self.leases.last());
        let mut outcome = self
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(Failure::from);
        for (index, command) in group.into_iter().enumerate() {
            match outcome {
                Ok(()) => outcome = self.execute(command, answers),
                Err(ref failure) => answers.push(command.failed(failure)),
            }
            if index + 1 == middle {
                self.tripwire.pass(Point::AfterWrites);
            }
        }
        outcome?;
        self.remember("revision", self.revision, revision)?;
        self.remember("lease", self.leases.last(), lease)?;
        self.tripwire.pass(Point::BeforeCommit);
        Ok(self.connection.execute_batch("COMMIT")?)
    }

    /// Brings memory back to what is on disk.
    fn take_back(&mut self, leases: Leases) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "store rollback failed");
        }
        self.leases = leases;
        self.journal.retract();
        self.revision = self.journal.published();
    }

    fn execute(&mut self, command: Command, answers: &mut Vec<Answer>) -> Result<(), Failure> {
        match command {
            Command::Commit(request, reply) => match self.commit(request) {
                Ok(outcome) => answers.push(Answer::Commit(outcome, reply)),
                Err(failure) => {
                    let outcome = Err(StoreError::from(failure.clone()).into());
                    answers.push(Answer::Commit(outcome, reply));
                    return Err(failure);
                }
            },
            Command::Lease(LeaseRequest { name, span, token }, reply) => {
                let taken = self.leases.take(&name, span, token.as_ref());
                answers.push(Answer::Lease(taken.ok_or(LeaseError::Held), reply));
            }
            Command::Release(token, reply) => {
                self.leases.release(&token);
                answers.push(Answer::Release(Ok(()), reply));
            }
        }
        Ok(())
    }

    fn commit(&mut self, request: CommitRequest) -> Result<Result<Revision, CommitError>, Failure> {
        let CommitRequest {
            writes,
            guards,
            now,
        } = request;
        let written_at = |key: &str| self.written_at(key);
        let checked = admission::check_guards(&guards, &self.leases, now, written_at)?;
        if let Err(refusal) = checked {
            return Ok(Err(refusal));
        }
        if writes.is_empty() {
            return Ok(Ok(self.revision));
        }
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            changes.push(self.write(write, revision)?);
        }
        self.revision = revision;
        self.journal.prepare(Record { revision, changes });
        Ok(Ok(revision))
    }

    fn written_at(&self, key: &str) -> Result<Option<Revision>, Failure> {
        let mut select = self
            .connection
            .prepare_cached("SELECT revision FROM kv WHERE key = ?1")?;
        Ok(select
            .query_row([key], |row| reader::unsigned(row, 0))
            .optional()?)
    }

    fn write(&self, write: Write, revision: Revision) -> Result<Change, Failure> {
        let mut select = self
            .connection
            .prepare_cached("SELECT value, revision FROM kv WHERE key = ?1")?;
        let before = select
            .query_row([write.key()], reader::value_and_revision)
            .optional()?;
        match write {
            Write::Put { key, value } => {
                let mut put = self.connection.prepare_cached(
                    "INSERT INTO kv (key, value, revision) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3",
                )?;
                put.execute(params![key, value.as_ref(), signed(revision)?])?;
                Ok(Change {
                    key,
                    before,
                    after: Some(value),
                })
            }
            Write::Delete { key } => {
                if before.is_some() {
                    let mut delete = self
                        .connection
                        .prepare_cached("DELETE FROM kv WHERE key = ?1")?;
                    delete.execute([&key])?;
                }
                Ok(Change {
                    key,
                    before,
                    after: None,
                })
            }
        }
    }

    fn remember(&self, name: &str, number: u64, before: u64) -> Result<(), Failure> {
        if number == before {
            return Ok(());
        }
        let mut update = self
            .connection
            .prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?;
        update.execute(params![name, signed(number)?])?;
        Ok(())
    }
}

impl Answer {
    /// Whoever stopped waiting is not told.
    fn send(self) {
        match self {
            Self::Commit(outcome, reply) => drop(reply.send(outcome)),
            Self::Lease(outcome, reply) => drop(reply.send(outcome)),
            Self::Release(outcome, reply) => drop(reply.send(outcome)),
        }
    }

    /// The same answer to the same caller, had the engine failed it.
    fn failed(self, failure: &Failure) -> Self {
        let cause = StoreError::from(failure.clone());
        match self {
            Self::Commit(_, reply) => Self::Commit(Err(cause.into()), reply),
            Self::Lease(_, reply) => Self::Lease(Err(cause.into()), reply),
            Self::Release(_, reply) => Self::Release(Err(cause), reply),
        }
    }
}

fn gather(first: Command, queue: &mut mpsc::Receiver<Command>) -> Vec<Command> {
    let mut bytes = first.size();
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        let Ok(command) = queue.try_recv() else { break };
        bytes += command.size();
        group.push(command);
    }
    group
}

impl Command {
    fn failed(self, failure: &Failure) -> Answer {
        let cause = StoreError::from(failure.clone());
        match self {
            Self::Commit(_, reply) => Answer::Commit(Err(cause.into()), reply),
            Self::Lease(_, reply) => Answer::Lease(Err(cause.into()), reply),
            Self::Release(_, reply) => Answer::Release(Err(cause), reply),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Commit(request, _) => request.writes.iter().map(Write::size).sum(),
            Self::Lease(..) | Self::Release(..) => 0,
        }
    }
}

fn signed(number: u64) -> Result<i64, Failure> {
    let out_of_range = |error: std::num::TryFromIntError| {
        Failure::from(rusqlite::Error::ToSqlConversionFailure(error.into()))
    };
    i64::try_from(number).map_err(out_of_range)
}

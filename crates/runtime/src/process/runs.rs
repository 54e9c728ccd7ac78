//! The driver's verbs on a unit's runs: look, start, stop, watch, measure.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::sealed::Clear;
use hostler_model::{Exit, UnitId};
use hostler_shim::cgroup::Usage;
use hostler_shim::kernel::{self, Holder};
use hostler_shim::record::{ExitRecord, UnitDir, UnitRecord};
use hostler_shim::{Failure, Order, Report, send, stop_of};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{Inner, recover};
use crate::disk;
use crate::secrets::{self, Given};
use crate::turns::lock;
use crate::{Found, FoundState, RuntimeError, UnitStats};

/// A shim says within this time whether its run began; only a disk that hangs takes longer.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// What a shim may take beyond the grace to kill, sweep and record.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a lock is looked at where the kernel has no process handles.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How often a start looks again while another shim is about to end or to begin.
const START_LOOKS: u32 = 600;
/// Ticks in a second of `/proc/<pid>/stat`; the kernel shows 100 to every program.
const TICK_NANOS: u64 = 10_000_000;

/// What the records and the lock say of a unit.
pub(super) struct Seen {
    pub(super) record: UnitRecord,
    pub(super) run: u32,
    pub(super) state: FoundState,
    /// Whether a shim holds the unit: it runs, begins or is about to end.
    pub(super) is_held: bool,
}

impl Inner {
    /// Looks at every unit. What is half prepared, or cannot be read, is no unit.
    pub(super) fn observe(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for (path, name) in disk::entries(&self.dir)? {
            if name.starts_with(".removed-") {
                // An agent died while it deleted this.
                let _ = fs::remove_dir_all(path);
                continue;
            }
            let Ok(id) = name.parse::<UnitId>() else {
                continue;
            };
            match self.find(id) {
                Ok(unit) => found.extend(unit),
                Err(error) => tracing::warn!(unit = %id, %error, "the unit cannot be read"),
            }
        }
        found.sort_by_key(|unit| unit.id);
        Ok(found)
    }

    pub(super) fn find(&self, id: UnitId) -> io::Result<Option<Found>> {
        let seen = self.look(id)?;
        Ok(seen.map(|seen| Found {
            id,
            workload: seen.record.workload,
            state: seen.state,
            runs: seen.run,
        }))
    }

    /// Looks at one unit, and settles a run whose shim is gone, unless a verb works on the unit: that will.
    pub(super) fn look(&self, id: UnitId) -> io::Result<Option<Seen>> {
        let seen = self.look_as(id, Settle::No)?;
        let is_orphan = seen
            .as_ref()
            .is_some_and(|seen| !seen.is_held && matches!(seen.state, FoundState::Running { .. }));
        if !is_orphan {
            return Ok(seen);
        }
        match self.turns.try_take(id) {
            Some(_turn) => self.look_as(id, Settle::Yes),
            None => Ok(seen),
        }
    }

    fn look_as(&self, id: UnitId, settle: Settle) -> io::Result<Option<Seen>> {
        let dir = UnitDir::of(&self.dir, id);
        let Some(record) = dir.unit()? else {
            return Ok(None);
        };
        let is_held = kernel::lock_holder(&dir.lock_file())? != Holder::Nobody;
        let run = dir.latest_run()?;
        let seen = |state| {
            Ok(Some(Seen {
                record,
                run,
                state,
                is_held,
            }))
        };
        if run == 0 {
            return seen(FoundState::Prepared);
        }
        // Read after the lock was looked at: a shim records the exit before it gives the lock back.
        if let Some(ExitRecord { exit, at }) = disk::read(&dir.exit_file(run))? {
            return seen(FoundState::Exited { exit, at });
        }
        if is_held || settle == Settle::No {
            let since = dir.start(run).map_or_else(|| self.now(), |start| start.at);
            return seen(FoundState::Running { since });
        }
        let ExitRecord { exit, at } = recover::settle(&dir, id, run, &self.cgroups, self.now())?;
        seen(FoundState::Exited { exit, at })
    }

    /// Looks on behalf of the verb that has the turn.
    async fn look_in_turn(self: &Arc<Self>, id: UnitId) -> Result<Seen, RuntimeError> {
        let inner = Arc::clone(self);
        let seen =
            disk::off_thread("look at the unit", move || inner.look_as(id, Settle::Yes)).await?;
        seen.ok_or(RuntimeError::NotFound(id))
    }

    pub(super) async fn start(self: &Arc<Self>, id: UnitId) -> Result<(), RuntimeError> {
        let mut given = None;
        for _ in 0..START_LOOKS {
            let seen = self.look_in_turn(id).await?;
            if let FoundState::Running { .. } = seen.state {
                self.watch(id, seen.run);
                return Ok(());
            }
            if !seen.is_held {
                let secrets = match given.take() {
                    Some(secrets) => secrets,
                    None => self.secrets.take(id, &seen.record.spec)?,
                };
                self.secrets.write(id, &secrets).await?;
                let told = self.spawn_shim(id, seen.run + 1, &secrets).await?;
                given = Some(secrets);
                match told {
                    Report::Started => {
                        self.watch(id, seen.run + 1);
                        return Ok(());
                    }
                    Report::Busy => {}
                    Report::Failed(failure) => return Err(failure.into()),
                }
            }
            tokio::time::sleep(LOOK_PAUSE / 10).await;
        }
        Err(disk::error(
            "start the shim",
            io::ErrorKind::TimedOut.into(),
        ))
    }

    /// Starts a shim, which is given the run's number and the secrets that are variables, and hears what it says. If this is dropped half-way, the shim either has the number and
    /// carries the run on, or has not and ends.
    async fn spawn_shim(
        &self,
        id: UnitId,
        run: u32,
        given: &[Given],
    ) -> Result<Report, RuntimeError> {
        let order = order_of(run, given)?;
        let dir = UnitDir::of(&self.dir, id);
        let failed = |source| disk::error("start the shim", source);
        let mut child = tokio::process::Command::new(&self.shim.program)
            .args(&self.shim.args)
            .arg(dir.path())
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(false)
            .spawn()
            .map_err(failed)?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let hearing = async {
            stdin.write_all(order.reveal()).await?;
            drop(stdin);
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).await?;
            Ok::<String, io::Error>(line)
        };
        let line = tokio::time::timeout(START_PATIENCE, hearing).await;
        let line = line
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(failed)?;
        if line.is_empty() {
            return Err(failed(io::Error::other("the shim ended without a word")));
        }
        // The child is dropped here; tokio collects it when it ends.
        serde_json::from_str(&line).map_err(|error| failed(error.into()))
    }

    pub(super) async fn stop(self: &Arc<Self>, id: UnitId) -> Result<Exit, RuntimeError> {
        let seen = self.look_in_turn(id).await?;
        match seen.state {
            FoundState::Prepared => return Ok(Exit::Unknown),
            FoundState::Exited { exit, .. } => return Ok(exit),
            FoundState::Running { .. } => {}
        }
        let (signal, grace) = stop_of(&seen.record.spec);
        let dir = UnitDir::of(&self.dir, id);
        let control = dir.control();
        let asked = disk::off_thread("ask the shim", move || {
            send(&control, Order::Stop { signal, grace })
        });
        let mut is_over = false;
        if asked.await? {
            let ended = self.ended(&dir);
            is_over = tokio::time::timeout(grace + STOP_PATIENCE, ended)
                .await
                .is_ok();
        }
        if !is_over {
            self.force(id).await?;
        }
        match self.look_in_turn(id).await?.state {
            FoundState::Exited { exit, .. } => Ok(exit),
            _ => Err(RuntimeError::Unkillable(id)),
        }
    }

    /// For a shim that does not do as asked: kills the unit, then the shim.
    pub(super) async fn force(self: &Arc<Self>, id: UnitId) -> Result<(), RuntimeError> {
        let inner = Arc::clone(self);
        let dir = UnitDir::of(&self.dir, id);
        let of_unit = dir.clone();
        let killed = disk::off_thread("kill the unit", move || {
            let run = of_unit.latest_run().unwrap_or(0);
            let killed = recover::kill_all(&of_unit, id, run, &inner.cgroups);
            if let Some(shim) = kernel::holder_handle(&of_unit.lock_file())? {
                let _ = rustix::process::pidfd_send_signal(&shim, rustix::process::Signal::KILL);
            }
            Ok(killed.is_ok())
        });
        let is_killed = killed.await?;
        let gone = tokio::time::timeout(STOP_PATIENCE, self.ended(&dir)).await;
        if is_killed && gone.is_ok() {
            Ok(())
        } else {
            Err(RuntimeError::Unkillable(id))
        }
    }

    pub(super) fn extend(
        &self,
        id: UnitId,
        span: Duration,
    ) -> io::Result<Result<(), RuntimeError>> {
        let dir = UnitDir::of(&self.dir, id);
        if !dir.unit_file().exists() {
            return Ok(Err(RuntimeError::NotFound(id)));
        }
        // Without a shim nothing runs, so there is nothing to extend.
        send(&dir.control(), Order::Extend { span })?;
        Ok(Ok(()))
    }

    pub(super) fn measure(&self, id: UnitId) -> io::Result<Result<UnitStats, RuntimeError>> {
        let Some(seen) = self.look(id)? else {
            return Ok(Err(RuntimeError::NotFound(id)));
        };
        if !matches!(seen.state, FoundState::Running { .. }) {
            return Ok(Ok(UnitStats::default()));
        }
        let counted = self.cgroups.usage(id).map(stats_of);
        Ok(Ok(counted.unwrap_or_else(|| usage_of_processes(id))))
    }

    /// Wakes whoever waits for changes when the run is over.
    pub(super) fn watch(self: &Arc<Self>, id: UnitId, run: u32) {
        if lock(&self.watched).insert(id, run) == Some(run) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks.spawn_until_stop("watch unit", async move {
            inner.ended(&UnitDir::of(&inner.dir, id)).await;
            let mut watched = lock(&inner.watched);
            if watched.get(&id) == Some(&run) {
                watched.remove(&id);
            }
            drop(watched);
            inner.wake.notify_one();
        });
    }

    /// Completes when no shim holds the unit.
    pub(super) async fn ended(&self, dir: &UnitDir) {
        loop {
            let path = dir.lock_file();
            if let Ok(Some(handle)) = kernel::holder_handle(&path)
                && wait_for_end(handle).await.is_ok()
            {
                continue;
            }
            if matches!(kernel::lock_holder(&path), Ok(Holder::Nobody)) {
                return;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// What a shim reads: the number, and behind it `NAME=value` for each variable, ended by a NUL each.
fn order_of(run: u32, given: &[Given]) -> Result<Clear, RuntimeError> {
    let variables = secrets::variables(given)?;
    let number = format!("{run}\n");
    let bytes = |(name, value): (&String, &Clear)| name.len() + value.len() + 2;
    let mut order = Vec::with_capacity(number.len() + variables.iter().map(bytes).sum::<usize>());
    order.extend_from_slice(number.as_bytes());
    for (name, value) in &variables {
        order.extend_from_slice(name.as_bytes());
        order.push(b'=');
        order.extend_from_slice(value.reveal());
        order.push(0);
    }
    Ok(Clear::new(order))
}

/// Whether a run whose shim is gone is settled now. Only who has the unit's turn may do it, or a start could
/// come in between and lose its processes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settle {
    No,
    Yes,
}

/// A process handle becomes readable when the process ends.
async fn wait_for_end(handle: OwnedFd) -> io::Result<()> {
    let handle = disk::readiness(handle, tokio::io::Interest::READABLE)?;
    handle.readable().await?.retain_ready();
    Ok(())
}

fn stats_of(usage: Usage) -> UnitStats {
    let Usage {
        cpu_nanos,
        memory,
        pids,
        read,
        written,
    } = usage;
    UnitStats {
        cpu_nanos,
        memory,
        pids,
        read,
        written,
        ..UnitStats::default()
    }
}

/// Without a cgroup, the sum over the unit's processes.
fn usage_of_processes(id: UnitId) -> UnitStats {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut stats = UnitStats::default();
    for (_, stat) in kernel::marked(id) {
        stats.cpu_nanos += stat.cpu_ticks * TICK_NANOS;
        stats.memory += stat.resident_pages * page;
        stats.pids += 1;
    }
    stats
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unsatisfiable { code, message } => Self::Unsatisfiable {
                code: code.failure(),
                message,
            },
            Failure::Command { program, errno } => Self::Command {
                program,
                source: io::Error::from_raw_os_error(errno),
            },
            Failure::Io { context, errno } => {
                disk::error(context, io::Error::from_raw_os_error(errno))
            }
        }
    }
}

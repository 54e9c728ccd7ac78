//! The process driver: plain processes of the node, each under a shim that outlives the agent.
//!
//! The driver keeps no state of its own: everything is in the units' directories (see [`hostler_shim::record`]), written by
//! the driver and the shims. That is what makes a restarted agent see what its predecessor left.
//!
//! Whether a run lives is never guessed from a process number. The shim holds a lock for as long as it lives,
//! the kernel gives the lock back when it dies and forgets it at a reboot, and tells who holds it:
//!
//! ```text
//!   start on record   exit on record   lock held    the run
//!        no                –               –        never began
//!        yes              yes              –        has exited
//!        yes               no             yes       is running
//!        yes               no              no       shim or machine died: what is left is killed and the
//!                                                   exit recorded as unknown
//! ```

mod exec;
mod files;
mod journal;
mod program;
mod recover;
mod runs;
mod terminal;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hostler_kit::{Clock, Tasks};
use hostler_model::spec::{Kind, Mount};
use hostler_model::{Exit, RuntimeFact, Timestamp, UnitId};
use hostler_shim::cgroup::{self, Cgroups};
use hostler_shim::record::{UnitDir, UnitRecord};
use tokio::sync::{Notify, Semaphore};

use crate::disk;
use crate::logs::{LogLine, LogQuery};
use crate::secrets::{Given, Pouch};
use crate::turns::Turns;
use crate::{
    Data, Exec, Fencing, Files, Found, FoundState, Place, Ports, Progress, Runtime, RuntimeError,
    Secrets, Stats, Unit, UnitStats,
};

pub use program::place;

/// Units that are prepared at once; more would only make the disk busier.
const PREPARATIONS_AT_ONCE: usize = 8;

/// What the driver is made of.
pub struct ProcessConfig {
    /// The driver's own directory. Nobody else writes below it.
    pub dir: PathBuf,
    pub shim: ShimCommand,
    pub clock: Arc<dyn Clock>,
    /// Watches of running units belong to this family.
    pub tasks: Tasks,
}

/// How a shim is started: the program, its arguments, and behind them the unit's directory. The program
/// calls [`hostler_shim::main`] before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    pub program: PathBuf,
    pub args: Vec<String>,
}

/// Runs processes.
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    shim: ShimCommand,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    cgroups: Cgroups,
    secrets: Pouch,
    preparations: Semaphore,
    wake: Notify,
    turns: Turns,
    /// The runs whose end is waited for.
    watched: Mutex<HashMap<UnitId, u32>>,
}

impl ProcessRuntime {
    /// Makes the driver; touches nothing yet.
    #[must_use]
    pub fn new(config: ProcessConfig) -> Self {
        let ProcessConfig {
            dir,
            shim,
            clock,
            tasks,
        } = config;
        // Shims have another working directory than the agent.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let inner = Inner {
            secrets: Pouch::of(&dir),
            dir,
            shim,
            clock,
            tasks,
            cgroups: Cgroups::detect(Path::new(cgroup::ROOT)),
            preparations: Semaphore::new(PREPARATIONS_AT_ONCE),
            wake: Notify::new(),
            turns: Turns::default(),
            watched: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

/// What a driver may do besides whose units are processes of a program of its own, such as QEMU.
impl ProcessRuntime {
    /// Prepares the unit, and fills its working directory before the unit is there.
    pub(crate) async fn prepare_with<F>(&self, unit: &Unit, fill: F) -> Result<(), RuntimeError>
    where
        F: FnOnce(&Path) -> io::Result<()> + Send + 'static,
    {
        let turn = self.inner.turns.take(unit.id).await;
        let _permit = self.inner.preparations.acquire().await;
        let inner = Arc::clone(&self.inner);
        // They are given again for the start.
        drop(self.inner.secrets.take_all(unit.id));
        let mut mounts = mounts_of(unit);
        mounts.extend(self.inner.secrets.mounts(unit)?);
        let record = UnitRecord {
            unit: unit.id,
            workload: unit.workload,
            workload_name: unit.workload_name.clone(),
            slot: unit.slot,
            spec: Arc::clone(&unit.spec),
            mounts,
        };
        // What has begun is finished even if nobody waits for it any more, and the turn ends with it.
        disk::off_thread("prepare the unit", move || {
            let _turn = turn;
            prepare(&inner.dir, &record, fill)
        })
        .await
    }

    /// Where the unit's process finds itself.
    pub(crate) fn work_dir(&self, id: UnitId) -> PathBuf {
        UnitDir::of(&self.inner.dir, id).work()
    }

    /// What is here of one unit.
    pub(crate) async fn look(&self, id: UnitId) -> Result<Found, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let found = disk::off_thread("look at the unit", move || inner.find(id)).await?;
        found.ok_or(RuntimeError::NotFound(id))
    }

    /// Completes when no run of the unit is under way.
    pub(crate) async fn ended(&self, id: UnitId) {
        self.inner.ended(&UnitDir::of(&self.inner.dir, id)).await;
    }

    /// Forgets that a run began, once it has ended: it came to nothing. Its log goes on with the next one.
    pub(crate) async fn take_back(&self, id: UnitId, run: u32) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        let dir = UnitDir::of(&self.inner.dir, id);
        disk::off_thread("take the run back", move || {
            // A start without an exit is a run whose shim died, which is over as well.
            fs::remove_file(dir.exit_file(run))?;
            fs::remove_file(dir.start_file(run))
        })
        .await
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> Kind {
        Kind::Process
    }

    async fn probe(&self) -> RuntimeFact {
        let inner = Arc::clone(&self.inner);
        let looked = disk::off_thread("look at the machine", move || {
            let is_there = inner.shim.program.exists();
            let note = if is_there {
                inner.cgroups.note()
            } else {
                "the shim is missing".to_owned()
            };
            Ok((is_there, note))
        });
        let (available, note) = looked
            .await
            .unwrap_or_else(|error| (false, error.to_string()));
        RuntimeFact {
            kind: Kind::Process,
            available,
            version: String::new(),
            note,
        }
    }

    async fn prepare(&self, unit: &Unit, _progress: Progress<'_>) -> Result<(), RuntimeError> {
        unit.check_volumes()?;
        self.prepare_with(unit, |_| Ok(())).await
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.start(id).await
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.stop(id).await
    }

    async fn remove(&self, id: UnitId, _data: Data) -> Result<(), RuntimeError> {
        let turn = self.inner.turns.take(id).await;
        match self.inner.stop(id).await {
            Ok(_) | Err(RuntimeError::NotFound(_)) => {}
            // Records that cannot be read say nothing of how to stop it, or whether it runs.
            Err(RuntimeError::Io { .. }) => self.inner.force(id).await?,
            Err(error) => return Err(error),
        }
        self.inner.secrets.remove(id).await?;
        let inner = Arc::clone(&self.inner);
        disk::off_thread("remove the unit", move || {
            inner.cgroups.remove(id);
            delete(&inner.dir, id)
        })
        .await?;
        drop(turn);
        self.inner.turns.forget(id);
        self.inner.wake.notify_one();
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        let looked = disk::off_thread("look at the units", move || {
            let holders = inner.secrets.holders();
            Ok((inner.observe()?, holders))
        });
        let (found, holders) = looked.await?;
        let units = found.iter().map(|unit| unit.id);
        self.inner.secrets.sweep(holders, units).await;
        for unit in &found {
            if matches!(unit.state, FoundState::Running { .. }) {
                self.inner.watch(unit.id, unit.runs);
            }
        }
        Ok(found)
    }

    async fn changed(&self) {
        self.inner.wake.notified().await;
    }

    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        journal::read(UnitDir::of(&self.inner.dir, id), id, query).await
    }

    fn fencing(&self) -> Option<&dyn Fencing> {
        Some(self)
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn secrets(&self) -> Option<&dyn Secrets> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        Some(self)
    }
}

impl Secrets for ProcessRuntime {
    fn give(&self, id: UnitId, secrets: Vec<Given>) {
        self.inner.secrets.give(id, secrets);
    }
}

#[async_trait]
impl Fencing for ProcessRuntime {
    async fn extend(&self, id: UnitId, span: Duration) -> Result<(), RuntimeError> {
        let inner = Arc::clone(&self.inner);
        disk::off_thread("extend the switch", move || inner.extend(id, span)).await?
    }
}

#[async_trait]
impl Stats for ProcessRuntime {
    async fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError> {
        let inner = Arc::clone(&self.inner);
        disk::off_thread("measure the unit", move || inner.measure(id)).await?
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

/// Makes the directory and all that is in it, the unit's record last. Nothing is synced: what a power cut
/// takes is prepared again, and the first start syncs what it builds on.
fn prepare(
    base: &Path,
    record: &UnitRecord,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let dir = UnitDir::of(base, record.unit);
    // A record that cannot be read is as good as none.
    if matches!(dir.unit(), Ok(Some(_))) {
        return Ok(());
    }
    disk::make_dir(base, 0o711)?;
    // Another user's process has to come through to its working directory.
    disk::make_dir(dir.path(), 0o711)?;
    disk::make_dir(&dir.work(), 0o755)?;
    disk::make_dir(&dir.runs(), 0o700)?;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = rustix::fs::FileType::Fifo;
    match rustix::fs::mknodat(rustix::fs::CWD, dir.control(), fifo, mode, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    fill(&dir.work())?;
    disk::write_whole(&dir.unit_file(), record)
}

/// Deletes a unit's directory. It is moved aside first, so that half a unit is never seen.
fn delete(base: &Path, id: UnitId) -> io::Result<()> {
    let aside = base.join(format!(".removed-{id}"));
    disk::gone(fs::rename(UnitDir::of(base, id).path(), &aside))?;
    disk::gone(fs::remove_dir_all(&aside))
}

/// The places of its volumes. Those of a machine are its disks.
fn mounts_of(unit: &Unit) -> Vec<Mount> {
    let volumes = unit.volumes.iter();
    let directories = volumes.filter(|volume| matches!(volume.place, Place::Directory(_)));
    directories
        .map(|volume| Mount {
            source: volume.place.path().to_string_lossy().into_owned(),
            target: volume.target.clone(),
            read_only: volume.read_only,
        })
        .collect()
}

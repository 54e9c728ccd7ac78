//! The machine driver: virtual machines, each a QEMU under a shim of the process driver.
//!
//! A run of a machine is a run of a process whose command is QEMU's: the shim keeps its output (the guest's serial
//! console), its end and its lock, and it outlives the agent. This driver adds what a guest needs around it, and
//! talks to QEMU through its monitor:
//!
//! ```text
//!   <dir>/units/<assignment>.<generation>/       as the process driver keeps it
//!     work/machine.json                          what starts and stops go by
//!     work/qmp.sock                              QEMU's monitor
//!     work/seed.img                              what cloud-init reads
//!   <dir>/disks/<assignment>/                    the disks: data of the assignment, see `disks`
//!   <dir>/whose/<assignment>.json                whose they are
//! ```
//!
//! The guest has no exit code. A guest that powers itself off ends with 0; one whose kernel gives up ends with 1;
//! one that had to be cut off was killed.
//!
//! ```text
//!   start:  disks looked over ──► QEMU ──monitor answers──► running
//!                                   └──ends before that──► vm-boot-failed, and no run
//!   stop:   power button, again and again ──guest powers off──► over
//!                                   └──grace over──► held, disks written, killed
//! ```

mod command;
mod disks;
mod images;
mod leftovers;
mod networks;
mod prepare;
mod probe;
mod qemu_img;
mod qmp;
mod record;
mod runs;
mod seed;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_kit::{Clock, Tasks};
use hostler_model::spec::{Accelerator, Kind};
use hostler_model::{AssignmentId, Exit, RuntimeFact, Timestamp, UnitId};

use crate::logs::{LogLine, LogQuery};
use crate::process::{ProcessConfig, ProcessRuntime, ShimCommand};
use crate::turns::{Turns, to_the_end};
use crate::whose::Whose;
use crate::{
    Data, Found, FoundState, Guest, Guests, Leftovers, Progress, Runtime, RuntimeError, Stats,
    Unit, UnitStats, disk,
};
use images::Images;
pub use networks::Interface;
use qemu_img::QemuImg;
pub use qmp::Power;
use record::Machine;

/// What the driver is made of.
pub struct VmConfig {
    /// The driver's own directory. Nobody else writes below it.
    pub dir: PathBuf,
    pub shim: ShimCommand,
    pub clock: Arc<dyn Clock>,
    pub tasks: Tasks,
    pub settings: VmSettings,
}

/// What the node's owner says of its machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSettings {
    pub qemu: String,
    pub qemu_img: String,
    pub accelerator: Accelerator,
    /// Where images are looked up by name.
    pub images: Vec<PathBuf>,
    /// Whether images elsewhere are refused.
    pub only_these_images: bool,
}

impl Default for VmSettings {
    fn default() -> Self {
        Self {
            qemu: "qemu-system-x86_64".to_owned(),
            qemu_img: "qemu-img".to_owned(),
            accelerator: Accelerator::Auto,
            images: Vec::new(),
            only_these_images: false,
        }
    }
}

/// Runs virtual machines.
pub struct VmRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    process: ProcessRuntime,
    disks: PathBuf,
    whose: Whose,
    images: Images,
    tool: QemuImg,
    settings: VmSettings,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    turns: Turns,
}

impl VmRuntime {
    /// Makes the driver; touches nothing yet.
    #[must_use]
    pub fn new(config: VmConfig) -> Self {
        let VmConfig {
            dir,
            shim,
            clock,
            tasks,
            settings,
        } = config;
        // QEMU has another working directory than the agent.
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let process = ProcessRuntime::new(ProcessConfig {
            dir: dir.join("units"),
            shim,
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
        });
        let inner = Inner {
            process,
            disks: dir.join("disks"),
            whose: Whose::in_dir(dir.join("whose")),
            images: Images::new(settings.images.clone(), settings.only_these_images),
            tool: QemuImg::new(settings.qemu_img.clone()),
            settings,
            clock,
            tasks,
            turns: Turns::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

#[async_trait]
impl Runtime for VmRuntime {
    fn kind(&self) -> Kind {
        Kind::Vm
    }

    async fn probe(&self) -> RuntimeFact {
        self.inner.probe().await
    }

    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError> {
        let turn = self.inner.turns.take(unit.id).await;
        progress("making disks".to_owned());
        let (inner, unit) = (Arc::clone(&self.inner), unit.clone());
        let prepared = to_the_end(&self.inner.tasks, "prepare a machine", async move {
            let answer = inner.prepare(&unit).await;
            drop(turn);
            answer
        });
        let lost = || {
            let source = io::ErrorKind::Interrupted.into();
            Err(disk::error("prepare the machine", source))
        };
        prepared.await.unwrap_or_else(lost)
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.start(id).await
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.stop(id).await
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        let turn = self.inner.turns.take(id).await;
        match self.inner.stop(id).await {
            // What cannot be read, or does not do as asked, is cut off by the process driver.
            Ok(_) | Err(RuntimeError::NotFound(_) | RuntimeError::Io { .. }) => {}
            Err(error) => return Err(error),
        }
        self.inner.remove(id, data).await?;
        drop(turn);
        self.inner.turns.forget(id);
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        self.inner.process.observe().await
    }

    async fn changed(&self) {
        self.inner.process.changed().await;
    }

    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        let lines = self.inner.process.logs(id, query).await?;
        Ok(lines.map(|line| line.map(plain)).boxed())
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }

    fn leftovers(&self) -> Option<&dyn Leftovers> {
        Some(self)
    }

    fn guests(&self) -> Option<&dyn Guests> {
        Some(self)
    }
}

#[async_trait]
impl Stats for VmRuntime {
    async fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError> {
        self.inner.process.measure(id).await
    }
}

#[async_trait]
impl Guests for VmRuntime {
    async fn look(&self, id: UnitId) -> Result<Guest, RuntimeError> {
        let found = self.inner.process.look(id).await?;
        let machine = self.inner.machine(id).await?;
        let power = match found.state {
            FoundState::Running { .. } => {
                qmp::power(&self.inner.monitor(id)).await.map_err(silent)?
            }
            FoundState::Prepared | FoundState::Exited { .. } => Power::Shutdown,
        };
        Ok(Guest {
            power,
            interfaces: networks::interfaces(&machine.nics),
        })
    }

    async fn pause(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.inner.tell(id, qmp::Order::Pause).await
    }

    async fn resume(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.inner.tell(id, qmp::Order::Resume).await
    }
}

impl Inner {
    async fn probe(&self) -> RuntimeFact {
        let fact = |available, version, note| RuntimeFact {
            kind: Kind::Vm,
            available,
            version,
            note,
        };
        let version = match probe::version(&self.settings.qemu).await {
            Ok(version) => version,
            Err(error) => return fact(false, String::new(), error.to_string()),
        };
        if self.tool.version().await.is_none() {
            let note = format!(
                "`{}` does not run; Debian has it in qemu-utils",
                self.settings.qemu_img
            );
            return fact(false, version, note);
        }
        let process = self.process.probe().await;
        if !process.available {
            return fact(false, version, process.note);
        }
        match probe::engine(self.settings.accelerator, None, probe::has_kvm()) {
            Ok(engine) => {
                let note = match (engine, self.settings.accelerator) {
                    (probe::Engine::Tcg, Accelerator::Auto) => {
                        "no /dev/kvm: guests are emulated, which is slow".to_owned()
                    }
                    _ => String::new(),
                };
                fact(true, format!("{version} {}", engine.as_str()), note)
            }
            Err(error) => fact(false, version, error.to_string()),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }

    fn disks_of(&self, assignment: AssignmentId) -> PathBuf {
        self.disks.join(assignment.to_string())
    }

    fn monitor(&self, id: UnitId) -> PathBuf {
        self.process.work_dir(id).join(record::MONITOR)
    }

    async fn machine(&self, id: UnitId) -> Result<Machine, RuntimeError> {
        let path = self.process.work_dir(id).join(record::FILE);
        let machine = disk::off_thread("read the machine", move || disk::read(&path)).await?;
        machine.ok_or(RuntimeError::NotFound(id))
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        if data == Data::Delete {
            let units = self.process.observe().await?;
            let is_shared = units
                .iter()
                .any(|unit| unit.id.assignment == id.assignment && unit.id != id);
            let dir = self.disks_of(id.assignment);
            // Another generation still runs from them; its own removal takes them along.
            if !is_shared {
                disk::off_thread("delete the disks", move || disks::delete(&dir)).await?;
                self.whose.forget(id.assignment).await?;
            }
        }
        self.process.remove(id, data).await?;
        match data {
            Data::Delete => Ok(()),
            Data::Keep => self.whose.left(id.assignment, self.now()).await,
        }
    }

    async fn tell(&self, id: UnitId, order: qmp::Order) -> Result<(), RuntimeError> {
        self.process.look(id).await?;
        qmp::tell(&self.monitor(id), &[order]).await.map_err(silent)
    }
}

/// A serial console ends its lines as a typewriter does.
fn plain(mut line: LogLine) -> LogLine {
    while line.text.ends_with('\r') {
        line.text.pop();
    }
    line
}

fn silent(source: io::Error) -> RuntimeError {
    disk::error("ask QEMU", source)
}

/// The last lines that have room in so many bytes.
fn tail<'a>(lines: impl DoubleEndedIterator<Item = &'a str>, most: usize, between: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut length = 0;
    for line in lines
        .rev()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
    {
        length += line.len() + between.len();
        if length > most && !kept.is_empty() {
            break;
        }
        let cut = (0..=line.len().min(most))
            .rev()
            .find(|at| line.is_char_boundary(*at));
        kept.push(&line[..cut.unwrap_or(0)]);
    }
    kept.reverse();
    kept.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines_that_have_room() {
        let of = |text: &str, most| tail(text.lines(), most, "; ");
        assert_eq!(of("one\ntwo\n\nthree\n", 12), "two; three");
        assert_eq!(of("one\ntwo", 100), "one; two");
        assert_eq!(of("ääää", 3), "ä", "a line that is too long is cut");
        assert_eq!(of("", 3), "");
    }
}

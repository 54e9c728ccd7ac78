//! The runtime contract and its drivers: what a node can run.
//!
//! A *unit* is what an assignment's generation is on the node. Drivers know nothing of fleets, restart
//! policies or intent: they prepare, start, stop and remove units, and say what they find. Every name and
//! path of a unit derives from its [`UnitId`], so every verb is idempotent and what survived a restart of the
//! agent, or of the machine, is found again by [`Runtime::observe`].
//!
//! A unit outlives the agent: no way of stopping the agent takes its units along.

pub mod asks;
pub mod compose;
pub mod container;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod disk;
pub mod exec;
#[cfg(any(test, feature = "contract"))]
pub mod fake;
mod files;
pub mod leftovers;
pub mod logs;
pub mod process;
pub mod secrets;
mod turns;
pub mod vm;
pub mod volumes;
mod whose;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hostler_model::spec::{Kind, WorkloadSpec};
use hostler_model::{
    Exit, FailureCode, Part, RuntimeFact, StorageFact, Timestamp, UnitId, WorkloadId,
};

pub use asks::{Asks, Judge, Judged};
pub use exec::{Exec, ExecDone, Execution, Input};
pub use files::{Archive, Files, Ports};
pub use hostler_model::{ExecCommand, TerminalSize};
pub use leftovers::{Discarded, Leftover, LeftoverKind, Leftovers};
pub use logs::{LogLine, LogQuery, Run, Stream};
pub use secrets::Secrets;
pub use volumes::{Attached, Place};

/// What is to be run: all that a driver needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub id: UnitId,
    pub workload: WorkloadId,
    /// For names and labels that people read.
    pub workload_name: String,
    pub slot: u32,
    pub spec: Arc<WorkloadSpec>,
    /// The spec's volumes, once they are on the node.
    pub volumes: Vec<Attached>,
}

/// A unit that exists on the node, in whatever state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub id: UnitId,
    pub workload: WorkloadId,
    pub state: FoundState,
    /// How often it was started; 0 if it is only prepared.
    pub runs: u32,
}

/// The driver's view of a unit.
///
/// ```text
///   (nothing) ──prepare──► Prepared ──start──► Running ──ends──► Exited ──start──► Running …
///       ▲                                        └──stop──► Exited
///       └────────────────────────── remove (from any state; stops first) ──────────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// Ready to be started; has never run.
    Prepared,
    Running {
        since: Timestamp,
    },
    /// Nothing of it runs.
    Exited {
        exit: Exit,
        at: Timestamp,
    },
}

/// What becomes of the data that a unit's workload has stored on the node: disks and named volumes that the driver
/// made. Another generation of the same assignment finds kept data again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    Keep,
    Delete,
}

/// What a running unit uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnitStats {
    /// Processor time used since the run began, in nanoseconds of one core.
    pub cpu_nanos: u64,
    /// Memory in use, in bytes.
    pub memory: u64,
    pub pids: u32,
    /// Bytes since the run began, read from and written to disks, and over the network; none where it is not known.
    pub read: Option<u64>,
    pub written: Option<u64>,
    pub received: Option<u64>,
    pub sent: Option<u64>,
}

/// Why a driver could not do it. Each has a stable code that people can look up.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The spec asks for what this machine cannot give: an unknown user, a missing directory, no cgroup.
    #[error("{message}")]
    Unsatisfiable { code: FailureCode, message: String },
    /// The program of the command does not exist or may not be run.
    #[error("cannot run `{program}`: {source}")]
    Command {
        program: String,
        source: std::io::Error,
    },
    /// The image is neither here nor to be had.
    #[error("image `{image}`: {message}")]
    Image { image: String, message: String },
    /// A host port is taken by something that is not ours.
    #[error("port {port} is in use on the node")]
    PortInUse { port: u16 },
    /// No unit of that id is here.
    #[error("unit {0} is not on this node")]
    NotFound(UnitId),
    /// There is no log of that run.
    #[error("there is no log of that run")]
    NoLog,
    /// The disk is full.
    #[error("no space is left on the node's disk")]
    DiskFull,
    /// The engine behind the driver does not answer. Nothing is known about its units; they may well run.
    #[error("the {engine} engine is out of reach: {message}")]
    EngineDown {
        engine: &'static str,
        message: String,
    },
    /// The machine ended before it was up; the message ends with its last words.
    #[error("the machine does not start: {message}")]
    Boot { message: String },
    /// The unit did not end although it was killed.
    #[error("unit {0} does not end")]
    Unkillable(UnitId),
    #[error("{context}: {source}")]
    Io {
        context: String,
        source: std::io::Error,
    },
}

impl Unit {
    /// Refuses what would have to be left out: volumes that nothing has brought to the node.
    pub(crate) fn check_volumes(&self) -> Result<(), RuntimeError> {
        let missing = self.spec.volumes().get(self.volumes.len());
        match missing {
            None => Ok(()),
            Some(volume) => Err(RuntimeError::Unsatisfiable {
                code: FailureCode::VolumesUnsupported,
                message: format!(
                    "this node manages no volumes, and `{}` is asked for",
                    volume.name
                ),
            }),
        }
    }
}

impl RuntimeError {
    /// The stable code's text, such as `image-unavailable`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.failure().as_str()
    }

    /// The stable code, with its reason and remedy.
    #[must_use]
    pub const fn failure(&self) -> FailureCode {
        match self {
            Self::Unsatisfiable { code, .. } => *code,
            Self::Command { .. } => FailureCode::CommandNotRunnable,
            Self::Image { .. } => FailureCode::ImageUnavailable,
            Self::PortInUse { .. } => FailureCode::PortInUse,
            Self::NotFound(_) => FailureCode::UnitNotFound,
            Self::NoLog => FailureCode::LogNotFound,
            Self::DiskFull => FailureCode::DiskFull,
            Self::EngineDown { .. } => FailureCode::EngineDown,
            Self::Boot { .. } => FailureCode::VmBootFailed,
            Self::Unkillable(_) => FailureCode::UnitUnkillable,
            Self::Io { .. } => FailureCode::NodeIo,
        }
    }
}

/// What a driver over an engine tells of itself: its version, or why it cannot work now.
pub(crate) fn fact(kind: Kind, version: Result<String, RuntimeError>) -> RuntimeFact {
    let available = version.is_ok();
    let (version, note) = match version {
        Ok(version) => (version, String::new()),
        Err(error) => (String::new(), error.to_string()),
    };
    RuntimeFact {
        kind,
        available,
        version,
        note,
    }
}

/// Where a driver tells how far a long preparation has come: a short text for people, such as
/// `pulling busybox 40 %`.
pub type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

/// One way of running units. Every verb is idempotent; none blocks the async runtime; each may be called
/// again after it was dropped half-way.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The kind of workload it runs.
    fn kind(&self) -> Kind;

    /// Whether it can work on this machine now, and with what.
    async fn probe(&self) -> RuntimeFact;

    /// Makes the unit ready to start: directories, images, a created container. After it, `observe` shows
    /// the unit. A unit that exists is left as it is. It may take very long, and any number may be asked for
    /// at once: the driver bounds what is costly about them. Dropped half-way, it leaves nothing that a
    /// `remove` which follows does not find.
    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError>;

    /// Begins a run of a prepared or exited unit. A running unit is left alone. When it answers, the run is
    /// on record on the node's disk: if the agent dies now, `observe` finds the run.
    async fn start(&self, id: UnitId) -> Result<(), RuntimeError>;

    /// Ends the run: asks with the spec's signal, waits for the spec's grace, kills. When it answers, nothing
    /// of the unit runs. A unit that does not run answers how its last run ended.
    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError>;

    /// Stops the unit and deletes all that the driver keeps of it, logs too, and its data if so told. The unit is
    /// found until nothing is left. A unit that is not here is fine.
    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError>;

    /// Everything of ours that exists here, also what an earlier agent made. An engine that does not answer
    /// is an error, never an empty list.
    async fn observe(&self) -> Result<Vec<Found>, RuntimeError>;

    /// What the unit is made of, as the last observation found it; nothing for a driver whose units are one thing.
    fn parts(&self, _id: UnitId) -> Vec<Part> {
        Vec::new()
    }

    /// Completes when something of ours may have changed since the last call: wake up and observe.
    /// Cancel-safe; may wake without cause.
    async fn changed(&self);

    /// Reads the log of a run.
    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError>;

    /// Whether it can stop units by itself while the node is cut off.
    fn fencing(&self) -> Option<&dyn Fencing> {
        None
    }

    /// Whether it can measure units.
    fn stats(&self) -> Option<&dyn Stats> {
        None
    }

    /// Whether it can tell what else runs on its engine.
    fn census(&self) -> Option<&dyn Census> {
        None
    }

    /// Whether it has things on the disk beside its units.
    fn leftovers(&self) -> Option<&dyn Leftovers> {
        None
    }

    /// Whether it reads what units ask for from files of theirs.
    fn judged(&self) -> Option<&dyn Judged> {
        None
    }

    /// Whether its units are guests with a life of their own.
    fn guests(&self) -> Option<&dyn Guests> {
        None
    }

    /// Whether it can take over what somebody else made.
    fn adoption(&self) -> Option<&dyn Adoption> {
        None
    }

    /// Whether it can run commands inside units.
    fn exec(&self) -> Option<&dyn Exec> {
        None
    }

    /// Whether its units can have managed volumes.
    fn volumes(&self) -> Option<&dyn Volumes> {
        None
    }

    /// Whether its units can have secrets.
    fn secrets(&self) -> Option<&dyn Secrets> {
        None
    }

    /// Whether it can copy files from and to units.
    fn files(&self) -> Option<&dyn Files> {
        None
    }

    /// Whether it knows where on the node a unit's ports are.
    fn ports(&self) -> Option<&dyn Ports> {
        None
    }

    /// Whether units may have a healthcheck of their own, which the engine runs.
    fn native_health(&self) -> Option<&dyn NativeHealth> {
        None
    }
}

/// Stops a `singleton` without the agent: each run has a dead man's switch.
#[async_trait]
pub trait Fencing: Send + Sync {
    /// Contact with the control plane was proved now: the unit may run for another `span`. The switch starts
    /// with the spec's `stop_after` at each start. After `span` without another call the unit stops by itself,
    /// even if the agent is dead.
    async fn extend(&self, id: UnitId, span: Duration) -> Result<(), RuntimeError>;
}

/// Measures running units.
#[async_trait]
pub trait Stats: Send + Sync {
    async fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError>;
}

/// A guest as its machine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    pub power: vm::Power,
    pub interfaces: Vec<vm::Interface>,
}

/// Looks at guests, and holds them still.
#[async_trait]
pub trait Guests: Send + Sync {
    async fn look(&self, id: UnitId) -> Result<Guest, RuntimeError>;

    /// Holds the guest's processors; it counts as running.
    async fn pause(&self, id: UnitId) -> Result<(), RuntimeError>;

    async fn resume(&self, id: UnitId) -> Result<(), RuntimeError>;
}

/// What an engine says of a unit's own healthcheck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NativeVerdict {
    /// There is none.
    Absent,
    Undecided,
    Healthy,
    /// With what the check said last.
    Unhealthy(String),
}

/// Asks the engine for its own healthcheck of a unit.
#[async_trait]
pub trait NativeHealth: Send + Sync {
    async fn native_verdict(&self, id: UnitId) -> Result<NativeVerdict, RuntimeError>;
}

/// Gives managed volumes to units.
pub trait Volumes: Send + Sync {
    /// Which storage drivers work on this node, and why others do not.
    fn drivers(&self) -> Vec<StorageFact>;
}

/// Counts what runs on the driver's engine, also what is not ours.
#[async_trait]
pub trait Census: Send + Sync {
    /// The names of everything that runs, as the engine has them.
    async fn running(&self) -> Result<Vec<String>, RuntimeError>;
}

/// Something that runs on the driver's engine, is not ours, and could be.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Adoptable {
    /// As the engine has it.
    pub name: String,
    /// The spec whose first copy takes it over.
    pub spec: WorkloadSpec,
    /// What the next copy will not have, each a sentence.
    pub notes: Vec<String>,
    /// Whether it has of the node what no spec can say, such as the node's processes.
    #[serde(default)]
    pub shares_node: bool,
}

impl Adoptable {
    /// The spec by which a node's owner judges it: what it shares with the node beyond that counts as privileges.
    #[must_use]
    pub fn judged(&self) -> WorkloadSpec {
        let mut spec = self.spec.clone();
        if let Some(container) = &mut spec.container {
            container.privileged |= self.shares_node;
        }
        spec
    }
}

/// What a node answers to the question what it could adopt.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct AdoptableList {
    pub found: Vec<Adoptable>,
    /// Those that the node's owner does not let go, by name and with the rule that says so.
    pub refused: Vec<(String, String)>,
    /// How many had no room in the answer.
    pub left_off: usize,
}

/// Tells what could be taken over. Taking over is part of [`Runtime::prepare`].
#[async_trait]
pub trait Adoption: Send + Sync {
    async fn adoptable(&self) -> Result<Vec<Adoptable>, RuntimeError>;
}

//! Assignments: one copy of a workload on one node, and what is observed of it there.
//!
//! ```text
//!   (slot vacant) ──place──► Run ──stop, move, update──► Stop ──node: unit is gone──► (record removed)
//!                             │                            ▲
//!                             ├── node lost, `keep` ───────┘  (replaced elsewhere at once)
//!                             └── exits for good ──► Run + outcome (finished; holds no resources)
//! ```
//!
//! In each slot at most one assignment has the intent `Run`. A record is removed only when its node has
//! said that the unit is gone, or when the node itself is gone: every copy is accounted for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::spec::{Kind, Port, WorkloadSpec};
use crate::{AssignmentId, NodeId, Resources, Timestamp, WorkloadId};

/// One copy of a workload on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    pub id: AssignmentId,
    pub workload: WorkloadId,
    /// Which copy: 0 to count − 1, or one of those that run beside them during a rollout.
    pub slot: u32,
    pub node: NodeId,
    /// The fencing number: larger wins within a slot. A unit is made for (id, generation); a new
    /// generation of the same id replaces the unit on the same node (restart, update in place).
    pub generation: u64,
    /// The workload revision whose spec the copy runs.
    pub revision: u64,
    /// The workload's template number at that revision.
    pub template: u64,
    /// The workload's restart number when this generation was made.
    #[serde(default)]
    pub restart: u64,
    pub intent: Intent,
    /// What the copy takes from its node until it is removed or finished.
    pub claims: Claims,
    pub created_at: Timestamp,
    /// How it ended for good, once its restart policy is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Proved stopped without the node's word: its node was cut off for longer than `stop_after` and a
    /// margin, so agent and shim have stopped it. Lets a singleton be replaced.
    #[serde(default)]
    pub fenced: bool,
    /// Made by a rollout and not yet known to be healthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
}

/// What the fleet wants of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    Run,
    Stop { cause: StopCause },
}

/// Why a copy is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopCause {
    /// The workload's desired state says so.
    Stopped,
    /// The workload is being deleted.
    Deleted,
    /// The count went down.
    ScaledDown,
    /// A newer revision takes its place.
    Updated,
    /// Its node drains.
    Drained,
    /// Its node was lost and a newer generation runs elsewhere, or may.
    Replaced,
}

/// What a copy takes from its node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Claims {
    pub resources: Resources,
    /// Host ports, exclusive on a node.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<Port>,
}

/// How a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// It returned this exit status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// The kernel killed it because its memory limit was reached.
    OutOfMemory,
    /// It is gone and nobody saw how: its machine rebooted, or its shim was killed.
    Unknown,
    /// Its agent stopped it because the run took longer than it may.
    TimedOut,
    /// Its agent stopped it because its health check failed.
    Unhealthy,
}

/// The end of a copy whose restart policy is spent. Persisted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub exit: Exit,
    pub at: Timestamp,
    /// How often it was started in all.
    pub runs: u32,
}

/// Names the unit of an assignment on its node; drivers derive every name and path from it, so that
/// each of their verbs is idempotent and what is found can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitId {
    pub assignment: AssignmentId,
    pub generation: u64,
}

/// What a node is told about one of its assignments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentItem {
    pub unit: UnitId,
    pub workload: WorkloadId,
    /// For names, labels and logs.
    pub workload_name: String,
    pub slot: u32,
    pub intent: Intent,
    pub revision: u64,
    /// The spec at that revision.
    pub spec: Arc<WorkloadSpec>,
    /// It has ended for good, as the control plane knows: a node that lost its own record of that must
    /// not run it again.
    #[serde(default)]
    pub is_finished: bool,
}

/// What an agent sees of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedUnit {
    pub unit: UnitId,
    pub workload: WorkloadId,
    pub kind: Kind,
    pub state: UnitState,
    /// How often it was started on this node in this generation.
    pub runs: u32,
    /// What it is made of, such as the services of a compose project; empty if it is one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// What its health check says of the present run; none without a check, or while nothing runs.
    pub health: Option<Health>,
    /// Set once it has ended early several times in succession, until a run lasts.
    pub crash_loop: Option<Arc<CrashLoop>>,
}

/// A named part of a unit, and how it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub state: PartState,
    /// How it ended, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
}

/// How a part of a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartState {
    /// It has not begun.
    Waiting,
    Running,
    /// It runs, and its own health check says that it is not well.
    Unhealthy,
    Exited,
}

/// What a health check says of a run.
///
/// ```text
///   Starting ──successes──► Healthy ◄──successes── Unhealthy
///      └────── failures, once the start period is over ──────┘ ▲
///                              Healthy ──failures──────────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "health", rename_all = "kebab-case")]
pub enum Health {
    /// Not known to be well yet.
    Starting,
    Healthy,
    Unhealthy {
        /// What the check that decided it said, for people.
        why: String,
    },
}

/// What is kept of a copy that keeps ending early: how it began, which later runs often hide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashLoop {
    /// How the first of the short runs ended.
    pub exit: Exit,
    pub at: Timestamp,
    /// Which run that was.
    pub run: u32,
    /// The last lines of that run's log; bounded.
    pub log: Vec<String>,
}

/// The states of a unit on its node.
///
/// ```text
///   Preparing ──► Starting ──► Running ──► Exited ──► Waiting ──► Starting …   (restart policy)
///       │             │                       └──────► Finished                (policy spent)
///       └─────────────┴──► Failed ──► (tried again with backoff)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum UnitState {
    /// Its image is pulled or its directory made.
    Preparing {
        /// For people: `pulling busybox 40 %`.
        detail: String,
    },
    Starting,
    Running {
        since: Timestamp,
    },
    /// It ended and will be started again at `retry_at`.
    Waiting {
        exit: Exit,
        retry_at: Timestamp,
    },
    /// It could not be prepared or started; tried again at `retry_at`.
    Failed {
        /// A stable code of the driver, such as `image-not-found`.
        code: String,
        message: String,
        retry_at: Timestamp,
    },
    Stopping,
    /// It ended and its restart policy says that this is the end.
    Finished {
        exit: Exit,
        at: Timestamp,
    },
    /// It is not on the node (any more): the last word about a unit.
    Gone,
}

impl Assignment {
    /// The name of its unit on the node.
    #[must_use]
    pub const fn unit(&self) -> UnitId {
        UnitId {
            assignment: self.id,
            generation: self.generation,
        }
    }

    /// Whether the fleet wants it to run.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        matches!(self.intent, Intent::Run)
    }

    /// Whether it has ended for good.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether its claims still count against the node. A fenced copy may be shown as running, yet agent
    /// and shim have stopped it; its claims return with the node's word.
    #[must_use]
    pub const fn holds_claims(&self) -> bool {
        self.outcome.is_none()
    }
}

impl Exit {
    /// Whether restart policy `on-failure` lets it rest.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Unknown => f.write_str("unknown exit"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unhealthy => f.write_str("unhealthy"),
        }
    }
}

impl PartState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Unhealthy, Self::Exited];

    /// The word on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Exited => "exited",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl Part {
    /// Whether it has ended, and not well.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.exit.is_some_and(|exit| !exit.is_success())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Some(exit) => write!(f, "{}: {exit}", self.name),
            None => write!(f, "{}: {}", self.name, self.state.as_str()),
        }
    }
}

impl Health {
    /// The word on every wire.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}

impl CrashLoop {
    /// Most lines that are kept, and most bytes of all of them.
    pub const MOST_LINES: usize = 20;
    pub const MOST_BYTES: usize = 2048;

    /// The last of the lines that fit.
    #[must_use]
    pub fn last_lines(lines: impl DoubleEndedIterator<Item = String>) -> Vec<String> {
        let mut room = Self::MOST_BYTES;
        let mut kept = Vec::new();
        for mut line in lines.rev().take(Self::MOST_LINES) {
            if line.len() > room {
                line.truncate(line.floor_char_boundary(room));
            }
            room -= line.len();
            kept.push(line);
            if room == 0 {
                break;
            }
        }
        kept.reverse();
        kept
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.assignment, self.generation)
    }
}

impl std::str::FromStr for UnitId {
    type Err = crate::ParseIdError;

    /// Reads what `Display` writes: `<assignment>.<generation>`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (assignment, generation) = text.rsplit_once('.').unwrap_or((text, ""));
        match generation.parse() {
            Ok(generation) => Ok(Self {
                assignment: assignment.parse()?,
                generation,
            }),
            Err(_) => Err(crate::ParseIdError::new("unit", text)),
        }
    }
}

impl UnitState {
    /// The word on every wire, such as `running`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Preparing { .. } => "preparing",
            Self::Starting => "starting",
            Self::Running { .. } => "running",
            Self::Waiting { .. } => "waiting",
            Self::Failed { .. } => "failed",
            Self::Stopping => "stopping",
            Self::Finished { .. } => "finished",
            Self::Gone => "gone",
        }
    }
}

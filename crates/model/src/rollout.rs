//! Rollouts: how far a new form of a workload's copies has taken the place of the old one. Only what a decision
//! depends on is kept; how far it has come follows from the copies.
//!
//! ```text
//!   apply, restart ──► Canary ──promote──► Rolling ──every copy is new and healthy──► (record removed)
//!         │               │                   │  ▲
//!         └── no canary ──┼───────────────────┘  │ promote
//!                         └── no progress, or a copy fails ──► Failed ──rollback, apply──► (a new one)
//! ```
//!
//! While it is `Canary` or `Failed`, what has to be placed for other reasons (a lost node, a drain, a larger
//! count) runs as the base does.

use serde::{Deserialize, Serialize};

/// The slot of the first copy that runs beside those that are counted: beyond every count.
pub const FIRST_SPARE_SLOT: u32 = 1_000_000;

/// What is on its way to every copy of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// What the copies ran before: the last that was rolled out to the end.
    pub base: Base,
    pub stage: Stage,
    /// How many copies run beside the counted ones, in slots from [`FIRST_SPARE_SLOT`] on.
    pub spares: u32,
    /// Goes up when something is learnt or decided about the rollout: what was concluded before is old then.
    pub step: u64,
}

/// The revision before the rollout, and the numbers that its copies carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub revision: u64,
    pub template: u64,
    pub restart: u64,
}

/// What a rollout waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// The canaries run beside the old copies until they are promoted.
    Canary,
    /// Copies are replaced, a few at a time.
    Rolling,
    /// It has stopped; a person promotes it, rolls it back, or applies something else.
    Failed { reason: String },
}

impl Stage {
    /// Whether the copies that are counted stay as they are.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::Canary | Self::Failed { .. })
    }
}

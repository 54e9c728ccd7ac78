//! Care of the node: says what the machine is short of, and deletes what nobody needs before the disk is full.
//!
//! ```text
//!   watch   (every few seconds)  machine ──► gauge, pure ──► what it is short of ──► beats
//!   rounds  (every few minutes,  drivers, picture, disk ──► sorting, pure ──► deletes ──► drivers, reconciler
//!            or when ordered)
//! ```
//!
//! Both tasks own what they look at between two rounds and nothing else; both can be stopped anywhere. What is deleted
//! is what this agent's drivers made or fetched by their own records, nothing else.

mod places;
mod pressure;
mod rounds;
mod sorting;
mod watch;
mod words;

use std::time::Duration;

pub use pressure::Limits;
pub(crate) use rounds::{Ask, Demand, Rounds, Sights};
pub(crate) use watch::Shown;

use crate::config::{AgentConfig, Parts};
use crate::tuning::Tuned;

/// When things are deleted by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// From so many hundredths of a disk in use on, what nothing needs is deleted; 100 and more is never.
    pub start: u64,
    /// Until no more than so many are in use.
    pub stop: u64,
    /// What was of use within this span stays.
    pub min_age: Duration,
    /// Between two looks.
    pub every: Duration,
}

/// What the node's owner says of its care.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Care {
    pub budget: Budget,
    pub limits: Limits,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            start: 85,
            stop: 75,
            min_age: Duration::from_secs(3600),
            every: Duration::from_secs(300),
        }
    }
}

/// Starts the watch over pressure.
pub(crate) fn watch(
    (config, tuned): (&AgentConfig, Tuned),
    parts: &Parts,
) -> tokio::sync::watch::Receiver<Shown> {
    watch::start(parts, tuned, config.data_dir.clone())
}

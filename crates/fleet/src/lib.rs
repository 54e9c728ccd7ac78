//! The pure core: what the fleet decides, and what that changes. No I/O, no clock, no tokio.
//!
//! [`decide()`] looks at the [`State`], the [`Moment`] and a [`Verb`] and answers [`Decision`] or
//! [`hostler_model::Refusal`]. It is total, takes microseconds, and is deterministic: ids and jitter come from
//! the moment's seed. [`State::apply`] then makes the changes. Nothing else changes a state.
//!
//! A verb changes few records; work that touches many copies (placing, stopping, moving) is done by keepers
//! that submit [`Verb::Settle`] for one workload again and again, each time for at most `limit` copies,
//! until it changes nothing.

mod access;
mod change;
mod decide;
mod lease;
mod moment;
mod placement;
#[cfg(feature = "quality")]
pub mod quality;
mod rented;
mod rollout;
mod state;
mod verb;
mod why;

pub use access::{AccessVerb, JoinTokenOrder, Joining, TokenOrder};
pub use change::{Applied, Change, Decision, Reply};
pub use decide::decide;
pub use lease::{Lease, LeaseRules, Verdict};
pub use moment::Moment;
pub use rented::{
    AccountVerb, Arrival, Cleanup, EndCause, MachineReport, Notices, OldPrimary, PolicyChange,
    PoolPrice, PriceReport, RentedVerb, ReplicaChange, ReplicaOrder, SwitchOrder, SwitchReport,
    end_due,
};
pub use rollout::{Health, Progress, RolloutStanding, health, is_rollout_due, rollout_standing};
pub use state::State;
/// Schedules: which moment is due, and whether a job of theirs is still at work.
pub mod jobs {
    pub use crate::decide::{due, is_active};
}

pub use verb::{
    ApplyOptions, Expect, Introduction, NodeAnnouncement, Resealed, Turn, UnitReport, Verb,
};
pub use why::{Finding, NodeFinding, Why, why};

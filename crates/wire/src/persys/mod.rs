//! Persys's two contracts: [`control`] is how agents speak to the scheduler, [`agent`] is how the scheduler
//! drives an agent. Messages of one name are laid out differently in the two. Names, numbers and types are
//! Persys's and never change.

/// Generated from `proto/persys/control/v1/control.proto`; see `cargo xtask proto`.
#[path = "../gen/persys.control.v1.rs"]
pub mod control;

/// What reflection tells of [`control`]: its file and what it imports, as an encoded set of descriptors.
pub const CONTROL_DESCRIPTORS: &[u8] = include_bytes!("../gen/persys.control.v1.bin");

/// Generated from `proto/persys/agent/v1/agent.proto`; see `cargo xtask proto`.
#[path = "../gen/persys.agent.v1.rs"]
pub mod agent;

#[cfg(test)]
mod golden {
    mod agent;
    mod control;
}

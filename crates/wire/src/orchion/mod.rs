//! Orchion's contract: the messages of `proto/orchion/v1/orchestrator.proto`. Names, numbers and types are
//! Orchion's and never change.

/// Generated from `proto/`; see `cargo xtask proto`.
#[path = "../gen/orchion.v1.rs"]
pub mod v1;

/// What reflection tells of this contract: its file, as an encoded set of descriptors.
pub const DESCRIPTORS: &[u8] = include_bytes!("../gen/orchion.v1.bin");

#[cfg(test)]
mod golden;

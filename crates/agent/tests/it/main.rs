//! The agent against a control plane and a machine that are doubles, in simulated time: every test is as fast
//! as its work, and none depends on how busy the machine under it is.
//!
//! The names of the tests for a cell of the table of states and failures are those of
//! `docs/decisions/0005-state-and-failure.md`.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

#[cfg(test)]
mod control;
#[cfg(test)]
mod network;
#[cfg(test)]
mod node;
#[cfg(test)]
mod plane;

mod abilities;
mod care;
mod commands;
mod errands;
mod failures;
mod guarding;
mod health;
mod joining;
mod logs;
mod miaas;
mod orchion;
#[cfg(test)]
mod permits;
mod persys;
mod running;
mod secrets;
mod spot;
mod spot_reading;

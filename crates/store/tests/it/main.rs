//! The engines against the contract, a model, and the death of the process.

mod contract;
mod engines;

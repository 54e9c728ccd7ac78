//! The engines against the contract, a model, failing disks and the death of the process.

mod child;
mod contract;
mod durability;
mod engines;
mod faults;
mod full_disk;
mod group;
mod model;
mod opening;
mod synced;

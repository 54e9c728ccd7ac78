//! The wire contracts: generated gRPC, REST bodies and a typed client. Nothing of the domain is in here;
//! doors and uplinks convert at their own edge, and wire types go no further.
//!
//! - [`api`] holds the bodies of the REST API.
//! - [`client`] calls it.
//! - [`session`] is the contract between a node's agent and the control plane.
//! - [`orchion`] and [`persys`] are the gRPC contracts of those systems, field for field.

pub mod api;
pub mod client;
pub mod orchion;
pub mod persys;
pub mod session;

#[cfg(test)]
mod golden;

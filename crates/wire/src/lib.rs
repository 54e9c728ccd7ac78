//! The wire contracts: generated gRPC, REST bodies and a typed client. Nothing of the domain is in here;
//! doors and uplinks convert at their own edge, and wire types go no further.
//!
//! - [`session`] is the contract between a node's agent and the control plane.

pub mod session;

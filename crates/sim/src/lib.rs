//! The simulation: one control plane and three agents, all real, under simulated time and network.
//!
//! ```text
//!   Scenario (from the seed) ──► Fleet: requests, faults, heals ──► turmoil: 4 hosts, their links, their time
//!                                  │                                  server: Control, MemoryStore, session door
//!                                  │                                  a, b, c: Agent, ledger on disk, FakeRuntime
//!                                  └──► Checks, after every tick ──► Violation, with the trace so far
//! ```
//!
//! - [`Scenario`] is pure: the seed gives the steps. `fleet` owns the hosts and carries the steps out.
//! - `server` and `node` are what runs on the hosts, and what outlives a crash there: the store, the
//!   machine with its units, the ledger's directory.
//! - `client` is the operator who asks until answered; it knows what was acknowledged.
//! - `checks` holds the three invariants.
//!
//! One seed gives one history: time comes from the simulation, randomness from the seed, and no thread,
//! no hash order and no unordered choice is on the way. `docs/decisions/0010-simulation.md` says how that
//! is kept, and `pace` what a machine that is too busy lets in. What can fail is the fleet under test; a failing
//! seed is replayed with `cargo run -p hostler-sim -- --seed N`.

mod checks;
mod client;
mod clock;
mod fleet;
mod network;
mod node;
mod pace;
mod panics;
mod report;
mod scenario;
mod server;

pub use fleet::run;
pub use report::{Outcome, Violation};
pub use scenario::{Flavour, Scenario, Step};

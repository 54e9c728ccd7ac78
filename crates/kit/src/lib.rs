//! Four tools that every shell room uses, and nothing else: the clock and entropy, backoff, tasks, telemetry.
//!
//! There is no other way to read time or randomness, or to start a task; lints forbid the rest.

mod backoff;
mod clock;
mod tasks;
pub mod telemetry;

pub use backoff::Backoff;
pub use clock::{Clock, Entropy, SeededEntropy, SimulatedClock, SystemClock, SystemEntropy};
pub use tasks::Tasks;

//! What every shell room uses, and nothing else: the clock and entropy, backoff, files, lines, sealed values, tasks,
//! telemetry, trust.
//!
//! There is no other way to read time or randomness, or to start a task; lints forbid the rest.

mod backoff;
mod clock;
pub mod files;
mod lines;
pub mod sealed;
mod tasks;
pub mod telemetry;
pub mod trust;

pub use backoff::Backoff;
pub use clock::{Clock, Entropy, SeededEntropy, SimulatedClock, SystemClock, SystemEntropy};
pub use lines::{Backwards, Lines, Place, Series};
pub use tasks::{Hold, Tasks};

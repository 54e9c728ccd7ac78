//! What a simulation answers: its trace and its verdict. Plain data.

use std::fmt;
use std::time::Duration;

/// A simulation that has ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub seed: u64,
    /// Every step, event, answer and change of what runs, with its simulated time.
    pub trace: Vec<String>,
    /// How long the fleet needed to settle after everything was healed.
    pub settled_in: Duration,
    /// The machine was so busy that real time may have come in: the history may differ from another of the seed.
    pub was_starved: bool,
    pub violation: Option<Violation>,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An acknowledged request is not in the view.
    #[error("acknowledged and lost: {0}")]
    Lost(String),
    /// More units of one slot run than its disconnect rule allows.
    #[error("too many units of one slot run: {0}")]
    Doubled(String),
    /// A node was judged lost although it was never away.
    #[error("judged lost without a reason: {0}")]
    Misjudged(String),
    /// The fleet did not come to rest with exactly what is wanted.
    #[error("not settled: {0}")]
    Unsettled(String),
    /// A program ended that must not end.
    #[error("a program failed: {0}")]
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violation {
            None => write!(
                f,
                "seed {}: all held, settled in {:.1} s",
                self.seed,
                self.settled_in.as_secs_f64()
            ),
            Some(violation) => write!(
                f,
                "seed {}: {violation}\nreplay it with: cargo run -p hostler-sim -- --seed {} --trace",
                self.seed, self.seed
            ),
        }
    }
}

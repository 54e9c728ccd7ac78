//! How much real time a simulation was given. Nothing in it is to depend on that, and one thing does: HTTP/2 remembers
//! a stream that it has reset for a second of the real clock, and answers what comes for one that it has forgotten.
//! So a history is the seed's alone where what was on its way to such a stream came within that second. Nothing fails.

use std::time::Duration;

use hostler_kit::{Clock as _, SystemClock};

/// Longer than anything is on its way: the slowest link, the longest hold, and the silence that ends a connection.
const SPAN: Duration = Duration::from_secs(10);
/// What a span may take in real time. Two of them lie around any other of that length, and are within the second.
const MOST: Duration = Duration::from_millis(500);

/// Measures spans of simulated time, one after the other.
pub(crate) struct Pace {
    real: SystemClock,
    /// When the present span began, in simulated and in real time.
    begun: (Duration, Duration),
    slowest: Duration,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let real = SystemClock::new();
        Self {
            begun: (Duration::ZERO, real.uptime()),
            real,
            slowest: Duration::ZERO,
        }
    }

    /// Told after every tick.
    pub(crate) fn tick(&mut self, now: Duration) {
        let real = self.real.uptime();
        let (begun, really_begun) = self.begun;
        self.slowest = self.slowest.max(real.saturating_sub(really_begun));
        if now >= begun + SPAN {
            self.begun = (now, real);
        }
    }

    /// Whether the machine was too busy to keep real time out.
    pub(crate) fn was_starved(&self) -> bool {
        self.slowest > MOST
    }
}

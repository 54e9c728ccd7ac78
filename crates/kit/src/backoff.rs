//! Growing waits between tries, with jitter so that many do not come back at the same instant.

use std::time::Duration;

use crate::Entropy;

/// Doubles from `first` to `most`; each wait is drawn from the upper half of its span.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// A fresh sequence.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            tries: 0,
        }
    }

    /// How long to wait before the next try.
    pub fn next(&mut self, entropy: &dyn Entropy) -> Duration {
        let span = self
            .first
            .saturating_mul(1 << self.tries.min(20))
            .min(self.most);
        self.tries = self.tries.saturating_add(1);
        let half = span / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(entropy.next_u64() % nanos)
    }

    /// Starts anew after a success.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn waits_grow_to_the_most_and_start_anew() {
        let entropy = SeededEntropy::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next(&entropy);
            let span = Duration::from_millis(expected);
            assert!(wait >= span / 2 && wait <= span, "{wait:?} of {span:?}");
        }
        backoff.reset();
        assert!(backoff.next(&entropy) <= Duration::from_millis(100));
    }
}

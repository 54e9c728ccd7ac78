//! Moments as data. Reading the clock is `kit`'s business; here a moment is only a number that prints well.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC. Stored as that number, shown as RFC 3339.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that many milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Seconds since the Unix epoch with a fraction, as MIaaS writes moments.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "2^53 ms is the year 287396")]
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// Time since `earlier`; zero if the clock went backwards.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Reads RFC 3339 text, or `None` if it is no moment after 1970.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(moment.as_millisecond()).ok().map(Self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = i64::try_from(self.0)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        match moment {
            Some(moment) => write!(f, "{moment:.3}"),
            None => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_prints_as_rfc_3339_and_reads_back() {
        let moment = Timestamp::from_millis(1_759_856_899_560);
        assert_eq!(moment.to_string(), "2025-10-07T17:08:19.560Z");
        assert_eq!(Timestamp::parse("2025-10-07T17:08:19.560Z"), Some(moment));
    }

    #[test]
    fn a_clock_that_went_backwards_gives_no_time_passed() {
        let late = Timestamp::from_millis(10);
        assert_eq!(Timestamp::from_millis(5).since(late), Duration::ZERO);
    }
}

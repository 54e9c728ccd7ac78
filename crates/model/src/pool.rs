//! Pools: where a kind of machine can be rented on the spot market, and at what price.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An amount of money, or a price per hour, in billionths of a dollar: exact where prices have six decimals.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(i64);

/// A pool's name, `<instance type>.<zone>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolId(String);

/// A kind of machine in a zone, with the prices that agents last saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub id: PoolId,
    pub instance_type: String,
    pub region: String,
    pub zone: String,
    /// On the spot market; none if only the on-demand price is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spot: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<Money>,
    /// When an agent last reported a price of it.
    pub seen_at: Timestamp,
}

/// The price of a pool in five minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    pub pool: PoolId,
    /// Counts spans of [`Quote::SPAN_MS`] since 1970.
    pub bucket: u64,
    pub spot: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand: Option<Money>,
    pub source: QuoteSource,
}

/// Whose word a quote is, the most trusted last. Of equals the first is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuoteSource {
    ReplicaManual,
    ReplicaAutomatic,
    Primary,
}

impl Money {
    pub const ZERO: Self = Self(0);
    const PER_DOLLAR: f64 = 1e9;

    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// An amount in dollars, rounded; none if it is beyond what can be counted.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let nanos = (dollars * Self::PER_DOLLAR).round();
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
        (nanos.abs() < 9e18).then_some(Self(nanos as i64))
    }

    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "beyond 2^53 the cents are exact still"
    )]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / Self::PER_DOLLAR
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    #[must_use]
    pub const fn times(self, count: i64) -> Self {
        Self(self.0.saturating_mul(count))
    }
}

impl PoolId {
    /// Most bytes of a name; it is a part of keys of the store.
    pub const BYTES: usize = 128;

    /// The pool with that name, if it can be one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_fit = (1..=Self::BYTES).contains(&name.len()) && name.chars().all(is_plain);
        is_fit.then(|| Self(name.to_owned()))
    }

    /// The pool of a kind of machine in a zone.
    #[must_use]
    pub fn of(instance_type: &str, zone: &str) -> Option<Self> {
        let is_known = !instance_type.is_empty() && !zone.is_empty();
        is_known
            .then(|| Self::new(&format!("{instance_type}.{zone}")))
            .flatten()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Pool {
    /// The name for people.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} ({})", self.instance_type, self.zone)
    }
}

impl Quote {
    /// How long one quote stands.
    pub const SPAN_MS: u64 = 5 * 60 * 1000;
    /// Quotes that are kept of each pool: a week.
    pub const KEPT: u64 = 7 * 24 * 12;

    /// The bucket that a moment falls in.
    #[must_use]
    pub const fn bucket_of(at: Timestamp) -> u64 {
        at.as_millis() / Self::SPAN_MS
    }

    /// Where in its pool's ring the quote lies.
    #[must_use]
    pub const fn slot(&self) -> u64 {
        self.bucket % Self::KEPT
    }

    /// When its five minutes begin.
    #[must_use]
    pub const fn begins(&self) -> Timestamp {
        Timestamp::from_millis(self.bucket.saturating_mul(Self::SPAN_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_comes_back_as_it_was_written() {
        for dollars in [0.0, 0.0416, 0.0123, 0.1, 1.234_567, -0.05] {
            let money = Money::from_dollars(dollars).unwrap();
            assert!(
                (money.as_dollars() - dollars).abs() < f64::EPSILON,
                "{dollars}"
            );
            assert_eq!(
                serde_json::to_string(&money.as_dollars()).unwrap(),
                serde_json::to_string(&dollars).unwrap()
            );
        }
        for odd in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(Money::from_dollars(odd), None);
        }
    }

    #[test]
    fn only_a_plain_word_is_a_pool() {
        assert_eq!(
            PoolId::of("t3.medium", "ap-south-1a").unwrap().as_str(),
            "t3.medium.ap-south-1a"
        );
        for odd in ["", "a/b", "a b", &"x".repeat(129)] {
            assert_eq!(PoolId::new(odd), None);
        }
        assert_eq!(PoolId::of("", "a"), None);
    }
}

//! Accounts: on whose behalf rented machines are looked after. Each has one token, which its agents carry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AccountId, Money, Timestamp};

/// Whose machines they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub id: AccountId,
    /// Unique among accounts.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub token: Token,
    pub status: AccountStatus,
    pub created_at: Timestamp,
    /// What switches have saved so far, beyond the switches that are kept.
    #[serde(default)]
    pub savings: Savings,
    /// Which notices a person has read.
    #[serde(default)]
    pub read: ReadMarks,
}

/// Whether the agents of an account are listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountStatus {
    Active,
    Suspended,
}

/// What an agent shows to speak for an account. It is never printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

/// Money saved by switches, as far as they tell their prices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Savings {
    pub total: Money,
    /// By month, such as `2025-11`; the last [`Savings::MONTHS`] with a switch.
    pub months: BTreeMap<String, Month>,
}

/// What the switches of one month came to, each counted for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Month {
    pub saved: Money,
    /// At on-demand prices.
    pub baseline: Money,
    /// At the prices that were switched to.
    pub paid: Money,
}

/// The notices that were read: all up to a number, and some behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadMarks {
    pub through: u64,
    pub beyond: BTreeSet<u64>,
}

impl Token {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be shown to whoever may see it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it is this text. How long that takes tells nothing of where they differ.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        if self.0.len() != text.len() {
            return false;
        }
        let pairs = self.0.bytes().zip(text.bytes());
        let differing = pairs.fold(0, |seen, (a, b)| std::hint::black_box(seen | (a ^ b)));
        differing == 0 && !self.0.is_empty()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Savings {
    /// Months that are kept.
    pub const MONTHS: usize = 24;

    /// Adds a switch that was made at that moment.
    pub fn add(&mut self, at: Timestamp, month: Month) {
        self.total = self.total.plus(month.saved);
        let name: String = at.to_string().chars().take(7).collect();
        let kept = self.months.entry(name).or_default();
        kept.saved = kept.saved.plus(month.saved);
        kept.baseline = kept.baseline.plus(month.baseline);
        kept.paid = kept.paid.plus(month.paid);
        while self.months.len() > Self::MONTHS {
            self.months.pop_first();
        }
    }
}

impl ReadMarks {
    /// Single marks that are kept; beyond them the oldest mark takes everything before it along.
    pub const BEYOND: usize = 512;

    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        number <= self.through || self.beyond.contains(&number)
    }

    pub fn mark(&mut self, number: u64) {
        if number > self.through {
            self.beyond.insert(number);
        }
        while self.beyond.len() > Self::BEYOND {
            self.through = self.beyond.pop_first().unwrap_or(self.through);
        }
    }

    pub fn mark_through(&mut self, number: u64) {
        self.through = self.through.max(number);
        let through = self.through;
        self.beyond.retain(|mark| *mark > through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_from_others_and_never_printed() {
        let token = Token::new("token-abc");
        assert!(token.is("token-abc"));
        for other in ["", "token-abd", "token-ab", "token-abcd"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!Token::new("").is(""), "no token is not a token");
        assert!(!format!("{token:?}").contains("abc"));
    }

    #[test]
    fn months_and_marks_are_bounded() {
        let mut savings = Savings::default();
        let day = 24 * 3_600_000;
        for month in 0..40 {
            let saved = Month {
                saved: Money::from_nanos(1),
                ..Month::default()
            };
            savings.add(Timestamp::from_millis(month * 31 * day), saved);
        }
        assert_eq!(savings.months.len(), Savings::MONTHS);
        assert_eq!(savings.total, Money::from_nanos(40));
        assert!(savings.months.keys().all(|name| name.len() == 7));

        let mut read = ReadMarks::default();
        for number in (2..=2_000).step_by(2) {
            read.mark(number);
        }
        assert_eq!(read.beyond.len(), ReadMarks::BEYOND);
        assert!(read.has(2) && read.has(2_000) && !read.has(1_999));
        read.mark_through(3_000);
        assert!(read.has(1_999) && read.beyond.is_empty());
    }
}

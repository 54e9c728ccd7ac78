//! The table of held leases, for engines whose process is the only one that commits.
//!
//! Owned by the engine, which keeps [`Leases::last`] on disk if it has one: a number is never given twice.
//! Time is the engine's uptime. A lease that has run out is nobody's, even before somebody takes it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::LeaseToken;

/// Who holds what, and the last number given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leases {
    held: BTreeMap<String, Holding>,
    last: u64,
}

#[derive(Debug, Clone)]
struct Holding {
    number: u64,
    until: Duration,
}

impl Leases {
    /// An empty table that goes on counting after `last`.
    pub(crate) const fn counting_from(last: u64) -> Self {
        Self {
            held: BTreeMap::new(),
            last,
        }
    }

    /// The last number given.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Takes or renews; `None` when somebody else holds it.
    pub(crate) fn take(
        &mut self,
        name: &str,
        span: (Duration, Duration),
        token: Option<&LeaseToken>,
    ) -> Option<LeaseToken> {
        let (now, ttl) = span;
        let until = now.saturating_add(ttl);
        if let Some(holding) = self.held.get_mut(name)
            && holding.until > now
        {
            let renews = token.is_some_and(|t| t.name == name && t.number == holding.number);
            if !renews {
                return None;
            }
            holding.until = until;
            return Some(LeaseToken {
                name: name.to_owned(),
                number: holding.number,
            });
        }
        self.last += 1;
        self.held.insert(
            name.to_owned(),
            Holding {
                number: self.last,
                until,
            },
        );
        Some(LeaseToken {
            name: name.to_owned(),
            number: self.last,
        })
    }

    /// Whether the token is the present holder's.
    pub(crate) fn holds(&self, token: &LeaseToken, now: Duration) -> bool {
        self.held
            .get(&token.name)
            .is_some_and(|holding| holding.number == token.number && holding.until > now)
    }

    /// Gives a lease back; a token that is not the holder's does nothing.
    pub(crate) fn release(&mut self, token: &LeaseToken) {
        if self
            .held
            .get(&token.name)
            .is_some_and(|holding| holding.number == token.number)
        {
            self.held.remove(&token.name);
        }
    }

    /// Takes every lease from its holder.
    pub(crate) fn revoke_all(&mut self) {
        self.held.clear();
    }
}

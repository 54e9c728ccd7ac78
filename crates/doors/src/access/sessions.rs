//! Sessions of people with a browser, in memory alone: a server that starts anew knows none.
//!
//! ```text
//!   a good token ──begin──► a cookie, and here its hash ──► the token's id, looked up with each request
//!                                ends: with the token, after 12 hours, when it is asked to, with the server
//! ```
//!
//! They are bounded in number, for each token and in all; beyond, the one that has least time left ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_kit::Clock;
use hostler_kit::trust::Secret;
use hostler_model::TokenId;
use tokio::sync::watch;

/// How long a session lasts, used or not.
pub(super) const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Sessions of one token.
const MOST_OF_ONE: usize = 16;
/// Sessions of all.
const MOST: usize = 1_024;

/// The sessions of one server.
pub(super) struct Sessions {
    clock: Arc<dyn Clock>,
    /// By the hash of the cookie.
    open: Mutex<BTreeMap<String, Open>>,
    /// Marked whenever one may have ended before its time.
    changes: watch::Sender<()>,
}

/// A session as it is kept.
#[derive(Debug, Clone, Copy)]
struct Open {
    token: TokenId,
    ends_at: Duration,
}

impl Sessions {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            open: Mutex::new(BTreeMap::new()),
            changes: watch::Sender::new(()),
        }
    }

    /// Lets the cookie stand for the token.
    pub(super) fn begin(&self, cookie: &Secret, token: TokenId) {
        let now = self.clock.uptime();
        let mut open = self.open();
        open.retain(|_, it| it.ends_at > now);
        while open.values().filter(|it| it.token == token).count() >= MOST_OF_ONE {
            end_first(&mut open, |it| it.token == token);
        }
        while open.len() >= MOST {
            end_first(&mut open, |_| true);
        }
        let ends_at = now + LIFE;
        open.insert(cookie.hash(), Open { token, ends_at });
        drop(open);
        self.changes.send_replace(());
    }

    /// The token that the cookie stands for, and for how long yet.
    pub(super) fn find(&self, cookie: &Secret) -> Option<(TokenId, Duration)> {
        let now = self.clock.uptime();
        let open = self.open();
        let known = open.get(&cookie.hash())?;
        let left = known.ends_at.saturating_sub(now);
        (!left.is_zero()).then_some((known.token, left))
    }

    pub(super) fn end(&self, cookie: &Secret) {
        self.open().remove(&cookie.hash());
        self.changes.send_replace(());
    }

    /// Is marked whenever a session may have ended before its time.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the one that has least time left of those that are meant.
fn end_first(open: &mut BTreeMap<String, Open>, is_meant: impl Fn(&Open) -> bool) {
    let meant = open.iter().filter(|(_, it)| is_meant(it));
    let first = meant.min_by_key(|(_, it)| it.ends_at);
    if let Some(first) = first.map(|(hash, _)| hash.clone()) {
        open.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_kit::SimulatedClock;
    use hostler_model::Timestamp;

    fn sessions() -> Sessions {
        Sessions::new(Arc::new(SimulatedClock::starting_at(0)))
    }

    fn cookie(number: usize) -> Secret {
        Secret::given(format!("cookie {number}"))
    }

    fn token(number: u128) -> TokenId {
        TokenId::mint(Timestamp::from_millis(0), number)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_its_time_and_when_it_is_asked_to() {
        let sessions = sessions();
        sessions.begin(&cookie(1), token(1));
        tokio::time::advance(LIFE / 2).await;
        sessions.begin(&cookie(2), token(1));
        tokio::time::advance(LIFE / 2 - Duration::from_secs(1)).await;
        let left = Duration::from_secs(1);
        assert_eq!(sessions.find(&cookie(1)), Some((token(1), left)));
        tokio::time::advance(left).await;
        assert_eq!(sessions.find(&cookie(1)), None);
        assert!(sessions.find(&cookie(2)).is_some());
        sessions.end(&cookie(2));
        assert_eq!(sessions.find(&cookie(2)), None);
        assert!(!format!("{:?}", sessions.open()).contains("cookie"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_token_ends_its_own_sessions_alone_and_all_are_bounded() {
        let sessions = sessions();
        sessions.begin(&cookie(0), token(1));
        for number in 1..=MOST_OF_ONE * 2 {
            tokio::time::advance(Duration::from_secs(1)).await;
            sessions.begin(&cookie(number), token(2));
        }
        assert!(sessions.find(&cookie(0)).is_some());
        assert!(sessions.find(&cookie(MOST_OF_ONE)).is_none());
        assert!(sessions.find(&cookie(MOST_OF_ONE + 1)).is_some());
        for number in 100..100 + MOST {
            tokio::time::advance(Duration::from_secs(1)).await;
            sessions.begin(&cookie(number), token(number as u128));
        }
        assert_eq!(sessions.open().len(), MOST);
        assert!(sessions.find(&cookie(0)).is_none());
        assert!(sessions.find(&cookie(99 + MOST)).is_some());
    }
}

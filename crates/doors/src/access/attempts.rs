//! How often an address may show what is worth nothing, and how often it is worth a line of the log: bounded in rate and
//! in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_kit::Clock;

use crate::listener::network;

/// How often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// As many may come at once …
    burst: u32,
    /// … and one more each time this has passed.
    refill: Duration,
}

/// Failed attempts.
pub(super) const FAILURES: Rate = Rate {
    burst: 20,
    refill: Duration::from_secs(3),
};
/// Lines of the log about refusals.
pub(super) const LINES: Rate = Rate {
    burst: 1,
    refill: Duration::from_secs(60),
};
/// Addresses that are remembered. Beyond, the one that has been quiet for longest is forgotten.
const MOST_ADDRESSES: usize = 4_096;

/// Counts what comes, by address.
pub(super) struct Attempts {
    rate: Rate,
    clock: Arc<dyn Clock>,
    /// When each address will have all of its attempts back.
    whole_at: Mutex<BTreeMap<IpAddr, Duration>>,
}

impl Attempts {
    pub(super) fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        Self {
            rate,
            clock,
            whole_at: Mutex::new(BTreeMap::new()),
        }
    }

    /// Whether the address has used up what it may.
    fn is_exhausted(&self, addr: IpAddr) -> bool {
        let (addr, now) = (network(addr), self.clock.uptime());
        let whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let whole_at = whole_at.get(&addr);
        let Rate { burst, refill } = self.rate;
        whole_at.is_some_and(|at| *at + refill > now + refill * burst)
    }

    /// Counts one; answers whether it was still allowed.
    pub(super) fn count(&self, addr: IpAddr) -> bool {
        if self.is_exhausted(addr) {
            return false;
        }
        let (addr, now) = (network(addr), self.clock.uptime());
        let mut whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = whole_at.get(&addr).copied().unwrap_or(now).max(now);
        if whole_at.len() >= MOST_ADDRESSES && !whole_at.contains_key(&addr) {
            whole_at.retain(|_, at| *at > now);
            if whole_at.len() >= MOST_ADDRESSES {
                let quietest = whole_at.iter().min_by_key(|(_, at)| **at);
                if let Some(addr) = quietest.map(|(addr, _)| *addr) {
                    whole_at.remove(&addr);
                }
            }
        }
        whole_at.insert(addr, begun + self.rate.refill);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_kit::SimulatedClock;

    fn attempts() -> Attempts {
        Attempts::new(FAILURES, Arc::new(SimulatedClock::starting_at(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_tries_too_often_waits_and_others_do_not() {
        let attempts = attempts();
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..FAILURES.burst {
            assert!(attempts.count(one));
        }
        assert!(!attempts.count(one) && attempts.count(other));
        tokio::time::advance(FAILURES.refill).await;
        assert!(attempts.count(one) && !attempts.count(one));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_worth_one_line_of_the_log_for_each_address_and_minute() {
        let lines = Attempts::new(LINES, Arc::new(SimulatedClock::starting_at(0)));
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert!(lines.count(one) && lines.count(other));
        for _ in 0..100 {
            assert!(!lines.count(one));
        }
        tokio::time::advance(LINES.refill).await;
        assert!(lines.count(one) && !lines.count(one));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_version_six_counts_as_one_and_memory_is_bounded() {
        let attempts = attempts();
        for last in 0..20 {
            let addr = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
            assert!(attempts.count(addr));
        }
        assert!(!attempts.count("2001:db8::ffff".parse().unwrap()));
        for number in 0..10_000_u32 {
            attempts.count(IpAddr::from(number.to_be_bytes()));
        }
        assert!(attempts.whole_at.lock().unwrap().len() <= MOST_ADDRESSES);
    }
}

//! How often an address may show what is worth nothing: bounded in rate and in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hostler_kit::Clock;

use crate::listener::network;

/// As many may come at once …
const BURST: u32 = 20;
/// … and one more each time this has passed.
const REFILL: Duration = Duration::from_secs(3);
/// Addresses that are remembered. Beyond, the one that has been quiet for longest is forgotten.
const MOST_ADDRESSES: usize = 4_096;

/// Counts failed attempts by address.
pub(super) struct Attempts {
    clock: Arc<dyn Clock>,
    /// When each address will have all of its attempts back.
    whole_at: Mutex<BTreeMap<IpAddr, Duration>>,
}

impl Attempts {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            whole_at: Mutex::new(BTreeMap::new()),
        }
    }

    /// Whether the address has used up what it may.
    fn is_exhausted(&self, addr: IpAddr) -> bool {
        let (addr, now) = (network(addr), self.clock.uptime());
        let whole_at = self.whole_at.lock().unwrap_or_else(PoisonError::into_inner);
        let whole_at = whole_at.get(&addr);
        whole_at.is_some_and(|at| *at + REFILL > now + REFILL * BURST)
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
        whole_at.insert(addr, begun + REFILL);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostler_kit::SimulatedClock;

    fn attempts() -> Attempts {
        Attempts::new(Arc::new(SimulatedClock::starting_at(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_tries_too_often_waits_and_others_do_not() {
        let attempts = attempts();
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..BURST {
            assert!(attempts.count(one));
        }
        assert!(!attempts.count(one) && attempts.count(other));
        tokio::time::advance(REFILL).await;
        assert!(attempts.count(one) && !attempts.count(one));
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

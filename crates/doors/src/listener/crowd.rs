//! Who is connected: counts, so that nobody takes all the room and strangers keep no member out.
//!
//! A connection begins as a stranger's. On a port with TLS it becomes a member's once it has proved to hold a key of
//! the fleet; members do not count by address, for a thousand of them may be behind one. Strangers may fill three
//! quarters of such a port. Beyond that who comes may still shake hands, within the last quarter, and is sent away
//! if that makes no member of them.
//!
//! The crowd owns its counts, which are no more than the connections. Nothing can fail.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostler_kit::trust::Print;
use tokio::time::Instant;

/// Connections of one key that count as a member's: an agent, its successor, and what they left half open.
const MOST_PER_KEY: usize = 16;
/// How often at most the log says that connections are refused.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How many may be connected to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In all; more wait in the kernel's queue.
    pub connections: usize,
    /// From one address (of IPv6: one network of 64 bits) without a member's key; more are closed at once.
    pub per_address: usize,
}

impl Default for Caps {
    /// Enough for five thousand nodes without TLS behind one address, and commands beside them.
    fn default() -> Self {
        Self {
            connections: 20_000,
            per_address: 6_000,
        }
    }
}

/// The connections of a port. Clones are one.
#[derive(Debug, Clone)]
pub struct Crowd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    caps: Caps,
    counts: Mutex<Counts>,
    crowded: AtomicU64,
    of_address: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    addresses: BTreeMap<IpAddr, usize>,
    keys: BTreeMap<Print, usize>,
    /// Strangers that have shaken hands.
    settled: usize,
    /// When the log said last that somebody was refused.
    told: Option<Instant>,
}

/// How many there are, and were sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrowdCounts {
    pub strangers: usize,
    pub members: usize,
    /// For as many were there from their address.
    pub refused_of_address: u64,
    /// For strangers had taken their share.
    pub refused_crowded: u64,
}

/// One connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Guest {
    crowd: Crowd,
    addr: SocketAddr,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Arriving(IpAddr),
    Stranger(IpAddr),
    Member(Print),
}

impl Crowd {
    /// Nobody yet.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        Self(Arc::new(Inner {
            caps,
            counts: Mutex::default(),
            crowded: AtomicU64::new(0),
            of_address: AtomicU64::new(0),
        }))
    }

    /// How many there are now.
    #[must_use]
    pub fn counts(&self) -> CrowdCounts {
        let counts = self.lock();
        CrowdCounts {
            strangers: counts.addresses.values().sum(),
            members: counts.keys.values().sum(),
            refused_of_address: self.0.of_address.load(Ordering::Relaxed),
            refused_crowded: self.0.crowded.load(Ordering::Relaxed),
        }
    }

    pub(super) fn caps(&self) -> Caps {
        self.0.caps
    }

    /// A place for who comes from there; none if too many did.
    pub(super) fn arrive(&self, addr: SocketAddr) -> Option<Guest> {
        let network = network(addr.ip());
        let mut counts = self.lock();
        let count = counts.addresses.get(&network).copied().unwrap_or(0);
        if count >= self.0.caps.per_address {
            self.refuse(counts, addr, &self.0.of_address);
            return None;
        }
        counts.addresses.insert(network, count + 1);
        drop(counts);
        Some(Guest {
            crowd: self.clone(),
            addr,
            place: Place::Arriving(network),
        })
    }

    fn refuse(&self, mut counts: MutexGuard<'_, Counts>, addr: SocketAddr, counter: &AtomicU64) {
        let refused = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let is_told = counts.told.is_some_and(|at| at.elapsed() < TELL_EVERY);
        if !is_told {
            counts.told = Some(Instant::now());
            drop(counts);
            let caps = self.0.caps;
            tracing::warn!(%addr, refused, ?caps, "connections are refused: too many are open");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Takes the place that is due to whoever has shaken hands with that key, or with none; answers whether there is
    /// one.
    pub(super) fn settle(&mut self, key: Option<Print>) -> bool {
        let Place::Arriving(network) = self.place else {
            return true;
        };
        let crowd = self.crowd.clone();
        let mut counts = crowd.lock();
        let known = key.filter(|key| counts.keys.get(key).copied().unwrap_or(0) < MOST_PER_KEY);
        if let Some(key) = known {
            leave(&mut counts.addresses, &network);
            *counts.keys.entry(key).or_default() += 1;
            self.place = Place::Member(key);
            return true;
        }
        let most = crowd.0.caps.connections;
        if counts.settled >= most - most / 4 {
            crowd.refuse(counts, self.addr, &crowd.0.crowded);
            return false;
        }
        counts.settled += 1;
        self.place = Place::Stranger(network);
        true
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.crowd.lock();
        match self.place {
            Place::Arriving(network) => leave(&mut counts.addresses, &network),
            Place::Stranger(network) => {
                counts.settled = counts.settled.saturating_sub(1);
                leave(&mut counts.addresses, &network);
            }
            Place::Member(key) => leave(&mut counts.keys, &key),
        }
    }
}

/// One less; who has none is forgotten.
fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, who: &K) {
    if let Some(count) = counts.get_mut(who) {
        *count -= 1;
        if *count == 0 {
            counts.remove(who);
        }
    }
}

/// Who has one address of IPv6 has a network of them.
pub(crate) fn network(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(_) => addr,
        IpAddr::V6(addr) => match addr.to_ipv4_mapped() {
            Some(addr) => IpAddr::V4(addr),
            None => {
                let [a, b, c, d, ..] = addr.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        connections: 40,
        per_address: 20,
    };

    fn addr(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_a_network_of_version_six_is_one() {
        let crowd = Crowd::new(CAPS);
        let all: Vec<_> = (0..20)
            .map(|last| crowd.arrive(addr(&format!("2001:db8::{last:x}"))).unwrap())
            .collect();
        assert!(crowd.arrive(addr("2001:db8::ffff")).is_none());
        assert!(crowd.arrive(addr("10.0.0.1")).is_some());
        drop(all);
        assert!(crowd.arrive(addr("2001:db8::ffff")).is_some());
        let counts = crowd.counts();
        assert_eq!((counts.strangers, counts.refused_of_address), (0, 1));
        assert!(crowd.lock().addresses.is_empty(), "nothing is left");
    }

    #[tokio::test]
    async fn members_leave_the_share_of_their_address_and_one_key_is_not_many() {
        let crowd = Crowd::new(CAPS);
        let key = Print::of(b"key");
        let mut guests = Vec::new();
        for _ in 0..MOST_PER_KEY {
            let mut guest = crowd.arrive(addr("10.0.0.1")).unwrap();
            assert!(guest.settle(Some(key)) && guest.settle(Some(key)));
            guests.push(guest);
        }
        assert_eq!(crowd.counts().strangers, 0);
        let mut another = crowd.arrive(addr("10.0.0.1")).unwrap();
        assert!(another.settle(Some(key)));
        let counts = crowd.counts();
        assert_eq!((counts.members, counts.strangers), (MOST_PER_KEY, 1));
        drop((guests, another));
        assert!(crowd.lock().keys.is_empty() && crowd.lock().settled == 0);
    }

    #[tokio::test]
    async fn strangers_fill_three_quarters_and_members_come_in_beyond() {
        let crowd = Crowd::new(CAPS);
        let mut guests = Vec::new();
        for number in 0..30_u8 {
            let mut guest = crowd.arrive(addr(&format!("10.0.0.{number}"))).unwrap();
            assert!(guest.settle(None));
            guests.push(guest);
        }
        let mut stranger = crowd.arrive(addr("10.0.1.1")).unwrap();
        assert!(!stranger.settle(None));
        let mut member = crowd.arrive(addr("10.0.1.1")).unwrap();
        assert!(member.settle(Some(Print::of(b"key"))));
        assert_eq!(crowd.counts().refused_crowded, 1);
    }
}

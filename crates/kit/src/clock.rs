//! Time and randomness behind seams.
//!
//! Two times are told apart. *Wall time* is for people and records; it may jump. *Uptime* only moves
//! forward and is what every span, lease and deadline is measured with.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The only way to read time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump in either direction.
    fn wall_millis(&self) -> u64;

    /// Time since an arbitrary fixed point in the life of this process. Never goes backwards; a suspended
    /// machine does not count.
    fn uptime(&self) -> Duration;
}

/// The only source of randomness.
pub trait Entropy: Send + Sync + 'static {
    /// 64 fresh random bits.
    fn next_u64(&self) -> u64;

    /// 128 fresh random bits.
    fn next_u128(&self) -> u128 {
        u128::from(self.next_u64()) << 64 | u128::from(self.next_u64())
    }
}

/// The machine's clock. Uptime is tokio's, so paused time in tests works.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

/// A clock for simulations: uptime is tokio's simulated time, wall time is that plus an offset that tests move.
#[derive(Debug)]
pub struct SimulatedClock {
    start: Instant,
    wall_at_start: AtomicU64,
}

/// The kernel's randomness.
#[derive(Debug, Default)]
pub struct SystemEntropy;

/// Repeatable randomness (splitmix64) for simulations and tests.
#[derive(Debug)]
pub struct SeededEntropy {
    state: Mutex<u64>,
}

impl SystemClock {
    /// Starts counting uptime now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn wall_millis(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

impl SimulatedClock {
    /// A clock that shows `wall_millis` now.
    #[must_use]
    pub fn starting_at(wall_millis: u64) -> Self {
        Self {
            start: Instant::now(),
            wall_at_start: AtomicU64::new(wall_millis),
        }
    }

    /// Makes the wall clock jump; uptime does not notice.
    pub fn jump(&self, millis: i64) {
        let moved = |wall: u64| Some(wall.saturating_add_signed(millis));
        let _ = self
            .wall_at_start
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }
}

impl Clock for SimulatedClock {
    fn wall_millis(&self) -> u64 {
        let passed = u64::try_from(self.uptime().as_millis()).unwrap_or(u64::MAX);
        self.wall_at_start
            .load(Ordering::Relaxed)
            .saturating_add(passed)
    }

    fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            match rustix::rand::getrandom(&mut bytes[filled..], flags) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no randomness: {error}"),
            }
        }
        u64::from_ne_bytes(bytes)
    }
}

impl SeededEntropy {
    /// The same seed gives the same numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(seed),
        }
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_wall_clock_leaves_uptime_alone() {
        let clock = SimulatedClock::starting_at(1_000_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        clock.jump(-3_600_000);
        assert_eq!(clock.uptime(), Duration::from_secs(5));
        assert_eq!(
            clock.wall_millis(),
            5_000,
            "the wall stops at the epoch, not before it"
        );
        clock.jump(3_600_000);
        assert_eq!(clock.wall_millis(), 3_605_000);
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (a, b) = (SeededEntropy::new(7), SeededEntropy::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert_ne!(
            SeededEntropy::new(8).next_u64(),
            SeededEntropy::new(7).next_u64()
        );
    }
}

//! Time in the simulation. The timeline belongs to the simulation; each host reads it as uptime since its
//! program started, and as a wall clock that jumps when the scenario says so. Nothing fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use hostler_kit::Clock;
use tokio::runtime::Handle;

/// What wall clocks show when a simulation begins.
const WALL_AT_START: u64 = 1_700_000_000_000;

/// The simulated time, readable from within hosts and from outside.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// When the present tick began.
    tick_nanos: AtomicU64,
}

/// How far a host's wall clock is off, in milliseconds. Outlives its programs.
#[derive(Debug, Default)]
pub(crate) struct Wall(AtomicI64);

/// The clock of one program, or of one machine, on a host.
#[derive(Debug)]
pub(crate) struct HostClock {
    timeline: Arc<Timeline>,
    wall: Arc<Wall>,
    start: Duration,
}

impl Timeline {
    /// Told by the simulation before every tick.
    pub(crate) fn set(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.tick_nanos.store(nanos, Ordering::Relaxed);
    }

    /// Within a host's program time is exact; elsewhere, as while a crash drops one, it is that of the tick.
    pub(crate) fn now(&self) -> Duration {
        let tick = Duration::from_nanos(self.tick_nanos.load(Ordering::Relaxed));
        if Handle::try_current().is_err() {
            return tick;
        }
        turmoil::sim_elapsed().unwrap_or(tick)
    }
}

impl Wall {
    pub(crate) fn jump(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl HostClock {
    /// A clock whose uptime begins now.
    pub(crate) fn starting_now(timeline: &Arc<Timeline>, wall: &Arc<Wall>) -> Self {
        Self {
            timeline: Arc::clone(timeline),
            wall: Arc::clone(wall),
            start: timeline.now(),
        }
    }
}

impl Clock for HostClock {
    fn wall_millis(&self) -> u64 {
        let passed = u64::try_from(self.timeline.now().as_millis()).unwrap_or(u64::MAX);
        (WALL_AT_START + passed).saturating_add_signed(self.wall.0.load(Ordering::Relaxed))
    }

    fn uptime(&self) -> Duration {
        self.timeline.now().saturating_sub(self.start)
    }
}

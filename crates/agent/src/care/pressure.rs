//! Judges what the machine is short of. Pure; owned by the watch over pressure.
//!
//! ```text
//!            ── used ≥ starts, at two looks in succession ──►
//!   at ease                                                   under pressure
//!            ◄── used < starts - 5, for half a minute ────────
//! ```
//!
//! The gap and the time keep a figure that wavers from turning the fleet's mind at each look. Of the first look of an
//! agent's life one is enough: an agent that was restarted must not let copies in that the one before kept out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hostler_model::Pressure;

/// So far below its start a pressure ends, in hundredths.
const EASE: u64 = 5;
/// Looks in succession that begin a pressure.
const LOOKS: u32 = 2;
/// How long it has to be well before a pressure ends.
const LASTING: Duration = Duration::from_secs(30);

/// From how many hundredths in use on there is pressure; 100 and more is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub memory: u64,
    pub disk: u64,
    pub inodes: u64,
    pub pids: u64,
}

/// What the looks so far have come to.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    signs: BTreeMap<Pressure, Sign>,
    has_looked: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sign {
    is_on: bool,
    /// Looks in succession above the start.
    above: u32,
    /// Since when it is well, by uptime.
    well_since: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 95,
            disk: 95,
            inodes: 95,
            pids: 90,
        }
    }
}

impl Limits {
    const fn starts(&self, pressure: Pressure) -> u64 {
        match pressure {
            Pressure::Memory => self.memory,
            Pressure::Disk => self.disk,
            Pressure::Inodes => self.inodes,
            Pressure::Pids => self.pids,
        }
    }
}

impl Gauge {
    /// Takes a look in: the hundredths in use, where they are known. Answers what the machine is short of.
    pub(super) fn take(
        &mut self,
        used: &BTreeMap<Pressure, u64>,
        limits: &Limits,
        uptime: Duration,
    ) -> BTreeSet<Pressure> {
        let needed = if self.has_looked { LOOKS } else { 1 };
        self.has_looked = true;
        for (pressure, used) in used {
            let starts = limits.starts(*pressure);
            let sign = self.signs.entry(*pressure).or_default();
            sign.take(*used, starts, (needed, uptime));
        }
        // What is not known any more says nothing of what was.
        let on = self.signs.iter().filter(|(_, sign)| sign.is_on);
        on.map(|(pressure, _)| *pressure).collect()
    }
}

impl Sign {
    fn take(&mut self, used: u64, starts: u64, (needed, uptime): (u32, Duration)) {
        let is_above = used >= starts && starts < 100;
        self.above = if is_above { self.above + 1 } else { 0 };
        let is_well = starts >= 100 || used < starts.saturating_sub(EASE);
        self.well_since = is_well.then(|| self.well_since.unwrap_or(uptime));
        if self.above >= needed {
            self.is_on = true;
        }
        let lasted = self.well_since.map(|since| uptime.saturating_sub(since));
        if lasted.is_some_and(|lasted| lasted >= LASTING) {
            self.is_on = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        memory: 95,
        disk: 95,
        inodes: 95,
        pids: 100,
    };

    /// Looks every five seconds at the disk alone; answers when it was under pressure.
    fn looks(used: &[u64]) -> Vec<bool> {
        let mut gauge = Gauge::default();
        let look = |(at, used): (u64, &u64)| {
            let used = BTreeMap::from([(Pressure::Disk, *used)]);
            let short_of = gauge.take(&used, &LIMITS, Duration::from_secs(at * 5));
            !short_of.is_empty()
        };
        (0..).zip(used).map(look).collect()
    }

    #[test]
    fn a_pressure_starts_at_the_second_look_and_at_the_first_of_all() {
        assert_eq!(looks(&[10, 95, 96]), [false, false, true]);
        assert_eq!(looks(&[10, 95, 10, 95]), [false; 4]);
        assert_eq!(looks(&[95]), [true]);
    }

    #[test]
    fn a_pressure_ends_when_it_has_been_well_for_half_a_minute() {
        let mut used = vec![97, 94, 90, 89];
        used.extend([80; 7]);
        let on = looks(&used);
        assert_eq!(on.iter().filter(|on| **on).count(), 9, "{on:?}");
        let wavering: Vec<u64> = [97, 80, 80, 80, 80, 80, 90].repeat(4);
        assert!(looks(&wavering).iter().all(|on| *on));
    }

    #[test]
    fn what_is_not_known_changes_nothing_and_a_hundred_is_never() {
        let mut gauge = Gauge::default();
        let full = BTreeMap::from([(Pressure::Disk, 99), (Pressure::Pids, 100)]);
        let at = Duration::from_secs;
        let disk = BTreeSet::from([Pressure::Disk]);
        assert_eq!(gauge.take(&full, &LIMITS, at(0)), disk);
        assert_eq!(gauge.take(&BTreeMap::new(), &LIMITS, at(900)), disk);
        let off = Limits {
            disk: 100,
            ..LIMITS
        };
        gauge.take(&full, &off, at(905));
        assert!(gauge.take(&full, &off, at(935)).is_empty(), "switched off");
    }

    proptest! {
        #[test]
        fn it_never_turns_twice_within_half_a_minute_of_its_end(used in prop::collection::vec(0..=100_u64, 1..80)) {
            let on = looks(&used);
            for (at, pair) in on.windows(2).enumerate() {
                if pair == [true, false] {
                    let well = &used[at.saturating_sub(5)..=at + 1];
                    prop_assert!(well.iter().all(|used| *used < 90), "{well:?}");
                }
                if pair == [false, true] {
                    prop_assert!(used[at] >= 95 && used[at + 1] >= 95);
                }
            }
        }
    }
}

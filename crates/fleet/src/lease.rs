//! Leases: the right of a node to be believed alive, renewed by its beats. Pure rules; the shell that
//! receives the beats owns one [`Lease`] per node in memory and asks it again and again.
//!
//! ```text
//!   beat ──► Alive ──(late)──► Suspect ──(window over)──► Silent
//!              ▲──────────────────┴──────── beat ───────────┘
//! ```
//!
//! - *Alive*: beats come as expected.
//! - *Suspect*: the last beat is longer ago than is usual on this link.
//! - *Silent*: the window is over; the node is to be declared lost.
//!
//! Time is uptime: a span since some start, never the wall clock, which jumps. The window follows what the
//! link has shown: it widens at once when beats come late or not at all, and narrows slowly. A clean link
//! is judged fast, a bad one with patience. A new lease begins with a full window, twice the base, because
//! nothing is known of the link. Lateness of the judge itself is no silence of the node.

use std::time::Duration;

/// How leases are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRules {
    /// The interval at which nodes are told to beat.
    pub beat: Duration,
    /// Silence on a clean link after which a node is lost.
    pub window: Duration,
    /// Silence after which a node is suspect, on a clean link.
    pub suspect_after: Duration,
    /// The widest window, however bad the link.
    pub most: Duration,
}

/// What is to be thought of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Alive,
    Suspect,
    Silent,
}

/// The lease of one node.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    rules: LeaseRules,
    last: Duration,
    /// How long judges were late since the last beat.
    paused: Duration,
    /// Mean time between beats and its mean deviation, in seconds.
    mean: f64,
    deviation: f64,
    beats: u32,
}

/// The window covers the mean and so many deviations. With 30 % loss the deviation is 0.7 beats or more, so
/// that at least 15 beats in a row must be lost, which happens once in 10⁷.
const DEVIATIONS: f64 = 20.0;
/// How much of a surprise is believed at once.
const ATTACK: f64 = 0.25;
/// How fast trust comes at the start, and how slowly it comes back after trouble.
const SETTLING: f64 = 0.125;
const DECAY: f64 = 1.0 / 128.0;
/// Beats after which the start is over.
const SETTLING_BEATS: u32 = 16;

impl LeaseRules {
    /// The rules for a beat: the window is five beats, the widest thirty.
    #[must_use]
    pub fn for_beat(beat: Duration) -> Self {
        Self {
            beat,
            window: beat.saturating_mul(5),
            suspect_after: beat.saturating_mul(5) / 2,
            most: beat.saturating_mul(30),
        }
    }
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self::for_beat(Duration::from_secs(1))
    }
}

impl Lease {
    /// A lease that begins now, full. After a start or a takeover every node gets one.
    #[must_use]
    pub fn new(rules: LeaseRules, now: Duration) -> Self {
        let beat = rules.beat.as_secs_f64();
        let full = rules.window.as_secs_f64() * 2.0;
        Self {
            rules,
            last: now,
            paused: Duration::ZERO,
            mean: beat,
            deviation: (full - beat).max(0.0) / DEVIATIONS,
            beats: 0,
        }
    }

    /// The node was heard of.
    pub fn beat(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last).saturating_sub(self.paused);
        self.last = self.last.max(now);
        self.paused = Duration::ZERO;
        self.beats = self.beats.saturating_add(1);
        self.learn(gap.as_secs_f64());
    }

    /// What is to be thought of the node now. `paused` is how long the judge was late since it last asked,
    /// or its process suspended: that time does not count against the node.
    pub fn judge(&mut self, now: Duration, paused: Duration) -> Verdict {
        self.paused = self.paused.saturating_add(paused);
        let silence = now.saturating_sub(self.last).saturating_sub(self.paused);
        let window = self.window();
        if silence >= window {
            Verdict::Silent
        } else if silence >= self.rules.suspect_after.max(window / 2) {
            Verdict::Suspect
        } else {
            Verdict::Alive
        }
    }

    /// The silence that makes the node lost, by what its link has shown.
    #[must_use]
    pub fn window(&self) -> Duration {
        let learned = DEVIATIONS.mul_add(self.deviation, self.mean).max(0.0);
        let learned = Duration::try_from_secs_f64(learned).unwrap_or(self.rules.most);
        learned.clamp(self.rules.window, self.rules.most.max(self.rules.window))
    }

    /// When the node was last heard of.
    #[must_use]
    pub const fn last_beat(&self) -> Duration {
        self.last
    }

    fn learn(&mut self, gap: f64) {
        // One endless silence teaches no more than that the widest window is needed.
        let gap = gap.min(self.rules.most.as_secs_f64());
        let calm = if self.beats <= SETTLING_BEATS {
            SETTLING
        } else {
            DECAY
        };
        // Beats that come early, as those in a heap after a gap or those of an agent that is set to beat more often,
        // say nothing bad of the link.
        let usual = gap.max(self.rules.beat.as_secs_f64());
        let surprise = (usual - self.mean).abs();
        let pace = |rises: bool| if rises { ATTACK } else { calm };
        self.deviation += pace(surprise > self.deviation) * (surprise - self.deviation);
        self.mean += pace(usual > self.mean) * (usual - self.mean);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_millis(200);

    /// Small and seeded, so that a week of beats is the same week in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (bits ^ (bits >> 31)) % sides
        }
    }

    fn clean(beats: u32) -> (Lease, Duration) {
        let mut lease = Lease::new(LeaseRules::default(), Duration::ZERO);
        for beat in 1..=beats {
            lease.beat(SECOND * beat);
        }
        (lease, SECOND * beats)
    }

    fn silent_after(lease: &mut Lease, from: Duration) -> Duration {
        let mut now = from;
        while lease.judge(now, Duration::ZERO) != Verdict::Silent {
            now += TICK;
        }
        now - from
    }

    #[test]
    fn a_new_lease_is_full() {
        let start = SECOND * 1000;
        let mut lease = Lease::new(LeaseRules::default(), start);
        let full = silent_after(&mut lease, start);
        assert!(full >= LeaseRules::default().window, "{full:?}");
    }

    #[test]
    fn a_clean_link_is_judged_within_six_seconds() {
        for beats in [10, 60, 3600] {
            let (mut lease, now) = clean(beats);
            let took = silent_after(&mut lease, now);
            assert!(took <= SECOND * 6, "after {beats} beats: {took:?}");
        }
    }

    #[test]
    fn a_link_with_jitter_alone_is_judged_within_six_seconds() {
        let mut dice = Dice(7);
        let mut lease = Lease::new(LeaseRules::default(), Duration::ZERO);
        let mut last = Duration::ZERO;
        for beat in 1..=3600_u32 {
            last = SECOND * beat + Duration::from_millis(dice.roll(100));
            lease.beat(last);
        }
        let took = silent_after(&mut lease, last);
        assert!(took <= SECOND * 6, "{took:?}");
    }

    #[test]
    fn a_node_is_suspect_before_it_is_silent() {
        let (mut lease, now) = clean(100);
        assert_eq!(lease.judge(now + SECOND, Duration::ZERO), Verdict::Alive);
        assert_eq!(
            lease.judge(now + SECOND * 3, Duration::ZERO),
            Verdict::Suspect
        );
        assert_eq!(
            lease.judge(now + SECOND * 5, Duration::ZERO),
            Verdict::Silent
        );
        lease.beat(now + SECOND * 6);
        assert_eq!(
            lease.judge(now + SECOND * 6, Duration::ZERO),
            Verdict::Alive
        );
    }

    #[test]
    fn thirty_percent_loss_with_jitter_makes_no_node_lost_in_a_week() {
        const WEEK: u32 = 7 * 24 * 3600;
        for seed in 1..=4 {
            let mut dice = Dice(seed);
            let mut lease = Lease::new(LeaseRules::default(), Duration::ZERO);
            let mut false_losses = 0;
            for beat in 1..=WEEK {
                let arrival = SECOND * beat + Duration::from_millis(dice.roll(501));
                if dice.roll(100) < 30 {
                    continue;
                }
                // The judge asks all the time; just before the next beat the silence is longest.
                if lease.judge(arrival, Duration::ZERO) == Verdict::Silent {
                    false_losses += 1;
                }
                lease.beat(arrival);
            }
            assert_eq!(false_losses, 0, "seed {seed}");
        }
    }

    #[test]
    fn beats_that_come_more_often_than_asked_for_widen_no_window() {
        let rules = LeaseRules {
            beat: SECOND * 30,
            window: SECOND * 90,
            suspect_after: SECOND * 60,
            most: SECOND * 300,
        };
        let mut lease = Lease::new(rules, Duration::ZERO);
        for beat in 1..=60_u32 {
            lease.beat(SECOND * 5 * beat);
        }
        assert_eq!(lease.window(), rules.window);
    }

    #[test]
    fn a_suspended_judge_holds_nothing_against_a_node() {
        let (mut lease, now) = clean(100);
        let woken = now + Duration::from_secs(3600);
        assert_eq!(
            lease.judge(woken, Duration::from_secs(3599)),
            Verdict::Alive
        );
        assert_eq!(lease.judge(woken + SECOND, Duration::ZERO), Verdict::Alive);
        assert_eq!(
            lease.judge(woken + SECOND * 6, Duration::ZERO),
            Verdict::Silent
        );
    }

    #[test]
    fn after_trouble_the_window_narrows_again() {
        let (mut lease, mut now) = clean(100);
        for _ in 0..20 {
            now += SECOND * 4;
            lease.beat(now);
        }
        assert!(lease.window() > SECOND * 8, "{:?}", lease.window());
        for _ in 0..1200 {
            now += SECOND;
            lease.beat(now);
        }
        assert_eq!(lease.window(), SECOND * 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_window_stays_within_its_bounds(gaps in prop::collection::vec(0..600_000_u64, 0..100)) {
            let rules = LeaseRules::default();
            let mut lease = Lease::new(rules, Duration::ZERO);
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += Duration::from_millis(gap);
                lease.beat(now);
                prop_assert!(lease.window() >= rules.window && lease.window() <= rules.most);
                prop_assert_eq!(lease.judge(now, Duration::ZERO), Verdict::Alive);
                let end = now + lease.window();
                prop_assert_eq!(lease.judge(end, Duration::ZERO), Verdict::Silent);
            }
        }
    }
}

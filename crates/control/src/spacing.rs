//! How far apart the beats of a node that polls come. Its agent chooses the interval by itself, so it can be set so
//! long that the lease hardly holds two beats, and then one that is lost makes the node lost.
//!
//! Owned by the node's live entry; nothing here is written to disk, and nothing can fail.

use std::time::Duration;

use hostler_fleet::LeaseRules;

/// Gaps that are looked at: the least of them is the usual one, so that an outage or a lost beat is no habit.
const GAPS: usize = 3;
/// How many beats the lease should hold; the interval that is advised follows from it.
const BEATS: u32 = 3;
/// What comes within this part of the interval belongs to the beat before.
const ECHO: u32 = 16;

/// The last gaps between beats.
#[derive(Debug, Default)]
pub(crate) struct Spacing {
    last: Option<Duration>,
    gaps: [Duration; GAPS],
    noted: usize,
    is_told: bool,
}

/// Beats come so rarely that the lease does not hold enough of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rare {
    pub(crate) usual: Duration,
    /// The longest interval with which the lease holds enough.
    pub(crate) advised: Duration,
}

impl Spacing {
    /// Whether what comes now belongs to the last beat: an agent that says two things says them together.
    pub(crate) fn is_echo(&self, now: Duration, rules: LeaseRules) -> bool {
        let gap = self.last.map(|last| now.saturating_sub(last));
        gap.is_some_and(|gap| gap < rules.beat / ECHO)
    }

    /// A beat came. Answers once when beats have become too rare, and again only after they were not.
    pub(crate) fn note(&mut self, now: Duration, rules: LeaseRules) -> Option<Rare> {
        let gap = self.last.map(|last| now.saturating_sub(last));
        self.last = Some(now);
        if let Some(gap) = gap {
            self.gaps[self.noted % GAPS] = gap;
            self.noted += 1;
        }
        let rare = self.rare(rules);
        let is_news = rare.is_some() && !self.is_told;
        self.is_told = rare.is_some();
        rare.filter(|_| is_news)
    }

    /// The usual time between two beats, once there were enough.
    pub(crate) fn usual(&self) -> Option<Duration> {
        let least = self.gaps.iter().min().copied();
        least.filter(|_| self.noted >= GAPS)
    }

    /// Whether beats come too rarely now. Half a beat is let pass: agents sleep for their interval and then work.
    pub(crate) fn rare(&self, rules: LeaseRules) -> Option<Rare> {
        let usual = self.usual()?;
        let is_rare = usual.saturating_mul(BEATS * 2 - 1) > rules.window.saturating_mul(2);
        is_rare.then(|| Rare {
            usual,
            advised: rules.window / BEATS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn orchion() -> LeaseRules {
        LeaseRules {
            beat: SECOND * 5,
            window: SECOND * 30,
            suspect_after: SECOND * 20,
            most: SECOND * 300,
        }
    }

    /// Beats after these gaps, and how often it was told.
    fn told(spacing: &mut Spacing, now: &mut Duration, gaps: &[u32]) -> Vec<Rare> {
        let beat = |gap: &u32| {
            *now += SECOND * *gap;
            let is_beat = !spacing.is_echo(*now, orchion());
            is_beat.then(|| spacing.note(*now, orchion())).flatten()
        };
        gaps.iter().filter_map(beat).collect()
    }

    #[test]
    fn beats_that_are_too_rare_are_told_once_and_again_after_they_were_not() {
        let (mut spacing, mut now) = (Spacing::default(), Duration::ZERO);
        let rare = Rare {
            usual: SECOND * 20,
            advised: SECOND * 10,
        };
        assert_eq!(
            told(&mut spacing, &mut now, &[0, 20, 20, 20, 20, 20]),
            [rare]
        );
        assert_eq!(spacing.rare(orchion()), Some(rare));
        assert_eq!(told(&mut spacing, &mut now, &[5, 5, 5]), []);
        assert_eq!(spacing.rare(orchion()), None);
        assert_eq!(told(&mut spacing, &mut now, &[20, 20, 20, 20]), [rare]);
    }

    #[test]
    fn the_interval_of_the_contract_with_the_work_behind_it_is_well() {
        let (mut spacing, mut now) = (Spacing::default(), Duration::ZERO);
        assert_eq!(told(&mut spacing, &mut now, &[5; 20]), []);
        assert_eq!(
            told(&mut spacing, &mut now, &[11; 20]),
            [],
            "a third of the lease and a second"
        );
        assert_eq!(spacing.usual(), Some(SECOND * 11));
    }

    #[test]
    fn an_outage_is_no_habit_and_what_is_said_together_is_one_beat() {
        let (mut spacing, mut now) = (Spacing::default(), Duration::ZERO);
        assert_eq!(told(&mut spacing, &mut now, &[5, 5, 600, 5, 5]), []);
        let pairs = [20, 0, 20, 0, 20, 0];
        assert_eq!(told(&mut spacing, &mut now, &pairs).len(), 1);
    }
}

//! How often a copy was applied without coming to run, and when it may be applied again. Pure.
//!
//! ```text
//!   failures:          1, 2 at once · then 5 s doubling to 2 min · five of them, and 2 min after the first: given up
//!   gone or stopped:   1, 2, 3 at once · then 45 s doubling to 15 min
//! ```
//!
//! Running, another revision and a retry that is asked for begin anew.

use std::time::Duration;

/// As many failures are enough to give up.
pub(crate) const MOST: u32 = 5;
/// No failure gives up sooner after the first.
const GRACE: Duration = Duration::from_secs(120);
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));
const AFTER_LOSS: (Duration, Duration) = (Duration::from_secs(45), Duration::from_secs(900));
/// Whatever a copy is told to do again waits as long, so that nothing spins.
const LEAST: Duration = Duration::from_millis(500);

/// Codes that no further try mends.
const TERMINAL: [&str; 4] = [
    "INVALID_IMAGE",
    "INVALID_SPECIFICATION",
    "INVALID_CONFIGURATION",
    "PORT_BIND_CONFLICT",
];

#[derive(Debug, Clone, Default)]
pub(crate) struct Tries {
    pub(crate) attempts: u32,
    failures: u32,
    /// The attempt whose failure was counted: agents say it again and again.
    counted: Option<u32>,
    first_failure: Option<Duration>,
    not_before: Duration,
    is_given_up: bool,
}

impl Tries {
    /// It is applied now.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.attempts += 1;
        let wait = match self.attempts {
            0..3 => LEAST,
            tries => grown(AFTER_LOSS, tries - 3),
        };
        self.not_before = now + wait;
    }

    /// The agent said that it failed.
    pub(crate) fn fail(&mut self, now: Duration, code: &str, is_terminal: bool) {
        if self.counted.replace(self.attempts) == Some(self.attempts) {
            return;
        }
        self.failures += 1;
        let first = *self.first_failure.get_or_insert(now);
        self.not_before = now
            + match self.failures {
                0..3 => LEAST,
                failures => grown(AFTER_FAILURE, failures - 3),
            };
        let is_over = self.failures >= MOST && now >= first + GRACE;
        self.is_given_up = is_over || is_terminal || TERMINAL.contains(&code);
    }

    pub(crate) fn may(&self, now: Duration) -> bool {
        !self.is_given_up && now >= self.not_before
    }

    pub(crate) const fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// How long until it may be applied again; nothing if it never may.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        (!self.is_given_up).then(|| self.not_before.saturating_sub(now))
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

fn grown((first, most): (Duration, Duration), doublings: u32) -> Duration {
    first.saturating_mul(1 << doublings.min(16)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn two_failures_are_tried_again_at_once_and_five_are_enough_after_the_grace() {
        let mut tries = Tries::default();
        let mut waits = Vec::new();
        for _ in 0..6 {
            tries.begin(at(0));
            tries.fail(at(0), "RUNTIME_ERROR", false);
            tries.fail(at(0), "RUNTIME_ERROR", false);
            waits.push(tries.wait(at(0)).unwrap().as_secs());
        }
        assert_eq!(waits, [0, 0, 5, 10, 20, 40]);
        assert!(!tries.is_given_up(), "within the grace");
        tries.begin(at(121));
        tries.fail(at(121), "RUNTIME_ERROR", false);
        assert!(tries.is_given_up() && !tries.may(at(9_999)));
        tries.reset();
        assert!(tries.may(at(121)));
    }

    #[test]
    fn a_cause_that_no_try_mends_gives_up_at_once() {
        let mut tries = Tries::default();
        tries.fail(at(0), "INVALID_IMAGE", false);
        assert!(tries.is_given_up());
        let mut tries = Tries::default();
        tries.fail(at(0), "WHATEVER", true);
        assert!(tries.is_given_up());
    }

    #[test]
    fn what_keeps_vanishing_is_applied_ever_more_seldom() {
        let mut tries = Tries::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            tries.begin(at(0));
            waits.push(tries.wait(at(0)).unwrap().as_secs());
        }
        assert_eq!(waits, [0, 0, 45, 90, 180, 360, 720, 900, 900]);
    }
}

//! What the reconciler remembers of a unit beside intent and observation: the step in progress, troubles,
//! how often it ended in short succession, when it may be tried again.
//!
//! Only how a unit finished, and how its crash loop began, is on disk. All else is forgotten with the agent, and
//! that is fine: after a restart of the agent the first restart of a unit comes at once, as for a unit that never
//! ended before.
//!
//! ```text
//!   short run ──► first end kept ──► CRASH_LOOP short runs ──► crash loop ──► a run that lasts ──► forgotten
//!                       └───────────── a run that lasts ──────────────────────────▲
//! ```

use std::sync::Arc;
use std::time::Duration;

use hostler_model::spec::Restart;
use hostler_model::{CrashLoop, Exit, Health, Part, Timestamp, WorkloadId, spec::Kind};
use hostler_runtime::FoundState;

use crate::ledger::Finished;

/// First wait after a step that failed; each further failure doubles it.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Longest wait between tries of a step that keeps failing.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// So many short runs in succession make a crash loop.
pub(crate) const CRASH_LOOP: u32 = 3;

/// One moment in both times: uptime to measure with, wall time to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) uptime: Duration,
    pub(crate) wall: Timestamp,
}

impl Moment {
    pub(crate) fn later(self, span: Duration) -> Self {
        Self {
            uptime: self.uptime + span,
            wall: self.wall.plus(span),
        }
    }
}

/// A unit as its driver found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) workload: WorkloadId,
    pub(crate) state: FoundState,
    pub(crate) runs: u32,
    /// What it is made of, for people.
    pub(crate) parts: Vec<Part>,
}

/// The step in progress on a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Preparing,
    Starting,
    Stopping,
    Removing,
}

/// A step that failed, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) retry: Moment,
    tries: u32,
}

/// What the reconciler remembers of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) doing: Option<Doing>,
    /// How far a preparation has come, for people.
    pub(crate) detail: String,
    pub(crate) trouble: Option<Trouble>,
    /// When the unit, which ended, may be started again.
    pub(crate) restart: Option<Moment>,
    pub(crate) finished: Option<Finished>,
    /// The agent stopped it because contact was lost for too long; it is to run again once there is contact.
    pub(crate) is_fenced: bool,
    /// An operator asked that nothing be kept of a unit that has finished.
    pub(crate) is_unwanted: bool,
    /// What the health check says of the present run; none without a check, or while nothing runs.
    pub(crate) health: Option<Health>,
    /// The run that the agent stopped because it went wrong, and as what its end counts.
    pub(crate) broken_off: Option<(u32, Exit)>,
    /// How the first of the short runs in succession ended.
    pub(crate) first_end: Option<Arc<CrashLoop>>,
    /// The log of that run is to be read.
    pub(crate) wants_log: bool,
    /// So many of them came in succession that this is shown, and kept on disk.
    pub(crate) is_crash_looping: bool,
    /// Short runs in succession.
    streak: u32,
    /// The run whose end was counted last.
    counted: u32,
    since: Option<Timestamp>,
}

impl Note {
    /// Takes notice of how the unit is found. Answers whether a crash loop began or ended with it.
    pub(crate) fn see(&mut self, seen: &Seen, rules: &Restart, now: Moment) -> bool {
        let was_crash_looping = self.is_crash_looping;
        match &seen.state {
            FoundState::Prepared => {}
            FoundState::Running { since } => {
                self.since = Some(*since);
                self.restart = None;
                if now.wall.since(*since) > lasting(rules) && !self.is_unhealthy() {
                    self.recover();
                }
            }
            FoundState::Exited { exit, at } if self.counted != seen.runs => {
                self.counted = seen.runs;
                let health = self.health.take();
                let lasted = self.since.take().map(|since| at.since(since));
                if lasted.is_some_and(|lasted| lasted > lasting(rules)) {
                    self.recover();
                }
                self.restart = Some(now.later(restart_delay(rules, self.streak)));
                self.streak = self.streak.saturating_add(1);
                self.keep_end(seen.runs, (self.exit_of(seen.runs, *exit), *at), health);
            }
            FoundState::Exited { .. } => {}
        }
        was_crash_looping != self.is_crash_looping
    }

    /// How a run counts as ended: what the agent broke off has not ended as its process says.
    pub(crate) fn exit_of(&self, run: u32, exit: Exit) -> Exit {
        match self.broken_off {
            Some((broken, counts_as)) if broken == run => counts_as,
            _ => exit,
        }
    }

    /// The crash loop, if it is in one.
    pub(crate) fn crash_loop(&self) -> Option<Arc<CrashLoop>> {
        self.first_end.clone().filter(|_| self.is_crash_looping)
    }

    /// A crash loop that an earlier agent put on record.
    pub(crate) fn recall(&mut self, crash_loop: Option<Arc<CrashLoop>>) {
        self.is_crash_looping = crash_loop.is_some();
        self.first_end = crash_loop;
    }

    pub(crate) const fn is_unhealthy(&self) -> bool {
        matches!(self.health, Some(Health::Unhealthy { .. }))
    }

    /// A run lasts.
    fn recover(&mut self) {
        (self.streak, self.first_end) = (0, None);
        (self.is_crash_looping, self.wants_log) = (false, false);
    }

    fn keep_end(&mut self, run: u32, (exit, at): (Exit, Timestamp), health: Option<Health>) {
        // What was stopped because the node was cut off did not end early by itself.
        if self.is_fenced {
            return;
        }
        if self.first_end.is_none() {
            let log = match (exit, health) {
                (Exit::Unhealthy, Some(Health::Unhealthy { why })) => {
                    vec![format!("the health check failed: {why}")]
                }
                _ => Vec::new(),
            };
            self.first_end = Some(Arc::new(CrashLoop { exit, at, run, log }));
            self.wants_log = true;
        }
        self.is_crash_looping |= self.streak >= CRASH_LOOP;
    }

    /// What a step failed of is there now.
    pub(crate) fn try_again(&mut self, code: &str, now: Moment) {
        if let Some(trouble) = self.trouble.as_mut().filter(|it| it.code == code) {
            (trouble.retry, trouble.tries) = (now, 0);
        }
    }

    /// A step failed.
    pub(crate) fn failed(&mut self, code: &'static str, message: String, now: Moment) {
        let tries = self.trouble.as_ref().map_or(0, |trouble| trouble.tries);
        let wait = FIRST_RETRY
            .saturating_mul(1 << tries.min(16))
            .min(LONGEST_RETRY);
        let retry = now.later(wait);
        self.trouble = Some(Trouble {
            code,
            message,
            retry,
            tries: tries + 1,
        });
    }
}

/// A run that is longer than this lasts.
pub(crate) const fn lasting(rules: &Restart) -> Duration {
    Duration::from_millis(rules.max_delay_ms)
}

/// The first restart comes at once, the second after the delay, each further after twice as long.
fn restart_delay(rules: &Restart, streak: u32) -> Duration {
    let Some(doublings) = streak.checked_sub(1) else {
        return Duration::ZERO;
    };
    let delay = rules.delay_ms.saturating_mul(1 << doublings.min(32));
    Duration::from_millis(delay.min(rules.max_delay_ms))
}

#[cfg(test)]
mod tests {
    use hostler_model::Exit;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment {
            uptime: Duration::from_millis(millis),
            wall: Timestamp::from_millis(millis),
        }
    }

    fn seen(state: FoundState, runs: u32) -> Seen {
        let workload = WorkloadId::mint(Timestamp::from_millis(1), 1);
        Seen {
            kind: Kind::Process,
            workload,
            state,
            runs,
            parts: Vec::new(),
        }
    }

    fn one_run(note: &mut Note, run: u32, from: u64, to: u64) -> Duration {
        let rules = Restart {
            delay_ms: 100,
            max_delay_ms: 1000,
            ..Restart::default()
        };
        note.see(
            &seen(
                FoundState::Running {
                    since: at(from).wall,
                },
                run,
            ),
            &rules,
            at(from),
        );
        let ended = FoundState::Exited {
            exit: Exit::Code(1),
            at: at(to).wall,
        };
        note.see(&seen(ended.clone(), run), &rules, at(to));
        let due = note.restart.unwrap();
        note.see(&seen(ended, run), &rules, at(to + 7));
        assert_eq!(note.restart, Some(due), "seen twice, counted once");
        due.uptime.saturating_sub(at(to).uptime)
    }

    #[test]
    fn the_first_restart_comes_at_once_and_the_next_ones_wait_twice_as_long_each() {
        let mut note = Note::default();
        let waits: Vec<u128> = (1..=7)
            .map(|run| one_run(&mut note, run, 10, 20).as_millis())
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_long_run_starts_the_count_anew() {
        let mut note = Note::default();
        assert_eq!(one_run(&mut note, 1, 0, 10), Duration::ZERO);
        assert_eq!(one_run(&mut note, 2, 20, 30), Duration::from_millis(100));
        assert_eq!(one_run(&mut note, 3, 100, 5_000), Duration::ZERO);
        assert_eq!(
            one_run(&mut note, 4, 5_001, 5_002),
            Duration::from_millis(100)
        );
    }

    #[test]
    fn short_runs_in_succession_are_a_crash_loop_that_keeps_its_beginning_until_a_run_lasts() {
        let mut note = Note::default();
        one_run(&mut note, 1, 10, 20);
        one_run(&mut note, 2, 30, 40);
        assert_eq!(note.crash_loop(), None);
        assert!(note.wants_log, "the first end may be the beginning");
        one_run(&mut note, 3, 50, 60);
        let first = note.crash_loop().unwrap();
        assert_eq!(
            (first.run, first.at, first.exit),
            (1, at(20).wall, Exit::Code(1))
        );
        one_run(&mut note, 4, 70, 80);
        assert_eq!(note.crash_loop().unwrap(), first);

        let rules = Restart {
            max_delay_ms: 1000,
            ..Restart::default()
        };
        let running = seen(
            FoundState::Running {
                since: at(100).wall,
            },
            5,
        );
        assert!(!note.see(&running, &rules, at(1100)));
        assert!(note.crash_loop().is_some(), "it has not lasted yet");
        note.health = Some(Health::Unhealthy { why: "x".into() });
        assert!(
            !note.see(&running, &rules, at(1101)),
            "it does not run well"
        );
        note.health = Some(Health::Healthy);
        assert!(note.see(&running, &rules, at(1101)));
        assert_eq!(note.crash_loop(), None);
    }

    #[test]
    fn what_the_agent_broke_off_counts_as_such_and_what_was_fenced_is_no_crash() {
        let mut note = Note {
            broken_off: Some((1, Exit::Unhealthy)),
            ..Note::default()
        };
        one_run(&mut note, 1, 10, 20);
        assert_eq!(note.first_end.as_ref().unwrap().exit, Exit::Unhealthy);
        assert_eq!(note.exit_of(1, Exit::Code(0)), Exit::Unhealthy);
        assert_eq!(note.exit_of(2, Exit::Code(0)), Exit::Code(0));
        let mut fenced = Note {
            is_fenced: true,
            ..Note::default()
        };
        for run in 1..=5 {
            one_run(&mut fenced, run, 10, 20);
        }
        assert_eq!(fenced.crash_loop(), None);
    }

    #[test]
    fn a_step_that_keeps_failing_is_tried_less_and_less_often() {
        let mut note = Note::default();
        let mut waits = Vec::new();
        for _ in 0..9 {
            note.failed("node-io", "no".to_owned(), at(0));
            waits.push(note.trouble.as_ref().unwrap().retry.uptime.as_millis());
        }
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]
        );
    }
}

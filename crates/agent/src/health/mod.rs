//! Health of running copies: what a series of answers says of one run. Pure; [`ask`] gets the answers, the
//! reconciler says when. Nothing of it is on disk: a new agent begins to ask anew.
//!
//! ```text
//!            Starting ──`successes` in succession──► Healthy
//!               │  ▲                                   │ ▲
//!   `failures`  │  └ failures in the start period      │ │ `successes`
//!   after it    ▼    count for nothing     `failures`  ▼ │
//!            Unhealthy ◄───────────────────────── Unhealthy
//! ```

pub(crate) mod ask;

use std::time::Duration;

use hostler_model::Health;
use hostler_model::spec::HealthSpec;

/// What one check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Pass,
    /// With what is wrong, for people.
    Fail(String),
    /// Nothing is known: the engine does not answer, or has not decided yet.
    Undecided,
}

/// The health of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkup {
    state: Health,
    failures: u32,
    successes: u32,
    /// Uptime until which failures count for nothing, unless it was healthy before.
    start_ends: Duration,
    in_succession: u32,
    is_passing: bool,
}

impl Checkup {
    /// Of a run that has lasted for so long.
    pub(crate) fn new(spec: &HealthSpec, ran_for: Duration, uptime: Duration) -> Self {
        let start = Duration::from_millis(spec.start_period_ms).saturating_sub(ran_for);
        // An engine has counted already when it tells its own verdict.
        let (failures, successes) = match spec.native {
            true => (1, 1),
            false => (spec.failures, spec.successes),
        };
        Self {
            state: Health::Starting,
            failures,
            successes,
            start_ends: uptime + start,
            in_succession: 0,
            is_passing: false,
        }
    }

    pub(crate) const fn state(&self) -> &Health {
        &self.state
    }

    /// Takes an answer into account. A reason stays the one that decided until the state changes.
    pub(crate) fn take(&mut self, answer: Answer, uptime: Duration) {
        let why = match answer {
            Answer::Undecided => return,
            Answer::Pass => None,
            Answer::Fail(_) if self.is_excused(uptime) => return,
            Answer::Fail(why) => Some(why),
        };
        if self.is_passing != why.is_none() {
            (self.is_passing, self.in_succession) = (why.is_none(), 0);
        }
        self.in_succession = self.in_succession.saturating_add(1);
        match (why, &self.state) {
            (None, Health::Healthy) | (Some(_), Health::Unhealthy { .. }) => {}
            (None, _) if self.in_succession >= self.successes => self.state = Health::Healthy,
            (Some(why), _) if self.in_succession >= self.failures => {
                self.state = Health::Unhealthy { why };
            }
            (None | Some(_), _) => {}
        }
    }

    fn is_excused(&self, uptime: Duration) -> bool {
        self.state == Health::Starting && uptime < self.start_ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail() -> Answer {
        Answer::Fail("status 500".to_owned())
    }

    /// The states after each answer, one a second.
    fn told(spec: &HealthSpec, answers: &[Answer]) -> Vec<&'static str> {
        let mut checkup = Checkup::new(spec, Duration::ZERO, Duration::ZERO);
        let mut at = Duration::ZERO;
        let step = |answer: &Answer| {
            at += Duration::from_secs(1);
            checkup.take(answer.clone(), at);
            checkup.state().as_str()
        };
        answers.iter().map(step).collect()
    }

    #[test]
    fn only_so_many_answers_in_succession_decide() {
        let spec = HealthSpec {
            failures: 2,
            successes: 2,
            ..HealthSpec::default()
        };
        use Answer::{Pass, Undecided};
        let answers = [
            fail(),
            Pass,
            Pass,
            fail(),
            Pass,
            fail(),
            Undecided,
            fail(),
            Pass,
            fail(),
            Pass,
            Pass,
        ];
        let expected = [
            "starting",
            "starting",
            "healthy",
            "healthy",
            "healthy",
            "healthy",
            "healthy",
            "unhealthy",
            "unhealthy",
            "unhealthy",
            "unhealthy",
            "healthy",
        ];
        assert_eq!(told(&spec, &answers), expected);
    }

    #[test]
    fn failures_in_the_start_period_are_excused_until_the_first_success() {
        let spec = HealthSpec {
            failures: 1,
            start_period_ms: 2500,
            ..HealthSpec::default()
        };
        assert_eq!(
            told(&spec, &[fail(), fail(), fail()]),
            ["starting", "starting", "unhealthy"]
        );
        assert_eq!(
            told(&spec, &[Answer::Pass, fail()]),
            ["healthy", "unhealthy"]
        );
        let mut old = Checkup::new(&spec, Duration::from_secs(9), Duration::ZERO);
        old.take(fail(), Duration::from_millis(1));
        assert_eq!(
            old.state().as_str(),
            "unhealthy",
            "the period is over for a run that was found"
        );
    }

    #[test]
    fn the_reason_is_that_of_the_failure_that_decided() {
        let spec = HealthSpec {
            failures: 2,
            ..HealthSpec::default()
        };
        let mut checkup = Checkup::new(&spec, Duration::ZERO, Duration::ZERO);
        for why in ["one", "two", "three"] {
            checkup.take(Answer::Fail(why.to_owned()), Duration::ZERO);
        }
        let why = "two".to_owned();
        assert_eq!(checkup.state(), &Health::Unhealthy { why });
    }

    #[test]
    fn the_verdict_of_an_engine_counts_at_once() {
        let spec = HealthSpec {
            native: true,
            failures: 5,
            successes: 5,
            ..HealthSpec::default()
        };
        assert_eq!(
            told(&spec, &[Answer::Undecided, Answer::Pass, fail()]),
            ["starting", "healthy", "unhealthy"]
        );
    }
}

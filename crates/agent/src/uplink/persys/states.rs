//! What a workload is like, in Persys's words, from its record and what the reconciler shows. Pure.
//!
//! ```text
//!   Preparing, Starting, Waiting, Stopping ──► Pending       on its way; the node itself sees to it
//!   Failed, and tried again ─────────────────► Pending       with the cause
//!   Running ─────────────────────────────────► Running
//!   Finished: success, Gone ─────────────────► Stopped
//!   Finished: failure, Failed, given up ─────► Failed        with the cause
//!   Failed because its engine is silent ─────► Unknown       it may well run
//! ```

use std::collections::BTreeMap;

use hostler_model::{Exit, Timestamp, UnitId, UnitState};
use hostler_wire::persys::agent::{self, ActualState, DesiredState};
use hostler_wire::persys::control;

use super::causes::{self, Cause};
use super::core::Workload;
use super::records::Desired;
use crate::show::Picture;

/// What a workload is like now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    pub(super) actual: ActualState,
    pub(super) message: String,
    pub(super) cause: Option<Cause>,
    /// When it is tried again, if it will be.
    pub(super) retry_at: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended: Option<(Exit, Timestamp)>,
    /// Our own word for its state.
    pub(super) word: &'static str,
    pub(super) runs: u32,
    /// Nothing of it is left.
    pub(super) is_gone: bool,
}

impl Shown {
    fn plain(actual: ActualState, message: impl Into<String>) -> Self {
        Self {
            actual,
            message: message.into(),
            cause: None,
            retry_at: None,
            started_at: None,
            ended: None,
            word: "",
            runs: 0,
            is_gone: false,
        }
    }

    fn because(self, cause: Cause) -> Self {
        Self {
            cause: Some(cause),
            ..self
        }
    }

    /// Whether it came to an end although it is to run.
    pub(super) fn is_settled_otherwise(&self) -> bool {
        matches!(self.actual, ActualState::Failed | ActualState::Stopped)
    }
}

/// The state names of heartbeats.
pub(super) const fn name(actual: ActualState) -> &'static str {
    match actual {
        ActualState::Running => "Running",
        ActualState::Stopped => "Stopped",
        ActualState::Failed => "Failed",
        ActualState::Pending => "Pending",
        ActualState::Unspecified | ActualState::Unknown => "Unknown",
    }
}

pub(super) fn show(workload: &Workload, picture: &Picture) -> Shown {
    let record = &workload.record;
    let observed = picture.units.get(&workload.unit);
    let shown = match observed {
        Some(observed) => {
            let mut shown = of_state(&observed.state);
            shown.word = observed.state.as_str();
            shown.runs = observed.runs;
            shown
        }
        None => Shown::plain(ActualState::Pending, "the node takes it up"),
    };
    if let Some(given_up) = &record.given_up {
        return Shown::plain(ActualState::Failed, &given_up.message)
            .because(causes::of_driver(&given_up.code));
    }
    match (record.desired, &record.last_error) {
        (Desired::Stopped, Some(error)) if shown.actual == ActualState::Stopped => Shown {
            message: error.clone(),
            ..shown
        },
        _ => shown,
    }
}

fn of_state(state: &UnitState) -> Shown {
    match state {
        UnitState::Preparing { detail } if detail.is_empty() => {
            Shown::plain(ActualState::Pending, "preparing")
        }
        UnitState::Preparing { detail } => Shown::plain(ActualState::Pending, detail),
        UnitState::Starting => Shown::plain(ActualState::Pending, "starting"),
        UnitState::Stopping => Shown::plain(ActualState::Pending, "stopping"),
        UnitState::Running { since } => Shown {
            started_at: Some(*since),
            ..Shown::plain(ActualState::Running, "running")
        },
        UnitState::Waiting { exit, retry_at } => Shown {
            retry_at: Some(*retry_at),
            cause: (!exit.is_success()).then(|| causes::of_exit(*exit)),
            ..Shown::plain(
                ActualState::Pending,
                format!("it ended with {exit} and is started again"),
            )
        },
        UnitState::Failed {
            code,
            message,
            retry_at,
        } => {
            let cause = causes::of_driver(code);
            let actual = match code.as_str() {
                // It says nothing about its units.
                "engine-down" => ActualState::Unknown,
                // The node tries it again by itself.
                _ if cause.retryable => ActualState::Pending,
                _ => ActualState::Failed,
            };
            Shown {
                retry_at: (*retry_at != Timestamp::default()).then_some(*retry_at),
                ..Shown::plain(actual, message).because(cause)
            }
        }
        UnitState::Finished { exit, at } if exit.is_success() => Shown {
            ended: Some((*exit, *at)),
            ..Shown::plain(ActualState::Stopped, "it ended by itself")
        },
        UnitState::Finished { exit, at } => Shown {
            ended: Some((*exit, *at)),
            ..Shown::plain(ActualState::Failed, format!("it ended with {exit}"))
                .because(causes::of_exit(*exit))
        },
        UnitState::Gone => Shown {
            is_gone: true,
            ..Shown::plain(ActualState::Stopped, "stopped")
        },
    }
}

/// The status that answers of the agent carry.
pub(super) fn of_agent(
    workload: &Workload,
    shown: &Shown,
    changed: Timestamp,
) -> agent::WorkloadStatus {
    let record = &workload.record;
    agent::WorkloadStatus {
        id: record.id.clone(),
        r#type: super::type_of(workload.kind) as i32,
        revision_id: record.revision.clone(),
        desired_state: match record.desired {
            Desired::Running => DesiredState::Running,
            Desired::Stopped | Desired::Deleted => DesiredState::Stopped,
        } as i32,
        actual_state: shown.actual as i32,
        message: shown.message.clone(),
        created_at: seconds(record.created_at),
        updated_at: seconds(changed.max(record.changed_at)),
        metadata: metadata(workload, shown),
        usage: None,
    }
}

fn metadata(workload: &Workload, shown: &Shown) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        metadata.insert(key.to_owned(), value);
    };
    let container = workload
        .spec
        .as_ref()
        .and_then(|spec| spec.container.as_ref());
    if let Some(container) = container {
        put("container.image", container.image.clone());
        if !shown.word.is_empty() {
            put("container.state", shown.word.to_owned());
        }
        if let Some(at) = shown.started_at {
            put("container.started_at", at.to_string());
        }
        if let Some((exit, at)) = shown.ended {
            put("container.finished_at", at.to_string());
            if let Exit::Code(code) = exit {
                put("container.exit_code", code.to_string());
            }
        }
    }
    if let Some(cause) = shown.cause {
        metadata.extend(told(cause, &shown.message));
    }
    let mut put = |key: &str, value: String| {
        metadata.insert(key.to_owned(), value);
    };
    if let Some(at) = shown.retry_at {
        put("next_retry_time", at.to_string());
    }
    let given_up = workload.record.given_up.as_ref();
    if given_up.is_some_and(|it| it.code == causes::NODE_BUSY) {
        put("resource_issues", shown.message.clone());
    }
    metadata
}

/// A cause under the keys that schedulers look for.
pub(super) fn told(cause: Cause, message: &str) -> BTreeMap<String, String> {
    let mut told = BTreeMap::from([
        ("failure_reason".to_owned(), cause.code.to_owned()),
        ("failure_message".to_owned(), message.to_owned()),
        ("last_error".to_owned(), message.to_owned()),
        ("retryable".to_owned(), cause.retryable.to_string()),
    ]);
    if !cause.retryable {
        told.insert("retry_terminal".to_owned(), "true".to_owned());
        told.insert("retry_terminal_reason".to_owned(), cause.code.to_owned());
    }
    told
}

/// The status that heartbeats carry.
pub(super) fn of_control(
    workload: &Workload,
    shown: &Shown,
    changed: Timestamp,
) -> control::WorkloadStatus {
    let reason = shown.cause.map(|cause| control::ReasonDetail {
        code: cause.code.to_owned(),
        message: shown.message.clone(),
        last_transition: Some(stamp(changed)),
        next_retry_at: shown.retry_at.map(stamp),
        retryable: cause.retryable,
    });
    let failure = match (shown.actual, shown.cause) {
        (ActualState::Failed | ActualState::Unknown, Some(cause)) => cause.reason,
        _ => control::FailureReason::Unspecified,
    };
    control::WorkloadStatus {
        workload_id: workload.record.id.clone(),
        state: name(shown.actual).to_owned(),
        failure_reason: failure as i32,
        message: shown.message.clone(),
        last_transition: Some(stamp(changed)),
        reason,
        usage: None,
    }
}

pub(super) fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis() / 1000).unwrap_or(i64::MAX)
}

pub(super) fn stamp(at: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.as_millis() % 1000 * 1_000_000).unwrap_or_default();
    prost_types::Timestamp {
        seconds: seconds(at),
        nanos,
    }
}

/// The largest generation of which anything is here.
pub(super) fn newest_of(picture: &Picture, of: UnitId) -> u64 {
    let first = UnitId {
        generation: 0,
        ..of
    };
    let last = UnitId {
        generation: u64::MAX,
        ..of
    };
    let units = picture.units.range(first..=last);
    units.map(|(unit, _)| unit.generation).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_a_unit_has_one_of_the_contract() {
        let at = Timestamp::from_millis(5);
        let failed = |code: &str| UnitState::Failed {
            code: code.to_owned(),
            message: "no".to_owned(),
            retry_at: at,
        };
        let finished = |exit| UnitState::Finished { exit, at };
        let waiting = UnitState::Waiting {
            exit: Exit::Code(1),
            retry_at: at,
        };
        let detail = String::new();
        for (state, expected) in [
            (UnitState::Preparing { detail }, "Pending"),
            (UnitState::Starting, "Pending"),
            (waiting, "Pending"),
            (UnitState::Stopping, "Pending"),
            (UnitState::Running { since: at }, "Running"),
            (finished(Exit::Code(0)), "Stopped"),
            (UnitState::Gone, "Stopped"),
            (finished(Exit::Code(2)), "Failed"),
            (finished(Exit::OutOfMemory), "Failed"),
            (failed("disk-full"), "Pending"),
            (failed("port-in-use"), "Failed"),
            (failed("engine-down"), "Unknown"),
        ] {
            assert_eq!(name(of_state(&state).actual), expected, "{state:?}");
        }
    }

    #[test]
    fn a_moment_keeps_its_milliseconds() {
        let stamp = stamp(Timestamp::from_millis(1_700_000_000_123));
        assert_eq!((stamp.seconds, stamp.nanos), (1_700_000_000, 123_000_000));
    }
}

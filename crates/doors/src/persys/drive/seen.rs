//! What an agent says of a copy, as a unit's state. Pure.

use hostler_model::{Exit, Timestamp, UnitState};
use hostler_wire::persys::agent::{ActualState, WorkloadStatus};
use hostler_wire::persys::control::{self, FailureReason};

use crate::persys::want::Want;
use crate::persys::words;

/// Why a copy failed, in the agent's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) is_terminal: bool,
}

/// What an agent says of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Pending(String),
    Running(Timestamp),
    Stopped(Exit),
    Failed(Failure),
    /// Neither here nor gone.
    Unknown(String),
    /// Not there.
    Missing,
}

/// How a unit ended, or what it says it is doing.
pub(super) fn told(status: &WorkloadStatus, now: Timestamp) -> Told {
    match status.actual_state() {
        ActualState::Pending => Told::Pending(status.message.clone()),
        ActualState::Running => Told::Running(since(status, now)),
        ActualState::Stopped => Told::Stopped(exit(status)),
        ActualState::Failed => Told::Failed(failure(status)),
        ActualState::Unknown | ActualState::Unspecified if is_not_found(&status.message) => {
            Told::Missing
        }
        ActualState::Unknown | ActualState::Unspecified => Told::Unknown(status.message.clone()),
    }
}

/// The same from a heartbeat, whose words are text; nothing for a word that is not known.
pub(crate) fn told_by_beat(status: &control::WorkloadStatus, now: Timestamp) -> Option<Told> {
    let message = status.message.clone();
    let word = status.state.trim().to_ascii_lowercase();
    Some(match word.as_str() {
        "running" => Told::Running(beat_moment(status).unwrap_or(now)),
        "stopped" => Told::Stopped(Exit::Unknown),
        "failed" => Told::Failed(beat_failure(status)),
        "pending" => Told::Pending(message),
        "unknown" if is_not_found(&message) => Told::Missing,
        "unknown" => Told::Unknown(message),
        _ => return None,
    })
}

/// Agents say that something is missing by code or by text only.
pub(crate) fn is_not_found(message: &str) -> bool {
    message.to_ascii_lowercase().contains("not found")
}

/// Agents say by text only that they have no runtime for a type.
pub(super) fn has_no_runtime(message: &str) -> bool {
    message
        .to_ascii_lowercase()
        .contains("runtime not available")
}

/// The state of a unit that is to run. `before` is what was told last.
pub(crate) fn state(
    want: &Want,
    told: Told,
    before: Option<&UnitState>,
    retry_at: Timestamp,
) -> UnitState {
    match told {
        Told::Pending(detail) => UnitState::Preparing { detail },
        Told::Running(since) => match before {
            // An agent that only says when it last looked has not started anew.
            Some(UnitState::Running { since }) => UnitState::Running { since: *since },
            _ => UnitState::Running { since },
        },
        Told::Stopped(exit) if want.rests_after(exit.is_success()) => {
            UnitState::Finished { exit, at: retry_at }
        }
        Told::Stopped(exit) => UnitState::Waiting { exit, retry_at },
        Told::Failed(failure) => UnitState::Failed {
            code: failure.code,
            message: failure.message,
            retry_at,
        },
        Told::Unknown(detail) => before.cloned().unwrap_or(UnitState::Preparing { detail }),
        Told::Missing => UnitState::Preparing {
            detail: "not on the agent yet".to_owned(),
        },
    }
}

fn since(status: &WorkloadStatus, now: Timestamp) -> Timestamp {
    let started = status.metadata.get("container.started_at");
    let started = started.and_then(|text| Timestamp::parse(text));
    let created = || words::from_seconds(status.created_at);
    started.or_else(created).unwrap_or(now)
}

fn exit(status: &WorkloadStatus) -> Exit {
    let code = status.metadata.get("container.exit_code");
    let code = code.and_then(|code| code.trim().parse().ok());
    code.map_or(Exit::Unknown, Exit::Code)
}

/// The agent's own code if it names one.
pub(super) fn failure(status: &WorkloadStatus) -> Failure {
    let text = |key: &str| {
        let text = status.metadata.get(key).map(|it| it.trim());
        text.filter(|it| !it.is_empty()).map(str::to_owned)
    };
    let message = [text("failure_message"), text("last_error")];
    let message = message.into_iter().flatten().next();
    let is_true = |it: String| it.eq_ignore_ascii_case("true");
    Failure {
        code: text("failure_reason").unwrap_or_else(|| "RUNTIME_ERROR".to_owned()),
        message: message.unwrap_or_else(|| status.message.clone()),
        is_terminal: text("retry_terminal").is_some_and(is_true),
    }
}

fn beat_failure(status: &control::WorkloadStatus) -> Failure {
    let reason = status.reason.clone().unwrap_or_default();
    let code = match status.failure_reason() {
        _ if !reason.code.is_empty() => reason.code,
        FailureReason::Unspecified => FailureReason::RuntimeError.as_str_name().to_owned(),
        named => named.as_str_name().to_owned(),
    };
    let message = if reason.message.is_empty() {
        status.message.clone()
    } else {
        reason.message
    };
    Failure {
        code,
        message,
        is_terminal: false,
    }
}

fn beat_moment(status: &control::WorkloadStatus) -> Option<Timestamp> {
    words::from_seconds(status.last_transition.as_ref()?.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: ActualState) -> WorkloadStatus {
        WorkloadStatus {
            actual_state: state as i32,
            message: "m".to_owned(),
            ..WorkloadStatus::default()
        }
    }

    #[test]
    fn every_state_of_the_contract_has_its_meaning() {
        let now = Timestamp::from_millis(9);
        let of = |state| told(&status(state), now);
        assert_eq!(of(ActualState::Pending), Told::Pending("m".to_owned()));
        assert_eq!(of(ActualState::Running), Told::Running(now));
        assert_eq!(of(ActualState::Stopped), Told::Stopped(Exit::Unknown));
        assert_eq!(of(ActualState::Unknown), Told::Unknown("m".to_owned()));
        let missing = WorkloadStatus {
            message: "container Not Found".to_owned(),
            ..status(ActualState::Unknown)
        };
        assert_eq!(told(&missing, now), Told::Missing);
    }

    #[test]
    fn an_agents_code_is_kept_and_its_word_that_it_is_final() {
        let mut failed = status(ActualState::Failed);
        assert_eq!(failure(&failed).code, "RUNTIME_ERROR");
        assert_eq!(failure(&failed).message, "m");
        for (key, value) in [
            ("failure_reason", "IMAGE_PULL_FAILED"),
            ("failure_message", "no route"),
            ("retry_terminal", "true"),
        ] {
            failed.metadata.insert(key.to_owned(), value.to_owned());
        }
        let told = failure(&failed);
        assert_eq!(
            (told.code.as_str(), told.message.as_str(), told.is_terminal),
            ("IMAGE_PULL_FAILED", "no route", true)
        );
    }

    #[test]
    fn a_heartbeat_names_states_in_any_case_and_its_reason_before_its_number() {
        let now = Timestamp::from_millis(9);
        let mut beat = control::WorkloadStatus {
            state: "FAILED".to_owned(),
            failure_reason: FailureReason::StorageError as i32,
            ..control::WorkloadStatus::default()
        };
        let code = |beat: &control::WorkloadStatus| match told_by_beat(beat, now) {
            Some(Told::Failed(failure)) => failure.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&beat), "STORAGE_ERROR");
        beat.reason = Some(control::ReasonDetail {
            code: "VOLUME_NOT_FOUND".to_owned(),
            ..control::ReasonDetail::default()
        });
        assert_eq!(code(&beat), "VOLUME_NOT_FOUND");
        beat.state = "teapot".to_owned();
        assert_eq!(told_by_beat(&beat, now), None);
    }
}

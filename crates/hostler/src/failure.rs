//! Why a command ends badly, told to a person: a sentence, what to do about it, and a code to look up.

use std::fmt::Display;

use hostler_wire::api::Problem;
use hostler_wire::client::ClientError;

use crate::status::ExitStatus;

/// A command's bad end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: ExitStatus,
    /// What is wrong; lower case, no full stop.
    pub(crate) sentence: String,
    /// What to do; may be empty.
    pub(crate) advice: String,
    /// Each single finding.
    pub(crate) details: Vec<String>,
    /// The stable code with a page under `docs/errors`, if the server gave one.
    pub(crate) code: Option<String>,
}

impl Failure {
    /// A failure with its advice.
    pub(crate) fn new(status: ExitStatus, sentence: impl Display, advice: impl Display) -> Self {
        Self {
            status,
            sentence: sentence.to_string(),
            advice: advice.to_string(),
            details: Vec::new(),
            code: None,
        }
    }

    /// The command line or configuration makes no sense.
    pub(crate) fn usage(sentence: impl Display, advice: impl Display) -> Self {
        Self::new(ExitStatus::Usage, sentence, advice)
    }

    /// It did not work.
    pub(crate) fn failed(sentence: impl Display, advice: impl Display) -> Self {
        Self::new(ExitStatus::Failed, sentence, advice)
    }

    /// The same, with each single finding.
    pub(crate) fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        // A problem without a text of its own still has its title.
        let sentence = if problem.detail.is_empty() {
            problem.title
        } else {
            problem.detail
        };
        // The findings stand in the sentence too when there is only one.
        let details = if problem.details.len() > 1 {
            problem.details
        } else {
            Vec::new()
        };
        Self {
            status: ExitStatus::Failed,
            sentence,
            advice: problem.advice,
            details,
            code: Some(problem.code),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { addr, .. } => Self::new(
                ExitStatus::Unreachable,
                format!("no server answers at {addr}"),
                "start one with `hostler up`, or name yours with --addr or HOSTLER_ADDR",
            ),
            ClientError::Refused(problem) => Self::from(*problem),
            error @ ClientError::Address { .. } => {
                Self::usage(error, "write --addr http://HOST:PORT")
            }
            error @ ClientError::Interrupted { .. } => Self::new(
                ExitStatus::Unreachable,
                error,
                "the server stopped or the connection broke: ask again",
            ),
            error @ ClientError::Protocol { .. } => Self::failed(
                error,
                "check the address, and the versions with `hostler version`",
            ),
        }
    }
}

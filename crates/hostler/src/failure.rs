//! Why a command ends badly, told to a person: a sentence, what to do about it, and a code to look up.

use std::fmt::Display;

use hostler_model::Refusal;
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

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let details = match refusal.details.len() {
            0 | 1 => Vec::new(),
            _ => refusal.details,
        };
        Self {
            code: Some(refusal.code.to_string()),
            ..Self::failed(refusal.sentence, refusal.advice).with_details(details)
        }
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
            ClientError::Unreachable { addr, source } if !source.is_connect() => {
                let what = if source.is_timeout() {
                    "took the request and did not answer in time"
                } else {
                    "broke the connection off before it answered"
                };
                Self::new(
                    ExitStatus::Unreachable,
                    format!("the server at {addr} {what}"),
                    "it may be busy or stopping; look whether a change was made, then ask again",
                )
            }
            ClientError::Unreachable { addr, .. } => Self::new(
                ExitStatus::Unreachable,
                format!("no server answers at {addr}"),
                "start one with `hostler up`, or name yours with --addr or HOSTLER_ADDR",
            ),
            ClientError::Unbelieved { ref addr, .. } => {
                let advice = format!(
                    "if it is yours: `hostler login {addr} --print PRINT`, with the print that `hostler authority show` has there"
                );
                Self::new(ExitStatus::Unreachable, error, advice)
            }
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

#[cfg(test)]
mod tests {
    use hostler_wire::client::Client;
    use tokio::net::TcpListener;

    use super::*;

    /// How a call fails at a server that does this with each connection.
    async fn failure<F>(mut serve: impl FnMut(tokio::net::TcpStream) -> F) -> Failure
    where
        F: Future<Output = ()>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let client = Client::new(&addr, None).unwrap();
        let accepting = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serve(stream).await;
            }
        };
        tokio::select! {
            called = client.version() => called.unwrap_err().into(),
            () = accepting => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_server_that_takes_a_request_and_says_nothing_is_told_from_none() {
        let silent = failure(|stream| async move {
            // From here on only the call's own patience is waited for.
            tokio::time::pause();
            std::future::pending::<()>().await;
            drop(stream);
        });
        let silent = silent.await;
        assert_eq!(silent.status, ExitStatus::Unreachable);
        assert!(
            silent.sentence.ends_with("did not answer in time"),
            "{}",
            silent.sentence
        );
    }

    #[tokio::test]
    async fn a_connection_that_breaks_off_is_told_from_no_server() {
        let broken = failure(|stream| async move { drop(stream) }).await;
        assert!(
            broken.sentence.contains("broke the connection off"),
            "{}",
            broken.sentence
        );
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let none = Client::new(&free.to_string(), None)
            .unwrap()
            .version()
            .await;
        let none = Failure::from(none.unwrap_err());
        assert!(
            none.sentence.starts_with("no server answers"),
            "{}",
            none.sentence
        );
    }
}

//! How a refusal leaves by this door: one table from codes to statuses, and the problem document.
//!
//! A [`Failure`] becomes a response that carries its problem as an extension; `gate` writes the body, because
//! only it knows the request's id.

use axum::response::{IntoResponse, Response};
use hostler_model::{Code, Refusal};
use hostler_wire::api::Problem;
use http::{HeaderValue, StatusCode, header};

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Failure(pub Refusal);

/// A problem whose body is still to be written.
#[derive(Debug, Clone)]
pub(super) struct Unwritten(pub Problem);

/// Seconds after which it makes sense to ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl Failure {
    /// A request that is not of the expected form.
    pub(super) fn bad(sentence: impl Into<String>) -> Self {
        let advice = "GET /openapi.json describes every route";
        Self(Refusal::new(Code::BadRequest, sentence, advice))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status(self.0.code);
        let mut response = status.into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response.extensions_mut().insert(Unwritten(problem(self.0)));
        response
    }
}

/// The problem document of a refusal.
pub(super) fn problem(refusal: Refusal) -> Problem {
    let status = status(refusal.code).as_u16();
    Problem::new(status, refusal.code.as_str(), refusal.sentence)
        .with_advice(refusal.advice)
        .with_details(refusal.details)
}

/// The one table from codes to statuses.
pub(super) const fn status(code: Code) -> StatusCode {
    match code {
        Code::BadRequest | Code::VersionUnsupported => StatusCode::BAD_REQUEST,
        Code::Unauthenticated | Code::JoinTokenInvalid | Code::JoinTokenSpent => {
            StatusCode::UNAUTHORIZED
        }
        Code::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
        Code::Forbidden | Code::RefusedByNode | Code::NodeKeyUnknown => StatusCode::FORBIDDEN,
        Code::NodeNotFound
        | Code::WorkloadNotFound
        | Code::AssignmentNotFound
        | Code::CommandNotFound
        | Code::AccountNotFound
        | Code::TokenNotFound
        | Code::ReplicaNotFound
        | Code::SecretNotFound
        | Code::RevisionNotFound
        | Code::LogNotFound
        | Code::AuditMissing
        | Code::PartNotFound
        | Code::FileNotFound
        | Code::RouteNotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Ambiguous
        | Code::NodeNameTaken
        | Code::NodeIdentityInUse
        | Code::NodeUnproven
        | Code::AuthorityInUse
        | Code::NodeBusy
        | Code::NodePending
        | Code::TokenNameTaken
        | Code::NodeStateConflict
        | Code::AccountNameTaken
        | Code::ReplicaStateConflict
        | Code::NotRented
        | Code::SecretInUse
        | Code::SecretsLocked
        | Code::NoRollout
        | Code::RolloutHeld
        | Code::WorkloadDeleting
        | Code::NoPlacement
        | Code::UnitNotRunning
        | Code::StaleReport => StatusCode::CONFLICT,
        Code::NodeGone => StatusCode::GONE,
        Code::RevisionConflict => StatusCode::PRECONDITION_FAILED,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::SpecInvalid
        | Code::NameInvalid
        | Code::DriverUnsupported
        | Code::ExecUnsupported
        | Code::ForwardUnsupported
        | Code::CopyUnsupported
        | Code::CommandNotRunnable
        | Code::CopyFailed => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NodeUnreachable | Code::PortUnreachable => StatusCode::BAD_GATEWAY,
        Code::NotLeader | Code::StoreUnavailable | Code::Overloaded => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_an_error_and_only_ours_are_our_fault() {
        for code in Code::ALL {
            let status = status(*code);
            assert!(
                status.is_client_error() || status.is_server_error(),
                "{code}"
            );
            assert_eq!(
                status == StatusCode::INTERNAL_SERVER_ERROR,
                *code == Code::Internal
            );
        }
    }
}

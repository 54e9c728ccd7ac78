//! How this door says no: `{"error": …}` with a status, a hint where there is one, and the contract's further keys.

use axum::Json;
use axum::response::{IntoResponse, Response};
use hostler_model::{Code, Refusal};
use http::StatusCode;
use serde_json::{Map, Value};

/// What a handler answers.
pub(super) type Answer = Result<Json<Value>, No>;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct No {
    status: StatusCode,
    body: Map<String, Value>,
}

impl No {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        let body = Map::from_iter([("error".to_owned(), Value::String(error.into()))]);
        Self { status, body }
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(super) fn no_agent() -> Self {
        Self::not_found("Agent not found")
    }

    pub(super) fn no_client() -> Self {
        Self::not_found("Client not found")
    }

    /// The same with one more key.
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.body.insert(key.to_owned(), value.into());
        self
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        let said = match refusal.code {
            Code::NodeNotFound | Code::NodeGone | Code::NotRented => return Self::no_agent(),
            Code::AccountNotFound => return Self::no_client(),
            Code::ReplicaNotFound => return Self::not_found("Replica not found"),
            Code::Forbidden => {
                return Self::new(StatusCode::FORBIDDEN, "Client account is not active");
            }
            _ => Self::new(status(refusal.code), refusal.sentence),
        };
        if refusal.advice.is_empty() {
            said
        } else {
            said.with("hint", refusal.advice)
        }
    }
}

const fn status(code: Code) -> StatusCode {
    match code {
        Code::BadRequest | Code::NameInvalid | Code::ReplicaStateConflict => {
            StatusCode::BAD_REQUEST
        }
        Code::AccountNameTaken | Code::StaleReport => StatusCode::CONFLICT,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::NotLeader | Code::StoreUnavailable | Code::Overloaded => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        (self.status, Json(Value::Object(self.body))).into_response()
    }
}

//! Problem documents (RFC 9457): every error of the REST API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was refused, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Problem {
    /// Where the code is explained: `/docs/errors/<code>`.
    #[serde(rename = "type")]
    #[schema(example = "/docs/errors/node-not-found")]
    pub kind: String,
    /// The code in words; the same for every problem of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, for a person.
    pub detail: String,
    /// The stable code, for programs.
    #[schema(example = "node-not-found")]
    pub code: String,
    /// What to do about it; empty if there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// Each single finding, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// Finds the request in the server's log.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

impl Problem {
    /// A problem of a code; the title follows from the code.
    #[must_use]
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/docs/errors/{code}"),
            title: code.replace('-', " "),
            status,
            detail: detail.into(),
            code: code.to_owned(),
            ..Self::default()
        }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// The same, with each single finding.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// The same, naming the request.
    #[must_use]
    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = request_id.into();
        self
    }
}

//! Persys's contract: `persys.control.v1` over gRPC, and its figures over HTTP.

use axum::Router;

use crate::Parts;

/// The routes beside those of other contracts, without a fallback.
pub(crate) fn beside(_parts: &Parts) -> Router {
    Router::new()
}

/// The routes on a listener of their own, with the contract's answers for unknown paths.
pub(crate) fn alone(parts: &Parts) -> Router {
    beside(parts)
}

/// The routes of Persys's second port: `/metrics` and `/health`.
pub(crate) fn figures(_parts: &Parts) -> Router {
    Router::new()
}

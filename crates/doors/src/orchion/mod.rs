//! Orchion's contract: `orchion.v1` over gRPC, and its HTTP gateway.

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

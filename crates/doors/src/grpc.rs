//! What the gRPC routes of every contract have in common. Owns nothing.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};

/// Whether the request is a gRPC call by its content type.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// Lets only calls through, as gRPC asks of servers. A page of any site may post plain text here without asking, and
/// a frame is bytes like any others; for this content type its browser must ask first, and is not answered.
pub(crate) async fn only_calls(request: Request, next: Next) -> Response {
    if is_call(request.headers()) {
        return next.run(request).await;
    }
    StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response()
}

//! Which pages of other sites may use which routes: MIaaS's own, as its contract says, and no others. Those
//! routes know tokens, not cookies, so any origin may use them, and none is sent credentials.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::miaas;

/// Seconds for which a browser remembers the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Answers preflights and marks answers of the routes that are open to pages.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = if is_preflight {
        wanted(request.headers())
    } else {
        request.method().clone()
    };
    if !miaas::is_open(&method, request.uri().path()) {
        return next.run(request).await;
    }
    let mut response = if is_preflight {
        preflight(request.headers())
    } else {
        next.run(request).await
    };
    let any = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

/// The method that a preflight asks about.
fn wanted(headers: &HeaderMap) -> Method {
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    wanted
        .and_then(|method| method.as_bytes().try_into().ok())
        .unwrap_or(Method::OPTIONS)
}

fn preflight(headers: &HeaderMap) -> Response {
    let mut response = (StatusCode::OK, "OK").into_response();
    let allowed = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST");
    allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    allowed.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

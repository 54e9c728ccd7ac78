//! Which pages of other sites may use which routes: MIaaS's own, as its contract says, and no others. Those
//! routes know tokens, not cookies, so any origin may use them; credentials are allowed only where no cookie will ever
//! be taken.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Api, miaas};

/// Seconds for which a browser remembers the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Answers preflights and marks answers of the routes that are open to pages.
pub(super) async fn answer(State(api): State<Api>, request: Request, next: Next) -> Response {
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = if is_preflight {
        wanted(request.headers())
    } else {
        request.method().clone()
    };
    let path = request.uri().path();
    let openness = miaas::openness(&api.miaas, &method, path);
    if !openness.is_open() {
        return next.run(request).await;
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if is_preflight {
        preflight(request.headers(), &open_methods(&api, path))
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    match (openness, origin) {
        // A browser takes credentials only for an origin that is named.
        (miaas::Openness::WithCredentials, Some(origin)) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        _ => {
            let any = HeaderValue::from_static("*");
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
        }
    }
    response
}

/// The methods with which pages may use the path.
fn open_methods(api: &Api, path: &str) -> String {
    let all = [Method::DELETE, Method::GET, Method::HEAD, Method::POST];
    let open = all
        .iter()
        .filter(|method| miaas::openness(&api.miaas, method, path).is_open());
    let names: Vec<&str> = open.map(Method::as_str).collect();
    names.join(", ")
}

/// The method that a preflight asks about.
fn wanted(headers: &HeaderMap) -> Method {
    let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    wanted
        .and_then(|method| method.as_bytes().try_into().ok())
        .unwrap_or(Method::OPTIONS)
}

fn preflight(headers: &HeaderMap, methods: &str) -> Response {
    let mut response = (StatusCode::OK, "OK").into_response();
    let allowed = response.headers_mut();
    if let Ok(methods) = HeaderValue::try_from(methods) {
        allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    allowed.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

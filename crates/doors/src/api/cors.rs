//! Which pages of other sites may use which routes: MIaaS's own, as its contract says, and no others. Those
//! routes know tokens, not cookies, so any origin may use them; credentials are allowed only where no cookie is ever
//! looked at.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::miaas::{self, Config, Openness};

/// Seconds for which a browser remembers the answer to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// What a page of another site may do with a request's route.
pub(super) struct Sharing {
    openness: Openness,
    is_preflight: bool,
    /// Where the page comes from; kept only if the answer names it.
    origin: Option<HeaderValue>,
}

impl Sharing {
    pub(super) fn of(config: &Config, request: &Request, may_show_cookie: bool) -> Self {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let path = request.uri().path();
        let openness = if is_preflight {
            miaas::openness(config, &wanted(headers), path)
        } else {
            miaas::openness(config, request.method(), path)
        };
        let openness = match openness {
            Openness::WithCredentials if may_show_cookie => Openness::Plain,
            openness => openness,
        };
        let origin = match openness {
            Openness::WithCredentials => headers.get(header::ORIGIN).cloned(),
            Openness::Plain | Openness::Closed => None,
        };
        Self {
            openness,
            is_preflight,
            origin,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.openness.is_open()
    }

    /// The answer to a preflight, on a route that is open.
    pub(super) fn preflight(&self, config: &Config, request: &Request) -> Option<Response> {
        let is_answered = self.is_preflight && self.is_open();
        is_answered.then(|| {
            let methods = open_methods(config, request.uri().path());
            preflight(request.headers(), &methods)
        })
    }

    /// Marks the answer of a route that is open to pages.
    pub(super) fn mark(self, headers: &mut HeaderMap) {
        match (self.openness, self.origin) {
            (Openness::Closed, _) => {}
            // A browser takes credentials only for an origin that is named.
            (Openness::WithCredentials, Some(origin)) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                let yes = HeaderValue::from_static("true");
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
                headers.append(header::VARY, HeaderValue::from_static("origin"));
            }
            (Openness::WithCredentials | Openness::Plain, _) => {
                let any = HeaderValue::from_static("*");
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
            }
        }
    }
}

/// The methods with which pages may use the path.
fn open_methods(config: &Config, path: &str) -> String {
    let all = [Method::DELETE, Method::GET, Method::HEAD, Method::POST];
    let open = all
        .iter()
        .filter(|method| miaas::openness(config, method, path).is_open());
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

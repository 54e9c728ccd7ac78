//! Which routes are MIaaS's: who of other origins may use them, which lose a slash too many, and which know no
//! HEAD in its later dialect. Pure tables.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use hostler_model::{Code, Refusal};
use http::{HeaderValue, Method, header};

use super::{Config, Dialect};
use crate::api::refuse::Failure;

/// What pages of other origins may do with a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Openness {
    Closed,
    /// Any origin, without credentials: the route is ours, too, and a login will open it.
    Plain,
    /// Any origin, with credentials: the route takes no cookie.
    WithCredentials,
}

impl Openness {
    pub(in crate::api) fn is_open(self) -> bool {
        self != Self::Closed
    }
}

/// Whether pages of other sites may use this route: MIaaS's page lives elsewhere.
pub(in crate::api) fn openness(config: &Config, method: &Method, path: &str) -> Openness {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let is_post = *method == Method::POST;
    match words.as_slice() {
        [""] | ["health" | "docs" | "redoc" | "openapi.json"] if is_read => {
            Openness::WithCredentials
        }
        ["api", "v1", "nodes"] if is_read => Openness::Plain,
        ["api", "v1", "nodes", "register"] if is_post => Openness::WithCredentials,
        ["api", "v1", "nodes", "register"] => Openness::Closed,
        ["api", "v1", "nodes", _] if is_read => Openness::Plain,
        ["api", "v1", "nodes", _, "heartbeat"] if is_post => Openness::WithCredentials,
        ["api", "v1", "deployments"] if is_read || (is_post && config.pages_deploy) => {
            Openness::WithCredentials
        }
        ["api", "v1", "deployments", _]
            if is_read || (*method == Method::DELETE && config.pages_deploy) =>
        {
            Openness::WithCredentials
        }
        _ => Openness::Closed,
    }
}

/// MIaaS's routes with one slash too many lead to those without.
pub(in crate::api) fn without_slash(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/')?;
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let is_known =
        match words.as_slice() {
            ["health" | "docs" | "redoc" | "openapi.json"]
            | ["api", "v1", "nodes" | "deployments"] => true,
            ["api", "v1", "nodes" | "deployments", id]
            | ["api", "v1", "nodes", id, "heartbeat"] => !id.is_empty(),
            _ => false,
        };
    is_known.then_some(path)
}

/// In the later dialect its routes that are read know GET only.
pub(in crate::api) fn refuse_head(config: &Config, request: &Request) -> Result<(), Response> {
    let path = request.uri().path();
    let is_refused = config.dialect == Dialect::Later
        && *request.method() == Method::HEAD
        && knows_get_only(path);
    if !is_refused {
        return Ok(());
    }
    let advice = format!("{path} takes GET; the other dialect takes HEAD as well");
    let refusal = Refusal::new(Code::MethodNotAllowed, "Method Not Allowed", advice);
    let mut response = Failure(refusal).into_response();
    let allow = HeaderValue::from_static("GET");
    response.headers_mut().insert(header::ALLOW, allow);
    Err(response)
}

fn knows_get_only(path: &str) -> bool {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    match words.as_slice() {
        [""] | ["health"] | ["api", "v1", "nodes" | "deployments"] => true,
        ["api", "v1", "nodes", id] => *id != "register",
        ["api", "v1", "deployments", _] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_miaas_routes_lose_a_slash() {
        for path in [
            "/health",
            "/docs",
            "/api/v1/nodes",
            "/api/v1/nodes/x/heartbeat",
            "/api/v1/deployments",
            "/api/v1/deployments/x",
        ] {
            assert_eq!(without_slash(&format!("{path}/")), Some(path));
            assert_eq!(without_slash(path), None);
        }
        for path in ["/api/v1/workloads/", "/api/v1/deployments//", "//", "/"] {
            assert_eq!(without_slash(path), None, "{path}");
        }
    }

    #[test]
    fn pages_may_read_and_register_but_neither_remove_nor_deploy() {
        let config = Config::default();
        let of = |method: &Method, path: &str| openness(&config, method, path);
        assert_eq!(of(&Method::GET, "/api/v1/nodes"), Openness::Plain);
        assert_eq!(
            of(&Method::POST, "/api/v1/nodes/register"),
            Openness::WithCredentials
        );
        assert_eq!(
            of(&Method::POST, "/api/v1/nodes/x/heartbeat"),
            Openness::WithCredentials
        );
        assert_eq!(of(&Method::GET, "/health"), Openness::WithCredentials);
        assert_eq!(
            of(&Method::GET, "/api/v1/deployments/x"),
            Openness::WithCredentials
        );
        for (method, path) in [
            (&Method::DELETE, "/api/v1/nodes/x"),
            (&Method::POST, "/api/v1/nodes/x/drain"),
            (&Method::POST, "/api/v1/workloads"),
            (&Method::POST, "/api/v1/deployments"),
            (&Method::DELETE, "/api/v1/deployments/x"),
        ] {
            assert_eq!(of(method, path), Openness::Closed, "{method} {path}");
        }
        let open = Config {
            pages_deploy: true,
            ..Config::default()
        };
        assert!(openness(&open, &Method::POST, "/api/v1/deployments").is_open());
        assert!(openness(&open, &Method::DELETE, "/api/v1/deployments/x").is_open());
        assert!(!openness(&open, &Method::DELETE, "/api/v1/nodes/x").is_open());
    }
}

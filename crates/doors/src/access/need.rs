//! What each route needs. A route that is not named here needs an admin, so that one that was forgotten is shut.

use hostler_model::AccessRole;
use http::Method;

/// What whoever asks must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it tells nothing about the fleet.
    Nothing,
    /// Nothing, because a contract leaves it open. What is shown there may be that contract's own affair.
    Open,
    /// The credential of a contract, which its door reads; or a person or program with at least this role.
    Judged(AccessRole),
    /// The credential of a contract, for what belongs to its holder; or a person or program with at least this role.
    Own(AccessRole),
    /// A person or program with at least this role, whose token is good for all.
    Role(AccessRole),
}

/// What tells nothing about the fleet.
const NOTHING: &[&str] = &[
    "/",
    "/version",
    "/healthz",
    "/readyz",
    "/health",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/docs/errors/{code}",
    // They judge by themselves.
    "/login",
    "/logout",
];

/// Routes of another contract, which knows no cookies and lets pages of any site call with credentials.
const FOREIGN: &[&str] = &[
    "/api/v1/nodes/register",
    "/api/v1/nodes/{id}/heartbeat",
    "/api/v1/deployments",
    "/api/v1/deployments/{id}",
    "/health",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/ws/logs",
];

const BACKUP: &str = "/api/v1/backup";

/// Reading these acts on a copy.
const ACTS: &[&str] = &[
    "/api/v1/assignments/{id}/exec",
    "/api/v1/assignments/{id}/forward",
    "/api/v1/assignments/{id}/files",
];

/// Whether that route acts on a copy, or tells all there is, however it is asked.
pub(crate) fn acts(route: &str) -> bool {
    ACTS.contains(&route) || route == BACKUP
}

/// What is decided there is who may come in, or it tells all there is.
const ADMIN: &[&str] = &[
    "/api/v1/tokens",
    "/api/v1/tokens/{id}",
    "/api/v1/join-tokens",
    "/api/v1/join-tokens/{id}",
    "/api/v1/nodes/{id}/approve",
    "/api/v1/authority/rotate",
    "/api/v1/authority/retire",
    BACKUP,
    "/api/v1/audit",
    "/api/v1/rekey-secrets",
    "/api/v1/miaas/rotate-key",
];

/// The folders of routes about what the fleet runs.
const FLEET: &[&str] = &[
    "/api/v1/nodes",
    "/api/v1/workloads",
    "/api/v1/assignments",
    "/api/v1/jobs",
    "/api/v1/events",
    "/api/v1/deployments",
    "/api/v1/secrets",
];

/// What is read of the whole.
const READ: &[&str] = &[
    "/metrics",
    "/ws/logs",
    "/api/v1/whoami",
    "/api/v1/authority",
    "/api/v1/doors",
];

/// What a route needs, by the path that the router knows it by.
pub(crate) fn need(method: &Method, route: &str) -> Need {
    use AccessRole::{Admin, Operator, Viewer};
    if NOTHING.contains(&route) {
        return Need::Nothing;
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let is_below = |folder: &&str| {
        let rest = route.strip_prefix(*folder);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_fleet = FLEET.iter().any(is_below);
    Need::Role(if ADMIN.contains(&route) {
        Admin
    } else if ACTS.contains(&route) {
        Operator
    } else if is_read && (is_fleet || READ.contains(&route)) {
        Viewer
    } else if is_fleet {
        Operator
    } else {
        Admin
    })
}

/// Whether the cookie of a session is looked at there. Such a route never allows credentials to pages of others.
pub(crate) fn takes_cookie(route: &str) -> bool {
    !FOREIGN.contains(&route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_needs_a_viewer_changing_an_operator_and_letting_in_an_admin() {
        use AccessRole::{Admin, Operator, Viewer};
        for (method, route, role) in [
            (Method::GET, "/api/v1/nodes", Viewer),
            (Method::GET, "/metrics", Viewer),
            (Method::POST, "/api/v1/workloads", Operator),
            (Method::DELETE, "/api/v1/nodes/{id}", Operator),
            (Method::GET, "/api/v1/assignments/{id}/exec", Operator),
            (Method::GET, "/api/v1/assignments/{id}/files", Operator),
            (Method::GET, "/api/v1/tokens", Admin),
            (Method::GET, "/api/v1/audit", Admin),
            (Method::POST, "/api/v1/nodes/{id}/approve", Admin),
            (Method::GET, "/api/v1/nodesandmore", Admin),
            (Method::GET, "/api/v1/what-nobody-named", Admin),
        ] {
            assert_eq!(need(&method, route), Need::Role(role), "{method} {route}");
        }
        assert_eq!(need(&Method::GET, "/healthz"), Need::Nothing);
    }
}

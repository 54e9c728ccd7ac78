//! `GET /docs/errors/{code}`: the page of a code, where the `type` of a problem document leads.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use hostler_model::{Code, Refusal};
use http::header;

use super::refuse::Failure;

/// The pages, compiled in.
macro_rules! pages {
    ($($code:literal),* $(,)?) => {
        &[$(($code, include_str!(concat!("../../../../docs/errors/", $code, ".md")))),*]
    };
}

const PAGES: &[(&str, &str)] = pages![
    "account-name-taken",
    "account-not-found",
    "ambiguous",
    "assignment-not-found",
    "bad-request",
    "body-too-large",
    "command-not-found",
    "driver-unsupported",
    "forbidden",
    "internal",
    "log-not-found",
    "method-not-allowed",
    "name-invalid",
    "no-placement",
    "no-rollout",
    "node-busy",
    "node-gone",
    "node-identity-in-use",
    "node-name-taken",
    "node-not-found",
    "node-state-conflict",
    "node-unreachable",
    "not-leader",
    "not-rented",
    "overloaded",
    "replica-not-found",
    "replica-state-conflict",
    "revision-conflict",
    "revision-not-found",
    "rollout-held",
    "route-not-found",
    "spec-invalid",
    "stale-report",
    "store-unavailable",
    "unauthenticated",
    "version-unsupported",
    "workload-deleting",
    "workload-not-found",
];

/// What a code means and what to do about it.
#[utoipa::path(get, path = "/docs/errors/{code}", tag = "server",
    params(("code" = String, Path, description = "A code of a problem document")),
    responses((status = 200, body = String, content_type = "text/markdown"), (status = 404, body = hostler_wire::api::Problem)))]
pub(super) async fn page(Path(code): Path<String>) -> Result<Response, Failure> {
    let Some((_, text)) = PAGES.iter().find(|(known, _)| *known == code) else {
        let sentence = format!("there is no code `{code}`");
        let advice = "take the code from the `code` of a problem document";
        return Err(Refusal::new(Code::RouteNotFound, sentence, advice).into());
    };
    Ok((
        [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")],
        *text,
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::refuse::problem;

    #[test]
    fn the_type_of_every_problem_leads_to_its_page() {
        for code in Code::ALL {
            let kind = problem(Refusal::new(*code, "x", "y")).kind;
            let named = kind.strip_prefix("/docs/errors/").unwrap();
            let page = PAGES.iter().find(|(known, _)| *known == named);
            let (_, text) = page.unwrap_or_else(|| panic!("{kind} leads nowhere"));
            assert!(text.starts_with(&format!("# {code}\n")), "{code}");
        }
    }
}

//! `GET /docs/errors/{code}`: the page of a code, where the `type` of a problem document leads and where the code
//! of a failed copy is looked up.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use hostler_model::{Code, Refusal, page_of};
use http::header;

use super::refuse::Failure;

/// What a code means and what to do about it.
#[utoipa::path(get, path = "/docs/errors/{code}", tag = "server",
    params(("code" = String, Path, description = "A code of a problem document, or of a copy's state")),
    responses((status = 200, body = String, content_type = "text/markdown"), (status = 404, body = hostler_wire::api::Problem)))]
pub(super) async fn page(Path(code): Path<String>) -> Result<Response, Failure> {
    let Some(text) = page_of(&code) else {
        let sentence = format!("there is no code `{code}`");
        let advice = "take the code from the `code` of a problem document or of a copy's state";
        return Err(Refusal::new(Code::RouteNotFound, sentence, advice).into());
    };
    Ok((
        [(header::CONTENT_TYPE, "text/markdown; charset=utf-8")],
        text,
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
            assert_eq!(page_of(named), Some(code.page()), "{kind} leads nowhere");
        }
    }
}

//! Pages for a person with a browser: what the API has, made from its own description. One document without scripts,
//! that loads nothing from anywhere.

use std::fmt::Write as _;

use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, header};
use serde_json::Value;

use super::openapi::OPENAPI;

/// What all pages look like.
pub(super) const STYLE: &str =
    "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}
td{padding:.1em 1em .1em 0;vertical-align:top}code{white-space:nowrap}";

const ABOUT: &str = "<h1>Hostler control plane</h1>
<p>The API is described for programs in <a href=\"/openapi.json\">/openapi.json</a>. It is ready if
<a href=\"/readyz?verbose\">/readyz</a> says so; its nodes are in <a href=\"/api/v1/nodes\">/api/v1/nodes</a>.</p>
<table>
";

/// `GET /docs` and `GET /redoc`: every route with what it does.
pub(super) async fn docs() -> Response {
    Html(routes_below("")).into_response()
}

/// The same, below what is to be said first.
pub(super) fn routes_below(first: &str) -> String {
    document("Hostler", &format!("{first}{}", table(OPENAPI)))
}

/// A whole page.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>{STYLE}</style></head>\n\
         <body>{body}</body></html>\n"
    )
}

/// Whether the caller is a browser that shows a page.
pub(super) fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|it| it.to_str().ok())
        .any(|it| it.contains("text/html"))
}

fn table(description: &str) -> String {
    let description: Value = serde_json::from_str(description).unwrap_or_default();
    let mut page = ABOUT.to_owned();
    let paths = description["paths"].as_object().into_iter().flatten();
    for (path, methods) in paths {
        for (method, route) in methods.as_object().into_iter().flatten() {
            let does = route["summary"].as_str().unwrap_or_default();
            let (method, path, does) = (method.to_uppercase(), escaped(path), escaped(does));
            // Writing to a text cannot fail.
            let _ = writeln!(
                page,
                "<tr><td><code>{method} {path}</code></td><td>{does}</td></tr>"
            );
        }
    }
    page.push_str("</table>");
    page
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_on_the_page_and_nothing_is_loaded() {
        let page = routes_below("");
        for route in [
            "GET /api/v1/nodes",
            "POST /api/v1/deployments",
            "DELETE /api/v1/workloads/{id}",
        ] {
            assert!(page.contains(&format!("<code>{route}</code>")), "{route}");
        }
        assert!(page.contains("href=\"/openapi.json\""));
        for outside in ["http://", "https://", "src=", "<script", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_a_route_says_is_text() {
        let page = table(r#"{"paths": {"/<a>": {"get": {"summary": "x & <b>"}}}}"#);
        assert!(page.contains("<code>GET /&lt;a&gt;</code></td><td>x &amp; &lt;b&gt;</td>"));
    }
}

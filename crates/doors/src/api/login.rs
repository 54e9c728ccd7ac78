//! Login with a browser: a token is typed into a form once, and a cookie stands for it from then on.
//!
//! ```text
//!   GET /login ──► a form, and a cookie that ties the login to it
//!   POST /login, from our own page, with both and a good token ──► the session's cookie, new each time
//!   POST /logout ──► the session has ended
//! ```
//!
//! The pages hold no script and load nothing. What a program asks for is answered as JSON. The sessions are kept by
//! `crate::access`; what can fail is a refusal. Without login there are no such routes.

use std::sync::LazyLock;

use axum::extract::{Request, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_kit::trust::secret;
use hostler_model::{Code, Refusal};
use hostler_wire::api;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::access::whoever;
use super::pages::{self, escaped};
use super::refuse::{Failure, status};
use super::take::read;
use super::{Api, origin};
use crate::access::{Cookie, FORM_LIFE, Session, Who, is_proof, proof, stranger};
use crate::audit::Why;

const PATH: &str = "/login";
const LOGOUT: &str = "/logout";
/// Most bytes of a form.
const FORM_BYTES: usize = 4_096;

/// Nothing but our own style, and forms that lead back to us.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(pages::STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    )
});

/// What a form of this page carries.
#[derive(Deserialize, ToSchema)]
pub(super) struct Form {
    /// The token that the session stands for; nothing where one ends.
    #[serde(default)]
    token: String,
    /// As the page gave it.
    #[serde(default)]
    csrf: String,
}

/// What a form needs, for programs.
#[derive(Serialize, ToSchema)]
pub(super) struct LoginForm {
    csrf: String,
}

/// Whether what is sent there carries its proof in its form, where the handler looks.
pub(super) fn has_own_proof(path: &str) -> bool {
    path == PATH || path == LOGOUT
}

/// The form for a token, with the cookie that belongs to it.
#[utoipa::path(get, path = "/login", tag = "access",
    responses((status = 200, body = LoginForm), (status = "default", body = api::Problem)))]
pub(super) async fn form(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Failure> {
    is_there(&api)?;
    Ok(shown(&api, &headers, None))
}

/// Begins a session: its cookie stands for the token.
#[utoipa::path(post, path = "/login", tag = "access",
    request_body(content = Form, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = api::Whoami), (status = 303), (status = "default", body = api::Problem)))]
pub(super) async fn login(State(api): State<Api>, request: Request) -> Result<Response, Failure> {
    is_there(&api)?;
    let is_own = origin::is_own_page(&request);
    let (headers, peer) = (
        request.headers().clone(),
        request.extensions().get().copied(),
    );
    let form: Form = read_form(request).await?;
    if form.token.trim().is_empty() {
        return Err(Failure::bad("the form has no token"));
    }
    let tie = Cookie::Form.read(&headers);
    let is_tied = tie.is_some_and(|tie| is_proof(&tie, &form.csrf));
    let begun = if is_own && is_tied {
        let entropy = api.entropy.as_ref();
        api.access
            .begin_session(form.token.trim(), entropy, peer.as_ref())
    } else {
        Err(not_ours())
    };
    let session = match begun {
        Ok(session) => session,
        Err(refusal) => {
            let (why, by) = (Why(refusal.code), stranger(form.token.trim()));
            let mut response = match pages::wants_page(&headers) {
                true => shown(&api, &headers, Some(&refusal)),
                false => Failure(refusal).into_response(),
            };
            response.extensions_mut().insert(why);
            response.extensions_mut().insert(by);
            return Ok(response);
        }
    };
    // What was logged in before is not, whoever it was.
    api.access.end_session(&headers);
    tracing::info!(name = session.who.actor().name(), "a browser logged in");
    let mut response = if pages::wants_page(&headers) {
        Redirect::to("/").into_response()
    } else {
        Json(whoever(&api, &session.who, Some(&session))).into_response()
    };
    let by = api.access.by(&session.who);
    response.extensions_mut().insert(by);
    set_cookie(&mut response, &session.set());
    set_cookie(&mut response, &Cookie::Form.forget());
    Ok(guarded(response))
}

/// Ends the session, whose cookie is worth nothing from then on.
#[utoipa::path(post, path = "/logout", tag = "access",
    request_body(content = Form, content_type = "application/x-www-form-urlencoded"),
    responses((status = 204), (status = 303), (status = "default", body = api::Problem)))]
pub(super) async fn logout(
    State(api): State<Api>,
    session: Option<Extension<Session>>,
    request: Request,
) -> Result<Response, Failure> {
    is_there(&api)?;
    let headers = request.headers().clone();
    let sent = headers.get("x-csrf-token").cloned();
    let form = read_form(request).await?;
    // Whoever shows a token as well came in by that, and logs out all the same.
    let session = session.map(|session| session.0);
    if let Some(session) = session.or_else(|| api.access.session(&headers)) {
        let sent = sent.as_ref().and_then(|it| it.to_str().ok());
        if !session.is_proof(sent.unwrap_or(&form.csrf)) {
            return Err(Failure(not_ours()));
        }
        api.access.end_session(&headers);
        tracing::info!(name = session.who.actor().name(), "a browser logged out");
    }
    let mut response = if pages::wants_page(&headers) {
        Redirect::to(PATH).into_response()
    } else {
        StatusCode::NO_CONTENT.into_response()
    };
    set_cookie(&mut response, &Cookie::Session.forget());
    Ok(guarded(response))
}

/// Sends a browser in which nobody is logged in to the form.
pub(super) fn asked() -> Response {
    guarded(Redirect::to(PATH).into_response())
}

/// The page of whoever is logged in.
pub(super) fn greeting(session: &Session) -> Response {
    let Who::Person { name, role, .. } = &session.who else {
        return asked();
    };
    let (name, csrf) = (escaped(name), session.proof());
    let first = format!(
        "<form method=\"post\" action=\"{LOGOUT}\"><p>Logged in as {name}, {role}.\n\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\"><button>Log out</button></p></form>\n"
    );
    guarded(Html(pages::routes_below(&first)).into_response())
}

/// The form, and why the last one was refused. A form that is open in another tab stays good.
fn shown(api: &Api, headers: &HeaderMap, refusal: Option<&Refusal>) -> Response {
    let tie = Cookie::Form.read(headers);
    let tie = tie.unwrap_or_else(|| secret(api.entropy.as_ref()));
    let csrf = proof(&tie);
    let mut response = if pages::wants_page(headers) {
        Html(page(&csrf, refusal)).into_response()
    } else {
        Json(LoginForm { csrf }).into_response()
    };
    if let Some(refusal) = refusal {
        *response.status_mut() = status(refusal.code);
    }
    set_cookie(&mut response, &Cookie::Form.set(&tie, FORM_LIFE));
    guarded(response)
}

fn page(csrf: &str, refusal: Option<&Refusal>) -> String {
    let refused = refusal.map(|refusal| {
        let (sentence, advice) = (escaped(&refusal.sentence), escaped(&refusal.advice));
        format!("<p role=\"alert\"><strong>{sentence}</strong><br>{advice}</p>\n")
    });
    let body = format!(
        "<h1>Hostler</h1>\n{}<form method=\"post\" action=\"{PATH}\">\n\
         <input type=\"hidden\" name=\"csrf\" value=\"{}\">\n\
         <p><label>Token <input type=\"password\" name=\"token\" autocomplete=\"current-password\" required \
         autofocus></label>\n<button>Log in</button></p></form>\n\
         <p>An admin makes tokens with <code>hostler token issue</code>. Logged in already? \
         <a href=\"/\">Go on</a>.</p>\n",
        refused.unwrap_or_default(),
        escaped(csrf)
    );
    pages::document("Log in to Hostler", &body)
}

async fn read_form(request: Request) -> Result<Form, Failure> {
    let bytes = read(request, FORM_BYTES).await?;
    let text = String::from_utf8(bytes).ok();
    // A form is written as a query is.
    let query = text.and_then(|text| format!("/?{text}").parse().ok());
    let form = query.and_then(|query| axum::extract::Query::try_from_uri(&query).ok());
    form.map(|form| form.0)
        .ok_or_else(|| Failure::bad("the body is no form of this page"))
}

/// What only pages of ours get and may do: it is kept nowhere, shown in no frame, and tells no other site of itself.
fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let mut say = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    say(header::CACHE_CONTROL, "no-store");
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::X_FRAME_OPTIONS, "DENY");
    // With none at all, a browser would not say whose form it sends.
    say(header::REFERRER_POLICY, "same-origin");
    if let Ok(policy) = HeaderValue::try_from(POLICY.as_str()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

fn is_there(api: &Api) -> Result<(), Failure> {
    if api.access.is_guarded() {
        return Ok(());
    }
    let advice = "this server runs without login: nobody needs one";
    Err(Failure(Refusal::new(
        Code::RouteNotFound,
        "Not Found",
        advice,
    )))
}

fn not_ours() -> Refusal {
    let sentence = "this form is another site's, or has been open for too long";
    let advice = "open the page again in this browser, and send it from there";
    Refusal::new(Code::Forbidden, sentence, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_shows_what_was_refused_as_text() {
        let refusal = Refusal::new(Code::Forbidden, "<b>\"no\"", "<script>");
        let page = page("abc", Some(&refusal));
        assert!(page.contains("&lt;b&gt;&quot;no&quot;") && page.contains("&lt;script&gt;"));
        for outside in ["http://", "https://", "src=", "<script", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains(&format!("<style>{}</style>", pages::STYLE)));
    }
}

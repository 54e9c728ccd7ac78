//! Login with a browser: over TLS, by a client that keeps cookies as a browser does.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_kit::trust::ClientTls;
use hostler_kit::{Clock, SystemClock};
use hostler_model::AccessRole;
use reqwest::header::SET_COOKIE;
use reqwest::{Method, StatusCode};

use crate::access::{Guarded, routes};
use crate::server::{Answer, DEADLINE, Server, spec};

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SESSION: &str = "__Host-hostler";
const TIE: &str = "__Host-hostler-form";

/// What is known of a page: its origin is sent with what it sends.
struct Browser {
    http: reqwest::Client,
    base: String,
    cookies: Mutex<BTreeMap<String, String>>,
}

impl Browser {
    fn new(guarded: &Guarded) -> Self {
        Self::speaking(guarded, &[b"h2", b"http/1.1"])
    }

    fn speaking(guarded: &Guarded, protocols: &[&[u8]]) -> Self {
        let tls = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
        let mut config = tls.config();
        config.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
        let builder = crate::server::http().no_proxy();
        let builder = builder.redirect(reqwest::redirect::Policy::none());
        Self {
            http: builder.tls_backend_preconfigured(config).build().unwrap(),
            base: format!("https://{}", guarded.secured),
            cookies: Mutex::default(),
        }
    }

    /// One that is logged in with a fresh token of that role.
    async fn of(guarded: &Guarded, role: AccessRole) -> (Self, String) {
        let (browser, token) = (Self::new(guarded), guarded.token(role).await);
        let entered = browser.log_in(&token).await;
        assert_eq!(entered.status, StatusCode::SEE_OTHER, "{}", entered.text);
        (browser, token)
    }

    /// Sends what is said with the cookies that there are, and keeps those that come back.
    async fn send(&self, method: Method, path: &str, say: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        let cookies = self.cookies.lock().unwrap().clone();
        if !cookies.is_empty() {
            let pairs: Vec<String> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            request = request.header("cookie", pairs.join("; "));
        }
        for (name, value) in say {
            request = request.header(*name, *value);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        for set in headers.get_all(SET_COOKIE) {
            let (pair, attributes) = set.to_str().unwrap().split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let mut cookies = self.cookies.lock().unwrap();
            if attributes.ends_with("Max-Age=0") {
                cookies.remove(name);
            } else {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let text = answer.text().await.unwrap();
        Answer {
            status,
            headers,
            text,
        }
    }

    async fn get(&self, path: &str, say: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, say, "").await
    }

    /// What is asked for there is refused to whoever has no session.
    async fn is_nobody(&self, path: &str) {
        let refused = self.get(path, &[]).await;
        refused.is_problem(401, "unauthenticated");
    }

    /// As a page of this server's own posts a form.
    async fn post_form(&self, path: &str, accept: (&str, &str), body: &str) -> Answer {
        let say = [
            accept,
            FORM,
            ("origin", self.base.as_str()),
            ("sec-fetch-site", "same-origin"),
        ];
        self.send(Method::POST, path, &say, body).await
    }

    /// Opens the form and sends the token.
    async fn log_in(&self, token: &str) -> Answer {
        let page = self.get("/login", &[HTML]).await;
        let csrf = hidden(&page.text);
        let body = format!("csrf={csrf}&token={token}");
        self.post_form("/login", HTML, &body).await
    }

    fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    fn take(&self, name: &str, value: &str) {
        let mut cookies = self.cookies.lock().unwrap();
        cookies.insert(name.to_owned(), value.to_owned());
    }

    /// Follows the events, as a page does.
    async fn follow(&self) -> reqwest::Response {
        let cookie = format!("{SESSION}={}", self.cookie(SESSION).unwrap());
        let url = format!("{}/api/v1/events?follow=true", self.base);
        let opened = self.http.get(url).header("cookie", cookie).send().await;
        let opened = opened.unwrap();
        assert_eq!(opened.status(), StatusCode::OK);
        opened
    }

    async fn csrf(&self) -> String {
        let who = self.get("/api/v1/whoami", &[]).await.json();
        who["session"]["csrf"].as_str().unwrap().to_owned()
    }
}

/// A clock that a test can put forward.
struct Ahead {
    clock: SystemClock,
    seconds: AtomicU64,
}

impl Ahead {
    /// A server by such a clock.
    async fn guarded() -> (Guarded, Arc<Self>) {
        let clock = Arc::new(Self {
            clock: SystemClock::new(),
            seconds: AtomicU64::new(0),
        });
        let guarded = Guarded::under(Arc::<Self>::clone(&clock)).await;
        (guarded, clock)
    }
}

impl Clock for Ahead {
    fn wall_millis(&self) -> u64 {
        self.clock.wall_millis()
    }

    fn uptime(&self) -> Duration {
        self.clock.uptime() + Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
}

/// What the form of a page carries along.
fn hidden(page: &str) -> String {
    let (_, rest) = page
        .split_once("name=\"csrf\" value=\"")
        .unwrap_or_else(|| panic!("{page}"));
    rest.split_once('"').unwrap().0.to_owned()
}

fn set(answer: &Answer, name: &str) -> String {
    let all = answer.headers.get_all(SET_COOKIE).iter();
    let mut all = all.map(|it| it.to_str().unwrap());
    let set = all.find(|it| it.starts_with(&format!("{name}=")));
    set.unwrap_or_else(|| panic!("{:?}", answer.headers))
        .to_owned()
}

#[tokio::test]
async fn a_token_is_typed_in_once_and_a_cookie_stands_for_it() {
    let guarded = Guarded::start().await;
    let token = guarded.token(AccessRole::Operator).await;
    for protocols in [&[&b"h2"[..], b"http/1.1"][..], &[b"http/1.1"]] {
        let browser = Browser::speaking(&guarded, protocols);
        let led = browser.get("/", &[HTML]).await;
        assert_eq!(
            (led.status.as_u16(), led.header("location")),
            (303, "/login")
        );
        assert_eq!(led.header("vary"), "accept, cookie");
        let page = browser.get("/login", &[HTML]).await;
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        assert!(policy.contains("form-action 'self'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(!page.text.contains("<script"));
        let entered = browser.log_in(&token).await;
        assert_eq!(
            (entered.status.as_u16(), entered.header("location")),
            (303, "/")
        );
        let cookie = browser.cookie(SESSION).unwrap();
        assert_eq!(
            set(&entered, SESSION),
            format!("{SESSION}={cookie}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=43200")
        );
        assert!(!token.contains(&cookie) && browser.cookie(TIE).is_none());
        let who = browser.get("/api/v1/whoami", &[]).await.json();
        assert_eq!(
            (&who["name"], &who["role"]),
            (&"operator".into(), &"operator".into())
        );
        assert!(who["session"]["expires_at"].is_string());
        let page = browser.get("/", &[HTML]).await;
        assert!(
            page.text.contains("Logged in as operator, operator."),
            "{}",
            page.text
        );
        // The role is the token's.
        browser.get("/api/v1/nodes", &[]).await.json();
        let refused = browser.get("/api/v1/tokens", &[]).await;
        refused.is_problem(403, "forbidden");
        // What is shown to programs stays.
        let root = browser.get("/", &[]).await.json();
        assert_eq!(root["service"], "hostler");
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_change_needs_a_page_of_our_own_and_its_proof() {
    let guarded = Guarded::start().await;
    let token = guarded.token(AccessRole::Operator).await;
    let (browser, other) = (Browser::new(&guarded), Browser::new(&guarded));
    browser.log_in(&token).await;
    other.log_in(&token).await;
    let (csrf, of_other) = (browser.csrf().await, other.csrf().await);
    assert_ne!(csrf, of_other);
    let own = browser.base.clone();
    let with = |csrf: &'static str| ("x-csrf-token", csrf);
    let apply = async |say: &[(&str, &str)]| -> Answer {
        browser
            .send(Method::POST, "/api/v1/workloads", say, &spec("web", 1))
            .await
    };
    let proof = ("x-csrf-token", csrf.as_str());
    let origin = ("origin", own.as_str());
    for say in [
        &[][..],
        &[origin],
        &[proof],
        &[origin, with("")],
        &[origin, with("wrong")],
        &[origin, ("x-csrf-token", of_other.as_str())],
        &[proof, ("origin", "https://evil.example")],
        &[proof, ("origin", "null")],
        &[proof, origin, ("sec-fetch-site", "same-site")],
        &[proof, ("sec-fetch-site", "cross-site")],
        &[proof, ("sec-fetch-site", "none")],
    ] {
        apply(say).await.is_problem(403, "forbidden");
    }
    let applied = apply(&[proof, origin, ("sec-fetch-site", "same-origin")]).await;
    assert!(applied.status.is_success(), "{}", applied.text);
    assert!(
        apply(&[proof, ("sec-fetch-site", "same-origin")])
            .await
            .status
            .is_success()
    );
    // Whoever shows a token means the token, good or not.
    let bearer = format!("Bearer {token}");
    assert!(
        apply(&[("authorization", &bearer)])
            .await
            .status
            .is_success()
    );
    let wrong = apply(&[("authorization", "Bearer hostler_no_good"), proof, origin]).await;
    wrong.is_problem(401, "unauthenticated");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_socket_is_opened_by_a_page_of_our_own_alone() {
    let guarded = Guarded::start().await;
    let browser = Browser::speaking(&guarded, &[b"http/1.1"]);
    browser
        .log_in(&guarded.token(AccessRole::Operator).await)
        .await;
    let own = browser.base.clone();
    let open = async |origin: Option<&str>| -> Answer {
        let mut say = vec![
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        say.extend(origin.map(|origin| ("origin", origin)));
        let id = "00000000-0000-7000-8000-000000000000";
        let path = format!("/api/v1/assignments/{id}/exec?command=true");
        browser.get(&path, &say).await
    };
    for origin in [None, Some("https://evil.example"), Some("null")] {
        open(origin).await.is_problem(403, "forbidden");
    }
    let opened = open(Some(&own)).await;
    assert_ne!(opened.status, StatusCode::FORBIDDEN, "{}", opened.text);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_session_ends_with_its_token_when_asked_to_and_with_its_server() {
    let guarded = Guarded::start().await;
    let admin = format!("Bearer {}", guarded.token(AccessRole::Admin).await);
    let (browser, token) = Browser::of(&guarded, AccessRole::Viewer).await;
    let cookie = browser.cookie(SESSION).unwrap();
    // Logging out needs the proof, too.
    let refused = browser.post_form("/logout", HTML, "csrf=wrong").await;
    refused.is_problem(403, "forbidden");
    let page = browser.get("/", &[HTML]).await;
    let body = format!("csrf={}", hidden(&page.text));
    let left = browser.post_form("/logout", HTML, &body).await;
    assert_eq!(
        (left.status.as_u16(), left.header("location")),
        (303, "/login")
    );
    assert_eq!(browser.cookie(SESSION), None);
    browser.take(SESSION, &cookie);
    browser.is_nobody("/api/v1/nodes").await;
    // A browser that is logged out already is not refused.
    let again = browser.post_form("/logout", ("accept", "*/*"), "").await;
    assert_eq!(again.status.as_u16(), 204);
    browser.log_in(&token).await;
    browser.get("/api/v1/nodes", &[]).await.json();
    let other = Guarded::start().await;
    let stranger = Browser::new(&other);
    stranger.take(SESSION, &browser.cookie(SESSION).unwrap());
    stranger.is_nobody("/api/v1/nodes").await;
    other.server.shut_down().await;
    let headers = [("authorization", admin.as_str())];
    let revoke = (guarded.server).send(Method::DELETE, "/api/v1/tokens/viewer", &headers, "");
    assert!(revoke.await.status.is_success());
    browser.is_nobody("/api/v1/nodes").await;
    let led = browser.get("/", &[HTML]).await;
    assert_eq!(led.header("location"), "/login");
    guarded.server.shut_down().await;
}

/// All that a stream says until it ends, with a refusal as its last word.
async fn ends(stream: reqwest::Response) {
    let text = tokio::time::timeout(DEADLINE, stream.text()).await;
    let text = text.unwrap().unwrap();
    let (_, last) = text.trim_end().rsplit_once("event:").unwrap();
    assert!(
        last.trim_start().starts_with("problem") && last.contains("unauthenticated"),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_page_follows_ends_with_its_session() {
    let (guarded, clock) = Ahead::guarded().await;
    let token = guarded.token(AccessRole::Viewer).await;
    let (browser, other) = (Browser::new(&guarded), Browser::new(&guarded));
    browser.log_in(&token).await;
    other.log_in(&token).await;
    let (followed, of_other) = (browser.follow().await, other.follow().await);
    let body = format!("csrf={}", browser.csrf().await);
    let left = browser.post_form("/logout", HTML, &body).await;
    assert_eq!(left.status.as_u16(), 303);
    ends(followed).await;
    // Its time is over, too; that somebody logs in makes it look.
    other.get("/api/v1/whoami", &[]).await.json();
    clock.seconds.store(12 * 60 * 60, Ordering::Relaxed);
    browser.log_in(&token).await;
    ends(of_other).await;
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn who_shows_a_token_beside_the_cookie_logs_out_all_the_same() {
    let guarded = Guarded::start().await;
    let (browser, token) = Browser::of(&guarded, AccessRole::Viewer).await;
    let (cookie, csrf) = (browser.cookie(SESSION).unwrap(), browser.csrf().await);
    let bearer = format!("Bearer {token}");
    let leave = async |proof: &str| -> Answer {
        let say = [("authorization", bearer.as_str()), ("x-csrf-token", proof)];
        browser.send(Method::POST, "/logout", &say, "").await
    };
    leave("wrong").await.is_problem(403, "forbidden");
    assert_eq!(leave(&csrf).await.status.as_u16(), 204);
    browser.take(SESSION, &cookie);
    browser.is_nobody("/api/v1/whoami").await;
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_login_that_failed_is_written_down_with_its_code_and_the_tokens_id() {
    let guarded = Guarded::start().await;
    let (id, _) = guarded.token_until(AccessRole::Viewer, None).await;
    let browser = Browser::new(&guarded);
    let refused = browser.log_in(&format!("hostler_{id}_wrong")).await;
    assert_eq!(refused.status.as_u16(), 401);
    let (lines, text) = guarded.audit("strangers").await;
    let line = lines.last().unwrap();
    assert_eq!(
        (&line["route"], &line["code"], &line["actor"]["id"]),
        (
            &"/login".into(),
            &"unauthenticated".into(),
            &id.to_string().into()
        )
    );
    assert!(!text.contains("wrong"), "{text}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_session_ends_after_twelve_hours_however_much_it_is_used() {
    let (guarded, clock) = Ahead::guarded().await;
    let (browser, _) = Browser::of(&guarded, AccessRole::Viewer).await;
    for hour in 1..12 {
        clock.seconds.store(hour * 60 * 60, Ordering::Relaxed);
        let answer = browser.get("/api/v1/whoami", &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "hour {hour}");
    }
    clock.seconds.store(12 * 60 * 60, Ordering::Relaxed);
    browser.is_nobody("/api/v1/whoami").await;
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn another_site_logs_nobody_in_and_a_cookie_from_before_is_not_taken_over() {
    let guarded = Guarded::start().await;
    let token = guarded.token(AccessRole::Viewer).await;
    let browser = Browser::new(&guarded);
    let page = browser.get("/login", &[HTML]).await;
    let (csrf, tie) = (hidden(&page.text), browser.cookie(TIE).unwrap());
    assert_eq!(
        set(&page, TIE),
        format!("{TIE}={tie}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=3600")
    );
    // A second tab does not spoil the first.
    assert_eq!(hidden(&browser.get("/login", &[HTML]).await.text), csrf);
    let body = format!("csrf={csrf}&token={token}");
    let own = browser.base.clone();
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let mut say = vec![FORM];
        say.extend(origin.map(|origin| ("origin", origin)));
        let refused = browser.send(Method::POST, "/login", &say, &body).await;
        refused.is_problem(403, "forbidden");
    }
    let guessed = format!("csrf=guessed&token={token}");
    let refused = browser.post_form("/login", HTML, &guessed).await;
    assert_eq!(refused.status.as_u16(), 403);
    assert!(refused.text.contains("role=\"alert\""), "{}", refused.text);
    let bare = Browser::new(&guarded);
    let refused = bare.post_form("/login", ("accept", "*/*"), &body).await;
    refused.is_problem(403, "forbidden");
    assert!(bare.cookie(SESSION).is_none() && browser.cookie(SESSION).is_none());
    // What somebody planted stands for nobody, before and after.
    let planted = "planted-by-somebody-else";
    browser.take(SESSION, planted);
    let entered = browser.post_form("/login", HTML, &body).await;
    assert_eq!(entered.status.as_u16(), 303, "{}", entered.text);
    let first = browser.cookie(SESSION).unwrap();
    assert_ne!(first, planted);
    let thief = Browser::new(&guarded);
    thief.take(SESSION, planted);
    thief.is_nobody("/api/v1/whoami").await;
    // A second login ends the first session.
    browser.log_in(&token).await;
    thief.take(SESSION, &first);
    thief.is_nobody("/api/v1/whoami").await;
    // A program logs in the same way.
    let form = bare.get("/login", &[]).await.json();
    let body = format!("csrf={}&token={token}", form["csrf"].as_str().unwrap());
    let say = [FORM, ("origin", own.as_str())];
    let who = bare.send(Method::POST, "/login", &say, &body).await.json();
    assert_eq!(who["session"]["csrf"].as_str().unwrap(), bare.csrf().await);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn guesses_are_counted_and_a_token_has_so_many_sessions() {
    let guarded = Guarded::start().await;
    let token = guarded.token(AccessRole::Viewer).await;
    let browser = Browser::new(&guarded);
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..40 {
        statuses.insert(browser.log_in("hostler_guess_guess").await.status.as_u16());
    }
    assert_eq!(statuses, [401, 429].into());
    let empty = browser.log_in("").await;
    empty.is_problem(400, "bad-request");
    let long = browser.log_in(&"x".repeat(5_000)).await;
    long.is_problem(413, "body-too-large");
    assert_eq!(browser.log_in(&token).await.status.as_u16(), 303);
    let first = Browser::new(&guarded);
    first.take(SESSION, &browser.cookie(SESSION).unwrap());
    for _ in 0..16 {
        first.get("/api/v1/whoami", &[]).await.json();
        Browser::new(&guarded).log_in(&token).await;
    }
    first.is_nobody("/api/v1/whoami").await;
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_route_that_looks_at_the_cookie_allows_no_credentials_to_others() {
    let guarded = Guarded::start().await;
    let (browser, _) = Browser::of(&guarded, AccessRole::Admin).await;
    // These say the same to everybody.
    let open = ["/health", "/openapi.json"];
    let mut shared = 0;
    for (method, path, filled) in routes() {
        if method != Method::GET {
            continue;
        }
        let say = [("origin", "https://evil.example")];
        let answer = browser.send(method, &filled, &say, "").await;
        let allows = answer.header("access-control-allow-credentials") == "true";
        let is_seen = answer.status != StatusCode::UNAUTHORIZED;
        assert!(
            !allows || !is_seen || open.contains(&path.as_str()),
            "{path}"
        );
        shared += u32::from(allows);
    }
    assert!(shared > 2, "{shared}");
    // MIaaS's routes and its socket know no cookie.
    for path in [
        "/api/v1/deployments",
        "/api/v1/deployments/x",
        "/ws/logs?deployment=x",
    ] {
        browser.is_nobody(path).await;
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn where_there_is_no_login_there_is_no_form() {
    let server = Server::start().await;
    server
        .get("/login")
        .await
        .is_problem(404, "route-not-found");
    server
        .post("/login", "token=x")
        .await
        .is_problem(404, "route-not-found");
    server
        .post("/logout", "")
        .await
        .is_problem(404, "route-not-found");
    let page = server.send(Method::GET, "/", &[HTML], "").await;
    assert_eq!((page.status.as_u16(), page.header("vary")), (200, "accept"));
    assert!(page.headers.get(SET_COOKIE).is_none());
    server.shut_down().await;
}

//! Login in a real browser: what it keeps, shows and sends is its own doing, and not what a test believes of browsers.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_control::{Trust, TrustConfig};
use hostler_doors::{Listener, serve};
use hostler_kit::trust::certificates;
use hostler_kit::{SystemClock, Tasks};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

use crate::chromium::{Chromium, a_network_apart};
use crate::guarded::Guarded;
use crate::program::eventually;

const SESSION: &str = "__Host-hostler";
/// A copy that there is not.
const COPY: &str = "00000000-0000-7000-8000-000000000000";
const EVE: &str = "Logged in as eve, operator.";

/// Sends what it is given to the server, from the page that is open, and tells what the page gets to see.
const SEND: &str = "const [url, what] = arguments;
    return fetch(url, {credentials: 'include', ...what}).then(it => it.text()).catch(() => 'nothing');";

/// Follows the events, from the page that is open, and keeps in `told` what they say.
const FOLLOW: &str = "window.told = '';
    return fetch('/api/v1/events?follow=true').then(async it => {
        const follow = async () => {
            const words = new TextDecoder();
            for await (const part of it.body) window.told += words.decode(part, {stream: true});
            window.told += 'THE END';
        };
        follow();
        return it.status;
    });";

/// Opens a shell's socket, from the page that is open.
const OPEN: &str = "const [url] = arguments;
    return new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => done('open');
        socket.onerror = () => done('nothing');
    });";

/// Pages of somebody else's: of another site, and of this host's over TLS, where cookies of all its ports are sent.
struct Elsewhere {
    runtime: Runtime,
    tasks: Tasks,
    site: String,
    port: String,
    /// What cookies came along with requests for them.
    cookies: Arc<Mutex<Vec<String>>>,
}

impl Elsewhere {
    /// They lead to that server, with that token.
    fn serve(dir: &Path, (server, token): (&str, &str)) -> Self {
        let config = TrustConfig {
            dir: dir.to_owned(),
            ..TrustConfig::default()
        };
        let trust = Trust::open(config, Arc::new(SystemClock::new())).unwrap();
        let page = format!(
            "<!doctype html><title>Elsewhere</title><a href=\"{server}/\">see</a>
             <form id=logout method=post action=\"{server}/logout\"><button>1</button></form>
             <form id=login method=post action=\"{server}/login\">
             <input name=token value=\"{token}\"><button>2</button></form>
             <form id=apply method=post enctype=text/plain action=\"{server}/api/v1/workloads\">
             <textarea name=\"name: evil\nprocess: {{command: [sleep, inf]}}\n#\"></textarea><button>3</button></form>"
        );
        let cookies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&cookies);
        let shown = move |headers: http::HeaderMap| {
            let sent = headers.get_all(http::header::COOKIE).iter();
            let sent = sent.map(|it| it.to_str().unwrap().to_owned());
            kept.lock().unwrap().extend(sent);
            std::future::ready(Html(page))
        };
        let pages = Router::new().route("/", get(shown));
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let tasks = Tasks::new();
        let (site, port) = runtime.block_on(async {
            let bind = async || Listener::plain(([127, 0, 0, 1], 0).into()).bind().await;
            let (plain, secured) = (bind().await.unwrap(), bind().await.unwrap());
            let site = format!("http://localhost:{}", plain.addr().port());
            let port = format!("https://{}", secured.addr());
            tasks.spawn("site", serve(plain, pages.clone(), tasks.clone()));
            tasks.spawn(
                "port",
                serve(secured.secured(trust.tls()), pages, tasks.clone()),
            );
            (site, port)
        });
        Self {
            runtime,
            tasks,
            site,
            port,
            cookies,
        }
    }

    /// The cookies that came along since it was asked last.
    fn cookies(&self) -> Vec<String> {
        std::mem::take(&mut self.cookies.lock().unwrap())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let ending = self.tasks.shut_down(Duration::from_secs(30));
        let _ = self.runtime.block_on(ending);
    }
}

/// How a browser is told to believe an authority: by the hash of its key.
fn key_of(authority: &Path) -> String {
    let chain = certificates(&std::fs::read(authority).unwrap()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    STANDARD.encode(Sha256::digest(parsed.public_key().raw))
}

fn issue(fleet: &Guarded, name: &str) -> String {
    let words = ["token", "issue", name, "--role", "operator"];
    let issued = fleet.admin(&words).with_code(0).stdout;
    issued.trim().to_owned()
}

/// A browser in which a person looks at a server, and at what is elsewhere.
struct Visit {
    page: Chromium,
    elsewhere: Elsewhere,
    fleet: Guarded,
    home: String,
}

impl Visit {
    fn begin() -> Self {
        let fleet = Guarded::start();
        let mallory = issue(&fleet, "mallory");
        let dir = fleet.path().join("elsewhere");
        let elsewhere = Elsewhere::serve(&dir, (&fleet.url(), &mallory));
        let authorities = [fleet.server_dir().join("trust/ca.pem"), dir.join("ca.pem")];
        let page = Chromium::start(fleet.path(), &authorities.map(|it| key_of(&it)));
        let home = fleet.url() + "/";
        Self {
            page,
            elsewhere,
            fleet,
            home,
        }
    }

    fn path(&self, path: &str) -> String {
        self.fleet.url() + path
    }

    fn log_in(&self, token: &str) {
        self.page.open(&self.home);
        self.page.until(&self.path("/login"), "Token");
        self.page.type_into("input[name=token]", token);
        self.page.click("button");
        self.page.until(&self.home, EVE);
    }

    /// Nothing has ended, and nobody else is logged in.
    fn is_still_eve(&self) {
        self.page.open(&self.home);
        self.page.until(&self.home, EVE);
    }

    fn is_logged_out(&self) {
        self.page.open(&self.home);
        self.page.until(&self.path("/login"), "Token");
    }

    fn send(&self, path: &str, what: &Value) -> String {
        let seen = self
            .page
            .script(SEND, &[self.path(path).into(), what.clone()]);
        seen.as_str().unwrap().to_owned()
    }

    fn session(&self) -> Option<Value> {
        let mut cookies = self.page.cookies().into_iter();
        cookies.find(|it| it["name"] == SESSION)
    }

    /// All that there is to run.
    fn workloads(&self) -> String {
        self.fleet.admin(&["ps", "-o", "name"]).with_code(0).stdout
    }
}

/// Whoever types is met where they are: a page that looks as it should, and words when it goes wrong.
fn a_wrong_token_is_refused_with_words(visit: &Visit) {
    let page = &visit.page;
    visit.is_logged_out();
    let look = "return [document.activeElement.name, getComputedStyle(document.body).maxWidth]";
    let look = page.script(look, &[]);
    assert_eq!(look[0], "token", "one may type at once");
    assert_ne!(
        look[1], "none",
        "the page's own style is let through by its policy"
    );
    page.type_into("input[name=token]", "hostler_no_such\n");
    page.until(&visit.path("/login"), "the token is worth nothing here");
    page.until(&visit.path("/login"), "ask an admin for another one");
    assert_eq!(visit.session(), None);
}

fn the_cookie_is_this_servers_alone(visit: &Visit, token: &str) {
    let cookie = visit.session().unwrap();
    let text = |key: &str| cookie[key].as_str().unwrap();
    assert_eq!(
        [text("domain"), text("path"), text("sameSite")],
        ["127.0.0.1", "/", "Strict"]
    );
    assert_eq!([&cookie["secure"], &cookie["httpOnly"]], [true, true]);
    assert!(!token.contains(text("value")));
    assert_eq!(visit.page.script("return document.cookie", &[]), "");
}

/// A page of the server's own, whose policy lets it ask.
fn a_page_of_our_own_changes_what_it_may(visit: &Visit) {
    visit.page.open(&visit.path("/api/v1/whoami"));
    let who: Value = serde_json::from_str(&visit.send("/api/v1/whoami", &json!({}))).unwrap();
    assert_eq!(who["name"], "eve");
    let body = "name: mine\nprocess: {command: [sleep, inf]}\n";
    let bare = visit.send(
        "/api/v1/workloads",
        &json!({"method": "POST", "body": body}),
    );
    assert!(bare.contains("\"forbidden\""), "{bare}");
    let headers = json!({"x-csrf-token": who["session"]["csrf"]});
    let order = json!({"method": "POST", "body": body, "headers": headers});
    visit.send("/api/v1/workloads", &order);
    assert_eq!(visit.workloads(), "mine\n");
}

/// It asks in every way that a browser has, and sees nothing of what is answered. All of it has come, and was refused
/// for the page that sent it: who asks was not looked at, nor what there is.
fn a_page_elsewhere_changes_nothing(visit: &Visit, from: &str) {
    let page = &visit.page;
    let before = kept_out(visit);
    page.open(from);
    let body = "name: evil\nprocess: {command: [sleep, inf]}\n";
    let guessed = json!({"x-csrf-token": "guessed"});
    for (path, what) in [
        ("/api/v1/whoami", json!({})),
        ("/api/v1/workloads", json!({"method": "POST", "body": body})),
        (
            "/api/v1/workloads",
            json!({"method": "POST", "body": body, "headers": guessed}),
        ),
        ("/api/v1/workloads/mine", json!({"method": "DELETE"})),
        ("/logout", json!({"method": "POST"})),
    ] {
        assert_eq!(visit.send(path, &what), "nothing", "{path} {what}");
    }
    // It is sent, and the answer is not for this page.
    let blind = json!({"method": "POST", "body": body, "mode": "no-cors"});
    assert_eq!(visit.send("/api/v1/workloads", &blind), "");
    let socket = visit.path(&format!("/api/v1/assignments/{COPY}/exec?command=true"));
    let socket = socket.replacen("https", "wss", 1);
    assert_eq!(page.script(OPEN, &[socket.into()]), "nothing");
    visit.is_still_eve();
    for (form, path) in [
        ("logout", "/logout"),
        ("login", "/login"),
        ("apply", "/api/v1/workloads"),
    ] {
        page.open(from);
        page.click(&format!("#{form} button"));
        page.until(&visit.path(path), "another site");
        visit.is_still_eve();
    }
    assert_eq!(visit.workloads(), "mine\n");
    eventually(
        "all that it sent is refused, as a page of another site",
        || {
            let mut now = kept_out(visit).into_iter().zip(before);
            now.all(|((sent, now), (_, before))| now >= before + sent)
        },
    );
    let lines = [audit(visit, "strangers"), audit(visit, "requests")].concat();
    let mut asked = lines.iter().filter(|line| line["thing"] == COPY);
    assert!(asked.all(|line| line["code"] == "forbidden"), "{lines:?}");
}

/// The lines of that series.
fn audit(visit: &Visit, series: &str) -> Vec<Value> {
    let file = format!("audit/{series}-00000001.jsonl");
    let text = std::fs::read_to_string(visit.fleet.server_dir().join(file)).unwrap_or_default();
    // The last one may be on its way.
    let lines = text.lines().filter_map(|it| serde_json::from_str(it).ok());
    lines.collect()
}

/// How often each kind of order of a page elsewhere is sent without asking first, and how often it was kept out.
fn kept_out(visit: &Visit) -> [(usize, usize); 4] {
    let lines = audit(visit, "strangers");
    let orders = [
        (1, "GET", "/api/v1/assignments/{id}/exec"),
        (3, "POST", "/api/v1/workloads"),
        (2, "POST", "/logout"),
        (1, "POST", "/login"),
    ];
    orders.map(|(sent, method, route)| {
        let is_kept_out = |line: &&Value| {
            let is_order = line["method"] == method && line["route"] == route;
            is_order && line["status"] == 403 && line["code"] == "forbidden"
        };
        (sent, lines.iter().filter(is_kept_out).count())
    })
}

/// What was asked without its cookie is in the file of those whom nobody knows.
fn unknown_askers(visit: &Visit) -> usize {
    let is_asker = |line: &&Value| line["route"] == "/api/v1/whoami" && line["status"] == 401;
    audit(visit, "strangers").iter().filter(is_asker).count()
}

fn another_site_is_sent_no_cookie_and_another_port_is_no_page_of_ours(visit: &Visit) {
    let (page, elsewhere) = (&visit.page, &visit.elsewhere);
    a_page_elsewhere_changes_nothing(visit, &format!("{}/", elsewhere.site));
    assert_eq!(elsewhere.cookies(), [] as [String; 0]);
    eventually("it was asked by somebody unknown", || {
        unknown_askers(visit) == 1
    });
    // A link of theirs leads to the form, and the form back to who one is.
    page.open(&format!("{}/", elsewhere.site));
    page.click("a");
    page.until(&visit.path("/login"), "Logged in already?");
    page.click("a");
    page.until(&visit.home, EVE);
    // Cookies know no ports: this page gets ours, and what it asks for is asked with ours.
    a_page_elsewhere_changes_nothing(visit, &format!("{}/", elsewhere.port));
    let sent = elsewhere.cookies();
    assert!(sent.len() > 3 && sent.iter().all(|it| it.contains(SESSION)));
    assert_eq!(unknown_askers(visit), 1);
}

fn who_logs_out_is_out(visit: &Visit) {
    let page = &visit.page;
    visit.is_still_eve();
    let cookie = visit.session().unwrap();
    page.click("button");
    page.until(&visit.path("/login"), "Token");
    assert_eq!(visit.session(), None);
    // Nothing was kept to be looked at by whoever comes next.
    page.back();
    page.until(&visit.path("/login"), "Token");
    page.put_cookie(&cookie);
    visit.is_logged_out();
}

fn a_revoked_token_ends_what_its_page_has(visit: &Visit) {
    let page = &visit.page;
    page.open(&visit.path("/api/v1/whoami"));
    assert_eq!(page.script(FOLLOW, &[]), 200);
    let words = ["token", "rm", "eve"];
    visit.fleet.admin(&words).with_code(0);
    let mut told = Value::Null;
    eventually("what it follows ends", || {
        told = page.script("return window.told", &[]);
        told.as_str().unwrap().ends_with("THE END")
    });
    assert!(told.as_str().unwrap().contains("unauthenticated"), "{told}");
    visit.is_logged_out();
}

#[test]
#[ignore = "needs root and chromium and chromedriver"]
fn needs_chromium_a_browser_logs_in_and_no_page_but_our_own_acts_for_it() {
    a_network_apart();
    let visit = Visit::begin();
    a_wrong_token_is_refused_with_words(&visit);
    let eve = issue(&visit.fleet, "eve");
    visit.log_in(&eve);
    the_cookie_is_this_servers_alone(&visit, &eve);
    a_page_of_our_own_changes_what_it_may(&visit);
    another_site_is_sent_no_cookie_and_another_port_is_no_page_of_ours(&visit);
    who_logs_out_is_out(&visit);
    visit.log_in(&eve);
    a_revoked_token_ends_what_its_page_has(&visit);
}

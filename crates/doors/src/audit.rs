//! The audit: who did what, from where, and how it ended, as lines of JSON in files that only grow.
//!
//! ```text
//!   gate (ours) ─────────┐
//!   watched (others') ───┼─ what changes, acts on a copy, tells secrets, or is refused ──► requests-….jsonl
//!   session door ────────┘                           └─ refused to nobody we know ──────► strangers-….jsonl
//! ```
//!
//! What strangers are refused has files of its own, so that no flood of it pushes out what was done. A line is queued
//! before its answer is sent, also when whoever asked goes away in between. Beats write nothing. Bodies and queries are
//! not kept, for they may hold secrets. Owns two series of `kit::Lines`, which say what happens when the disk fails.

mod reading;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hostler_kit::trust::veiled;
use hostler_kit::{Clock, Lines, Series};
use hostler_model::{Code, Refusal, Timestamp, TokenId};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::Peer;
use crate::access::{Access, Who, acts};

pub(crate) use self::reading::Wanted;

/// What members do is kept for long: 512 MiB.
const REQUESTS: Series = Series {
    name: "requests",
    bytes: 16 << 20,
    files: 32,
    gap,
};
/// What strangers try is kept as far as 64 MiB go.
const STRANGERS: Series = Series {
    name: "strangers",
    files: 4,
    ..REQUESTS
};
/// Most bytes of what a path names.
const THING_BYTES: usize = 256;
/// Most bytes of names that a door has checked.
const THINGS_BYTES: usize = 4_096;
/// Most bytes of a method, which whoever calls may invent.
const METHOD_BYTES: usize = 64;
/// So many read at a time, whoever else wants to.
const READERS: usize = 2;
/// Where gRPC says how a call ended, when it ended at once.
const GRPC_STATUS: &str = "grpc-status";

/// Routes that are asked like changes and are beats, or only look.
const QUIET: &[&str] = &[
    "/api/v1/nodes/{id}/heartbeat",
    "/api/v1/workloads/plan",
    "/api/agents/{id}/heartbeat",
    "/api/agents/{id}/pricing-report",
    "/api/agents/{id}/decide",
    "/api/agents/{id}/replicas/{replica}/sync-status",
    "/v1/chat/completions",
    "/v1/embeddings",
];
/// Routes that tell a secret to who only reads, or what everybody did.
const TELLING: &[&str] = &["/api/admin/clients/{client}/token", "/api/v1/audit"];
/// Routes that are open to strangers everywhere, and change nothing for them.
const COMING_IN: &[&str] = &["/login", "/logout"];
/// Calls of gRPC that change something. `UpdateNode` is a beat that says more.
const CALLS: &[&str] = &[
    "RegisterNode",
    "ApplyWorkload",
    "DeleteWorkload",
    "RetryWorkload",
    "SubmitAutomationSuggestion",
    "SubmitJob",
    "ControlStream",
];

/// Where it is written down who did what. Clones are one.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Books>>);

struct Books {
    dir: PathBuf,
    requests: Lines,
    strangers: Lines,
    /// Whose turn it is to read.
    turns: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct By {
    /// `person`, `node`, `client`; `anonymous` where there is no login, `nobody` where there is.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of the token or the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// What an answer is about, where its path does not say it: the door has checked it.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    /// One id, or names with a blank between.
    pub(crate) thing: String,
    /// What it is called, where that is an id.
    pub(crate) name: Option<String>,
}

/// Why an answer is a refusal, where its body does not say it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Why(pub Code);

/// Marks an answer that refuses who asks, and not what is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeptOut;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Done,
    Refused,
    Failed,
    /// Whoever asked went away before the answer; it may have been done all the same.
    BrokenOff,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    actor: &'a By,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    door: &'static str,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing: Option<String>,
    /// What it is called, where it is named by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

impl Audit {
    /// Nothing is written down.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Begins to write in that directory.
    ///
    /// # Errors
    /// The machine starts no more threads.
    pub fn open(dir: &Path, clock: &Arc<dyn Clock>) -> io::Result<Self> {
        Ok(Self(Some(Arc::new(Books {
            dir: dir.to_owned(),
            turns: Arc::new(Semaphore::new(READERS)),
            requests: Lines::open(dir, REQUESTS, Arc::clone(clock))?,
            strangers: Lines::open(dir, STRANGERS, Arc::clone(clock))?,
            clock: Arc::clone(clock),
        }))))
    }

    /// Completes when all that was said before is on the disk, or the disk takes nothing.
    pub async fn flush(&self) {
        if let Some(books) = &self.0 {
            tokio::join!(books.requests.flush(), books.strangers.flush());
        }
    }

    /// How many lines were written and how many were lost, where there is an audit.
    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        let books = self.0.as_ref()?;
        let (requests, strangers) = (books.requests.counts(), books.strangers.counts());
        Some((requests.0 + strangers.0, requests.1 + strangers.1))
    }

    /// What a machine did at the session door.
    pub(crate) async fn machine(
        &self,
        (by, peer): (&By, Option<&Peer>),
        call: &'static str,
        (thing, refusal): (&str, Option<&Refusal>),
    ) {
        let Some(books) = &self.0 else { return };
        let outcome = refusal.map_or(Outcome::Done, |_| Outcome::Refused);
        let line = Line {
            at: books.now(),
            actor: by,
            peer: peer.map(|peer| peer.addr.to_string()),
            door: "session",
            method: call,
            route: None,
            thing: shown_thing(thing),
            name: None,
            request: None,
            outcome,
            status: None,
            code: refusal.map(|refusal| refusal.code.to_string()),
        };
        books.of(by, outcome).write(text(&line)).await;
    }
}

impl Books {
    fn now(&self) -> String {
        Timestamp::from_millis(self.clock.wall_millis()).to_string()
    }

    /// What was done belongs to the members' file, whoever did it.
    fn of(&self, by: &By, outcome: Outcome) -> &Lines {
        if by.kind == NOBODY && outcome == Outcome::Refused {
            &self.strangers
        } else {
            &self.requests
        }
    }
}

const NOBODY: &str = "nobody";

impl By {
    pub(crate) fn known(kind: &'static str, name: &str, id: &impl Display) -> Self {
        Self {
            kind,
            name: Some(name.to_owned()),
            id: Some(id.to_string()),
        }
    }

    /// Whoever it is, where nobody is asked.
    pub(crate) const fn anonymous() -> Self {
        Self {
            kind: "anonymous",
            name: None,
            id: None,
        }
    }

    /// Somebody who has not proved to be anybody, and may have named a token.
    pub(crate) fn nobody(token: Option<TokenId>) -> Self {
        Self {
            kind: NOBODY,
            name: None,
            id: token.map(|id| id.to_string()),
        }
    }
}

/// One request under way. Dropped without an answer it is written as broken off.
pub(crate) struct Entry {
    access: Access,
    door: &'static str,
    pub(crate) method: Method,
    pub(crate) path: String,
    route: Option<MatchedPath>,
    /// Of what the path names, before anything was done to it.
    name: Option<String>,
    peer: Option<Peer>,
    request: Option<HeaderValue>,
    by: Option<By>,
    who: Option<Who>,
    is_over: bool,
}

impl Entry {
    pub(crate) fn begin(access: &Access, door: &'static str, request: &Request) -> Self {
        let extensions = request.extensions();
        let mut entry = Self {
            access: access.clone(),
            door,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            route: extensions.get().cloned(),
            name: None,
            peer: extensions.get().copied(),
            request: None,
            by: None,
            who: None,
            is_over: false,
        };
        let route = entry.route.as_ref().filter(|_| entry.matters());
        let named = route.map(|route| (route.as_str(), named_by(route.as_str(), &entry.path)));
        entry.name = named.and_then(|(route, named)| access.name_of(route, &named));
        entry
    }

    /// Notes the request's id.
    pub(crate) fn called(mut self, id: &HeaderValue) -> Self {
        self.request = Some(id.clone());
        self
    }

    /// Notes who asks.
    pub(crate) fn of(&mut self, who: &Who) {
        self.who = Some(who.clone());
    }

    /// The same of somebody who is no `Who`.
    pub(crate) fn by(&mut self, by: By) {
        self.by = Some(by);
    }

    pub(crate) fn is_known(&self) -> bool {
        self.who.is_some()
    }

    /// Writes down how it ended, if that is to be known. The code is the door's own word. What is written is taken
    /// from the answer at once.
    pub(crate) fn answered(
        mut self,
        response: &Response,
        code: Option<&str>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let line = self.end(response, code);
        async move {
            if let Some((books, ended, line)) = line {
                ended.file(&books).write(line).await;
            }
        }
    }

    fn end(
        &mut self,
        response: &Response,
        code: Option<&str>,
    ) -> Option<(Arc<Books>, Ended, String)> {
        self.is_over = true;
        // A door that knows in its own way who asks says who it was.
        if let Some(by) = response.extensions().get::<By>() {
            self.by(by.clone());
        }
        let status = response.status();
        let call = self.call().and_then(|_| call_code(response.headers()));
        if !self.matters() && !is_about_identity(response, call) {
            return None;
        }
        let books = Arc::clone(self.access.audit().0.as_ref()?);
        let outcome = match (status, call) {
            (_, Some(_)) => Outcome::Refused,
            _ if status.is_server_error() => Outcome::Failed,
            _ if status.is_client_error() => Outcome::Refused,
            _ => Outcome::Done,
        };
        let why = || response.extensions().get::<Why>();
        let code = code.map(str::to_owned);
        let code = code.or_else(|| why().map(|why| why.0.to_string()));
        let code = code.or_else(|| call.map(|call| format!("{call:?}")));
        let thing = response.extensions().get::<Thing>();
        let (ended, line) = self.line(&books, outcome, (Some(status.as_u16()), code, thing));
        Some((books, ended, line))
    }

    /// Whether it is written down also when all is well.
    fn matters(&self) -> bool {
        let Some(route) = &self.route else {
            return false;
        };
        matters(&self.method, route.as_str(), self.call())
    }

    /// The method of a call of gRPC. The route says so: what a client calls its content counts for nothing.
    fn call(&self) -> Option<&str> {
        let route = self.route.as_ref()?.as_str();
        let (_, method) = self.path.rsplit_once('/')?;
        route.ends_with("/{*method}").then_some(method)
    }

    fn line(
        &self,
        books: &Books,
        outcome: Outcome,
        (status, code, thing): (Option<u16>, Option<String>, Option<&Thing>),
    ) -> (Ended, String) {
        let by = match (&self.by, &self.who) {
            (Some(by), _) => by.clone(),
            (None, Some(who)) => self.access.by(who),
            (None, None) => By::nobody(None),
        };
        let route = self.route.as_ref().map(MatchedPath::as_str);
        let named = || shown_thing(&named_by(route?, &self.path));
        let made = thing.and_then(|thing| thing.name.as_deref());
        let method = cut(self.call().unwrap_or(self.method.as_str()), METHOD_BYTES);
        let is_idle = route.is_some_and(|route| COMING_IN.contains(&route));
        let line = Line {
            at: books.now(),
            actor: &by,
            peer: self.peer.map(|peer| peer.addr.to_string()),
            door: self.door,
            method: &method,
            route,
            thing: thing.map_or_else(named, |thing| listed(&thing.thing)),
            name: self.name.as_deref().or(made),
            request: self.request.as_ref().and_then(|id| id.to_str().ok()),
            outcome,
            status,
            code,
        };
        let line = text(&line);
        let outcome = if is_idle { Outcome::Refused } else { outcome };
        (Ended { by, outcome }, line)
    }
}

/// Who it was and how it ended, as far as it chooses the file. A stranger to whom nothing was done counts as refused.
struct Ended {
    by: By,
    outcome: Outcome,
}

impl Ended {
    fn file<'a>(&self, books: &'a Books) -> &'a Lines {
        books.of(&self.by, self.outcome)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_over || !self.matters() {
            return;
        }
        if let Some(books) = &self.access.audit().0 {
            let (ended, line) = self.line(books, Outcome::BrokenOff, (None, None, None));
            ended.file(books).offer(line);
        }
    }
}

/// The routes of another contract, with what is done there written down.
pub(crate) fn watched(access: &Access, door: &'static str, routes: Router) -> Router {
    routes.layer(from_fn_with_state((access.clone(), door), watch))
}

async fn watch(
    State((access, door)): State<(Access, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    if access.audit().0.is_none() {
        return next.run(request).await;
    }
    let mut entry = Entry::begin(&access, door, &request);
    entry.by(access.by_client(request.headers(), request.extensions().get()));
    let response = next.run(request).await;
    entry.answered(&response, None).await;
    response
}

/// Whether a request of that route changes something, acts on a copy, or tells a secret.
fn matters(method: &Method, route: &str, call: Option<&str>) -> bool {
    if let Some(call) = call {
        return CALLS.contains(&call);
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if is_read {
        return acts(route) || TELLING.contains(&route);
    }
    *method != Method::OPTIONS && !QUIET.contains(&route)
}

fn is_about_identity(response: &Response, call: Option<tonic::Code>) -> bool {
    // Handlers say the same of things that are used up.
    let is_kept_out = || response.extensions().get::<KeptOut>().is_some();
    let is_about_caller = match call {
        Some(tonic::Code::Unauthenticated | tonic::Code::PermissionDenied) => true,
        Some(tonic::Code::ResourceExhausted) => is_kept_out(),
        _ => false,
    };
    is_about_caller
        || matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
        )
}

/// How a call ended that ended badly and at once.
fn call_code(headers: &HeaderMap) -> Option<tonic::Code> {
    let code = tonic::Code::from_bytes(headers.get(GRPC_STATUS)?.as_bytes());
    (code != tonic::Code::Ok).then_some(code)
}

/// What the path names, where the route has its places.
fn named_by(route: &str, path: &str) -> String {
    let words = route.split('/').zip(path.split('/'));
    let named = words.filter(|(place, _)| place.starts_with('{') && !place.starts_with("{*"));
    let named: Vec<&str> = named.map(|(_, word)| word).collect();
    named.join("/")
}

/// What is named, in few bytes, and without a token that somebody took for a name.
fn shown_thing(thing: &str) -> Option<String> {
    let shown = cut(thing, THING_BYTES);
    (!shown.is_empty()).then_some(shown)
}

/// What a door has checked, up to a whole name; a `…` stands for those that there is no room for.
fn listed(names: &str) -> Option<String> {
    let Some(kept) = names.as_bytes().get(..=THINGS_BYTES) else {
        return (!names.is_empty()).then(|| names.to_owned());
    };
    let end = kept.iter().rposition(|byte| *byte == b' ');
    Some(names[..end.unwrap_or_default()].to_owned() + " …")
}

/// What somebody else has written, veiled, without what a terminal would obey, and at most so many bytes of it.
fn cut(word: &str, most: usize) -> String {
    let mut shown = veiled(word).replace(char::is_control, " ");
    let end = (0..=most.min(shown.len()))
        .rev()
        .find(|&end| shown.is_char_boundary(end));
    shown.truncate(end.unwrap_or_default());
    shown
}

fn text(line: &Line<'_>) -> String {
    // Plain structs: writing them cannot fail.
    serde_json::to_string(line).unwrap_or_default()
}

fn gap(lost: u64) -> String {
    json!({ "lost": lost }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_what_acts_are_written_down_and_beats_and_looks_are_not() {
        let (get, post, put) = (Method::GET, Method::POST, Method::PUT);
        for (method, route, call, expected) in [
            (&post, "/api/v1/workloads", None, true),
            (&put, "/api/v1/secrets/{name}", None, true),
            (&get, "/api/v1/secrets", None, false),
            (&get, "/api/v1/assignments/{id}/exec", None, true),
            (&get, "/api/v1/assignments/{id}/logs", None, false),
            (&get, "/api/v1/backup", None, true),
            (&post, "/api/v1/nodes/{id}/heartbeat", None, false),
            (&post, "/api/agents/{id}/heartbeat", None, false),
            (&get, "/api/admin/clients/{client}/token", None, true),
            (&get, "/api/v1/audit", None, true),
            (&post, "/persys…", Some("ApplyWorkload"), true),
            (&post, "/persys…", Some("Heartbeat"), false),
            (&post, "/orchion…", Some("UpdateNode"), false),
            (&Method::OPTIONS, "/api/v1/workloads", None, false),
        ] {
            let found = matters(method, route, call);
            assert_eq!(found, expected, "{method} {route} {call:?}");
        }
    }

    #[test]
    fn what_a_path_names_is_kept_and_a_token_in_it_is_not() {
        let route = "/api/agents/{id}/replicas/{replica}/promote";
        let path = "/api/agents/a-1/replicas/r-2/promote";
        assert_eq!(named_by(route, path), "a-1/r-2");
        assert_eq!(named_by("/api/v1/nodes", "/api/v1/nodes"), "");
        assert_eq!(named_by("/x.Y/{*method}", "/x.Y/Do"), "");
        let shown = shown_thing("hostler_0197_abcdef");
        assert_eq!(shown.as_deref(), Some("hostler_…"));
        assert_eq!(shown_thing(&"é".repeat(200)).unwrap().len(), THING_BYTES);
        let shown = shown_thing("a\u{1b}[2J\r\u{9b}b");
        assert_eq!(shown.as_deref(), Some("a [2J  b"));
        assert_eq!(shown_thing(""), None);
        assert_eq!(cut(&"x".repeat(5_000), METHOD_BYTES).len(), METHOD_BYTES);
    }

    #[test]
    fn a_long_list_ends_with_a_whole_name_and_says_that_there_are_more() {
        let list = |count: usize| vec!["worker7"; count].join(" ");
        let most = THINGS_BYTES / "worker7 ".len();
        assert_eq!(listed(&list(most)), Some(list(most)));
        assert_eq!(listed(&list(most + 1)), Some(list(most) + " …"));
        assert_eq!(listed(&list(5 * most)), Some(list(most) + " …"));
        assert_eq!(listed(""), None);
    }

    #[test]
    fn too_many_attempts_are_about_who_asks_and_what_is_used_up_is_not() {
        let exhausted = Some(tonic::Code::ResourceExhausted);
        let mut response = Response::new(axum::body::Body::empty());
        assert!(!is_about_identity(&response, exhausted));
        response.extensions_mut().insert(KeptOut);
        assert!(is_about_identity(&response, exhausted));
        assert!(!is_about_identity(&response, Some(tonic::Code::NotFound)));
    }

    #[test]
    fn a_line_holds_who_from_where_what_and_how_it_ended() {
        let by = By::known("person", "anna", &"0197");
        let line = Line {
            at: Timestamp::from_millis(1_759_856_899_560).to_string(),
            actor: &by,
            peer: Some("10.0.0.7:5000".to_owned()),
            door: "api",
            method: "DELETE",
            route: Some("/api/v1/nodes/{id}"),
            thing: Some("0198".to_owned()),
            name: Some("box"),
            request: Some("1f"),
            outcome: Outcome::Refused,
            status: Some(404),
            code: Some("node-not-found".to_owned()),
        };
        let expected = r#"{"at":"2025-10-07T17:08:19.560Z","actor":{"kind":"person","name":"anna","id":"0197"},"peer":"10.0.0.7:5000","door":"api","method":"DELETE","route":"/api/v1/nodes/{id}","thing":"0198","name":"box","request":"1f","outcome":"refused","status":404,"code":"node-not-found"}"#;
        assert_eq!(text(&line), expected);
        // Whoever reads it from afar has the same.
        let read: hostler_wire::api::AuditLine = serde_json::from_str(expected).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), expected);
    }
}

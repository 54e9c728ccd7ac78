//! Who may do what: every route of the description, tried by everybody.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hostler_control::fleet::{AccessVerb, JoinTokenOrder, TokenOrder, Verb};
use hostler_control::{Trust, TrustConfig};
use hostler_doors::{Access, Audit, Dialect, Listener, Opened, Parts, serve};
use hostler_kit::trust::{Anchors, Bearer, ClientTls, Credentials, Invitation, secret};
use hostler_kit::{Clock, Entropy as _, SystemClock, SystemEntropy};
use hostler_model::{AccessRole, AccountId, Actor, Contract, JoinTokenId, Timestamp, TokenId};
use hostler_wire::session::v1::session_client::SessionClient;
use hostler_wire::session::v1::{
    Hello, JoinRequest, NodeMessage, RenewRequest, Versions, membership, node_message,
    server_message,
};
use hyper_util::rt::TokioIo;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::server::{Answer, DEADLINE, Server, calm, spec, store};

/// A server with login, on a plain and on a secured port.
pub(crate) struct Guarded {
    pub(crate) server: Server,
    pub(crate) trust: Trust,
    pub(crate) secured: std::net::SocketAddr,
    /// The ports of other contracts, in plain text.
    pub(crate) own: BTreeMap<Contract, std::net::SocketAddr>,
    pub(crate) dir: TempDir,
    audit: Audit,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        Self::under(Arc::new(SystemClock::new())).await
    }

    /// The same, by that clock.
    pub(crate) async fn under(clock: Arc<dyn Clock>) -> Self {
        Self::of(clock, Opened::default(), |_, _| {}).await
    }

    /// The same with doors of other contracts opened.
    pub(crate) async fn opening(opened: Opened, change: impl FnOnce(&mut Parts, &TempDir)) -> Self {
        Self::of(Arc::new(SystemClock::new()), opened, change).await
    }

    async fn of(
        clock: Arc<dyn Clock>,
        opened: Opened,
        change: impl FnOnce(&mut Parts, &TempDir),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = TrustConfig {
            dir: dir.path().join("trust"),
            ..TrustConfig::default()
        };
        let trust = Trust::open(config, Arc::new(SystemClock::new())).unwrap();
        let (mut secured, mut alone) = (None, Vec::new());
        let audit = Audit::open(&dir.path().join("audit"), &clock).unwrap();
        let server = Server::under(clock, calm(), &store(), |mut parts| {
            parts.access =
                Access::guarded_with(&parts.control, &trust, opened).audited(audit.clone());
            change(&mut parts, &dir);
            secured = Some(parts.router(Dialect::Hostler));
            for (contract, dialect) in [
                (Contract::Orchion, Dialect::Orchion),
                (Contract::Persys, Dialect::Persys),
                (Contract::Spot, Dialect::Spot),
            ] {
                alone.push((contract, parts.router(dialect)));
            }
            parts.router(Dialect::Hostler)
        })
        .await;
        let bound = Listener::plain(([127, 0, 0, 1], 0).into())
            .bind()
            .await
            .unwrap();
        let bound = bound.secured(trust.tls());
        let addr = bound.addr();
        let tasks = server.tasks.clone();
        tasks.spawn("listener", serve(bound, secured.unwrap(), tasks.clone()));
        let mut own = BTreeMap::new();
        for (contract, router) in alone {
            let bound = Listener::plain(([127, 0, 0, 1], 0).into());
            let bound = bound.bind().await.unwrap();
            own.insert(contract, bound.addr());
            tasks.spawn("listener", serve(bound, router, tasks.clone()));
        }
        Self {
            server,
            trust,
            secured: addr,
            own,
            dir,
            audit,
        }
    }

    /// What was written down so far of that series, and as text.
    pub(crate) async fn audit(&self, series: &str) -> (Vec<Value>, String) {
        read_audit(&self.audit, &self.dir.path().join("audit"), series).await
    }

    pub(crate) async fn submit(&self, verb: AccessVerb) {
        let actor = Actor::User("test".to_owned());
        let verb = Verb::Access(Box::new(verb));
        self.server.control.submit(actor, verb).await.unwrap();
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.server.control.clock().wall_millis())
    }

    pub(crate) async fn token(&self, role: AccessRole) -> String {
        self.token_until(role, None).await.1
    }

    /// The same, good until then, with its id.
    pub(crate) async fn token_until(
        &self,
        role: AccessRole,
        expires_at: Option<Timestamp>,
    ) -> (TokenId, String) {
        self.issue((role.as_str(), role, None), expires_at).await
    }

    /// A token that is good for one account of the spot contract alone, where one is named.
    pub(crate) async fn token_of(
        &self,
        name: &str,
        role: AccessRole,
        account: Option<AccountId>,
    ) -> String {
        self.issue((name, role, account), None).await.1
    }

    async fn issue(
        &self,
        (name, role, account): (&str, AccessRole, Option<AccountId>),
        expires_at: Option<Timestamp>,
    ) -> (TokenId, String) {
        let id = TokenId::mint(self.now(), SystemEntropy.next_u128());
        let bearer = Bearer {
            id: id.to_string(),
            secret: secret(&SystemEntropy),
        };
        self.submit(AccessVerb::Issue(TokenOrder {
            id,
            name: name.to_owned(),
            role,
            account,
            hash: bearer.secret.hash(),
            expires_at,
        }))
        .await;
        (id, bearer.reveal())
    }

    pub(crate) async fn invitation(&self) -> String {
        let id = JoinTokenId::mint(self.now(), SystemEntropy.next_u128());
        let invitation = Invitation {
            id: id.to_string(),
            secret: secret(&SystemEntropy),
            authority: self.trust.print(),
        };
        self.submit(AccessVerb::Invite(JoinTokenOrder {
            id,
            hash: invitation.secret.hash(),
            labels: Default::default(),
            uses: None,
            replaces: None,
            needs_approval: false,
            expires_at: Timestamp::from_millis(self.now().as_millis() + 60_000),
        }))
        .await;
        invitation.reveal()
    }

    /// A channel of a machine with that key; joined if it has a certificate.
    pub(crate) async fn channel(&self, tls: &ClientTls) -> Channel {
        let (tls, addr) = (tls.clone(), self.secured);
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let stream = tokio::net::TcpStream::connect(addr).await?;
                let stream = tls.connect("127.0.0.1", stream, &[b"h2"]).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://secured");
        endpoint.connect_with_connector(connector).await.unwrap()
    }

    pub(crate) async fn join(&self, name: &str) -> Machine {
        let key = Credentials::open(&self.dir.path().join(format!("{name}.key"))).unwrap();
        let anchors = self.trust.anchors().unwrap();
        let bare = ClientTls::new(&anchors, None).unwrap();
        let mut client = SessionClient::new(self.channel(&bare).await);
        let asked = JoinRequest {
            token: self.invitation().await,
            request: key.request().unwrap().0,
            identity: format!("identity-of-{name}"),
            name: name.to_owned(),
            ..JoinRequest::default()
        };
        let answer = client.join(asked).await.unwrap().into_inner();
        let Some(membership::Outcome::Member(member)) = answer.outcome else {
            panic!("{answer:?}");
        };
        let chain = hostler_kit::trust::certificates(member.certificates.as_bytes()).unwrap();
        let shown = key.certified(chain).unwrap();
        Machine {
            tls: ClientTls::new(&anchors, Some(shown)).unwrap(),
            id: member.node_id,
            key,
        }
    }

    /// A client of the REST API that shows a node's certificate.
    pub(crate) fn node_client(&self, machine: &Machine) -> reqwest::Client {
        let mut config = machine.tls.config();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let builder = crate::server::http().no_proxy();
        builder.tls_backend_preconfigured(config).build().unwrap()
    }
}

/// What was written down so far of that series in that directory, and as text.
pub(crate) async fn read_audit(audit: &Audit, dir: &Path, series: &str) -> (Vec<Value>, String) {
    audit.flush().await;
    let path = dir.join(format!("{series}-00000001.jsonl"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), text)
}

pub(crate) struct Machine {
    pub(crate) tls: ClientTls,
    pub(crate) id: String,
    pub(crate) key: Credentials,
}

/// Every route of the description with its method, the parameters filled in.
pub(crate) fn routes() -> Vec<(Method, String, String)> {
    let description: Value = serde_json::from_str(&hostler_doors::described()).unwrap();
    let mut routes = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else {
                continue;
            };
            let filled = path
                .replace("{id}", "nothing")
                .replace("{code}", "node-gone");
            routes.push((method, path.clone(), filled));
        }
    }
    assert!(routes.len() > 50, "{}", routes.len());
    routes
}

/// What each route needs, as a table of its own: the test does not ask the code that it tests.
pub(crate) fn needed(method: &Method, path: &str) -> Option<AccessRole> {
    const OPEN: &[&str] = &[
        "/",
        "/version",
        "/healthz",
        "/readyz",
        "/health",
        "/openapi.json",
        "/docs/errors/{code}",
        "/login",
        "/logout",
    ];
    const ADMIN: &[(&str, &str)] = &[
        ("GET", "/api/v1/tokens"),
        ("POST", "/api/v1/tokens"),
        ("DELETE", "/api/v1/tokens/{id}"),
        ("GET", "/api/v1/join-tokens"),
        ("POST", "/api/v1/join-tokens"),
        ("DELETE", "/api/v1/join-tokens/{id}"),
        ("POST", "/api/v1/nodes/{id}/approve"),
        ("POST", "/api/v1/authority/rotate"),
        ("POST", "/api/v1/authority/retire"),
        ("GET", "/api/v1/backup"),
        ("GET", "/api/v1/audit"),
        ("POST", "/api/v1/rekey-secrets"),
        ("POST", "/api/v1/miaas/rotate-key"),
    ];
    const OPERATOR_READS: &[&str] = &[
        "/api/v1/assignments/{id}/exec",
        "/api/v1/assignments/{id}/forward",
        "/api/v1/assignments/{id}/files",
    ];
    if OPEN.contains(&path) {
        return None;
    }
    if ADMIN.contains(&(method.as_str(), path)) {
        return Some(AccessRole::Admin);
    }
    if *method == Method::GET && !OPERATOR_READS.contains(&path) {
        return Some(AccessRole::Viewer);
    }
    Some(AccessRole::Operator)
}

pub(crate) fn is_let_in(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    )
}

#[tokio::test]
async fn every_route_is_shut_for_those_who_may_not_and_open_for_those_who_may() {
    let guarded = Guarded::start().await;
    let server = &guarded.server;
    let mut tokens = Vec::new();
    for role in AccessRole::ALL {
        tokens.push((role, guarded.token(role).await));
    }
    let machine = guarded.join("box").await;
    let node = guarded.node_client(&machine);
    let mut refused = BTreeSet::new();
    let mut note = |status: StatusCode, headers: &reqwest::header::HeaderMap| {
        if !is_let_in(status) {
            refused.insert(headers["x-request-id"].to_str().unwrap().to_owned());
        }
    };
    for (method, path, filled) in routes() {
        let need = needed(&method, &path);
        let bare = server.send(method.clone(), &filled, &[], "").await;
        match need {
            None => assert!(is_let_in(bare.status), "{method} {path}: {}", bare.text),
            Some(_) => drop(bare.is_problem(401, "unauthenticated")),
        }
        note(bare.status, &bare.headers);
        for (role, token) in &tokens {
            let shown = format!("Bearer {token}");
            let headers = [("authorization", shown.as_str())];
            let answer = server.send(method.clone(), &filled, &headers, "").await;
            note(answer.status, &answer.headers);
            if need.is_none_or(|need| *role >= need) {
                assert!(
                    is_let_in(answer.status),
                    "{role} {method} {path}: {}",
                    answer.text
                );
            } else {
                answer.is_problem(403, "forbidden");
            }
        }
        let url = format!("https://{}{filled}", guarded.secured);
        let answer = node.request(method.clone(), &url).send().await.unwrap();
        let status = answer.status();
        note(status, answer.headers());
        assert_eq!(
            is_let_in(status),
            need.is_none(),
            "node {method} {path}: {status}"
        );
    }
    // Each refusal is in the audit.
    let (members, strangers) = (
        guarded.audit("requests").await,
        guarded.audit("strangers").await,
    );
    let lines = members.0.iter().chain(&strangers.0);
    let written: BTreeSet<_> = lines
        .filter(|line| line["outcome"] == "refused")
        .filter_map(|line| Some(line["request"].as_str()?.to_owned()))
        .collect();
    assert!(refused.len() > 100, "{}", refused.len());
    assert_eq!(refused.difference(&written).next(), None);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn what_other_contracts_leave_open_is_not_there() {
    let guarded = Guarded::start().await;
    let admin = format!("Bearer {}", guarded.token(AccessRole::Admin).await);
    for (method, path) in [
        (Method::POST, "/api/v1/nodes/register"),
        (Method::POST, "/api/v1/nodes/x/heartbeat"),
        (Method::GET, "/api/v1/deployments"),
        (Method::GET, "/api/nodes"),
        (Method::GET, "/api/agents"),
        (Method::POST, "/api/admin/clients/create"),
    ] {
        let headers = [("authorization", admin.as_str())];
        let answer = guarded.server.send(method, path, &headers, "{}").await;
        assert_eq!(answer.status.as_u16(), 404, "{path}: {}", answer.text);
    }
    for path in [
        "/api/nodes",
        "/api/logs",
        "/api/agents/x/config",
        "/v1/models",
    ] {
        let answer = guarded.server.get(path).await;
        assert!(
            matches!(answer.status.as_u16(), 401 | 404),
            "{path}: {}",
            answer.text
        );
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_token_is_told_once_and_is_nowhere_else() {
    let guarded = Guarded::start().await;
    let admin = format!("Bearer {}", guarded.token(AccessRole::Admin).await);
    let headers = [
        ("authorization", admin.as_str()),
        ("content-type", "application/json"),
    ];
    let server = &guarded.server;
    let send = async |method, path: &str, body: &str| -> Answer {
        server.send(method, path, &headers, body.to_owned()).await
    };
    let body = r#"{"name":"anna","role":"operator"}"#;
    let issued = send(Method::POST, "/api/v1/tokens", body).await.json();
    let token = issued["token"].as_str().unwrap().to_owned();
    let again = send(Method::POST, "/api/v1/tokens", body).await;
    again.is_problem(409, "token-name-taken");
    let joins = send(Method::POST, "/api/v1/join-tokens", "{}").await.json();
    let join = joins["token"].as_str().unwrap().to_owned();
    let secret_of = |text: &str| text.split('_').nth(2).unwrap().to_owned();
    for path in [
        "/api/v1/tokens",
        "/api/v1/join-tokens",
        "/api/v1/events",
        "/metrics",
    ] {
        let text = send(Method::GET, path, "").await.text;
        for secret in [secret_of(&token), secret_of(&join)] {
            assert!(!text.contains(&secret), "{path}: {text}");
            assert!(!text.contains("hash"), "{path}: {text}");
        }
    }
    let mine = format!("Bearer {token}");
    let mine = [("authorization", mine.as_str())];
    let who = server
        .send(Method::GET, "/api/v1/whoami", &mine, "")
        .await
        .json();
    assert_eq!(
        (&who["name"], &who["role"]),
        (&"anna".into(), &"operator".into())
    );
    send(Method::DELETE, "/api/v1/tokens/anna", "").await.json();
    let who = server.send(Method::GET, "/api/v1/whoami", &mine, "").await;
    who.is_problem(401, "unauthenticated");
    for (body, code) in [
        (r#"{"name":"a b","role":"viewer"}"#, "name-invalid"),
        (r#"{"name":"x","role":"king"}"#, "bad-request"),
        (
            r#"{"name":"x","role":"viewer","ttl_seconds":0}"#,
            "bad-request",
        ),
        (
            r#"{"name":"x","role":"viewer","account":"none"}"#,
            "account-not-found",
        ),
    ] {
        let refused = send(Method::POST, "/api/v1/tokens", body).await;
        assert_eq!(refused.json()["code"], code, "{body}");
    }
    let unknown = send(Method::DELETE, "/api/v1/tokens/nobody", "").await;
    unknown.is_problem(404, "token-not-found");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn what_is_done_is_done_by_the_bearer_of_the_token() {
    let guarded = Guarded::start().await;
    let token = format!("Bearer {}", guarded.token(AccessRole::Operator).await);
    let headers = [("authorization", token.as_str())];
    let applied = guarded
        .server
        .send(Method::POST, "/api/v1/workloads", &headers, spec("web", 1));
    assert!(applied.await.status.is_success());
    let events = guarded
        .server
        .send(Method::GET, "/api/v1/events", &headers, "")
        .await
        .json();
    let events = events.as_array().unwrap();
    let applied = events
        .iter()
        .find(|event| event["kind"] == "workload-applied");
    assert_eq!(applied.unwrap()["actor"], "user/operator");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn wrong_tokens_are_refused_the_sooner_the_more_there_are_and_right_ones_never() {
    let guarded = Guarded::start().await;
    let right = format!("Bearer {}", guarded.token(AccessRole::Viewer).await);
    let mut statuses = BTreeSet::new();
    for _ in 0..40 {
        let headers = [("authorization", "Bearer hostler_guess_guess")];
        let answer = guarded
            .server
            .send(Method::GET, "/api/v1/nodes", &headers, "")
            .await;
        statuses.insert(answer.status.as_u16());
    }
    assert_eq!(statuses, BTreeSet::from([401, 429]));
    let headers = [("authorization", right.as_str())];
    let answer = guarded
        .server
        .send(Method::GET, "/api/v1/nodes", &headers, "")
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn guessed_join_tokens_are_counted_and_right_ones_join_all_the_same() {
    let guarded = Guarded::start().await;
    let bare = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
    let mut client = SessionClient::new(guarded.channel(&bare).await);
    let key = Credentials::open(&guarded.dir.path().join("guess.key")).unwrap();
    let right = Invitation::parse(&guarded.invitation().await).unwrap();
    let mut codes = Vec::new();
    for _ in 0..40 {
        let guess = Invitation {
            secret: secret(&SystemEntropy),
            ..right.clone()
        };
        let asked = JoinRequest {
            token: guess.reveal(),
            request: key.request().unwrap().0,
            identity: "guess".to_owned(),
            name: "guess".to_owned(),
            ..JoinRequest::default()
        };
        let answer = client.join(asked).await.unwrap().into_inner();
        let Some(membership::Outcome::Refused(refused)) = answer.outcome else {
            panic!("{answer:?}");
        };
        codes.push(refused.code);
    }
    let known = codes
        .iter()
        .filter(|code| *code == "join-token-invalid")
        .count();
    let after = codes.iter().filter(|code| *code == "too-many-attempts");
    let after = after.count();
    assert!(known >= 20 && after > 0 && known + after == 40, "{codes:?}");
    guarded.join("box").await;
    assert_eq!(guarded.server.control.view().nodes().count(), 1);
    guarded.server.shut_down().await;
}

pub(crate) fn hello(identity: &str) -> NodeMessage {
    NodeMessage {
        message: Some(node_message::Message::Hello(Hello {
            versions: Some(Versions::ours()),
            identity: identity.to_owned(),
            name: "anything".to_owned(),
            ..Hello::default()
        })),
    }
}

/// What the server answers to a hello: the node's id, or the code of its refusal.
pub(crate) async fn greet(channel: Channel, identity: &str) -> Result<String, String> {
    let messages = futures::StreamExt::chain(
        tokio_stream::iter([hello(identity)]),
        futures::stream::pending(),
    );
    let mut client = SessionClient::new(channel);
    let mut answers = client.control(messages).await.unwrap().into_inner();
    let first = tokio::time::timeout(DEADLINE, answers.message());
    match first.await.unwrap().unwrap().unwrap().message.unwrap() {
        server_message::Message::Welcome(welcome) => Ok(welcome.node_id),
        server_message::Message::Refused(refused) => Err(refused.code),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_is_its_nodes_own() {
    let guarded = Guarded::start().await;
    let (one, two) = (guarded.join("one").await, guarded.join("two").await);
    let greeted = greet(guarded.channel(&one.tls).await, "identity-of-one").await;
    assert_eq!(greeted.as_ref(), Ok(&one.id));
    let greeted = greet(guarded.channel(&two.tls).await, "identity-of-one").await;
    assert_eq!(greeted, Err("forbidden".to_owned()));
    let bare = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
    let greeted = greet(guarded.channel(&bare).await, "identity-of-one").await;
    assert_eq!(greeted, Err("unauthenticated".to_owned()));
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_key_is_all_that_renewing_takes_and_a_removed_node_has_none() {
    let guarded = Guarded::start().await;
    let machine = guarded.join("box").await;
    let bare = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
    let renew = async |key: &Credentials| {
        let request = key.request().unwrap().0;
        let mut client = SessionClient::new(guarded.channel(&bare).await);
        let answer = client.renew(RenewRequest { request }).await.unwrap();
        answer.into_inner().outcome.unwrap()
    };
    let fresh = renew(&machine.key).await;
    assert!(matches!(&fresh, membership::Outcome::Member(member) if member.node_id == machine.id));
    let stranger = Credentials::open(&guarded.dir.path().join("stranger.key")).unwrap();
    let refused = renew(&stranger).await;
    assert!(matches!(refused, membership::Outcome::Refused(no) if no.code == "node-key-unknown"));
    let token = format!("Bearer {}", guarded.token(AccessRole::Operator).await);
    let headers = [("authorization", token.as_str())];
    let removed = guarded
        .server
        .send(Method::DELETE, "/api/v1/nodes/box", &headers, "")
        .await;
    assert!(removed.status.is_success(), "{}", removed.text);
    let refused = renew(&machine.key).await;
    assert!(matches!(refused, membership::Outcome::Refused(no) if no.code == "node-gone"));
    let greeted = greet(guarded.channel(&machine.tls).await, "identity-of-box").await;
    assert_eq!(greeted, Err("node-gone".to_owned()));
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn whoever_believes_another_authority_does_not_speak_to_this_server() {
    let (guarded, other) = (Guarded::start().await, Guarded::start().await);
    let tls = ClientTls::new(&other.trust.anchors().unwrap(), None).unwrap();
    let stream = tokio::net::TcpStream::connect(guarded.secured)
        .await
        .unwrap();
    assert!(tls.connect("127.0.0.1", stream, &[b"h2"]).await.is_err());
    let anchors = Anchors::Pinned(guarded.trust.print());
    let tls = ClientTls::new(&anchors, None).unwrap();
    let stream = tokio::net::TcpStream::connect(guarded.secured)
        .await
        .unwrap();
    assert!(tls.connect("127.0.0.1", stream, &[b"h2"]).await.is_ok());
    guarded.server.shut_down().await;
    other.server.shut_down().await;
}

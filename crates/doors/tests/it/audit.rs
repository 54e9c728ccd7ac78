//! The audit: who did what, from where, and how it ended, on every door; and what is not in it.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::path::Path;
use std::sync::Arc;

use hostler_control::ControlConfig;
use hostler_doors::{Access, Audit, Auth, Dialect, Opened};
use hostler_kit::trust::{ClientTls, Credentials};
use hostler_kit::{Clock, SystemClock};
use hostler_model::{AccessRole, Contract};
use hostler_wire::orchion::v1::RegisterNodeRequest;
use hostler_wire::persys::control::DeleteWorkloadRequest;
use hostler_wire::session::v1::session_client::SessionClient;
use hostler_wire::session::v1::{JoinRequest, RenewRequest};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tonic::transport::Endpoint;

use crate::access::{Guarded, greet, read_audit};
use crate::orchion;
use crate::persys_world;
use crate::server::{DEADLINE, Server, spec, store};
use crate::spot::{Spot, registration};

/// A server without login whose audit is there.
async fn audited(dir: &Path) -> (Server, Audit) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let audit = Audit::open(dir, &clock).unwrap();
    let server = Server::of(ControlConfig::default(), &store(), |mut parts| {
        parts.access = Access::open(&parts.control).audited(audit.clone());
        parts.router(Dialect::Hostler)
    })
    .await;
    (server, audit)
}

/// What each line has at those places; nothing where there is none.
fn told<const N: usize>(lines: &[Value], places: [&str; N]) -> Vec<[String; N]> {
    let text = |line: &Value, place: &str| {
        let value = line.pointer(place).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let lines = lines.iter();
    lines.map(|line| places.map(|it| text(line, it))).collect()
}

/// The lines of that method.
fn of<'a>(lines: &'a [Value], method: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|line| line["method"] == method)
        .collect()
}

#[tokio::test]
async fn a_line_says_who_did_what_from_where_and_how_it_ended() {
    let guarded = Guarded::start().await;
    let (id, token) = guarded.token_until(AccessRole::Operator, None).await;
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-request-id", "mine-1"),
    ];
    let send = async |method, path: &str, body: String| {
        guarded.server.send(method, path, &headers, body).await
    };
    send(Method::POST, "/api/v1/workloads", spec("web", 1)).await;
    send(Method::POST, "/api/v1/workloads/web/stop", String::new()).await;
    send(Method::DELETE, "/api/v1/nodes/nothing", String::new()).await;
    send(
        Method::GET,
        "/api/v1/assignments/nothing/exec",
        String::new(),
    )
    .await;
    send(Method::POST, "/api/v1/tokens", "{}".to_owned()).await;
    // A token that somebody takes for a name is not kept.
    send(
        Method::DELETE,
        &format!("/api/v1/workloads/{token}"),
        String::new(),
    )
    .await;
    // Who only looks leaves no line, nor does a beat or a plan.
    for path in ["/api/v1/nodes", "/api/v1/events", "/api/v1/secrets"] {
        send(Method::GET, path, String::new()).await;
    }
    send(Method::POST, "/api/v1/workloads/plan", spec("web", 2)).await;
    send(Method::POST, "/api/v1/nodes/x/heartbeat", "{}".to_owned()).await;
    let (lines, text) = guarded.audit("requests").await;
    let told = told(&lines, ["/route", "/thing", "/outcome", "/code"]);
    let expected = [
        ["/api/v1/workloads", "web", "done", ""],
        ["/api/v1/workloads/{id}/stop", "web", "done", ""],
        ["/api/v1/nodes/{id}", "nothing", "refused", "node-not-found"],
        [
            "/api/v1/assignments/{id}/exec",
            "nothing",
            "refused",
            "bad-request",
        ],
        ["/api/v1/tokens", "", "refused", "forbidden"],
        [
            "/api/v1/workloads/{id}",
            "hostler_…",
            "refused",
            "workload-not-found",
        ],
    ];
    assert_eq!(told, expected);
    let first = &lines[0];
    let actor = json!({"kind": "person", "name": "operator", "id": id.to_string()});
    assert_eq!(first["actor"], actor);
    assert_eq!(first["request"], "mine-1");
    assert_eq!(
        (&first["door"], &first["status"]),
        (&"api".into(), &201.into())
    );
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let at = hostler_model::Timestamp::parse(first["at"].as_str().unwrap());
    assert!(at.is_some_and(|at| at <= guarded.now()));
    assert!(!text.contains(token.rsplit('_').next().unwrap()), "{text}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn strangers_have_files_of_their_own_and_a_token_is_named_by_its_id() {
    let guarded = Guarded::start().await;
    let (id, token) = guarded.token_until(AccessRole::Admin, None).await;
    let wrong = format!("Bearer hostler_{id}_wrong");
    for shown in [&[][..], &[("authorization", wrong.as_str())]] {
        let answer = guarded
            .server
            .send(Method::GET, "/api/v1/nodes", shown, "")
            .await;
        answer.is_problem(401, "unauthenticated");
    }
    assert_eq!(guarded.audit("requests").await.0, [] as [Value; 0]);
    let (lines, text) = guarded.audit("strangers").await;
    let actors: Vec<_> = lines.iter().map(|line| &line["actor"]).collect();
    let named = json!({"kind": "nobody", "id": id.to_string()});
    assert_eq!(actors, [&json!({"kind": "nobody"}), &named]);
    assert!(!text.contains("wrong") && !text.contains(&token), "{text}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn machines_that_join_renew_and_are_refused_are_written_down() {
    let guarded = Guarded::start().await;
    let machine = guarded.join("box").await;
    let bare = ClientTls::new(&guarded.trust.anchors().unwrap(), None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let stranger = Credentials::open(&dir.path().join("key")).unwrap();
    let mut client = SessionClient::new(guarded.channel(&bare).await);
    let request = |key: &Credentials| key.request().unwrap().0;
    let renewal = RenewRequest {
        request: request(&machine.key),
    };
    client.renew(renewal).await.unwrap();
    let token = "hostler-join_canary_canary_canary".to_owned();
    let refused = JoinRequest {
        token,
        request: request(&stranger),
        name: "intruder\u{1b}[2J\u{9b}".to_owned(),
        ..JoinRequest::default()
    };
    client.join(refused).await.unwrap();
    let unknown = RenewRequest {
        request: request(&stranger),
    };
    client.renew(unknown).await.unwrap();
    greet(guarded.channel(&bare).await, "identity-of-box")
        .await
        .unwrap_err();
    greet(guarded.channel(&machine.tls).await, "another")
        .await
        .unwrap_err();

    let (lines, _) = guarded.audit("requests").await;
    let node = json!({"kind": "node", "name": "box", "id": machine.id});
    for (method, outcome) in [("Join", "done"), ("Renew", "done"), ("Control", "refused")] {
        let found = of(&lines, method);
        assert_eq!(found.len(), 1, "{method}: {lines:?}");
        assert_eq!(
            (&found[0]["actor"], &found[0]["outcome"]),
            (&node, &outcome.into())
        );
        assert_eq!(found[0]["door"], "session");
    }
    let (lines, text) = guarded.audit("strangers").await;
    let expected = [
        ["Join", "join-token-invalid"],
        ["Renew", "node-key-unknown"],
        ["Control", "unauthenticated"],
    ];
    assert_eq!(told(&lines, ["/method", "/code"]), expected);
    assert_eq!(lines[0]["thing"], "intruder [2J ");
    assert!(!text.contains("canary"), "{text}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn who_goes_away_before_the_answer_is_written_down_all_the_same() {
    let guarded = Guarded::start().await;
    let token = guarded.token(AccessRole::Operator).await;
    let mut stream = tokio::net::TcpStream::connect(guarded.server.addr)
        .await
        .unwrap();
    let head = format!(
        "POST /api/v1/workloads HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
         content-length: 1000\r\n\r\nname: web",
        guarded.server.addr
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It has been taken up once an answer to somebody else is there.
    drop(stream);
    let waiting = async {
        loop {
            let (lines, _) = guarded.audit("requests").await;
            if let Some(line) = lines.first() {
                return line.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let line = tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    assert_eq!(line["actor"]["name"], "operator");
    // The body that broke off may be noticed first, and is answered to nobody.
    let outcome = line["outcome"].as_str().unwrap();
    assert!(["broken-off", "refused"].contains(&outcome), "{line}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn other_contracts_doors_are_watched_and_their_beats_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (server, audit) = audited(dir.path()).await;
    let spot = Spot::of(server).await;
    let agent = spot.register("one", "i-1").await;
    let beat = json!({"status": "online"});
    Spot::ok(
        &spot
            .post(&format!("/api/agents/{agent}/heartbeat"), &beat)
            .await,
    );
    let body = registration("two", "i-2").to_string();
    let bad = [("authorization", "Bearer token-of-nobody")];
    spot.server
        .send(Method::POST, "/api/agents/register", &bad, body)
        .await;
    let mut agent = orchion::agent(&spot.server).await;
    orchion::register(&mut agent, orchion::node("o-1"))
        .await
        .unwrap();
    orchion::beat(&mut agent, "o-1").await.unwrap();
    agent
        .register_node(RegisterNodeRequest { node: None })
        .await
        .unwrap_err();
    let (lines, text) = read_audit(&audit, dir.path(), "requests").await;
    let told = told(&lines, ["/actor/kind", "/actor/name", "/route", "/outcome"]);
    let call = "/orchion.v1.Orchestrator/{*method}";
    let expected = [
        ["anonymous", "", "/api/admin/clients/create", "done"],
        ["client", "acme", "/api/agents/register", "done"],
        ["anonymous", "", "/api/agents/register", "refused"],
        ["anonymous", "", call, "done"],
        ["anonymous", "", call, "refused"],
    ];
    assert_eq!(told, expected);
    assert_eq!(lines[3]["method"], "RegisterNode");
    assert!(
        !text.contains(&spot.token) && !text.contains("token-of-nobody"),
        "{text}"
    );
    spot.server.shut_down().await;
}

#[tokio::test]
async fn what_is_done_at_other_doors_is_the_members_whoever_did_it() {
    let doors = [Contract::Orchion, Contract::Spot];
    let opened = Opened {
        doors: doors.map(|door| (door, Auth::Contract)).into(),
        ..Opened::default()
    };
    let guarded = Guarded::opening(opened, |_, _| {}).await;
    let admin = guarded.token(AccessRole::Admin).await;
    let bearer = format!("Bearer {admin}");
    let shown = [("authorization", bearer.as_str())];
    let send = async |path: &str, headers: &[(&str, &str)], body: String| {
        guarded.server.send(Method::POST, path, headers, body).await
    };
    let order = json!({"name": "acme", "email": "acme@example.com"}).to_string();
    let created = send("/api/admin/clients/create", &shown, order).await;
    let token = Spot::ok(&created)["client"]["token"].clone();
    // The client's token comes in the body, and is known to the handler alone.
    let mut body = registration("one", "i-1");
    for token in [token.clone(), "token-of-nobody".into()] {
        body["client_token"] = token;
        send("/api/agents/register", &[], body.to_string()).await;
    }
    // The contract asks nobody here.
    let mut agent = orchion::agent(&guarded.server).await;
    orchion::register(&mut agent, orchion::node("o-1"))
        .await
        .unwrap();
    // Persys's own port knows nobody but by certificates.
    let url = format!("http://{}", guarded.own[&Contract::Persys]);
    let mut persys = persys_world::client(&url).await;
    persys
        .delete_workload(DeleteWorkloadRequest::default())
        .await
        .unwrap();
    // Whoever calls may call it what they like.
    let call = [("content-type", "application/grpc")];
    let long = "x".repeat(300);
    for method in [admin.as_str(), &long] {
        let path = format!("/orchion.v1.Orchestrator/{method}");
        send(&path, &call, String::new()).await;
    }
    let ends = ["/actor/kind", "/actor/name", "/outcome"];
    let (lines, text) = guarded.audit("requests").await;
    let expected = [
        ["person", "admin", "done"],
        ["client", "acme", "done"],
        ["nobody", "", "done"],
        ["anonymous", "", "done"],
    ];
    assert_eq!(told(&lines, ends), expected);
    let token = token.as_str().unwrap();
    assert!(!text.contains(token), "{text}");
    let (lines, text) = guarded.audit("strangers").await;
    assert_eq!(told(&lines, ends), [["nobody", "", "refused"]; 3]);
    assert_eq!(lines[1]["method"], "hostler_…");
    assert_eq!(lines[2]["method"], "x".repeat(64));
    assert!(!text.contains("token-of-nobody"), "{text}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn a_clients_token_in_the_body_names_the_client_on_every_route_that_takes_it() {
    let opened = Opened {
        doors: [(Contract::Spot, Auth::Contract)].into(),
        ..Opened::default()
    };
    let guarded = Guarded::opening(opened, |_, _| {}).await;
    let bearer = format!("Bearer {}", guarded.token(AccessRole::Admin).await);
    let send = async |path: &str, headers: &[(&str, &str)], body: Value| {
        let body = body.to_string();
        guarded.server.send(Method::POST, path, headers, body).await
    };
    let order = json!({"name": "acme", "email": "acme@example.com"});
    let shown = [("authorization", bearer.as_str())];
    let created = send("/api/admin/clients/create", &shown, order);
    let token = Spot::ok(&created.await)["client"]["token"].clone();
    let mut body = registration("one", "i-1");
    body["client_token"] = token.clone();
    let registered = send("/api/agents/register", &[], body).await;
    let id = Spot::ok(&registered)["agent_id"].clone();
    let id = id.as_str().unwrap();
    let body = json!({"client_token": token, "target_mode": "ondemand", "success": true});
    let routes = [
        format!("/api/agents/{id}/issue-switch-command"),
        format!("/api/agents/{id}/commands/x/executed"),
        format!("/api/agents/{id}/termination"),
    ];
    for path in &routes {
        send(path, &[], body.clone()).await;
    }
    // Refused, and a member's all the same.
    send("/api/agents/nobody/termination", &[], body).await;
    let (lines, text) = guarded.audit("requests").await;
    assert_eq!(lines.len(), 6, "{text}");
    for line in &lines[1..] {
        let actor = &line["actor"];
        assert_eq!(
            (&actor["kind"], &actor["name"]),
            (&"client".into(), &"acme".into())
        );
    }
    let outcomes = lines.iter().map(|line| line["outcome"].as_str().unwrap());
    let outcomes: Vec<_> = outcomes.collect();
    assert_eq!(outcomes[3..], ["done", "done", "refused"], "{text}");
    assert!(!text.contains(token.as_str().unwrap()), "{text}");
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn an_admin_reads_it_from_afar_and_leaves_a_line_with_that() {
    let guarded = Guarded::start().await;
    let token = guarded.token(AccessRole::Admin).await;
    let bearer = format!("Bearer {token}");
    let shown = [("authorization", bearer.as_str())];
    let send = async |method, path: &str, body: String| {
        guarded.server.send(method, path, &shown, body).await
    };
    for name in ["web", "db"] {
        send(Method::POST, "/api/v1/workloads", spec(name, 0)).await;
    }
    // Named by its id, and gone when it is asked who did it.
    let id = send(Method::GET, "/api/v1/workloads/db", String::new()).await;
    let id = id.json()["id"].as_str().unwrap().to_owned();
    let gone = format!("/api/v1/workloads/{id}");
    send(Method::DELETE, &gone, String::new()).await;
    send(Method::DELETE, "/api/v1/nodes/nothing", String::new()).await;
    guarded.server.get("/api/v1/nodes").await;
    let read = async |query: &str| {
        let answer = send(Method::GET, &format!("/api/v1/audit{query}"), String::new()).await;
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text);
        answer.json()
    };
    // What was done before it is asked is there, line by line as in the file.
    let page = read("?limit=4").await;
    let (lines, _) = guarded.audit("requests").await;
    assert_eq!(page["lines"].as_array().unwrap(), &lines[..4]);
    assert_eq!(page["unreadable"], 0);
    // The page ends where the file begins, and says so when it is asked once more.
    let before = page["before"].as_str().unwrap();
    let end = read(&format!("?before={before}")).await;
    assert_eq!(end, json!({"lines": [], "unreadable": 0}));
    for (query, things) in [
        ("?thing=db", &["db", &id][..]),
        ("?thing=nothing", &["nothing"]),
        ("?outcome=refused", &["nothing"]),
        ("?outcome=unknown", &[]),
        ("?actor=nobody", &[]),
        ("?since=2999-01-01T00:00:00Z", &[]),
    ] {
        let page = read(query).await;
        let found = page["lines"].as_array().unwrap().iter();
        let found: Vec<_> = found.map(|line| line["thing"].as_str().unwrap()).collect();
        assert_eq!(found, things, "{query}");
    }
    let strangers = read("?strangers=true").await;
    assert_eq!(
        strangers["lines"].as_array().unwrap(),
        &guarded.audit("strangers").await.0
    );
    let (lines, text) = guarded.audit("requests").await;
    let reads = lines.iter().filter(|line| line["route"] == "/api/v1/audit");
    assert_eq!(reads.count(), 9, "{text}");
    for query in [
        "limit=0",
        "limit=1001",
        "before=x",
        "since=then",
        "outcome=well",
        "strangers=1",
    ] {
        let path = format!("/api/v1/audit?{query}");
        let answer = send(Method::GET, &path, String::new()).await;
        answer.is_problem(400, "bad-request");
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn who_made_a_token_and_who_revoked_it_is_found_by_its_name() {
    let guarded = Guarded::start().await;
    let bearer = format!("Bearer {}", guarded.token(AccessRole::Admin).await);
    let shown = [("authorization", bearer.as_str())];
    let send = async |method, path: &str, body: String| {
        guarded.server.send(method, path, &shown, body).await
    };
    let order = json!({"name": "guest", "role": "viewer"}).to_string();
    let issued = send(Method::POST, "/api/v1/tokens", order).await.json();
    let id = issued["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tokens/{id}");
    send(Method::DELETE, &path, String::new()).await;
    let asked = send(Method::GET, "/api/v1/audit?thing=guest", String::new());
    let page = asked.await.json();
    let lines = page["lines"].as_array().unwrap();
    let expected = ["POST", "DELETE"].map(|it| [it, &id, "guest", "done"].map(str::to_owned));
    let places = ["/method", "/thing", "/name", "/outcome"];
    assert_eq!(told(lines, places), expected);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn where_nothing_is_written_there_is_nothing_to_read() {
    let server = Server::start().await;
    let answer = server.get("/api/v1/audit").await;
    answer.is_problem(404, "audit-missing");
    server.shut_down().await;
}

#[tokio::test]
async fn a_machine_that_joins_by_its_hello_is_written_down_once() {
    let dir = tempfile::tempdir().unwrap();
    let (server, audit) = audited(dir.path()).await;
    for round in 0..2 {
        let endpoint = Endpoint::from_shared(server.url("")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        let greeted = greet(channel, "identity-of-box").await;
        assert!(greeted.is_ok() || round > 0, "{greeted:?}");
    }
    let (lines, text) = read_audit(&audit, dir.path(), "requests").await;
    let joined = of(&lines, "Join");
    assert_eq!(joined.len(), 1, "{text}");
    assert_eq!(
        (&joined[0]["actor"]["kind"], &joined[0]["door"]),
        (&"anonymous".into(), &"session".into())
    );
    server.shut_down().await;
}

#[tokio::test]
async fn where_it_cannot_be_written_the_server_goes_on_and_counts_what_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("audit");
    std::fs::write(&taken, "no directory").unwrap();
    let (server, audit) = audited(&taken).await;
    assert_eq!(server.apply("web", 0).await.status, 201);
    audit.flush().await;
    let lost = "hostler_audit_lines_total{result=\"lost\"} 1";
    let figures = server.get("/metrics").await.text;
    assert!(figures.contains(lost), "{figures}");
    // There is room again, and the hole is told of.
    std::fs::remove_file(&taken).unwrap();
    assert_eq!(server.apply("other", 0).await.status, 201);
    audit.flush().await;
    let text = std::fs::read_to_string(taken.join("requests-00000001.jsonl")).unwrap();
    assert!(text.starts_with("{\"lost\":1}\n"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    server.shut_down().await;
}

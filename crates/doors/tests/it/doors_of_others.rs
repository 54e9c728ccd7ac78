//! The doors of other contracts on a server with login: every route of each, in both modes, tried by everybody. Who may
//! use what stands in tables of this file; the tests do not ask the code that they test.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::BTreeSet;
use std::time::Duration;

use hostler_doors::{Auth, Opened, miaas};
use hostler_kit::SystemEntropy;
use hostler_model::{AccessRole, AccountId, Contract};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::access::{Guarded, is_let_in, needed, routes};
use crate::server::Answer;
use crate::spot::{Spot, create, registration};

use AccessRole::{Admin, Operator, Viewer};

/// What a route asks for. `N` nothing. `J` the contract's credential. `O` the contract leaves it open, else a role or the
/// contract's credential. `W` the same without the credential. `C` as `O`, and it costs money. `A` an admin, also where
/// the contract leaves it open.
const SPOT: &str = "
    J operator POST /api/agents/register
    O viewer GET /api/agents
    O viewer GET /api/agents/{id}
    J operator POST /api/agents/{id}/heartbeat
    J viewer GET /api/agents/{id}/config
    J operator POST /api/agents/{id}/termination
    J viewer GET /api/agents/{id}/pending-commands
    J operator POST /api/agents/{id}/commands/{command}/executed
    J operator POST /api/agents/{id}/issue-switch-command
    J operator POST /api/agents/{id}/pricing-report
    J operator POST /api/agents/{id}/switch-report
    J operator POST /api/agents/{id}/cleanup-report
    J operator POST /api/agents/{id}/termination-report
    J operator POST /api/agents/{id}/register-instance
    J viewer GET /api/agents/{id}/instances-to-terminate
    J operator POST /api/agents/{id}/decide
    J viewer GET /api/agents/{id}/switch-recommendation
    J viewer GET /api/agents/{id}/statistics
    J viewer GET /api/agents/{id}/replica-config
    J operator POST /api/agents/{id}/rebalance-recommendation
    O viewer GET /api/agents/{id}/replicas
    C operator POST /api/agents/{id}/replicas
    C operator PUT /api/agents/{id}/replicas/{replica}
    C operator DELETE /api/agents/{id}/replicas/{replica}
    C operator POST /api/agents/{id}/replicas/{replica}/status
    C operator POST /api/agents/{id}/replicas/{replica}/sync-status
    C operator POST /api/agents/{id}/replicas/{replica}/promote
    C operator POST /api/agents/{id}/create-emergency-replica
    C operator POST /api/agents/{id}/termination-imminent
    J viewer GET /api/client/validate
    O viewer GET /api/client/pricing-history
    O viewer GET /api/client/{client}
    O viewer GET /api/client/{client}/agents
    O viewer GET /api/client/{client}/agents/history
    O viewer GET /api/client/{client}/agents/decisions
    O viewer GET /api/client/{client}/instances
    O viewer GET /api/client/{client}/replicas
    O viewer GET /api/client/{client}/savings
    O viewer GET /api/client/{client}/switch-history
    O viewer GET /api/client/{client}/stats/charts
    O viewer GET /api/client/{client}/export/savings
    O viewer GET /api/client/{client}/export/switch-history
    O operator POST /api/client/agents/{id}/toggle-enabled
    O operator POST /api/client/agents/{id}/settings
    O operator POST /api/client/agents/{id}/config
    O operator DELETE /api/client/agents/{id}
    O viewer GET /api/notifications
    O operator POST /api/notifications/{id}/mark-read
    O operator POST /api/notifications/mark-all-read
    O viewer GET /api/events/stream/{client}
    O viewer GET /api/client/instances/{id}/pricing
    O viewer GET /api/client/instances/{id}/metrics
    O viewer GET /api/client/instances/{id}/price-history
    O viewer GET /api/client/instances/{id}/available-options
    C operator POST /api/client/instances/{id}/force-switch
    O viewer GET /api/client/instances/{id}/logs
    W viewer GET /api/admin/clients
    A admin POST /api/admin/clients/create
    W viewer GET /api/admin/clients/growth
    A admin DELETE /api/admin/clients/{client}
    A admin POST /api/admin/clients/{client}/regenerate-token
    A admin GET /api/admin/clients/{client}/token
    W viewer GET /api/admin/stats
    W viewer GET /api/admin/instances
    W viewer GET /api/admin/agents
    W viewer GET /api/admin/agents/health-summary
    W viewer GET /api/admin/activity
    W viewer GET /api/admin/system-health
    W viewer GET /api/admin/search
    W viewer GET /api/admin/pools/statistics
    W viewer GET /api/admin/export/global-stats
    W operator POST /api/admin/decision-engine/upload
    W operator POST /api/admin/ml-models/upload
    W operator POST /api/admin/ml-models/activate
    W operator POST /api/admin/ml-models/fallback
    W viewer GET /api/admin/ml-models/sessions
";

/// Of a client with a good token each gets its own there, and another's agent is as good as none.
const EACH_ITS_OWN: &[&str] = &[
    "/api/agents/register",
    "/api/agents/{id}/pending-commands",
    "/api/agents/{id}/commands/{command}/executed",
    "/api/client/validate",
    "/api/agents",
    "/api/notifications",
    "/api/notifications/{id}/mark-read",
    "/api/notifications/mark-all-read",
];

/// There a token that is shown must be its client's, whatever is open.
const READ_ALL_THE_SAME: &str = "/replicas";

const ORCHION: &str = "
    O viewer GET /api/nodes
    O viewer GET /api/logs
    N viewer OPTIONS /api/nodes
    N viewer OPTIONS /api/logs
    K operator POST /v1/chat/completions
    K operator POST /v1/embeddings
    O operator CALL /orchion.v1.Orchestrator/RegisterNode
    O operator CALL /orchion.v1.Orchestrator/UpdateNode
    O operator CALL /orchion.v1.Orchestrator/Heartbeat
    O viewer CALL /orchion.v1.Orchestrator/ListNodes
    O operator CALL /orchion.v1.Orchestrator/SubmitJob
    O viewer CALL /orchion.v1.Orchestrator/GetJobStatus
    O operator CALL /orchion.v1.OrchionLLM/ChatCompletion
    O operator CALL /orchion.v1.OrchionLLM/Embeddings
    O viewer CALL /orchion.v1.LogStreamer/StreamLogs
";

const PERSYS: &str = "
    W operator CALL /persys.control.v1.AgentControl/RegisterNode
    W operator CALL /persys.control.v1.AgentControl/Heartbeat
    W operator CALL /persys.control.v1.AgentControl/ApplyWorkload
    W operator CALL /persys.control.v1.AgentControl/DeleteWorkload
    W operator CALL /persys.control.v1.AgentControl/RetryWorkload
    W operator CALL /persys.control.v1.AgentControl/SubmitAutomationSuggestion
    W viewer CALL /persys.control.v1.AgentControl/ListNodes
    W viewer CALL /persys.control.v1.AgentControl/GetNode
    W viewer CALL /persys.control.v1.AgentControl/ListWorkloads
    W viewer CALL /persys.control.v1.AgentControl/GetWorkload
    W viewer CALL /persys.control.v1.AgentControl/GetClusterSummary
    W operator CALL /persys.control.v1.AgentControl/ControlStream
";

/// What MIaaS leaves open of the routes that the description has.
const MIAAS: &str = "
    W operator POST /api/v1/nodes/register
    J operator POST /api/v1/nodes/{id}/heartbeat
    W viewer GET /api/v1/nodes
    W viewer GET /api/v1/nodes/{id}
    W viewer GET /api/v1/deployments
    W operator POST /api/v1/deployments
    W viewer GET /api/v1/deployments/{id}
    W operator DELETE /api/v1/deployments/{id}
    W viewer GET /ws/logs
";

struct Row {
    class: char,
    role: AccessRole,
    method: Method,
    /// A gRPC call.
    is_call: bool,
    path: &'static str,
}

fn rows(table: &'static str) -> Vec<Row> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    let row = |line: &'static str| {
        let words: Vec<&str> = line.split(' ').collect();
        let mut role = AccessRole::ALL.into_iter();
        Row {
            class: words[0].chars().next().unwrap(),
            role: role.find(|it| it.to_string() == words[1]).unwrap(),
            is_call: words[2] == "CALL",
            method: words[2].replace("CALL", "POST").parse().unwrap(),
            path: words[3],
        }
    };
    lines.map(row).collect()
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Nobody,
    Role(AccessRole),
    Node,
    /// The client token of the account that is asked about, and of another.
    Client,
    OtherClient,
    /// Tokens that are good for that account alone, and for another.
    Scoped(AccessRole),
    OtherScoped,
    /// A token that was revoked.
    Revoked,
    /// Orchion's key, in both places.
    Key,
    KeyHeader,
    WrongKey,
}

use Asker::{
    Client, Key, KeyHeader, Nobody, Node, OtherClient, OtherScoped, Revoked, Role, Scoped, WrongKey,
};

fn opened(doors: &[(Contract, Auth)]) -> Opened {
    Opened {
        doors: doors.iter().copied().collect(),
        ..Opened::default()
    }
}

/// The head of the answer, and its text unless that is a stream.
async fn ask(request: RequestBuilder) -> Answer {
    let response = request
        .timeout(Duration::from_secs(30))
        .send()
        .await
        .unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let kind = headers.get("content-type").map(|it| it.to_str().unwrap());
    let is_stream = kind.is_some_and(|it| {
        it.starts_with("text/event-stream") || it.starts_with("application/grpc")
    });
    let text = if is_stream {
        String::new()
    } else {
        response.text().await.unwrap()
    };
    Answer {
        status,
        headers,
        text,
    }
}

/// Neither refused for who asks, nor told that what is another's is not there.
fn is_in(answer: &Answer) -> bool {
    let is_another = ["Agent not found", "Instance not found", "Client not found"];
    let is_hidden = answer.status.as_u16() == 404
        && serde_json::from_str::<Value>(&answer.text)
            .is_ok_and(|it| is_another.iter().any(|word| it["error"] == *word));
    // Unauthenticated, permission denied, and the limit of attempts.
    let is_refused_call = ["16", "7", "8"].contains(&answer.header("grpc-status"));
    is_let_in(answer.status) && !is_hidden && !is_refused_call
}

/// Two clients with an agent each, and everybody's tokens.
struct SpotWorld {
    guarded: Guarded,
    client: (String, String),
    other: (String, String),
    tokens: Vec<(Asker, String)>,
    admin: String,
    node: reqwest::Client,
    count: usize,
}

impl SpotWorld {
    async fn start(auth: Auth, is_wide_open: bool) -> Self {
        let opened = Opened {
            open_replica_routes: is_wide_open,
            ..opened(&[(Contract::Spot, auth)])
        };
        let guarded = Guarded::opening(opened, |_, _| {}).await;
        let admin = guarded.token(Admin).await;
        let mut tokens = vec![(Role(Admin), admin.clone())];
        let (client, other) = (
            client(&guarded, &admin, "acme").await,
            client(&guarded, &admin, "other").await,
        );
        for role in [Viewer, Operator] {
            tokens.push((Role(role), guarded.token(role).await));
            let own: AccountId = client.0.parse().unwrap();
            let name = format!("acme-{role}");
            let token = guarded.token_of(&name, role, Some(own)).await;
            tokens.push((Scoped(role), token));
        }
        let account = other.0.parse().ok();
        let token = guarded.token_of("others", Operator, account).await;
        tokens.push((OtherScoped, token));
        let gone = guarded.token_of("gone", Admin, None).await;
        let revoked = bearer(&admin);
        let headers = [("authorization", revoked.as_str())];
        let path = "/api/v1/tokens/gone";
        let answer = guarded
            .server
            .send(Method::DELETE, path, &headers, "")
            .await;
        assert!(answer.status.is_success(), "{}", answer.text);
        tokens.push((Revoked, gone));
        tokens.push((Client, client.1.clone()));
        tokens.push((OtherClient, other.1.clone()));
        let machine = guarded.join("box").await;
        let node = guarded.node_client(&machine);
        Self {
            guarded,
            client,
            other,
            tokens,
            admin,
            node,
            count: 0,
        }
    }

    /// A fresh agent of the client's: its id and its machine.
    async fn agent(&mut self) -> (String, String) {
        self.count += 1;
        let instance = format!("i-{}", self.count);
        let body = registration(&format!("agent-{}", self.count), &instance).to_string();
        let shown = bearer(&self.client.1);
        let headers = [("authorization", shown.as_str())];
        let path = "/api/agents/register";
        let answer = self.guarded.server.send(Method::POST, path, &headers, body);
        let registered = Spot::ok(&answer.await);
        (
            registered["agent_id"].as_str().unwrap().to_owned(),
            instance,
        )
    }

    async fn ask(&self, asker: Asker, method: Method, path: &str) -> Answer {
        let server = &self.guarded.server;
        let request = match asker {
            Node => {
                let url = format!("https://{}{path}", self.guarded.secured);
                self.node.request(method, url)
            }
            _ => server.request(method, path),
        };
        let token = self.tokens.iter().find(|it| it.0 == asker);
        let request = match token {
            Some((_, token)) => request.bearer_auth(token),
            None => request,
        };
        ask(request
            .header("content-type", "application/json")
            .body("{}"))
        .await
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn client(guarded: &Guarded, admin: &str, name: &str) -> (String, String) {
    let shown = bearer(admin);
    let headers = [("authorization", shown.as_str())];
    let body = json!({"name": name}).to_string();
    let path = "/api/admin/clients/create";
    let answer = guarded.server.send(Method::POST, path, &headers, body);
    let client = Spot::ok(&answer.await)["client"].clone();
    let text = |key: &str| client[key].as_str().unwrap().to_owned();
    (text("id"), text("token"))
}

/// Whether somebody may use a route of the spot contract for what is the client's.
fn may_use_spot(row: &Row, asker: Asker, (auth, is_wide_open): (Auth, bool)) -> bool {
    let is_open = match row.class {
        'O' | 'W' => auth == Auth::Contract,
        'C' | 'A' => auth == Auth::Contract && is_wide_open,
        _ => false,
    };
    if is_open {
        let is_read = row.path.contains(READ_ALL_THE_SAME) && row.path.starts_with("/api/agents")
            || ["/create-emergency-replica", "/termination-imminent"]
                .iter()
                .any(|end| row.path.ends_with(end));
        return !is_read || !matches!(asker, OtherClient | OtherScoped | Revoked);
    }
    let is_each = EACH_ITS_OWN.contains(&row.path);
    let is_about_one = ["/api/agents/register", "/api/client/validate"].contains(&row.path);
    match asker {
        Role(_) if is_about_one => false,
        Role(role) => role >= row.role,
        Client => !matches!(row.class, 'W' | 'A'),
        Scoped(role) => !matches!(row.class, 'W' | 'A') && role >= row.role,
        OtherClient | OtherScoped => is_each,
        _ => false,
    }
}

async fn walk_spot(auth: Auth, is_wide_open: bool) {
    let mut world = SpotWorld::start(auth, is_wide_open).await;
    let askers = [
        Nobody,
        Role(Viewer),
        Role(Operator),
        Role(Admin),
        Node,
        Client,
        OtherClient,
        Scoped(Viewer),
        Scoped(Operator),
        OtherScoped,
        Revoked,
    ];
    let (mut agent, mut instance);
    let nothing = "0199c0de-0000-7000-8000-000000000001";
    for row in rows(SPOT) {
        // Those before may have deleted theirs.
        (agent, instance) = world.agent().await;
        for asker in askers {
            if row.method == Method::DELETE {
                (agent, instance) = world.agent().await;
            }
            // What closes an account is tried on none.
            let client = if row.class == 'A' {
                nothing
            } else {
                &world.client.0
            };
            let id = if row.path.contains("/instances/") {
                &instance
            } else {
                &agent
            };
            let query = match row.path {
                "/api/client/pricing-history" => format!("?agent_id={id}"),
                _ => String::new(),
            };
            let notice = row.path.starts_with("/api/notifications");
            let path = row.path.replace("{client}", client);
            let path = path.replace("{id}", if notice { "1" } else { id });
            let path = path.replace("{replica}", nothing);
            let path = path.replace("{command}", nothing) + &query;
            let answer = world.ask(asker, row.method.clone(), &path).await;
            let expected = may_use_spot(&row, asker, (auth, is_wide_open));
            // An account that is none is not found by whoever may ask.
            let is_hidden = row.class == 'A' && is_let_in(answer.status);
            assert_eq!(
                is_in(&answer) || is_hidden,
                expected,
                "{auth:?} {asker:?} {} {path}: {} {}",
                row.method,
                answer.status,
                answer.text
            );
            if !expected {
                let error = answer.json()["error"].clone();
                assert!(
                    error.is_string(),
                    "in the contract's words: {}",
                    answer.text
                );
            }
        }
    }
    world.guarded.server.shut_down().await;
}

#[tokio::test]
async fn every_spot_route_is_shut_to_those_without_a_token_where_tokens_are_asked_for() {
    walk_spot(Auth::Token, false).await;
}

#[tokio::test]
async fn every_spot_route_is_as_its_contract_has_it_but_for_what_costs_money() {
    walk_spot(Auth::Contract, false).await;
}

#[tokio::test]
async fn what_costs_money_is_open_only_where_that_is_said() {
    walk_spot(Auth::Contract, true).await;
}

/// What stands between two marks.
fn between<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once(from) {
        let (inside, tail) = tail.split_once(to).unwrap();
        found.push(inside);
        rest = tail;
    }
    found
}

#[test]
fn the_tables_of_this_file_leave_no_route_out() {
    let router = include_str!("../../src/spot/mod.rs");
    let compact: String = router.split_whitespace().collect();
    let mut served: BTreeSet<String> = BTreeSet::new();
    for piece in compact.split(".route(\"").skip(1) {
        let (path, handlers) = piece.split_once('"').unwrap();
        for method in ["get", "post", "put", "delete"] {
            let is_served = [',', '.']
                .iter()
                .any(|mark| handlers.contains(&format!("{mark}{method}(")));
            if is_served && path != "/health" {
                served.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    let known = |table| -> BTreeSet<String> {
        let rows = rows(table).into_iter();
        rows.map(|row| format!("{} {}", row.method, row.path))
            .collect()
    };
    assert_eq!(served, known(SPOT));
    for (proto, package, table) in [
        (
            include_str!("../../../../proto/orchion/v1/orchestrator.proto"),
            "orchion.v1",
            ORCHION,
        ),
        (
            include_str!("../../../../proto/persys/control/v1/control.proto"),
            "persys.control.v1",
            PERSYS,
        ),
    ] {
        let known = known(table);
        let mut count = 0;
        for service in proto.split("\nservice ").skip(1) {
            let (name, rest) = service.split_once(' ').unwrap();
            let body = rest.split_once("\n}").unwrap().0;
            for method in between(body, "rpc ", "(") {
                // Agents serve this one; the server calls it.
                if name == "NodeAgent" {
                    continue;
                }
                count += 1;
                let path = format!("POST /{package}.{name}/{method}");
                assert!(known.contains(&path), "{path}");
            }
        }
        assert!(count > 5, "{package}");
    }
}

const KEY: &str = "orchions-key";

async fn walk_orchion(auth: Auth, key: Option<&str>) {
    let doors = opened(&[(Contract::Orchion, auth), (Contract::Spot, auth)]);
    let guarded = Guarded::opening(doors, |parts, _| {
        parts.orchion.api_key = key.map(Into::into);
    })
    .await;
    let mut tokens = Vec::new();
    for role in AccessRole::ALL {
        tokens.push((Role(role), guarded.token(role).await));
    }
    let (id, other) = client(&guarded, &tokens[2].1.clone(), "acme").await;
    let scoped = guarded.token_of("acme", Admin, id.parse().ok()).await;
    tokens.extend([(Client, other), (Scoped(Admin), scoped)]);
    tokens.push((Key, KEY.to_owned()));
    tokens.push((WrongKey, "another".to_owned()));
    let machine = guarded.join("box").await;
    let node = guarded.node_client(&machine);
    let askers = tokens.iter().map(|it| it.0);
    let askers: Vec<Asker> = askers.chain([Nobody, Node, KeyHeader]).collect();
    for row in rows(ORCHION) {
        let is_own_port = row.path.starts_with("/v1/");
        for &asker in askers.iter().filter(|it| !is_own_port || **it != Node) {
            let base = match asker {
                Node => format!("https://{}", guarded.secured),
                _ if is_own_port => format!("http://{}", guarded.own[&Contract::Orchion]),
                _ => format!("http://{}", guarded.server.addr),
            };
            let client = if asker == Node {
                node.clone()
            } else {
                crate::server::http().no_proxy().build().unwrap()
            };
            let mut request = client.request(row.method.clone(), base + row.path);
            if let Some((_, token)) = tokens.iter().find(|it| it.0 == asker) {
                request = request.bearer_auth(token);
            }
            if asker == KeyHeader {
                request = request.header("x-api-key", KEY);
            }
            let kind = if row.is_call {
                "application/grpc"
            } else {
                "application/json"
            };
            let answer = ask(request.header("content-type", kind).body("")).await;
            let is_open = match row.class {
                'N' => true,
                'O' => auth == Auth::Contract,
                // Where there is a key it is asked for; whoever shows who they are needs none.
                _ => auth == Auth::Contract && key.is_none(),
            };
            let may = match asker {
                // A viewer who says so may not ask a model, also where nobody need say anything.
                Role(role) => role >= row.role || (is_open && row.class != 'K'),
                Key | KeyHeader => is_open || key.is_some(),
                _ => is_open,
            };
            assert_eq!(
                is_in(&answer),
                may,
                "{auth:?} {key:?} {asker:?} {} {}: {} {} {}",
                row.method,
                row.path,
                answer.status,
                answer.header("grpc-status"),
                answer.text
            );
            if !may && !row.is_call {
                let texts = ["Unauthorized\n", "Forbidden\n"];
                let is_limited = answer.status.as_u16() == 429;
                assert!(texts.contains(&answer.text.as_str()) || is_limited);
                assert_eq!(answer.header("access-control-allow-origin"), "*");
            }
        }
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn every_orchion_route_asks_for_a_role_or_the_key_where_tokens_are_asked_for() {
    walk_orchion(Auth::Token, Some(KEY)).await;
    walk_orchion(Auth::Token, None).await;
}

#[tokio::test]
async fn every_orchion_route_is_as_its_contract_has_it() {
    walk_orchion(Auth::Contract, Some(KEY)).await;
    walk_orchion(Auth::Contract, None).await;
}

#[tokio::test]
async fn persys_methods_ask_for_a_role_in_either_mode_and_shut_doors_answer_nothing() {
    for auth in [Auth::Token, Auth::Contract] {
        let guarded = Guarded::opening(opened(&[(Contract::Persys, auth)]), |_, _| {}).await;
        let mut askers = vec![(None, String::new())];
        for role in AccessRole::ALL {
            askers.push((Some(role), guarded.token(role).await));
        }
        for row in rows(PERSYS) {
            for (role, token) in &askers {
                let answer = call(&guarded, row.path, token).await;
                let may = role.is_some_and(|role| role >= row.role);
                assert_eq!(is_in(&answer), may, "{role:?} {}: {answer:?}", row.path);
            }
        }
        let admin = &askers[3].1;
        for row in rows(ORCHION).iter().filter(|row| row.is_call) {
            let answer = call(&guarded, row.path, admin).await;
            assert_eq!(answer.header("grpc-status"), "12", "{}", row.path);
        }
        for row in rows(SPOT) {
            let request = guarded.server.request(row.method, row.path);
            let answer = ask(request.bearer_auth(admin)).await;
            assert_eq!(answer.status.as_u16(), 404, "{}", row.path);
        }
        guarded.server.shut_down().await;
    }
}

async fn call(guarded: &Guarded, path: &str, token: &str) -> Answer {
    let mut request = guarded.server.request(Method::POST, path);
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    ask(request.header("content-type", "application/grpc").body("")).await
}

#[tokio::test]
async fn of_our_own_routes_only_those_of_miaas_are_opened_with_it() {
    for auth in [Auth::Token, Auth::Contract] {
        let every = [
            Contract::Miaas,
            Contract::Orchion,
            Contract::Persys,
            Contract::Spot,
        ];
        let doors = opened(&every.map(|contract| (contract, auth)));
        let guarded = Guarded::opening(doors, |_, _| {}).await;
        let mut askers = vec![(None, String::new())];
        for role in AccessRole::ALL {
            askers.push((Some(role), guarded.token(role).await));
        }
        let exceptions = rows(MIAAS);
        for (method, path, filled) in routes() {
            let is_meant = |row: &&Row| row.path == path && row.method == method;
            let exception = exceptions.iter().find(is_meant);
            // The seed's beats come without anything, as that contract has it.
            let is_open = auth == Auth::Contract && exception.is_some();
            for (role, token) in &askers {
                let mut request = guarded.server.request(method.clone(), &filled);
                if !token.is_empty() {
                    request = request.bearer_auth(token);
                }
                let is_beat = path.ends_with("/heartbeat");
                let body = if is_beat { "{\"cpu_usage\": 1}" } else { "" };
                let answer = ask(request.body(body)).await;
                let need = needed(&method, &path);
                let may = need.is_none() || *role >= need || is_open;
                // A role that is too small for a beat is refused before its body is read.
                let may = may && !(is_beat && role.is_some() && *role < need);
                assert_eq!(
                    is_let_in(answer.status),
                    may,
                    "{auth:?} {role:?} {method} {path}: {}",
                    answer.text
                );
            }
        }
        guarded.server.shut_down().await;
    }
}

/// A server that asks MIaaS's nodes for tokens, which are signed with keys of its own.
async fn miaas_server(dialect: miaas::Dialect) -> Guarded {
    let doors = opened(&[(Contract::Miaas, Auth::Token)]);
    Guarded::opening(doors, |parts, dir| {
        let path = dir.path().join("trust/miaas.key");
        parts.miaas.dialect = dialect;
        parts.miaas_keys = miaas::Keys::open(&path, parts.miaas.ttl, &SystemEntropy).unwrap();
    })
    .await
}

async fn send(guarded: &Guarded, token: &str, path: &str, body: Value) -> Answer {
    let shown = bearer(token);
    let headers = [
        ("authorization", shown.as_str()),
        ("content-type", "application/json"),
    ];
    let body = body.to_string();
    guarded
        .server
        .send(Method::POST, path, &headers, body)
        .await
}

async fn register(guarded: &Guarded, token: &str, name: &str) -> (String, String) {
    let capabilities = json!({"os": "linux", "cpu_count": 1, "mem_mb": 1});
    let body = json!({"name": name, "ip": "", "capabilities": capabilities});
    let answer = send(guarded, token, "/api/v1/nodes/register", body).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let answer = answer.json();
    let text = |key: &str| answer[key].as_str().unwrap().to_owned();
    assert!(text("control_plane_url").starts_with("https://"));
    (text("node_id"), text("node_token"))
}

async fn beat(guarded: &Guarded, token: &str, id: &str) -> Answer {
    let body = json!({
        "cpu_usage": 1.0, "mem_usage": 1.0, "disk_free_mb": 1, "running_containers": []
    });
    send(
        guarded,
        token,
        &format!("/api/v1/nodes/{id}/heartbeat"),
        body,
    )
    .await
}

#[tokio::test]
async fn a_node_beats_for_itself_with_its_own_token_over_every_rotation_of_keys() {
    for dialect in [miaas::Dialect::Seed, miaas::Dialect::Later] {
        let guarded = miaas_server(dialect).await;
        let (operator, admin) = (guarded.token(Operator).await, guarded.token(Admin).await);
        let (id, token) = register(&guarded, &operator, "box").await;
        let (_, others) = register(&guarded, &operator, "other").await;
        assert!(beat(&guarded, &token, &id).await.status.is_success());
        let refused = beat(&guarded, &others, &id).await;
        refused.is_problem(403, "forbidden");
        let path = format!("/api/v1/nodes/{id}/heartbeat");
        let bare = guarded.server.post(&path, "{}").await;
        bare.is_problem(401, "unauthenticated");
        // The token of a node is good for its beats and for nothing else.
        let listed = guarded.server.request(Method::GET, "/api/v1/nodes");
        let listed = ask(listed.bearer_auth(&token)).await;
        listed.is_problem(401, "unauthenticated");
        let path = "/api/v1/miaas/rotate-key";
        let refused = send(&guarded, &operator, path, json!({})).await;
        refused.is_problem(403, "forbidden");
        let mut keys = BTreeSet::new();
        for former in 1..=3 {
            let rotated = send(&guarded, &admin, path, json!({})).await.json();
            assert_eq!(rotated["former"], former);
            keys.insert(rotated["key"].as_str().unwrap().to_owned());
            assert!(beat(&guarded, &token, &id).await.status.is_success());
        }
        assert_eq!(keys.len(), 3);
        let (_, fresh) = register(&guarded, &operator, "box").await;
        assert!(beat(&guarded, &fresh, &id).await.status.is_success());
        // One that must not be believed any more is refused, and its node registers anew.
        let at_once = format!("{path}?at_once=true");
        let rotated = send(&guarded, &admin, &at_once, json!({})).await.json();
        assert_eq!(rotated["former"], 0);
        for worthless in [&token, &fresh] {
            let refused = beat(&guarded, worthless, &id).await;
            let problem = refused.is_problem(401, "unauthenticated");
            assert_eq!(problem["detail"], "Invalid or expired token");
            assert_eq!(refused.header("www-authenticate"), "Bearer");
        }
        let (same, token) = register(&guarded, &operator, "box").await;
        assert_eq!(same, id);
        assert!(beat(&guarded, &token, &id).await.status.is_success());
        let kept = std::fs::read_to_string(guarded.dir.path().join("trust/miaas.key"));
        assert!(kept.unwrap().contains("secret"));
        guarded.server.shut_down().await;
    }
}

#[tokio::test]
async fn a_token_for_an_account_sees_that_account_alone_and_acts_in_its_own_name() {
    let mut world = SpotWorld::start(Auth::Token, false).await;
    let (agent, _) = world.agent().await;
    let shown = bearer(&world.other.1);
    let headers = [("authorization", shown.as_str())];
    let server = &world.guarded.server;
    let path = "/api/agents/register";
    let body = registration("of-another", "i-of-another").to_string();
    Spot::ok(&server.send(Method::POST, path, &headers, body).await);
    for asker in [Client, Scoped(Viewer), Scoped(Operator)] {
        let agents = world.ask(asker, Method::GET, "/api/agents").await.json();
        let agents = agents.as_array().unwrap();
        assert_eq!(agents.len(), 1, "{asker:?}");
        assert_eq!(agents[0]["id"], agent.as_str());
        let notices = world
            .ask(asker, Method::GET, "/api/notifications")
            .await
            .json();
        let notices = notices.as_array().unwrap();
        assert!(!notices.is_empty());
        let is_own = |notice: &Value| notice["clientId"] == world.client.0.as_str();
        assert!(notices.iter().all(is_own), "{notices:?}");
        let others = format!("/api/notifications?client_id={}", world.other.0);
        let refused = world.ask(asker, Method::GET, &others).await;
        assert_eq!(refused.status.as_u16(), 404);
    }
    let path = format!("/api/client/agents/{agent}");
    Spot::ok(&world.ask(Scoped(Operator), Method::DELETE, &path).await);
    let events = server.request(Method::GET, "/api/v1/events");
    let events = ask(events.bearer_auth(&world.admin)).await.json();
    let removed = events.as_array().unwrap().iter();
    let mut removed = removed.filter(|event| event["kind"] == "node-removed");
    assert_eq!(removed.next().unwrap()["actor"], "user/acme-operator");
    world.guarded.server.shut_down().await;
}

#[tokio::test]
async fn what_each_door_relaxes_is_told() {
    let doors = opened(&[
        (Contract::Miaas, Auth::Contract),
        (Contract::Orchion, Auth::Contract),
        (Contract::Spot, Auth::Token),
    ]);
    let guarded = Guarded::opening(doors, |_, _| {}).await;
    let viewer = guarded.token(Viewer).await;
    let request = guarded.server.request(Method::GET, "/api/v1/doors");
    let doors = ask(request.bearer_auth(viewer)).await.json();
    let told = |at: usize, key: &str| -> BTreeSet<String> {
        serde_json::from_value(doors[at][key].clone()).unwrap()
    };
    assert_eq!(doors[0]["contract"], "miaas");
    let miaas: BTreeSet<String> = rows(MIAAS)
        .iter()
        .map(|row| format!("{} {}", row.method, row.path))
        .collect();
    assert_eq!(told(0, "open"), miaas);
    // Without a key nothing is asked for at Orchion's door.
    let orchion: BTreeSet<String> = rows(ORCHION)
        .iter()
        .filter(|row| row.class != 'N')
        .map(|row| row.path.to_owned())
        .collect();
    assert_eq!(told(1, "open"), orchion);
    assert!(told(1, "own").is_empty());
    assert_eq!(doors[2]["auth"], "token");
    assert!(told(2, "open").is_empty());
    let own = rows(SPOT)
        .into_iter()
        .filter(|row| !matches!(row.class, 'W' | 'A'));
    let own: BTreeSet<String> = own
        .map(|row| format!("{} {}", row.method, row.path))
        .collect();
    assert_eq!(told(2, "own"), own);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn without_login_nobody_is_asked_for_anything() {
    let spot = Spot::start().await;
    let (_, token) = create(&spot.server, "second").await;
    assert!(!token.is_empty());
    for row in rows(ORCHION)
        .iter()
        .filter(|row| !row.is_call && row.class == 'O')
    {
        let answer = spot.server.get(row.path).await;
        assert!(answer.status.is_success(), "{}", row.path);
    }
    spot.server.shut_down().await;
}

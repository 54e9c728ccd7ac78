//! The door of the spot contract on a server with login: every route, in both modes, tried by everybody; and what a token
//! for one account sees.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use hostler_doors::{Auth, Opened};
use hostler_model::{AccessRole, AccountId, Contract};
use reqwest::Method;
use serde_json::Value;

use crate::access::{Guarded, is_let_in};
use crate::door_tables::{Asker, Row, SPOT, ask, bearer, client, is_in, opened, rows};
use crate::server::Answer;
use crate::spot::{Spot, registration};

use AccessRole::{Admin, Operator, Viewer};
use Asker::{Client, Nobody, Node, OtherClient, OtherScoped, Revoked, Role, Scoped};

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

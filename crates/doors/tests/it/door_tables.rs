//! What each route of the other contracts asks for, as tables of the tests' own: the tests do not ask the code that they
//! test. And who asks, and how.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::BTreeSet;
use std::time::Duration;

use hostler_doors::{Auth, Opened};
use hostler_model::{AccessRole, Contract};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::access::{Guarded, is_let_in};
use crate::server::Answer;
use crate::spot::Spot;

/// What a route asks for. `N` nothing. `J` the contract's credential. `O` the contract leaves it open, else a role or the
/// contract's credential. `W` the same without the credential. `C` as `O`, and it costs money. `A` an admin, also where
/// the contract leaves it open.
pub(crate) const SPOT: &str = "
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

pub(crate) const ORCHION: &str = "
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

pub(crate) const PERSYS: &str = "
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
pub(crate) const MIAAS: &str = "
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

pub(crate) struct Row {
    pub(crate) class: char,
    pub(crate) role: AccessRole,
    pub(crate) method: Method,
    /// A gRPC call.
    pub(crate) is_call: bool,
    pub(crate) path: &'static str,
}

pub(crate) fn rows(table: &'static str) -> Vec<Row> {
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
pub(crate) enum Asker {
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

pub(crate) fn opened(doors: &[(Contract, Auth)]) -> Opened {
    Opened {
        doors: doors.iter().copied().collect(),
        ..Opened::default()
    }
}

/// The head of the answer, and its text unless that is a stream.
pub(crate) async fn ask(request: RequestBuilder) -> Answer {
    let response = request
        .timeout(Duration::from_secs(60))
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
pub(crate) fn is_in(answer: &Answer) -> bool {
    let is_another = ["Agent not found", "Instance not found", "Client not found"];
    let is_hidden = answer.status.as_u16() == 404
        && serde_json::from_str::<Value>(&answer.text)
            .is_ok_and(|it| is_another.iter().any(|word| it["error"] == *word));
    // Unauthenticated, permission denied, and the limit of attempts.
    let is_refused_call = ["16", "7", "8"].contains(&answer.header("grpc-status"));
    is_let_in(answer.status) && !is_hidden && !is_refused_call
}

pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub(crate) async fn client(guarded: &Guarded, admin: &str, name: &str) -> (String, String) {
    let shown = bearer(admin);
    let headers = [("authorization", shown.as_str())];
    let body = json!({"name": name}).to_string();
    let path = "/api/admin/clients/create";
    let answer = guarded.server.send(Method::POST, path, &headers, body);
    let client = Spot::ok(&answer.await)["client"].clone();
    let text = |key: &str| client[key].as_str().unwrap().to_owned();
    (text("id"), text("token"))
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

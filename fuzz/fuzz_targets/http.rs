//! Every route that reads a body: whatever is sent is answered, and never by a fault of ours.
#![no_main]

use axum::body::Body;
use http::{Request, StatusCode, header};
use hostler_fuzz::doors;
use libfuzzer_sys::fuzz_target;

const ROUTES: [(&str, &str); 22] = [
    ("POST", "/api/v1/workloads"),
    ("POST", "/api/v1/workloads/plan"),
    ("PATCH", "/api/v1/nodes/box/labels"),
    ("POST", "/api/v1/nodes/register"),
    ("POST", "/api/v1/nodes/box/heartbeat"),
    ("POST", "/api/v1/deployments"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/api/agents/register"),
    ("POST", "/api/agents/a/heartbeat"),
    ("POST", "/api/agents/a/commands/c/executed"),
    ("POST", "/api/agents/a/pricing-report"),
    ("POST", "/api/agents/a/switch-report"),
    ("POST", "/api/agents/a/termination"),
    ("POST", "/api/agents/a/cleanup-report"),
    ("POST", "/api/agents/a/replicas"),
    ("POST", "/api/agents/a/replicas/r/sync-status"),
    ("POST", "/api/agents/a/issue-switch-command"),
    ("POST", "/api/client/agents/a/settings"),
    ("POST", "/api/client/agents/a/config"),
    ("POST", "/api/client/instances/i/force-switch"),
    ("POST", "/api/admin/clients/create"),
];

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (choice, body) = input;
    let (method, path) = ROUTES[usize::from(choice) % ROUTES.len()];
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .expect("a request");
    let answer = doors().ask(request);
    let status = answer.status();
    assert!(
        !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE,
        "{method} {path}: {status} {}",
        String::from_utf8_lossy(answer.body())
    );
});

//! Every unary call of every contract: whatever bytes are sent as its message, it is answered, and never by a
//! fault of ours.
#![no_main]

use axum::body::Body;
use http::{Request, header};
use hostler_fuzz::doors;
use libfuzzer_sys::fuzz_target;

const CALLS: [&str; 17] = [
    "/orchion.v1.Orchestrator/RegisterNode",
    "/orchion.v1.Orchestrator/UpdateNode",
    "/orchion.v1.Orchestrator/Heartbeat",
    "/orchion.v1.Orchestrator/SubmitJob",
    "/orchion.v1.Orchestrator/GetJobStatus",
    "/orchion.v1.OrchionLLM/ChatCompletion",
    "/orchion.v1.OrchionLLM/Embeddings",
    "/persys.control.v1.AgentControl/RegisterNode",
    "/persys.control.v1.AgentControl/Heartbeat",
    "/persys.control.v1.AgentControl/ApplyWorkload",
    "/persys.control.v1.AgentControl/DeleteWorkload",
    "/persys.control.v1.AgentControl/RetryWorkload",
    "/persys.control.v1.AgentControl/SubmitAutomationSuggestion",
    "/persys.control.v1.AgentControl/ListWorkloads",
    "/persys.control.v1.AgentControl/GetWorkload",
    "/persys.control.v1.AgentControl/ControlStream",
    "/hostler.session.v1.Session/Control",
];
/// `UNKNOWN` and `INTERNAL`: what no input may lead to. tonic tells bytes that are no message as INTERNAL.
const FAULTS: [&str; 2] = ["2", "13"];

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (choice, message) = input;
    let path = CALLS[usize::from(choice) % CALLS.len()];
    let length = u32::try_from(message.len()).expect("a short message");
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::from(framed))
        .expect("a request");
    let answer = doors().ask(request);
    let text = |name| answer.headers().get(name).and_then(|it| it.to_str().ok());
    let status = text("grpc-status").unwrap_or("0");
    let words = text("grpc-message").unwrap_or_default();
    let is_no_message = words.contains("decode%20") || words.contains("decode Protobuf");
    assert!(
        !FAULTS.contains(&status) || is_no_message,
        "{path}: {status} {words}"
    );
});

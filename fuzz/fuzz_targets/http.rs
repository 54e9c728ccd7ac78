//! Every route of every listener: whatever is sent is answered, and never by a fault of ours.
#![no_main]

use hostler_fuzz::{ask_doors, asks};
use http::{Response, StatusCode};
use libfuzzer_sys::fuzz_target;

/// Where a contract's own answer is a server's error.
const OWN_ERRORS: [&str; 7] = [
    "/create-emergency-replica",
    "/termination-imminent",
    "/api/admin/decision-engine/upload",
    "/api/admin/ml-models/",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/logs",
];

fuzz_target!(|input: &[u8]| ask_doors(input, asks, judge));

fn judge(path: &str, answer: &Response<Vec<u8>>) {
    let status = answer.status();
    let is_own = status != StatusCode::SERVICE_UNAVAILABLE
        && OWN_ERRORS.iter().any(|own| path.contains(own));
    assert!(
        !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED || is_own,
        "{path}: {status} {}",
        String::from_utf8_lossy(answer.body())
    );
}

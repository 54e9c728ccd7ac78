//! The live tail of a deployment's log over a WebSocket, as MIaaS plans it: `/ws/logs?deployment=<id>`.
//!
//! Each frame is a line with its line break, ready for a terminal; Hostler's own words begin with `-- `. A socket
//! that opened and has nothing to tell says why by its close code, because a page sees no status of a handshake.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::api::refuse::Failure;
use crate::api::socket::{Close, Form, Socket};
use crate::api::take::{Query, Stay};
use crate::api::{Api, logs};

/// Lines that are told of what was written before.
const TAIL: u64 = 100;

/// Whose log.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(in crate::api) struct TailQuery {
    deployment: String,
    tail: u64,
}

impl Default for TailQuery {
    fn default() -> Self {
        Self {
            deployment: String::new(),
            tail: TAIL,
        }
    }
}

/// Opens the tail.
pub(in crate::api) async fn tail(
    State(api): State<Api>,
    Stay(stay): Stay,
    Query(query): Query<TailQuery>,
    socket: Option<Socket>,
) -> Result<Response, Failure> {
    let socket = socket.ok_or_else(|| Failure::bad("this route speaks WebSocket"))?;
    let socket = socket.enter(&api.sockets)?;
    if query.deployment.is_empty() {
        return Ok(socket.close(Close::new(Close::POLICY, "deployment is missing")));
    }
    let Some(workload) = api.deployment(&query.deployment) else {
        return Ok(socket.close(Close::new(Close::UNKNOWN, "Deployment not found")));
    };
    let parts = logs::tail(&api, workload.id, (query.tail, stay)).await?;
    Ok(socket.tell(parts, Form::Text, &api.control))
}

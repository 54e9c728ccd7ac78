//! A trivial axum handler.

use anyhow::Result;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(super) async fn serve(listener: TcpListener) -> Result<()> {
    let router = Router::new().route("/", post(answer));
    let listener = listener.tap_io(|stream| {
        // Without it small answers wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

async fn answer(body: String) -> Json<Value> {
    Json(json!({ "bytes": body.len() }))
}

//! The doors: inbound adapters, one folder per wire contract, and the listener under them.
//!
//! A door decodes, authenticates, makes one `Control` call and encodes; no business rule lives here. The
//! doors own no state but that of their connections. What can fail is answered in the contract's own
//! words, from the domain's refusals.

pub mod api;
pub mod listener;
pub mod session;

use std::sync::Arc;

use axum::Router;
use hostler_control::Control;
use hostler_kit::Entropy;

pub use self::api::openapi;
pub use self::listener::{Accept, BindError, Bound, Listener, Peer, Tls, serve};
use self::session::SessionDoor;

/// Every door of the main listener: the session and the REST API.
pub fn router(control: &Control, entropy: &Arc<dyn Entropy>) -> Router {
    let session = SessionDoor::new(control.clone(), Arc::clone(entropy)).into_server();
    let api = api::Api::new(control.clone(), Arc::clone(entropy)).router();
    // The session's own dispatch refuses unknown methods in gRPC's words, and none of the API's time-outs
    // and limits may touch its streams.
    api.route_service("/hostler.session.v1.Session/{*method}", session)
}

//! What the gRPC routes of every contract have in common. Owns nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hostler_model::{Code, Contract, Refusal};
use http::{HeaderMap, StatusCode, header};
use tonic::Status;

use crate::Access;
use crate::access::{Knock, Shown};
use crate::audit::KeptOut;

/// The calls that need no identity. What a machine says with them is small, and said at once.
const OF_STRANGERS: [&str; 2] = ["/Join", "/Renew"];
const STRANGERS_BYTES: usize = 64 << 10;
const STRANGERS_PATIENCE: Duration = Duration::from_secs(30);

/// Who may call the methods of a contract.
#[derive(Clone)]
pub(crate) struct Admit {
    access: Access,
    contract: Contract,
    own: Arc<dyn Fn(&HeaderMap) -> Shown + Send + Sync>,
}

impl Admit {
    /// `own` reads the contract's credential.
    pub(crate) fn new(
        access: &Access,
        contract: Contract,
        own: impl Fn(&HeaderMap) -> Shown + Send + Sync + 'static,
    ) -> Self {
        Self {
            access: access.clone(),
            contract,
            own: Arc::new(own),
        }
    }
}

/// Lets through whoever may call the method that the path names.
pub(crate) async fn admit(
    State(admit): State<Admit>,
    mut request: Request,
    next: Next,
) -> Response {
    let knock = Knock {
        method: request.method(),
        route: request.uri().path(),
        headers: request.headers(),
        peer: request.extensions().get(),
    };
    let own = |headers: &HeaderMap| (admit.own)(headers);
    match admit.access.admit_to(admit.contract, knock, own) {
        Ok((who, _)) => {
            request.extensions_mut().insert(who.clone());
            let mut response = next.run(request).await;
            admit.access.tell_by(&who, &mut response);
            response
        }
        Err(refusal) => kept_out(status(refusal)),
    }
}

/// The answer to whoever may not come in.
pub(crate) fn kept_out(status: Status) -> Response {
    let mut response = status.into_http::<axum::body::Body>();
    response.extensions_mut().insert(KeptOut);
    response
}

/// A refusal of who asks, in gRPC's words.
fn status(refusal: Refusal) -> Status {
    match refusal.code {
        Code::Unauthenticated | Code::NodeKeyUnknown => Status::unauthenticated(refusal.sentence),
        Code::TooManyAttempts => Status::resource_exhausted(refusal.sentence),
        Code::RouteNotFound => Status::unimplemented(refusal.sentence),
        _ => Status::permission_denied(refusal.sentence),
    }
}

/// Whether the request is a gRPC call by its content type.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}

/// Lets only calls through, as gRPC asks of servers. A page of any site may post plain text here without asking, and
/// a frame is bytes like any others; for this content type its browser must ask first, and is not answered.
pub(crate) async fn only_calls(request: Request, next: Next) -> Response {
    if is_call(request.headers()) {
        return next.run(request).await;
    }
    StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response()
}

/// Bounds time and bytes of the calls that anybody may make: streams of members have no limit of time.
pub(crate) async fn hurry_strangers(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !OF_STRANGERS.iter().any(|call| path.ends_with(call)) {
        return next.run(request).await;
    }
    let answered = tokio::time::timeout(STRANGERS_PATIENCE, async {
        let (head, body) = request.into_parts();
        match to_bytes(body, STRANGERS_BYTES).await {
            Ok(body) => next.run(Request::from_parts(head, Body::from(body))).await,
            Err(_) => Status::resource_exhausted("the call is too large, or broke off").into_http(),
        }
    });
    let late = |_| Status::deadline_exceeded("the call took longer than 30 s").into_http();
    answered.await.unwrap_or_else(late)
}

//! Inference by Orchion's two ways in: the OrchionLLM service, and `/v1/*` on a port of its own.
//!
//! Requests are checked as the contract checks them. No node of the fleet serves models yet, so what passes is
//! answered with the contract's own word for that. The API key guards the HTTP routes, as the contract has it.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use futures::stream::{self, BoxStream};
use hostler_model::{Code, Refusal};
use hostler_wire::orchion::v1;
use hostler_wire::orchion::v1::orchion_llm_server::OrchionLlm;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value, json};
use tonic::Status;

use super::Door;
use super::gateway::{Openness, open, refused, wrong_method};
use crate::access::{Shown, Who};
use crate::secret;

const OPENNESS: Openness = Openness {
    methods: "POST, OPTIONS",
    headers: "Content-Type, Authorization",
};
/// Most bytes of a request; that of a gRPC message.
const BODY_BYTES: usize = 4 << 20;
/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked of a model.
enum Ask {
    Chat { model: String, is_stream: bool },
    Embeddings { model: String },
}

pub(super) fn routes(door: Door) -> Router {
    Router::new()
        .route("/v1/chat/completions", any(chat))
        .route("/v1/embeddings", any(embeddings))
        .with_state(door)
}

async fn chat(State(door): State<Door>, request: Request) -> Response {
    answer(&door, request, read_chat).await
}

async fn embeddings(State(door): State<Door>, request: Request) -> Response {
    answer(&door, request, read_embeddings).await
}

async fn answer(
    door: &Door,
    request: Request,
    read: fn(&Map<String, Value>) -> Result<Ask, &'static str>,
) -> Response {
    let response = match *request.method() {
        Method::OPTIONS => StatusCode::OK.into_response(),
        Method::POST => match ask(door, request, read).await {
            Ok(ask) => unserved(&ask),
            Err(refusal) => refusal,
        },
        _ => wrong_method(OPENNESS),
    };
    open(response, OPENNESS)
}

/// Authenticates, then reads and checks the request.
async fn ask(
    door: &Door,
    request: Request,
    read: fn(&Map<String, Value>) -> Result<Ask, &'static str>,
) -> Result<Ask, Response> {
    // Whoever was let in as somebody need not know the key as well.
    let is_somebody = matches!(
        request.extensions().get(),
        Some(Who::Person { .. } | Who::Program(_))
    );
    if let Some(key) = &door.api_key
        && !is_somebody
        && !is_key(key, request.headers())
    {
        return Err(no_key(door, &request));
    }
    let body = Limited::new(request.into_body(), BODY_BYTES).collect();
    let bytes = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(bad(&format!("Invalid JSON: {error}"))),
        Err(_) => return Err(refused(StatusCode::REQUEST_TIMEOUT, "Request timeout")),
    };
    let body = serde_json::from_slice(&bytes);
    let body = body.map_err(|error| bad(&format!("Invalid JSON: {error}")))?;
    read(&body).map_err(|what| bad(&format!("Invalid request: {what}")))
}

/// A key that is wrong is an attempt; many of them from one address are refused as such.
fn no_key(door: &Door, request: &Request) -> Response {
    let refusal = Refusal::new(Code::Unauthenticated, "Unauthorized", "send the key");
    let refusal = match door.shown(request.headers()) {
        Shown::Worthless => door.access.failed(request.extensions().get(), refusal),
        Shown::Known(_) | Shown::Nothing => refusal,
    };
    match refusal.code {
        Code::TooManyAttempts => refused(StatusCode::TOO_MANY_REQUESTS, &refusal.sentence),
        _ => refused(StatusCode::UNAUTHORIZED, &refusal.sentence),
    }
}

fn bad(sentence: &str) -> Response {
    refused(StatusCode::BAD_REQUEST, sentence)
}

/// Where programs that keep `Authorization` for something else put the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// `Bearer <key>`, `sk-<key>`, or the key alone; or `x-api-key` with the key.
pub(super) fn is_key(key: &str, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|it| it.to_str().ok());
    let given = text(header::AUTHORIZATION);
    let forms = [
        given,
        given.and_then(|given| given.strip_prefix("Bearer ")),
        given.and_then(|given| given.strip_prefix("sk-")),
        text(KEY),
    ];
    let is_ours =
        |form: Option<&str>| form.is_some_and(|it| secret::is_same(key.as_bytes(), it.as_bytes()));
    // Every form is compared, so that the time does not tell which one was near.
    forms.map(is_ours).contains(&true)
}

fn read_model(body: &Map<String, Value>) -> Result<String, &'static str> {
    let model = body.get("model").and_then(Value::as_str);
    let model = model.filter(|model| !model.is_empty());
    model.map(str::to_owned).ok_or("model is required")
}

fn read_chat(body: &Map<String, Value>) -> Result<Ask, &'static str> {
    let model = read_model(body)?;
    let messages = body.get("messages").and_then(Value::as_array);
    let messages = messages.filter(|messages| !messages.is_empty());
    let messages = messages.ok_or("messages are required")?;
    if !messages.iter().all(Value::is_object) {
        return Err("invalid message format");
    }
    let is_stream = body.get("stream").and_then(Value::as_bool);
    Ok(Ask::Chat {
        model,
        is_stream: is_stream.unwrap_or_default(),
    })
}

fn read_embeddings(body: &Map<String, Value>) -> Result<Ask, &'static str> {
    let model = read_model(body)?;
    let has_input = match body.get("input") {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(texts)) => !texts.is_empty(),
        _ => false,
    };
    has_input
        .then_some(Ask::Embeddings { model })
        .ok_or("input is required")
}

/// A chat fails when its first message is awaited, embeddings when they are called.
fn unserved(ask: &Ask) -> Response {
    let failed = |what: &str, model: &str| {
        let sentence = format!("Failed to {what}: {}", as_go_prints(&no_node(model)));
        refused(StatusCode::INTERNAL_SERVER_ERROR, &sentence)
    };
    match ask {
        Ask::Embeddings { model } => failed("call orchestrator", model),
        Ask::Chat {
            model,
            is_stream: false,
        } => failed("receive response", model),
        Ask::Chat {
            model,
            is_stream: true,
        } => {
            let error = json!({"error": as_go_prints(&no_node(model))});
            let event = sse::Event::default().data(error.to_string());
            let only = stream::iter([Ok::<_, std::convert::Infallible>(event)]);
            Sse::new(only).into_response()
        }
    }
}

fn as_go_prints(status: &Status) -> String {
    format!(
        "rpc error: code = {:?} desc = {}",
        status.code(),
        status.message()
    )
}

fn no_node(model: &str) -> Status {
    Status::not_found(format!(
        "no node available for model {model}: no nodes available"
    ))
}

#[tonic::async_trait]
impl OrchionLlm for Door {
    type ChatCompletionStream = BoxStream<'static, Result<v1::ChatCompletionResponse, Status>>;

    async fn chat_completion(
        &self,
        request: tonic::Request<v1::ChatCompletionRequest>,
    ) -> Result<tonic::Response<Self::ChatCompletionStream>, Status> {
        let request = request.into_inner();
        check(!request.model.is_empty(), "model is required")?;
        check(!request.messages.is_empty(), "messages are required")?;
        Err(no_node(&request.model))
    }

    async fn embeddings(
        &self,
        request: tonic::Request<v1::EmbeddingRequest>,
    ) -> Result<tonic::Response<v1::EmbeddingResponse>, Status> {
        let request = request.into_inner();
        check(!request.model.is_empty(), "model is required")?;
        check(!request.input.is_empty(), "input is required")?;
        Err(no_node(&request.model))
    }
}

fn check(is_there: bool, missing: &'static str) -> Result<(), Status> {
    is_there
        .then_some(())
        .ok_or_else(|| Status::invalid_argument(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_comes_in_three_forms_and_no_other() {
        let is_taken = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, given.parse().unwrap());
            is_key("secret", &headers)
        };
        for given in ["Bearer secret", "sk-secret", "secret"] {
            assert!(is_taken(given), "{given}");
        }
        for given in [
            "",
            "Bearer",
            "Bearer ",
            "bearer secret",
            "Bearer sk-secret",
            "secret2",
            "Basic secret",
        ] {
            assert!(!is_taken(given), "{given}");
        }
        assert!(!is_key("secret", &HeaderMap::new()));
    }

    #[test]
    fn an_error_reads_as_go_prints_it() {
        let expected =
            "rpc error: code = NotFound desc = no node available for model m: no nodes available";
        assert_eq!(as_go_prints(&no_node("m")), expected);
    }
}

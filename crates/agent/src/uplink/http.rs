//! Calls on a foreign control plane's HTTP API, over the dial seam: one connection a call, bounded in time and size.
//! A heartbeat every half minute is not worth a connection that is kept.
//!
//! It owns nothing. What can fail: no answer, an answer that says no, an answer that is not understood.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, USER_AGENT,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::channel::chain;
use crate::dial::{Dial, HTTP_1, Server};

/// For a whole call, from the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer of these contracts comes near to it.
const MOST_BYTES: usize = 1 << 20;
/// How much of an answer that nobody understands is shown.
const SHOWN: usize = 200;

/// A control plane's API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    server: Server,
    dial: Arc<dyn Dial>,
}

/// Why a call did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// No answer came, or only a part of one.
    Silent(String),
    /// The answer says no.
    Refused { status: StatusCode, reason: String },
    /// The answer says yes in a way that is not understood.
    Unreadable(String),
}

impl CallError {
    /// The status of an answer that says no.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Silent(_) | Self::Unreadable(_) => None,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(reason) => f.write_str(reason),
            Self::Refused { status, reason } if reason.is_empty() => {
                write!(f, "the answer was {status}")
            }
            Self::Refused { status, reason } => write!(f, "the answer was {status}: {reason}"),
            Self::Unreadable(reason) => write!(f, "the answer is not understood: {reason}"),
        }
    }
}

impl Api {
    pub(crate) fn new(server: Server, dial: Arc<dyn Dial>) -> Self {
        Self { server, dial }
    }

    /// Posts JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<T, CallError> {
        let body = Full::new(Bytes::from(body.to_string()));
        read(self.call(Method::POST, (path, token), body).await?)
    }

    /// Posts JSON; that the answer says yes is all that counts of it.
    pub(crate) async fn tell(
        &self,
        path: &str,
        token: Option<&str>,
        body: &Value,
    ) -> Result<(), CallError> {
        let body = Full::new(Bytes::from(body.to_string()));
        let told = self.call(Method::POST, (path, token), body).await;
        told.map(drop)
    }

    /// Asks.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        token: Option<&str>,
    ) -> Result<T, CallError> {
        let call = self.call(Method::GET, (path, token), Full::default());
        read(call.await?)
    }

    /// Asks for plain text with a header of one's own, as the metadata services of clouds want it.
    pub(crate) async fn plain(
        &self,
        method: Method,
        path: &str,
        header: Option<(&'static str, &str)>,
    ) -> Result<String, CallError> {
        let mut request = self.request(method, (path, None), Full::default())?;
        if let Some((name, value)) = header {
            let unusable = |_| CallError::Unreadable(format!("{name} cannot be sent back"));
            let mut value = HeaderValue::from_str(value).map_err(unusable)?;
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        let answer = self.bounded(request).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn call(
        &self,
        method: Method,
        (path, token): (&str, Option<&str>),
        body: Full<Bytes>,
    ) -> Result<Bytes, CallError> {
        self.bounded(self.request(method, (path, token), body)?)
            .await
    }

    async fn bounded(&self, request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(CallError::Silent(format!(
                "no answer within {} s",
                PATIENCE.as_secs()
            ))),
        }
    }

    fn request(
        &self,
        method: Method,
        (path, token): (&str, Option<&str>),
        body: Full<Bytes>,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let unusable = |what: &str| CallError::Unreadable(format!("{what} cannot be sent back"));
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{}{path}", self.server.prefix))
            .header(HOST, self.server.authority())
            .header(ACCEPT, "application/json")
            .header(CONNECTION, "close")
            .header(
                USER_AGENT,
                concat!("hostler-agent/", env!("CARGO_PKG_VERSION")),
            );
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| unusable("the token"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(body).map_err(|_| unusable("the id"))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, CallError> {
        let dialled = self.server.open(&self.dial, HTTP_1).await;
        let stream = dialled.map_err(|error| {
            CallError::Silent(format!(
                "cannot connect to {}: {error}",
                self.server.authority()
            ))
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| CallError::Silent(chain(&error)))?;
        let asked = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| CallError::Silent(chain(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MOST_BYTES).collect().await;
            let body = body.map_err(|error| CallError::Silent(chain(error.as_ref())))?;
            let body = body.to_bytes();
            if head.status.is_success() {
                return Ok(body);
            }
            let location = head.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            Err(CallError::Refused {
                status: head.status,
                reason: location.map_or_else(|| reason(&body), |to| format!("it leads to {to}")),
            })
        };
        // The connection ends before its answer is read where the other side closes it, which is fine.
        let carried = async {
            let _ = connection.await;
            std::future::pending::<()>().await
        };
        tokio::select! {
            answered = asked => answered,
            () = carried => Err(CallError::Silent("the connection ended".to_owned())),
        }
    }
}

/// An answer that nobody understands is shown, unless it began as one that may hold a token.
fn read<T: DeserializeOwned>(body: Bytes) -> Result<T, CallError> {
    serde_json::from_slice(&body).map_err(|error| {
        let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
        CallError::Unreadable(if is_json {
            error.to_string()
        } else {
            format!("{error}: {}", shown(&body))
        })
    })
}

/// Why it was refused, in the words of the answer: FastAPI's `detail`, Flask's `error`, or the text itself.
fn reason(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    match json.get("detail").or_else(|| json.get("error")) {
        Some(Value::String(text)) => match json.get("details") {
            Some(details) => shown(format!("{text}: {details}").as_bytes()),
            None => shown(text.as_bytes()),
        },
        Some(other) => shown(other.to_string().as_bytes()),
        None => shown(body),
    }
}

fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A foreign id as one segment of a path.
pub(crate) fn segment(id: &str) -> String {
    let mut segment = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

/// An id or a token as contracts write them: text, or a number where somebody counts.
pub(crate) fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_id_stays_one_segment() {
        assert_eq!(segment("node-1_a.b~c"), "node-1_a.b~c");
        assert_eq!(segment("a/../b?x#ü"), "a%2F..%2Fb%3Fx%23%C3%BC");
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_answer() {
        assert_eq!(reason(br#"{"detail":"Node not found"}"#), "Node not found");
        assert_eq!(reason(br#"{"error":"Agent not found"}"#), "Agent not found");
        assert_eq!(
            reason(br#"{"error":"Validation failed","details":{"az":["missing"]}}"#),
            r#"Validation failed: {"az":["missing"]}"#
        );
        assert_eq!(reason(br#"{"detail":[{"msg":"no"}]}"#), r#"[{"msg":"no"}]"#);
        assert_eq!(reason(b"<html>\n oops </html>"), "<html> oops </html>");
        assert_eq!(
            reason("é".repeat(300).as_bytes()).chars().count(),
            SHOWN + 1
        );
    }

    #[test]
    fn an_answer_that_breaks_off_shows_no_token() {
        let told = |body: &'static str| match read::<Value>(Bytes::from_static(body.as_bytes())) {
            Err(error) => error.to_string(),
            Ok(value) => panic!("{value}"),
        };
        let broken = told(r#" {"node_id": "a", "node_token": "secret"#);
        assert!(
            broken.contains("EOF") && !broken.contains("secret"),
            "{broken}"
        );
        assert!(told("<html> oops </html>").ends_with(": <html> oops </html>"));
    }

    #[test]
    fn an_id_may_be_a_number_and_is_never_empty() {
        let answer = serde_json::json!({"a": "x", "b": 7, "c": "", "d": null});
        assert_eq!(text(answer.get("a")).as_deref(), Some("x"));
        assert_eq!(text(answer.get("b")).as_deref(), Some("7"));
        assert_eq!(text(answer.get("c")), None);
        assert_eq!(text(answer.get("d")), None);
    }
}

//! A typed client of the REST API, for the command line and for programs. It owns a connection pool and
//! nothing else; every call is one request, bounded in time, and fails with a [`ClientError`]. Streams are
//! bounded in silence instead: a living server says something at least every
//! [`KEEP_ALIVE_SECONDS`](crate::api::stream::KEEP_ALIVE_SECONDS). Reconnecting is the caller's business.

mod access;
mod call;
mod errands;
mod nodes;
mod secrets;
mod streams;
mod workloads;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::Url;
use rustls::ClientConfig;

use crate::api::{BackupQuery, Health, Problem, Ready, Version, stream};

pub use errands::{ErrandMessage, ErrandReceiver, ErrandSender, MOST_BYTES};
pub use nodes::Force;
pub use streams::{Happening, Stream};

/// For the whole of a request and its answer, unless it is a stream.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// For a TCP connection; a living server on a bad link needs less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest silence while an answer is read: three missed signs of life of a stream.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(3 * stream::KEEP_ALIVE_SECONDS);

/// The figure of lines of the audit that were lost.
const AUDIT_LOST: &str = "hostler_audit_lines_total{result=\"lost\"} ";

/// Talks to one control plane. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    tls: Option<ClientConfig>,
}

/// The token is not shown.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.base)
    }
}

/// Which revision the caller has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expect {
    /// Whatever it is; the last writer wins.
    #[default]
    Any,
    /// It must not exist yet (`If-None-Match: *`).
    Absent,
    /// It must be at this revision (`If-Match`).
    Revision(u64),
}

/// Why a call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address or token cannot be used.
    #[error("`{addr}` cannot be used as the address of a control plane: {problem}")]
    Address { addr: String, problem: String },
    /// No answer came. Whether a change was made is unknown if the connection stood.
    #[error("the control plane at {addr} does not answer")]
    Unreachable {
        addr: String,
        #[source]
        source: reqwest::Error,
    },
    /// Something answers that is not known to be the control plane; nothing was asked.
    #[error("the certificate of {addr} is not believed: {problem}")]
    Unbelieved { addr: String, problem: String },
    /// The control plane said no, and why.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// What answered does not speak this API.
    #[error("what answers at {addr} does not speak Hostler's API: {problem}")]
    Protocol { addr: String, problem: String },
    /// A stream broke off before its end; ask again from where it stopped.
    #[error("the stream from {addr} broke off")]
    Interrupted { addr: String },
}

impl Client {
    /// A client of the control plane at `host:port` or `http://host:port`, with the token of whoever asks.
    /// Nothing is sent yet.
    pub fn new(addr: &str, token: Option<&str>) -> Result<Self, ClientError> {
        Self::secured(addr, token, None)
    }

    /// The same, also at `https://host:port`, where the TLS says whom to believe.
    pub fn secured(
        addr: &str,
        token: Option<&str>,
        tls: Option<ClientConfig>,
    ) -> Result<Self, ClientError> {
        let refused = |problem: String| ClientError::Address {
            addr: addr.to_owned(),
            problem,
        };
        let base = base_of(addr).map_err(refused)?;
        if base.scheme() == "https" && tls.is_none() {
            return Err(refused("nothing says whom to believe there".to_owned()));
        }
        if !token.is_none_or(|token| token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(refused("its token has characters that no token has".into()));
        }
        if token.is_some() && base.scheme() == "http" && !is_local(&base) {
            return Err(refused(
                "a token would be read by everybody on the way: write https://".to_owned(),
            ));
        }
        let http = http_client(Some(SILENCE_TIMEOUT), tls.clone()).map_err(refused)?;
        Ok(Self {
            http,
            base,
            token: token.map(str::to_owned),
            tls,
        })
    }

    /// The address, as `http://host:port`.
    #[must_use]
    pub fn addr(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Which version the server is and speaks.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.call(self.get(&["version"])).await
    }

    /// All that the server keeps, as a tar stream. An error is its last item, and then it is no whole archive.
    pub async fn backup(
        &self,
        query: BackupQuery,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        // The server copies its store before it says a word, however long that takes; afterwards the reader waits.
        let patient = Self {
            http: http_client(None, self.tls.clone()).map_err(|problem| self.protocol(problem))?,
            ..self.clone()
        };
        let request = patient.get(&["api", "v1", "backup"]).query(&query);
        let response = patient.send(request).await?;
        let response = self.accepted(response).await?;
        let client = self.clone();
        let pieces = response.bytes_stream();
        Ok(pieces
            .map(move |piece| piece.map_err(|_| client.interrupted()))
            .boxed())
    }

    /// Whether the server is well, as MIaaS asks. An unwell server answers too.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.call_whatever_status(self.get(&["health"])).await
    }

    /// How many lines of the audit were lost since the server began; none are where there is no audit.
    pub async fn audit_lost(&self) -> Result<u64, ClientError> {
        let request = self.get(&["metrics"]).timeout(CALL_TIMEOUT);
        let response = self.accepted(self.send(request).await?).await?;
        let figures = response.text().await.map_err(|_| self.interrupted())?;
        let lost = figures
            .lines()
            .find_map(|line| line.strip_prefix(AUDIT_LOST));
        Ok(lost
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or_default())
    }

    /// Whether the server can serve requests now, and if not, what is missing.
    pub async fn ready(&self) -> Result<Ready, ClientError> {
        self.call_whatever_status(self.get(&["readyz"])).await
    }
}

impl ClientError {
    /// The stable code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            Self::Address { .. }
            | Self::Unreachable { .. }
            | Self::Unbelieved { .. }
            | Self::Protocol { .. }
            | Self::Interrupted { .. } => None,
        }
    }

    /// Whether the same call may succeed a little later without anybody doing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
            Self::Address { .. } | Self::Unbelieved { .. } | Self::Protocol { .. } => false,
        }
    }
}

fn http_client(
    silence: Option<Duration>,
    tls: Option<ClientConfig>,
) -> Result<reqwest::Client, String> {
    // Without one no client is made, also for plain http. A second try leaves the first one's in place.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("hostler/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // The address is the control plane's own; a proxy of the web is none of its business.
        .no_proxy();
    builder = match tls {
        Some(mut tls) => {
            // Nothing but HTTP/1.1 is offered: sockets need it, and streams of one command do well with it.
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            builder.tls_backend_preconfigured(tls)
        }
        // Plain text needs no authorities, and a small system has none.
        None => builder.tls_certs_only([]),
    };
    if let Some(silence) = silence {
        builder = builder.read_timeout(silence);
    }
    builder.build().map_err(|error| error.to_string())
}

/// Whether it is this machine.
fn is_local(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |addr: std::net::IpAddr| addr.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

/// The root of the API at an address that a person wrote.
fn base_of(addr: &str) -> Result<Url, String> {
    let with_scheme = if addr.contains("://") {
        addr.to_owned()
    } else {
        format!("http://{addr}")
    };
    let base: Url = with_scheme.parse().map_err(|error| format!("{error}"))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(format!(
            "`http` or `https` is expected, not `{}`",
            base.scheme()
        ));
    }
    if !base.has_host() || !matches!(base.path(), "/" | "") {
        return Err("write it as `http://HOST:PORT`".to_owned());
    }
    Ok(base)
}

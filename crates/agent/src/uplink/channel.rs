//! A gRPC connection over the dial seam, for every uplink that speaks gRPC, and why calls on it failed, in words.
//! It owns nothing: whoever opened a connection keeps it.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use crate::dial::{Dial, HTTP_2, Server};

/// How long a connection may take to stand.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without beats is asked after this long for a sign of life, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Streams that one connection without beats may carry at once.
pub(crate) const MOST_STREAMS: u32 = 64;

/// How a connection is known to be alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignsOfLife {
    /// By the beats on it; pings beside them would only wake everybody up.
    Beats,
    Pings,
}

/// Opens a connection of its own.
pub(crate) async fn connect(
    server: &Server,
    dial: &Arc<dyn Dial>,
    life: SignsOfLife,
) -> Result<Channel, String> {
    // Everything is small or flows slowly here; large windows would only hold memory. But of many streams none is to
    // hold up the others when its reader is slow.
    const WINDOW: u32 = 256 * 1024;
    let connection_window = match life {
        SignsOfLife::Beats => WINDOW,
        SignsOfLife::Pings => MOST_STREAMS * WINDOW,
    };
    // What is below is the connector's, which speaks TLS where the address says so.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.authority()))
        .and_then(|endpoint| {
            endpoint.user_agent(concat!("hostler-agent/", env!("CARGO_PKG_VERSION")))
        })
        .map_err(|error| chain(&error))?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(connection_window);
    let endpoint = match life {
        SignsOfLife::Beats => endpoint,
        SignsOfLife::Pings => endpoint
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE),
    };
    let (server, dial) = (server.clone(), Arc::clone(dial));
    let connector = tower::service_fn(move |_: Uri| {
        let (server, dial) = (server.clone(), Arc::clone(&dial));
        async move { server.open(&dial, HTTP_2).await.map(TokioIo::new) }
    });
    let connecting = endpoint.connect_with_connector(connector);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!(
            "no connection within {} s",
            CONNECT_TIMEOUT.as_secs()
        )),
    }
}

/// An error with its causes, innermost last, each once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // What a library advises its programmers is no advice for people.
    match text.split_once(": https://docs.rs/") {
        Some((told, _)) => told.to_owned(),
        None => text,
    }
}

/// Why a call failed, as a sentence: a status shows its source as programmers see it.
pub(crate) fn failure(status: &tonic::Status) -> String {
    let words = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    match std::error::Error::source(status).map(chain) {
        // The source often is what the message was made from.
        Some(causes) if causes.starts_with(words) => causes,
        Some(causes) => format!("{words}: {causes}"),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_failed_is_told_in_words_with_its_causes() {
        let reset = || std::io::Error::other("connection reset by peer");
        let mut status = tonic::Status::unavailable("transport error");
        status.set_source(Arc::new(reset()));
        assert_eq!(
            failure(&status),
            "transport error: connection reset by peer"
        );
        let mut same = tonic::Status::unknown("connection reset by peer");
        same.set_source(Arc::new(reset()));
        assert_eq!(failure(&same), "connection reset by peer");
        let advised = std::io::Error::other("it ended early: https://docs.rs/x/latest/x");
        assert_eq!(chain(&advised), "it ended early");
        let bare = tonic::Status::new(tonic::Code::Unavailable, "");
        assert_eq!(failure(&bare), "The service is currently unavailable");
    }
}

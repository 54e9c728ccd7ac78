//! A control plane that answers an agent with what an input says: no answer may bring the agent down.
//!
//! The first line names the contract that the agent speaks. Then come answers, separated by a line `--`, each to the
//! calls whose path ends with its first word; nothing else is known there.
//!
//! ```text
//! spot
//! --
//! /pending-commands 200
//! [{"id": "c"}]
//! --
//! /Heartbeat
//! 1 1
//! ```
//!
//! Of a call of gRPC the status is left out, and what follows are messages.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::serve::Listener;
use futures::{StreamExt as _, stream};
use hostler_agent::miaas::Miaas;
use hostler_agent::orchion::Orchion;
use hostler_agent::persys::Persys;
use hostler_agent::spot::{Instance, Spot, Timers};
use hostler_agent::{Agent, AgentConfig, ByteStream, Dial, LedgerIo, Uplink};
use hostler_kit::Tasks;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body::Frame;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::input::{framed, pieces, split};
use crate::{node, runtime};

/// How long an agent is watched, in time that passes at once when there is nothing to do.
const SPAN: Duration = Duration::from_secs(40);
const MOST_BYTES: usize = 64 << 10;

/// The ends of cables that agents plugged in.
struct Socket(mpsc::Receiver<DuplexStream>);

/// Where agents plug cables in.
struct Wall(mpsc::Sender<DuplexStream>);

/// What is answered: the end of a path, and behind it what is said.
type Answers = Vec<(Vec<u8>, Vec<u8>)>;

/// Lets an agent speak to a control plane that answers so.
pub fn answer_agent(input: &[u8]) {
    let (contract, answers) = split(input, b"\n--\n");
    let answers = answers.unwrap_or_default();
    let answers: Answers = pieces(answers, b"\n--\n")
        .map(|piece| {
            let (path, answer) = split(piece, b"\n");
            let (path, status) = split(path, b" ");
            let mut told = status.unwrap_or_default().to_vec();
            told.push(b'\n');
            told.extend_from_slice(answer.unwrap_or_default());
            (path.to_vec(), told)
        })
        .collect();
    runtime().block_on(async {
        let (cables, socket) = mpsc::channel(8);
        let answers = Arc::new(answers);
        let router = Router::new().fallback(move |request: Request<Body>| {
            let answers = Arc::clone(&answers);
            async move { answer(&answers, &request) }
        });
        let served = axum::serve(Socket(socket), router);
        let served = tokio::spawn(async move { served.await });
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = AgentConfig::new("http://control.example:8080", folder.path());
        config.ledger_io = LedgerIo::Inline;
        config.uplink = uplink(contract, folder.path());
        if let Uplink::Persys(_) = config.uplink {
            config.server = "control.example:8085".to_owned();
        }
        let tasks = Tasks::new();
        let mut parts = node::parts(tasks.clone());
        parts.dial = Arc::new(Wall(cables));
        let agent = Agent::start(config, parts).await.expect("the agent starts");
        tokio::time::sleep(SPAN).await;
        assert!(agent.vitals().is_alive(), "the agent ended");
        tasks.stop();
        agent.stopped().await;
        served.abort();
    });
}

fn uplink(contract: &[u8], folder: &std::path::Path) -> Uplink {
    match contract {
        b"miaas" => Uplink::Miaas(Miaas::default()),
        b"orchion" => Uplink::Orchion(Box::new(Orchion::default())),
        b"spot" => Uplink::Spot(Box::new(Spot {
            client_token: "token".to_owned(),
            logical_agent_id: "a".to_owned(),
            instance: Instance::default(),
            agent_version: "2.0.0".to_owned(),
            root: folder.join("spot"),
            timers: Timers::default(),
            prices: None,
            replica: None,
        })),
        b"persys" => {
            let mut persys = Persys::new("node-1");
            persys.control_stream = true;
            Uplink::Persys(persys)
        }
        _ => Uplink::Session,
    }
}

fn answer(answers: &Answers, request: &Request<Body>) -> Response {
    let path = request.uri().path().as_bytes();
    let known = answers.iter().find(|(end, _)| path.ends_with(end));
    let (status, told) = match known {
        Some((_, told)) => split(told, b"\n"),
        None => (&b"404"[..], None),
    };
    let told = told.unwrap_or_default();
    let is_call = request.headers().get(header::CONTENT_TYPE)
        == Some(&HeaderValue::from_static("application/grpc"));
    if is_call {
        return called(told, known.is_some());
    }
    let mut response = Response::new(Body::from(told.to_vec()));
    *response.status_mut() = StatusCode::from_bytes(status).unwrap_or_default();
    response
}

/// The messages and the status. What sends several messages stays open behind them.
fn called(told: &[u8], is_known: bool) -> Response {
    let messages = framed(told).unwrap_or_default();
    let is_stream = told.windows(4).any(|it| it == b"\n==\n");
    let mut trailers = HeaderMap::new();
    let status = if is_known { "0" } else { "12" };
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let data = stream::iter([Frame::data(messages.into())]);
    let end = stream::once(async move {
        if is_stream {
            std::future::pending::<()>().await;
        }
        Frame::trailers(trailers)
    });
    let frames = data
        .chain(end)
        .map(Ok::<Frame<axum::body::Bytes>, io::Error>);
    let mut response = Response::new(Body::new(http_body_util::StreamBody::new(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl Listener for Socket {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(cable) => (cable, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Dial for Wall {
    async fn dial(&self, _: &str, _: u16) -> io::Result<Box<dyn ByteStream>> {
        let (here, there) = tokio::io::duplex(MOST_BYTES);
        let sent = self.0.send(there).await;
        sent.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(here))
    }
}

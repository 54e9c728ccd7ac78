//! C2: what one beat over MIaaS's REST costs the server, its token verified, against an axum handler that does
//! nothing with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::client_runtime;
use crate::baseline::{Baseline, Served};
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::meter::{self, Id};
use crate::plane::Server;
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, micros};

/// Each is one node that keeps its connection.
const CONNECTIONS: usize = 64;
/// Server and baseline take turns, so that other work on the machine hits both.
const TURNS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);
const TARGET: f64 = 2.0;
const BEAT: &str =
    r#"{"cpu_usage": 15.2, "mem_usage": 45.3, "disk_free_mb": 450000, "running_containers": []}"#;

/// What a connection sends, over and over.
type Request = Arc<[u8]>;

/// What a turn saw.
struct Turn {
    cpu: Duration,
    beats: u64,
    span: Duration,
}

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let span = bench.sized(Duration::from_secs(1), Duration::from_secs(4));
    let (mut ours, mut bound) = (Samples::default(), Samples::default());
    let mut fastest: f64 = 0.0;
    for _ in 0..bench.sized(1, TURNS) {
        let server = Server::start_with(bench, &[("HOSTLER_MIAAS_DIALECT", "later")])?;
        let turn = turn(&server.url, server.process.id(), span, true)?;
        fastest = fastest.max(turn.beats as f64 / turn.span.as_secs_f64());
        ours.add(turn.per_beat());
        drop(server);
        let baseline = Served::start(bench, Baseline::Http)?;
        let turn = self::turn(&baseline.url, baseline.process.id(), span, false)?;
        bound.add(turn.per_beat());
    }
    let [ours, bound] = [micros(ours.best()), micros(bound.best())];
    let what = format!("CPU per MIaaS REST beat, {CONNECTIONS} connections, token verified");
    let limit = Bound::AtMost(TARGET * bound);
    Ok(vec![
        Line::new("C2", what, Nature::Speed, figure(ours, "µs"), limit)
            .against(bound)
            .target("≤ 2 × a trivial axum handler")
            .note(format!("{fastest:.0} beats/s on one core")),
    ])
}

impl Turn {
    fn per_beat(&self) -> Duration {
        self.cpu / u32::try_from(self.beats.max(1)).unwrap_or(u32::MAX)
    }
}

fn turn(url: &str, server: Id, span: Duration, is_ours: bool) -> Result<Turn> {
    let addr = url.trim_start_matches("http://").to_owned();
    cores::on(Core::Client, || {
        client_runtime()?.block_on(async {
            let joining = (0..CONNECTIONS).map(|number| join(&addr, number, is_ours));
            let connections = try_join_all(joining).await?;
            let answered = Arc::new(AtomicU64::new(0));
            for (stream, request) in connections {
                tokio::spawn(beat_on(stream, request, Arc::clone(&answered)));
            }
            sleep(WARM_UP).await;
            let (cpu, beats) = (meter::cpu(server)?, answered.load(Ordering::Relaxed));
            sleep(span).await;
            let cpu = meter::cpu(server)? - cpu;
            let beats = answered.load(Ordering::Relaxed) - beats;
            ensure!(beats > 0, "no beat was answered");
            Ok(Turn { cpu, beats, span })
        })
    })
}

/// A connection and the beat that it repeats. With ours, a node is registered first.
async fn join(addr: &str, number: usize, is_ours: bool) -> Result<(TcpStream, Request)> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    if !is_ours {
        return Ok((stream, request(addr, "/", "Bearer none", BEAT)));
    }
    let node = json!({
        "name": format!("bench-{number}"),
        "ip": "127.0.0.1",
        "capabilities": {"os": "linux", "cpu_count": 4, "mem_mb": 16000},
    });
    let register = request(addr, "/api/v1/nodes/register", "", &node.to_string());
    stream.write_all(&register).await?;
    let mut buffer = Vec::new();
    let answer = answer(&mut stream, &mut buffer).await?;
    let answer: Value = serde_json::from_slice(&answer).context("a registration's answer")?;
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let path = format!("/api/v1/nodes/{}/heartbeat", text("node_id"));
    let token = format!("Bearer {}", text("node_token"));
    Ok((stream, request(addr, &path, &token, BEAT)))
}

fn request(addr: &str, path: &str, authorization: &str, body: &str) -> Request {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Type: application/json\r\n\
         Authorization: {authorization}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    head.into_bytes().into()
}

/// Beats as fast as they are answered, until the runtime ends or the server refuses one.
async fn beat_on(mut stream: TcpStream, request: Request, answered: Arc<AtomicU64>) {
    let mut buffer = Vec::new();
    while stream.write_all(&request).await.is_ok() && answer(&mut stream, &mut buffer).await.is_ok()
    {
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of the next answer, which must be a success.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>> {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await?;
        ensure!(read > 0, "the server hung up");
        let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&buffer[..end])?;
        ensure!(head.starts_with("HTTP/1.1 20"), "refused: {head}");
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let whole = end + 4 + length.context("an answer without a length")?;
        if buffer.len() >= whole {
            return Ok(buffer[end + 4..whole].to_vec());
        }
    }
}

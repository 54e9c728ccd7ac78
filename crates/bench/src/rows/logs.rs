//! R6: from a line that a process writes to a follower elsewhere, and how fast a process may write while a follower
//! reads nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use hostler_wire::api::{LogLine, LogQuery, LogStream};
use hostler_wire::client::Client;
use rustix::time::ClockId;

use super::client_runtime;
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::plane::{self, Agent, Server};
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, millis};

const SEEN_MS: f64 = 20.0;
const LINES_PER_SECOND: f64 = 50_000.0;
/// How often a line is written where the way of one is measured.
const PAUSE: &str = "0.05";
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let _agent = Agent::start(bench, &server.url)?;
    cores::on(Core::Client, || {
        client_runtime()?.block_on(async {
            let client = server.client()?;
            let seen = tokio::time::timeout(PATIENCE, seen(bench, &client)).await??;
            let flood = tokio::time::timeout(PATIENCE, flood(bench, &client)).await??;
            Ok(vec![seen, flood])
        })
    })
}

/// Each line is the moment at which it was made.
async fn seen(bench: &Bench, client: &Client) -> Result<Line> {
    let script = format!("while :; do date +%s%N; sleep {PAUSE}; done");
    plane::run_up(client, "clock", &shell("clock", &script), 1).await?;
    let query = LogQuery {
        tail: Some(0),
        follow: true,
        ..LogQuery::default()
    };
    let mut log = client.logs("clock", &query).await?;
    let mut took = Samples::default();
    let mut wanted = bench.sized(20, 200);
    while wanted > 0 {
        let line = log.next().await.context("the log goes on")??;
        let now = since_epoch();
        if let Some(made) = number(&line).map(Duration::from_nanos) {
            took.add(now.saturating_sub(made));
            wanted -= 1;
        }
    }
    drop(log);
    plane::take_down(client, "clock").await?;
    let measured = figure(millis(took.median()), "ms");
    let note = format!(
        "best {:.1} ms, worst {:.1} ms; from the moment that `date` says, so its own end is counted",
        millis(took.best()),
        millis(took.worst())
    );
    let line = Line::new(
        "R6",
        "line written to seen by a follower, p50",
        Nature::Speed,
        measured,
        Bound::AtMost(SEEN_MS),
    );
    Ok(line.note(note))
}

/// Writes as fast as the shim takes it, beside a follower that reads nothing; then every line is looked for.
async fn flood(bench: &Bench, client: &Client) -> Result<Line> {
    let count = bench.sized(100_000, 400_000);
    let script = format!(
        "sleep 1; begun=$(date +%s%N); seq 1 {count}; echo took $(($(date +%s%N) - begun)); exec sleep 7200"
    );
    plane::run_up(client, "flood", &shell("flood", &script), 1).await?;
    let follow = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let stalled = client.logs("flood", &follow).await?;
    let took = loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let last = LogQuery {
            tail: Some(1),
            ..LogQuery::default()
        };
        let mut log = client.logs("flood", &last).await?;
        let line = log.next().await.transpose()?;
        let took = line.and_then(|line| line.text.strip_prefix("took ")?.parse().ok());
        if let Some(took) = took {
            break Duration::from_nanos(took);
        }
    };
    let mut log = client.logs("flood", &LogQuery::default()).await?;
    let mut expected = 1;
    while expected <= count {
        let line = log.next().await.context("the log ends early")??;
        let found = number(&line);
        ensure!(
            found == u64::try_from(expected).ok(),
            "line {expected} is not in the file, but {found:?}"
        );
        expected += 1;
    }
    drop((log, stalled));
    plane::take_down(client, "flood").await?;
    let rate = count as f64 / took.as_secs_f64();
    let line = Line::new(
        "R6",
        "lines a second into the file, none lost, beside a follower that stalls",
        Nature::Speed,
        figure(rate, "lines/s"),
        Bound::AtLeast(LINES_PER_SECOND),
    );
    Ok(line.note(format!("{count} lines in {:.2} s", took.as_secs_f64())))
}

fn shell(name: &str, script: &str) -> String {
    format!(
        "name: {name}\nprocess: {{ command: [/bin/sh, -c, '{script}'] }}\nstop: {{ grace_ms: 2000 }}\n"
    )
}

fn number(line: &LogLine) -> Option<u64> {
    (line.stream == LogStream::Stdout)
        .then(|| line.text.parse().ok())
        .flatten()
}

fn since_epoch() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::Realtime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), nanos)
}

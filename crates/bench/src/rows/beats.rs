//! C1: what one beat costs the server, against a tonic server that does nothing with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use tokio::time::sleep;

use super::client_runtime;
use crate::baseline::{Baseline, Served};
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::meter::{self, Id};
use crate::plane::Server;
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, micros};
use crate::session::Session;

const CONNECTIONS: usize = 64;
/// Beats that a connection has under way. One is how agents beat; several share reads and writes.
const WINDOWS: [usize; 2] = [1, 8];
/// Server and baseline take turns, so that other work on the machine hits both.
const TURNS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(500);
const TARGET: f64 = 1.6;

/// What a turn saw.
struct Turn {
    cpu: Duration,
    beats: u64,
    span: Duration,
}

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    WINDOWS
        .into_iter()
        .map(|window| line(bench, window))
        .collect()
}

fn line(bench: &Bench, window: usize) -> Result<Line> {
    let span = bench.sized(Duration::from_secs(1), Duration::from_secs(4));
    let (mut ours, mut bound) = (Samples::default(), Samples::default());
    let mut fastest: f64 = 0.0;
    for _ in 0..bench.sized(1, TURNS) {
        let server = Server::start(bench)?;
        let turn = turn(&server.url, server.process.id(), window, span)?;
        fastest = fastest.max(turn.per_second());
        ours.add(turn.per_beat());
        drop(server);
        let baseline = Served::start(bench, Baseline::Stream)?;
        let turn = self::turn(&baseline.url, baseline.process.id(), window, span)?;
        bound.add(turn.per_beat());
    }
    let [ours, bound] = [micros(ours.best()), micros(bound.best())];
    let what =
        format!("CPU per beat, {CONNECTIONS} connections, {window} under way on each, plaintext");
    let limit = Bound::AtMost(TARGET * bound);
    Ok(
        Line::new("C1", what, Nature::Speed, figure(ours, "µs"), limit)
            .against(bound)
            .target("≤ 1.6 × a trivial tonic bidi server")
            .note(format!("{fastest:.0} beats/s on one core")),
    )
}

impl Turn {
    fn per_beat(&self) -> Duration {
        self.cpu / u32::try_from(self.beats.max(1)).unwrap_or(u32::MAX)
    }

    fn per_second(&self) -> f64 {
        self.beats as f64 / self.span.as_secs_f64()
    }
}

fn turn(url: &str, server: Id, window: usize, span: Duration) -> Result<Turn> {
    cores::on(Core::Client, || {
        let runtime = client_runtime()?;
        runtime.block_on(async {
            let sessions =
                try_join_all((0..CONNECTIONS).map(|number| Session::join(url, number))).await?;
            let acked = Arc::new(AtomicU64::new(0));
            for session in sessions {
                tokio::spawn(beat_on(session, window, Arc::clone(&acked)));
            }
            sleep(WARM_UP).await;
            let (cpu, beats) = (meter::cpu(server)?, acked.load(Ordering::Relaxed));
            sleep(span).await;
            let cpu = meter::cpu(server)? - cpu;
            let beats = acked.load(Ordering::Relaxed) - beats;
            ensure!(beats > 0, "no beat was answered");
            Ok(Turn { cpu, beats, span })
        })
    })
}

/// Beats as fast as they are answered, until the runtime ends or the session breaks.
async fn beat_on(mut session: Session, window: usize, acked: Arc<AtomicU64>) {
    for _ in 0..window {
        if session.beat().await.is_err() {
            return;
        }
    }
    while session.acked().await.is_ok() && session.beat().await.is_ok() {
        acked.fetch_add(1, Ordering::Relaxed);
    }
}

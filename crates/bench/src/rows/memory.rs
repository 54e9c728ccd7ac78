//! C8: the server's memory, alone and with connected nodes that beat.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::client_runtime;
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::meter::{self, Id};
use crate::plane::Server;
use crate::report::{Bound, Line, Nature, figure};
use crate::session::Session;

const AGENTS: usize = 100;
const BEAT: Duration = Duration::from_secs(1);

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let id = server.process.id();
    std::thread::sleep(bench.sized(Duration::from_secs(1), Duration::from_secs(5)));
    let idle = meter::rss_mib(id)?;
    let span = bench.sized(Duration::from_secs(3), Duration::from_secs(15));
    let connected = || client_runtime()?.block_on(connected(&server.url, span, id));
    let busy = cores::on(Core::Client, connected)?;
    let line = |what: &str, value, limit| {
        Line::new(
            "C8",
            what,
            Nature::Memory,
            figure(value, "MiB"),
            Bound::AtMost(limit),
        )
    };
    Ok(vec![
        line("server RSS, idle", idle, 20.0),
        line("server RSS, 100 agents that beat", busy, 40.0).note(format!(
            "{:.0} KiB per agent",
            (busy - idle) * 1024.0 / AGENTS as f64
        )),
    ])
}

/// Holds the connections and beats on each for as long; then says how large the server is.
async fn connected(url: &str, span: Duration, server: Id) -> Result<f64> {
    let mut sessions = try_join_all((0..AGENTS).map(|number| Session::join(url, number))).await?;
    let end = Instant::now() + span;
    while Instant::now() < end {
        for session in &mut sessions {
            session.beat().await?;
            session.acked().await?;
        }
        sleep(BEAT).await;
    }
    meter::rss_mib(server)
}

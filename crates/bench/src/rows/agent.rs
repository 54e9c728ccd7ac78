//! A1 to A4: what an agent costs that has nothing to do, how large the program is, how fast it joins.

use std::time::Duration;

use anyhow::Result;

use crate::baseline::{Baseline, Served};
use crate::bench::Bench;
use crate::meter;
use crate::plane::{Agent, Server};
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, millis};

const MIB: f64 = 1_048_576.0;

pub(super) fn memory(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let agent = Agent::start(bench, &server.url)?;
    std::thread::sleep(bench.sized(Duration::from_secs(3), Duration::from_secs(12)));
    let measured = figure(meter::rss_mib(agent.id())?, "MiB");
    Ok(vec![Line::new(
        "A1",
        "agent RSS, idle",
        Nature::Memory,
        measured,
        Bound::AtMost(12.0),
    )])
}

/// Against the baseline server, which asks for a beat every 5 seconds.
pub(super) fn idle(bench: &Bench) -> Result<Vec<Line>> {
    let server = Served::start(bench, Baseline::Stream)?;
    let agent = Agent::start(bench, &server.url)?;
    // Joining is not idling.
    std::thread::sleep(Duration::from_secs(2));
    let span = bench.sized(Duration::from_secs(5), Duration::from_secs(60));
    let before = meter::cpu(agent.id())?;
    std::thread::sleep(span);
    let used = meter::cpu(agent.id())? - before;
    let percent = figure(
        100.0 * used.as_secs_f64() / span.as_secs_f64(),
        "% of a core",
    );
    let what = "agent CPU, idle, a beat every 5 s";
    let note = format!("{:.1} ms in {} s", millis(used), span.as_secs());
    Ok(vec![
        Line::new("A2", what, Nature::Speed, percent, Bound::AtMost(0.1)).note(note),
    ])
}

pub(super) fn size(bench: &Bench) -> Result<Vec<Line>> {
    let bytes = bench.hostler.metadata()?.len();
    let measured = figure(bytes as f64 / MIB, "MiB");
    Ok(vec![Line::new(
        "A3",
        "binary, stripped",
        Nature::Memory,
        measured,
        Bound::AtMost(25.0),
    )])
}

pub(super) fn registered(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let mut took = Samples::default();
    for _ in 0..bench.sized(2, 9) {
        took.add(Agent::start(bench, &server.url)?.joined_after);
    }
    let measured = figure(millis(took.median()), "ms");
    let costs = millis(bench.costs.fsync + bench.costs.fork_exec);
    let line = Line::new(
        "A4",
        "agent exec to registered, p50",
        Nature::Speed,
        measured,
        Bound::AtMost(60.0),
    );
    Ok(vec![line.against(costs).note(
        "first start, empty directory; the baseline is one fsync and one fork+exec",
    )])
}

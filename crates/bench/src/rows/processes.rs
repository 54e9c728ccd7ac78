//! R1, R2, R4 and R5: real processes through a server and an agent in processes of their own.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::client_runtime;
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::meter::{self, Id};
use crate::plane::{self, Agent, Server};
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, millis};
use crate::spawned;

const ONE_MS: f64 = 25.0;
const TWENTY_MS: f64 = 150.0;
const AGAIN_MS: f64 = 100.0;
const SHIM_MIB: f64 = 1.5;
const MANY: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn one(bench: &Bench) -> Result<Vec<Line>> {
    let took = up_and_down(bench, 1, bench.sized(3, 30))?;
    let costs = bench.costs;
    let priced = millis(3 * costs.fsync + 5 * costs.fork_exec);
    let measured = figure(millis(took.median()), "ms");
    let note = format!(
        "best {:.1} ms, worst {:.1} ms",
        millis(took.best()),
        millis(took.worst())
    );
    Ok(vec![
        Line::new(
            "R1",
            "apply to running, 1 process, p50",
            Nature::Speed,
            measured,
            Bound::AtMost(ONE_MS.max(priced)),
        )
        .against(priced)
        .target("≤ 25 ms, or 3 fsyncs + 5 fork+execs if that is more")
        .note(note),
    ])
}

pub(super) fn twenty(bench: &Bench) -> Result<Vec<Line>> {
    let took = up_and_down(bench, MANY, bench.sized(1, 7))?;
    let measured = figure(millis(took.median()), "ms");
    let note = format!(
        "best {:.1} ms, worst {:.1} ms",
        millis(took.best()),
        millis(took.worst())
    );
    let line = Line::new(
        "R2",
        "apply to running, 20 processes, p50",
        Nature::Speed,
        measured,
        Bound::AtMost(TWENTY_MS),
    );
    Ok(vec![
        line.against(millis(MANY * bench.costs.fork_exec))
            .note(note + "; the baseline is 20 fork+execs"),
    ])
}

pub(super) fn killed(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let agent = Agent::start(bench, &server.url)?;
    let mut took = Samples::default();
    cores::on(Core::Client, || {
        client_runtime()?.block_on(async {
            let client = server.client()?;
            for round in 0..bench.sized(2, 15) {
                let name = format!("again{round}");
                plane::run_up(&client, &name, &sleeper(&name, 1, round), 1).await?;
                let before = sleeping(&agent, round).context("the process is there")?;
                let begun = Instant::now();
                spawned::signal(before, Signal::KILL);
                while sleeping(&agent, round).is_none_or(|now| now == before) {
                    ensure!(begun.elapsed() < PATIENCE, "the process does not come back");
                    std::thread::sleep(Duration::from_micros(500));
                }
                took.add(begun.elapsed());
                plane::take_down(&client, &name).await?;
            }
            Ok(())
        })
    })?;
    let measured = figure(millis(took.median()), "ms");
    let line = Line::new(
        "R4",
        "killed to running again, p50",
        Nature::Speed,
        measured,
        Bound::AtMost(AGAIN_MS),
    );
    let note = format!(
        "best {:.1} ms, worst {:.1} ms; the baseline is one fork+exec",
        millis(took.best()),
        millis(took.worst())
    );
    Ok(vec![line.against(millis(bench.costs.fork_exec)).note(note)])
}

pub(super) fn shim(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let agent = Agent::start(bench, &server.url)?;
    let (alone, among) = cores::on(Core::Client, || {
        client_runtime()?.block_on(async {
            let client = server.client()?;
            plane::run_up(&client, "alone", &sleeper("alone", 1, 0), 1).await?;
            let alone = largest(&agent)?;
            plane::run_up(&client, "many", &sleeper("many", MANY, 1), MANY).await?;
            let among = largest(&agent)?;
            plane::take_down(&client, "many").await?;
            plane::take_down(&client, "alone").await?;
            Ok((alone, among))
        })
    })?;
    let line = |what: &str, value| {
        Line::new(
            "R5",
            what,
            Nature::Memory,
            figure(value, "MiB"),
            Bound::AtMost(SHIM_MIB),
        )
    };
    Ok(vec![
        line("PSS of a shim, the only one", alone),
        line("PSS of a shim, largest of 21", among),
    ])
}

/// Applies and deletes a workload again and again; each time from apply to all running over the API.
fn up_and_down(bench: &Bench, count: u32, rounds: usize) -> Result<Samples> {
    let server = Server::start(bench)?;
    let _agent = Agent::start(bench, &server.url)?;
    cores::on(Core::Client, || {
        client_runtime()?.block_on(async {
            let client = server.client()?;
            let mut took = Samples::default();
            for round in 0..rounds {
                let name = format!("up{round}");
                took.add(
                    plane::run_up(&client, &name, &sleeper(&name, count, round), count).await?,
                );
                plane::take_down(&client, &name).await?;
            }
            Ok(took)
        })
    })
}

fn sleeper(name: &str, count: u32, round: usize) -> String {
    format!(
        "name: {name}\ncount: {count}\nprocess: {{ command: [/bin/sleep, \"{}\"] }}\nstop: {{ grace_ms: 2000 }}\n",
        seconds(round)
    )
}

/// Tells the processes of one round from those of another.
const fn seconds(round: usize) -> usize {
    7_000 + round
}

/// The process of a round, below one of the agent's shims.
fn sleeping(agent: &Agent, round: usize) -> Option<Id> {
    let line = format!("/bin/sleep {}", seconds(round));
    let below: Vec<Id> = agent
        .shims()
        .into_iter()
        .flat_map(meter::children)
        .collect();
    meter::find(|found| found == line)
        .into_iter()
        .find(|id| below.contains(id))
}

fn largest(agent: &Agent) -> Result<f64> {
    let sizes: Result<Vec<f64>> = agent.shims().into_iter().map(meter::pss_mib).collect();
    sizes?
        .into_iter()
        .reduce(f64::max)
        .context("there is no shim")
}

//! R3: containers through the fleet against bare `docker run -d` of as many, in the same minute.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostler_wire::client::Client;

use super::client_runtime;
use crate::bench::Bench;
use crate::plane::{self, Agent, Server};
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, millis};

const WHAT: &str = "apply to running, containers";
const IMAGE: &str = "busybox:local";
const SHARE: f64 = 1.15;
/// How many containers, and how often: a hundred take their time.
const COUNTS: [(u32, usize); 3] = [(1, 7), (20, 3), (100, 2)];
/// How many `docker run` go at once; the fastest is the baseline.
const PARALLEL: [usize; 4] = [1, 4, 10, 20];

/// Bare containers; removed when dropped.
struct Bare<'a> {
    docker: &'a str,
    ids: Vec<String>,
}

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let Some(docker) = bench.docker.as_deref() else {
        let why = "no Docker engine: give one with --docker unix://PATH";
        return Ok(vec![Line::left_out("R3", WHAT, why)]);
    };
    let server = Server::start(bench)?;
    let _agent = Agent::start_with(bench, &server.url, docker)?;
    let client = server.client()?;
    let mut lines = Vec::new();
    for (count, rounds) in COUNTS {
        lines.push(line(&client, docker, count, bench.sized(1, rounds))?);
    }
    Ok(lines)
}

fn line(client: &Client, docker: &str, count: u32, rounds: usize) -> Result<Line> {
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    let mut fastest = 0;
    for round in 0..rounds {
        ours.add(through_the_fleet(client, count, round)?);
        let sensible = PARALLEL
            .into_iter()
            .filter(|parallel| *parallel <= count as usize);
        for parallel in sensible {
            let took = Bare::run(docker, count, parallel)?;
            if bare.best().is_zero() || took < bare.best() {
                fastest = parallel;
            }
            bare.add(took);
        }
    }
    // Best against best: engines are noisy, and both had the same chances.
    let (ours, bare) = (millis(ours.best()), millis(bare.best()));
    let what = format!("apply to running, {count} of {IMAGE}");
    Ok(Line::new(
        "R3",
        what,
        Nature::Speed,
        figure(ours, "ms"),
        Bound::AtMost(SHARE * bare),
    )
    .against(bare)
    .target("≤ 1.15 × bare docker run -d")
    .note(format!(
        "bare: fastest with {fastest} at once; best of {rounds}"
    )))
}

fn through_the_fleet(client: &Client, count: u32, round: usize) -> Result<Duration> {
    let name = format!("box{count}-{round}");
    let spec = format!(
        "name: {name}\ncount: {count}\ncontainer: {{ image: {IMAGE}, command: [sleep, \"7000\"], pull: never }}\nstop: {{ grace_ms: 100 }}\n"
    );
    client_runtime()?.block_on(async {
        let took = plane::run_up(client, &name, &spec, count).await?;
        plane::take_down(client, &name).await?;
        Ok(took)
    })
}

impl<'a> Bare<'a> {
    /// Runs so many, as many at once, and removes them again.
    fn run(docker: &'a str, count: u32, parallel: usize) -> Result<Duration> {
        let mut bare = Self {
            docker,
            ids: Vec::new(),
        };
        let begun = Instant::now();
        let mut left = count as usize;
        while left > 0 {
            let wave = left.min(parallel);
            let running: Result<Vec<_>> = (0..wave).map(|_| bare.start()).collect();
            for child in running? {
                let output = child.wait_with_output()?;
                ensure!(output.status.success(), "docker run: {}", output.status);
                bare.ids
                    .push(String::from_utf8(output.stdout)?.trim().to_owned());
            }
            left -= wave;
        }
        Ok(begun.elapsed())
    }

    fn start(&self) -> Result<std::process::Child> {
        let mut command = self.docker();
        command
            .args(["run", "-d", IMAGE, "sleep", "7000"])
            .stdout(Stdio::piped());
        command.spawn().context("run docker")
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", self.docker]).stdin(Stdio::null());
        command
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        if !self.ids.is_empty() {
            // Whatever it answers, there is nothing more to be done about it.
            let _ = self
                .docker()
                .args(["rm", "-f"])
                .args(&self.ids)
                .stdout(Stdio::null())
                .status();
        }
    }
}

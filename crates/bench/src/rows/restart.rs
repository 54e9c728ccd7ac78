//! C7: a server that starts on a full store: from exec to the first good `/readyz`, and its memory then.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostler_model::{Bytes, MilliCpu, Resources};

use super::fleet::Plane;
use super::plane_runtime;
use crate::bench::Bench;
use crate::meter;
use crate::plane::Server;
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::Samples;

const EACH: Resources = Resources {
    cpu: MilliCpu(100),
    memory: Bytes(64 << 20),
    disk: Bytes(0),
};
const COPIES: u32 = 1_000;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let (nodes, workloads) = bench.sized((1_000, 10), (10_000, 100));
    let folder = bench.scratch()?;
    fill(folder.path(), nodes, workloads)?;
    let mut ready = Samples::default();
    let mut memory: f64 = 0.0;
    for _ in 0..bench.sized(1, ROUNDS) {
        let server = Server::start_on(bench, folder.path().to_owned())?;
        ready.add(first_ready(&server)?);
        memory = memory.max(meter::rss_mib(server.process.id())?);
    }
    let full = format!("{nodes} nodes and {} copies", workloads * COPIES);
    let ready = figure(ready.best().as_secs_f64(), "s");
    Ok(vec![
        Line::new(
            "C7",
            format!("exec to ready, {full}"),
            Nature::Speed,
            ready,
            Bound::AtMost(1.5),
        ),
        Line::new(
            "C7",
            "its RSS when ready",
            Nature::Memory,
            figure(memory, "MiB"),
            Bound::AtMost(250.0),
        ),
    ])
}

fn fill(data: &Path, nodes: usize, workloads: u32) -> Result<()> {
    plane_runtime()?.block_on(async {
        let plane = Plane::start(Some(data)).await?;
        let joined = plane.join(nodes).await?;
        for number in 0..workloads {
            let workload = plane.apply(&format!("w{number}"), COPIES, EACH).await?;
            plane.placed(workload).await?;
        }
        let placed = plane.control.view().assignments().count();
        ensure!(
            placed == (workloads * COPIES) as usize,
            "{placed} copies were placed"
        );
        // Ended first, so that the broken connections suspect nobody.
        plane.end().await?;
        drop(joined);
        Ok(())
    })
}

/// From exec to the first good answer.
fn first_ready(server: &Server) -> Result<Duration> {
    let addr = server
        .url
        .strip_prefix("http://")
        .context("the address is plain")?;
    while server.process.begun.elapsed() < PATIENCE {
        if is_ready(addr).unwrap_or(false) {
            return Ok(server.process.begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    anyhow::bail!("the server is not ready after {PATIENCE:?}")
}

fn is_ready(addr: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let begun = Instant::now();
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(begun.elapsed() < PATIENCE, "no answer");
    Ok(answer.starts_with("HTTP/1.1 200"))
}

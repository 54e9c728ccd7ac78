//! C4: how fast copies are placed and on the disk, from the apply until the committed state shows them all.
//! The control plane and its nodes are in this process, on all cores.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use hostler_control::fake::{FakeMachine, FakeNode};
use hostler_model::{Bytes, MilliCpu, Resources};

use super::fleet::Plane;
use super::plane_runtime;
use crate::bench::{Bench, Length};
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::Samples;

const EACH: Resources = Resources {
    cpu: MilliCpu(10),
    memory: Bytes(16 << 20),
    disk: Bytes(0),
};
const NODES: usize = 1_000;
const COPIES: u32 = 5_000;
const ROUNDS: usize = 7;

/// The published case of two million.
const MANY_NODES: usize = 6_100;
const MANY_WORKLOADS: u32 = 400;
const MANY_COPIES: u32 = 5_000;

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let mut lines = vec![one_workload(bench)?];
    if bench.length < Length::Long {
        let why = "takes minutes and gigabytes: add --long";
        lines.push(Line::left_out(
            "C4",
            "2 million copies over 6,100 nodes",
            why,
        ));
        return Ok(lines);
    }
    let folder = bench.scratch()?;
    for (name, data, limit) in [
        ("durable", Some(folder.path()), 60.0),
        ("in memory", None, 20.0),
    ] {
        let took = two_million(data)?;
        let what = format!("2 million copies over {MANY_NODES} nodes, {name}");
        let bound = Bound::AtMost(limit);
        lines.push(Line::new(
            "C4",
            what,
            Nature::Speed,
            figure(took.as_secs_f64(), "s"),
            bound,
        ));
    }
    Ok(lines)
}

fn one_workload(bench: &Bench) -> Result<Line> {
    let folder = bench.scratch()?;
    let took = plane_runtime()?.block_on(async {
        let plane = Plane::start(Some(folder.path())).await?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let machine = FakeMachine::named(&format!("n{number}"));
            nodes.push(
                FakeNode::join(&plane.control, machine)
                    .await
                    .map_err(refused)?,
            );
        }
        let mut took = Samples::default();
        for round in 0..bench.sized(1, ROUNDS) {
            let begun = Instant::now();
            let workload = plane.apply(&format!("w{round}"), COPIES, EACH).await?;
            plane.placed(workload).await?;
            took.add(begun.elapsed());
            // The nodes follow before the next round begins.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        drop(nodes);
        plane.end().await?;
        anyhow::Ok(took)
    })?;
    let rate = |span: Duration| f64::from(COPIES) / span.as_secs_f64();
    let what = format!("durable placements, count {COPIES}, {NODES} nodes that obey");
    let measured = figure(rate(took.best()), "/s");
    Ok(Line::new(
        "C4",
        what,
        Nature::Speed,
        measured,
        Bound::AtLeast(60_000.0),
    )
    .note(format!(
        "best of {ROUNDS}; median {:.0}/s",
        rate(took.median())
    )))
}

fn two_million(data: Option<&Path>) -> Result<Duration> {
    plane_runtime()?.block_on(async {
        let plane = Plane::start(data).await?;
        let nodes = plane.join(MANY_NODES).await?;
        let begun = Instant::now();
        let mut workloads = Vec::new();
        for number in 0..MANY_WORKLOADS {
            workloads.push(
                plane
                    .apply(&format!("w{number}"), MANY_COPIES, EACH)
                    .await?,
            );
        }
        for workload in workloads {
            plane.placed(workload).await?;
        }
        let took = begun.elapsed();
        drop(nodes);
        plane.end().await?;
        Ok(took)
    })
}

fn refused(refusal: hostler_model::Refusal) -> anyhow::Error {
    anyhow::anyhow!("refused: {refusal:?}")
}

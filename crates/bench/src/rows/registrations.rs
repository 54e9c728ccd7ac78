//! C6: how many nodes register a second, each durable before it is answered, many at once.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::fleet::Plane;
use super::plane_runtime;
use crate::bench::Bench;
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::Samples;

const ROUNDS: usize = 3;

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let count = bench.sized(2_000, 20_000);
    let mut took = Samples::default();
    for _ in 0..bench.sized(1, ROUNDS) {
        let folder = bench.scratch()?;
        took.add(plane_runtime()?.block_on(async {
            let plane = Plane::start(Some(folder.path())).await?;
            let begun = Instant::now();
            plane.register(0..count).await?;
            let took = begun.elapsed();
            plane.end().await?;
            anyhow::Ok(took)
        })?);
    }
    let rate = |span: Duration| count as f64 / span.as_secs_f64();
    let one_by_one = 1.0 / bench.costs.fsync.as_secs_f64();
    let measured = figure(rate(took.best()), "/s");
    Ok(vec![
        Line::new(
            "C6",
            "durable registrations",
            Nature::Speed,
            measured,
            Bound::AtLeast(10_000.0),
        )
        .against(one_by_one)
        .note(format!("{count} nodes; the baseline is one fsync each")),
    ])
}

//! C5: how many nodes packing uses on generated fleets. A count: the same on every machine.

use anyhow::Result;
use hostler_fleet::quality::Used;

use crate::bench::Bench;
use crate::report::{Bound, Line, Nature, figure};

const UNIT: &str = "nodes";

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let seeds = bench.sized(5, 50);
    let used = Used::over(1..=seeds);
    let ours = used.ours as f64;
    let offline = used.first_fit_decreasing() as f64;
    let what = format!("nodes used by pack, fleets of seeds 1 to {seeds}");
    let gap = 100.0 * (ours / used.bound - 1.0);
    let line = Line::new(
        "C5",
        what,
        Nature::Count,
        figure(ours, UNIT),
        Bound::AtMost(offline),
    );
    Ok(vec![
        line.against(offline)
            .target("≤ the best offline first-fit-decreasing")
            .note(format!(
                "{gap:.1} % over the linear bound of {:.0}",
                used.bound
            )),
    ])
}

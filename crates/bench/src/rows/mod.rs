//! The rows, in the order of the targets. Each measures one thing and owns nothing when it returns.

mod agent;
mod beats;
mod containers;
mod fleet;
mod idle;
mod logs;
mod memory;
mod mutation;
mod placements;
mod polls;
mod processes;
mod quality;
mod registrations;
mod restart;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use crate::bench::Bench;
use crate::report::Line;

/// One row.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Line>>,
}

pub(crate) const ROWS: [Row; 19] = [
    Row {
        id: "C1",
        what: "processor time per beat",
        run: beats::row,
    },
    Row {
        id: "C2",
        what: "processor time per REST beat",
        run: polls::row,
    },
    Row {
        id: "C3",
        what: "memory of idle connections",
        run: idle::row,
    },
    Row {
        id: "C4",
        what: "durable placements",
        run: placements::row,
    },
    Row {
        id: "C5",
        what: "placement quality",
        run: quality::row,
    },
    Row {
        id: "C6",
        what: "durable registrations",
        run: registrations::row,
    },
    Row {
        id: "C7",
        what: "restart with a full store",
        run: restart::row,
    },
    Row {
        id: "C8",
        what: "memory of the server",
        run: memory::row,
    },
    Row {
        id: "C9",
        what: "latency of a mutation",
        run: mutation::row,
    },
    Row {
        id: "R1",
        what: "apply to running, one process",
        run: processes::one,
    },
    Row {
        id: "R2",
        what: "apply to running, 20 processes",
        run: processes::twenty,
    },
    Row {
        id: "R3",
        what: "apply to running, containers",
        run: containers::row,
    },
    Row {
        id: "R4",
        what: "killed to running again",
        run: processes::killed,
    },
    Row {
        id: "R5",
        what: "memory of a shim",
        run: processes::shim,
    },
    Row {
        id: "R6",
        what: "a log line to its follower",
        run: logs::row,
    },
    Row {
        id: "A1",
        what: "memory of an idle agent",
        run: agent::memory,
    },
    Row {
        id: "A2",
        what: "processor time of an idle agent",
        run: agent::idle,
    },
    Row {
        id: "A3",
        what: "size of the binary",
        run: agent::size,
    },
    Row {
        id: "A4",
        what: "start of an agent to registered",
        run: agent::registered,
    },
];

/// The rows of these names; all if none is named.
pub(crate) fn chosen(ids: &[String]) -> Result<Vec<&'static Row>> {
    if ids.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |id: &String| {
        let row = ROWS.iter().find(|row| row.id.eq_ignore_ascii_case(id));
        let known = || ROWS.map(|row| row.id).join(", ");
        row.with_context(|| format!("there is no row `{id}`; there are {}", known()))
    };
    ids.iter().map(find).collect()
}

/// For clients: one thread, so that what they cost stays on their core.
fn client_runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// For a control plane inside the harness, as the server has it.
fn plane_runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

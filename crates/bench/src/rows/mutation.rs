//! C9: apply over REST until it is durable and answered, one client, against a bare fsync of as many bytes
//! in between.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hostler_wire::api::ApplyQuery;
use hostler_wire::client::{Client, Expect};

use super::client_runtime;
use crate::baseline::{Baseline, Served};
use crate::bench::Bench;
use crate::cores::{self, Core};
use crate::costs::Appender;
use crate::plane::Server;
use crate::report::{Bound, Line, Nature, figure};
use crate::samples::{Samples, millis};

/// Few enough that the journal is not folded meanwhile: its growth tells what one apply writes.
const PROBES: usize = 20;
const ROUNDS: usize = 300;
const SHARE: f64 = 1.5;
const ALLOWANCE_MS: f64 = 1.0;

struct Seen {
    ours: Samples,
    fsync: Samples,
    wire: Samples,
    bytes: usize,
}

pub(super) fn row(bench: &Bench) -> Result<Vec<Line>> {
    let server = Server::start(bench)?;
    let wire = Served::start(bench, Baseline::Http)?;
    let rounds = bench.sized(30, ROUNDS);
    let seen = cores::on(Core::Client, || {
        client_runtime()?.block_on(measure(&server, &wire.url, bench, rounds))
    })?;
    let fsync = millis(seen.fsync.median());
    let limit = Bound::AtMost(SHARE * fsync + ALLOWANCE_MS);
    let measured = figure(millis(seen.ours.median()), "ms");
    let note = format!(
        "{} bytes each; a trivial axum handler answers in {:.2} ms",
        seen.bytes,
        millis(seen.wire.median())
    );
    Ok(vec![
        Line::new(
            "C9",
            "apply, p50, one client",
            Nature::Speed,
            measured,
            limit,
        )
        .against(fsync)
        .target("≤ 1.5 × a bare fsync + 1 ms")
        .note(note),
    ])
}

async fn measure(server: &Server, wire: &str, bench: &Bench, rounds: usize) -> Result<Seen> {
    let client = server.client()?;
    let before = journal(&server.data)?;
    for round in 0..PROBES {
        apply(&client, round).await?;
    }
    let grown = journal(&server.data)?.saturating_sub(before);
    let bytes = usize::try_from(grown)? / PROBES;
    let folder = bench.scratch()?;
    let mut appender = Appender::new(folder.path(), bytes.max(1))?;
    let trivial = Client::new(wire, None)?;
    let [mut ours, mut fsync, mut other] = std::array::from_fn(|_| Samples::default());
    for round in PROBES..PROBES + rounds {
        ours.add(apply(&client, round).await?);
        fsync.add(appender.append()?);
        // Not this API: the client does not understand the answer, but it came.
        let begun = Instant::now();
        let _ = trivial.version().await;
        other.add(begun.elapsed());
    }
    Ok(Seen {
        ours,
        fsync,
        wire: other,
        bytes,
    })
}

/// Each is a change: the count of one of a few workloads.
async fn apply(client: &Client, round: usize) -> Result<Duration> {
    let spec = format!(
        "name: w{}\ncount: 0\nprocess: {{ command: [sleep, \"{}\"] }}\n",
        round % 10,
        1000 + round
    );
    let begun = Instant::now();
    client
        .apply(spec, ApplyQuery::default(), Expect::Any)
        .await?;
    Ok(begun.elapsed())
}

fn journal(data: &Path) -> Result<u64> {
    let path = data.join("hostler.db-wal");
    Ok(path
        .metadata()
        .with_context(|| format!("look at {}", path.display()))?
        .len())
}

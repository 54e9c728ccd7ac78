//! The two sample workloads of `up --demo`, and how they are shown.

use std::time::Duration;

use futures::StreamExt as _;
use hostler_wire::api::{ApplyQuery, LogQuery};
use hostler_wire::client::Expect;

use super::wait::{Goal, Target};
use super::{ps, up::Up, wait};
use crate::failure::Failure;

const TICKER: &str = include_str!("../../demo/ticker.yaml");
const WEB: &str = include_str!("../../demo/web.yaml");
/// The image of the container, and one that test machines have without a registry.
const IMAGE: &str = "busybox:1";
const LOCAL_IMAGE: &str = "busybox:local";

/// A process needs a moment, an image a download.
const PROCESS_WAIT: Duration = Duration::from_secs(30);
const IMAGE_WAIT: Duration = Duration::from_secs(90);
/// How many log lines are shown, and how long they may take to be written.
const LINES: usize = 3;
const LINES_WAIT: Duration = Duration::from_secs(10);
const ENGINE_WAIT: Duration = Duration::from_secs(10);

/// Runs the samples, waits for them, and shows the table and the first log lines.
pub(crate) async fn show(up: &Up<'_>) -> Result<(), Failure> {
    let remote = &up.remote;
    let ticker = apply(up, TICKER).await?;
    wait::wait(remote, std::slice::from_ref(&ticker), PROCESS_WAIT).await?;
    show_container(up).await?;
    let workloads = remote.client.workloads().await?;
    remote.printer.data("");
    ps::table(remote, &workloads, false);
    remote.printer.data("");
    show_lines(up, &ticker.id).await
}

async fn apply(up: &Up<'_>, text: &str) -> Result<Target, Failure> {
    let results = up
        .remote
        .client
        .apply(text, ApplyQuery::default(), Expect::Any)
        .await?;
    let first = results.into_iter().next();
    let result = first.ok_or_else(|| Failure::failed("the server applied nothing", "try again"))?;
    if !result.changed {
        // Somebody may have stopped it since.
        up.remote.client.start(&result.id, Expect::Any).await?;
    }
    Ok(Target {
        id: result.id,
        name: result.name,
        goal: Goal::Running,
        revision: None,
    })
}

async fn show_container(up: &Up<'_>) -> Result<(), Failure> {
    let printer = up.remote.printer;
    if !up.has_engine() {
        return Ok(());
    }
    let has_local = tokio::time::timeout(ENGINE_WAIT, up.agent.has_image(LOCAL_IMAGE)).await;
    let image = if has_local == Ok(true) {
        LOCAL_IMAGE
    } else {
        IMAGE
    };
    let target = apply(up, &WEB.replace(IMAGE, image)).await?;
    if let Err(failure) = wait::wait(&up.remote, std::slice::from_ref(&target), IMAGE_WAIT).await {
        printer.talk(&format!(
            "the sample container does not run: {}",
            failure.sentence
        ));
    }
    Ok(())
}

async fn show_lines(up: &Up<'_>, workload: &str) -> Result<(), Failure> {
    let query = LogQuery {
        tail: Some(LINES as u64),
        follow: true,
        ..LogQuery::default()
    };
    let mut lines = up.remote.client.logs(workload, &query).await?.take(LINES);
    let shown = async {
        while let Some(line) = lines.next().await {
            up.remote.printer.data(&line?.text);
        }
        Ok(())
    };
    tokio::time::timeout(LINES_WAIT, shown)
        .await
        .unwrap_or(Ok(()))
}

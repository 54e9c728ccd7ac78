//! `stop`, `start`, `restart`: what is wanted of workloads that exist.

use std::time::Duration;

use hostler_wire::client::Expect;

use super::wait::{Goal, Target};
use super::{Remote, wait};
use crate::args::{RestartArgs, StartArgs, StopArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn stop(remote: &Remote<'_>, args: StopArgs) -> Result<ExitStatus, Failure> {
    let mut targets = Vec::new();
    for name in &args.workloads {
        let workload = remote.client.stop(name, Expect::Any).await?;
        targets.push(Target {
            id: workload.id,
            name: workload.name,
            goal: Goal::Stopped,
            revision: None,
        });
    }
    finish(remote, targets, settings::wait(&args.wait), "is to stop").await
}

pub(crate) async fn start(remote: &Remote<'_>, args: StartArgs) -> Result<ExitStatus, Failure> {
    let mut targets = Vec::new();
    for name in &args.workloads {
        let workload = remote.client.start(name, Expect::Any).await?;
        targets.push(Target {
            id: workload.id,
            name: workload.name,
            goal: Goal::Running,
            revision: None,
        });
    }
    finish(remote, targets, settings::wait(&args.wait), "is to run").await
}

pub(crate) async fn restart(remote: &Remote<'_>, args: RestartArgs) -> Result<ExitStatus, Failure> {
    let mut targets = Vec::new();
    for name in &args.workloads {
        let workload = remote.client.restart(name, Expect::Any).await?;
        targets.push(Target {
            id: workload.id,
            name: workload.name,
            goal: Goal::Running,
            revision: None,
        });
    }
    finish(
        remote,
        targets,
        settings::wait(&args.wait),
        "is to start anew",
    )
    .await
}

async fn finish(
    remote: &Remote<'_>,
    targets: Vec<Target>,
    most: Option<Duration>,
    said: &str,
) -> Result<ExitStatus, Failure> {
    match most {
        Some(most) => wait::wait(remote, &targets, most).await?,
        None => targets
            .iter()
            .for_each(|target| remote.printer.talk(&format!("{} {said}", target.name))),
    }
    Ok(ExitStatus::Done)
}

//! `rollback`, `promote`: what a person decides about a rollout.

use hostler_wire::api::{RollbackQuery, Workload};
use hostler_wire::client::Expect;

use super::wait::{Goal, Target};
use super::{Remote, wait};
use crate::args::{PromoteArgs, RollbackArgs, WaitArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn rollback(
    remote: &Remote<'_>,
    args: RollbackArgs,
) -> Result<ExitStatus, Failure> {
    let before = remote.client.workload(&args.workload).await?;
    let query = RollbackQuery { to: args.to };
    let after = remote
        .client
        .rollback(&before.id, query, Expect::Revision(before.revision))
        .await?;
    let said = match &after.note {
        Some(note) if after.revision != before.revision => {
            format!("{} {note}, revision {}", after.name, after.revision)
        }
        _ => format!("{} is so already, revision {}", after.name, after.revision),
    };
    remote.printer.data(&said);
    finish(remote, after, &args.wait).await
}

pub(crate) async fn promote(remote: &Remote<'_>, args: PromoteArgs) -> Result<ExitStatus, Failure> {
    let after = remote.client.promote(&args.workload, Expect::Any).await?;
    remote.printer.data(&format!(
        "{} promoted, revision {}",
        after.name, after.revision
    ));
    finish(remote, after, &args.wait).await
}

async fn finish(
    remote: &Remote<'_>,
    workload: Workload,
    waiting: &WaitArgs,
) -> Result<ExitStatus, Failure> {
    if let Some(most) = settings::wait(waiting) {
        let target = Target {
            id: workload.id,
            name: workload.name,
            goal: Goal::Running,
            revision: Some(workload.revision),
        };
        wait::wait(remote, &[target], most).await?;
    }
    Ok(ExitStatus::Done)
}

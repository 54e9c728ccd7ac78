//! `show`: one workload with its copies, its history and what is missing.

use hostler_wire::api::{Revision, Workload};

use super::ps::{copies_of, copies_table};
use super::wait::reasons;
use super::{Remote, word};
use crate::age;
use crate::args::{OutputForm, ShowArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

/// How many steps of the history a person sees.
const STEPS: usize = 5;

pub(crate) async fn show(remote: &Remote<'_>, args: ShowArgs) -> Result<ExitStatus, Failure> {
    let workload = remote.client.workload(&args.workload).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &workload)?,
        OutputForm::Name => remote.printer.data(&workload.name),
        OutputForm::Table | OutputForm::Wide => {
            let history = remote.client.history(&workload.id).await?;
            page(remote, &workload, &history)?;
            let copies = copies_of(remote, &workload).await?;
            copies_table(remote, &copies, Some(&workload), false);
            let reasons = reasons(&remote.client.why(&workload.id).await?);
            if !reasons.is_empty() {
                remote.printer.data("\nmissing:");
                reasons
                    .iter()
                    .for_each(|line| remote.printer.data(&format!("  {line}")));
            }
        }
    }
    Ok(ExitStatus::Done)
}

fn page(remote: &Remote<'_>, workload: &Workload, history: &[Revision]) -> Result<(), Failure> {
    let printer = remote.printer;
    let now = remote.now();
    let lines = [
        ("name", workload.name.clone()),
        ("id", workload.id.clone()),
        ("kind", workload.kind.clone()),
        (
            "wanted",
            format!("{}, {}", word(&workload.desired), copies(workload.count)),
        ),
        (
            "status",
            format!(
                "{}, {} running, {} pending",
                word(&workload.status),
                workload.running,
                workload.pending
            ),
        ),
        (
            "revision",
            with_note(workload.revision, workload.note.as_ref()),
        ),
        (
            "created",
            format!(
                "{} ({} ago)",
                workload.created_at,
                age::since(&workload.created_at, now)
            ),
        ),
    ];
    let rollout = workload.rollout.as_ref();
    let rollout = rollout.map(|rollout| ("rollout", rollout.summary.clone()));
    for (key, value) in lines.into_iter().chain(rollout) {
        printer.data(&format!("{key:<10}{value}"));
    }
    printer.data("\nspec:");
    printer.document(OutputForm::Yaml, &workload.spec)?;
    printer.data("\nhistory:");
    for step in history.iter().take(STEPS) {
        let line = format!(
            "  {:<4}{}  {}  {}",
            step.revision,
            step.at,
            word(&step.desired),
            step.actor
        );
        printer.data(&line);
    }
    printer.data("");
    Ok(())
}

/// `4: rolled back to revision 2`.
fn with_note(revision: u64, note: Option<&String>) -> String {
    note.map_or_else(
        || revision.to_string(),
        |note| format!("{revision}: {note}"),
    )
}

fn copies(count: u32) -> String {
    if count == 1 {
        "1 copy".to_owned()
    } else {
        format!("{count} copies")
    }
}

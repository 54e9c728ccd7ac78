//! `ps`: workloads, or the copies of one.

use hostler_wire::api::{Assignment, Workload};

use super::wait::standing;
use super::{Remote, word};
use crate::age;
use crate::args::{OutputForm, PsArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::{self, Table};

pub(crate) async fn ps(remote: &Remote<'_>, args: PsArgs) -> Result<ExitStatus, Failure> {
    let form = settings::form(&args.output);
    match &args.workload {
        None => workloads(remote, form).await?,
        Some(target) => {
            let workload = remote.client.workload(target).await?;
            copies(remote, form, &workload.copies.unwrap_or_default())?;
        }
    }
    Ok(ExitStatus::Done)
}

async fn workloads(remote: &Remote<'_>, form: OutputForm) -> Result<(), Failure> {
    let mut workloads = remote.client.workloads().await?;
    workloads.sort_by(|a, b| a.name.cmp(&b.name));
    match form {
        OutputForm::Json | OutputForm::Yaml => remote.printer.document(form, &workloads)?,
        OutputForm::Name => workloads
            .iter()
            .for_each(|workload| remote.printer.data(&workload.name)),
        OutputForm::Table | OutputForm::Wide => table(remote, &workloads, form == OutputForm::Wide),
    }
    Ok(())
}

/// The table of workloads.
pub(crate) fn table(remote: &Remote<'_>, workloads: &[Workload], is_wide: bool) {
    let mut head = vec!["NAME", "KIND", "STATUS", "COPIES", "REVISION", "AGE"];
    if is_wide {
        head.extend(["PENDING", "ID"]);
    }
    let mut table = Table::new(&head);
    for workload in workloads {
        let mut row = vec![
            workload.name.clone().into(),
            workload.kind.clone().into(),
            table::state(&word(&workload.status)),
            format!("{}/{}", workload.running, workload.count).into(),
            workload.revision.to_string().into(),
            age::since(&workload.created_at, remote.now()).into(),
        ];
        if is_wide {
            row.extend([
                workload.pending.to_string().into(),
                workload.id.clone().into(),
            ]);
        }
        table.row(row);
    }
    table.print(remote.printer);
}

fn copies(remote: &Remote<'_>, form: OutputForm, copies: &[Assignment]) -> Result<(), Failure> {
    match form {
        OutputForm::Json | OutputForm::Yaml => remote.printer.document(form, &copies)?,
        OutputForm::Name => copies
            .iter()
            .for_each(|copy| remote.printer.data(&copy.short)),
        OutputForm::Table | OutputForm::Wide => {
            copies_table(remote, copies, form == OutputForm::Wide)
        }
    }
    Ok(())
}

/// The table of copies.
pub(crate) fn copies_table(remote: &Remote<'_>, copies: &[Assignment], is_wide: bool) {
    let mut head = vec!["COPY", "ID", "NODE", "STATE", "RUNS", "SINCE", "DETAIL"];
    if is_wide {
        head.extend(["WANTED", "GENERATION", "REVISION"]);
    }
    let mut table = Table::new(&head);
    for copy in copies {
        let since = copy.state.since.as_deref().unwrap_or_default();
        let detail = standing(copy);
        let why = detail.split_once(": ").map_or("", |(_, why)| why);
        let mut row = vec![
            format!("{}.{}", copy.workload_name, copy.slot).into(),
            copy.short.clone().into(),
            copy.node_name.clone().into(),
            table::state(&word(&copy.state.word)),
            copy.runs.to_string().into(),
            age::since(since, remote.now()).into(),
            shown(why, is_wide).into(),
        ];
        if is_wide {
            let cause = copy
                .cause
                .as_ref()
                .map_or(String::new(), |cause| format!(" ({cause})"));
            row.extend([
                format!("{}{cause}", word(&copy.intent)).into(),
                copy.generation.to_string().into(),
                copy.revision.to_string().into(),
            ]);
        }
        table.row(row);
    }
    table.print(remote.printer);
}

/// A long reason would push everything else off the screen; `wide` has all of it.
fn shown(why: &str, is_wide: bool) -> String {
    const MOST: usize = 60;
    if is_wide || why.chars().count() <= MOST {
        return why.to_owned();
    }
    why.chars().take(MOST - 3).chain("...".chars()).collect()
}

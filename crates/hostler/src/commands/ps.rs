//! `ps`: workloads, or the copies of one.

use std::collections::BTreeSet;

use hostler_model::{Bytes, MilliCpu};
use hostler_wire::api::{Assignment, AssignmentFilter, Intent, Workload, WorkloadStatus};

use super::wait::standing_of;
use super::{Remote, word};
use crate::age;
use crate::args::{OutputForm, PsArgs};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::{self, Cell, Table};

/// Copies without a node that have a row of their own.
const MOST_VACANT: usize = 20;

pub(crate) async fn ps(remote: &Remote<'_>, args: PsArgs) -> Result<ExitStatus, Failure> {
    let form = settings::form(&args.output);
    match &args.workload {
        None => workloads(remote, form).await?,
        Some(target) => {
            let workload = remote.client.workload(target).await?;
            copies(remote, form, &workload).await?;
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
        head.extend(["PENDING", "OUTDATED", "RESTARTS", "LAST EXIT", "ID"]);
    }
    let mut table = Table::new(&head);
    for workload in workloads {
        let mut row = vec![
            workload.name.clone().into(),
            workload.kind.clone().into(),
            table::state(&word(&workload.status)),
            at_work(workload).into(),
            workload.revision.to_string().into(),
            age::since(&workload.created_at, remote.now()).into(),
        ];
        if is_wide {
            row.extend([
                workload.pending.to_string().into(),
                workload.standing.outdated.to_string().into(),
                workload.standing.restarts.to_string().into(),
                workload
                    .standing
                    .last_exit
                    .clone()
                    .unwrap_or_default()
                    .into(),
                workload.id.clone().into(),
            ]);
        }
        table.row(row);
    }
    table.print(remote.printer);
}

/// How many of its copies run or have ended well; nothing where none are to.
fn at_work(workload: &Workload) -> String {
    if workload.status == WorkloadStatus::Scheduled {
        return String::new();
    }
    // Copies of an older form run as well; servers from before say nothing of those that have ended.
    let good = workload.running.max(workload.standing.settled);
    format!("{good}/{}", workload.count)
}

async fn copies(remote: &Remote<'_>, form: OutputForm, workload: &Workload) -> Result<(), Failure> {
    let copies = copies_of(remote, workload).await?;
    match form {
        OutputForm::Json | OutputForm::Yaml => remote.printer.document(form, &copies)?,
        OutputForm::Name => copies
            .iter()
            .for_each(|copy| remote.printer.data(&copy.short)),
        OutputForm::Table | OutputForm::Wide => {
            copies_table(remote, &copies, Some(workload), form == OutputForm::Wide);
        }
    }
    Ok(())
}

/// The copies of a workload, by slot, the newest generation of a slot first.
pub(crate) async fn copies_of(
    remote: &Remote<'_>,
    workload: &Workload,
) -> Result<Vec<Assignment>, Failure> {
    let filter = AssignmentFilter {
        workload: Some(workload.id.clone()),
        node: None,
    };
    let mut copies = remote.client.assignments(&filter).await?;
    copies.sort_by_key(|copy| (copy.slot, std::cmp::Reverse(copy.generation)));
    Ok(copies)
}

/// The table of copies; of a workload, also of those that have no node.
pub(crate) fn copies_table(
    remote: &Remote<'_>,
    copies: &[Assignment],
    workload: Option<&Workload>,
    is_wide: bool,
) {
    let mut head = vec!["COPY", "ID", "NODE", "STATE", "RUNS", "SINCE", "DETAIL"];
    if is_wide {
        head.extend(["CPU", "MEMORY", "WANTED", "GENERATION", "REVISION"]);
    }
    let mut table = Table::new(&head);
    for copy in copies {
        let since = copy.state.since.as_deref().unwrap_or_default();
        let why = detail(copy);
        let mut row = vec![
            format!("{}.{}", copy.workload_name, copy.slot).into(),
            copy.short.clone().into(),
            copy.node_name.clone().into(),
            table::state(&word(&copy.state.word)),
            copy.runs.to_string().into(),
            age::since(since, remote.now()).into(),
            shown(&why, is_wide).into(),
        ];
        if is_wide {
            let cause = copy
                .cause
                .as_ref()
                .map_or(String::new(), |cause| format!(" ({cause})"));
            let used = copy.usage.as_ref();
            row.extend([
                used.map_or(String::new(), |it| MilliCpu(it.milli_cpu).to_string())
                    .into(),
                used.map_or(String::new(), |it| Bytes(it.memory_bytes).to_string())
                    .into(),
                format!("{}{cause}", word(&copy.intent)).into(),
                copy.generation.to_string().into(),
                copy.revision.to_string().into(),
            ]);
        }
        table.row(row);
        for part in &copy.parts {
            let mut row: Vec<Cell> = vec![format!("  {}", part.name).into(), "".into(), "".into()];
            row.extend([table::state(&part.state), "".into(), "".into()]);
            row.push(part.exit.clone().unwrap_or_default().into());
            row.resize_with(head.len(), || "".into());
            table.row(row);
        }
    }
    let vacant = workload.map_or_else(Vec::new, |workload| vacant(workload, copies));
    for slot in vacant.iter().take(MOST_VACANT) {
        table.row(pending_row(workload, &slot.to_string(), head.len()));
    }
    if vacant.len() > MOST_VACANT {
        let rest = format!("({} more)", vacant.len() - MOST_VACANT);
        table.row(pending_row(workload, &rest, head.len()));
    }
    table.print(remote.printer);
}

/// The slots of a workload that wait for a node.
fn vacant(workload: &Workload, copies: &[Assignment]) -> Vec<u32> {
    let wanted = copies.iter().filter(|copy| copy.intent == Intent::Run);
    let taken: BTreeSet<u32> = wanted.map(|copy| copy.slot).collect();
    let all = if workload.pending > 0 {
        workload.count
    } else {
        0
    };
    (0..all).filter(|slot| !taken.contains(slot)).collect()
}

fn pending_row(workload: Option<&Workload>, slot: &str, columns: usize) -> Vec<Cell> {
    let name = workload.map_or("", |workload| workload.name.as_str());
    let mut row: Vec<Cell> = vec![format!("{name}.{slot}").into(), "".into(), "".into()];
    row.extend([table::state("pending"), "".into(), "".into()]);
    row.push(format!("no node yet: see `hostler why {name}`").into());
    row.resize_with(columns, || "".into());
    row
}

/// Why a copy is no further, or how its last run ended.
fn detail(copy: &Assignment) -> String {
    let standing = standing_of(copy);
    let why = standing.split_once(": ").map_or("", |(_, why)| why);
    match (copy.is_outdated, why.is_empty()) {
        (false, _) => why.to_owned(),
        (true, true) => "an older revision".to_owned(),
        (true, false) => format!("an older revision: {why}"),
    }
}

/// A long reason would push everything else off the screen; `wide` has all of it.
fn shown(why: &str, is_wide: bool) -> String {
    const MOST: usize = 60;
    if is_wide || why.chars().count() <= MOST {
        return why.to_owned();
    }
    why.chars().take(MOST - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_have_ended_well_count_and_a_schedule_has_none() {
        let of = |status: &str, running: u32, settled: u32| {
            let standing = serde_json::json!({
                "wanted": 3, "settled": settled, "failed": 0, "outdated": 0, "stopping": 0,
                "restarts": 0, "node_count": 1,
            });
            let workload = serde_json::json!({
                "id": "w", "name": "tidy", "kind": "job", "desired": "running", "status": status,
                "revision": 1, "count": 3, "running": running, "spec": {}, "created_at": "",
                "updated_at": "", "standing": standing,
            });
            at_work(&serde_json::from_value(workload).unwrap())
        };
        assert_eq!(of("finished", 0, 3), "3/3");
        assert_eq!(of("failed", 0, 2), "2/3");
        assert_eq!(of("degraded", 1, 2), "2/3");
        assert_eq!(of("updating", 3, 1), "3/3", "older copies run");
        assert_eq!(of("scheduled", 0, 0), "");
    }
}

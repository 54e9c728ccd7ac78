//! `plan`: what applying specs would change. Exit code 3 says that it would change something.

use hostler_wire::api::{Action, Plan, PlannedChange, PlannedWorkload};

use super::wait::reasons;
use super::{Remote, specs};
use crate::args::{OutputForm, PlanArgs};
use crate::failure::Failure;
use crate::printer::{Paint, Printer};
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn plan(remote: &Remote<'_>, args: PlanArgs) -> Result<ExitStatus, Failure> {
    let mut plan = Plan {
        workloads: Vec::new(),
    };
    for text in specs::read(&args.files)? {
        plan.workloads
            .extend(remote.client.plan(text).await?.workloads);
    }
    let printer = remote.printer;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => printer.document(form, &plan)?,
        OutputForm::Name => {
            plan.workloads
                .iter()
                .filter(|planned| changes(planned))
                .for_each(|it| printer.data(&it.name));
        }
        OutputForm::Table | OutputForm::Wide => {
            plan.workloads
                .iter()
                .for_each(|planned| show(printer, planned));
        }
    }
    let has_changes = plan.workloads.iter().any(changes);
    Ok(if has_changes {
        ExitStatus::Changes
    } else {
        ExitStatus::Done
    })
}

fn changes(planned: &PlannedWorkload) -> bool {
    planned.action != Action::Unchanged
}

fn show(printer: &Printer, planned: &PlannedWorkload) {
    let name = &planned.name;
    let head = match planned.action {
        Action::Create => printer.paint(Paint::Good, &format!("+ {name}: would be created")),
        Action::Update => printer.paint(Paint::Busy, &format!("~ {name}: would change")),
        Action::Unchanged => format!("= {name}: unchanged"),
        Action::Unknown => format!("? {name}: this program is too old to say"),
    };
    printer.data(&head);
    for change in &planned.changes {
        printer.data(&format!("    {}", difference(change)));
    }
    match &planned.rollout {
        Some(rollout) => printer.data(&format!("    {rollout}")),
        None if planned.restarts_copies => printer.data("    running copies are replaced"),
        None => {}
    }
    for canary in &planned.beside {
        printer.data(&format!(
            "    {name}.{} runs beside them on {}",
            canary.slot, canary.node_name
        ));
    }
    for placement in &planned.placements {
        printer.data(&format!(
            "    {name}.{} goes to {}",
            placement.slot, placement.node_name
        ));
    }
    if planned.stops > 0 {
        printer.data(&format!("    {} copies stop", planned.stops));
    }
    for line in planned.pending.iter().flat_map(reasons) {
        printer.data(&format!("    pending: {line}"));
    }
}

/// `count: 1 becomes 2`.
pub(super) fn difference(change: &PlannedChange) -> String {
    let PlannedChange { path, from, to } = change;
    if from.is_null() {
        format!("{path}: {to}")
    } else if to.is_null() {
        format!("{path}: {from} goes")
    } else {
        format!("{path}: {from} becomes {to}")
    }
}

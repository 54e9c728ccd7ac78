//! `audit`: who did what, from where, and how it ended. The server tells it in pages, from the newest back.

use hostler_wire::api::{AuditLine, AuditOutcome, AuditQuery, AuditRecord};

use super::{Remote, logs, word};
use crate::args::{AuditArgs, OutcomeWord, OutputForm};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::{Cell, Table, plain};

/// How many are shown unless told otherwise.
const USUAL: usize = 100;
/// Most that the server tells at once.
const PAGE: usize = 1_000;

/// What was found.
#[derive(Default)]
struct Found {
    /// The newest first.
    records: Vec<AuditRecord>,
    unreadable: u64,
    has_more: bool,
}

pub(crate) async fn audit(remote: &Remote<'_>, args: AuditArgs) -> Result<ExitStatus, Failure> {
    let form = settings::form(&args.output);
    let since = args.since.as_deref();
    let since = since.map(|text| logs::moment(text, remote.now()));
    let query = AuditQuery {
        since: since.transpose()?,
        actor: args.actor,
        thing: args.thing,
        outcome: args.outcome.map(outcome),
        door: args.door,
        strangers: args.strangers,
        ..AuditQuery::default()
    };
    let tail = args.tail.unwrap_or(USUAL);
    let found = find(remote, query, tail).await?;
    let printer = remote.printer;
    show(printer, form, &found)?;
    if found.unreadable > 0 {
        let count = found.unreadable;
        printer.talk(&format!(
            "-- lines that cannot be read, passed over: {count}"
        ));
    }
    if found.has_more {
        printer.talk(&format!(
            "-- the last {tail}; older lines were not looked at: see --tail"
        ));
    }
    Ok(ExitStatus::Done)
}

async fn find(remote: &Remote<'_>, mut query: AuditQuery, tail: usize) -> Result<Found, Failure> {
    let mut found = Found::default();
    while found.records.len() < tail {
        query.limit = Some(PAGE.min(tail - found.records.len()));
        let page = remote.client.audit(&query).await?;
        found.records.extend(page.lines.into_iter().rev());
        found.unreadable += page.unreadable;
        found.has_more = page.before.is_some();
        query.before = page.before;
        if !found.has_more {
            break;
        }
    }
    Ok(found)
}

fn show(printer: &Printer, form: OutputForm, found: &Found) -> Result<(), Failure> {
    let records = found.records.iter().rev();
    match form {
        OutputForm::Json | OutputForm::Yaml => {
            for record in records {
                printer.record(form, record)?;
            }
        }
        OutputForm::Name => {
            for record in records {
                if let AuditRecord::Line(line) = record {
                    printer.data(&plain(&actor(line)));
                }
            }
        }
        OutputForm::Table | OutputForm::Wide => {
            let is_wide = form == OutputForm::Wide;
            let mut head = vec!["AT", "ACTOR", "WHAT", "THING", "OUTCOME"];
            head.extend(["DOOR", "FROM", "REQUEST"].iter().filter(|_| is_wide));
            let mut table = Table::new(&head);
            for record in records {
                let mut cells = row(record);
                cells.truncate(head.len());
                table.row(cells);
            }
            table.print(printer);
        }
    }
    Ok(())
}

/// All cells of a wide table.
fn row(record: &AuditRecord) -> Vec<Cell> {
    let line = match record {
        AuditRecord::Line(line) => line,
        AuditRecord::Gap(gap) => {
            let told = format!("lines that the disk did not take: {}", gap.lost);
            return ["", "", &told, "", "", "", "", ""].map(Cell::from).into();
        }
    };
    // A call of gRPC is named by its method alone; its route is its service's.
    let route = line
        .route
        .as_deref()
        .filter(|it| !it.ends_with("/{*method}"));
    let what = route.map_or_else(
        || line.method.clone(),
        |route| format!("{} {route}", line.method),
    );
    let ended = word(&line.outcome);
    let ended = match &line.code {
        Some(code) => Cell::from(format!("{ended}: {code}")),
        None => Cell::from(ended),
    };
    let text = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
    vec![
        line.at.clone().into(),
        actor(line).into(),
        what.into(),
        text(line.name.as_ref().map_or(&line.thing, |_| &line.name)),
        ended,
        line.door.clone().into(),
        text(&line.peer),
        text(&line.request),
    ]
}

/// A person by their name, everybody else with what they are.
fn actor(line: &AuditLine) -> String {
    let actor = &line.actor;
    match actor.name.as_deref().or(actor.id.as_deref()) {
        Some(name) if actor.kind == "person" => name.to_owned(),
        Some(name) => format!("{}/{name}", actor.kind),
        None => actor.kind.clone(),
    }
}

const fn outcome(word: OutcomeWord) -> AuditOutcome {
    match word {
        OutcomeWord::Done => AuditOutcome::Done,
        OutcomeWord::Refused => AuditOutcome::Refused,
        OutcomeWord::Failed => AuditOutcome::Failed,
        OutcomeWord::BrokenOff => AuditOutcome::BrokenOff,
    }
}

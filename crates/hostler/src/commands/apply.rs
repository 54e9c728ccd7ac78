//! `apply`: creates or changes workloads from specs, and waits until they run.

use hostler_wire::api::{ApplyQuery, ApplyResult};
use hostler_wire::client::Expect;

use super::wait::{Goal, Target};
use super::{Remote, specs, wait};
use crate::args::{ApplyArgs, OutputArgs, OutputForm, WaitArgs};
use crate::failure::Failure;
use crate::settings::{self, Wait};
use crate::status::ExitStatus;

/// How to apply, resolved.
pub(crate) struct Applying {
    query: ApplyQuery,
    wait: Wait,
    form: OutputForm,
    expect: Expect,
}

pub(crate) async fn apply(remote: &Remote<'_>, args: ApplyArgs) -> Result<ExitStatus, Failure> {
    let texts = specs::read(&args.files)?;
    let applying = Applying::new(
        (args.dry_run, args.require_placement),
        &args.wait,
        &args.output,
    );
    submit(remote, texts, applying).await
}

impl Applying {
    pub(crate) fn new(
        (dry_run, require_placement): (bool, bool),
        wait: &WaitArgs,
        output: &OutputArgs,
    ) -> Self {
        let wait = if dry_run { None } else { settings::wait(wait) };
        Self {
            query: ApplyQuery {
                dry_run,
                require_placement,
            },
            wait,
            form: settings::form(output),
            expect: Expect::Any,
        }
    }

    /// The same, only if the workloads are as expected.
    pub(crate) fn expecting(self, expect: Expect) -> Self {
        Self { expect, ..self }
    }
}

/// Sends the texts, shows what came of each document, and waits.
pub(crate) async fn submit(
    remote: &Remote<'_>,
    texts: Vec<String>,
    applying: Applying,
) -> Result<ExitStatus, Failure> {
    let mut results = Vec::new();
    for text in texts {
        results.extend(
            remote
                .client
                .apply(text, applying.query, applying.expect)
                .await?,
        );
    }
    show(remote, &results, &applying)?;
    if let Some(most) = applying.wait {
        let target = |result: &ApplyResult| Target {
            id: result.id.clone(),
            name: result.name.clone(),
            goal: Goal::Running,
            revision: Some(result.revision),
        };
        let targets: Vec<Target> = results.iter().map(target).collect();
        wait::wait(remote, &targets, most).await?;
    }
    Ok(ExitStatus::Done)
}

fn show(remote: &Remote<'_>, results: &[ApplyResult], applying: &Applying) -> Result<(), Failure> {
    let printer = remote.printer;
    match applying.form {
        OutputForm::Json | OutputForm::Yaml => printer.document(applying.form, &results)?,
        OutputForm::Name => results.iter().for_each(|result| printer.data(&result.name)),
        OutputForm::Table | OutputForm::Wide => {
            for result in results {
                printer.data(&line(result, applying.query.dry_run));
            }
        }
    }
    Ok(())
}

fn line(result: &ApplyResult, is_dry: bool) -> String {
    let ApplyResult { name, revision, .. } = result;
    match (result.created, result.changed, is_dry) {
        (true, _, false) => format!("{name} created, revision {revision}"),
        (true, _, true) => format!("{name} would be created"),
        (false, true, false) => format!("{name} changed, revision {revision}"),
        (false, true, true) => format!("{name} would change"),
        (false, false, _) => format!("{name} unchanged, revision {revision}"),
    }
}

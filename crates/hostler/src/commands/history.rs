//! `history`: who changed a workload, when, and what.

use hostler_wire::api::Revision;

use super::plan::difference;
use super::{Remote, word};
use crate::args::{HistoryArgs, OutputForm};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn history(remote: &Remote<'_>, args: HistoryArgs) -> Result<ExitStatus, Failure> {
    let history = remote.client.history(&args.workload).await?;
    let printer = remote.printer;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => printer.document(form, &history)?,
        OutputForm::Name => history
            .iter()
            .for_each(|step| printer.data(&step.revision.to_string())),
        OutputForm::Table | OutputForm::Wide => {
            for step in &history {
                lines(step).iter().for_each(|line| printer.data(line));
            }
        }
    }
    Ok(ExitStatus::Done)
}

/// One step, and below it what it changed.
fn lines(step: &Revision) -> Vec<String> {
    let note = step.note.as_ref();
    let note = note.map_or_else(String::new, |note| format!("  {note}"));
    let head = format!(
        "{:<4}{}  {}  {}{note}",
        step.revision,
        step.at,
        word(&step.desired),
        step.actor
    );
    let changes = step.changes.iter();
    let changes = changes.map(|change| format!("    {}", difference(change)));
    std::iter::once(head).chain(changes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_who_when_and_what() {
        let step = serde_json::json!({
            "revision": 3, "desired": "running", "at": "2026-01-02T03:04:05Z", "actor": "keeper/rollout",
            "note": "rolled back to revision 1", "spec": {},
            "changes": [{ "path": "env.A", "from": "b", "to": "a" }],
        });
        let step = serde_json::from_value(step).unwrap();
        assert_eq!(
            lines(&step),
            [
                "3   2026-01-02T03:04:05Z  running  keeper/rollout  rolled back to revision 1",
                "    env.A: \"b\" becomes \"a\"",
            ]
        );
    }
}

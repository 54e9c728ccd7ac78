//! Lines of a foreign contract on stdout, in the form of that contract's own agent.

use std::path::Path;
use std::sync::Arc;

use hostler_agent::{Journal, Level, Line};
use hostler_kit::{Clock, SystemClock};
use hostler_model::Timestamp;
use serde_json::{Map, Value};

use super::log_files::LogFiles;
use crate::printer::Printer;
use crate::settings::Environment;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The text alone.
    Plain,
    /// One JSON object, with its keys in order of the alphabet.
    Json,
    /// Moment, level and text. What is only for looking closely is left out unless it is asked for.
    Dated,
}

/// Writes to the process's stdout.
struct Stdout {
    form: Form,
    /// What is less grave is left out.
    lowest: Level,
    printer: Printer,
    files: Option<LogFiles>,
    clock: SystemClock,
}

impl std::fmt::Debug for Stdout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stdout")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// The journal of this process's stdout.
pub(super) fn stdout(form: Form, environment: &Environment) -> Arc<dyn Journal> {
    journal(form, environment, None)
}

/// The same, and files in that directory.
pub(super) fn stdout_and_files(
    form: Form,
    environment: &Environment,
    dir: &Path,
) -> Arc<dyn Journal> {
    journal(form, environment, Some(LogFiles::in_dir(dir)))
}

fn journal(form: Form, environment: &Environment, files: Option<LogFiles>) -> Arc<dyn Journal> {
    let level = environment.get("HOSTLER_LOG_LEVEL").unwrap_or_default();
    let is_close = level.contains("debug") || level.contains("trace");
    Arc::new(Stdout {
        form,
        lowest: if is_close { Level::Debug } else { Level::Info },
        printer: Printer::of_process(environment),
        files,
        clock: SystemClock::new(),
    })
}

impl Journal for Stdout {
    fn write(&self, line: &Line) {
        if line.level >= self.lowest {
            let now = Timestamp::from_millis(self.clock.wall_millis());
            let text = shown(self.form, line, now);
            self.printer.data(&text);
            if let Some(files) = &self.files {
                files.write(&text);
            }
        }
    }
}

fn shown(form: Form, line: &Line, now: Timestamp) -> String {
    let Line {
        level,
        text,
        fields,
    } = line;
    match form {
        // A line stays one line, whatever a control plane answered.
        Form::Plain => text.replace(['\n', '\r'], " "),
        Form::Dated => {
            let word = match level {
                Level::Debug => "DEBUG",
                Level::Info => "INFO",
                Level::Warn => "WARNING",
                Level::Error => "ERROR",
            };
            format!("{now} - {word} - {}", text.replace(['\n', '\r'], " "))
        }
        Form::Json => {
            let word = match level {
                Level::Debug => "debug",
                Level::Info => "info",
                Level::Warn => "warning",
                Level::Error => "error",
            };
            let mut object = Map::new();
            for (key, value) in fields {
                object.insert((*key).to_owned(), Value::from(value.as_str()));
            }
            object.insert("level".to_owned(), word.into());
            object.insert("msg".to_owned(), text.as_str().into());
            object.insert("time".to_owned(), now.to_string().into());
            Value::Object(object).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contract_has_its_form() {
        let line = Line::new(Level::Warn, "Some\nthing").with("source", "node-agent:a");
        let now = Timestamp::from_millis(1_735_689_600_000);
        assert_eq!(shown(Form::Plain, &line, now), "Some thing");
        assert_eq!(
            shown(Form::Dated, &line, now),
            "2025-01-01T00:00:00.000Z - WARNING - Some thing"
        );
        assert_eq!(
            shown(Form::Json, &line, now),
            r#"{"level":"warning","msg":"Some\nthing","source":"node-agent:a","time":"2025-01-01T00:00:00.000Z"}"#
        );
    }
}

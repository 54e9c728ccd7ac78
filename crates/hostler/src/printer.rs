//! The only writer: data goes to stdout, talk goes to stderr.
//!
//! Owns both streams for the life of the program. Colour and moving progress appear only on a terminal. A
//! closed stdout (`hostler ps | head`) is no failure: later data is dropped, and streams can ask and end.

use std::io::{IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::args::OutputForm;
use crate::failure::Failure;
use crate::settings::Environment;

type Sink = Mutex<Box<dyn Write + Send>>;

/// Writes for the whole program.
pub(crate) struct Printer {
    data: Sink,
    talk: Sink,
    has_colour: bool,
    is_live: bool,
    /// Whether what is said goes to a person's terminal, and not to a log.
    is_watched: bool,
    is_closed: AtomicBool,
}

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Busy,
    Bad,
    Faint,
    Plain,
}

/// A line that tells how far something has come: it moves on a terminal. Elsewhere it is a line now and then,
/// the last text always one, and what is done at once leaves none.
pub(crate) struct Progress<'a> {
    printer: &'a Printer,
    bar: Option<ProgressBar>,
    begun: Instant,
    /// When the next line may come.
    due: Instant,
    pause: Duration,
    last: String,
    is_told: bool,
}

/// What takes no longer than this leaves no lines where there is no terminal.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Between two lines where there is no terminal: it doubles, so that the log of a long wait stays short.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

impl Printer {
    /// On the process's own streams.
    pub(crate) fn of_process(environment: &Environment) -> Self {
        let is_plain =
            environment.get("NO_COLOR").is_some() || environment.get("TERM") == Some("dumb");
        Self {
            data: Mutex::new(Box::new(std::io::stdout())),
            talk: Mutex::new(Box::new(std::io::stderr())),
            has_colour: std::io::stdout().is_terminal() && !is_plain,
            is_live: std::io::stderr().is_terminal() && environment.get("TERM") != Some("dumb"),
            is_watched: std::io::stderr().is_terminal(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Whether talk is read by a person now, and kept nowhere.
    pub(crate) const fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// One line of data.
    pub(crate) fn data(&self, line: &str) {
        self.write(format_args!("{line}\n"));
    }

    /// Data that brings its own line breaks.
    pub(crate) fn raw(&self, text: &str) {
        if !text.is_empty() {
            self.write(format_args!("{text}"));
        }
    }

    /// What a command inside a copy writes: to stdout, as it is.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        let mut data = lock(&self.data);
        if data.write_all(bytes).and_then(|()| data.flush()).is_err() {
            self.is_closed.store(true, Ordering::Relaxed);
        }
    }

    /// The same of its error output, to stderr.
    pub(crate) fn error_bytes(&self, bytes: &[u8]) {
        let mut talk = lock(&self.talk);
        // When nobody listens there is nothing to be done about it.
        let _ = talk.write_all(bytes).and_then(|()| talk.flush());
    }

    fn write(&self, text: std::fmt::Arguments<'_>) {
        let mut data = lock(&self.data);
        if data.write_fmt(text).and_then(|()| data.flush()).is_err() {
            self.is_closed.store(true, Ordering::Relaxed);
        }
    }

    /// Text as it is, such as a document.
    pub(crate) fn text(&self, text: &str) {
        self.data(text.trim_end_matches('\n'));
    }

    /// One line of talk.
    pub(crate) fn talk(&self, line: &str) {
        // When nobody listens there is nothing to be done about it.
        let _ = writeln!(lock(&self.talk), "{line}");
    }

    /// A question; the answer is typed behind it.
    pub(crate) fn ask(&self, question: &str) {
        let mut talk = lock(&self.talk);
        // When nobody listens there is nothing to be done about it.
        let _ = write!(talk, "{question}").and_then(|()| talk.flush());
    }

    /// A value in the asked form, which is `json` or `yaml`.
    pub(crate) fn document<T: Serialize>(
        &self,
        form: OutputForm,
        value: &T,
    ) -> Result<(), Failure> {
        let unwritable = |error: &dyn std::fmt::Display| {
            Failure::failed(
                format!("cannot write the answer as text: {error}"),
                "use another --output",
            )
        };
        let text = if form == OutputForm::Yaml {
            serde_saphyr::to_string(value).map_err(|error| unwritable(&error))?
        } else {
            serde_json::to_string_pretty(value).map_err(|error| unwritable(&error))?
        };
        self.text(&text);
        Ok(())
    }

    /// One value a line, for streams: JSON, or YAML documents.
    pub(crate) fn record<T: Serialize>(&self, form: OutputForm, value: &T) -> Result<(), Failure> {
        if form == OutputForm::Yaml {
            self.data("---");
            return self.document(form, value);
        }
        let text = serde_json::to_string(value).map_err(|error| {
            Failure::failed(
                format!("cannot write JSON: {error}"),
                "use another --output",
            )
        })?;
        self.data(&text);
        Ok(())
    }

    /// A failure: the sentence, its findings, the advice, the code.
    pub(crate) fn failure(&self, failure: &Failure) {
        let mut text = format!("error: {}", failure.sentence);
        for detail in &failure.details {
            text.push_str(&format!("\n  - {detail}"));
        }
        if !failure.advice.is_empty() {
            text.push_str(&format!("\n  {}", failure.advice));
        }
        if let Some(code) = &failure.code {
            text.push_str(&format!("\n  code: {code}"));
        }
        self.talk(&text);
    }

    /// Text in a colour that means something, or plain where there is no colour.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            _ if !self.has_colour => return text.to_owned(),
            Paint::Plain => return text.to_owned(),
            Paint::Good => 32,
            Paint::Busy => 33,
            Paint::Bad => 31,
            Paint::Faint => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Whether nobody reads the data any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Begins a progress display.
    pub(crate) fn progress(&self) -> Progress<'_> {
        let bar = self.is_live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Progress {
            printer: self,
            bar,
            begun: Instant::now(),
            due: Instant::now() + AT_ONCE,
            pause: FIRST_PAUSE,
            last: String::new(),
            is_told: true,
        }
    }
}

impl Progress<'_> {
    /// How far it has come now.
    pub(crate) fn tell(&mut self, text: &str) {
        if self.last != text {
            text.clone_into(&mut self.last);
            self.is_told = false;
            if let Some(bar) = &self.bar {
                bar.set_message(self.last.clone());
            }
        }
        if self.bar.is_none() && !self.is_told && Instant::now() >= self.due {
            self.printer.talk(&self.last);
            self.is_told = true;
            self.due = Instant::now() + self.pause;
            self.pause = LONGEST_PAUSE.min(self.pause * 2);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if !self.is_told && self.begun.elapsed() >= AT_ONCE => {
                self.printer.talk(&self.last);
            }
            None => {}
        }
    }
}

fn lock(sink: &Sink) -> MutexGuard<'_, Box<dyn Write + Send>> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::status::ExitStatus;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn printer() -> (Printer, Shared, Shared) {
        let (data, talk) = (Shared::default(), Shared::default());
        let printer = Printer {
            data: Mutex::new(Box::new(data.clone())),
            talk: Mutex::new(Box::new(talk.clone())),
            has_colour: false,
            is_live: false,
            is_watched: false,
            is_closed: AtomicBool::new(false),
        };
        (printer, data, talk)
    }

    fn text(shared: &Shared) -> String {
        String::from_utf8(shared.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_failure_is_talk_with_sentence_advice_and_code() {
        let (printer, data, talk) = printer();
        let mut failure = Failure::new(
            ExitStatus::Failed,
            "no such node: box",
            "see `hostler node ls`",
        );
        failure.code = Some("node-not-found".to_owned());
        printer.failure(&failure);
        assert_eq!(text(&data), "");
        let expected =
            "error: no such node: box\n  see `hostler node ls`\n  code: node-not-found\n";
        assert_eq!(text(&talk), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_without_a_terminal_is_a_line_now_and_then_and_none_at_first() {
        let (printer, _, talk) = printer();
        let mut progress = printer.progress();
        for percent in 0..100 {
            progress.tell(&format!("web: pulling {percent} %"));
            progress.tell(&format!("web: pulling {percent} %"));
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        progress.tell("web: 2 of 2 running");
        drop(progress);
        let told = text(&talk);
        let expected =
            [4, 6, 10, 18, 34, 66, 98].map(|percent| format!("web: pulling {percent} %\n"));
        assert_eq!(told, expected.concat() + "web: 2 of 2 running\n");
    }

    #[tokio::test(start_paused = true)]
    async fn progress_that_is_over_at_once_leaves_no_line() {
        let (printer, _, talk) = printer();
        let mut progress = printer.progress();
        progress.tell("web: preparing");
        drop(progress);
        assert_eq!(text(&talk), "");
    }

    #[test]
    fn colour_needs_a_terminal() {
        let (mut printer, ..) = printer();
        assert_eq!(printer.paint(Paint::Good, "running"), "running");
        printer.has_colour = true;
        assert_eq!(
            printer.paint(Paint::Good, "running"),
            "\u{1b}[32mrunning\u{1b}[0m"
        );
    }

    #[test]
    fn a_reader_that_left_is_noticed() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (mut printer, ..) = printer();
        printer.data = Mutex::new(Box::new(Closed));
        printer.data("a line");
        assert!(printer.is_closed());
    }
}

//! `logs`: what the copies of a workload write. Following goes on across restarts of copies, and of the
//! server: a broken stream is opened again where it stopped.

use futures::StreamExt as _;
use hostler_model::Timestamp;
use hostler_wire::api::{LogLine, LogQuery, LogStream};
use hostler_wire::client::ClientError;

use super::Remote;
use super::pieces::Pieces;
use super::reopen::Reopening;
use crate::args::{self, LogsArgs, OutputForm};
use crate::failure::Failure;
use crate::printer::{Paint, Printer};
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn logs(remote: &Remote<'_>, args: LogsArgs) -> Result<ExitStatus, Failure> {
    let workload = remote.client.workload(&args.workload).await?;
    let since = args
        .since
        .as_deref()
        .map(|text| moment(text, remote.now()))
        .transpose()?;
    let query = LogQuery {
        tail: args.tail,
        since,
        previous: args.previous,
        follow: args.follow,
        slot: args.slot,
    };
    let mut page = Page {
        printer: remote.printer,
        form: settings::form(&args.output),
        names_copies: workload.count > 1 && args.slot.is_none(),
        has_times: args.timestamps,
        name: workload.name,
        pieces: Pieces::default(),
    };
    let mut reading = Reading {
        query,
        shown: Shown::default(),
        reopening: Reopening::new(),
    };
    let read = async {
        while reading.once(remote, &workload.id, &mut page).await? == Ended::Broken {
            reading.reopening.broken(remote.printer).await;
        }
        Ok(ExitStatus::Done)
    };
    let end = read.await;
    page.printer.raw(&page.pieces.rest());
    end
}

/// A span ago, or a moment.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<String, Failure> {
    if let Ok(span) = args::span(text) {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        return Ok(Timestamp::from_millis(now.as_millis().saturating_sub(millis)).to_string());
    }
    let moment = Timestamp::parse(text).ok_or_else(|| {
        Failure::usage(
            format!("`{text}` is neither a span of time nor a moment"),
            "write `10m`, or RFC 3339 as `2026-01-31T08:00:00Z`",
        )
    })?;
    Ok(moment.to_string())
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Complete,
    Broken,
}

/// A log that is being read, over as many streams as it takes.
struct Reading {
    query: LogQuery,
    shown: Shown,
    reopening: Reopening,
}

/// The lines of the newest moment that were shown. A stream opened again begins with that moment, so they
/// come once more.
#[derive(Default)]
struct Shown {
    at: String,
    lines: Vec<LogLine>,
    again: Vec<LogLine>,
}

impl Reading {
    async fn once(
        &mut self,
        remote: &Remote<'_>,
        id: &str,
        page: &mut Page<'_>,
    ) -> Result<Ended, Failure> {
        let opened = remote.client.logs(id, &self.query).await;
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(error) if self.goes_on(&error) => return Ok(Ended::Broken),
            // Removed while the stream was broken: nothing more will come.
            Err(error) if self.has_begun() && error.code() == Some("workload-not-found") => {
                return Ok(Ended::Complete);
            }
            Err(error) => return Err(error.into()),
        };
        self.reopening.opened();
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) if self.shown.is_new(&line) => page.line(&line)?,
                Ok(_) => {}
                Err(error) if self.goes_on(&error) => {
                    self.resume();
                    return Ok(Ended::Broken);
                }
                Err(error) => return Err(error.into()),
            }
            if page.printer.is_closed() {
                break;
            }
        }
        Ok(Ended::Complete)
    }

    /// Whether a follower goes on after this error. Before the first line a refusal is final.
    fn goes_on(&self, error: &ClientError) -> bool {
        let may_come = self.has_begun() || error.code().is_none();
        self.query.follow && error.is_retryable() && may_come
    }

    const fn has_begun(&self) -> bool {
        !self.shown.at.is_empty()
    }

    fn resume(&mut self) {
        if let Some(at) = self.shown.resume() {
            self.query.since = Some(at);
            self.query.tail = None;
        }
    }
}

impl Shown {
    /// Whether the line is to be shown; notes that it was.
    fn is_new(&mut self, line: &LogLine) -> bool {
        if let Some(place) = self.again.iter().position(|shown| shown == line) {
            self.again.swap_remove(place);
            return false;
        }
        if line.at > self.at {
            self.at.clone_from(&line.at);
            self.lines.clear();
        }
        if line.at == self.at {
            self.lines.push(line.clone());
        }
        true
    }

    /// A stream is opened again at the newest moment.
    fn resume(&mut self) -> Option<String> {
        self.again.clone_from(&self.lines);
        (!self.at.is_empty()).then(|| self.at.clone())
    }
}

/// How lines are shown.
struct Page<'a> {
    printer: &'a Printer,
    form: OutputForm,
    names_copies: bool,
    has_times: bool,
    name: String,
    pieces: Pieces,
}

impl Page<'_> {
    fn line(&mut self, line: &LogLine) -> Result<(), Failure> {
        if matches!(self.form, OutputForm::Json | OutputForm::Yaml) {
            return self.printer.record(self.form, line);
        }
        if line.stream == LogStream::Notice {
            self.printer.raw(&self.pieces.before_notice(&line.copy));
            self.printer
                .talk(&format!("-- {}.{}: {}", self.name, line.slot, line.text));
            return Ok(());
        }
        let (printer, name) = (self.printer, &self.name);
        let (names_copies, has_times) = (self.names_copies, self.has_times);
        let head = || {
            let mut head = String::new();
            if names_copies {
                head = printer.paint(Paint::Faint, &format!("{name}.{} | ", line.slot));
            }
            if has_times {
                head.push_str(&format!("{} ", line.at));
            }
            head
        };
        printer.raw(&self.pieces.take(line, head));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: &str, text: &str, copy: &str) -> LogLine {
        LogLine {
            at: at.to_owned(),
            stream: LogStream::Stdout,
            text: text.to_owned(),
            partial: false,
            run: 1,
            slot: 0,
            copy: copy.to_owned(),
        }
    }

    #[test]
    fn a_stream_opened_again_shows_no_line_twice() {
        let mut shown = Shown::default();
        let (first, second) = ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.000Z");
        assert!(shown.is_new(&line(first, "a", "x")));
        assert!(shown.is_new(&line(second, "b", "x")));
        assert!(
            shown.is_new(&line(second, "b", "x")),
            "the same text twice is two lines"
        );
        assert_eq!(shown.resume().as_deref(), Some(second));
        assert!(!shown.is_new(&line(second, "b", "x")));
        assert!(!shown.is_new(&line(second, "b", "x")));
        assert!(shown.is_new(&line(second, "b", "x")));
        assert!(shown.is_new(&line(first, "late", "y")), "copies interleave");
    }

    #[test]
    fn since_is_a_span_ago_or_a_moment() {
        let now = Timestamp::from_millis(1_759_856_899_560);
        assert_eq!(moment("1m", now).unwrap(), "2025-10-07T17:07:19.560Z");
        assert_eq!(
            moment("2025-10-07T17:08:19Z", now).unwrap(),
            "2025-10-07T17:08:19.000Z"
        );
        assert!(moment("yesterday", now).is_err());
    }
}

//! What reading the log of a container and that of a project have in common: which lines are wanted, how far a log was
//! read, what the engine's lines say, and how a reader is served.
//!
//! The engine answers by whole seconds and by container; moments and runs are told apart here.

use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_kit::Tasks;
use hostler_model::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::starts::History;
use crate::RuntimeError;
use crate::logs::{LogLine, LogQuery, Run, Stream};

/// Lines on their way to a reader.
const LINES_AHEAD: usize = 256;
/// Between two tries to go on following, should no event tell.
const GLANCE: Duration = Duration::from_secs(1);

pub(crate) type Sender = mpsc::Sender<Result<LogLine, RuntimeError>>;

/// Which lines are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The first run that is wanted.
    run: u32,
    since: Option<Timestamp>,
    pub(crate) tail: Option<usize>,
    follow: bool,
}

/// How far a log was read. Lines can share a moment: the parts of a long one always do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The engine's text for the latest moment of which a line was read; it has nanoseconds.
    moment: String,
    /// How many lines of that moment were read.
    lines: usize,
}

/// Tells the lines that are new from those that were read, in a log that is read again.
pub(crate) struct Resumed {
    from: Place,
}

/// A line as the engine writes it.
pub(crate) struct Stamped {
    pub(crate) moment: String,
    pub(crate) line: LogLine,
}

/// A log that is read for somebody.
#[async_trait]
pub(crate) trait Reading: Send + 'static {
    /// Sends what is there now.
    async fn send_kept(&mut self, sender: &Sender) -> Result<(), RuntimeError>;

    /// Sends what comes behind the last line that was read, until nothing of it runs.
    async fn send_new(
        &mut self,
        sender: &Sender,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), RuntimeError>;
}

impl Wanted {
    /// What is asked for, of a unit with so many runs.
    pub(crate) fn of(query: &LogQuery, latest: u32) -> Result<Self, RuntimeError> {
        let run = match query.run {
            Run::Latest => latest,
            Run::Previous => latest.saturating_sub(1),
        };
        // Who follows a unit that has not run yet waits for its first run.
        let is_awaited = query.follow && query.run == Run::Latest;
        if run == 0 && !is_awaited {
            return Err(RuntimeError::NoLog);
        }
        Ok(Self {
            run: run.max(1),
            since: query.since,
            tail: query.tail,
            follow: query.follow,
        })
    }

    pub(crate) fn includes(&self, line: &LogLine) -> bool {
        let of_run = line.run == self.run || (self.follow && line.run > self.run);
        of_run && self.since.is_none_or(|since| line.at >= since)
    }

    /// What the engine is asked for; it has whole seconds only.
    pub(crate) fn options(&self, history: &History, read: &Place, follow: bool) -> LogsOptions {
        let of_run = history.start_of(self.run);
        let last = Timestamp::parse(&read.moment);
        let since = [of_run, self.since, last].into_iter().flatten().max();
        let seconds = since.map_or(0, |since| since.as_millis() / 1000);
        LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            timestamps: true,
            since: i32::try_from(seconds).unwrap_or(i32::MAX),
            tail: "all".to_owned(),
            ..LogsOptions::default()
        }
    }

    /// Reads for whoever takes the stream, until that is gone.
    pub(crate) fn serve(
        self,
        reading: impl Reading,
        changes: watch::Receiver<u64>,
        (tasks, name): (&Tasks, &'static str),
    ) -> BoxStream<'static, Result<LogLine, RuntimeError>> {
        let (sender, receiver) = mpsc::channel(LINES_AHEAD);
        tasks.spawn_until_stop(name, async move {
            let gone = sender.clone();
            // Both arms only wait; a reader that is gone needs no more lines.
            tokio::select! {
                () = gone.closed() => {}
                () = send_all(reading, self.follow, sender, changes) => {}
            }
        });
        ReceiverStream::new(receiver).boxed()
    }
}

async fn send_all(
    mut reading: impl Reading,
    follow: bool,
    sender: Sender,
    mut changes: watch::Receiver<u64>,
) {
    if let Err(error) = reading.send_kept(&sender).await {
        let _ = sender.send(Err(error)).await;
        return;
    }
    if !follow {
        return;
    }
    loop {
        changes.mark_unchanged();
        // An engine that is down for a while is no end: the log is still there after it.
        match reading.send_new(&sender, &mut changes).await {
            Ok(()) | Err(RuntimeError::EngineDown { .. }) => {}
            Err(RuntimeError::NotFound(_)) => return,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        }
        let _ = tokio::time::timeout(GLANCE, changes.changed()).await;
    }
}

impl Place {
    /// Takes notice of a line that was read.
    pub(crate) fn take(&mut self, moment: String) {
        if moment == self.moment {
            self.lines += 1;
        } else if is_later(&moment, &self.moment) {
            (self.moment, self.lines) = (moment, 1);
        }
    }
}

impl Resumed {
    pub(crate) const fn behind(from: Place) -> Self {
        Self { from }
    }

    pub(crate) fn is_new(&mut self, moment: &str) -> bool {
        if moment == self.from.moment && self.from.lines > 0 {
            self.from.lines -= 1;
            return false;
        }
        !is_later(&self.from.moment, moment)
    }
}

pub(crate) fn stamped(part: &LogOutput, history: &History) -> Option<Stamped> {
    let stream = match part {
        LogOutput::StdErr { .. } => Stream::Stderr,
        LogOutput::StdOut { .. } | LogOutput::StdIn { .. } | LogOutput::Console { .. } => {
            Stream::Stdout
        }
    };
    let text = String::from_utf8_lossy(part.as_ref());
    let (moment, text) = text.split_once(' ').unwrap_or((&text, ""));
    let mut at = Timestamp::parse(moment.trim_end())?;
    // Podman tells whole seconds only: what a run wrote in its first second must not count to the one before.
    if !moment.contains('.') {
        at = Timestamp::from_millis(at.as_millis() + 999);
    }
    // The engine cuts long lines; only their last part has the line break.
    let (text, is_partial) = match text.strip_suffix('\n') {
        Some(text) => (text.strip_suffix('\r').unwrap_or(text), false),
        None => (text, true),
    };
    let line = LogLine {
        at,
        stream,
        text: text.to_owned(),
        is_partial,
        run: history.run_at(at),
    };
    Some(Stamped {
        moment: moment.trim_end().to_owned(),
        line,
    })
}

/// Compares the engine's moments, which drop the zeros at the end of their nanoseconds.
pub(crate) fn is_later(moment: &str, than: &str) -> bool {
    let padded = |text: &str| {
        let text = text.trim_end_matches('Z');
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        (seconds.to_owned(), format!("{fraction:0<9}"))
    };
    padded(moment) > padded(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_lines_are_cut_into_moment_and_text() {
        let part = |text: &str| LogOutput::StdErr {
            message: text.as_bytes().to_vec().into(),
        };
        let history = History::default();
        let whole = stamped(&part("2026-01-31T08:00:00.5Z two  words\n"), &history).unwrap();
        assert_eq!(
            (whole.line.text.as_str(), whole.line.is_partial),
            ("two  words", false)
        );
        assert_eq!(whole.line.stream, Stream::Stderr);
        let cut = stamped(&part("2026-01-31T08:00:00.5Z begun"), &history).unwrap();
        assert!(cut.line.is_partial);
        let empty = stamped(&part("2026-01-31T08:00:00.5Z \n"), &history).unwrap();
        assert_eq!(empty.line.text, "");
    }

    #[test]
    fn a_log_that_is_read_again_goes_on_behind_the_lines_that_were_read() {
        let (a, b, c) = (
            "2026-01-31T08:00:00.1Z",
            "2026-01-31T08:00:00.2Z",
            "2026-01-31T08:00:00.3Z",
        );
        let mut place = Place::default();
        for moment in [a, b, b] {
            place.take(moment.to_owned());
        }
        let mut resumed = Resumed::behind(place);
        let again = [a, b, b, b, c, c].map(|moment| resumed.is_new(moment));
        assert_eq!(again, [false, false, false, true, true, true]);
    }

    #[test]
    fn moments_are_compared_by_nanoseconds() {
        assert!(is_later(
            "2026-01-31T08:00:00.12Z",
            "2026-01-31T08:00:00.119999999Z"
        ));
        assert!(!is_later(
            "2026-01-31T08:00:00.12Z",
            "2026-01-31T08:00:00.12Z"
        ));
        assert!(is_later("2026-01-31T08:00:01Z", "2026-01-31T08:00:00.999Z"));
        assert!(is_later("2026-01-31T08:00:01Z", ""));
    }
}

//! Reads a container's log through the engine, cut into runs, and follows it across runs.
//!
//! The engine answers by whole seconds and by container; moments and runs are told apart here. A follower
//! that is slow is held up by the engine's own buffers and never holds up the container.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_model::{Timestamp, UnitId};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Inner;
use super::engine::{Attempt as _, Refused};
use super::starts::History;
use crate::RuntimeError;
use crate::logs::{LogLine, LogQuery, Run, Stream};

/// Lines on their way to a reader.
const LINES_AHEAD: usize = 256;
/// Between two tries to go on following, should no event tell.
const GLANCE: Duration = Duration::from_secs(1);

type Sender = mpsc::Sender<Result<LogLine, RuntimeError>>;

/// Which lines are wanted of a container's log.
struct Reading {
    inner: Arc<Inner>,
    id: UnitId,
    container: String,
    /// The first run that is wanted.
    run: u32,
    since: Option<Timestamp>,
    tail: Option<usize>,
    follow: bool,
    read: Place,
}

/// How far a log was read. Lines can share a moment: the parts of a long one always do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The engine's text for the latest moment of which a line was read; it has nanoseconds.
    pub(crate) moment: String,
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

/// Opens the log of a run.
pub(super) async fn read(
    inner: Arc<Inner>,
    id: UnitId,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
    let container = inner.container(id).await?;
    let latest = inner.inspect(id, &container).await?.found.runs;
    let run = match query.run {
        Run::Latest => latest,
        Run::Previous => latest.saturating_sub(1),
    };
    // Who follows a unit that has not run yet waits for its first run.
    let is_awaited = query.follow && query.run == Run::Latest;
    if run == 0 && !is_awaited {
        return Err(RuntimeError::NoLog);
    }
    let tasks = inner.tasks.clone();
    let changes = inner.changes.subscribe();
    inner.watch_events();
    let reading = Reading {
        inner,
        id,
        container,
        run: run.max(1),
        since: query.since,
        tail: query.tail,
        follow: query.follow,
        read: Place::default(),
    };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    tasks.spawn_until_stop("read container log", async move {
        let gone = sender.clone();
        // Both arms only wait; a reader that is gone needs no more lines.
        tokio::select! {
            () = gone.closed() => {}
            () = reading.send_all(sender, changes) => {}
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

impl Reading {
    async fn send_all(mut self, sender: Sender, mut changes: watch::Receiver<u64>) {
        if let Err(error) = self.send_kept(&sender).await {
            let _ = sender.send(Err(error)).await;
            return;
        }
        while self.follow {
            changes.mark_unchanged();
            // An engine that is down for a while is no end: the container's log is still there after it.
            match self.send_new(&sender).await {
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

    /// Sends what is there now. The tail is counted here, because the engine counts across runs.
    async fn send_kept(&mut self, sender: &Sender) -> Result<(), RuntimeError> {
        let history = self.inner.starts.history(self.id).await?;
        let mut output = self.open(&history, false).await?;
        let (mut tail, mut lines) = (VecDeque::new(), 0);
        while let Some(stamped) = next(&mut output, &history).await? {
            self.read.take(stamped.moment);
            let line = stamped.line;
            let of_run = line.run == self.run || (self.follow && line.run > self.run);
            if !of_run || self.since.is_some_and(|since| line.at < since) {
                continue;
            }
            match self.tail {
                None => {
                    if sender.send(Ok(line)).await.is_err() {
                        return Ok(());
                    }
                }
                Some(most) => {
                    lines += usize::from(!line.is_partial);
                    tail.push_back(line);
                    // A line goes with all its pieces.
                    while lines > most
                        && let Some(line) = tail.pop_front()
                    {
                        lines -= usize::from(!line.is_partial);
                    }
                }
            }
        }
        for line in tail {
            if sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends what comes behind the last line that was read, until the container stops.
    async fn send_new(&mut self, sender: &Sender) -> Result<(), RuntimeError> {
        // A log that ends may mean that the container is gone.
        self.inner.inspect(self.id, &self.container).await?;
        let history = self.inner.starts.history(self.id).await?;
        let mut output = self.open(&history, true).await?;
        let mut resumed = Resumed::behind(self.read.clone());
        while let Some(stamped) = next(&mut output, &history).await? {
            if !resumed.is_new(&stamped.moment) {
                continue;
            }
            self.read.take(stamped.moment);
            let line = stamped.line;
            let is_wanted = line.run >= self.run && self.since.is_none_or(|it| line.at >= it);
            if is_wanted && sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn open(
        &self,
        history: &History,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<LogOutput, bollard::errors::Error>>, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        let of_run = history.start_of(self.run);
        let last = Timestamp::parse(&self.read.moment);
        let since = [of_run, self.since, last].into_iter().flatten().max();
        let seconds = since.map_or(0, |since| since.as_millis() / 1000);
        let options = LogsOptions {
            follow,
            stdout: true,
            stderr: true,
            timestamps: true,
            since: i32::try_from(seconds).unwrap_or(i32::MAX),
            tail: "all".to_owned(),
            ..LogsOptions::default()
        };
        Ok(docker.logs(&self.container, Some(options)).boxed())
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

async fn next(
    output: &mut BoxStream<'static, Result<LogOutput, bollard::errors::Error>>,
    history: &History,
) -> Result<Option<Stamped>, RuntimeError> {
    while let Some(part) = output.next().await {
        let part = part.or_refused(Refused::of_engine)?;
        if let Some(stamped) = stamped(&part, history) {
            return Ok(Some(stamped));
        }
    }
    Ok(None)
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

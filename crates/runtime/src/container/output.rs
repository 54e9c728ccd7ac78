//! Reads a container's log through the engine, cut into runs, and follows it across runs.
//!
//! A follower that is slow is held up by the engine's own buffers and never holds up the container.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::container::LogOutput;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_model::UnitId;
use tokio::sync::watch;

use super::Inner;
use super::engine::{Attempt as _, Refused};
use super::reading::{Place, Reading, Resumed, Sender, Stamped, Wanted, stamped};
use super::starts::History;
use crate::RuntimeError;
use crate::logs::{LogLine, LogQuery};

type Output = BoxStream<'static, Result<LogOutput, bollard::errors::Error>>;

/// A container's log that is read for somebody.
struct OfContainer {
    inner: Arc<Inner>,
    id: UnitId,
    container: String,
    wanted: Wanted,
    read: Place,
}

/// Opens the log of a run.
pub(super) async fn read(
    inner: Arc<Inner>,
    id: UnitId,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
    let container = inner.container(id).await?;
    let latest = inner.inspect(id, &container).await?.found.runs;
    let wanted = Wanted::of(&query, latest)?;
    let tasks = inner.tasks.clone();
    let changes = inner.watch.subscribe();
    inner.watch_events();
    let reading = OfContainer {
        inner,
        id,
        container,
        wanted,
        read: Place::default(),
    };
    Ok(wanted.serve(reading, changes, (&tasks, "read container log")))
}

#[async_trait]
impl Reading for OfContainer {
    /// The tail is counted here, because the engine counts across runs.
    async fn send_kept(&mut self, sender: &Sender) -> Result<(), RuntimeError> {
        let history = self.inner.starts.history(self.id).await?;
        let mut output = self.open(&history, false).await?;
        let (mut tail, mut lines) = (VecDeque::new(), 0);
        while let Some(stamped) = next(&mut output, &history).await? {
            self.read.take(stamped.moment);
            let line = stamped.line;
            if !self.wanted.includes(&line) {
                continue;
            }
            match self.wanted.tail {
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

    async fn send_new(
        &mut self,
        sender: &Sender,
        _changes: &mut watch::Receiver<u64>,
    ) -> Result<(), RuntimeError> {
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
            if self.wanted.includes(&line) && sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl OfContainer {
    async fn open(&self, history: &History, follow: bool) -> Result<Output, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        let options = self.wanted.options(history, &self.read, follow);
        Ok(docker.logs(&self.container, Some(options)).boxed())
    }
}

async fn next(output: &mut Output, history: &History) -> Result<Option<Stamped>, RuntimeError> {
    while let Some(part) = output.next().await {
        let part = part.or_refused(Refused::of_engine)?;
        if let Some(stamped) = stamped(&part, history) {
            return Ok(Some(stamped));
        }
    }
    Ok(None)
}

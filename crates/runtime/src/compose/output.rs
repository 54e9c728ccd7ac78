//! The log of a project: the lines of all its containers, merged by their moments, each behind its service's name.
//!
//! What is kept is read from every container at once and merged strictly. What is still to come is passed on as it
//! comes: a line never waits for a service that is silent. Runs, moments and pieces of long lines are told apart as for
//! single containers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptions;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use hostler_model::{Timestamp, UnitId};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::Inner;
use super::found::Seen;
use super::state;
use crate::RuntimeError;
use crate::container::engine::Attempt as _;
use crate::container::output::{Place, Resumed, is_later, stamped};
use crate::container::starts::History;
use crate::logs::{LogLine, LogQuery, Run};

/// Lines on their way to a reader.
const LINES_AHEAD: usize = 256;
/// Between two tries to go on following, should no event tell.
const GLANCE: Duration = Duration::from_secs(1);
/// Between two looks for containers that were started while others are followed, should no event tell.
const LOOK: Duration = Duration::from_secs(5);
/// Pieces of one line that are held together.
const MOST_PIECES: usize = 64;

type Sender = mpsc::Sender<Result<LogLine, RuntimeError>>;

/// Which lines are wanted.
struct Reading {
    inner: Arc<Inner>,
    id: UnitId,
    /// The first run that is wanted.
    run: u32,
    since: Option<Timestamp>,
    tail: Option<usize>,
    follow: bool,
    /// How far each container's log was read.
    places: BTreeMap<String, Place>,
}

/// One whole line: all its pieces, and where it came from. Without a piece it tells that nothing more comes from there.
struct Whole {
    container: String,
    moments: Vec<String>,
    pieces: Vec<LogLine>,
}

impl Whole {
    fn end_of(container: &str) -> Self {
        Self {
            container: container.to_owned(),
            moments: Vec::new(),
            pieces: Vec::new(),
        }
    }
}

/// The lines of one container.
type Lines = BoxStream<'static, Result<Whole, RuntimeError>>;

/// Opens the log of a run.
pub(super) async fn read(
    inner: Arc<Inner>,
    id: UnitId,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
    let seen = inner.find(id).await?.ok_or(RuntimeError::NotFound(id))?;
    let latest = seen.standing.runs;
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
    let changes = inner.watch.subscribe();
    inner.watch_events();
    let reading = Reading {
        inner,
        id,
        run: run.max(1),
        since: query.since,
        tail: query.tail,
        follow: query.follow,
        places: BTreeMap::new(),
    };
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    tasks.spawn_until_stop("read compose log", async move {
        let gone = sender.clone();
        // Both arms only wait; a reader that is gone needs no more lines.
        tokio::select! {
            () = gone.closed() => {}
            () = reading.send_all(seen, sender, changes) => {}
        }
    });
    Ok(ReceiverStream::new(receiver).boxed())
}

impl Reading {
    async fn send_all(mut self, seen: Seen, sender: Sender, mut changes: watch::Receiver<u64>) {
        if let Err(error) = self.send_kept(&seen, &sender).await {
            let _ = sender.send(Err(error)).await;
            return;
        }
        while self.follow {
            // An engine that is down for a while is no end: the logs are still there after it.
            match self.send_new(&sender, &mut changes).await {
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

    /// Sends what is there now, in the order of its moments.
    async fn send_kept(&mut self, seen: &Seen, sender: &Sender) -> Result<(), RuntimeError> {
        let mut heads = Vec::new();
        for piece in &seen.pieces {
            let name = state::name_of(piece, &seen.pieces);
            let mut lines = self.open(&piece.container, name, seen, false).await?;
            if let Some(first) = lines.next().await.transpose()? {
                heads.push((first, lines));
            }
        }
        let (mut tail, mut count) = (VecDeque::new(), 0);
        while let Some(at) = earliest(&heads) {
            let (whole, lines) = &mut heads[at];
            let whole = match lines.next().await.transpose()? {
                Some(next) => std::mem::replace(whole, next),
                None => heads.swap_remove(at).0,
            };
            self.take(&whole);
            if !self.is_wanted(&whole) {
                continue;
            }
            tail.push_back(whole);
            count += 1;
            match self.tail {
                // Without a tail nothing is held back.
                None => {
                    if !send(sender, tail.pop_front()).await {
                        return Ok(());
                    }
                }
                Some(most) if count > most => {
                    tail.pop_front();
                    count -= 1;
                }
                Some(_) => {}
            }
        }
        while let Some(whole) = tail.pop_front() {
            if !send(sender, Some(whole)).await {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends what comes behind the last lines that were read, until nothing of the project runs.
    async fn send_new(
        &mut self,
        sender: &Sender,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), RuntimeError> {
        let (mut open, mut known) = (BTreeSet::new(), BTreeSet::new());
        let mut lines: SelectAll<Lines> = SelectAll::new();
        loop {
            changes.mark_unchanged();
            let seen = self
                .inner
                .find(self.id)
                .await?
                .ok_or(RuntimeError::NotFound(self.id))?;
            for piece in &seen.pieces {
                let is_new = known.insert(piece.container.clone());
                if (is_new || piece.is_alive()) && open.insert(piece.container.clone()) {
                    let name = state::name_of(piece, &seen.pieces);
                    let end = futures::stream::iter([Ok(Whole::end_of(&piece.container))]);
                    let new = self.open(&piece.container, name, &seen, true).await?;
                    lines.push(new.chain(end).boxed());
                }
            }
            let look = tokio::time::sleep(LOOK);
            tokio::pin!(look);
            loop {
                // What was taken of the lines is sent; the others only wait.
                tokio::select! {
                    biased;
                    next = lines.next() => {
                        let Some(whole) = next.transpose()? else { return Ok(()) };
                        if whole.pieces.is_empty() {
                            open.remove(&whole.container);
                            continue;
                        }
                        self.take(&whole);
                        if self.is_wanted(&whole) && !send(sender, Some(whole)).await {
                            return Ok(());
                        }
                    }
                    changed = changes.changed() => {
                        if changed.is_err() { return Ok(()) }
                        break;
                    }
                    () = &mut look => break,
                }
            }
        }
    }

    fn take(&mut self, whole: &Whole) {
        let place = self.places.entry(whole.container.clone()).or_default();
        for moment in &whole.moments {
            place.take(moment.clone());
        }
    }

    fn is_wanted(&self, whole: &Whole) -> bool {
        let Some(line) = whole.pieces.first() else {
            return false;
        };
        let of_run = line.run == self.run || (self.follow && line.run > self.run);
        of_run && self.since.is_none_or(|since| line.at >= since)
    }

    /// The lines of a container behind those that were read.
    async fn open(
        &self,
        container: &str,
        name: String,
        seen: &Seen,
        follow: bool,
    ) -> Result<Lines, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        let place = self.places.get(container).cloned().unwrap_or_default();
        let of_run = seen.history.start_of(self.run);
        let last = Timestamp::parse(&place.moment);
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
        let parts = docker.logs(container, Some(options)).boxed();
        let gathering = Gathering {
            parts,
            resumed: Resumed::behind(place),
            history: seen.history.clone(),
            container: container.to_owned(),
            name,
        };
        let lines = futures::stream::try_unfold(gathering, |mut gathering| async move {
            let next = gathering.next().await?;
            Ok(next.map(|whole| (whole, gathering)))
        });
        Ok(lines.boxed())
    }
}

/// Gathers the pieces of a container's lines.
struct Gathering {
    parts: BoxStream<'static, Result<LogOutput, bollard::errors::Error>>,
    resumed: Resumed,
    history: History,
    container: String,
    name: String,
}

impl Gathering {
    async fn next(&mut self) -> Result<Option<Whole>, RuntimeError> {
        let mut whole = Whole::end_of(&self.container);
        while let Some(part) = self.parts.next().await {
            let part = match part.attempt()? {
                Ok(part) => part,
                // The container is being removed, or is gone: nothing more comes of it.
                Err(refused) if refused.is_not_found() || refused.is_conflict() => break,
                Err(refused) => return Err(refused.of_engine()),
            };
            let Some(stamped) = stamped(&part, &self.history) else {
                continue;
            };
            if !self.resumed.is_new(&stamped.moment) {
                continue;
            }
            whole.moments.push(stamped.moment);
            let mut line = stamped.line;
            if whole.pieces.is_empty() {
                line.text = format!("{} | {}", self.name, line.text);
            }
            let is_last = !line.is_partial || whole.pieces.len() + 1 >= MOST_PIECES;
            whole.pieces.push(line);
            if is_last {
                return Ok(Some(whole));
            }
        }
        Ok((!whole.pieces.is_empty()).then_some(whole))
    }
}

/// Which of the lines is to be next.
fn earliest(heads: &[(Whole, Lines)]) -> Option<usize> {
    let moment = |at: usize| heads[at].0.moments.first().map_or("", String::as_str);
    (0..heads.len()).reduce(|best, at| {
        if is_later(moment(best), moment(at)) {
            at
        } else {
            best
        }
    })
}

/// Answers whether the reader is still there.
async fn send(sender: &Sender, whole: Option<Whole>) -> bool {
    for piece in whole.into_iter().flat_map(|whole| whole.pieces) {
        if sender.send(Ok(piece)).await.is_err() {
            return false;
        }
    }
    true
}

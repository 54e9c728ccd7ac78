//! The log of a project: the lines of all its containers, merged by their moments, each behind its service's name.
//!
//! What is kept is read from every container at once and merged strictly. What is still to come is passed on as it
//! comes: a line never waits for a service that is silent. Runs, moments and pieces of long lines are told apart as for
//! single containers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use hostler_model::UnitId;
use tokio::sync::watch;

use super::Inner;
use super::found::Seen;
use super::state;
use crate::RuntimeError;
use crate::container::engine::Attempt as _;
use crate::container::reading::{Place, Reading, Resumed, Sender, Wanted, is_later, stamped};
use crate::container::starts::History;
use crate::logs::{LogLine, LogQuery};

/// Between two looks for containers that were started while others are followed, should no event tell.
const LOOK: Duration = Duration::from_secs(5);
/// Pieces of one line that are held together.
const MOST_PIECES: usize = 64;

/// A project's log that is read for somebody.
struct OfProject {
    inner: Arc<Inner>,
    id: UnitId,
    /// As it was when it was asked for.
    seen: Seen,
    wanted: Wanted,
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
    let seen = inner.seen_of(id).await?;
    let wanted = Wanted::of(&query, seen.standing.runs)?;
    let tasks = inner.tasks.clone();
    let changes = inner.watch.subscribe();
    inner.watch_events();
    let reading = OfProject {
        inner,
        id,
        seen,
        wanted,
        places: BTreeMap::new(),
    };
    Ok(wanted.serve(reading, changes, (&tasks, "read compose log")))
}

#[async_trait]
impl Reading for OfProject {
    /// In the order of its moments.
    async fn send_kept(&mut self, sender: &Sender) -> Result<(), RuntimeError> {
        let mut heads = Vec::new();
        for piece in &self.seen.pieces {
            let name = state::name_of(piece, &self.seen.pieces);
            let mut lines = self.open(&piece.container, name, &self.seen, false).await?;
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
            match self.wanted.tail {
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

    async fn send_new(
        &mut self,
        sender: &Sender,
        changes: &mut watch::Receiver<u64>,
    ) -> Result<(), RuntimeError> {
        let (mut open, mut known) = (BTreeSet::new(), BTreeSet::new());
        let mut lines: SelectAll<Lines> = SelectAll::new();
        loop {
            changes.mark_unchanged();
            let seen = self.inner.seen_of(self.id).await?;
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
}

impl OfProject {
    fn take(&mut self, whole: &Whole) {
        let place = self.places.entry(whole.container.clone()).or_default();
        for moment in &whole.moments {
            place.take(moment.clone());
        }
    }

    fn is_wanted(&self, whole: &Whole) -> bool {
        let first = whole.pieces.first();
        first.is_some_and(|line| self.wanted.includes(line))
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
        let options = self.wanted.options(&seen.history, &place, follow);
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

//! What is being written, by the copies that are there and by those that come later, for as long as the reader
//! stays and something can still be written. Where a copy takes another's place, on another node or with another
//! spec, a notice marks it, and the newcomer's log is told from its beginning.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, SelectAll};
use futures::{Stream, StreamExt as _};
use hostler_control::{LogRecord, LogRequest, LogStream};
use hostler_model::{Code, Refusal, Timestamp, UnitId};
use hostler_wire::api::LogLine;
use tokio::sync::watch;

use super::{Copy, Part, Records, Source, convert, trouble};

/// How long to wait before a copy that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A copy's next record, or that it has no more.
type Told = (Copy, Option<Result<LogRecord, Refusal>>);

/// What is being written.
pub(super) struct Following {
    source: Source,
    request: LogRequest,
    changes: watch::Receiver<u64>,
    merged: SelectAll<BoxStream<'static, Told>>,
    /// Units that are read, or were read to their end.
    known: HashSet<UnitId>,
    /// Units that could not be read and are tried again after a rest.
    resting: HashSet<UnitId>,
    /// Units whose trouble was told and is not over.
    troubled: HashSet<UnitId>,
    /// The unit that has each slot.
    slots: HashMap<u32, UnitId>,
    /// Units that took another's place while this was read.
    newcomers: HashSet<UnitId>,
    /// The latest moment told of each unit, and how many of its records: one that broke off goes on there.
    told_until: HashMap<UnitId, (Timestamp, usize)>,
    notices: Vec<LogLine>,
    is_over: bool,
}

impl Following {
    pub(super) fn start(
        source: Source,
        request: LogRequest,
        opened: Vec<(Copy, Records)>,
        failed: Vec<(Copy, Refusal)>,
    ) -> Self {
        let changes = source.control.watch_changes();
        let mut following = Self {
            source,
            request,
            changes,
            merged: SelectAll::new(),
            known: HashSet::new(),
            resting: HashSet::new(),
            troubled: HashSet::new(),
            slots: HashMap::new(),
            newcomers: HashSet::new(),
            told_until: HashMap::new(),
            notices: Vec::new(),
            is_over: false,
        };
        for (copy, _) in &opened {
            following.seat(copy);
        }
        for (copy, _) in &failed {
            following.seat(copy);
        }
        following.take(opened, failed);
        following
    }

    pub(super) fn parts(self) -> impl Stream<Item = Part> + Send + 'static {
        stream::unfold(self, async |mut following| {
            if following.is_over {
                return None;
            }
            let part = following.next().await.map_or_else(
                || {
                    following.is_over = true;
                    Part::End
                },
                Part::Line,
            );
            Some((part, following))
        })
    }

    fn take(&mut self, opened: Vec<(Copy, Records)>, failed: Vec<(Copy, Refusal)>) {
        for (copy, records) in opened {
            self.known.insert(copy.unit());
            self.troubled.remove(&copy.unit());
            let ended = Arc::clone(&copy);
            let records = records.map(move |record| (Arc::clone(&copy), Some(record)));
            let end = stream::once(async move { (ended, None) });
            self.merged.push(records.chain(end).boxed());
        }
        for (copy, refusal) in failed {
            self.rest(&copy, &refusal);
        }
    }

    /// A copy that has written nothing yet is waited for in silence; any other trouble is told.
    fn rest(&mut self, copy: &Copy, refusal: &Refusal) {
        self.known.remove(&copy.unit());
        self.resting.insert(copy.unit());
        // It is tried again and again, but told once.
        if refusal.code != Code::LogNotFound && self.troubled.insert(copy.unit()) {
            self.notices
                .push(trouble(&self.source.control, copy, refusal));
        }
    }

    /// Gives the copy its slot, if no newer generation has it. Answers whose place it took.
    fn seat(&mut self, copy: &Copy) -> Option<UnitId> {
        let unit = copy.unit();
        match self.slots.get(&copy.slot) {
            Some(other) if other.generation >= unit.generation => None,
            _ => self.slots.insert(copy.slot, unit),
        }
    }

    /// Marks the place where a copy takes over from another.
    fn greet(&mut self, copy: &Copy) {
        if self.seat(copy).is_none() {
            return;
        }
        self.newcomers.insert(copy.unit());
        let control = &self.source.control;
        let node = control.view().node(copy.node).map(|it| it.name.clone());
        let text = format!(
            "the copy was replaced: its log goes on from {}",
            node.unwrap_or_default()
        );
        let at = Timestamp::from_millis(control.clock().wall_millis());
        self.notices.push(convert::notice(at, text, copy));
    }

    /// The next line, or none if nothing more can come.
    async fn next(&mut self) -> Option<LogLine> {
        loop {
            if let Some(notice) = self.notices.pop() {
                return Some(notice);
            }
            if self.merged.is_empty() && self.is_settled() {
                return None;
            }
            // Every arm is cancel-safe: the streams are only borrowed, and the watch keeps its mark.
            tokio::select! {
                told = self.merged.next(), if !self.merged.is_empty() => match told {
                    Some((copy, Some(Ok(record)))) => {
                        self.note_told(copy.unit(), &record);
                        return Some(convert::line(record, &copy));
                    }
                    Some((copy, Some(Err(refusal)))) => self.rest(&copy, &refusal),
                    // One has ended, or the last one has: that may settle it, and no change need follow.
                    Some((_, None)) | None => {}
                },
                changed = self.changes.changed() => {
                    changed.ok()?;
                    self.join_new().await;
                }
                () = tokio::time::sleep(RETRY), if !self.resting.is_empty() => {
                    self.resting.clear();
                    self.join_new().await;
                }
            }
        }
    }

    /// Whether no copy can write any more: the workload is gone, or everything has ended for good.
    fn is_settled(&self) -> bool {
        let view = self.source.control.view();
        let Some(workload) = view.workload(self.source.workload) else {
            return true;
        };
        let mut copies = view.assignments_of(workload.id);
        let has_ended = copies.all(|copy| copy.is_finished());
        has_ended && view.pending_copies(workload.id) == 0 && self.resting.is_empty()
    }

    /// Opens the logs of copies that are not read yet.
    async fn join_new(&mut self) {
        let copies = self.source.copies();
        let units: HashSet<UnitId> = copies.iter().map(|copy| copy.unit()).collect();
        self.known.retain(|unit| units.contains(unit));
        self.resting.retain(|unit| units.contains(unit));
        self.troubled.retain(|unit| units.contains(unit));
        self.newcomers.retain(|unit| units.contains(unit));
        self.told_until.retain(|unit, _| units.contains(unit));
        for copy in copies {
            let unit = copy.unit();
            if self.known.contains(&unit) || self.resting.contains(&unit) {
                continue;
            }
            self.greet(&copy);
            let request = self.request_from(unit);
            let (opened, failed) = self.source.open_all(&[copy], request).await;
            let told = self.told_until.get(&unit).copied();
            let opened = opened
                .into_iter()
                .map(|(copy, records)| (copy, untold(records, told.unwrap_or_default())));
            self.take(opened.collect(), failed);
        }
    }

    /// Notices are not counted: not all of them are in the node's log, and a reader rather sees one twice
    /// than misses a line.
    fn note_told(&mut self, unit: UnitId, record: &LogRecord) {
        if record.stream == LogStream::Notice {
            return;
        }
        match self.told_until.entry(unit) {
            Entry::Vacant(entry) => {
                // A tail begins anywhere within its first moment; what lies before is not asked for.
                let count = self.request.tail.map_or(1, |_| usize::MAX);
                entry.insert((record.at, count));
            }
            Entry::Occupied(mut entry) => {
                let (at, count) = entry.get_mut();
                if record.at == *at {
                    *count = count.saturating_add(1);
                } else if record.at > *at {
                    entry.insert((record.at, 1));
                }
            }
        }
    }

    /// Goes on where a unit broke off, at the beginning of the moment of which something was told.
    fn request_from(&self, unit: UnitId) -> LogRequest {
        match self.told_until.get(&unit) {
            // All that it has written was written while this was read.
            None if self.newcomers.contains(&unit) => LogRequest {
                follow: true,
                ..LogRequest::default()
            },
            None => self.request,
            Some((at, _)) => LogRequest {
                since: Some(*at),
                tail: None,
                ..self.request
            },
        }
    }
}

/// Leaves out the first so many records of the moment.
fn untold(records: Records, (at, mut count): (Timestamp, usize)) -> Records {
    let untold = records.filter(move |record| {
        let is_told = count > 0
            && record
                .as_ref()
                .is_ok_and(|it| it.at == at && it.stream != LogStream::Notice);
        if is_told {
            count -= 1;
        }
        future::ready(!is_told)
    });
    untold.boxed()
}

//! Logs: the lines of one copy, or of all copies of a workload merged into one stream.
//!
//! What has been written is merged by time. While following, lines come as they are written, and copies that
//! appear later (placed, restarted, moved) join the stream. A copy whose node cannot be reached is told as a
//! notice and tried again; only if no copy at all can be read is the request refused.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{Response, sse};
use futures::stream::{self, BoxStream, Peekable, SelectAll};
use futures::{Stream, StreamExt as _};
use hostler_control::{Control, LogRecord, LogRequest};
use hostler_model::{Assignment, Code, Refusal, Timestamp, UnitId, WorkloadId};
use hostler_wire::api::{self, LogLine, LogQuery};
use serde_json::Value;
use tokio::sync::watch;

use super::events::{answer, sse_event};
use super::refuse::{Failure, problem};
use super::take::{Query, Target};
use super::{Api, convert};

/// Most copies whose logs are read at a time.
const MOST_COPIES: usize = 64;
/// How long to wait before a copy that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(2);

type Copy = Arc<Assignment>;
type Records = BoxStream<'static, Result<LogRecord, Refusal>>;
type Told = (Copy, Option<Result<LogRecord, Refusal>>);

/// The lines of all copies of a workload, each with its copy.
#[utoipa::path(get, path = "/api/v1/workloads/{id}/logs", tag = "logs",
    params(("id" = String, Path, description = "Id, part of an id, or name"), LogQuery),
    responses((status = 200, body = LogLine, content_type = "text/event-stream"),
        (status = "default", body = api::Problem)))]
pub(super) async fn of_workload(
    State(api): State<Api>,
    Target(target): Target,
    Query(query): Query<LogQuery>,
) -> Result<Response, Failure> {
    let request = request(&query)?;
    let workload = api.control.view().find_workload(&target)?.id;
    let source = Source {
        control: api.control.clone(),
        workload,
        slot: query.slot,
        one: None,
    };
    source.open(request).await
}

/// The lines of one copy.
#[utoipa::path(get, path = "/api/v1/assignments/{id}/logs", tag = "logs",
    params(("id" = String, Path, description = "Id or part of an id"), LogQuery),
    responses((status = 200, body = LogLine, content_type = "text/event-stream"),
        (status = "default", body = api::Problem)))]
pub(super) async fn of_assignment(
    State(api): State<Api>,
    Target(target): Target,
    Query(query): Query<LogQuery>,
) -> Result<Response, Failure> {
    let request = request(&query)?;
    let copy = Arc::clone(api.control.view().find_assignment(&target)?);
    let (control, workload) = (api.control.clone(), copy.workload);
    let source = Source {
        control,
        workload,
        slot: None,
        one: Some(copy.id),
    };
    source.open(request).await
}

fn request(query: &LogQuery) -> Result<LogRequest, Failure> {
    let since = query.since.as_deref().map(|text| {
        let refused = || Failure::bad(format!("since: `{text}` is no moment; write RFC 3339"));
        Timestamp::parse(text).ok_or_else(refused)
    });
    Ok(LogRequest {
        previous: query.previous,
        tail: query.tail,
        since: since.transpose()?,
        follow: query.follow,
    })
}

/// Whose logs.
#[derive(Clone)]
struct Source {
    control: Control,
    workload: WorkloadId,
    slot: Option<u32>,
    one: Option<hostler_model::AssignmentId>,
}

impl Source {
    async fn open(self, request: LogRequest) -> Result<Response, Failure> {
        let control = self.control.clone();
        let copies = self.copies();
        let (opened, failed) = self.open_all(&copies, request).await;
        if request.follow {
            return Ok(answer(
                Following::start(self, request, opened, failed).lines(),
                &control,
            ));
        }
        if opened.is_empty() {
            let refusal = failed
                .into_iter()
                .next()
                .map(|(_, refusal)| Failure(refusal));
            return Err(refusal.unwrap_or_else(no_copy));
        }
        let merged = Merged::of(&control, opened, failed);
        Ok(answer(stream::unfold(merged, Merged::next), &control))
    }

    /// The copies to read, the wanted ones first.
    fn copies(&self) -> Vec<Copy> {
        let view = self.control.view();
        let is_asked = |copy: &&Copy| {
            self.slot.is_none_or(|slot| copy.slot == slot)
                && self.one.is_none_or(|one| copy.id == one)
        };
        let mut copies: Vec<Copy> = view
            .assignments_of(self.workload)
            .filter(is_asked)
            .map(Arc::clone)
            .collect();
        copies.sort_by_key(|copy| (!copy.is_wanted(), copy.slot, copy.generation));
        copies.truncate(MOST_COPIES);
        copies
    }

    async fn open_all(
        &self,
        copies: &[Copy],
        request: LogRequest,
    ) -> (Vec<(Copy, Records)>, Vec<(Copy, Refusal)>) {
        let opening = copies
            .iter()
            .map(async |copy| (Arc::clone(copy), self.control.logs(copy.id, request).await));
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for (copy, result) in futures::future::join_all(opening).await {
            match result {
                Ok(records) => opened.push((copy, records)),
                Err(refusal) => failed.push((copy, refusal)),
            }
        }
        (opened, failed)
    }
}

/// What has been written, merged by time: the earliest head of all copies is next.
struct Merged {
    copies: Vec<(Copy, Pin<Box<Peekable<Records>>>)>,
    notices: Vec<LogLine>,
    /// One copy's failure is the stream's; among several it is only told.
    is_alone: bool,
    is_over: bool,
}

impl Merged {
    fn of(control: &Control, opened: Vec<(Copy, Records)>, failed: Vec<(Copy, Refusal)>) -> Self {
        let notices = failed.iter().map(|(copy, refusal)| {
            notice(
                control,
                &format!("{}: {}", refusal.code, refusal.sentence),
                copy,
            )
        });
        Self {
            is_alone: opened.len() + failed.len() == 1,
            notices: notices.collect(),
            copies: opened
                .into_iter()
                .map(|(copy, it)| (copy, Box::pin(it.peekable())))
                .collect(),
            is_over: false,
        }
    }

    async fn next(mut self) -> Option<(sse::Event, Self)> {
        if self.is_over {
            return None;
        }
        if let Some(notice) = self.notices.pop() {
            return Some((sse_event(api::stream::LINE, &notice), self));
        }
        let Some(index) = self.earliest().await else {
            self.is_over = true;
            return Some((sse_event(api::stream::END, &Value::Null), self));
        };
        let (copy, records) = &mut self.copies[index];
        let shown = match records.next().await? {
            Ok(record) => sse_event(api::stream::LINE, &convert::line(record, copy)),
            Err(refusal) if self.is_alone => {
                self.is_over = true;
                sse_event(api::stream::PROBLEM, &problem(refusal))
            }
            Err(refusal) => {
                let text = format!("{}: {}", refusal.code, refusal.sentence);
                let line = convert::notice(Timestamp::default(), text, copy);
                sse_event(api::stream::LINE, &line)
            }
        };
        Some((shown, self))
    }

    /// Which copy's head is the earliest; copies at their end are left behind.
    async fn earliest(&mut self) -> Option<usize> {
        let mut earliest: Option<(usize, Timestamp)> = None;
        let mut index = 0;
        while let Some((_, records)) = self.copies.get_mut(index) {
            let at = match records.as_mut().peek().await {
                // A failure is told at once.
                Some(Err(_)) => Timestamp::default(),
                Some(Ok(record)) => record.at,
                None => {
                    drop(self.copies.remove(index));
                    continue;
                }
            };
            if earliest.is_none_or(|(_, earlier)| at < earlier) {
                earliest = Some((index, at));
            }
            index += 1;
        }
        earliest.map(|(index, _)| index)
    }
}

/// What is being written.
struct Following {
    source: Source,
    request: LogRequest,
    changes: watch::Receiver<u64>,
    merged: SelectAll<BoxStream<'static, Told>>,
    /// Units that are read, or were read to their end.
    known: HashSet<UnitId>,
    /// Units that could not be read and are tried again after a rest.
    resting: HashSet<UnitId>,
    /// The last moment told of each unit, so that one that broke off goes on there.
    told_until: HashMap<UnitId, Timestamp>,
    notices: Vec<LogLine>,
    is_over: bool,
}

impl Following {
    fn start(
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
            told_until: HashMap::new(),
            notices: Vec::new(),
            is_over: false,
        };
        following.take(opened, failed);
        following
    }

    fn lines(self) -> impl Stream<Item = sse::Event> + Send + 'static {
        stream::unfold(self, async |mut following| {
            if following.is_over {
                return None;
            }
            let shown = match following.next().await {
                Some(line) => sse_event(api::stream::LINE, &line),
                None => {
                    following.is_over = true;
                    sse_event(api::stream::END, &Value::Null)
                }
            };
            Some((shown, following))
        })
    }

    fn take(&mut self, opened: Vec<(Copy, Records)>, failed: Vec<(Copy, Refusal)>) {
        for (copy, records) in opened {
            self.known.insert(copy.unit());
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
        if refusal.code != Code::LogNotFound {
            let text = format!("{}: {}", refusal.code, refusal.sentence);
            self.notices.push(notice(&self.source.control, &text, copy));
        }
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
                Some((copy, record)) = self.merged.next() => match record {
                    Some(Ok(record)) => {
                        self.told_until.insert(copy.unit(), record.at);
                        return Some(convert::line(record, &copy));
                    }
                    Some(Err(refusal)) => self.rest(&copy, &refusal),
                    None => {}
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
        self.told_until.retain(|unit, _| units.contains(unit));
        for copy in copies {
            let unit = copy.unit();
            if self.known.contains(&unit) || self.resting.contains(&unit) {
                continue;
            }
            let request = self.request_from(unit);
            let (opened, failed) = self.source.open_all(&[copy], request).await;
            self.take(opened, failed);
        }
    }

    /// Goes on where a unit broke off.
    fn request_from(&self, unit: UnitId) -> LogRequest {
        match self.told_until.get(&unit) {
            None => self.request,
            Some(at) => {
                let since = Some(at.plus(Duration::from_millis(1)));
                LogRequest {
                    since,
                    tail: None,
                    ..self.request
                }
            }
        }
    }
}

fn notice(control: &Control, text: &str, copy: &Copy) -> LogLine {
    let at = Timestamp::from_millis(control.clock().wall_millis());
    convert::notice(at, text.to_owned(), copy)
}

fn no_copy() -> Failure {
    let sentence = "there is no copy whose log could be read";
    let advice = "`hostler why` tells why copies have no node";
    Failure(Refusal::new(Code::LogNotFound, sentence, advice))
}

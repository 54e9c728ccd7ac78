//! Logs: the lines of one copy, or of all copies of a workload merged into one stream.
//!
//! What has been written is merged by time. While following, lines come as they are written, and copies that
//! appear later (placed, restarted, moved) join the stream. A copy whose node cannot be reached is told as a
//! notice and tried again; only if no copy at all can be read is the request refused.
//!
//! The same parts go out as server-sent events, or as the frames of a WebSocket to who asks for one.

mod following;
mod merged;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::response::sse;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_control::{Control, LogRecord, LogRequest};
use hostler_model::{Assignment, AssignmentId, Refusal, Timestamp, WorkloadId};
use hostler_wire::api::{self, LogLine, LogQuery};

use self::following::Following;
use self::merged::Merged;
use super::events::{answer, sse_event};
use super::refuse::{Failure, problem};
use super::socket::{Form, Socket};
use super::take::{Query, Stay, Target};
use super::{Api, convert};
use crate::access::Warrant;

/// Most copies whose logs are read at a time.
const MOST_COPIES: usize = 64;

type Copy = Arc<Assignment>;
type Records = BoxStream<'static, Result<LogRecord, Refusal>>;

/// A piece of what a reader is told.
#[derive(Debug)]
pub(super) enum Part {
    Line(LogLine),
    /// What ended the log before its end.
    Problem(api::Problem),
    End,
}

/// The lines of all copies of a workload, each with its copy.
#[utoipa::path(get, path = "/api/v1/workloads/{id}/logs", tag = "logs",
    params(("id" = String, Path, description = "Id, part of an id, or name"), LogQuery),
    responses((status = 200, body = LogLine, content_type = "text/event-stream"),
        (status = "default", body = api::Problem)))]
pub(super) async fn of_workload(
    State(api): State<Api>,
    (Target(target), Stay(stay)): (Target, Stay),
    Query(query): Query<LogQuery>,
    socket: Option<Socket>,
) -> Result<Response, Failure> {
    let request = request(&query)?;
    let workload = api.control.view().find_workload(&target)?.id;
    let source = Source {
        control: api.control.clone(),
        workload,
        slot: query.slot,
        one: None,
    };
    source.answer((request, stay), socket, &api).await
}

/// The lines of one copy.
#[utoipa::path(get, path = "/api/v1/assignments/{id}/logs", tag = "logs",
    params(("id" = String, Path, description = "Id or part of an id"), LogQuery),
    responses((status = 200, body = LogLine, content_type = "text/event-stream"),
        (status = "default", body = api::Problem)))]
pub(super) async fn of_assignment(
    State(api): State<Api>,
    (Target(target), Stay(stay)): (Target, Stay),
    Query(query): Query<LogQuery>,
    socket: Option<Socket>,
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
    source.answer((request, stay), socket, &api).await
}

/// The live tail of a workload, as text: for contracts that know no more.
pub(super) async fn tail(
    api: &Api,
    workload: WorkloadId,
    (lines, stay): (u64, Warrant),
) -> Result<BoxStream<'static, Part>, Failure> {
    let source = Source {
        control: api.control.clone(),
        workload,
        slot: None,
        one: None,
    };
    let request = LogRequest {
        tail: Some(lines),
        follow: true,
        ..LogRequest::default()
    };
    source.open(request, stay).await
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
    one: Option<AssignmentId>,
}

impl Source {
    async fn answer(
        self,
        (request, stay): (LogRequest, Warrant),
        socket: Option<Socket>,
        api: &Api,
    ) -> Result<Response, Failure> {
        // Room is taken before anything is opened for it.
        let socket = socket.map(|it| it.enter(&api.sockets)).transpose()?;
        let parts = self.open(request, stay).await?;
        Ok(match socket {
            None => answer(parts.map(event), &api.control),
            Some(socket) => socket.tell(parts, Form::Json, &api.control),
        })
    }

    async fn open(
        self,
        request: LogRequest,
        stay: Warrant,
    ) -> Result<BoxStream<'static, Part>, Failure> {
        let word = |refusal| Part::Problem(problem(refusal));
        let control = self.control.clone();
        let copies = self.copies();
        let (opened, failed) = self.open_all(&copies, request).await;
        if request.follow {
            let following = Following::start(self, request, opened, failed);
            return Ok(stay.limit(following.parts(), word));
        }
        let merged = Merged::start(&control, opened, failed).await?;
        Ok(stay.limit(merged.parts(), word))
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

fn event(part: Part) -> sse::Event {
    match part {
        Part::Line(line) => sse_event(api::stream::LINE, &line),
        Part::Problem(problem) => sse_event(api::stream::PROBLEM, &problem),
        Part::End => sse_event(api::stream::END, &serde_json::Value::Null),
    }
}

/// What stands against a copy, as a line of its log.
fn trouble(control: &Control, copy: &Copy, refusal: &Refusal) -> LogLine {
    let at = Timestamp::from_millis(control.clock().wall_millis());
    convert::notice(at, format!("{}: {}", refusal.code, refusal.sentence), copy)
}

//! Logs: the lines of one copy, or of all copies of a workload merged into one stream.
//!
//! What has been written is merged by time. While following, lines come as they are written, and copies that
//! appear later (placed, restarted, moved) join the stream. A copy whose node cannot be reached is told as a
//! notice and tried again; only if no copy at all can be read is the request refused.

mod following;
mod merged;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures::stream::BoxStream;
use hostler_control::{Control, LogRecord, LogRequest};
use hostler_model::{Assignment, AssignmentId, Refusal, Timestamp, WorkloadId};
use hostler_wire::api::{self, LogLine, LogQuery};

use self::following::Following;
use self::merged::Merged;
use super::events::{answer, sse_event};
use super::refuse::{Failure, problem};
use super::take::{Query, Target};
use super::{Api, convert};

/// Most copies whose logs are read at a time.
const MOST_COPIES: usize = 64;

type Copy = Arc<Assignment>;
type Records = BoxStream<'static, Result<LogRecord, Refusal>>;

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
    one: Option<AssignmentId>,
}

impl Source {
    async fn open(self, request: LogRequest) -> Result<Response, Failure> {
        let control = self.control.clone();
        let copies = self.copies();
        let (opened, failed) = self.open_all(&copies, request).await;
        if request.follow {
            let following = Following::start(self, request, opened, failed);
            return Ok(answer(following.lines(), &control));
        }
        let merged = Merged::start(&control, opened, failed).await?;
        Ok(answer(merged.lines(), &control))
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

/// What stands against a copy, as a line of its log.
fn trouble(control: &Control, copy: &Copy, refusal: &Refusal) -> LogLine {
    let at = Timestamp::from_millis(control.clock().wall_millis());
    convert::notice(at, format!("{}: {}", refusal.code, refusal.sentence), copy)
}

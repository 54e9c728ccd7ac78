//! The log relay: finds the node of a copy, opens its log over the node's link, and passes it on through a
//! bounded channel. A reader that is too slow for a log that is followed gets a marked gap; it never holds
//! the node back for long. While the node is out of reach, who does not follow is told what the black box has.
//!
//! The relay task is owned by the reader: it ends when either side does. What can fail: the copy is
//! unknown, its node is not connected, or the node refuses.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hostler_model::{AssignmentId, Code, NodeId, Refusal, Timestamp, UnitId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::reach::Reached;
use crate::until::while_member;
use crate::{Control, Link, LogRecord, LogRequest, LogStream, refusals};

type Records = BoxStream<'static, Result<LogRecord, Refusal>>;

/// Records between a node and a reader.
const CHANNEL: usize = 1_024;
/// How long a full channel holds a followed log back before records are skipped.
const FOLLOW_PATIENCE: Duration = Duration::from_millis(250);
/// The same for a log that is read to its end: then the reader is believed dead.
const READ_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn open(
    control: &Control,
    assignment: AssignmentId,
    query: LogRequest,
) -> Result<Records, Refusal> {
    let Reached {
        unit,
        node,
        name,
        link,
    } = Reached::find(control, assignment)?;
    let source = match from_node(control, link, (unit, &name), query).await {
        Ok(source) => source,
        Err(refusal) if refusal.code == Code::NodeUnreachable && !query.follow => {
            let kept = kept(control, (node, unit), &name, query);
            return kept
                .map(|it| stream::iter(it.into_iter().map(Ok)).boxed())
                .ok_or(refusal);
        }
        Err(refusal) => return Err(refusal),
    };
    let source = while_member(control, (node, name), source);
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let relay = Relay {
        sender,
        follow: query.follow,
        skipped: 0,
        last: Timestamp::default(),
    };
    control.shared.spawn("log relay", relay.run(source));
    Ok(ReceiverStream::new(receiver).boxed())
}

async fn from_node(
    control: &Control,
    link: Option<Arc<dyn Link>>,
    (unit, name): (UnitId, &str),
    query: LogRequest,
) -> Result<Records, Refusal> {
    let link = link.ok_or_else(|| refusals::unreachable(name))?;
    let patience = control.shared.config.patience;
    let opened = tokio::time::timeout(patience, link.logs(unit, query)).await;
    opened.map_err(|_| refusals::unreachable(name))?
}

/// What was kept of the unit's latest run that ended, or of the one before, behind a word that says so.
fn kept(
    control: &Control,
    (node, unit): (NodeId, UnitId),
    name: &str,
    query: LogRequest,
) -> Option<Vec<LogRecord>> {
    let parts = control.shared.black_box.parts_of(unit);
    let entry = control.shared.live.get(node);
    let told = entry.and_then(|it| it.lock().observed_unit(unit).map(|unit| unit.runs));
    let latest = parts.last()?.run.max(told.unwrap_or_default());
    let mut parts = parts.into_iter().rev();
    let part = parts.find(|part| !query.previous || part.run < latest)?;
    let is_asked = |record: &&LogRecord| query.since.is_none_or(|since| record.at >= since);
    let mut records: Vec<LogRecord> = part.records.iter().filter(is_asked).cloned().collect();
    if let Some(tail) = query.tail.and_then(|tail| usize::try_from(tail).ok()) {
        records.drain(..records.len().saturating_sub(tail));
    }
    let text = format!(
        "node {name} is out of reach: this is the end of run {}, as the control plane kept it",
        part.run
    );
    let notice = LogRecord {
        at: records.first().map(|record| record.at).unwrap_or_default(),
        stream: LogStream::Notice,
        text,
        is_partial: false,
        run: part.run,
    };
    records.insert(0, notice);
    Some(records)
}

/// Passes records on and counts what a slow reader misses.
struct Relay {
    sender: mpsc::Sender<Result<LogRecord, Refusal>>,
    follow: bool,
    skipped: u64,
    last: Timestamp,
}

impl Relay {
    async fn run(mut self, mut source: Records) {
        let sender = self.sender.clone();
        loop {
            let record = tokio::select! {
                biased;
                () = sender.closed() => return,
                record = source.next() => record,
            };
            let passed = match record {
                Some(record) => self.pass(record).await,
                None => false,
            };
            if !passed {
                break;
            }
        }
        self.mark_gap(READ_PATIENCE).await;
    }

    /// Says whether to go on.
    async fn pass(&mut self, record: Result<LogRecord, Refusal>) -> bool {
        if let Ok(record) = &record {
            self.last = record.at;
        }
        if self.skipped > 0 && !self.mark_gap(Duration::ZERO).await {
            self.skipped += 1;
            return !self.sender.is_closed();
        }
        let patience = if self.follow {
            FOLLOW_PATIENCE
        } else {
            READ_PATIENCE
        };
        match self.sender.send_timeout(record, patience).await {
            Ok(()) => true,
            Err(mpsc::error::SendTimeoutError::Timeout(_)) if self.follow => {
                self.skipped = 1;
                true
            }
            Err(_) => false,
        }
    }

    /// Tells the reader what it missed, if there is room to. Says whether nothing is untold any more.
    async fn mark_gap(&mut self, patience: Duration) -> bool {
        if self.skipped == 0 {
            return true;
        }
        let notice = LogRecord {
            at: self.last,
            stream: LogStream::Notice,
            text: format!(
                "{} lines were skipped: the reader is too slow",
                self.skipped
            ),
            is_partial: false,
            run: 0,
        };
        let told = if patience.is_zero() {
            self.sender.try_send(Ok(notice)).is_ok()
        } else {
            self.sender.send_timeout(Ok(notice), patience).await.is_ok()
        };
        if told {
            self.skipped = 0;
        }
        told
    }
}

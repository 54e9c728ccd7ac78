//! The black box: the last part of what each run wrote that ended, fetched from its node while that could still be
//! asked. When the node is lost, it is what tells why.
//!
//! ```text
//!   a node tells that a run ended ──► fetched over its link, a few at a time ──► kept, the oldest go first
//!                                                                                     │
//!   a log is asked for and the node is out of reach ◄─────────────────────────────────┘
//! ```
//!
//! Kept in memory, bounded per run, copy, workload and in all: it outlives nodes, not this server. What cannot be
//! fetched is not kept, and nobody waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use hostler_model::{ObservedUnit, UnitId, UnitState, WorkloadId};
use tokio::sync::Semaphore;

use crate::{Control, Link, LogRecord, LogRequest, LogStream};

const RUN_LINES: u64 = 500;
const RUN_BYTES: usize = 64 << 10;
/// The run that ended last and the one before it, as on the node.
const COPY_RUNS: usize = 2;
const WORKLOAD_BYTES: usize = 1 << 20;
const ALL_BYTES: usize = 32 << 20;
const ALL_RUNS: usize = 4_096;
/// What a record takes beside its text.
const RECORD_BYTES: usize = size_of::<LogRecord>();
/// Logs that are fetched at once, and that may wait for it: a fleet that crashes as one is not asked as one.
const FETCHES_AT_ONCE: usize = 4;
const FETCHES_WAITING: usize = 256;
const FETCH_PATIENCE: Duration = Duration::from_secs(30);

/// What is kept.
pub(crate) struct BlackBox {
    kept: Mutex<Kept>,
    waiting: Arc<Semaphore>,
    turns: Semaphore,
}

/// The last part of one run's log.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) run: u32,
    pub(crate) records: Arc<[LogRecord]>,
    unit: UnitId,
    workload: WorkloadId,
    bytes: usize,
}

/// A run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    unit: UnitId,
    workload: WorkloadId,
    run: u32,
    /// Another has begun since.
    is_previous: bool,
}

/// The oldest first.
#[derive(Default)]
struct Kept {
    parts: VecDeque<Part>,
    bytes: usize,
}

impl Default for BlackBox {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            waiting: Arc::new(Semaphore::new(FETCHES_WAITING)),
            turns: Semaphore::new(FETCHES_AT_ONCE),
        }
    }
}

impl Ended {
    /// The run that has ended between what was known of a unit and what its node tells now.
    pub(crate) fn between(before: Option<&ObservedUnit>, now: &ObservedUnit) -> Option<Self> {
        let is_known = before.is_some_and(|it| is_over(&it.state) && it.runs >= now.runs);
        let run = match (&now.state, before) {
            // What ended for good before this server knew of it is no news; what is tried again may be lost soon.
            (UnitState::Finished { .. }, None) => return None,
            (state, _) if is_over(state) && !is_known => now.runs,
            (UnitState::Starting | UnitState::Running { .. }, Some(before))
                if !is_over(&before.state) && (1..now.runs).contains(&before.runs) =>
            {
                now.runs - 1
            }
            _ => return None,
        };
        (run > 0).then_some(Self {
            unit: now.unit,
            workload: now.workload,
            run,
            is_previous: run < now.runs,
        })
    }
}

impl BlackBox {
    /// What is kept of a unit's runs, in order.
    pub(crate) fn parts_of(&self, unit: UnitId) -> Vec<Part> {
        let kept = self.lock();
        let mut parts: Vec<Part> = kept
            .parts
            .iter()
            .filter(|part| part.unit == unit)
            .cloned()
            .collect();
        parts.sort_by_key(|part| part.run);
        parts
    }

    fn keep(&self, ended: Ended, records: Vec<LogRecord>) {
        let bytes = records.iter().map(size_of_record).sum();
        self.lock().add(Part {
            run: ended.run,
            records: records.into(),
            unit: ended.unit,
            workload: ended.workload,
            bytes,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, part: Part) {
        let (unit, workload, run) = (part.unit, part.workload, part.run);
        self.drop_where(1, |it| it.unit == unit && it.run == run);
        self.bytes += part.bytes;
        self.parts.push_back(part);
        let runs = self.parts.iter().filter(|it| it.unit == unit).count();
        self.drop_where(runs.saturating_sub(COPY_RUNS), |it| it.unit == unit);
        while self.bytes_of(workload) > WORKLOAD_BYTES {
            self.drop_where(1, |it| it.workload == workload);
        }
        while self.bytes > ALL_BYTES || self.parts.len() > ALL_RUNS {
            self.drop_where(1, |_| true);
        }
    }

    fn bytes_of(&self, workload: WorkloadId) -> usize {
        let of_workload = self.parts.iter().filter(|it| it.workload == workload);
        of_workload.map(|part| part.bytes).sum()
    }

    /// Drops the oldest so many of those.
    fn drop_where(&mut self, mut count: usize, fits: impl Fn(&Part) -> bool) {
        let bytes = &mut self.bytes;
        self.parts.retain(|part| {
            let goes = count > 0 && fits(part);
            if goes {
                count -= 1;
                *bytes -= part.bytes;
            }
            !goes
        });
    }
}

/// Fetches the last parts of runs that have ended, in the background.
pub(crate) fn fetch(control: &Control, link: &Arc<dyn Link>, ended: Vec<Ended>) {
    for ended in ended {
        let waiting = Arc::clone(&control.shared.black_box.waiting);
        let Ok(place) = waiting.try_acquire_owned() else {
            tracing::debug!(unit = %ended.unit, "too many runs end at once: the log of one is not kept");
            return;
        };
        let (of_task, link) = (control.clone(), Arc::clone(link));
        control.shared.spawn("black box", async move {
            let black_box = &of_task.shared.black_box;
            let Ok(_turn) = black_box.turns.acquire().await else {
                return;
            };
            let read = tokio::time::timeout(FETCH_PATIENCE, last_part(&*link, ended)).await;
            if let Ok(Some(records)) = read {
                black_box.keep(ended, records);
            }
            drop(place);
        });
    }
}

/// Reads the end of the run's log; none if the node does not give it.
async fn last_part(link: &dyn Link, ended: Ended) -> Option<Vec<LogRecord>> {
    // A unit that has begun another run since has this one as its previous.
    for previous in [ended.is_previous, true] {
        let query = LogRequest {
            previous,
            tail: Some(RUN_LINES),
            ..LogRequest::default()
        };
        let mut log = link.logs(ended.unit, query).await.ok()?;
        let (mut records, mut bytes) = (VecDeque::new(), 0);
        let mut is_later = false;
        while let Some(Ok(record)) = log.next().await {
            if record.stream != LogStream::Notice && record.run > ended.run {
                is_later = true;
                break;
            }
            bytes += size_of_record(&record);
            records.push_back(record);
            while bytes > RUN_BYTES
                && let Some(oldest) = records.pop_front()
            {
                bytes -= size_of_record(&oldest);
            }
        }
        if !is_later {
            return Some(records.into());
        }
    }
    None
}

const fn is_over(state: &UnitState) -> bool {
    matches!(
        state,
        UnitState::Waiting { .. } | UnitState::Finished { .. }
    )
}

fn size_of_record(record: &LogRecord) -> usize {
    record.text.len() + RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::Kind;
    use hostler_model::{AssignmentId, Exit, Timestamp};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1);

    fn unit(number: u128) -> UnitId {
        UnitId {
            assignment: AssignmentId::mint(NOW, number),
            generation: 1,
        }
    }

    fn observed(state: UnitState, runs: u32) -> ObservedUnit {
        ObservedUnit {
            unit: unit(1),
            workload: WorkloadId::mint(NOW, 1),
            kind: Kind::Process,
            state,
            runs,
            parts: Vec::new(),
            health: None,
            crash_loop: None,
        }
    }

    fn running(runs: u32) -> ObservedUnit {
        observed(UnitState::Running { since: NOW }, runs)
    }

    fn waiting(runs: u32) -> ObservedUnit {
        let exit = Exit::Code(1);
        observed(
            UnitState::Waiting {
                exit,
                retry_at: NOW,
            },
            runs,
        )
    }

    fn finished(runs: u32) -> ObservedUnit {
        let exit = Exit::Code(0);
        observed(UnitState::Finished { exit, at: NOW }, runs)
    }

    #[test]
    fn each_end_of_a_run_is_seen_once() {
        let seen = |before: Option<&ObservedUnit>, now: &ObservedUnit| {
            Ended::between(before, now).map(|ended| (ended.run, ended.is_previous))
        };
        assert_eq!(seen(Some(&running(1)), &waiting(1)), Some((1, false)));
        assert_eq!(seen(Some(&waiting(1)), &waiting(1)), None);
        assert_eq!(seen(Some(&waiting(1)), &running(2)), None);
        // A restart so quick that only its result is told.
        assert_eq!(seen(Some(&running(1)), &running(2)), Some((1, true)));
        assert_eq!(seen(Some(&waiting(1)), &waiting(2)), Some((2, false)));
        assert_eq!(seen(Some(&running(2)), &finished(2)), Some((2, false)));
        assert_eq!(seen(Some(&running(2)), &running(2)), None);
        // After a hello: what waits is fetched, what ended long ago is not.
        assert_eq!(seen(None, &waiting(3)), Some((3, false)));
        assert_eq!(seen(None, &finished(3)), None);
        assert_eq!(seen(None, &running(3)), None);
        assert_eq!(seen(None, &waiting(0)), None);
    }

    fn ended(copy: u128, workload: u128, run: u32) -> Ended {
        Ended {
            unit: unit(copy),
            workload: WorkloadId::mint(NOW, workload),
            run,
            is_previous: false,
        }
    }

    fn text(bytes: usize) -> Vec<LogRecord> {
        vec![LogRecord {
            at: NOW,
            stream: LogStream::Stdout,
            text: "x".repeat(bytes),
            is_partial: false,
            run: 1,
        }]
    }

    fn runs(black_box: &BlackBox, copy: u128) -> Vec<u32> {
        let parts = black_box.parts_of(unit(copy));
        parts.iter().map(|part| part.run).collect()
    }

    #[test]
    fn a_copy_keeps_its_last_two_runs_and_each_once() {
        let black_box = BlackBox::default();
        for run in [1, 2, 2, 3] {
            black_box.keep(ended(1, 1, run), text(10));
        }
        assert_eq!(runs(&black_box, 1), [2, 3]);
        let kept = black_box.lock();
        assert_eq!(kept.bytes, 2 * (10 + RECORD_BYTES));
    }

    #[test]
    fn a_workload_and_the_whole_have_their_bounds_and_the_oldest_go_first() {
        let black_box = BlackBox::default();
        black_box.keep(ended(999, 2, 1), text(10));
        let copies = 40;
        for copy in 0..copies {
            black_box.keep(ended(copy, 1, 1), text(RUN_BYTES));
        }
        assert!(runs(&black_box, 0).is_empty() && !runs(&black_box, copies - 1).is_empty());
        assert_eq!(
            runs(&black_box, 999),
            [1],
            "another workload's is left alone"
        );
        let of_one = black_box.lock().bytes_of(WorkloadId::mint(NOW, 1));
        assert!(of_one <= WORKLOAD_BYTES);

        for workload in 0..2_000 {
            let copy = 10_000 + workload;
            black_box.keep(ended(copy, 10 + workload, 1), text(RUN_BYTES / 2));
        }
        let kept = black_box.lock();
        assert!(kept.bytes <= ALL_BYTES);
        let counted: usize = kept.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(counted, kept.bytes);
    }
}

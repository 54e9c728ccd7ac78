//! Placement: settles every workload that is not settled, the biggest copies first, in chunks.
//!
//! Several chunks are under way at once, so that the store writes while the next ones are decided. The view
//! may lag behind what was decided: settling what is settled already changes nothing. A workload for which
//! nothing could be done is left alone until it changes or there may be room.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use hostler_fleet::{Reply, State, Verb};
use hostler_model::WorkloadId;
use hostler_store::Limits;

use super::submit;
use crate::Control;

/// Everything is tried anew this often, whatever was remembered.
const PERIOD: Duration = Duration::from_secs(30);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Most workloads of one pass.
const PASS: usize = 4_096;
/// More than a copy takes in a commit, times the records that moving one touches.
const BYTES_PER_COPY: usize = 4_096;

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// All that can be done was done.
    Rest,
    /// The view showed more workloads than one pass takes.
    More,
    /// Verbs were refused: the store is away, or this server is too busy.
    Failed,
}

/// What a workload and the fleet looked like when nothing could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    room: u64,
    revision: u64,
    restart: u64,
    generation: u64,
    /// The step of its rollout.
    step: Option<u64>,
}

struct Keeper {
    control: Control,
    /// Most copies of one verb.
    chunk: usize,
    /// Most verbs under way.
    width: usize,
    stuck: BTreeMap<WorkloadId, Sight>,
    /// When what was stuck was last forgotten, in uptime.
    forgot_at: Duration,
}

/// Chunks of one workload that are still to be submitted.
struct Job {
    workload: WorkloadId,
    rounds: usize,
}

pub(super) async fn run(control: Control) {
    let mut keeper = Keeper::new(control.clone());
    loop {
        match keeper.pass().await {
            Pass::More => {}
            Pass::Failed => tokio::time::sleep(AFTER_FAILURE).await,
            Pass::Rest => {
                let signal = control.shared.signals.placement.notified();
                // Either way the next pass looks at everything anew.
                let _ = tokio::time::timeout(PERIOD, signal).await;
            }
        }
    }
}

/// The most copies that one decision may touch so that it fits into one commit.
fn chunk(asked: usize, limits: Limits) -> usize {
    let by_writes = limits.writes.saturating_sub(8) / 3;
    let by_bytes = limits.bytes / 2 / BYTES_PER_COPY;
    asked.min(by_writes).min(by_bytes).max(1)
}

impl Keeper {
    fn new(control: Control) -> Self {
        let limits = control.shared.parts.store.limits();
        let chunk = chunk(control.config().settle_limit, limits);
        let width = (2 * limits.writes / (chunk + 8)).clamp(2, 64);
        let forgot_at = control.clock().uptime();
        let stuck = BTreeMap::new();
        Self {
            control,
            chunk,
            width,
            stuck,
            forgot_at,
        }
    }

    async fn pass(&mut self) -> Pass {
        self.forget_now_and_then();
        let (mut jobs, is_more) = self.jobs();
        let mut pass = if is_more { Pass::More } else { Pass::Rest };
        let mut under_way = FuturesOrdered::new();
        loop {
            while under_way.len() < self.width
                && let Some(workload) = next_round(&mut jobs)
            {
                under_way.push_back(self.settle(workload));
            }
            let Some((workload, before, reply)) = under_way.next().await else {
                return pass;
            };
            let is_queued = || jobs.iter().any(|job| job.workload == workload);
            match reply {
                Some(Reply::Touched {
                    count: 1..,
                    more: true,
                }) if is_queued() => {}
                Some(Reply::Touched {
                    count: 1..,
                    more: true,
                }) => {
                    jobs.push_front(Job {
                        workload,
                        rounds: 1,
                    });
                }
                Some(_) => {
                    jobs.retain(|job| job.workload != workload);
                    self.remember(workload, before);
                }
                None => {
                    jobs.clear();
                    pass = Pass::Failed;
                }
            }
        }
    }

    fn forget_now_and_then(&mut self) {
        let now = self.control.clock().uptime();
        if now.saturating_sub(self.forgot_at) >= PERIOD {
            self.forgot_at = now;
            self.stuck.clear();
        }
    }

    fn settle(
        &self,
        workload: WorkloadId,
    ) -> impl Future<Output = (WorkloadId, Option<Sight>, Option<Reply>)> + Send + use<> {
        let control = self.control.clone();
        // Looked at before it is decided: what changes from here on is tried anew.
        let room = control.shared.signals.room.load(Ordering::Acquire);
        let before = sight(&control.view(), workload, room);
        let verb = Verb::Settle {
            workload,
            limit: self.chunk,
        };
        async move { (workload, before, submit(&control, "placement", verb).await) }
    }

    fn jobs(&mut self) -> (VecDeque<Job>, bool) {
        let view = self.control.view();
        let room = self.control.shared.signals.room.load(Ordering::Acquire);
        let stuck = &self.stuck;
        let mut fresh = view.unsettled().filter(|workload| {
            let before = stuck.get(workload);
            before.is_none() || before != sight(&view, *workload, room).as_ref()
        });
        let job = |workload| {
            let pending = usize::try_from(view.pending_copies(workload)).unwrap_or(usize::MAX);
            Job {
                workload,
                rounds: pending.div_ceil(self.chunk).max(1),
            }
        };
        let jobs: VecDeque<Job> = fresh.by_ref().take(PASS).map(job).collect();
        let is_more = fresh.next().is_some();
        (jobs, is_more)
    }

    fn remember(&mut self, workload: WorkloadId, before: Option<Sight>) {
        match before {
            Some(before) => self.stuck.insert(workload, before),
            None => self.stuck.remove(&workload),
        };
    }
}

fn sight(view: &State, workload: WorkloadId, room: u64) -> Option<Sight> {
    let record = view.workload(workload)?;
    Some(Sight {
        room,
        revision: record.revision,
        restart: record.restart,
        generation: record.generation,
        step: record.rollout.as_ref().map(|rollout| rollout.step),
    })
}

fn next_round(jobs: &mut VecDeque<Job>) -> Option<WorkloadId> {
    let job = jobs.front_mut()?;
    let workload = job.workload;
    job.rounds -= 1;
    if job.rounds == 0 {
        jobs.pop_front();
    }
    Some(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_fits_into_what_the_store_takes() {
        let limits = |writes, bytes| Limits { writes, bytes };
        assert_eq!(chunk(256, Limits::default()), 256);
        assert_eq!(chunk(256, limits(128, 3 << 19)), 40);
        assert_eq!(chunk(256, limits(4, 1)), 1);
    }
}

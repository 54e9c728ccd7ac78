//! Plain counters of the loop and its beats, and their snapshot for the doors to print.
//!
//! Counting is relaxed atomics: a snapshot is near the truth, not one instant of it. Nothing can fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hostler_fleet::Verb;

/// The upper bounds of commit times, in microseconds; one more bucket holds the rest.
const LATENCY_BOUNDS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_000_000,
];

/// The upper bounds of batch sizes, in changes; one more bucket holds the rest.
const BATCH_BOUNDS: [u64; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

const KINDS: [&str; 42] = [
    "found",
    "new-epoch",
    "announce",
    "resume",
    "suspect",
    "silent",
    "returned",
    "fence",
    "report",
    "held-back",
    "label",
    "cordon",
    "uncordon",
    "drain",
    "undrain",
    "finish-drain",
    "remove-node",
    "apply",
    "set-desired",
    "restart",
    "delete",
    "settle",
    "issue",
    "acknowledge",
    "prune",
    "apply-foreign",
    "account",
    "rent",
    "rented",
    "quote",
    "promote",
    "rollback",
    "advance",
    "tick",
    "rerun",
    "discover",
    "pressed",
    "access",
    "join",
    "put-secret",
    "remove-secret",
    "reseal",
];

/// Everything that is counted, at about this moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MetricsSnapshot {
    pub verbs: Vec<VerbCount>,
    pub commits: u64,
    pub commits_failed: u64,
    /// Batches that were lost and whose verbs were decided again.
    pub batches_lost: u64,
    pub commit_micros: Histogram,
    pub batch_changes: Histogram,
    pub beats: u64,
    pub beats_stale: u64,
    /// Nodes by the one word for their state.
    pub nodes: BTreeMap<&'static str, u64>,
    pub nodes_connected: u64,
    /// Copies: `running` as intended, `stopping`, `finished`, and `pending` without a node.
    pub copies: BTreeMap<&'static str, u64>,
    pub workloads: u64,
    pub usage: Vec<WorkloadUsage>,
    /// The last event's number.
    pub event_sequence: u64,
    pub store_revision: u64,
    pub is_leading: bool,
}

/// How often a verb had a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerbCount {
    /// Such as `apply`.
    pub verb: &'static str,
    /// `changed`, `unchanged` or `refused`.
    pub result: &'static str,
    pub count: u64,
}

/// What the running copies of a workload use together, where their nodes measure it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadUsage {
    /// Its name.
    pub workload: String,
    /// Thousandths of a core.
    pub milli_cpu: u64,
    /// Bytes.
    pub memory: u64,
}

/// Counts by upper bound, not cumulated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    pub bounds: Vec<u64>,
    /// One more than the bounds.
    pub counts: Vec<u64>,
    pub sum: u64,
}

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Changed,
    Unchanged,
    Refused,
}

/// What became of the verbs of each kind.
struct PerKind([[AtomicU64; 3]; KINDS.len()]);

impl Default for PerKind {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Default::default()))
    }
}

#[derive(Default)]
pub(crate) struct Metrics {
    verbs: PerKind,
    commits: AtomicU64,
    commits_failed: AtomicU64,
    batches_lost: AtomicU64,
    commit_micros: Buckets<13>,
    batch_changes: Buckets<9>,
    beats: AtomicU64,
    beats_stale: AtomicU64,
}

struct Buckets<const N: usize> {
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl Metrics {
    pub(crate) fn count_verb(&self, verb: &Verb, ending: Ending) {
        self.verbs.0[kind(verb)][ending as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_commit(&self, changes: usize, took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.batch_changes
            .add(&BATCH_BOUNDS, u64::try_from(changes).unwrap_or(u64::MAX));
        self.commit_micros.add(
            &LATENCY_BOUNDS,
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
    }

    pub(crate) fn count_failed_commit(&self) {
        self.commits_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_lost_batch(&self) {
        self.batches_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_beat(&self, is_stale: bool) {
        let counter = if is_stale {
            &self.beats_stale
        } else {
            &self.beats
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters alone; what is read from the view is filled in by the caller.
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot {
            verbs: self.verb_counts(),
            commits: self.commits.load(Ordering::Relaxed),
            commits_failed: self.commits_failed.load(Ordering::Relaxed),
            batches_lost: self.batches_lost.load(Ordering::Relaxed),
            commit_micros: self.commit_micros.read(&LATENCY_BOUNDS),
            batch_changes: self.batch_changes.read(&BATCH_BOUNDS),
            beats: self.beats.load(Ordering::Relaxed),
            beats_stale: self.beats_stale.load(Ordering::Relaxed),
            ..MetricsSnapshot::default()
        }
    }

    fn verb_counts(&self) -> Vec<VerbCount> {
        let results = ["changed", "unchanged", "refused"];
        let mut counts = Vec::new();
        for (verb, row) in KINDS.iter().zip(&self.verbs.0) {
            for (result, counter) in results.iter().zip(row) {
                let count = counter.load(Ordering::Relaxed);
                if count > 0 {
                    counts.push(VerbCount {
                        verb,
                        result,
                        count,
                    });
                }
            }
        }
        counts
    }
}

impl<const N: usize> Buckets<N> {
    fn add(&self, bounds: &[u64], value: u64) {
        let place = bounds
            .iter()
            .position(|bound| value <= *bound)
            .unwrap_or(N - 1);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn read(&self, bounds: &[u64]) -> Histogram {
        Histogram {
            bounds: bounds.to_vec(),
            counts: self
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        }
    }
}

const fn kind(verb: &Verb) -> usize {
    match verb {
        Verb::Found => 0,
        Verb::NewEpoch => 1,
        Verb::Announce(_) => 2,
        Verb::Resume { .. } => 3,
        Verb::Suspect { .. } => 4,
        Verb::Silent { .. } => 5,
        Verb::Returned { .. } => 6,
        Verb::Fence { .. } => 7,
        Verb::Report { .. } => 8,
        Verb::HeldBack { .. } => 9,
        Verb::Label { .. } => 10,
        Verb::Cordon { .. } => 11,
        Verb::Uncordon { .. } => 12,
        Verb::Drain { .. } => 13,
        Verb::Undrain { .. } => 14,
        Verb::FinishDrain { .. } => 15,
        Verb::RemoveNode { .. } => 16,
        Verb::Apply { .. } => 17,
        Verb::SetDesired { .. } => 18,
        Verb::Restart { .. } => 19,
        Verb::Delete { .. } => 20,
        Verb::Settle { .. } => 21,
        Verb::Issue { .. } => 22,
        Verb::Acknowledge { .. } => 23,
        Verb::Prune { .. } => 24,
        Verb::ApplyForeign { .. } => 25,
        Verb::Account(_) => 26,
        Verb::Rent(_) => 27,
        Verb::Rented { .. } => 28,
        Verb::Quote(_) => 29,
        Verb::Promote { .. } => 30,
        Verb::Rollback { .. } => 31,
        Verb::Advance(_) => 32,
        Verb::Tick { .. } => 33,
        Verb::Rerun { .. } => 34,
        Verb::Discover { .. } => 35,
        Verb::Pressed { .. } => 36,
        Verb::Access(_) => 37,
        Verb::Join(_) => 38,
        Verb::PutSecret { .. } => 39,
        Verb::RemoveSecret { .. } => 40,
        Verb::Reseal { .. } => 41,
    }
}

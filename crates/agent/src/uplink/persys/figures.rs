//! What the agent counts, for whoever shows it in the contract's names.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use super::core::{Core, lock};
use super::{KINDS, states};

/// A look at a running agent; nothing before it has started and after it has gone.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<OnceLock<Weak<Core>>>);

/// The figures at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// How many workloads there are, by state and type.
    pub workloads: BTreeMap<(&'static str, &'static str), u64>,
    pub created: u64,
    pub deleted: u64,
    pub failed: u64,
    /// How often what runs was compared with what should.
    pub looks: u64,
    /// How often each cause came up.
    pub errors: BTreeMap<&'static str, u64>,
    /// Requests that have ended, by task and how.
    pub work: BTreeMap<(&'static str, &'static str), Work>,
    /// Requests that have not.
    pub open: u64,
    /// Whether the driver of each type answers.
    pub runtimes: BTreeMap<&'static str, bool>,
    pub cpu_percent: f64,
    pub memory_percent: f64,
    pub disk_percent: f64,
}

/// How often something was done, and how long that took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    pub count: u64,
    pub seconds: f64,
}

/// What is counted while the agent runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) created: u64,
    pub(super) deleted: u64,
    pub(super) looks: u64,
    failed: u64,
    errors: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn failed(&mut self, code: &'static str) {
        self.failed += 1;
        *self.errors.entry(code).or_default() += 1;
    }
}

impl Figures {
    pub(super) fn fill(&self, core: &Arc<Core>) {
        // Whoever gives one to two agents sees the first.
        let _ = self.0.set(Arc::downgrade(core));
    }

    /// The figures now.
    #[must_use]
    pub fn read(&self) -> Option<Snapshot> {
        let core = self.0.get()?.upgrade()?;
        let picture = core.picture();
        let mut workloads: BTreeMap<_, u64> = BTreeMap::new();
        for workload in core.workloads() {
            let state = states::name(states::show(&workload, &picture).actual);
            *workloads
                .entry((state, workload.kind.as_str()))
                .or_default() += 1;
        }
        let runtimes = KINDS.into_iter().map(|(kind, _)| kind);
        let runtimes = runtimes.filter(|kind| core.persys.kinds.contains(kind));
        let runtimes = runtimes.map(|kind| {
            let has = core.handle.runtimes.contains_key(&kind);
            (kind.as_str(), has && !picture.down.contains(&kind))
        });
        let actions = lock(&core.actions);
        let work = actions.tallies().iter().map(|((task, how), tally)| {
            let work = Work {
                count: tally.count,
                seconds: tally.seconds,
            };
            ((task.as_str(), *how), work)
        });
        let look = core.look();
        let counts = lock(&core.counts);
        Some(Snapshot {
            workloads,
            created: counts.created,
            deleted: counts.deleted,
            failed: counts.failed,
            looks: counts.looks,
            errors: counts.errors.clone(),
            work: work.collect(),
            open: u64::try_from(actions.open()).unwrap_or(u64::MAX),
            runtimes: runtimes.collect(),
            cpu_percent: look.cpu_percent,
            memory_percent: look.memory_percent(),
            disk_percent: look.disk_percent(),
        })
    }
}

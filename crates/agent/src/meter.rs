//! Measures what runs on the node, and asks the engines what else does, at a pace of its own: a beat only reads what
//! was measured last. An engine that is slow is asked less often, and never many questions at once.
//!
//! The meter's task owns the figures. What cannot be measured is left out; nothing here fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_kit::Clock;
use hostler_model::spec::Kind;
use hostler_model::{Bytes, ObservedUnit, Timestamp, UnitId, UnitState, UnitUsage};
use hostler_runtime::{Runtime, UnitStats};
use tokio::sync::watch;

use crate::config::Parts;
use crate::show::Picture;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(10);
/// A round that takes long is followed by a pause so many times as long.
const REST: u32 = 10;
/// Units that are measured at the same time.
const AT_ONCE: usize = 4;
/// An engine that takes longer for one answer gives none.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most units of which one beat tells; more take turns.
const PER_BEAT: usize = 256;
/// Most containers that are named, and the longest name, in bytes.
const MOST_NAMES: usize = 128;
const LONGEST_NAME: usize = 128;

/// What was measured last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Counts the rounds; 0 before the first.
    pub(crate) round: u64,
    pub(crate) at: Timestamp,
    pub(crate) units: BTreeMap<UnitId, UnitUsage>,
    /// The containers that run on the node's engines, ours and others'; none where no engine tells.
    pub(crate) containers: Option<Vec<String>>,
}

struct Meter {
    runtimes: Arc<BTreeMap<Kind, Arc<dyn Runtime>>>,
    clock: Arc<dyn Clock>,
    picture: watch::Receiver<Arc<Picture>>,
    told: watch::Sender<Arc<Figures>>,
    /// When each unit was measured last.
    looks: BTreeMap<UnitId, (Duration, u64)>,
}

/// Starts the task, if there is anything that can be measured. It ends when the tasks are told to stop.
pub(crate) fn start(
    parts: &Parts,
    runtimes: &Arc<BTreeMap<Kind, Arc<dyn Runtime>>>,
    picture: watch::Receiver<Arc<Picture>>,
) -> watch::Receiver<Arc<Figures>> {
    let (told, shown) = watch::channel(Arc::default());
    let has_any =
        |runtime: &Arc<dyn Runtime>| runtime.stats().is_some() || runtime.census().is_some();
    if runtimes.values().any(has_any) {
        let meter = Meter {
            runtimes: Arc::clone(runtimes),
            clock: Arc::clone(&parts.clock),
            picture,
            told,
            looks: BTreeMap::new(),
        };
        parts.tasks.spawn_until_stop("meter", meter.run());
    }
    shown
}

impl Figures {
    /// What the next beat tells of the units, if this round was not told yet.
    pub(crate) fn news(&self, told: u64) -> Vec<UnitUsage> {
        if self.round == told || self.units.is_empty() {
            return Vec::new();
        }
        let turns = self.units.len().div_ceil(PER_BEAT);
        let turn = usize::try_from(self.round).unwrap_or(0) % turns;
        let units = self.units.values().skip(turn * PER_BEAT);
        units.take(PER_BEAT).copied().collect()
    }
}

impl Meter {
    async fn run(mut self) {
        let mut pause = EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let begun = self.clock.uptime();
            self.measure().await;
            let took = self.clock.uptime().saturating_sub(begun);
            pause = EVERY.max(took.saturating_mul(REST));
        }
    }

    async fn measure(&mut self) {
        let picture = Arc::clone(&self.picture.borrow());
        let is_running = |unit: &&ObservedUnit| {
            let is_down = picture.down.contains(&unit.kind);
            matches!(unit.state, UnitState::Running { .. }) && !is_down
        };
        let running = picture.units.values().filter(is_running);
        let looks: Vec<_> = running
            .filter_map(|unit| Some(look(unit.unit, Arc::clone(self.runtimes.get(&unit.kind)?))))
            .collect();
        let looks: Vec<(UnitId, Option<UnitStats>)> = futures::stream::iter(looks)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let uptime = self.clock.uptime();
        let mut units = BTreeMap::new();
        for (unit, stats) in looks {
            let Some(stats) = stats else { continue };
            let before = self.looks.insert(unit, (uptime, stats.cpu_nanos));
            units.insert(unit, usage(unit, stats, before, uptime));
        }
        self.looks.retain(|unit, _| units.contains_key(unit));
        let containers = self.containers(&picture.down).await;
        let round = self.told.borrow().round + 1;
        let at = Timestamp::from_millis(self.clock.wall_millis());
        self.told.send_replace(Arc::new(Figures {
            round,
            at,
            units,
            containers,
        }));
    }

    async fn containers(&self, down: &[Kind]) -> Option<Vec<String>> {
        let mut names = None;
        for (kind, runtime) in self.runtimes.iter() {
            let Some(census) = runtime.census().filter(|_| !down.contains(kind)) else {
                continue;
            };
            let asked = tokio::time::timeout(PATIENCE, census.running()).await;
            if let Ok(Ok(mut found)) = asked {
                names.get_or_insert_with(Vec::new).append(&mut found);
            }
        }
        let mut names = names?;
        names.sort_unstable();
        names.dedup();
        names.truncate(MOST_NAMES);
        names.iter_mut().for_each(shorten);
        Some(names)
    }
}

async fn look(unit: UnitId, runtime: Arc<dyn Runtime>) -> (UnitId, Option<UnitStats>) {
    let Some(stats) = runtime.stats() else {
        return (unit, None);
    };
    let measured = tokio::time::timeout(PATIENCE, stats.measure(unit)).await;
    (unit, measured.ok().and_then(Result::ok))
}

fn usage(
    unit: UnitId,
    stats: UnitStats,
    before: Option<(Duration, u64)>,
    now: Duration,
) -> UnitUsage {
    // The first look has nothing to count from, and a run that began anew counts from zero again.
    let (then, nanos) = before.unwrap_or((now, stats.cpu_nanos));
    let span = now.saturating_sub(then).as_nanos().max(1);
    let spent = u128::from(stats.cpu_nanos.saturating_sub(nanos));
    UnitUsage {
        unit,
        cpu_nanos: stats.cpu_nanos,
        milli_cpu: u64::try_from(spent * 1000 / span).unwrap_or(u64::MAX),
        memory: Bytes(stats.memory),
        read: stats.read.map(Bytes),
        written: stats.written.map(Bytes),
        received: stats.received.map(Bytes),
        sent: stats.sent.map(Bytes),
    }
}

fn shorten(name: &mut String) {
    let most = (0..=LONGEST_NAME)
        .rev()
        .find(|at| name.is_char_boundary(*at));
    if name.len() > LONGEST_NAME {
        name.truncate(most.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::AssignmentId;

    use super::*;

    fn unit(generation: u64) -> UnitId {
        let assignment = AssignmentId::LEAST;
        UnitId {
            assignment,
            generation,
        }
    }

    #[test]
    fn processor_time_counts_between_two_looks() {
        let stats = |cpu_nanos| UnitStats {
            cpu_nanos,
            ..UnitStats::default()
        };
        let milli =
            |nanos, before| usage(unit(1), stats(nanos), before, Duration::from_secs(12)).milli_cpu;
        assert_eq!(milli(5_000_000_000, None), 0);
        assert_eq!(milli(5_000_000_000, Some((Duration::from_secs(2), 0))), 500);
        assert_eq!(milli(0, Some((Duration::from_secs(2), 7))), 0, "a new run");
        assert_eq!(
            milli(9, Some((Duration::from_secs(12), 9))),
            0,
            "no time has passed"
        );
    }

    #[test]
    fn a_beat_tells_each_round_once_and_at_most_so_many_units() {
        let figures = |round: u64, units: u64| {
            let of = |generation| {
                let none = usage(unit(generation), UnitStats::default(), None, Duration::ZERO);
                (none.unit, none)
            };
            Figures {
                round,
                units: (0..units).map(of).collect(),
                ..Figures::default()
            }
        };
        let few = figures(1, 3);
        assert_eq!(few.news(0).len(), 3);
        assert!(few.news(1).is_empty(), "it was told");
        assert!(figures(1, 0).news(0).is_empty());
        let told = |round| -> Vec<u64> {
            let many = figures(round, 600);
            many.news(0).iter().map(|it| it.unit.generation).collect()
        };
        let mut all: Vec<u64> = [1, 2, 3].into_iter().flat_map(told).collect();
        all.sort_unstable();
        assert_eq!(all, (0..600).collect::<Vec<_>>(), "all have had their turn");
        assert!(told(1).len() <= PER_BEAT);
    }

    #[test]
    fn a_long_name_is_cut_between_two_letters() {
        let mut name = "ö".repeat(100);
        shorten(&mut name);
        assert_eq!(name.len(), 128);
        let mut odd = format!("x{}", "ö".repeat(100));
        shorten(&mut odd);
        assert_eq!(odd.len(), 127);
    }
}

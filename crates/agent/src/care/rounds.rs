//! The rounds: every few minutes, and when ordered, everything is looked at, sorted, and what goes is deleted.
//!
//! ```text
//!   look (drivers, picture) ──► sort, per disk ──► delete, two at a time ──► words
//!                 └──► whose data is kept ──► uplink ──► whose workload is unknown ──► the next round
//! ```
//!
//! A round that is broken off has deleted some things and not others; the next one finds what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_kit::Clock;
use hostler_model::spec::Kind;
use hostler_model::{Timestamp, UnitId, WorkloadId};
use hostler_runtime::{Discarded, Leftover, LeftoverKind, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

use super::places::Places;
use super::sorting::{self, Item, Rules, Sorted, What};
use super::words::{self, Report};
use crate::Machine;
use crate::config::{AgentConfig, Parts};
use crate::headroom::Share;
use crate::reconcile::Input;
use crate::show::Picture;
use crate::tuning::Tuned;

pub(crate) use super::sorting::Demand;

/// How long a driver may take to tell what it has, and to delete one thing.
const LOOK_PATIENCE: Duration = Duration::from_secs(60);
const DISCARD_PATIENCE: Duration = Duration::from_secs(120);
/// Things that are deleted at the same time.
const AT_ONCE: usize = 2;
/// After so long no more deletions begin: whoever ordered the round waits.
const LONGEST: Duration = Duration::from_secs(60);
/// Orders that may wait.
const ASKS: usize = 8;

/// An order to make a round.
pub(crate) struct Ask {
    pub(crate) demand: Demand,
    pub(crate) is_dry_run: bool,
    /// Told what was done.
    pub(crate) done: oneshot::Sender<String>,
}

/// What the other tasks see of the rounds, and tell them.
#[derive(Clone)]
pub(crate) struct Sights {
    pub(crate) asks: mpsc::Sender<Ask>,
    /// Of which workloads data is kept. Sent anew at each round, so that it is asked for anew.
    pub(crate) kept: watch::Receiver<BTreeSet<WorkloadId>>,
    /// Which of them the control plane that is followed does not know.
    pub(crate) unwanted: Arc<watch::Sender<BTreeSet<WorkloadId>>>,
}

#[cfg(test)]
impl Sights {
    /// Of no rounds.
    pub(crate) fn unseen() -> Self {
        Self {
            asks: mpsc::channel(1).0,
            kept: watch::channel(BTreeSet::new()).1,
            unwanted: Arc::new(watch::Sender::new(BTreeSet::new())),
        }
    }
}

/// The task's own.
pub(crate) struct Rounds {
    runtimes: BTreeMap<Kind, Arc<dyn Runtime>>,
    machine: Arc<dyn Machine>,
    clock: Arc<dyn Clock>,
    tuned: Tuned,
    places: Places,
    picture: watch::Receiver<Arc<Picture>>,
    reconciler: mpsc::Sender<Input>,
    asks: mpsc::Receiver<Ask>,
    kept: watch::Sender<BTreeSet<WorkloadId>>,
    unwanted: watch::Receiver<BTreeSet<WorkloadId>>,
}

/// What was found, by the disk that it lies on.
#[derive(Default)]
struct Found {
    disks: BTreeMap<u64, Disk>,
    silent: Vec<String>,
}

struct Disk {
    place: PathBuf,
    share: Option<Share>,
    items: Vec<Item>,
}

impl Rounds {
    /// Starts the task. It ends when the tasks are told to stop.
    pub(crate) fn start(
        (config, tuned): (&AgentConfig, Tuned),
        parts: &Parts,
        picture: watch::Receiver<Arc<Picture>>,
        reconciler: mpsc::Sender<Input>,
    ) -> Sights {
        let (sender, asks) = mpsc::channel(ASKS);
        let (kept, told_kept) = watch::channel(BTreeSet::new());
        let (told_unwanted, unwanted) = watch::channel(BTreeSet::new());
        let runtimes = parts.runtimes.iter();
        let rounds = Self {
            runtimes: runtimes.map(|it| (it.kind(), Arc::clone(it))).collect(),
            machine: Arc::clone(&parts.machine),
            clock: Arc::clone(&parts.clock),
            tuned,
            places: Places::new(config.data_dir.clone(), parts.runtimes.clone()),
            picture,
            reconciler,
            asks,
            kept,
            unwanted,
        };
        parts.tasks.spawn_until_stop("care", rounds.run());
        Sights {
            asks: sender,
            kept: told_kept,
            unwanted: Arc::new(told_unwanted),
        }
    }

    async fn run(mut self) {
        self.tell_kept().await;
        loop {
            // Each arm only waits; what was asked or told stays asked and told.
            let every = self.tuned.now().care.budget.every;
            let ask = tokio::select! {
                biased;
                ask = self.asks.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return,
                },
                changed = self.unwanted.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = self.tuned.changed() => None,
                () = tokio::time::sleep(every) => None,
            };
            self.unwanted.borrow_and_update();
            match ask {
                Some(ask) => {
                    let report = self.round(ask.demand, ask.is_dry_run).await;
                    // Whoever asked may have gone.
                    let _ = ask.done.send(report.text());
                }
                None => self.by_itself().await,
            }
        }
    }

    async fn by_itself(&mut self) {
        let report = self.round(Demand::Budget, false).await;
        for (item, why) in &report.gone {
            tracing::info!(what = words::name(&item.what), item.bytes, why, "deleted");
        }
    }

    /// Before anything is deleted the control plane is asked which of the data it still knows.
    async fn tell_kept(&mut self) {
        let mut shown = self.picture.clone();
        if shown.wait_for(|picture| picture.is_complete).await.is_ok() {
            self.look().await;
        }
    }

    async fn round(&mut self, demand: Demand, is_dry_run: bool) -> Report {
        let found = self.look().await;
        let mut report = Report {
            is_dry_run,
            silent: found.silent,
            ..Report::default()
        };
        let picture = Arc::clone(&self.picture.borrow());
        // Who holds orders back takes no word on what is not wanted either.
        let is_trusted = picture.held.is_none() && picture.origin.is_some();
        let unwanted = match is_trusted {
            true => self.unwanted.borrow().clone(),
            false => BTreeSet::new(),
        };
        let budget = self.tuned.now().care.budget;
        let rules = Rules {
            budget: &budget,
            demand,
            unwanted: &unwanted,
            trusted_since: picture.followed_since,
            now: self.now(),
        };
        let mut goes = Vec::new();
        for disk in found.disks.into_values() {
            report
                .disks
                .push((disk.place.display().to_string(), disk.share));
            let Sorted { goes: go, stays } = sorting::sort(disk.items, disk.share, &rules);
            goes.extend(go);
            report.stays.extend(stays);
        }
        if is_dry_run {
            report.gone = goes;
        } else {
            self.delete(goes, &mut report).await;
        }
        report
    }

    /// Everything that there is, and of which workloads data is kept.
    async fn look(&mut self) -> Found {
        let mut found = Found::default();
        let mut kept = BTreeSet::new();
        self.places.ask().await;
        let runtimes = self.runtimes.clone();
        for (kind, runtime) in &runtimes {
            let Some(leftovers) = runtime.leftovers() else {
                continue;
            };
            let asked = tokio::time::timeout(LOOK_PATIENCE, leftovers.leftovers()).await;
            match asked {
                Ok(Ok(things)) => {
                    kept.extend(things.iter().filter_map(whose));
                    let items = things.into_iter().map(|thing| item(*kind, thing));
                    found.put(self.disk_of(*kind), items);
                }
                Ok(Err(error)) => found.silent.push(format!("{kind}: {error}")),
                Err(_) => found.silent.push(format!("{kind}: no answer in time")),
            }
        }
        for (kind, item) in self.finished() {
            found.put(self.disk_of(kind), std::iter::once(item));
        }
        self.kept.send_replace(kept);
        found
    }

    /// Units that have ended for good and are still on the disk.
    fn finished(&self) -> Vec<(Kind, Item)> {
        let picture = self.picture.borrow();
        let item = |(unit, (kind, at)): (&UnitId, &(Kind, Timestamp))| {
            let (unit, kind) = (*unit, *kind);
            let item = Item {
                what: What::Finished { unit, kind },
                bytes: 0,
                made_at: *at,
                used_at: *at,
                needed: None,
            };
            (kind, item)
        };
        picture.finished.iter().map(item).collect()
    }

    fn disk_of(&self, kind: Kind) -> (u64, PathBuf, Option<Share>) {
        let place = self.places.of(kind);
        match self.machine.file_system(&place) {
            Some(file_system) => (file_system.id, place, Some(file_system.bytes)),
            None => (0, place, None),
        }
    }

    async fn delete(&self, goes: Vec<(Item, String)>, report: &mut Report) {
        let until = self.clock.uptime() + LONGEST;
        let deletions = goes.into_iter().map(|(item, why)| async move {
            let ended = (self.clock.uptime() < until).then(|| self.discard(&item));
            match ended {
                Some(ended) => (item.clone(), why, Some(ended.await)),
                None => (item.clone(), why, None),
            }
        });
        let mut deletions = futures::stream::iter(deletions).buffered(AT_ONCE);
        while let Some((item, why, ended)) = deletions.next().await {
            match ended {
                Some(Ok(())) => report.gone.push((item, why)),
                Some(Err(problem)) => report.stays.push((item, problem)),
                None => report.left += 1,
            }
        }
    }

    async fn discard(&self, item: &Item) -> Result<(), String> {
        match &item.what {
            What::Finished { unit, .. } => {
                let units = BTreeSet::from([*unit]);
                let told = self.reconciler.send(Input::CleanUp(units)).await;
                told.map_err(|_| "the agent is stopping".to_owned())
            }
            What::Leftover { driver, kind, name } => {
                let runtime = self.runtimes.get(driver);
                let Some(leftovers) = runtime.and_then(|runtime| runtime.leftovers()) else {
                    return Err("its driver has gone".to_owned());
                };
                let asked =
                    tokio::time::timeout(DISCARD_PATIENCE, leftovers.discard(*kind, name)).await;
                match asked {
                    Ok(Ok(Discarded::Gone)) => Ok(()),
                    Ok(Ok(Discarded::Stays(why))) => Err(why),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("it was not deleted in time".to_owned()),
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

impl Found {
    fn put(
        &mut self,
        (id, place, share): (u64, PathBuf, Option<Share>),
        items: impl Iterator<Item = Item>,
    ) {
        let disk = self.disks.entry(id).or_insert_with(|| Disk {
            place,
            share,
            items: Vec::new(),
        });
        disk.items.extend(items);
    }
}

fn whose(thing: &Leftover) -> Option<WorkloadId> {
    match thing.kind {
        LeftoverKind::Data { workload, .. } if thing.needed.is_none() => workload,
        LeftoverKind::Volume { workload } | LeftoverKind::SharedVolume { workload }
            if thing.needed.is_none() =>
        {
            Some(workload)
        }
        LeftoverKind::Data { .. }
        | LeftoverKind::Volume { .. }
        | LeftoverKind::SharedVolume { .. }
        | LeftoverKind::Image
        | LeftoverKind::Debris => None,
    }
}

fn item(driver: Kind, thing: Leftover) -> Item {
    Item {
        what: What::Leftover {
            driver,
            kind: thing.kind,
            name: thing.name,
        },
        bytes: thing.bytes,
        made_at: thing.made_at,
        used_at: thing.used_at,
        needed: thing.needed,
    }
}

//! Sorts what is on the node's disks into what goes and what stays, each with a sentence. Pure; the same things,
//! figures and moment give the same answer.
//!
//! For each thing the first that holds:
//!
//! 1. What something needs stays.
//! 2. Data of a workload goes when that workload was deleted, or when a person asked for it. Else it stays, however
//!    full the disk is: it is nowhere else.
//! 3. What was of use a moment ago stays.
//! 4. What is left of broken work goes.
//! 5. The rest goes when a person asks, or as long as the disk is fuller than it is to be: what was of use longest
//!    ago first.

use std::collections::BTreeSet;

use hostler_model::spec::Kind;
use hostler_model::{Timestamp, UnitId, WorkloadId};
use hostler_runtime::LeftoverKind;

use super::Budget;
use super::words::span;
use crate::headroom::Share;

/// One thing on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) what: What,
    pub(super) bytes: u64,
    pub(super) made_at: Timestamp,
    pub(super) used_at: Timestamp,
    /// Why it may not go.
    pub(super) needed: Option<String>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A unit that has ended for good: its log, and how its runs ended.
    Finished { unit: UnitId, kind: Kind },
    Leftover {
        driver: Kind,
        kind: LeftoverKind,
        name: String,
    },
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    /// As far as the budget wants it.
    Budget,
    /// All that nothing needs; with data whose workloads live on only if so told.
    All { data: bool },
}

/// Things, each with the sentence that decided about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sorted {
    /// In the order in which it goes.
    pub(super) goes: Vec<(Item, String)>,
    pub(super) stays: Vec<(Item, String)>,
}

/// What is sorted by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) budget: &'a Budget,
    pub(super) demand: Demand,
    /// Workloads that the control plane does not know any more.
    pub(super) unwanted: &'a BTreeSet<WorkloadId>,
    /// Since when that control plane is followed; of what is older it may simply not know.
    pub(super) trusted_since: Timestamp,
    pub(super) now: Timestamp,
}

enum Verdict {
    Goes(String),
    Stays(String),
    /// Its turn comes if the disk is full.
    Waits,
}

/// Sorts the things of one disk.
pub(super) fn sort(items: Vec<Item>, disk: Option<Share>, rules: &Rules<'_>) -> Sorted {
    let mut sorted = Sorted::default();
    let mut waiting = Vec::new();
    for item in items {
        match rules.judge(&item) {
            Verdict::Goes(why) => sorted.goes.push((item, why)),
            Verdict::Stays(why) => sorted.stays.push((item, why)),
            Verdict::Waits => waiting.push(item),
        }
    }
    waiting.sort_by(|a, b| (a.used_at, &a.what).cmp(&(b.used_at, &b.what)));
    let freed = sorted.goes.iter().map(|(item, _)| item.bytes).sum();
    let mut excess = excess(disk, rules.budget).saturating_sub(freed);
    for item in waiting {
        if rules.demand != Demand::Budget {
            let why = format!("nothing needs it; {}", rules.age(&item));
            sorted.goes.push((item, why));
        } else if excess > 0 {
            excess = excess.saturating_sub(item.bytes);
            let why = format!(
                "the disk is too full, and nothing needs it; {}",
                rules.age(&item)
            );
            sorted.goes.push((item, why));
        } else {
            let why = match disk {
                Some(_) => "nothing needs it, and there is room",
                None => "nothing needs it, and how full its disk is cannot be known",
            };
            sorted.stays.push((item, why.to_owned()));
        }
    }
    sorted
}

/// What is to come free: nothing below the start, down to the stop from there on.
fn excess(disk: Option<Share>, budget: &Budget) -> u64 {
    let Some(disk) = disk.filter(|disk| disk.percent_used() >= budget.start && budget.start < 100)
    else {
        return 0;
    };
    let most = u128::from(disk.total) * u128::from(budget.stop.min(budget.start)) / 100;
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    disk.used().0.saturating_sub(most)
}

impl Rules<'_> {
    fn judge(&self, item: &Item) -> Verdict {
        if let Some(why) = &item.needed {
            return Verdict::Stays(why.clone());
        }
        match &item.what {
            What::Leftover {
                kind: LeftoverKind::Data { workload, .. },
                ..
            } => match workload {
                Some(workload) => self.judge_data(item, *workload),
                None => Verdict::Stays("nothing says whose it is".to_owned()),
            },
            What::Leftover {
                kind: LeftoverKind::Volume { workload },
                ..
            } => self.judge_data(item, *workload),
            What::Leftover {
                kind: LeftoverKind::SharedVolume { workload },
                ..
            } => self.judge_shared(item, *workload),
            _ if self.is_young(item) => self.young(item),
            What::Leftover {
                kind: LeftoverKind::Debris,
                ..
            } => Verdict::Goes("it is left of work that was broken off".to_owned()),
            What::Leftover {
                kind: LeftoverKind::Image,
                ..
            }
            | What::Finished { .. } => Verdict::Waits,
        }
    }

    /// What copies of a workload stored: it is nowhere else.
    fn judge_data(&self, item: &Item, workload: WorkloadId) -> Verdict {
        let is_unknown = self.unwanted.contains(&workload);
        let is_deleted = self.is_deleted(item, workload);
        let stays = |why: &str| Verdict::Stays(why.to_owned());
        if is_deleted || self.demand == (Demand::All { data: true }) {
            match (self.is_young(item), is_deleted) {
                (true, _) => self.young(item),
                (false, true) => Verdict::Goes("its workload was deleted".to_owned()),
                (false, false) => {
                    Verdict::Goes("no copy here uses it, and it was asked for".to_owned())
                }
            }
        } else if is_unknown {
            stays("it is older than what this control plane surely knows")
        } else {
            stays("its workload is still there, and this may be its only copy")
        }
    }

    /// What other nodes may use: nobody means it who asks for what is left on this one.
    fn judge_shared(&self, item: &Item, workload: WorkloadId) -> Verdict {
        match self.is_deleted(item, workload) {
            true => self.judge_data(item, workload),
            false => Verdict::Stays("it is not on this node, and others may use it".to_owned()),
        }
    }

    fn is_deleted(&self, item: &Item, workload: WorkloadId) -> bool {
        self.unwanted.contains(&workload) && item.made_at >= self.trusted_since
    }

    fn is_young(&self, item: &Item) -> bool {
        self.now.since(item.used_at) < self.budget.min_age
    }

    fn young(&self, item: &Item) -> Verdict {
        let least = span(self.budget.min_age);
        Verdict::Stays(format!("{}, and it stays for {least}", self.age(item)))
    }

    fn age(&self, item: &Item) -> String {
        format!("of use {} ago", span(self.now.since(item.used_at)))
    }
}

#[cfg(test)]
mod tests;

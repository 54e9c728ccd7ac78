//! The copies of one workload, sorted by what may have to be done about them, so that settling looks only
//! at copies that need something. Rebuilt from the records; owned by the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_model::spec::DisconnectPolicy;
use hostler_model::{
    Admission, Assignment, AssignmentId, Desired, FIRST_SPARE_SLOT, Intent, Liveness, Node, NodeId,
    Workload,
};

use super::gaps::Gaps;

/// What a node means for the copies on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Footing {
    /// Copies stay.
    Firm,
    /// It drains: copies move away while it lives.
    Leaving,
    /// Its lease ran out: copies are replaced by their disconnect rule.
    Lost,
    /// It was removed, or never was: nothing runs there.
    Gone,
}

/// What a copy means for its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// It is the copy that is wanted there.
    Wanted,
    /// It is still being stopped: the slot waits for it.
    Blocking,
    /// It is to stop, and the slot need not wait.
    Loose,
}

/// Where a copy stands in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    hold: Hold,
    uneasy: bool,
    adrift: bool,
}

/// The copies of one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    /// With intent `Run`, by slot.
    pub(crate) wanted: BTreeSet<(u32, AssignmentId)>,
    /// With intent `Stop` and not yet surely stopped: their slots wait.
    pub(crate) blocking: BTreeSet<(u32, AssignmentId)>,
    /// With intent `Stop`; nobody waits for them.
    pub(crate) loose: BTreeSet<(u32, AssignmentId)>,
    /// The wanted ones by template and restart number.
    pub(crate) by_template: BTreeMap<(u64, u64), BTreeSet<(u32, AssignmentId)>>,
    /// The wanted ones that a rollout made and that are not known to be healthy.
    pub(crate) on_trial: BTreeSet<(u32, AssignmentId)>,
    /// Wanted, not finished, on a node that is lost or drains.
    pub(crate) uneasy: BTreeSet<(u32, AssignmentId)>,
    /// On a node that is gone: only the record is left to remove.
    pub(crate) adrift: BTreeSet<(u32, AssignmentId)>,
    /// Slots without a wanted or blocking copy.
    pub(crate) gaps: Gaps,
    /// How many wanted, unfinished copies each node has.
    pub(crate) per_node: BTreeMap<NodeId, u32>,
    /// How many copies run each revision.
    pub(crate) revisions: BTreeMap<u64, u32>,
}

impl Footing {
    pub(crate) fn of(node: Option<&Node>) -> Self {
        let Some(node) = node.filter(|node| !node.is_gone()) else {
            return Self::Gone;
        };
        match (node.liveness, node.admission) {
            (Liveness::Lost { .. }, _) => Self::Lost,
            (_, Admission::Draining { .. } | Admission::Drained { .. }) => Self::Leaving,
            (_, Admission::Open | Admission::Pending | Admission::Cordoned) => Self::Firm,
        }
    }
}

impl Standing {
    /// Follows from the copy, its node and the workload's disconnect rule alone.
    pub(crate) const fn of(copy: &Assignment, footing: Footing, is_singleton: bool) -> Self {
        let is_gone = matches!(footing, Footing::Gone);
        let is_lost = matches!(footing, Footing::Lost);
        let is_live = copy.outcome.is_none() && !copy.fenced && !is_gone;
        let hold = match copy.intent {
            Intent::Run => Hold::Wanted,
            Intent::Stop { .. } if is_live && (is_singleton || !is_lost) => Hold::Blocking,
            Intent::Stop { .. } => Hold::Loose,
        };
        let is_wanted = matches!(copy.intent, Intent::Run);
        Self {
            hold,
            uneasy: is_wanted
                && copy.outcome.is_none()
                && matches!(footing, Footing::Leaving | Footing::Lost),
            // What finished keeps its record although its node is gone, else its work would run again.
            adrift: is_gone && !(is_wanted && copy.outcome.is_some()),
        }
    }
}

impl Copies {
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.blocking.is_empty() && self.loose.is_empty()
    }

    /// Every copy: the wanted ones by slot first.
    pub(crate) fn all(&self) -> impl Iterator<Item = AssignmentId> + '_ {
        let sets = [&self.wanted, &self.blocking, &self.loose];
        sets.into_iter().flatten().map(|(_, id)| *id)
    }

    /// The wanted copies in slots that neither the count nor the spares cover.
    pub(crate) fn surplus(
        &self,
        count: u32,
        spares: u32,
    ) -> impl Iterator<Item = AssignmentId> + '_ {
        let counted = (count, AssignmentId::LEAST)..(FIRST_SPARE_SLOT, AssignmentId::LEAST);
        let beside = (FIRST_SPARE_SLOT + spares, AssignmentId::LEAST)..;
        let beside = self.wanted.range(beside).rev();
        let rest = beside.chain(self.wanted.range(counted).rev());
        rest.map(|(_, id)| *id)
    }

    /// The wanted copies that run beside the counted ones.
    pub(crate) fn beside(&self) -> impl Iterator<Item = &(u32, AssignmentId)> {
        self.wanted.range((FIRST_SPARE_SLOT, AssignmentId::LEAST)..)
    }

    /// The vacant slots of those that run beside the counted ones.
    pub(crate) fn vacant_beside(&self, spares: u32) -> impl Iterator<Item = u32> + '_ {
        self.gaps.among(FIRST_SPARE_SLOT..FIRST_SPARE_SLOT + spares)
    }

    /// The wanted copies of another template or restart than the present one, by slot within each.
    pub(crate) fn outdated(
        &self,
        workload: &Workload,
    ) -> impl Iterator<Item = (u32, AssignmentId)> + '_ {
        let current = (workload.template, workload.restart);
        let others = self.by_template.iter();
        let others = others.filter(move |(template, _)| **template != current);
        others.flat_map(|(_, copies)| copies.iter().copied())
    }

    /// How many counted copies of a rollout are not known to be healthy: on trial, or stopped before their
    /// successor can start. Counting ends at `most`.
    pub(crate) fn unproven(&self, count: u32, most: usize) -> usize {
        let counted = ..(FIRST_SPARE_SLOT, AssignmentId::LEAST);
        let on_trial = self.on_trial.range(counted);
        let stopping = self.blocking.range(..(count, AssignmentId::LEAST));
        let vacated = stopping.filter(|(slot, _)| !self.is_wanted(*slot));
        on_trial.chain(vacated).take(most).count()
    }

    /// Whether only the copy's record is left.
    pub(crate) fn is_adrift(&self, copy: Option<&Arc<Assignment>>) -> bool {
        copy.is_some_and(|copy| self.adrift.contains(&(copy.slot, copy.id)))
    }

    /// Whether settling might change something.
    pub(crate) fn is_unsettled(&self, workload: &Workload) -> bool {
        if !self.adrift.is_empty() {
            return true;
        }
        match workload.desired {
            Desired::Running => {
                !self.uneasy.is_empty()
                    || self.gaps.any_below(workload.spec.copies())
                    || self.vacant_beside(workload.spares()).next().is_some()
                    || self
                        .surplus(workload.spec.copies(), workload.spares())
                        .next()
                        .is_some()
                    || self.outdated(workload).next().is_some()
            }
            Desired::Stopped => !self.wanted.is_empty(),
            Desired::Deleted => !self.wanted.is_empty() || self.is_empty(),
        }
    }

    pub(crate) fn insert(&mut self, copy: &Assignment, standing: Standing) {
        let key = (copy.slot, copy.id);
        match standing.hold {
            Hold::Wanted => {
                self.wanted.insert(key);
                let template = (copy.template, copy.restart);
                self.by_template.entry(template).or_default().insert(key);
                if copy.trial {
                    self.on_trial.insert(key);
                }
            }
            Hold::Blocking => {
                self.blocking.insert(key);
            }
            Hold::Loose => {
                self.loose.insert(key);
            }
        }
        if standing.hold != Hold::Loose {
            self.gaps.take(copy.slot);
        }
        if standing.uneasy {
            self.uneasy.insert(key);
        }
        if standing.adrift {
            self.adrift.insert(key);
        }
        if counts_for_spread(copy) {
            *self.per_node.entry(copy.node).or_default() += 1;
        }
        *self.revisions.entry(copy.revision).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, copy: &Assignment, standing: Standing) {
        let key = (copy.slot, copy.id);
        match standing.hold {
            Hold::Wanted => {
                self.wanted.remove(&key);
                self.on_trial.remove(&key);
                let template = (copy.template, copy.restart);
                if let Some(copies) = self.by_template.get_mut(&template) {
                    copies.remove(&key);
                    if copies.is_empty() {
                        self.by_template.remove(&template);
                    }
                }
            }
            Hold::Blocking => {
                self.blocking.remove(&key);
            }
            Hold::Loose => {
                self.loose.remove(&key);
            }
        }
        if standing.hold != Hold::Loose && !self.is_taken(copy.slot) {
            self.gaps.give(copy.slot);
        }
        self.uneasy.remove(&key);
        self.adrift.remove(&key);
        if counts_for_spread(copy) {
            count_down(&mut self.per_node, copy.node);
        }
        count_down(&mut self.revisions, copy.revision);
    }

    fn is_taken(&self, slot: u32) -> bool {
        let in_slot = (slot, AssignmentId::LEAST)..=(slot, AssignmentId::MOST);
        self.is_wanted(slot) || self.blocking.range(in_slot).next().is_some()
    }

    fn is_wanted(&self, slot: u32) -> bool {
        let in_slot = (slot, AssignmentId::LEAST)..=(slot, AssignmentId::MOST);
        self.wanted.range(in_slot).next().is_some()
    }
}

/// Whether the workload keeps one live copy per slot even across a disconnect.
pub(crate) fn is_singleton(workload: Option<&Workload>) -> bool {
    workload.is_some_and(|workload| workload.spec.disconnect.policy == DisconnectPolicy::Singleton)
}

const fn counts_for_spread(copy: &Assignment) -> bool {
    copy.is_wanted() && copy.outcome.is_none()
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    if let std::collections::btree_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

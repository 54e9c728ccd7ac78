//! Pacing: which outdated copies settling may replace now.
//!
//! | copy | may be replaced |
//! |---|---|
//! | of a workload without a rollout | at once |
//! | beside the counted ones, on trial, or finished | at once: nothing is lost by it |
//! | counted, while the rollout is held | not at all |
//! | counted, `stop-first` | while fewer than `max_parallel` are not known to be healthy |
//! | counted, `start-first` | the same, and while a healthy new copy beside stands in for each |
//!
//! Where every node's port is taken nothing can run beside; then `start-first` is as `stop-first`.

use hostler_model::spec::UpdateOrder;
use hostler_model::{Assignment, FIRST_SPARE_SLOT, UnitId};

use super::settle::{Chunk, Part};
use crate::rollout::is_current;
use crate::state::is_singleton;

impl Chunk<'_, '_> {
    pub(super) fn renew_outdated(&mut self) {
        if self.workload.rollout.is_some() {
            if is_singleton(Some(self.workload)) {
                // A slot whose copy had to stop first is taken again before the next copy stops.
                self.fill_vacant();
            }
            self.fill_beside();
            self.renew_free();
        }
        let is_paced = self.workload.rollout.is_some();
        let mut allowance = self.allowance();
        let (state, copies) = (self.draft.state, self.copies);
        for (slot, id) in copies.outdated(self.workload) {
            if self.left == 0 || allowance == 0 {
                return;
            }
            let Some(copy) = state.assignment(id) else {
                continue;
            };
            let is_free = is_paced && (copy.trial || slot >= FIRST_SPARE_SLOT);
            if !is_free && self.renew_one(copy) && !copy.is_finished() {
                allowance -= 1;
            }
        }
    }

    /// An outdated copy that runs nothing, as its node says.
    pub(super) fn renew_idle(&mut self, unit: UnitId) {
        let copy = self.draft.state.assignment(unit.assignment);
        let copy = copy.filter(|copy| copy.unit() == unit && copy.is_wanted());
        let copy = copy.filter(|copy| {
            copy.workload == self.workload.id
                && !is_current(self.draft.state, copy.id, self.workload)
        });
        if let Some(copy) = copy {
            self.renew_one(copy);
        }
    }

    /// Outdated copies that are beside the counted ones, or have not proved themselves.
    fn renew_free(&mut self) {
        let (state, copies) = (self.draft.state, self.copies);
        let beside = copies.beside();
        let on_trial = copies.on_trial.iter();
        let counted = on_trial.filter(|(slot, _)| *slot < FIRST_SPARE_SLOT);
        let counted = counted.filter(|_| self.part == Part::All);
        let found: Vec<&Assignment> = beside
            .chain(counted)
            .filter(|(_, id)| !is_current(state, *id, self.workload))
            .filter_map(|(_, id)| state.assignment(*id).map(AsRef::as_ref))
            .collect();
        for copy in found {
            if self.left == 0 {
                return;
            }
            self.renew_one(copy);
        }
    }

    /// How many counted copies may be taken down now.
    fn allowance(&self) -> usize {
        let Some(rollout) = &self.workload.rollout else {
            return usize::MAX;
        };
        if self.part != Part::All {
            return 0;
        }
        let update = &self.workload.spec.update;
        let parallel = update.max_parallel as usize;
        let stands_in = match update.order {
            UpdateOrder::StartFirst if rollout.spares > 0 && !self.has_no_room_beside() => {
                self.healthy_beside()
            }
            UpdateOrder::StartFirst | UpdateOrder::StopFirst => parallel,
        };
        let down = self.copies.unproven(self.workload.spec.copies(), parallel);
        parallel
            .min(stands_in)
            .saturating_sub(down + self.newly_unproven())
    }

    /// Whether the port that each copy takes is why none runs beside.
    fn has_no_room_beside(&self) -> bool {
        let vacant = self.copies.vacant_beside(self.workload.spares()).count();
        self.is_full && !self.workload.spec.ports.is_empty() && vacant > self.placed_beside()
    }

    fn healthy_beside(&self) -> usize {
        let state = self.draft.state;
        let beside = self.copies.beside();
        let healthy = beside.filter(|key| {
            !self.copies.on_trial.contains(key) && is_current(state, key.1, self.workload)
        });
        healthy.count()
    }
}

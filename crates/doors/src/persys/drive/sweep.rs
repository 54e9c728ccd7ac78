//! What is on an agent and wanted by nobody: removed if it can only be ours, else left alone.

use super::*;

impl Driver {
    pub(super) fn swept(&mut self, id: &str, done: &Done) {
        if *done == Done::Gone {
            self.parked.remove(id);
            self.strays.remove(id);
        }
    }

    /// What is on the agent and wanted by nobody: removed if it can only be ours, else logged once.
    pub(super) fn sweep(
        &mut self,
        caller: &Caller,
        wants: &BTreeMap<String, Want>,
        seen: &BTreeMap<String, WorkloadStatus>,
    ) {
        self.strays.retain(|id| seen.contains_key(id));
        for id in seen.keys().filter(|id| !wants.contains_key(*id)) {
            if self.busy.contains(id) {
                continue;
            }
            if self.is_ours_to_remove(id) {
                tracing::info!(node = %self.node, id, "a leftover of the fleet is removed");
                self.busy.insert(id.clone());
                self.acts.push(removal(caller.clone(), id.clone()));
            } else if !self.parked.contains(id) && self.strays.insert(id.clone()) {
                tracing::warn!(node = %self.node, id,
                    "the agent has a workload that the fleet did not give it; it is left alone");
            }
        }
    }

    fn is_ours_to_remove(&mut self, id: &str) -> bool {
        let fleet = self.door.control.fleet_id();
        let view = self.door.control.view();
        if want::is_leftover(&view, self.node, fleet, id) {
            return true;
        }
        let Some(workload) = view.workload_by_alias(&words::workload_key(id)) else {
            return self.parked.contains(id);
        };
        match workload.desired {
            Desired::Stopped => {
                self.parked.insert(id.to_owned());
                false
            }
            Desired::Deleted => self.parked.contains(id),
            Desired::Running => {
                let is_elsewhere = view.assignments_of(workload.id).next().is_some();
                is_elsewhere && self.parked.contains(id)
            }
        }
    }
}

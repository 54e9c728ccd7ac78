//! What an agent should run, in its contract's terms: ids, revisions and goals. Pure, from the view.
//!
//! | whose workload | its id on the agent | its revision there |
//! |---|---|---|
//! | came through this contract | the id that it came under | the one that it came with |
//! | the same, changed through another door since | the same | the number of its template |
//! | ours | `hostler-<fleet>-<assignment>` | the number of its template |
//!
//! A restart adds `-r<n>` to the revision, for an agent makes a copy anew only under another revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostler_control::fleet::State;
use hostler_model::spec::{Kind, RestartPolicy, WorkloadSpec};
use hostler_model::{
    Assignment, AssignmentId, Contract, FleetId, Foreign, Intent, NodeId, StopCause, UnitId,
    WorkloadId,
};
use hostler_wire::persys::{agent, control};
use prost::Message as _;

use super::{intake, outgo, words};

/// What one id on an agent is to be.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub id: String,
    pub unit: UnitId,
    pub workload: WorkloadId,
    pub kind: Kind,
    pub goal: Goal,
    pub revision: String,
    /// What came through the contract, if it still is what our spec says.
    payload: Option<control::WorkloadSpec>,
    spec: Arc<WorkloadSpec>,
    /// Older copies under the same id: this one takes them over, so that they are gone.
    pub superseded: Vec<UnitId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    Run,
    /// Stopped, and kept for a later start: disks and volumes stay.
    Park,
    Remove,
    /// It has ended for good and is left as it is.
    Rest,
}

/// Everything that the node should run, by its id there.
pub(super) fn of(view: &State, node: NodeId, fleet: FleetId) -> BTreeMap<String, Want> {
    let mut wants: BTreeMap<String, Want> = BTreeMap::new();
    for copy in view.assignments_on(node) {
        let Some(mut want) = one(view, copy, fleet) else {
            continue;
        };
        let other = wants.remove(&want.id);
        if let Some(mut other) = other {
            // The newer generation is the one that counts.
            let is_newer = (copy.is_wanted(), want.unit.generation)
                > (other.goal == Goal::Run, other.unit.generation);
            if !is_newer {
                std::mem::swap(&mut want, &mut other);
            }
            want.superseded.push(other.unit);
            want.superseded.append(&mut other.superseded);
        }
        wants.insert(want.id.clone(), want);
    }
    wants
}

/// The workload that an id on the node stands for, if the node has a copy of it.
pub(super) fn owned(view: &State, node: NodeId, id: &str) -> Option<WorkloadId> {
    let workload = match view.workload_by_alias(&words::workload_key(id)) {
        Some(workload) => workload.id,
        None => view.assignment(assignment_of(id)?)?.workload,
    };
    let mut copies = view.assignments_on(node);
    copies
        .any(|copy| copy.workload == workload)
        .then_some(workload)
}

/// The id of a copy of ours on an agent.
fn own_id(fleet: FleetId, assignment: AssignmentId) -> String {
    format!("hostler-{}-{assignment}", fleet.short())
}

/// The assignment that an id of any fleet's names.
fn assignment_of(id: &str) -> Option<AssignmentId> {
    let (_, assignment) = id.strip_prefix("hostler-")?.split_once('-')?;
    assignment.parse().ok()
}

/// Whether the id was given by this fleet to a copy that the node should not have: it can only be ours.
pub(super) fn is_leftover(view: &State, node: NodeId, fleet: FleetId, id: &str) -> bool {
    let Some(assignment) = assignment_of(id) else {
        return false;
    };
    id == own_id(fleet, assignment)
        && view
            .assignment(assignment)
            .is_none_or(|copy| copy.node != node)
}

fn one(view: &State, copy: &Assignment, fleet: FleetId) -> Option<Want> {
    let item = view.intent_item(copy)?;
    let revision = view.revision(copy.workload, copy.revision);
    let foreign = match revision {
        Some(revision) => revision.foreign.clone(),
        None => view.workload(copy.workload)?.foreign.clone(),
    };
    let foreign = foreign.filter(|it| it.key.contract == Contract::Persys && copy.slot == 0);
    let payload = foreign.as_ref().and_then(|it| replayable(it, &item.spec));
    let id = match &foreign {
        Some(foreign) => foreign.key.foreign.clone(),
        None => own_id(fleet, copy.id),
    };
    let stem = match (&foreign, &payload) {
        (Some(foreign), Some(_)) => foreign.revision.clone(),
        _ => copy.template.to_string(),
    };
    let revision = match copy.restart {
        0 => stem,
        restart => format!("{stem}-r{restart}"),
    };
    let goal = match copy.intent {
        Intent::Run if copy.is_finished() => Goal::Rest,
        Intent::Run => Goal::Run,
        Intent::Stop {
            cause: StopCause::Stopped,
        } if foreign.is_some() => Goal::Park,
        Intent::Stop { .. } => Goal::Remove,
    };
    Some(Want {
        id,
        unit: copy.unit(),
        workload: copy.workload,
        kind: item.spec.runs_on(),
        goal,
        revision,
        payload,
        spec: item.spec,
        superseded: Vec::new(),
    })
}

/// The payload, unless the spec was changed through another door since.
fn replayable(foreign: &Foreign, spec: &WorkloadSpec) -> Option<control::WorkloadSpec> {
    let payload = control::WorkloadSpec::decode(&*foreign.payload).ok()?;
    let mapped = intake::spec(&foreign.key.foreign, &payload).ok()?;
    let mapped = WorkloadSpec {
        name: spec.name.clone(),
        ..mapped
    };
    (mapped == *spec).then_some(payload)
}

impl Want {
    /// What the agent is told to run.
    pub(super) fn for_agent(&self) -> Result<agent::WorkloadSpec, String> {
        match &self.payload {
            Some(payload) => outgo::to_agent(&self.id, &self.spec.name, payload),
            None => outgo::ours_to_agent(&self.id, &self.spec),
        }
    }

    /// What an agent that holds a stream is told to run.
    pub(super) fn for_stream(&self) -> Result<control::WorkloadSpec, String> {
        match &self.payload {
            Some(payload) => Ok(payload.clone()),
            None => outgo::to_control(&self.spec),
        }
    }

    /// Whether a copy that ended with that result is done. What came through the contract is kept up, as its
    /// scheduler does.
    pub(super) fn rests_after(&self, is_success: bool) -> bool {
        let policy = self.spec.restart.policy;
        self.payload.is_none()
            && match policy {
                RestartPolicy::No => true,
                RestartPolicy::OnFailure => is_success,
                RestartPolicy::Always | RestartPolicy::UnlessStopped => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use hostler_model::Timestamp;

    use super::*;

    #[test]
    fn only_an_id_that_this_fleet_gave_is_a_leftover() {
        let now = Timestamp::from_millis(5);
        let (fleet, other) = (FleetId::mint(now, 1), FleetId::mint(now, 2));
        let copy = AssignmentId::mint(now, 3);
        let (view, node) = (State::default(), NodeId::mint(now, 4));
        assert_eq!(assignment_of(&own_id(fleet, copy)), Some(copy));
        assert!(is_leftover(&view, node, fleet, &own_id(fleet, copy)));
        for id in [
            own_id(other, copy),
            copy.to_string(),
            "hostler-1".to_owned(),
            "web".to_owned(),
        ] {
            assert!(!is_leftover(&view, node, fleet, &id), "{id}");
        }
    }
}

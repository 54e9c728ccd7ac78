//! What applying would do now: the same verbs, decided by the pure core on a copy of the view, and the
//! difference. Nothing is submitted, nothing is promised: the fleet may have moved on by the time of the apply.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as With;
use hostler_control::fleet::{self, ApplyOptions, Expect, Moment, State, Verb};
use hostler_model::spec::WorkloadSpec;
use hostler_model::{Actor, AssignmentId, Code, Refusal, Timestamp, Workload};
use hostler_wire::api;
use serde_json::Value;

use super::refuse::Failure;
use super::take::{Caller, SpecText};
use super::workloads::specs;
use super::{Api, convert};

/// Copies that one look at a workload places.
const CHUNK: usize = 256;
/// Looks at one workload; what is not placed by then is not listed.
const MOST_CHUNKS: usize = 64;

/// What applying these specs would do.
#[utoipa::path(post, path = "/api/v1/workloads/plan", tag = "workloads",
    request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = api::Plan), (status = "default", body = api::Problem)))]
pub(super) async fn plan(
    With(api): With<Api>,
    Caller(caller): Caller,
    SpecText(text): SpecText,
) -> Result<Json<api::Plan>, Failure> {
    let specs = specs(&text, Expect::Any)?;
    let now = Timestamp::from_millis(api.control.clock().wall_millis());
    let moment = Moment {
        now,
        seed: api.entropy.next_u128(),
    };
    // A copy of a large fleet takes a while, and beats must not wait for it.
    let rehearsed = tokio::task::spawn_blocking(move || {
        let state = api.control.view().clone();
        Rehearsal {
            state,
            moment,
            actor: caller,
        }
        .all(specs)
    });
    Ok(Json(rehearsed.await.map_err(|_| broken())??))
}

/// A fleet on which nothing is real.
struct Rehearsal {
    state: State,
    moment: Moment,
    actor: Actor,
}

impl Rehearsal {
    fn all(mut self, specs: Vec<Arc<WorkloadSpec>>) -> Result<api::Plan, Refusal> {
        // What is refused of the documents together is refused here, too.
        self.decide(&Verb::Apply {
            specs: specs.clone(),
            options: ApplyOptions {
                dry_run: true,
                ..ApplyOptions::default()
            },
        })?;
        let workloads = specs
            .into_iter()
            .map(|spec| self.one(spec))
            .collect::<Result<_, _>>()?;
        Ok(api::Plan { workloads })
    }

    fn one(&mut self, spec: Arc<WorkloadSpec>) -> Result<api::PlannedWorkload, Refusal> {
        let before = self.state.workload_by_name(&spec.name).cloned();
        let changes = before
            .as_ref()
            .map_or_else(Vec::new, |old| difference(&old.spec, &spec));
        let copies_before = self.copies(before.as_deref());
        let template = before.as_ref().map(|old| old.template);
        let name = spec.name.clone();
        self.decide(&Verb::Apply {
            specs: vec![spec],
            options: ApplyOptions::default(),
        })?;
        let after = self.state.workload_by_name(&name).cloned();
        let Some(after) = after else {
            return Err(broken().0);
        };
        self.settle(&after)?;
        Ok(api::PlannedWorkload {
            name,
            action: match &before {
                None => api::Action::Create,
                Some(old) if old.revision == after.revision => api::Action::Unchanged,
                Some(_) => api::Action::Update,
            },
            revision: before.as_ref().map(|old| old.revision),
            changes,
            restarts_copies: !copies_before.is_empty()
                && template.is_some_and(|template| template != after.template),
            placements: self.placements(&after, &copies_before),
            stops: self.stops(&after, &copies_before),
            pending: self.pending(&after),
        })
    }

    fn decide(&mut self, verb: &Verb) -> Result<bool, Refusal> {
        self.moment.seed = self.moment.seed.wrapping_add(1);
        let decision = fleet::decide(&self.state, &self.moment, &self.actor, verb)?;
        decision
            .changes
            .iter()
            .for_each(|change| self.state.apply(change));
        Ok(!decision.changes.is_empty())
    }

    fn settle(&mut self, workload: &Workload) -> Result<(), Refusal> {
        let verb = Verb::Settle {
            workload: workload.id,
            limit: CHUNK,
        };
        for _ in 0..MOST_CHUNKS {
            if !self.decide(&verb)? {
                break;
            }
        }
        Ok(())
    }

    fn copies(&self, workload: Option<&Workload>) -> BTreeSet<AssignmentId> {
        let copies = workload.map(|workload| self.state.assignments_of(workload.id));
        let wanted = copies.into_iter().flatten().filter(|copy| copy.is_wanted());
        wanted.map(|copy| copy.id).collect()
    }

    fn placements(
        &self,
        workload: &Workload,
        before: &BTreeSet<AssignmentId>,
    ) -> Vec<api::PlannedPlacement> {
        let copies = self.state.assignments_of(workload.id);
        let fresh = copies.filter(|copy| copy.is_wanted() && !before.contains(&copy.id));
        let shown = fresh.map(|copy| api::PlannedPlacement {
            slot: copy.slot,
            node: copy.node.to_string(),
            node_name: self
                .state
                .node(copy.node)
                .map(|node| node.name.clone())
                .unwrap_or_default(),
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by_key(|placement| placement.slot);
        shown
    }

    /// Copies that stop and whose slot stays empty.
    fn stops(&self, workload: &Workload, before: &BTreeSet<AssignmentId>) -> u32 {
        let copies = self.state.assignments_of(workload.id);
        let ended = copies.filter(|copy| {
            before.contains(&copy.id) && !copy.is_wanted() && copy.slot >= workload.spec.count
        });
        u32::try_from(ended.count()).unwrap_or(u32::MAX)
    }

    fn pending(&self, workload: &Workload) -> Option<api::Why> {
        let why = fleet::why(&self.state, workload.id)?;
        // Nodes are told about, too, if a new revision of running copies fits nowhere.
        (why.pending > 0 || !why.nodes.is_empty()).then(|| convert::why(&why, Vec::new()))
    }
}

/// The keys of the spec that differ, in their order.
fn difference(old: &WorkloadSpec, new: &WorkloadSpec) -> Vec<api::PlannedChange> {
    let mut changes = Vec::new();
    let [old, new] = [old, new].map(|spec| serde_json::to_value(spec).unwrap_or_default());
    compare(String::new(), old, new, &mut changes);
    changes
}

fn compare(path: String, from: Value, to: Value, changes: &mut Vec<api::PlannedChange>) {
    match (from, to) {
        (Value::Object(mut from), Value::Object(mut to)) => {
            let keys: BTreeSet<String> = from.keys().chain(to.keys()).cloned().collect();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                let [from, to] =
                    [&mut from, &mut to].map(|side| side.remove(&key).unwrap_or_default());
                compare(format!("{path}{dot}{key}"), from, to, changes);
            }
        }
        (from, to) if from != to => changes.push(api::PlannedChange { path, from, to }),
        _ => {}
    }
}

fn broken() -> Failure {
    let advice = "look for the request id in the server's log, and report it";
    Failure(Refusal::new(
        Code::Internal,
        "the rehearsal broke off",
        advice,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_names_each_key_with_both_values() {
        let old = WorkloadSpec::of_container("web", "a:1", vec![]);
        let mut new = WorkloadSpec::of_container("web", "a:2", vec![]);
        new.count = 3;
        new.env.insert("A".to_owned(), "b".to_owned());
        let changes = difference(&old, &new);
        let paths: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["container.image", "count", "env"]);
        assert_eq!(
            (&changes[1].from, &changes[1].to),
            (&Value::from(1), &Value::from(3))
        );
        assert!(difference(&old, &old).is_empty());
    }
}

//! What applying would do now: the same verbs, decided by the pure core on a copy of the view, and the
//! difference. Nothing is submitted, nothing is promised: the fleet may have moved on by the time of the apply.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as With;
use hostler_control::fleet::{self, ApplyOptions, Expect, Moment, Progress, State, Verb};
use hostler_model::spec::{Update, WorkloadSpec};
use hostler_model::{Actor, AssignmentId, Code, FIRST_SPARE_SLOT, Refusal, Timestamp, Workload};
use hostler_wire::api;

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
            .map_or_else(Vec::new, |old| convert::difference(&old.spec, &spec));
        let copies_before = self.copies(before.as_deref());
        let is_same = before.as_ref().is_some_and(|old| old.spec == spec);
        let (rollout, beside) = self.rollout(before.as_deref(), &spec)?;
        let name = spec.name.clone();
        let whole = match &before {
            Some(old) if !old.spec.same_template(&spec) => at_once(&spec),
            _ => spec,
        };
        let after = self.applied(whole)?;
        self.settle(&after)?;
        self.succeed(&after)?;
        Ok(api::PlannedWorkload {
            name,
            action: match &before {
                None => api::Action::Create,
                Some(_) if is_same => api::Action::Unchanged,
                Some(_) => api::Action::Update,
            },
            revision: before.as_ref().map(|old| old.revision),
            changes,
            restarts_copies: rollout.is_some(),
            rollout,
            beside,
            placements: self.placements(&after, &copies_before),
            stops: self.stops(&after, &copies_before),
            pending: self.pending(&after),
        })
    }

    /// How copies would be replaced, and where new ones would run beside them first.
    fn rollout(
        &self,
        before: Option<&Workload>,
        spec: &Arc<WorkloadSpec>,
    ) -> Result<(Option<String>, Vec<api::PlannedPlacement>), Refusal> {
        let is_other = before.is_some_and(|old| old.spec != *spec);
        if !is_other {
            return Ok((None, Vec::new()));
        }
        let mut trial = Self {
            state: self.state.clone(),
            moment: self.moment,
            actor: self.actor.clone(),
        };
        let after = trial.applied(Arc::clone(spec))?;
        let Some(rollout) = after.rollout.as_ref() else {
            return Ok((None, Vec::new()));
        };
        // What is under way already goes on as it was announced.
        if before.is_some_and(|old| old.template == after.template) {
            return Ok((None, Vec::new()));
        }
        let outdated = fleet::rollout_standing(&trial.state, &after).map_or(0, |it| it.outdated);
        let beside = if rollout.spares > 0 {
            trial.settle(&after)?;
            let mut placed = trial.placements(&after, &BTreeSet::new());
            placed.retain(|placement| placement.slot >= FIRST_SPARE_SLOT);
            placed
        } else {
            Vec::new()
        };
        Ok((
            Some(convert::rollout_plan(&after, rollout, outdated)),
            beside,
        ))
    }

    fn applied(&mut self, spec: Arc<WorkloadSpec>) -> Result<Workload, Refusal> {
        let name = spec.name.clone();
        self.decide(&Verb::Apply {
            specs: vec![spec],
            options: ApplyOptions::default(),
        })?;
        let after = self.state.workload_by_name(&name);
        after
            .map(|after| Workload::clone(after))
            .ok_or_else(|| broken().0)
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

    /// Every new copy turns out to be healthy: what is still outdated then has no place.
    fn succeed(&mut self, workload: &Workload) -> Result<(), Refusal> {
        let record = self.state.workload(workload.id);
        let rollout = record.and_then(|record| record.rollout.as_ref());
        let Some(step) = rollout.map(|rollout| rollout.step) else {
            return Ok(());
        };
        let copies = self.state.assignments_of(workload.id);
        let tried = copies.filter(|copy| copy.is_wanted() && copy.trial);
        let seen = Progress {
            workload: workload.id,
            step,
            healthy: tried.map(|copy| copy.unit()).collect(),
            lapsed: Vec::new(),
            idle: Vec::new(),
            failed: None,
        };
        self.decide(&Verb::Advance(Box::new(seen)))?;
        self.settle(workload)
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
            before.contains(&copy.id) && !copy.is_wanted() && copy.slot >= workload.spec.copies()
        });
        u32::try_from(ended.count()).unwrap_or(u32::MAX)
    }

    fn pending(&self, workload: &Workload) -> Option<api::Why> {
        let why = fleet::why(&self.state, workload.id)?;
        // Nodes are told about, too, if a new revision of running copies fits nowhere.
        (why.pending > 0 || !why.nodes.is_empty()).then(|| convert::why(&why, Vec::new()))
    }
}

/// The same spec without any pace: where its copies are in the end does not depend on it.
fn at_once(spec: &WorkloadSpec) -> Arc<WorkloadSpec> {
    Arc::new(WorkloadSpec {
        update: Update {
            max_parallel: u32::MAX,
            ..Update::default()
        },
        ..spec.clone()
    })
}

fn broken() -> Failure {
    let advice = "look for the request id in the server's log, and report it";
    Failure(Refusal::new(
        Code::Internal,
        "the rehearsal broke off",
        advice,
    ))
}

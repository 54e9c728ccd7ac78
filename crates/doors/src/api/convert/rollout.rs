//! Rollouts: how far one has come, and how one would go, in one line each.

use hostler_control::Control;
use hostler_control::fleet::{self, Health, RolloutStanding, State};
use hostler_model::spec::UpdateOrder;
use hostler_model::{Assignment, Liveness, Rollout, Stage, Workload};
use hostler_wire::api;

/// The rollout of a workload as the API shows it.
pub(super) fn rollout(
    control: &Control,
    state: &State,
    workload: &Workload,
) -> Option<api::Rollout> {
    let record = workload.rollout.as_ref()?;
    let standing = fleet::rollout_standing(state, workload)?;
    let is_proven = standing.beside_healthy >= record.spares;
    let (stage, needs_person) = match &record.stage {
        Stage::Canary => (
            api::RolloutStage::Canary,
            is_proven && !workload.spec.update.auto_promote,
        ),
        Stage::Rolling => (api::RolloutStage::Rolling, false),
        Stage::Failed { .. } => (api::RolloutStage::Failed, true),
    };
    let waits_for = || {
        let copies = state.assignments_of(workload.id);
        let first = copies
            .into_iter()
            .find(|copy| copy.is_wanted() && copy.trial);
        first.map(|copy| waiting(control, state, workload, copy))
    };
    Some(api::Rollout {
        revision: workload.revision,
        from: record.base.revision,
        stage,
        renewed: standing.renewed,
        healthy: standing.healthy,
        outdated: standing.outdated,
        beside: standing.beside,
        beside_healthy: standing.beside_healthy,
        needs_person,
        summary: summary(workload, record, standing, waits_for()),
    })
}

fn summary(
    workload: &Workload,
    rollout: &Rollout,
    standing: RolloutStanding,
    waits_for: Option<String>,
) -> String {
    let RolloutStanding {
        renewed,
        healthy,
        beside_healthy,
        ..
    } = standing;
    let (revision, count) = (workload.revision, workload.spec.count);
    match &rollout.stage {
        Stage::Canary => {
            let waits = match waits_for {
                Some(copy) => copy,
                None if beside_healthy < rollout.spares => "a place for a canary".to_owned(),
                None => "a person to promote it or to roll it back".to_owned(),
            };
            format!(
                "trying revision {revision}: {beside_healthy} of {} canaries healthy, waiting for {waits}",
                rollout.spares
            )
        }
        Stage::Rolling => {
            let waits = match waits_for {
                Some(copy) => format!(", waiting for {copy}"),
                None if standing.outdated > 0 => {
                    ", waiting for a place for the next copy".to_owned()
                }
                None => String::new(),
            };
            format!(
                "rolling out revision {revision}: {renewed} of {count}, {healthy} healthy{waits}"
            )
        }
        Stage::Failed { reason } => {
            format!(
                "the rollout of revision {revision} has failed at {renewed} of {count}: {reason}"
            )
        }
    }
}

/// `web.0 on box, which is being started`.
fn waiting(control: &Control, state: &State, workload: &Workload, copy: &Assignment) -> String {
    let node = state.node(copy.node);
    let is_heard = node.is_some_and(|node| node.liveness == Liveness::Alive);
    let observed = is_heard
        .then(|| control.observed_at(copy.node, copy.id))
        .flatten();
    let how = match fleet::health(copy, observed.as_ref()) {
        Health::Unknown => "has not been heard of yet".to_owned(),
        Health::Preparing => "is being prepared".to_owned(),
        Health::Starting => "is being started".to_owned(),
        Health::Running => "has not run for long enough".to_owned(),
        Health::Done => "has ended well".to_owned(),
        Health::Down(why) | Health::Broken(why) => format!("does not run: {why}"),
    };
    let node = node.map_or("?", |node| node.name.as_str());
    format!("{}.{} on {node}, which {how}", workload.name, copy.slot)
}

/// How a rollout would go.
pub(in crate::api) fn rollout_plan(
    workload: &Workload,
    rollout: &Rollout,
    outdated: u32,
) -> String {
    let update = &workload.spec.update;
    let copies = match outdated {
        1 => "1 copy is replaced".to_owned(),
        many if many <= update.max_parallel => format!("{many} copies are replaced at once"),
        many => format!(
            "{many} copies are replaced, {} at a time",
            update.max_parallel
        ),
    };
    let first = match (&rollout.stage, update.order) {
        (Stage::Canary, _) => {
            let how = if update.auto_promote {
                "until they are healthy"
            } else {
                "until they are promoted"
            };
            let canaries = match rollout.spares {
                1 => "1 canary runs".to_owned(),
                many => format!("{many} canaries run"),
            };
            format!("{canaries} beside the old copies {how}; then ")
        }
        (_, UpdateOrder::StartFirst) if rollout.spares > 0 => {
            format!("{} new beside the old ones first; ", rollout.spares)
        }
        _ => String::new(),
    };
    let back = if update.auto_revert && rollout.base.template != workload.template {
        format!(
            "; if it fails, revision {} comes back",
            rollout.base.revision
        )
    } else {
        String::new()
    };
    format!("{first}{copies}{back}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::spec::{Update, WorkloadSpec};
    use hostler_model::{Base, Desired, Timestamp, WorkloadId};

    use super::*;

    fn of(update: Update, stage: Stage, spares: u32) -> (Workload, Rollout) {
        let mut spec = WorkloadSpec::of_process("web", vec!["a".to_owned()]);
        (spec.count, spec.update) = (5, update);
        let base = Base {
            revision: 3,
            template: 3,
            restart: 0,
        };
        let workload = Workload {
            id: WorkloadId::LEAST,
            name: "web".to_owned(),
            spec: Arc::new(spec),
            desired: Desired::Running,
            revision: 4,
            template: 4,
            restart: 0,
            rollout: None,
            generation: 9,
            homes: std::collections::BTreeMap::new(),
            parent: None,
            due: None,
            foreign: None,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        let rollout = Rollout {
            base,
            stage,
            spares,
            step: 1,
        };
        (workload, rollout)
    }

    #[test]
    fn a_rollout_is_told_in_one_line() {
        let standing = RolloutStanding {
            renewed: 2,
            healthy: 1,
            outdated: 3,
            beside: 1,
            beside_healthy: 1,
        };
        let (workload, rolling) = of(Update::default(), Stage::Rolling, 0);
        let waits = Some("web.1 on box, which is being started".to_owned());
        assert_eq!(
            summary(&workload, &rolling, standing, waits),
            "rolling out revision 4: 2 of 5, 1 healthy, waiting for web.1 on box, which is being started"
        );
        let (workload, canary) = of(Update::default(), Stage::Canary, 1);
        assert_eq!(
            summary(&workload, &canary, standing, None),
            "trying revision 4: 1 of 1 canaries healthy, waiting for a person to promote it or to roll it back"
        );
        let reason = "web.1 on box ended 9 times".to_owned();
        let (workload, failed) = of(Update::default(), Stage::Failed { reason }, 0);
        assert_eq!(
            summary(&workload, &failed, standing, None),
            "the rollout of revision 4 has failed at 2 of 5: web.1 on box ended 9 times"
        );
    }

    #[test]
    fn how_a_rollout_would_go_is_told_in_one_line() {
        let update = Update {
            max_parallel: 2,
            canary: 1,
            auto_revert: true,
            ..Update::default()
        };
        let (workload, rollout) = of(update.clone(), Stage::Canary, 1);
        assert_eq!(
            rollout_plan(&workload, &rollout, 5),
            "1 canary runs beside the old copies until they are promoted; then 5 copies are replaced, 2 at a time; \
             if it fails, revision 3 comes back"
        );
        let update = Update {
            canary: 0,
            auto_revert: false,
            order: UpdateOrder::StartFirst,
            ..update
        };
        let (workload, rollout) = of(update, Stage::Rolling, 2);
        assert_eq!(
            rollout_plan(&workload, &rollout, 2),
            "2 new beside the old ones first; 2 copies are replaced at once"
        );
    }
}

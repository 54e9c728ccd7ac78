//! Workloads that came through another contract: known by a foreign id, which never becomes their name or id.

use std::sync::Arc;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{
    Alias, AliasOwner, Desired, EventKind, Foreign, Refusal, Workload, WorkloadId,
};

use super::workloads::{changed, check_enforceable, check_not_deleting, unchanged};
use super::{Draft, check_expected};
use crate::{Change, Expect, Reply};

/// Longest name: that of a DNS label.
const LONGEST_NAME: usize = 63;

impl Draft<'_> {
    pub(super) fn apply_foreign(
        &mut self,
        foreign: &Arc<Foreign>,
        spec: &WorkloadSpec,
        desired: Desired,
        expect: Expect,
    ) -> Result<Reply, Refusal> {
        let old = self.state.workload_by_alias(&foreign.key).cloned();
        if let Some(old) = &old {
            check_not_deleting(old)?;
        }
        let noun = format!(
            "workload {}",
            old.as_ref().map_or(&spec.name, |old| &old.name)
        );
        check_expected(expect, old.as_ref().map(|old| old.revision), &noun)?;
        let Some(old) = old else {
            return self.create_foreign(foreign, spec, desired);
        };
        let foreign = &revised(foreign, old.foreign.as_deref());
        let spec = named(spec, old.name.clone());
        spec.check()?;
        check_enforceable(&spec)?;
        self.check_secrets(&spec)?;
        let is_same = old.spec == spec && old.foreign.as_ref() == Some(foreign);
        if is_same && old.desired == desired {
            return Ok(unchanged(&old));
        }
        if is_same {
            return self.set_desired(old.id, desired, Expect::Any);
        }
        let next = self.respecified(&old, &spec, Some(Arc::clone(foreign)));
        let next = Workload { desired, ..next };
        let rollout = self.rollout(&old, &next, false);
        let next = Workload { rollout, ..next };
        let message = format!(
            "workload {} changed to revision {}",
            next.name, next.revision
        );
        let reply = changed(&next);
        self.revise_workload(next, EventKind::WorkloadApplied, message);
        Ok(reply)
    }

    fn create_foreign(
        &mut self,
        foreign: &Arc<Foreign>,
        spec: &WorkloadSpec,
        desired: Desired,
    ) -> Result<Reply, Refusal> {
        let draft = self.created(&Arc::new(spec.clone()));
        let spec = named(spec, self.free_workload_name(&spec.name, draft.id));
        spec.check()?;
        check_enforceable(&spec)?;
        self.check_secrets(&spec)?;
        let next = Workload {
            name: spec.name.clone(),
            spec,
            desired,
            foreign: Some(Arc::clone(foreign)),
            ..draft
        };
        self.changes.push(Change::PutAlias(Arc::new(Alias {
            key: foreign.key.clone(),
            owner: AliasOwner::Workload(next.id),
            created_at: self.now,
        })));
        let (contract, id) = (foreign.key.contract.as_str(), &foreign.key.foreign);
        let message = format!("workload {} was created for {contract} {id}", next.name);
        let reply = changed(&next);
        self.revise_workload(next, EventKind::WorkloadApplied, message);
        Ok(reply)
    }

    fn free_workload_name(&self, wanted: &str, id: WorkloadId) -> String {
        if self.state.workload_by_name(wanted).is_none() {
            return wanted.to_owned();
        }
        let suffix = format!("-{}", id.short());
        let stem: String = wanted.chars().take(LONGEST_NAME - suffix.len()).collect();
        format!("{}{suffix}", stem.trim_end_matches('-'))
    }
}

/// The caller's word for the revision, as far as it changes with the payload and never without it: agents skip a
/// revision that they have. Decided here, because two callers may use one word at the same time.
fn revised(foreign: &Arc<Foreign>, old: Option<&Foreign>) -> Arc<Foreign> {
    let revision = match old {
        Some(old) if old.payload == foreign.payload => old.revision.clone(),
        Some(old) if !foreign.revision.is_empty() && old.revision == foreign.revision => {
            Foreign::derived_revision(&foreign.payload)
        }
        _ => return Arc::clone(foreign),
    };
    Arc::new(Foreign {
        revision,
        ..Foreign::clone(foreign)
    })
}

fn named(spec: &WorkloadSpec, name: String) -> Arc<WorkloadSpec> {
    Arc::new(WorkloadSpec {
        name,
        ..spec.clone()
    })
}

//! Containers that somebody else made and that became ours while they ran. A living container's labels cannot be
//! changed, so a record on disk says which unit it is: one for each workload.
//!
//! ```text
//!   (none) ──prepare──► with its container ──remove──► ended, without one ──remove with the data──► (none)
//! ```
//!
//! Only the first unit of a workload takes a container over. A workload that has a record gets containers of its own
//! from then on, so that an update or a restart does not look for what is gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerUpdateBody, EventActor, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::InspectContainerOptions;
use hostler_model::{FailureCode, UnitId, WorkloadId};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::engine::{Attempt as _, readable};
use super::found::moment;
use super::{Inner, LABEL_OWNER, LABEL_UNIT, is_ours, lock};
use crate::{RuntimeError, Unit, disk};

/// The records, read once.
pub(super) struct Adoptions {
    dir: PathBuf,
    records: OnceCell<Mutex<BTreeMap<WorkloadId, Record>>>,
    /// One at a time takes something over, so that no two take the same.
    taking: tokio::sync::Mutex<()>,
}

/// What a workload has taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) workload: WorkloadId,
    pub(super) unit: UnitId,
    /// The engine's id; none once it is removed.
    pub(super) container: Option<String>,
    pub(super) grace_ms: u64,
}

impl Adoptions {
    pub(super) const fn in_dir(dir: PathBuf) -> Self {
        Self {
            dir,
            records: OnceCell::const_new(),
            taking: tokio::sync::Mutex::const_new(()),
        }
    }

    /// The units that are adopted containers.
    pub(super) async fn living(&self) -> Result<Vec<Record>, RuntimeError> {
        let records = lock(self.records().await?);
        let living = records.values().filter(|it| it.container.is_some());
        Ok(living.cloned().collect())
    }

    /// The record of a unit that is an adopted container.
    pub(super) async fn of_unit(&self, id: UnitId) -> Result<Option<Record>, RuntimeError> {
        let living = self.living().await?;
        Ok(living.into_iter().find(|record| record.unit == id))
    }

    /// Whether somebody else made the container.
    pub(super) async fn has(&self, container: &str) -> Result<bool, RuntimeError> {
        let living = self.living().await?;
        Ok(living
            .iter()
            .any(|it| it.container.as_deref() == Some(container)))
    }

    async fn of_workload(&self, id: WorkloadId) -> Result<Option<Record>, RuntimeError> {
        Ok(lock(self.records().await?).get(&id).cloned())
    }

    /// Lets a record without a container follow the workload to its present unit, with which it will go.
    async fn pass_on(&self, record: Record, unit: UnitId) -> Result<(), RuntimeError> {
        if record.container.is_some() || record.unit == unit {
            return Ok(());
        }
        self.put(Record { unit, ..record }).await
    }

    async fn put(&self, record: Record) -> Result<(), RuntimeError> {
        let (dir, path, written) = (self.dir.clone(), self.path(record.workload), record.clone());
        disk::off_thread("record an adopted container", move || {
            std::fs::create_dir_all(&dir)?;
            disk::write_durably(&path, &written)
        })
        .await?;
        lock(self.records().await?).insert(record.workload, record);
        Ok(())
    }

    /// The unit's container is gone. With the workload's data goes the memory of it.
    pub(super) async fn end(&self, id: UnitId, is_forgotten: bool) -> Result<(), RuntimeError> {
        let is_meant = |record: &&Record| {
            let is_spent = record.container.is_none() && is_forgotten;
            record.unit == id || (is_spent && record.unit.assignment == id.assignment)
        };
        let found = lock(self.records().await?).values().find(is_meant).cloned();
        let Some(record) = found else {
            return Ok(());
        };
        if !is_forgotten {
            let container = None;
            return self
                .put(Record {
                    container,
                    ..record
                })
                .await;
        }
        let path = self.path(record.workload);
        disk::off_thread("forget an adopted container", move || {
            disk::gone(std::fs::remove_file(&path))
        })
        .await?;
        lock(self.records().await?).remove(&record.workload);
        Ok(())
    }

    async fn records(&self) -> Result<&Mutex<BTreeMap<WorkloadId, Record>>, RuntimeError> {
        let dir = self.dir.clone();
        let load = async || {
            let read = disk::off_thread("read adopted containers", move || load(&dir));
            Ok(Mutex::new(read.await?))
        };
        self.records.get_or_try_init(load).await
    }

    fn path(&self, workload: WorkloadId) -> PathBuf {
        self.dir.join(format!("{workload}.json"))
    }
}

fn load(dir: &Path) -> std::io::Result<BTreeMap<WorkloadId, Record>> {
    let mut records = BTreeMap::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(records),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "json")
            && let Some(record) = disk::read::<Record>(&path)?
        {
            records.insert(record.workload, record);
        }
    }
    Ok(records)
}

impl Inner {
    /// Takes the container over that the spec names, unless the workload has done so before. It is not touched but
    /// for its restart policy: the engine would revive what has moved away.
    pub(super) async fn adopt(self: &Arc<Self>, unit: &Unit) -> Result<(), RuntimeError> {
        let spec = unit.spec.container.as_ref();
        let Some(name) = spec.and_then(|spec| spec.adopt.as_deref()) else {
            return Ok(());
        };
        let _taking = self.adoptions.taking.lock().await;
        if let Some(record) = self.adoptions.of_workload(unit.workload).await? {
            return self.adoptions.pass_on(record, unit.id).await;
        }
        let seen = self.named(name).await?;
        let (container, started_at) = self.adoptable(name, &seen).await?;
        let docker = self.engine.docker().await?;
        let policy = RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        };
        let body = ContainerUpdateBody {
            restart_policy: Some(policy),
            ..ContainerUpdateBody::default()
        };
        let updated = docker.update_container(&container, body).await;
        updated.or_refused(|refused| refused.of_spec(&unit.spec))?;
        self.starts.forget(unit.id).await?;
        self.starts.begin(unit.id, 1, started_at).await?;
        let record = Record {
            workload: unit.workload,
            unit: unit.id,
            container: Some(container.clone()),
            grace_ms: unit.spec.stop.grace_ms,
        };
        self.adoptions.put(record).await?;
        lock(&self.ids).insert(unit.id, container);
        tracing::info!(unit = %unit.id, name, "adopted a container");
        Ok(())
    }

    /// The container of that name. The engine takes ids and beginnings of ids for names, too; whoever let this one be
    /// taken over knew it by its name.
    async fn named(&self, name: &str) -> Result<ContainerInspectResponse, RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = None::<InspectContainerOptions>;
        let answer = readable(|| docker.inspect_container(name, options.clone())).await;
        let seen = match answer.attempt()? {
            Ok(seen) => Some(seen).filter(|it| is_called(it, name)),
            Err(refused) if refused.is_not_found() => None,
            Err(refused) => return Err(refused.of_engine()),
        };
        seen.ok_or_else(|| {
            let message = format!("there is no container `{name}` on this node");
            refused_as(FailureCode::AdoptNotFound, message)
        })
    }

    /// The adopted containers that the engine has.
    pub(super) async fn adopted(&self) -> Result<Vec<(UnitId, ContainerSummary)>, RuntimeError> {
        let living = self.adoptions.living().await?;
        if living.is_empty() {
            return Ok(Vec::new());
        }
        let ids = living.iter().filter_map(|it| it.container.clone());
        let summaries = self.engine.list("id", ids.collect()).await?;
        let unit = |summary: &ContainerSummary| {
            let record = living.iter().find(|it| it.container == summary.id);
            record.map(|record| record.unit)
        };
        let units = summaries.into_iter();
        Ok(units.filter_map(|it| Some((unit(&it)?, it))).collect())
    }

    /// The unit of ours that an event is about.
    pub(super) async fn unit_of(&self, actor: &EventActor) -> Option<UnitId> {
        let label = |key: &str| actor.attributes.as_ref().and_then(|it| it.get(key));
        if label(LABEL_OWNER) == Some(&self.owner) {
            return label(LABEL_UNIT).and_then(|text| text.parse().ok());
        }
        // Records that cannot be read are told of by whoever observes.
        let living = self.adoptions.living().await.unwrap_or_default();
        let record = living.iter().find(|it| it.container == actor.id);
        record.map(|record| record.unit)
    }

    /// The engine's id and when it was started, of a container that may be taken over.
    async fn adoptable(
        &self,
        name: &str,
        seen: &ContainerInspectResponse,
    ) -> Result<(String, hostler_model::Timestamp), RuntimeError> {
        let labels = seen.config.as_ref().and_then(|it| it.labels.as_ref());
        let id = seen.id.clone().unwrap_or_default();
        let living = self.adoptions.living().await?;
        let is_taken = living.iter().any(|it| it.container.as_ref() == Some(&id));
        if is_taken || labels.is_some_and(is_ours) {
            let message = format!("container `{name}` belongs to a workload of Hostler already");
            return Err(refused_as(FailureCode::AdoptManaged, message));
        }
        let state = seen.state.clone().unwrap_or_default();
        let started_at = state.started_at.as_deref().and_then(moment);
        match started_at.filter(|_| state.running == Some(true)) {
            Some(started_at) => Ok((id, started_at)),
            None => {
                let message = format!("container `{name}` does not run");
                Err(refused_as(FailureCode::AdoptNotRunning, message))
            }
        }
    }
}

fn is_called(seen: &ContainerInspectResponse, name: &str) -> bool {
    let called = seen.name.as_deref().unwrap_or_default();
    // Podman writes names without the slash in some answers.
    called.strip_prefix('/').unwrap_or(called) == name
}

fn refused_as(code: FailureCode, message: String) -> RuntimeError {
    RuntimeError::Unsatisfiable { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_or_its_beginning_is_no_name() {
        let seen = ContainerInspectResponse {
            id: Some("abc123".to_owned()),
            name: Some("/web".to_owned()),
            ..ContainerInspectResponse::default()
        };
        assert!(is_called(&seen, "web"));
        for name in ["abc", "abc123", "we", "/web", ""] {
            assert!(!is_called(&seen, name), "{name}");
        }
    }
}

//! What the compose driver has beside its units: images that it pulled, volumes and files of assignments that have no
//! unit here any more, and networks that nobody removed with their project.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use async_trait::async_trait;
use bollard::models::Volume;
use bollard::query_parameters::{ListNetworksOptions, ListVolumesOptions};
use hostler_model::{AssignmentId, Timestamp};

use super::{ComposeRuntime, Inner, LABEL_OWNER, PROJECT};
use crate::container::engine::Attempt as _;
use crate::{Discarded, Leftover, LeftoverKind, Leftovers, RuntimeError, disk};

#[async_trait]
impl Leftovers for ComposeRuntime {
    async fn place(&self) -> Option<PathBuf> {
        self.inner.engine.place().await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let inner = &self.inner;
        let docker = inner.engine.docker().await?;
        let mut all = inner.pulls.images().leftovers(&docker).await?;
        all.extend(inner.kept_data().await?);
        all.extend(inner.lone_networks().await?);
        Ok(all)
    }

    async fn discard(&self, kind: LeftoverKind, name: &str) -> Result<Discarded, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        match kind {
            LeftoverKind::Image => self.inner.pulls.images().discard(&docker, name).await,
            LeftoverKind::Debris => match docker.remove_network(name).await.attempt()? {
                Ok(()) => Ok(Discarded::Gone),
                Err(refused) if refused.is_not_found() => Ok(Discarded::Gone),
                Err(refused) => Ok(Discarded::Stays(refused.message)),
            },
            LeftoverKind::Data { assignment, .. } => self.inner.discard_data(assignment).await,
            LeftoverKind::Volume { .. } | LeftoverKind::SharedVolume { .. } => Ok(Discarded::Gone),
        }
    }
}

impl Inner {
    /// The data of assignments that have no unit here.
    async fn kept_data(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let owned = self.whose.all().await?;
        if owned.is_empty() {
            return Ok(Vec::new());
        }
        let volumes = self.volumes().await?;
        let units = self.assignments().await?;
        let mut kept = Vec::new();
        for (assignment, owned) in owned {
            if units.contains(&assignment) {
                continue;
            }
            let Some(_hold) = self.whose.try_hold(assignment) else {
                continue;
            };
            let volumes = volumes.get(&assignment).map_or(&[][..], Vec::as_slice);
            let Some(bytes) = self.data_bytes(assignment, volumes).await? else {
                self.whose.forget(assignment).await?;
                continue;
            };
            kept.push(Leftover {
                kind: LeftoverKind::Data {
                    assignment,
                    workload: Some(owned.workload),
                },
                name: assignment.to_string(),
                bytes,
                made_at: owned.made_at,
                used_at: owned.used_at,
                needed: None,
            });
        }
        Ok(kept)
    }

    async fn discard_data(&self, assignment: AssignmentId) -> Result<Discarded, RuntimeError> {
        let Some(_hold) = self.whose.try_hold(assignment) else {
            return Ok(Discarded::Stays("a unit is being made of it".to_owned()));
        };
        if self.assignments().await?.contains(&assignment) {
            return Ok(Discarded::Stays("a unit uses it".to_owned()));
        }
        self.remove_networks(assignment).await?;
        self.remove_volumes(assignment).await?;
        self.places.remove_data(assignment).await?;
        self.whose.forget(assignment).await?;
        Ok(Discarded::Gone)
    }

    /// What the data takes; none if there is none. Of volumes that this user may not look into nothing is known.
    async fn data_bytes(
        &self,
        assignment: AssignmentId,
        volumes: &[Volume],
    ) -> Result<Option<u64>, RuntimeError> {
        let data = self.places.data(assignment);
        let mounts: Vec<PathBuf> = volumes
            .iter()
            .map(|it| it.mountpoint.clone().into())
            .collect();
        disk::off_thread("measure kept data", move || {
            let is_there = !disk::entries(&data)?.is_empty() || !mounts.is_empty();
            let bytes = std::iter::once(&data)
                .chain(&mounts)
                .map(|dir| disk::usage(dir));
            Ok(is_there.then(|| bytes.sum()))
        })
        .await
    }

    /// Assignments that have a unit here, or half of one.
    async fn assignments(&self) -> Result<BTreeSet<AssignmentId>, RuntimeError> {
        let (projects, halves) = self.places.all().await?;
        let label = format!("{LABEL_OWNER}={}", self.owner);
        let containers = self.engine.list("label", vec![label]).await?;
        let of_labels = containers
            .iter()
            .filter_map(|it| self.project_of(it.labels.as_ref()?));
        let of_disk = projects.iter().map(|it| it.record.id).chain(halves);
        Ok(of_labels.chain(of_disk.map(|id| id.assignment)).collect())
    }

    /// The volumes of our projects.
    async fn volumes(&self) -> Result<HashMap<AssignmentId, Vec<Volume>>, RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = ListVolumesOptions {
            filters: Some(of_any_project()),
        };
        let listed = docker.list_volumes(Some(options)).await.or_down()?;
        let mut volumes: HashMap<_, Vec<_>> = HashMap::new();
        for volume in listed.volumes.unwrap_or_default() {
            if let Some(assignment) = self.project_of(&volume.labels) {
                volumes.entry(assignment).or_default().push(volume);
            }
        }
        Ok(volumes)
    }

    /// Networks of projects of ours that have no unit: a network goes before the record of its unit does.
    async fn lone_networks(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = ListNetworksOptions {
            filters: Some(of_any_project()),
        };
        let networks = docker.list_networks(Some(options)).await.or_down()?;
        let ours = networks.into_iter().filter_map(|network| {
            Some((self.project_of(network.labels.as_ref()?)?, network.name?))
        });
        let ours: Vec<_> = ours.collect();
        if ours.is_empty() {
            return Ok(Vec::new());
        }
        let units = self.assignments().await?;
        let lone = ours
            .into_iter()
            .filter(|(assignment, _)| !units.contains(assignment));
        let leftover = |(_, name)| Leftover {
            kind: LeftoverKind::Debris,
            name,
            bytes: 0,
            made_at: Timestamp::default(),
            used_at: Timestamp::default(),
            needed: None,
        };
        Ok(lone.map(leftover).collect())
    }

    /// Whose project it is by its label, if it is one of ours.
    fn project_of(&self, labels: &HashMap<String, String>) -> Option<AssignmentId> {
        self.places.assignment_of(labels.get(PROJECT)?)
    }
}

fn of_any_project() -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![PROJECT.to_owned()])])
}

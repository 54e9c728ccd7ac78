//! Ending and removing projects, through the engine alone, by labels: it works as well where the files, or the program,
//! are gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::query_parameters::{
    ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions, RemoveVolumeOptions,
};
use hostler_model::{AssignmentId, Exit, UnitId};

use super::project::Project;
use super::state::Piece;
use super::{Inner, LABEL_UNIT, PROJECT};
use crate::container::engine::Attempt as _;
use crate::container::requests::KILL_PATIENCE;
use crate::turns::lock;
use crate::{Data, FoundState, RuntimeError};

impl Inner {
    pub(super) async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let seen = self.seen_of(id).await?;
        let alive: Vec<&Piece> = seen
            .pieces
            .iter()
            .filter(|piece| piece.is_alive())
            .collect();
        if !alive.is_empty() {
            self.end(id, alive, seen.project.as_ref()).await?;
        }
        let seen = self.seen_of(id).await?;
        match seen.standing.state {
            FoundState::Exited { exit, .. } if !seen.pieces.iter().any(Piece::is_alive) => Ok(exit),
            // What has never run has not ended in any way that is known.
            FoundState::Prepared => Ok(Exit::Unknown),
            FoundState::Exited { .. } | FoundState::Running { .. } => {
                Err(RuntimeError::Unkillable(id))
            }
        }
    }

    /// Ends containers: those that depend on others first.
    pub(super) async fn end(
        &self,
        id: UnitId,
        pieces: Vec<&Piece>,
        project: Option<&Project>,
    ) -> Result<(), RuntimeError> {
        let services = project.map(|project| &project.record.services);
        let dependencies = |piece: &Piece| -> Vec<String> {
            let service = services.and_then(|services| services.get(&piece.service));
            service.map(|it| it.depends_on.clone()).unwrap_or_default()
        };
        let mut left = pieces;
        while !left.is_empty() {
            let needed: HashSet<String> =
                left.iter().flat_map(|piece| dependencies(piece)).collect();
            let (later, now): (Vec<&Piece>, Vec<&Piece>) = left
                .iter()
                .partition(|piece| needed.contains(&piece.service));
            // Those that depend on each other end together.
            let (later, now) = if now.is_empty() {
                (now, later)
            } else {
                (later, now)
            };
            let ends = now.into_iter().map(|piece| {
                let own = services.and_then(|services| services.get(&piece.service)?.grace_ms);
                let grace = own.map_or(piece.grace, Duration::from_millis);
                self.end_one(id, piece, grace)
            });
            futures::future::try_join_all(ends).await?;
            left = later;
        }
        Ok(())
    }

    async fn end_one(
        &self,
        id: UnitId,
        piece: &Piece,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let container = &piece.container;
        let is_over = || async move {
            let piece = self.inspect(id, container).await?;
            Ok::<bool, RuntimeError>(!piece.is_some_and(|piece| piece.is_alive()))
        };
        // It may have ended, or gone, in between.
        let sent = self.engine.signal(container, &piece.stop_signal).await?;
        if sent == Some(true) {
            self.engine.wait(container, grace, is_over).await?;
        }
        if is_over().await? {
            return Ok(());
        }
        self.engine.signal(container, "SIGKILL").await?;
        self.engine.wait(container, KILL_PATIENCE, is_over).await?;
        if is_over().await? {
            Ok(())
        } else {
            Err(RuntimeError::Unkillable(id))
        }
    }

    /// Ends what runs of a project that is not to go on after a part of it has failed.
    pub(super) fn end_the_rest(self: &Arc<Self>, id: UnitId) {
        if !lock(&self.ending).insert(id) {
            return;
        }
        tracing::info!(unit = %id, "a service has failed and nothing restarts it: ending the others");
        let inner = Arc::clone(self);
        self.tasks.spawn_until_stop("end a project", async move {
            let turn = inner.turns.take(id).await;
            if let Err(error) = inner.stop(id).await {
                tracing::warn!(unit = %id, %error, "the rest of a project could not be ended");
            }
            drop(turn);
            lock(&inner.ending).remove(&id);
            inner.watch.touch();
        });
    }

    pub(super) async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        match self.stop(id).await {
            Ok(_) | Err(RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let (ours, others): (Vec<_>, Vec<_>) = self
            .of_project(id)
            .await?
            .into_iter()
            .partition(|it| is_of(it, id));
        let docker = self.engine.docker().await?;
        for container in ours.iter().filter_map(|it| it.id.as_deref()) {
            let options = RemoveContainerOptions {
                v: true,
                force: true,
                link: false,
            };
            let removed = docker.remove_container(container, Some(options)).await;
            match removed.attempt()? {
                Ok(()) => {}
                // Gone, or somebody else removes it already.
                Err(refused) if refused.is_not_found() || refused.is_conflict() => {}
                Err(refused) => return Err(refused.of_unit(id)),
            }
        }
        self.secrets.remove(id).await?;
        // Networks and volumes are shared between generations.
        if others.is_empty() {
            self.remove_networks(id.assignment).await?;
            if data == Data::Delete {
                self.remove_volumes(id.assignment).await?;
            }
        }
        self.starts.forget(id).await?;
        self.places.remove(id, data == Data::Delete).await?;
        match data {
            Data::Delete if others.is_empty() => self.whose.forget(id.assignment).await,
            Data::Delete => Ok(()),
            Data::Keep => self.whose.left(id.assignment, self.now()).await,
        }
    }

    pub(super) async fn remove_networks(&self, id: AssignmentId) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = ListNetworksOptions {
            filters: Some(self.project_filter(id)),
        };
        for network in docker.list_networks(Some(options)).await.or_down()? {
            let Some(network) = network.id else { continue };
            match docker.remove_network(&network).await.attempt()? {
                Ok(()) => {}
                Err(refused) if refused.is_not_found() => {}
                Err(refused) => return Err(refused.of_engine()),
            }
        }
        Ok(())
    }

    pub(super) async fn remove_volumes(&self, id: AssignmentId) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = ListVolumesOptions {
            filters: Some(self.project_filter(id)),
        };
        let listed = docker.list_volumes(Some(options)).await.or_down()?;
        for volume in listed.volumes.unwrap_or_default() {
            let options = Some(RemoveVolumeOptions { force: false });
            match docker
                .remove_volume(&volume.name, options)
                .await
                .attempt()?
            {
                Ok(()) => {}
                Err(refused) if refused.is_not_found() => {}
                Err(refused) => return Err(refused.of_engine()),
            }
        }
        Ok(())
    }

    fn project_filter(&self, id: AssignmentId) -> HashMap<String, Vec<String>> {
        let label = format!("{PROJECT}={}", self.places.name_of(id));
        HashMap::from([("label".to_owned(), vec![label])])
    }

    /// Removes what an agent that died in a preparation left, once in a life of the driver.
    pub(super) async fn sweep(&self, halves: Vec<UnitId>) {
        if self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        for id in halves {
            // A verb that works on it knows better.
            if let Some(_turn) = self.turns.try_take(id)
                && let Err(error) = self.places.remove(id, false).await
            {
                tracing::warn!(unit = %id, %error, "what is left of a preparation cannot be removed");
            }
        }
    }
}

/// Whether a container of the project belongs to the unit; one without our label came of a person's own command.
pub(super) fn is_of(container: &bollard::models::ContainerSummary, id: UnitId) -> bool {
    let label = container
        .labels
        .as_ref()
        .and_then(|labels| labels.get(LABEL_UNIT));
    label.is_none_or(|label| *label == id.to_string())
}

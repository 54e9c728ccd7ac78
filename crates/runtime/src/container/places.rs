//! The container in which something is to be done: a command, files, a port. A driver over the engine says which it
//! is; what is done there is the engine's, and the same for every such driver.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use bollard::Docker;
use hostler_kit::Tasks;
use hostler_model::UnitId;

use super::ContainerRuntime;
use crate::exec::{no_parts, not_running};
use crate::{Archive, Exec, ExecCommand, Execution, Files, FoundState, Ports, RuntimeError};

/// A container of a unit, in which something is to be done.
pub(crate) struct Place {
    pub(crate) unit: UnitId,
    pub(crate) container: String,
    pub(crate) docker: Docker,
    /// Of the driver; what is left over of a command is ended there.
    pub(crate) tasks: Tasks,
}

/// Knows the containers of its units.
#[async_trait]
pub(crate) trait Places: Send + Sync {
    /// The container that is meant.
    async fn place(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError>;

    /// The same, if it runs.
    async fn running(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError>;
}

#[async_trait]
impl Places for ContainerRuntime {
    async fn place(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError> {
        no_parts(part)?;
        Ok(Place {
            unit: id,
            container: self.inner.container(id).await?,
            docker: self.inner.engine.docker().await?,
            tasks: self.inner.tasks.clone(),
        })
    }

    async fn running(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError> {
        let place = self.place(id, part).await?;
        let seen = self.inner.inspect(id, &place.container).await?;
        match seen.found.state {
            FoundState::Running { .. } => Ok(place),
            FoundState::Prepared | FoundState::Exited { .. } => Err(not_running(id)),
        }
    }
}

#[async_trait]
impl<T: Places> Exec for T {
    async fn begin(
        &self,
        id: UnitId,
        part: Option<&str>,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        self.running(id, part).await?.begin(command).await
    }
}

#[async_trait]
impl<T: Places> Files for T {
    async fn read(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        self.place(id, part).await?.read(path).await
    }

    async fn write(
        &self,
        id: UnitId,
        part: Option<&str>,
        path: &str,
        archive: Archive<io::Error>,
    ) -> Result<(), RuntimeError> {
        self.place(id, part).await?.write(path, archive).await
    }
}

#[async_trait]
impl<T: Places> Ports for T {
    async fn address(
        &self,
        id: UnitId,
        part: Option<&str>,
        port: u16,
    ) -> Result<SocketAddr, RuntimeError> {
        self.running(id, part).await?.address(port).await
    }
}

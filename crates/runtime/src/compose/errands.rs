//! What is done inside one container of a project: commands, files, ports. The part is a service, with its number
//! where it has several containers; a project of one container needs no word for it.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use hostler_model::{FailureCode, UnitId};

use super::ComposeRuntime;
use super::state::{Piece, name_of};
use crate::container::exec::Place;
use crate::exec::not_running;
use crate::{Archive, Exec, ExecCommand, Execution, Files, Ports, RuntimeError};

impl ComposeRuntime {
    async fn place(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError> {
        let seen = self.inner.find(id).await?;
        let seen = seen.ok_or(RuntimeError::NotFound(id))?;
        let piece = choose(&seen.pieces, part)?;
        Ok(Place {
            unit: id,
            container: piece.container.clone(),
            docker: self.inner.engine.docker().await?,
        })
    }

    async fn running(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError> {
        let seen = self.inner.find(id).await?;
        let seen = seen.ok_or(RuntimeError::NotFound(id))?;
        if seen.pieces.iter().all(|piece| !piece.is_alive()) {
            return Err(not_running(id));
        }
        match choose(&seen.pieces, part)? {
            piece if piece.is_alive() => self.place(id, part).await,
            _ => Err(not_running(id)),
        }
    }
}

/// The container that is meant.
fn choose<'a>(pieces: &'a [Piece], part: Option<&str>) -> Result<&'a Piece, RuntimeError> {
    let names: Vec<String> = pieces.iter().map(|it| name_of(it, pieces)).collect();
    let named = |part: &str| names.iter().position(|name| name == part);
    let index = match (part, pieces) {
        (Some(part), _) => named(part),
        (None, [_]) => Some(0),
        (None, _) => None,
    };
    index.and_then(|index| pieces.get(index)).ok_or_else(|| {
        let asked = part.map_or_else(
            || "the copy has several parts".to_owned(),
            |part| format!("the copy has no part `{part}`"),
        );
        RuntimeError::Unsatisfiable {
            code: FailureCode::PartNotFound,
            message: format!("{asked}; it has {}", names.join(", ")),
        }
    })
}

#[async_trait]
impl Exec for ComposeRuntime {
    async fn begin(
        &self,
        id: UnitId,
        part: Option<&str>,
        command: &ExecCommand,
    ) -> Result<Box<dyn Execution>, RuntimeError> {
        let place = self.running(id, part).await?;
        place.begin(&self.inner.tasks, command).await
    }
}

#[async_trait]
impl Files for ComposeRuntime {
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
impl Ports for ComposeRuntime {
    async fn address(
        &self,
        id: UnitId,
        part: Option<&str>,
        port: u16,
    ) -> Result<SocketAddr, RuntimeError> {
        self.running(id, part).await?.address(port).await
    }
}

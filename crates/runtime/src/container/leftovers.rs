//! What the container driver has beside its units: the images that it pulled.

use std::path::PathBuf;

use async_trait::async_trait;

use super::ContainerRuntime;
use crate::{Discarded, Leftover, LeftoverKind, Leftovers, RuntimeError};

#[async_trait]
impl Leftovers for ContainerRuntime {
    async fn place(&self) -> Option<PathBuf> {
        self.inner.engine.place().await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        self.inner.pulls.images().leftovers(&docker).await
    }

    async fn discard(&self, kind: LeftoverKind, name: &str) -> Result<Discarded, RuntimeError> {
        match kind {
            LeftoverKind::Image => {
                let docker = self.inner.engine.docker().await?;
                self.inner.pulls.images().discard(&docker, name).await
            }
            LeftoverKind::Debris
            | LeftoverKind::Data { .. }
            | LeftoverKind::Volume { .. }
            | LeftoverKind::SharedVolume { .. } => Ok(Discarded::Gone),
        }
    }
}

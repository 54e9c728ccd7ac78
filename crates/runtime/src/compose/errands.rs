//! Which container of a project is meant when something is to be done inside it. The part is a service, with its number
//! where it has several containers; a project of one container needs no word for it.

use async_trait::async_trait;
use hostler_model::{FailureCode, UnitId};

use super::state::{Piece, name_of};
use super::{ComposeRuntime, Inner};
use crate::RuntimeError;
use crate::container::places::{Place, Places};
use crate::exec::not_running;

#[async_trait]
impl Places for ComposeRuntime {
    async fn place(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError> {
        let seen = self.inner.seen_of(id).await?;
        self.inner.place(id, choose(&seen.pieces, part)?).await
    }

    async fn running(&self, id: UnitId, part: Option<&str>) -> Result<Place, RuntimeError> {
        let seen = self.inner.seen_of(id).await?;
        // What a project that has ended is made of tells nobody anything.
        if !seen.pieces.iter().any(Piece::is_alive) {
            return Err(not_running(id));
        }
        match choose(&seen.pieces, part)? {
            piece if piece.is_alive() => self.inner.place(id, piece).await,
            _ => Err(not_running(id)),
        }
    }
}

impl Inner {
    async fn place(&self, id: UnitId, piece: &Piece) -> Result<Place, RuntimeError> {
        Ok(Place {
            unit: id,
            container: piece.container.clone(),
            docker: self.engine.docker().await?,
            tasks: self.tasks.clone(),
        })
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

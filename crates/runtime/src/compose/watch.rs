//! What an event of the engine means for a project's container.

use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::EventMessage;
use hostler_model::Timestamp;

use super::state::Piece;
use super::{Inner, LABEL_OWNER};
use crate::container::engine::Engine;
use crate::container::watch::{Listener, Watch, listen};

impl Inner {
    /// Begins to listen to the engine's events, once.
    pub(super) fn watch_events(self: &Arc<Self>) {
        listen(self, &self.tasks, "watch compose events");
    }
}

#[async_trait]
impl Listener for Inner {
    /// The engine's id of the container.
    type Key = String;
    type Seen = Piece;

    fn watch(&self) -> &Watch<String, Piece> {
        &self.watch
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn label(&self) -> Option<String> {
        Some(format!("{LABEL_OWNER}={}", self.owner))
    }

    async fn hear(&self, event: EventMessage) {
        if let Some(container) = event.actor.and_then(|actor| actor.id) {
            self.watch.forget(&container);
        }
        self.watch.touch();
    }
}

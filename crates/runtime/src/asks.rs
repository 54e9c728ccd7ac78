//! What a container asks of its node, as the node's owner judges it. A driver whose units say so only in files of
//! their own, such as compose projects, has what it read judged before anything is made of it.

use std::sync::Arc;

use async_trait::async_trait;

use crate::RuntimeError;

/// What one container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asks {
    /// None for an image that the node is to build.
    pub image: Option<String>,
    pub user: Option<String>,
    /// All of the node's rights, or a namespace of the node's own.
    pub privileged: bool,
    /// Beyond those that engines give by themselves.
    pub capabilities: Vec<String>,
    /// Paths of the node that it sees.
    pub mounts: Vec<String>,
    /// Volumes of the engine that are not its own, by their names.
    pub volumes: Vec<String>,
    pub devices: Vec<String>,
    /// Networks of the node, or of the node itself: `host`; `bridge` for one of its own.
    pub networks: Vec<String>,
}

/// Says whether the node's owner lets it.
#[async_trait]
pub trait Judge: Send + Sync {
    /// All of a unit's containers.
    async fn judge(&self, asks: Vec<Asks>) -> Result<(), RuntimeError>;
}

/// Has what it reads judged.
pub trait Judged: Send + Sync {
    /// By this from now on; without it everything is let. The first one stays.
    fn judge_by(&self, judge: Arc<dyn Judge>);
}

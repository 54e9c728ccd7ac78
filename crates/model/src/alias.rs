//! Aliases: how ids of other systems map to ours. A foreign id is an arbitrary string and never becomes
//! one of our ids.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp};

/// The wire contract that a foreign id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contract {
    /// Our own session: the foreign id is the agent's key.
    Session,
    /// MIaaS: REST nodes and deployments.
    Miaas,
    /// Orchion: `orchion.v1`.
    Orchion,
    /// Persys: `persys.control.v1`.
    Persys,
    /// The spot-instance manager.
    Spot,
}

impl Contract {
    /// The word for it in flags, keys and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Miaas => "miaas",
            Self::Orchion => "orchion",
            Self::Persys => "persys",
            Self::Spot => "spot",
        }
    }
}

/// What is looked up: (contract, scope, foreign id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AliasKey {
    /// Where the id comes from.
    pub contract: Contract,
    /// What kind of thing it names there, such as `node`.
    pub scope: String,
    /// The id itself, uninterpreted.
    pub foreign: String,
}

/// A foreign id that stands for one of our nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The foreign side.
    pub key: AliasKey,
    /// Our side.
    pub node: NodeId,
    /// When the two were tied together.
    pub created_at: Timestamp,
}

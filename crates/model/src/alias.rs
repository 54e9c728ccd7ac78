//! Aliases: how ids of other systems map to ours. A foreign id is an arbitrary string and never becomes
//! one of our ids.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{NodeId, Timestamp, WorkloadId};

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

/// A foreign id that stands for something of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The foreign side.
    pub key: AliasKey,
    /// Our side.
    #[serde(flatten)]
    pub owner: AliasOwner,
    /// When the two were tied together.
    pub created_at: Timestamp,
}

/// What a foreign id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AliasOwner {
    Node(NodeId),
    Workload(WorkloadId),
}

/// What a workload is under the contract that it came through. Doors write and read it; nothing else does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its id there.
    pub key: AliasKey,
    /// The caller's own word for the revision; empty if the contract has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The spec as it came, uninterpreted, for exact replay.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub payload: Arc<[u8]>,
}

impl Foreign {
    /// A revision that follows from the payload alone: 24 hex digits.
    #[must_use]
    pub fn derived_revision(payload: &[u8]) -> String {
        // FNV-1a: the word tells revisions of one workload apart, and proves nothing.
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        for byte in payload {
            hash ^= u128::from(*byte);
            hash = hash.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        format!("{:024x}", hash >> 32)
    }
}

fn to_base64<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
    Ok(bytes.into())
}

//! Who may come in and do what: the tokens of people and programs, and those that let machines join.
//!
//! Of a token only a hash is kept: SHA-256 in hexadecimal digits, of a secret with 192 random bits or more.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AccountId, AliasKey, Contract, JoinTokenId, NodeId, Timestamp, TokenId};

/// What the bearer of a token may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessRole {
    /// Look at everything but secrets.
    Viewer,
    /// Change what runs, and nodes.
    Operator,
    /// Decide who may come in.
    Admin,
}

impl AccessRole {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for AccessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token that a person or a program shows with each request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    pub id: TokenId,
    /// What its bearer is called in events and in the audit log; no two tokens have the same.
    pub name: String,
    pub role: AccessRole,
    /// It is good for this account of the spot contract, and for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    pub hash: String,
    pub created_at: Timestamp,
    pub created_by: String,
    /// None: until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A token with which machines become nodes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    pub id: JoinTokenId,
    pub hash: String,
    /// What its nodes are labelled with, whatever their agents say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many more machines it lets in; none: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// The machine that joins takes the place of this node: its name and labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<NodeId>,
    /// Nodes that join with it wait until a person approves them.
    #[serde(default)]
    pub needs_approval: bool,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Timestamp,
}

// Whoever prints a record for debugging needs no hash.
impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiToken({} {} {})", self.id, self.name, self.role)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl ApiToken {
    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

impl JoinToken {
    /// Whether its time is over, or as many machines have joined as may.
    #[must_use]
    pub fn is_spent(&self, now: Timestamp) -> bool {
        self.expires_at <= now || self.uses_left == Some(0)
    }
}

/// The alias of a node that is its key, by the key's print.
#[must_use]
pub fn key_alias(print: &str) -> AliasKey {
    AliasKey {
        contract: Contract::Session,
        scope: KEY_SCOPE.to_owned(),
        foreign: print.to_owned(),
    }
}

/// The scope of aliases that are keys.
pub const KEY_SCOPE: &str = "key";

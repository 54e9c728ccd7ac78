//! Who may come in: tokens of people and programs, tokens with which machines join, and the fleet's authority.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What the bearer of a token may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessRole {
    /// Look at everything but secrets.
    Viewer,
    /// Change what runs, and nodes.
    Operator,
    /// Decide who may come in.
    Admin,
    #[serde(other)]
    Unknown,
}

/// A token of a person or program, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    pub id: String,
    pub name: String,
    pub role: AccessRole,
    /// The account of the spot contract that it is good for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    pub created_at: String,
    pub created_by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A token to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What its bearer is called; no two tokens have the same name.
    pub name: String,
    pub role: AccessRole,
    /// By id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// For how long it is good; until it is revoked if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
}

/// A token with its secret, which is told this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedToken {
    #[serde(flatten)]
    pub about: Token,
    /// To be sent as `Authorization: Bearer …`.
    pub token: String,
}

/// A token with which machines join, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    pub id: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many more machines it lets in; any number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// The node whose place the machine takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    #[serde(default)]
    pub needs_approval: bool,
    pub created_at: String,
    pub created_by: String,
    pub expires_at: String,
    /// Its time is over, or as many machines have joined as may.
    pub is_spent: bool,
}

/// A join token to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewJoinToken {
    /// For how long it is good; an hour if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// How many machines it lets in; any number if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// What its nodes are labelled with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The node whose place the machine takes, by id, part of an id, or name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Machines that join with it wait until a person lets them in.
    pub needs_approval: bool,
}

/// A join token with its secret, which is told this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IssuedJoinToken {
    #[serde(flatten)]
    pub about: JoinToken,
    /// For the agent: in its `HOSTLER_JOIN_TOKEN`, or in the file that `--token-file` names.
    pub token: String,
}

/// Who asks, as the server knows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    pub name: String,
    /// None where there is no login, and everybody may do everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AccessRole>,
    /// None for whoever shows a token with each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<BrowserSession>,
}

/// The session of a browser.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BrowserSession {
    /// To be sent as `X-CSRF-Token` with each request that changes something.
    pub csrf: String,
    pub expires_at: String,
}

/// Whom the fleet's members believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Authority {
    /// SHA-256 of the certificate that signs now.
    pub print: String,
    /// All that are believed, in PEM.
    pub certificates: String,
    /// Where this server may be reached, the best guess first.
    #[serde(default)]
    pub urls: Vec<String>,
    /// The nodes that have not said yet that they believe the one that signs now, by name.
    #[serde(default)]
    pub behind: Vec<String>,
}

/// A door of another contract that a server with login opens, and what that relaxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Door {
    /// `miaas`, `orchion`, `persys` or `spot`.
    pub contract: String,
    /// `token`: whoever uses it shows who they are. `contract`: it is open where the contract leaves it open.
    pub auth: String,
    /// The routes that whoever reaches the server may use.
    pub open: Vec<String>,
    /// Those that the contract's own credential opens, for what is its holder's.
    pub own: Vec<String>,
    /// Its own ports beside the main one.
    pub ports: Vec<DoorPort>,
}

/// A port of a contract's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DoorPort {
    pub addr: String,
    /// `on`, `off`, or `sniff` for both.
    pub tls: String,
}

/// How to rotate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct RotateKeyQuery {
    /// Older keys are dropped, and the tokens that they signed are worth nothing.
    pub at_once: bool,
}

/// The keys that MIaaS's tokens are known by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct MiaasKeys {
    /// The id of the one that signs.
    pub key: String,
    /// How many older ones are believed until their tokens are over.
    pub former: usize,
}

// A secret that was told once is not to be told again by a debug print.
impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BrowserSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrowserSession")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IssuedJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedJoinToken")
            .field("about", &self.about)
            .finish_non_exhaustive()
    }
}

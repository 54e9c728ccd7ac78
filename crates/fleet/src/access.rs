//! What is asked about who may come in: the verbs of [`crate::Verb::Access`] and [`crate::Verb::Join`].

use std::collections::BTreeMap;
use std::fmt;

use hostler_model::{AccessRole, AccountId, JoinTokenId, NodeId, Timestamp, TokenId};

use crate::NodeAnnouncement;

/// About tokens and those who wait, by people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessVerb {
    /// A new token for a person or program.
    Issue(TokenOrder),
    Revoke {
        token: TokenId,
    },
    /// A new token with which machines join. Forgets those that are spent.
    Invite(JoinTokenOrder),
    RevokeJoin {
        token: JoinTokenId,
    },
    /// A node that waits is let in. One that is in stays as it is.
    Approve {
        node: NodeId,
    },
    /// The fleet's authority has a new key: an event, and no more.
    AuthorityRotated {
        print: String,
    },
    /// Its former keys are believed no more: an event, and no more.
    AuthorityRetired,
    /// A node says which authority is the newest that it believes.
    Believes {
        node: NodeId,
        print: String,
    },
    /// A machine was refused, for the node that it says it is beats on: an event, and no more.
    Doubled {
        node: NodeId,
    },
}

/// A token to be. Id and secret are drawn by the caller, for they must be unpredictable.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenOrder {
    pub id: TokenId,
    pub name: String,
    pub role: AccessRole,
    pub account: Option<AccountId>,
    pub hash: String,
    pub expires_at: Option<Timestamp>,
}

/// A join token to be.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokenOrder {
    pub id: JoinTokenId,
    pub hash: String,
    pub labels: BTreeMap<String, String>,
    pub uses: Option<u32>,
    pub replaces: Option<NodeId>,
    pub needs_approval: bool,
    pub expires_at: Timestamp,
}

/// A machine asks to become a member. Whoever submits this has seen the proof that it holds the key.
#[derive(Clone, PartialEq)]
pub struct Joining {
    pub token: JoinTokenId,
    /// Of the secret that was shown.
    pub hash: String,
    /// The print of the machine's key.
    pub key: String,
    /// Facts and capacity may be empty: its first session tells them.
    pub hello: NodeAnnouncement,
}

impl fmt::Debug for TokenOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenOrder({} {} {})", self.id, self.name, self.role)
    }
}

impl fmt::Debug for JoinTokenOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinTokenOrder({})", self.id)
    }
}

impl fmt::Debug for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Joining({} with {})", self.hello.name, self.token)
    }
}

//! Typed ids: UUIDv7, so that they sort by time of birth, each in a type of its own so that a node can
//! never be passed where a workload is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// The text is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {noun} id (a UUID is expected)")]
pub struct ParseIdError {
    noun: &'static str,
    text: String,
}

impl ParseIdError {
    pub(crate) fn new(noun: &'static str, text: &str) -> Self {
        Self {
            noun,
            text: text.to_owned(),
        }
    }
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Sorts before every id that is minted; bounds ranges.
            pub const LEAST: Self = Self(Uuid::nil());
            /// Sorts after every id that is minted; bounds ranges.
            pub const MOST: Self = Self(Uuid::max());

            /// Makes an id from the moment and 80 bits of entropy; the same input gives the same id.
            #[must_use]
            pub fn mint(now: Timestamp, entropy: u128) -> Self {
                let mut random = [0; 10];
                random.copy_from_slice(&entropy.to_be_bytes()[6..]);
                Self(uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid())
            }

            /// The sixteen bytes of the id, big-endian: they sort as the id does.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The eight last hex digits: random enough to tell ids apart on a screen.
            #[must_use]
            pub fn short(&self) -> String {
                let text = self.0.simple().to_string();
                text[text.len() - 8..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", $noun, self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| ParseIdError::new($noun, text))
            }
        }
    };
}

typed_id!(
    /// A fleet: all nodes and workloads under one control plane.
    FleetId, "fleet"
);
typed_id!(
    /// One life of the store: new after a restore or a promotion, so that agents notice.
    StoreEpoch, "epoch"
);
typed_id!(
    /// A node. It outlives reboots, addresses and cloud instances.
    NodeId, "node"
);
typed_id!(
    /// A workload. A deleted workload's name can be used again; its id never is.
    WorkloadId, "workload"
);
typed_id!(
    /// One copy of a workload on one node.
    AssignmentId, "assignment"
);
typed_id!(
    /// A durable one-off order to a node.
    CommandId, "command"
);
typed_id!(
    /// An account: on whose behalf rented machines are looked after.
    AccountId, "account"
);
typed_id!(
    /// A machine that stands by for a node.
    ReplicaId, "replica"
);
typed_id!(
    /// A move of a node from one rented machine to another.
    SwitchId, "switch"
);

typed_id!(
    /// A token of a person or program.
    TokenId, "token"
);
typed_id!(
    /// A token that lets machines join.
    JoinTokenId, "join token"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_moment_and_entropy_give_the_same_id() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        assert_eq!(NodeId::mint(now, 7), NodeId::mint(now, 7));
        assert_ne!(NodeId::mint(now, 7), NodeId::mint(now, 8));
    }

    #[test]
    fn ids_sort_by_the_moment_they_were_made() {
        let early = WorkloadId::mint(Timestamp::from_millis(1_000), u128::MAX);
        let late = WorkloadId::mint(Timestamp::from_millis(2_000), 0);
        assert!(early < late);
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused_by_noun() {
        let id = AssignmentId::mint(Timestamp::from_millis(5), 9);
        assert_eq!(id.to_string().parse::<AssignmentId>(), Ok(id));
        let refused = "web".parse::<AssignmentId>().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "`web` is no assignment id (a UUID is expected)"
        );
    }
}

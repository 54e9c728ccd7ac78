//! Switches: that a node has moved from one machine to another, as its agent told it.

use serde::{Deserialize, Serialize};

use crate::{AccountId, CommandId, Market, Money, NodeId, PoolId, SwitchId, Timestamp};

/// A move that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub id: SwitchId,
    pub account: AccountId,
    pub node: NodeId,
    /// When it was reported.
    pub at: Timestamp,
    pub from: SwitchEnd,
    pub to: SwitchEnd,
    /// Why, in the agent's word, such as `manual` or `model`.
    pub trigger: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandId>,
    pub prices: SwitchPrices,
    pub stamps: SwitchStamps,
}

/// The machine at one end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SwitchEnd {
    pub machine: String,
    pub instance_type: String,
    pub region: String,
    pub zone: String,
    pub market: Market,
    pub pool: Option<PoolId>,
    pub image: String,
}

/// Prices per hour when it was made, as far as they were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SwitchPrices {
    pub on_demand: Option<Money>,
    pub old_spot: Option<Money>,
    pub new_spot: Option<Money>,
}

/// When each step was done, as far as it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SwitchStamps {
    pub begun: Option<Timestamp>,
    pub image_made: Option<Timestamp>,
    pub launched: Option<Timestamp>,
    pub ready: Option<Timestamp>,
    /// When the old machine was terminated; none if it still runs.
    pub old_ended: Option<Timestamp>,
}

impl SwitchPrices {
    /// What was paid an hour before.
    #[must_use]
    pub fn before(&self) -> Money {
        self.old_spot.or(self.on_demand).unwrap_or_default()
    }

    /// What is paid an hour now.
    #[must_use]
    pub fn after(&self) -> Money {
        self.new_spot.or(self.on_demand).unwrap_or_default()
    }

    /// What the switch saves an hour; less than nothing if it costs.
    #[must_use]
    pub fn impact(&self) -> Money {
        self.before().minus(self.after())
    }
}

impl SwitchStamps {
    /// From the beginning to readiness.
    #[must_use]
    pub fn total_ms(&self) -> Option<u64> {
        Some(millis_between(self.begun?, self.ready?))
    }

    /// While neither machine served.
    #[must_use]
    pub fn downtime_ms(&self) -> Option<u64> {
        let ready = self.ready?;
        match self.old_ended {
            Some(ended) => Some(millis_between(ended, ready)),
            None => self.total_ms(),
        }
    }
}

fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}

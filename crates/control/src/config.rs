//! What a control plane is started with, and how it says that it cannot start or is not ready. Plain data.

use std::sync::Arc;
use std::time::Duration;

use hostler_fleet::LeaseRules;
use hostler_kit::sealed::Keyring;
use hostler_kit::{Clock, Entropy, Tasks};
use hostler_model::{Contract, Refusal};
use hostler_store::{LeaseError, Store, StoreError};

/// How the control plane behaves. The defaults are those of the server.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Leases of nodes that hold a connection.
    pub lease: LeaseRules,
    /// Leases of nodes that came through other contracts, each in its contract's rhythm.
    pub foreign: ForeignLeases,
    /// How long nodes have to come back after the control plane started, at least; a longer window counts.
    pub reconnect: Duration,
    /// How many events are kept.
    pub event_capacity: u64,
    /// Most copies that one placement decision touches; the store's limits may lower it.
    pub settle_limit: usize,
    /// Added to a singleton's `stop_after` before it is believed to have stopped.
    pub singleton_margin: Duration,
    /// Shown to people: in events of the server and in its version answer.
    pub server_name: String,
    /// How many verbs may wait to be decided.
    pub queue: usize,
    /// How long a caller waits for its verb at most.
    pub patience: Duration,
    /// How long the leader lease lasts without renewal.
    pub leader_ttl: Duration,
    /// What seals secrets and opens them; without it there are none to be had.
    pub secrets: Option<Arc<Keyring>>,
    /// Gives the store a new epoch at start: it was restored or promoted, and agents must notice.
    pub new_epoch: bool,
}

/// How long the nodes of each contract may be silent. The windows are those that the contracts document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignLeases {
    pub miaas: LeaseRules,
    pub orchion: LeaseRules,
    pub persys: LeaseRules,
    pub spot: LeaseRules,
}

/// What the control plane is made of.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub tasks: Tasks,
}

/// Why the control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another server decides, and did not stop doing so in time.
    #[error("another server holds the leader lease")]
    Led,
    #[error("the leader lease cannot be taken")]
    Lease(#[source] LeaseError),
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A record that this version does not know or cannot read. It is left as it is.
    #[error("the record `{key}` cannot be read")]
    Record {
        key: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The fleet could not be founded, or the epoch not be changed.
    #[error("the fleet cannot be founded")]
    Found(#[source] Refusal),
}

/// Whether requests can be served, check by check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub checks: Vec<Check>,
}

/// One thing that must work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub is_ok: bool,
    /// One sentence for a person; empty if all is well.
    pub message: String,
}

impl Readiness {
    /// Whether every check passes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.is_ok)
    }
}

impl ControlConfig {
    /// The rules of a node that came through that contract.
    #[must_use]
    pub const fn lease_of(&self, contract: Contract) -> LeaseRules {
        match contract {
            Contract::Session => self.lease,
            Contract::Miaas => self.foreign.miaas,
            Contract::Orchion => self.foreign.orchion,
            Contract::Persys => self.foreign.persys,
            Contract::Spot => self.foreign.spot,
        }
    }
}

impl Default for ForeignLeases {
    fn default() -> Self {
        let rules = |beat, window| LeaseRules {
            beat: Duration::from_secs(beat),
            window: Duration::from_secs(window),
            suspect_after: Duration::from_secs(window * 2 / 3),
            most: Duration::from_secs((window * 10 / 3).max(300)),
        };
        Self {
            miaas: rules(30, 90),
            orchion: rules(5, 30),
            persys: rules(60, 180),
            spot: rules(30, 120),
        }
    }
}

impl Default for ControlConfig {
    fn default() -> Self {
        let lease = LeaseRules::default();
        Self {
            lease,
            foreign: ForeignLeases::default(),
            reconnect: Duration::from_secs(15),
            event_capacity: 8_192,
            settle_limit: 256,
            singleton_margin: Duration::from_secs(5),
            server_name: "hostler".to_owned(),
            queue: 4_096,
            patience: Duration::from_secs(10),
            leader_ttl: Duration::from_secs(10),
            secrets: None,
            new_epoch: false,
        }
    }
}

//! What the reconciler is told, by uplinks, drivers and its own tasks; and what an uplink has of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hostler_model::spec::Kind;
use hostler_model::{
    AssignmentId, CommandId, CommandKind, Exit, Intent, IntentItem, StorageFact, UnitId,
};
use hostler_runtime::{Found, Runtime, RuntimeError};
use tokio::sync::{mpsc, oneshot, watch};

use super::orders::{Begun, Outcome};
use crate::care::{self, Sights};
use crate::guard::Speaker;
use crate::health::Answer;
use crate::ledger::CommandRecord;
use crate::meter::Figures;
use crate::permit::Guardian;
use crate::plan::Step;
use crate::probe::Abilities;
use crate::show::Picture;
use crate::tuning::Tuned;
use crate::vault::Vault;

/// The uplink's way to the reconciler.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) picture: watch::Receiver<Arc<Picture>>,
    pub(crate) runtimes: Arc<BTreeMap<Kind, Arc<dyn Runtime>>>,
    /// What the drivers say that they can do.
    pub(crate) abilities: Abilities,
    /// What was measured last.
    pub(crate) figures: watch::Receiver<Arc<Figures>>,
    /// What the machine is short of.
    pub(crate) pressure: watch::Receiver<care::Shown>,
    pub(crate) tuned: Tuned,
    /// Care's rounds.
    pub(crate) care: Sights,
    /// Says what the node's owner lets be done.
    pub(crate) guardian: Arc<Guardian>,
    /// The values of secrets.
    pub(crate) vault: Vault,
}

impl Handle {
    /// Which storage drivers of managed volumes there are.
    pub(crate) fn storage(&self) -> Vec<StorageFact> {
        let mut drivers = self.runtimes.values().filter_map(|it| it.volumes());
        drivers.next().map_or_else(Vec::new, |it| it.drivers())
    }

    /// The names of running containers: all that the engines tell of, else those of ours.
    pub(crate) fn containers(&self) -> Vec<String> {
        let told = self.figures.borrow().containers.clone();
        told.unwrap_or_else(|| self.picture.borrow().containers.clone())
    }
}

/// Proof that the control plane heard this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Uptime when the beat that was answered was sent.
    pub(crate) uptime: Duration,
    /// How long the machine had been suspended in all by then.
    pub(crate) asleep: Duration,
}

/// One assignment, as the control plane wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Item(Box<IntentItem>),
    /// Its spec is of a form that this agent does not know: what runs of it is left as it is, or stopped.
    Unreadable {
        unit: UnitId,
        intent: Intent,
    },
}

/// Everything that the reconciler is told.
pub(crate) enum Input {
    /// Everything that should be. Answered when it is on disk.
    Full {
        from: Speaker,
        /// Nothing in it is newer than this revision of the store; 0 if that was not told.
        revision: u64,
        items: Vec<Wanted>,
        done: oneshot::Sender<()>,
    },
    /// Single changes of that. Answered when they are on disk.
    Increment {
        revision: u64,
        items: Vec<Wanted>,
        removed: Vec<AssignmentId>,
        done: oneshot::Sender<()>,
    },
    /// An order, carried out at most once however often it is given.
    Command {
        id: CommandId,
        command: CommandKind,
        done: oneshot::Sender<Outcome>,
    },
    /// The first order was carried out by somebody else.
    OrderCarried(Box<CommandRecord>, Outcome),
    /// These are not kept any longer, if they have finished.
    CleanUp(BTreeSet<UnitId>),
    Contact(Proof),
    /// There are new values in the vault.
    Secrets,
    /// A driver says that something may have changed.
    Changed(Kind),
    /// An answer to an observation that began with that serial number.
    Observed {
        kind: Kind,
        serial: u64,
        answer: Result<Vec<Found>, RuntimeError>,
    },
    Progress {
        unit: UnitId,
        detail: String,
    },
    /// A step has ended.
    Done {
        unit: UnitId,
        step: Step,
        answer: Result<Option<Exit>, RuntimeError>,
    },
    /// A health check of that run has ended.
    Checked {
        unit: UnitId,
        run: u32,
        answer: Answer,
    },
    /// The last lines of that run's log.
    EndOfLog {
        unit: UnitId,
        run: u32,
        lines: Vec<String>,
    },
    /// A dead man's switch was set anew, or not.
    Extended(UnitId),
    Saved(io::Result<()>),
    /// The first order is on record.
    OrderBegun(io::Result<Begun>),
    /// The result of the first order is on record.
    OrderDone(Outcome),
}

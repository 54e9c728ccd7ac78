//! The ledger: what the agent must still know after it was killed, in files that a person can read.
//!
//! ```text
//! <data>/agent/lock                      held while an agent runs; holds its pid
//! <data>/agent/identity.json             who the node is (secret), and its name
//! <data>/agent/fleet.json                whose intent it follows: fleet, node, store epoch and revision
//! <data>/agent/intent/<assignment>.json  what should run, and how it ended if it ended for good
//! <data>/agent/commands/<id>.json        commands that were begun, with their results
//! ```
//!
//! Every file is replaced as a whole: written beside, synced, renamed, directory synced. A file that cannot be
//! understood is set aside as `*.corrupt` and the agent goes on without it: losing the ledger loses no unit,
//! because drivers find what runs, and the guard keeps it.
//!
//! The reconciler owns it; nothing else writes here.

pub(crate) mod files;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostler_kit::Entropy;
use hostler_model::{
    AssignmentId, CommandId, CommandKind, CrashLoop, Exit, FleetId, IntentItem, NodeId, StoreEpoch,
    Timestamp,
};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::StartError;

/// Results of commands are kept for this many commands; a control plane repeats only the latest ones.
const KEPT_COMMANDS: usize = 256;

/// Files that are open at once while a batch is written.
const STAGED_AT_ONCE: usize = 64;

/// The agent's files. Holds the lock on them.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    _lock: File,
}

/// Who the node is. The secret is its identity towards the control plane.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) identity: String,
    pub(crate) name: String,
}

/// Whose intent the node follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) fleet_id: FleetId,
    pub(crate) node_id: NodeId,
    pub(crate) store_epoch: StoreEpoch,
}

/// How new a store is known to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The store's revision of which the newest intent came; 0 if it was never told.
    #[serde(default, rename = "store_revision")]
    pub(crate) revision: u64,
    /// The run of the control plane that told it; 0 if it was never told.
    #[serde(default, rename = "server_run")]
    pub(crate) run: u64,
}

/// The fleet that the node belongs to. Older agents read only the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fleet {
    #[serde(flatten)]
    pub(crate) origin: Origin,
    #[serde(flatten)]
    pub(crate) seen: Seen,
    /// An older copy of the store was heard since, and nobody has accepted it.
    #[serde(default)]
    pub(crate) is_in_doubt: bool,
    /// Since when this life of the store is followed: what is older it need not know of.
    #[serde(default)]
    pub(crate) since: Timestamp,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) item: IntentItem,
    /// Set once the restart policy of this generation is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) finished: Option<Finished>,
    /// Set while it is in a crash loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) crash_loop: Option<Arc<CrashLoop>>,
}

/// How a unit ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) exit: Exit,
    pub(crate) at: Timestamp,
    pub(crate) runs: u32,
}

/// A command that was begun. Without a result its effect is unknown, and it is not begun again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandRecord {
    pub(crate) id: CommandId,
    pub(crate) command: CommandKind,
    pub(crate) begun_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Result<String, String>>,
}

/// What an earlier agent wrote down.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) fleet: Option<Fleet>,
    pub(crate) entries: BTreeMap<AssignmentId, Entry>,
    /// Files that were set aside.
    pub(crate) damaged: usize,
}

/// Changes that are written together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) fleet: Option<Fleet>,
    /// None deletes.
    pub(crate) entries: BTreeMap<AssignmentId, Option<Entry>>,
}

impl Ledger {
    /// Makes the directories and takes the lock.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StartError> {
        let dir = data_dir.join("agent");
        let failed = |path: &Path, source: io::Error| StartError::Data {
            path: path.display().to_string(),
            source,
        };
        for path in [&dir, &dir.join("intent"), &dir.join("commands")] {
            files::make_dir(path).map_err(|error| failed(path, error))?;
        }
        let lock = lock(&dir)?;
        // Only for people and for the message above; the lock itself is what counts.
        let _ = files::overwrite(&lock, &format!("{}\n", std::process::id()));
        for path in [&dir, &dir.join("intent"), &dir.join("commands")] {
            files::sweep(path);
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Who the node is; made up at the first start. `names` are the one asked for and the machine's own.
    pub(crate) fn identity(
        &self,
        names: (Option<&str>, &str),
        entropy: &dyn Entropy,
    ) -> Result<Identity, StartError> {
        let path = self.dir.join("identity.json");
        let known: Option<Identity> = files::read(&path).unwrap_or(None);
        let (wanted, own) = names;
        let before = known.as_ref().map(|known| known.name.as_str());
        let name = wanted.or(before).unwrap_or(own);
        let identity = Identity {
            identity: known.as_ref().map_or_else(
                || format!("{:032x}", entropy.next_u128()),
                |known| known.identity.clone(),
            ),
            name: name.to_owned(),
        };
        if known.as_ref() != Some(&identity) {
            let written = files::write(&path, &identity).and_then(|()| files::sync_dir(&self.dir));
            written.map_err(|source| StartError::Data {
                path: path.display().to_string(),
                source,
            })?;
        }
        Ok(identity)
    }

    /// Whose intent an earlier agent followed, as far as that can be read.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let fleet = files::read::<Fleet>(&self.dir.join("fleet.json"));
        fleet.ok().flatten().map(|fleet| fleet.origin)
    }

    /// What an earlier agent wrote down. Never fails: what cannot be read is set aside and counted.
    pub(crate) fn load(&self) -> Loaded {
        let mut loaded = Loaded::default();
        match files::read(&self.dir.join("fleet.json")) {
            Ok(fleet) => loaded.fleet = fleet,
            Err(files::Damaged) => loaded.damaged += 1,
        }
        for path in files::list(&self.dir.join("intent")) {
            match files::read::<Entry>(&path) {
                Ok(Some(entry)) => {
                    loaded.entries.insert(entry.item.unit.assignment, entry);
                }
                Ok(None) => {}
                Err(files::Damaged) => loaded.damaged += 1,
            }
        }
        self.forget_old_commands();
        loaded
    }

    /// Writes all changes; when it answers without an error, they are on the disk. May have done a part
    /// of it otherwise; doing it again is fine.
    pub(crate) fn save(&self, batch: &Batch) -> io::Result<()> {
        let dir = self.dir.join("intent");
        let path = |assignment: &AssignmentId| dir.join(format!("{assignment}.json"));
        let kept: Vec<_> = batch
            .entries
            .iter()
            .filter_map(|(assignment, entry)| Some((assignment, entry.as_ref()?)))
            .collect();
        // Staged first and settled last: its sync costs little beside those of the entries.
        let fleet = batch.fleet.as_ref();
        let fleet = fleet.map(|fleet| files::stage(&self.dir.join("fleet.json"), fleet));
        let fleet = fleet.transpose()?;
        for chunk in kept.chunks(STAGED_AT_ONCE) {
            let staged = chunk
                .iter()
                .map(|(assignment, entry)| files::stage(&path(assignment), entry));
            let staged: Vec<_> = staged.collect::<io::Result<_>>()?;
            staged.into_iter().try_for_each(files::Staged::settle)?;
        }
        let has_fleet = fleet.is_some();
        fleet.map_or(Ok(()), files::Staged::settle)?;
        for (assignment, _) in batch.entries.iter().filter(|(_, entry)| entry.is_none()) {
            files::delete(&path(assignment))?;
        }
        if !batch.entries.is_empty() {
            files::sync_dir(&dir)?;
        }
        if has_fleet {
            files::sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// What is on record about a command.
    pub(crate) fn command(&self, id: CommandId) -> Option<CommandRecord> {
        files::read(&self.command_path(id)).unwrap_or(None)
    }

    /// Puts a command, or its result, on record.
    pub(crate) fn record_command(&self, record: &CommandRecord) -> io::Result<()> {
        files::write(&self.command_path(record.id), record)?;
        files::sync_dir(&self.dir.join("commands"))
    }

    fn command_path(&self, id: CommandId) -> PathBuf {
        self.dir.join("commands").join(format!("{id}.json"))
    }

    /// Ids sort by birth, so the first names are the oldest.
    fn forget_old_commands(&self) {
        let mut paths = files::list(&self.dir.join("commands"));
        paths.sort_unstable();
        let surplus = paths.len().saturating_sub(KEPT_COMMANDS);
        for path in &paths[..surplus] {
            let _ = files::delete(path);
        }
    }
}

/// The lock on the agent's folder, which is there; held for as long as the file is open.
pub(crate) fn lock(dir: &Path) -> Result<File, StartError> {
    let path = dir.join("lock");
    let failed = |source: io::Error| StartError::Data {
        path: path.display().to_string(),
        source,
    };
    let lock = files::open_lock(&path).map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse {
            path: dir.display().to_string(),
            pid: std::fs::read_to_string(&path)
                .ok()
                .and_then(|pid| pid.trim().parse().ok()),
        }),
        Err(error) => Err(failed(error.into())),
    }
}

/// The pid of the agent that works on a data directory, if one does.
#[must_use]
pub fn running_agent(data_dir: &Path) -> Option<u32> {
    let path = data_dir.join("agent").join("lock");
    let lock = File::open(&path).ok()?;
    // Who gets the lock lets go of it with the file.
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            std::fs::read_to_string(&path).ok()?.trim().parse().ok()
        }
        _ => None,
    }
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.fleet.is_none() && self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;

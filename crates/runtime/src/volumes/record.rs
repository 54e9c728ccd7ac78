//! Who holds which volume, on disk. Written whole and durably, because a claim that is lost would let two units
//! write to one volume.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hostler_model::spec::Kind;
use hostler_model::{Timestamp, UnitId, WorkloadId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::filesystem::{self, absent_is_fine};
use super::{Attached, Volume};
use crate::{RuntimeError, disk};

/// `units/<unit>.json`: what a unit holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holding {
    pub(super) unit: UnitId,
    /// The runtime driver that the unit belongs to.
    pub(super) kind: Kind,
    pub(super) owner: Owner,
    pub(super) phase: Phase,
    pub(super) volumes: Vec<Held>,
}

/// How far a unit is with its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Nothing has run with them: if it comes to nothing, what is new goes.
    Preparing,
    Ready,
    /// The unit is being removed since then.
    Leaving {
        at: Timestamp,
        does_delete: bool,
    },
}

/// One volume of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    #[serde(flatten)]
    pub(super) volume: Volume,
    /// As the spec calls it.
    pub(super) called: String,
    pub(super) target: String,
    pub(super) read_only: bool,
    pub(super) retain: bool,
    /// Made for this unit, and nobody has used it yet.
    pub(super) is_new: bool,
    /// It was not the copy's before.
    pub(super) is_new_owner: bool,
    /// Likewise, by the marker beside the data.
    #[serde(default)]
    pub(super) is_entitled: bool,
    /// Made by this node, for this unit or an earlier one of the owners. Elsewhere the marker counts.
    #[serde(default)]
    pub(super) is_ours: bool,
}

/// The copy whose data a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) workload: WorkloadId,
    pub(super) slot: u32,
}

/// `known/<driver>.<volume>.json`: whose data it is, also while no unit holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) owners: BTreeSet<Owner>,
    /// The owner shares it with nobody.
    pub(super) is_exclusive: bool,
    /// As it was claimed last; none before that.
    pub(super) volume: Option<Volume>,
    /// The runtime driver whose unit claimed it last.
    pub(super) kind: Option<Kind>,
    /// Who wants it to outlive its workload; the wish of an owner that has left stays while there are others.
    #[serde(default)]
    pub(super) retained_by: BTreeSet<Owner>,
    /// Made by this node. What was there before is a person's.
    #[serde(default)]
    pub(super) is_ours: bool,
    /// When it was claimed first, and of use last.
    pub(super) made_at: Timestamp,
    pub(super) used_at: Timestamp,
}

/// The directory of the records.
#[derive(Debug, Clone)]
pub(super) struct Records {
    dir: PathBuf,
}

impl Held {
    pub(super) fn attached(&self, place: super::Place) -> Attached {
        Attached {
            name: self.called.clone(),
            target: self.target.clone(),
            read_only: self.read_only,
            place,
        }
    }
}

impl Records {
    pub(super) const fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    fn units(&self) -> PathBuf {
        self.dir.join("units")
    }

    fn unit_file(&self, id: UnitId) -> PathBuf {
        self.units().join(format!("{id}.json"))
    }

    fn known_file(&self, volume: &Volume) -> PathBuf {
        let name = format!("{}.{}.json", volume.driver, volume.name);
        self.dir.join("known").join(name)
    }

    pub(super) async fn holding(&self, id: UnitId) -> Result<Option<Holding>, RuntimeError> {
        let path = self.unit_file(id);
        disk::off_thread("read what a unit holds", move || disk::read(&path)).await
    }

    pub(super) async fn save_holding(&self, holding: &Holding) -> Result<(), RuntimeError> {
        let (path, holding) = (self.unit_file(holding.unit), holding.clone());
        let save = move || write(&path, &holding);
        disk::off_thread("record what a unit holds", save).await
    }

    pub(super) async fn forget_holding(&self, id: UnitId) -> Result<(), RuntimeError> {
        let path = self.unit_file(id);
        let forget = move || absent_is_fine(fs::remove_file(path));
        disk::off_thread("forget what a unit held", forget).await
    }

    /// Every unit that holds anything. A record that cannot be read is an error: what it holds is not known.
    pub(super) async fn holdings(&self) -> Result<Vec<Holding>, RuntimeError> {
        let units = self.units();
        disk::off_thread("read what units hold", move || read_all(&units)).await
    }

    pub(super) async fn known(&self, volume: &Volume) -> Result<Known, RuntimeError> {
        let path = self.known_file(volume);
        let read = move || Ok(disk::read(&path)?.unwrap_or_default());
        disk::off_thread("read whose a volume is", read).await
    }

    /// Every volume that somebody owns.
    pub(super) async fn all_known(&self) -> Result<Vec<Known>, RuntimeError> {
        let known = self.dir.join("known");
        disk::off_thread("read whose volumes are", move || read_all(&known)).await
    }

    /// What nobody owns is not known.
    pub(super) async fn save_known(
        &self,
        volume: &Volume,
        known: Known,
    ) -> Result<(), RuntimeError> {
        let path = self.known_file(volume);
        let save = move || match known.owners.is_empty() {
            true => absent_is_fine(fs::remove_file(path)),
            false => write(&path, &known),
        };
        disk::off_thread("record whose a volume is", save).await
    }
}

fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        filesystem::make_dir(dir)?;
    }
    disk::write_durably(path, record)
}

fn read_all<T: DeserializeOwned>(dir: &Path) -> io::Result<Vec<T>> {
    let mut records = Vec::new();
    for (path, _) in disk::entries(dir)? {
        if path.extension().is_some_and(|ending| ending == "json") {
            records.extend(read_named(&path)?);
        }
    }
    Ok(records)
}

fn read_named<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    disk::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

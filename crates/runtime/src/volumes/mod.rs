//! Managed volumes: storage that the node provides by a driver and gives to units at a place of their own.
//!
//! Three parts. A [`Storage`] driver knows how volumes of its kind are made, brought to the node, taken away and
//! deleted; each step may be repeated after a crash half-way, and each tool that it calls has a time limit.
//! [`Holdings`] owns the records of who holds what. [`WithVolumes`] goes around a runtime driver: it attaches before
//! a unit is prepared, attaches again before a start (a reboot unmounts everything), and releases behind a removal.
//!
//! ```text
//!   prepare   claim on record ──► provision ──► attach ──► the runtime prepares with the places ──► ready on record
//!                 └───────────── anything fails: detach, delete what is new, forget the claim ─────────┘
//!   start     attach again what is not there ──► the runtime starts
//!   remove    leaving on record ──► the runtime removes ──► detach ──► deleted, or kept ──► the claim is forgotten
//! ```
//!
//! Deleted is only what Hostler made, and what nobody else has to do with. On the node's own disk the records here say
//! so; of data on a server or in a cluster, which other nodes may use, a marker beside the data does. What was there
//! before it was claimed is a person's.
//!
//! On disk, all written whole:
//!
//! ```text
//!   <dir>/units/<assignment>.<generation>.json    what a unit holds
//!   <dir>/known/<driver>.<volume>.json            whose volume it is
//! ```

mod ceph;
mod filesystem;
mod holdings;
mod leftovers;
mod local;
mod marker;
mod nfs;
mod over;
mod record;
#[cfg(test)]
mod tests;
mod tool;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hostler_model::FailureCode;
use hostler_model::spec::{AccessMode, ManagedVolume};
use serde::{Deserialize, Serialize};

use crate::RuntimeError;
pub use ceph::CephSettings;
pub use holdings::{Holdings, HoldingsConfig};
use marker::{Claim, Conflict, Leaver, Parting};
pub use nfs::NfsSettings;
pub use over::WithVolumes;
pub use tool::Tools;
use tool::Trouble;

/// What the node's owner says of volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeSettings {
    /// Where local volumes are; `volumes/local` of the data directory if left out.
    pub local_root: Option<PathBuf>,
    pub nfs: NfsSettings,
    pub ceph: CephSettings,
}

/// Where an attached volume is on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    Directory(PathBuf),
    /// A raw disk in a file.
    Image(PathBuf),
    /// A block device.
    Device(PathBuf),
}

impl Place {
    /// Where that is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Image(path) | Self::Device(path) => path,
        }
    }
}

/// A volume that is on the node for a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub name: String,
    /// Where the unit finds it.
    pub target: String,
    pub read_only: bool,
    pub place: Place,
}

/// What a unit does with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// Files below a directory.
    Directory,
    /// A disk of a machine.
    Disk,
}

/// A volume as its driver knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Volume {
    driver: String,
    /// Lower-case letters, digits and dashes: no path and no option.
    name: String,
    form: Form,
    size: Option<u64>,
    fs_type: String,
    access: AccessMode,
}

/// What a provision has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Provisioned {
    /// The volume was not there.
    is_new: bool,
    /// By its marker, the copy did not own it before.
    is_new_owner: bool,
}

/// One kind of storage. Each verb may be repeated, and may be called again after it was dropped half-way.
#[async_trait]
trait Storage: Send + Sync {
    /// Whether volumes of this kind can be had on this node, or why not.
    fn probe(&self) -> Result<(), String>;

    /// Makes the volume if it is not there. Where nodes share it, its marker has to let the unit in first.
    async fn provision(&self, volume: &Volume, claim: &Claim) -> Result<Provisioned, RuntimeError>;

    /// Says anew that the unit holds it, before that starts. It may have been taken over meanwhile.
    async fn renew(&self, _volume: &Volume, _claim: &Claim) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Brings it to the node. Not before it was provisioned.
    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError>;

    /// Takes it away from the node; its data stays.
    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError>;

    /// Lets go of a detached volume. It is deleted if told so, and if its marker does not forbid that.
    async fn part(
        &self,
        volume: &Volume,
        leaver: &Leaver,
        parting: Parting,
    ) -> Result<(), RuntimeError>;

    /// What a detached volume takes of the node's own disk. Blocks.
    fn usage(&self, _volume: &Volume) -> u64 {
        0
    }
}

impl Volume {
    /// Copies that must not share have a volume each: that of slot 0 bears the plain name.
    fn of(spec: &ManagedVolume, slot: u32, form: Form) -> Self {
        let plain = normal(&spec.name);
        let usual = ManagedVolume::FILE_SYSTEMS[0].to_owned();
        Self {
            driver: spec.driver.clone(),
            name: match (spec.access(), slot) {
                (AccessMode::ReadWriteOnce, 1..) => format!("{plain}-{slot}"),
                _ => plain,
            },
            form,
            size: spec.size.map(|size| size.0),
            fs_type: spec.fs_type.clone().unwrap_or(usual),
            access: spec.access(),
        }
    }

    /// Whether it is this node's alone. Of what is elsewhere, only its marker knows who else uses it.
    fn is_local(&self) -> bool {
        self.driver == ManagedVolume::LOCAL
    }

    /// Whether nobody else may hold it at the same time.
    fn is_exclusive(&self) -> bool {
        self.access == AccessMode::ReadWriteOnce
    }
}

/// Lower-case letters and digits; everything else becomes a dash.
fn normal(name: &str) -> String {
    const LONGEST: usize = 100;
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || c == '_' => c,
        _ => '-',
    };
    let name: String = name.chars().map(plain).take(LONGEST).collect();
    // A first dash would make an option of it.
    name.trim_matches('-').to_owned()
}

fn refused(code: FailureCode, message: String) -> RuntimeError {
    RuntimeError::Unsatisfiable { code, message }
}

/// What a tool's trouble is to whoever asked for the volume.
fn failed(code: FailureCode, volume: &Volume, trouble: Trouble) -> RuntimeError {
    let name = &volume.name;
    match trouble {
        Trouble::Missing(_) => refused(
            FailureCode::VolumeDriverMissing,
            format!("volume `{name}`: {trouble}"),
        ),
        Trouble::TimedOut { .. } => refused(
            FailureCode::VolumeTimeout,
            format!("volume `{name}`: {trouble}"),
        ),
        Trouble::Failed { .. } | Trouble::Unfit(_) => {
            refused(code, format!("volume `{name}`: {trouble}"))
        }
        Trouble::Io(source) => crate::disk::error(format!("volume `{name}`"), source),
    }
}

/// Somebody else has it, by its marker.
fn in_use(volume: &Volume, conflict: &Conflict) -> RuntimeError {
    let message = format!("volume `{}`: {conflict}", volume.name);
    refused(FailureCode::VolumeInUse, message)
}

fn provision_failed(volume: &Volume) -> impl Fn(Trouble) -> RuntimeError + '_ {
    |trouble| failed(FailureCode::VolumeProvisionFailed, volume, trouble)
}

fn attach_failed(volume: &Volume) -> impl Fn(Trouble) -> RuntimeError + '_ {
    |trouble| failed(FailureCode::VolumeAttachFailed, volume, trouble)
}

fn detach_failed(volume: &Volume) -> impl Fn(Trouble) -> RuntimeError + '_ {
    |trouble| failed(FailureCode::VolumeDetachFailed, volume, trouble)
}

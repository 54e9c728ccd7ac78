//! What the driver keeps of a machine beside what the process driver keeps: `work/machine.json`. Written once,
//! before the unit is there, so that what a start or a stop needs is found without the spec.

use std::net::IpAddr;
use std::path::PathBuf;

use hostler_model::spec::{DiskFormat, PortMapping};
use serde::{Deserialize, Serialize};

pub(super) const FILE: &str = "machine.json";
/// Beside it: QEMU's monitor, and what cloud-init reads.
pub(super) const MONITOR: &str = "qmp.sock";
pub(super) const SEED: &str = "seed.img";

/// `machine.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// How long the guest may take to power itself off.
    pub(super) grace_ms: u64,
    /// What the node's ports lead to.
    pub(super) ports: Vec<PortMapping>,
    pub(super) disks: Vec<Disk>,
    pub(super) nics: Vec<Nic>,
}

/// A disk as the guest gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disk {
    /// Where the guest finds it.
    pub(super) target: String,
    pub(super) path: PathBuf,
    pub(super) format: DiskFormat,
    /// It is grown to this many bytes before a start if it is smaller.
    pub(super) size: u64,
    pub(super) is_cdrom: bool,
    /// A device of the node, not a file.
    #[serde(default)]
    pub(super) is_device: bool,
    #[serde(default)]
    pub(super) is_read_only: bool,
    /// Its place in the order of booting, from 1.
    pub(super) boot: Option<u32>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nic {
    pub(super) mac: String,
    /// None on the network that QEMU makes for the guest alone.
    pub(super) bridge: Option<String>,
    /// What the guest is told, and the length of its prefix.
    pub(super) address: Option<(IpAddr, u8)>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) does_ask: bool,
}

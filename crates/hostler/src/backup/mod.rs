//! The archive of a backup: a tar whose first entry says what follows.
//!
//! ```text
//!   manifest.json   which fleet, at which revision, and of each file the length and the SHA-256
//!   hostler.db      the store, whole, at that revision
//!   trust/…, secrets.key        with keys only
//! ```
//!
//! `manifest` is that first entry, `pack` lays an archive out, `unpack` takes one apart and believes nothing that it
//! cannot check. Nobody here talks to a server or touches a data directory.

mod manifest;
mod pack;
mod unpack;

pub(crate) use manifest::{FORMAT, Manifest, STORE};
pub(crate) use pack::{Source, Stretch, lay_out};
pub(crate) use unpack::{ArchiveError, clear, unpack};

/// What lies beside the store and is a secret of the fleet.
pub(crate) const KEYS: [&str; 2] = ["trust", "secrets.key"];

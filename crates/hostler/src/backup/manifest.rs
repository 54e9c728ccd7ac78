//! What an archive says of itself. Plain data.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::KEYS;

/// The manifest's name in the archive.
pub(super) const MANIFEST: &str = "manifest.json";
/// The store's name in the archive and in a data directory.
pub(crate) const STORE: &str = "hostler.db";
/// The form of archives that this program writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// The first entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// Of the program that wrote it.
    pub(crate) version: String,
    pub(crate) made_at: String,
    pub(crate) fleet: String,
    pub(crate) epoch: String,
    pub(crate) revision: u64,
    /// Keys that lay beside the store and were not asked for.
    #[serde(default)]
    pub(crate) left_out: Vec<String>,
    /// In the order of the archive.
    pub(crate) files: Vec<Part>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// In hexadecimal.
    pub(crate) sha256: String,
}

impl Manifest {
    /// Whether keys of the fleet are in it.
    pub(crate) fn has_keys(&self) -> bool {
        self.files.iter().any(|part| part.name != STORE)
    }

    /// Whether it names the store first, and else only what may lie beside one.
    pub(super) fn is_sound(&self) -> bool {
        let mut names = self.files.iter().map(|part| part.name.as_str());
        names.next() == Some(STORE) && names.all(is_key)
    }
}

/// A plain path at or below one of the keys' names.
fn is_key(name: &str) -> bool {
    let path = Path::new(name);
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let first = path.components().next();
    path.components().all(is_plain)
        && first.is_some_and(|first| KEYS.iter().any(|key| first.as_os_str() == *key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_lie_beside_a_store() {
        for name in ["trust/authority.pem", "trust/old/a.pem", "secrets.key"] {
            assert!(is_key(name), "{name}");
        }
        for name in [
            "",
            "trust/../x",
            "/trust/x",
            "store.lock",
            "../trust",
            "hostler.db",
        ] {
            assert!(!is_key(name), "{name}");
        }
    }
}

//! Pressure: what a node is short of, as its agent judges it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that a node has nearly run out of. While it has, nothing new is placed there; what runs goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pressure {
    Memory,
    /// Room on the file system of the agent's data, or of an engine's images.
    Disk,
    /// Files that such a file system can still take.
    Inodes,
    /// Processes and threads.
    Pids,
}

impl Pressure {
    pub const ALL: [Self; 4] = [Self::Memory, Self::Disk, Self::Inodes, Self::Pids];

    /// The word on every wire, such as `disk`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Inodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// What the word means; none for one that this version does not know.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }

    /// Several in one phrase, such as `memory, disk`.
    #[must_use]
    pub fn phrase<'a>(several: impl IntoIterator<Item = &'a Self>) -> String {
        let words: Vec<&str> = several.into_iter().map(|it| it.as_str()).collect();
        words.join(", ")
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

//! Errands: what somebody wants done inside a unit that runs. The nouns that control plane, agent and drivers
//! share; each checks what it can and refuses the rest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is to be done, and in which part of the unit; none where it has only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    pub part: Option<String>,
    pub task: Task,
}

/// One kind of errand each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Run a command.
    Exec(ExecCommand),
    /// Connect to a port on which the unit listens.
    Forward { port: u16 },
    /// Read the file or directory at this path, as a tar stream in which its last name comes first.
    ReadFiles { path: String },
    /// Unpack a tar stream into the directory at this path.
    WriteFiles { path: String },
}

impl Task {
    /// The code by which a driver that cannot do it is told.
    #[must_use]
    pub const fn unsupported(&self) -> crate::Code {
        match self {
            Self::Exec(_) => crate::Code::ExecUnsupported,
            Self::Forward { .. } => crate::Code::ForwardUnsupported,
            Self::ReadFiles { .. } | Self::WriteFiles { .. } => crate::Code::CopyUnsupported,
        }
    }
}

/// A command inside a unit. What is left out is as the unit's own program has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecCommand {
    /// Program and arguments.
    pub words: Vec<String>,
    /// It has an input; without one it reads nothing.
    pub input: bool,
    /// It has a terminal of this size, which is its input and both of its outputs.
    pub terminal: Option<TerminalSize>,
    /// As specs name users.
    pub user: Option<String>,
    /// On top of the unit's environment.
    pub env: BTreeMap<String, String>,
    /// Where it begins.
    pub directory: Option<String>,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

impl ExecCommand {
    /// The command without input and terminal.
    #[must_use]
    pub fn new(words: Vec<String>) -> Self {
        Self {
            words,
            ..Self::default()
        }
    }
}

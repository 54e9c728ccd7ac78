//! What an agent is told when it starts, and the parts of its environment that simulations replace.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use hostler_kit::trust::{Anchors, Invitation};
use hostler_kit::{Clock, Entropy, Tasks};
use hostler_model::Resources;
use hostler_runtime::Runtime;

use crate::care::Care;
use crate::journal::{Journal, ToLog};
use crate::origin::Birthplace;
use crate::permit::GuardFile;
use crate::uplink::Uplink;
use crate::{Dial, LocalMachine, Machine, TcpDial};

/// What an agent is told when it starts.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The control plane, as `https://host:port`, or `http://…` where there is no login.
    pub server: String,
    /// What a machine joins with that is no member yet.
    pub invitation: Option<Invitation>,
    /// Whom to believe over TLS. A member of a fleet of ours knows it from its fleet; else it is what this machine
    /// believes.
    pub anchors: Option<Anchors>,
    /// A certificate and its key, in files, for control planes that ask for one that somebody else made.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Where the identity was made; none where copies of the disk are not looked for.
    pub birthplace: Option<Birthplace>,
    /// Tells its key also where there is no login, so that it is known by it once there is.
    pub introduces_key: bool,
    /// The contract that it speaks.
    pub uplink: Uplink,
    /// Where the lines go that a foreign contract promises; our own contract promises none.
    pub journal: Arc<dyn Journal>,
    /// Where the ledger is kept; one agent per directory.
    pub data_dir: PathBuf,
    /// The node's name; the host name, or what it was called before, if left out.
    pub name: Option<String>,
    /// Labels that a first join brings along.
    pub labels: BTreeMap<String, String>,
    /// Kept for the machine itself.
    pub reserved: Resources,
    /// What the machine has, where that is not to be measured.
    pub capacity: Option<Resources>,
    pub ledger_io: LedgerIo,
    /// Where the node's owner says what may run here.
    pub guard: GuardFile,
    /// When it counts as short of something, and when things are deleted.
    pub care: Care,
}

/// Where the ledger's writes and syncs happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LedgerIo {
    /// On threads for blocking work.
    #[default]
    Threads,
    /// In the task that asks, so that a simulation has no thread but its own.
    Inline,
}

/// The agent's environment. Whoever composes the program owns it.
#[derive(Clone)]
pub struct Parts {
    pub runtimes: Vec<Arc<dyn Runtime>>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub tasks: Tasks,
    pub dial: Arc<dyn Dial>,
    pub machine: Arc<dyn Machine>,
}

impl AgentConfig {
    /// The defaults for a control plane and a data directory.
    #[must_use]
    pub fn new(server: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            server: server.into(),
            invitation: None,
            anchors: None,
            certificate: None,
            birthplace: None,
            introduces_key: false,
            uplink: Uplink::default(),
            journal: Arc::new(ToLog),
            data_dir: data_dir.into(),
            name: None,
            labels: BTreeMap::new(),
            reserved: Resources::ZERO,
            capacity: None,
            ledger_io: LedgerIo::default(),
            guard: GuardFile::default(),
            care: Care::default(),
        }
    }
}

impl Parts {
    /// The real machine and network.
    #[must_use]
    pub fn new(
        runtimes: Vec<Arc<dyn Runtime>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: Tasks,
    ) -> Self {
        let machine = Arc::new(LocalMachine::new());
        Self {
            runtimes,
            clock,
            entropy,
            tasks,
            dial: Arc::new(TcpDial),
            machine,
        }
    }
}

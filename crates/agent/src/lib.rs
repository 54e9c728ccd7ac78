//! The agent: the part of Hostler on each node.
//!
//! ```text
//! uplink ──► ledger (intent and identity on disk) ─┐
//!                                                  ├─► plan (pure) ──► act ──► runtime drivers
//! observe (adopts what survived a restart) ────────┘                     │
//! uplink ◄──────────────────── observed, usage, results, logs on request ◄┘
//! ```
//!
//! Two tasks do everything. The *reconciler* owns the intent, the ledger and what is observed, and is the
//! only one that acts on units. The *uplink* owns the connection: it carries what the reconciler shows to
//! the control plane and what the control plane wants to the reconciler. Neither waits for the other: a
//! node that is cut off goes on restarting what dies.
//!
//! Stopping the agent, in whatever way, stops no unit.

mod arrival;
mod care;
mod config;
mod dial;
mod guard;
mod headroom;
mod health;
mod journal;
mod ledger;
mod machine;
mod membership;
mod meter;
mod notes;
mod origin;
mod permit;
mod plan;
mod probe;
mod reconcile;
mod show;
mod status;
mod tuning;
mod uplink;
mod vault;
mod vitals;

use std::sync::Arc;

use hostler_kit::trust::TrustError;
use tokio::sync::watch;
use tonic::service::Routes;

use tuning::Tuned;

pub use arrival::{Elsewhere, Tools as ArrivalTools};
pub use care::{Budget, Care, Limits};
pub use config::{AgentConfig, LedgerIo, Parts};
pub use dial::{ByteStream, Dial, TcpDial};
pub use headroom::{FileSystem, Headroom, Share};
pub use journal::{Journal, Level, Line, ToLog};
pub use ledger::running_agent;
pub use machine::{LocalMachine, Machine};
pub use origin::{Admittance, Birthplace, Found, MachineMarks};
pub use permit::GuardFile;
pub use status::AgentStatus;
pub use tuning::Tuning;
pub use uplink::Uplink;
pub use uplink::{miaas, orchion, persys, spot};
pub use vitals::Vitals;

/// Why an agent does not start. Each is for a person to put right.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another agent works on the same data directory.
    #[error("another agent{} uses {path}; stop it first, or give this one a data directory of its own", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    InUse { path: String, pid: Option<u32> },
    /// The address of the control plane is none.
    #[error("`{server}` is no server address: {reason}; write it as http://host:port")]
    Server { server: String, reason: String },
    /// The data directory cannot be used.
    #[error("cannot use {path}: {source}")]
    Data {
        path: String,
        source: std::io::Error,
    },
    /// A key, a certificate or what is to be believed cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A join token goes with TLS.
    #[error(
        "a token was given, and {server} is plain text: write https://, or leave the token out where there is no login"
    )]
    TokenInPlain { server: String },
    /// The data directory serves another control plane.
    #[error(
        "{path} belongs to an agent of another control plane; give this one a data directory of its own"
    )]
    Foreign { path: String },
}

/// A running agent. Dropping the handle leaves it running; its `Tasks` stop it.
#[derive(Debug)]
pub struct Agent {
    vitals: Vitals,
    services: Option<Routes>,
    tuning: watch::Sender<Tuning>,
}

impl Agent {
    /// Locks the data directory, reads the ledger, starts to look after what is there and to call the
    /// control plane. Does not wait for the control plane.
    ///
    /// # Errors
    /// [`StartError`]; nothing was started.
    pub async fn start(config: AgentConfig, parts: Parts) -> Result<Self, StartError> {
        let server = uplink::address(&config)?;
        let ledger = ledger::Ledger::open(&config.data_dir)?;
        uplink::claim(&config, &ledger)?;
        let hostname = parts.machine.facts().hostname;
        let names = (config.name.as_deref(), hostname.as_str());
        let identity = ledger.identity(names, parts.entropy.as_ref())?;
        let (server, membership) = uplink::secured(&config, &parts, server)?;
        let key = uplink::introduced(&config, &server)?;
        let (alive, ended) = watch::channel(());
        let alive = Arc::new(alive);

        let (tuning, tuned) = Tuned::new(Tuning {
            reserved: config.reserved,
            care: config.care,
        });
        let handle = reconcile::start((&config, tuned), &parts, ledger, Arc::clone(&alive));
        let picture = handle.picture.clone();
        let uplink::Started { status, services } = uplink::start(uplink::Setup {
            config,
            parts,
            server,
            membership,
            key,
            identity,
            handle,
            alive,
        });
        let vitals = Vitals {
            status,
            picture,
            ended,
        };
        Ok(Self {
            vitals,
            services,
            tuning,
        })
    }

    /// How the agent stands with the control plane; always the latest.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.vitals.status.clone()
    }

    /// Tells it anew what may change while it runs; what is as it was makes nothing happen.
    pub fn tune(&self, tuning: Tuning) {
        self.tuning.send_if_modified(|now| {
            let is_new = *now != tuning;
            *now = tuning;
            is_new
        });
    }

    /// What it tells about itself.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        self.vitals.clone()
    }

    /// What the contract wants the node to serve; whoever composes the program opens the port.
    #[must_use]
    pub fn services(&self) -> Option<Routes> {
        self.services.clone()
    }

    /// Completes when the agent has ended after its tasks were told to stop. Its units run on.
    pub async fn stopped(&self) {
        let mut ended = self.vitals.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

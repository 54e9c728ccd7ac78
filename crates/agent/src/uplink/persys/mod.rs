//! The uplink of Persys's contract: registers at a scheduler and beats, and serves the scheduler's calls.
//!
//! ```text
//!   scheduler ◄── RegisterNode, Heartbeat ───────── client
//!   scheduler ──► ApplyWorkload, DeleteWorkload ──► records on disk ──► reconciler ──► drivers
//!                 GetWorkloadStatus, … ◄──────────── records, picture
//! ```
//!
//! Here the intent comes piece by piece and nobody repeats it, so the node is its keeper: each workload that was
//! accepted is a record on disk before the call is answered, and at each start the records are the full intent.
//! A revision that is new is a new generation of the same assignment, whose id derives from the workload's.
//!
//! Losing the scheduler loses nothing and stops nothing.

mod actions;
mod apply;
mod causes;
mod client;
mod core;
mod figures;
mod follow;
mod guests;
mod host;
mod machine;
mod records;
mod relay;
mod serve;
mod spec;
mod states;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hostler_kit::Tasks;
use hostler_kit::trust::ClientTls;
use hostler_model::spec::Kind;
use hostler_model::{FleetId, NodeId, StoreEpoch, Timestamp};
use hostler_wire::persys::agent::WorkloadType;
use hostler_wire::persys::agent::agent_service_server::AgentServiceServer;
use tokio::sync::watch;
use tonic::service::Routes;

use super::{Setup, Started};
use crate::StartError;
use crate::config::AgentConfig;
use crate::dial::Server;
use crate::guard::Speaker;
use crate::ledger::{Ledger, Origin};
use crate::status::AgentStatus;

pub use self::figures::{Figures, Snapshot, Work};
pub use self::relay::{RelayError, Scheduler};

use self::core::Core;

/// What Persys's contract has to be told beside the scheduler's address.
#[derive(Debug, Clone)]
pub struct Persys {
    /// The name that the scheduler knows the node by.
    pub node_id: String,
    /// No scheduler is called; the node only serves.
    pub standalone: bool,
    /// How the scheduler is called; none: in plain text.
    pub tls: Option<ClientTls>,
    /// Where the scheduler reaches the node, as `host:port`; found out at each registration if left out.
    pub grpc_endpoint: Option<String>,
    /// The port of that address where it is found out.
    pub grpc_port: u16,
    /// The version that is told; ours if it is empty.
    pub version: String,
    /// The kinds that may be offered, whatever drivers there are.
    pub kinds: BTreeSet<Kind>,
    pub admission: Admission,
    /// Whether the control stream is tried as well.
    pub control_stream: bool,
    /// Filled once the agent has started.
    pub figures: Figures,
}

/// How busy the machine may be when something new begins, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Admission {
    pub memory: f64,
    pub cpu: f64,
    pub disk: f64,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            memory: 80.0,
            cpu: 80.0,
            disk: 90.0,
        }
    }
}

impl Persys {
    /// The defaults for a node of that name.
    #[must_use]
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            node_id: node_id.into(),
            standalone: false,
            tls: None,
            grpc_endpoint: None,
            grpc_port: 50051,
            version: String::new(),
            kinds: KINDS.map(|(kind, _)| kind).into(),
            admission: Admission::default(),
            control_stream: false,
            figures: Figures::default(),
        }
    }
}

/// The kinds that the contract knows.
const KINDS: [(Kind, WorkloadType); 3] = [
    (Kind::Container, WorkloadType::Container),
    (Kind::Compose, WorkloadType::Compose),
    (Kind::Vm, WorkloadType::Vm),
];

fn type_of(kind: Kind) -> WorkloadType {
    let known = KINDS.into_iter().find(|(ours, _)| *ours == kind);
    known.map_or(WorkloadType::Unspecified, |(_, theirs)| theirs)
}

/// The node itself is the source of its intent: one that comes from anywhere else is a stranger's.
fn speaker() -> Speaker {
    const SOURCE: u128 = 0x7065_7273_7973;
    let at = Timestamp::from_millis(0);
    Speaker {
        origin: Origin {
            fleet_id: FleetId::mint(at, SOURCE),
            node_id: NodeId::mint(at, SOURCE),
            store_epoch: StoreEpoch::mint(at, SOURCE),
        },
        run: 0,
        began_at: 0,
    }
}

/// Makes the directory of the records, unless the ledger follows somebody else: two intents are never mixed.
pub(super) fn claim(config: &AgentConfig, ledger: &Ledger) -> Result<(), StartError> {
    let followed = ledger.origin();
    if followed.is_some_and(|followed| followed != speaker().origin) {
        return Err(StartError::Foreign {
            path: config.data_dir.display().to_string(),
        });
    }
    records::make_dir(&config.data_dir)
}

/// Takes up the records and starts the tasks. They end when they are told to stop.
pub(super) fn start(setup: Setup, persys: Persys) -> Started {
    let Setup {
        config,
        parts,
        server,
        identity: _,
        handle,
        alive,
        ..
    } = setup;
    let first = AgentStatus::Connecting {
        problem: persys.standalone.then(|| "standalone".to_owned()),
    };
    let (status, shown) = watch::channel(first);
    let tasks = parts.tasks.clone();
    let core = Arc::new(Core::new(config, persys, parts, handle, alive));
    core.persys.figures.fill(&core);

    let following = Arc::clone(&core);
    tasks.spawn("persys records", async move {
        if following.begin().await {
            following.follow().await;
        }
    });
    let looking = Arc::clone(&core);
    tasks.spawn_until_stop(
        "persys guests",
        async move { looking.look_at_guests().await },
    );
    if core.persys.standalone {
        tasks.spawn("standalone", stand_alone(tasks.clone(), status));
    } else {
        let client = client::Client::new(Arc::clone(&core), server, status);
        tasks.spawn("uplink", client.run());
    }
    let service = AgentServiceServer::new(serve::Serve(core));
    Started {
        status: shown,
        services: Some(Routes::new(service)),
    }
}

/// Keeps the status, which never changes, for as long as the agent lives.
async fn stand_alone(tasks: Tasks, status: watch::Sender<AgentStatus>) {
    tasks.stopping().await;
    drop(status);
}

/// Reads the scheduler's address.
pub(super) fn address(server: &str, is_secure: bool) -> Result<Server, StartError> {
    relay::server(server, is_secure).map_err(|reason| StartError::Server {
        server: server.to_owned(),
        reason,
    })
}

/// Labels that every node tells, under those that it was given.
fn labels(config: &AgentConfig, os: &str, arch: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("os".to_owned(), os.to_owned()),
        ("arch".to_owned(), arch.to_owned()),
    ]);
    labels.extend(config.labels.clone());
    labels
}

//! Persys's contracts: `persys.control.v1` is served, `persys.agent.v1` is dialled.
//!
//! ```text
//!   agent, person ── calls ──► service ─┬─ register, beat ──► announcements, leases
//!                                       ├─ workloads ───────► verbs          views ◄── the fleet
//!                                       └─ stream ──────────┐
//!   agent ◄── dialled, one task for each node ──── drive ◄──┴── want: what each id on an agent is to be
//! ```
//!
//! - `intake` maps their specs to ours, `outgo` back; what came is kept beside our spec byte for byte and replayed.
//! - `drive` begins from the view by itself, after a restart as at first; a node that holds a stream is told there.
//! - `figures` is Persys's second port: its metric names, and its health.
//!
//! The door owns connections, and in memory alone who speaks to each node (`holders`) and what only this contract
//! shows (`notes`). What can fail is answered as `docs/decisions/0012-persys.md` says: what was kept is a success.

mod beat;
mod drive;
mod figures;
mod full_vm;
mod holders;
mod intake;
mod notes;
mod outgo;
mod register;
mod service;
mod stream;
mod views;
mod want;
mod words;
mod workloads;

use std::sync::{Arc, Mutex, Once, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use hostler_control::Control;
use hostler_control::fleet::LeaseRules;
use hostler_kit::Entropy;
use hostler_kit::trust::ClientTls;
use hostler_model::{Contract, Node, NodeId, Timestamp, WorkloadId};
use hostler_wire::persys::control::agent_control_server::{AgentControlServer, SERVICE_NAME};
use tokio::sync::Notify;

use self::figures::Figures;
use self::holders::{Holders, Say};
use self::notes::Notes;
use self::service::Service;
use crate::access::Shown;
use crate::audit::By;
use crate::reflection::{self, Told};
use crate::{Parts, Peer, grpc};

const PATH: &str = "/persys.control.v1.AgentControl/{*method}";

/// What reflection tells of it.
pub(crate) const TOLD: Told = Told {
    descriptors: hostler_wire::persys::CONTROL_DESCRIPTORS,
    services: &[SERVICE_NAME],
};

/// What all listeners of this contract share.
pub(crate) struct Door {
    control: Control,
    entropy: Arc<dyn Entropy>,
    /// How agents are dialled; none: in plain text.
    tls: Option<ClientTls>,
    figures: Arc<Figures>,
    holders: Arc<Holders>,
    notes: Notes,
    /// Hurries the watch for nodes that nobody speaks to.
    woken: Notify,
    watched: Once,
    mode: Mutex<Mode>,
}

/// Whether the control plane decides, and since when it does or does not.
type Mode = (&'static str, String, Timestamp);

impl Door {
    pub(crate) fn new(
        control: &Control,
        entropy: &Arc<dyn Entropy>,
        tls: Option<ClientTls>,
    ) -> Arc<Self> {
        let now = Timestamp::from_millis(control.clock().wall_millis());
        Arc::new(Self {
            control: control.clone(),
            entropy: Arc::clone(entropy),
            tls,
            figures: Arc::new(Figures::new()),
            holders: Arc::default(),
            notes: Notes::default(),
            woken: Notify::new(),
            watched: Once::new(),
            mode: Mutex::new(("normal", String::new(), now)),
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.control.clock().wall_millis())
    }

    fn rules(&self) -> LeaseRules {
        self.control.config().lease_of(Contract::Persys)
    }

    /// The node that registered under the id, unless it is gone.
    fn node(&self, id: &str) -> Option<Arc<Node>> {
        let view = self.control.view();
        let node = view.node_by_alias(&words::node_key(id))?;
        (!node.is_gone()).then(|| Arc::clone(node))
    }

    fn tell(&self, node: NodeId, say: Say) {
        if !self.holders.tell(node, say) {
            self.woken.notify_one();
        }
    }

    /// The workload is tried again at once, as if it had never failed.
    fn retry(&self, node: NodeId, workload: WorkloadId) {
        self.holders.retry(node, workload);
        self.look(node);
    }

    /// Whoever speaks to the node looks at once, or somebody begins to.
    fn look(&self, node: NodeId) {
        self.tell(node, Say::Look);
    }

    /// The mode now, with the moment at which it was first seen.
    fn look_at_mode(&self) -> Mode {
        let readiness = self.control.readiness();
        let trouble = readiness.checks.iter().find(|check| !check.is_ok);
        let (mode, reason) = match trouble {
            None => ("normal", String::new()),
            Some(check) => ("degraded", check.message.clone()),
        };
        let mut known = self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != mode {
            *known = (mode, reason, self.now());
        }
        known.clone()
    }
}

/// The routes beside those of other contracts, without a fallback.
pub(crate) fn beside(parts: &Parts) -> Router {
    let door = Arc::clone(&parts.persys);
    let watched = Arc::clone(&door);
    door.watched.call_once(|| {
        let tasks = watched.control.tasks().clone();
        tasks.spawn_until_stop("persys agents", drive::watch(watched));
    });
    let service = Service(door, parts.access.clone());
    Router::new()
        .route_service(PATH, AgentControlServer::new(service))
        .route_layer(from_fn(grpc::only_calls))
}

/// The same on the main listener, where callers of a server with login show who they are.
pub(crate) fn beside_others(parts: &Parts) -> Router {
    let admit = grpc::Admit::new(&parts.access, Contract::Persys, |_| Shown::Nothing);
    beside(parts).route_layer(from_fn_with_state(admit, grpc::admit))
}

/// The routes on a listener of their own, with the contract's answers for unknown paths.
pub(crate) fn alone(parts: &Parts) -> Router {
    let reflection = reflection::beside(parts, &[TOLD]);
    beside(parts)
        .route_layer(from_fn(tell_key))
        .merge(reflection)
        .fallback(unknown)
}

/// Tells the audit who called. This port asks nobody, but for a certificate of Persys's own where it is so set up.
async fn tell_key(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let key = peer.and_then(|peer| peer.key);
    let by = key.map_or_else(By::anonymous, |key| {
        By::known("program", Contract::Persys.as_str(), &key)
    });
    let mut response = next.run(request).await;
    response.extensions_mut().insert(by);
    response
}

/// The routes of Persys's second port: `/metrics` and `/health`.
pub(crate) fn figures(parts: &Parts) -> Router {
    figures::routes(Arc::clone(&parts.persys))
}

async fn unknown() -> Response {
    tonic::Status::unimplemented("no such service or method").into_http::<axum::body::Body>()
}

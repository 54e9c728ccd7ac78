//! The uplinks: how the agent speaks to its control plane, one folder per wire contract. Each owns nothing but
//! its connection: what it tells comes from the reconciler's picture, what it is told goes to the reconciler.
//! Losing the control plane loses nothing and stops nothing.
//!
//! A contract that has no intent sends the reconciler none: then nothing is started and nothing is stopped, and
//! what is told is what is seen.

pub(crate) mod channel;
pub(crate) mod http;
pub mod miaas;
pub mod orchion;
pub mod persys;
mod session;
pub mod spot;

use std::sync::Arc;

use hostler_kit::trust::{Anchors, ClientTls, Print};
use tokio::sync::watch;
use tonic::service::Routes;

use self::persys::Persys;
pub(crate) use self::session::refusal_wait;
use crate::StartError;
use crate::config::{AgentConfig, Parts};
use crate::dial::Server;
use crate::ledger::{Identity, Ledger};
use crate::membership::{self, Membership};
use crate::reconcile::Handle;
use crate::status::AgentStatus;

/// Which contract the agent speaks, and what that contract has to be told beside the server's address.
#[derive(Debug, Clone, Default)]
pub enum Uplink {
    /// Our own: a session.
    #[default]
    Session,
    Miaas(miaas::Miaas),
    Orchion(Box<orchion::Orchion>),
    Spot(Box<spot::Spot>),
    /// Persys's.
    Persys(Persys),
}

/// What an uplink is made of.
pub(crate) struct Setup {
    pub(crate) config: AgentConfig,
    pub(crate) parts: Parts,
    pub(crate) server: Server,
    /// For our own contract over TLS.
    pub(crate) membership: Option<Arc<Membership>>,
    /// For our own contract in plain text: the key that the node will have.
    pub(crate) key: Option<Print>,
    pub(crate) identity: Identity,
    pub(crate) handle: Handle,
    /// Let go of when the uplink ends.
    pub(crate) alive: Arc<watch::Sender<()>>,
}

/// An uplink that works.
pub(crate) struct Started {
    pub(crate) status: watch::Receiver<AgentStatus>,
    /// What the contract wants served on the node; whoever composes the program opens the port for it.
    pub(crate) services: Option<Routes>,
}

impl Started {
    /// An uplink that only calls.
    pub(crate) const fn calling(status: watch::Receiver<AgentStatus>) -> Self {
        Self {
            status,
            services: None,
        }
    }
}

/// Reads the control plane's address as its contract writes it.
pub(crate) fn address(config: &AgentConfig) -> Result<Server, StartError> {
    match &config.uplink {
        Uplink::Session | Uplink::Orchion(_) => Server::parse(&config.server),
        Uplink::Miaas(_) | Uplink::Spot(_) => Server::parse_base(&config.server),
        Uplink::Persys(persys) => persys::address(&config.server, persys.tls.is_some()),
    }
}

/// Says whom to believe and what to show at an address that speaks TLS.
pub(crate) fn secured(
    config: &AgentConfig,
    parts: &Parts,
    server: Server,
) -> Result<(Server, Option<Arc<Membership>>), StartError> {
    if !server.is_secure() {
        return match config.invitation {
            Some(_) => Err(StartError::TokenInPlain {
                server: config.server.clone(),
            }),
            None => Ok((server, None)),
        };
    }
    if matches!(config.uplink, Uplink::Session) {
        let told = (config.invitation.clone(), config.anchors.clone());
        let tools = (Arc::clone(&parts.clock), Arc::clone(&parts.entropy));
        let membership = Arc::new(Membership::open(&config.data_dir, told, tools)?);
        let server = server.with_tls(membership.tls().clone());
        return Ok((server, Some(membership)));
    }
    if let Uplink::Persys(persys::Persys { tls: Some(tls), .. }) = &config.uplink {
        return Ok((server.with_tls(tls.clone()), None));
    }
    let anchors = config.anchors.clone().unwrap_or(Anchors::Machine);
    let tls = match &config.certificate {
        Some((certificate, key)) => ClientTls::from_files(&anchors, (certificate, key))?,
        None => ClientTls::new(&anchors, None)?,
    };
    Ok((server.with_tls(tls), None))
}

/// Where there is no login: the key by which the node is to be known once there is.
pub(crate) fn introduced(
    config: &AgentConfig,
    server: &Server,
) -> Result<Option<Print>, StartError> {
    let is_ours = matches!(config.uplink, Uplink::Session);
    if !is_ours || !config.introduces_key || server.is_secure() {
        return Ok(None);
    }
    Ok(Some(membership::key(&config.data_dir)?.print()))
}

/// Makes sure that the ledger may serve this contract, and makes what the contract keeps beside it.
pub(crate) fn claim(config: &AgentConfig, ledger: &Ledger) -> Result<(), StartError> {
    match config.uplink {
        Uplink::Session | Uplink::Miaas(_) | Uplink::Orchion(_) | Uplink::Spot(_) => Ok(()),
        Uplink::Persys(_) => persys::claim(config, ledger),
    }
}

/// Starts the task. It ends when the tasks are told to stop.
pub(crate) fn start(setup: Setup) -> Started {
    match setup.config.uplink.clone() {
        Uplink::Session => session::start(setup),
        Uplink::Miaas(miaas) => miaas::start(setup, miaas),
        Uplink::Orchion(orchion) => orchion::start(setup, *orchion),
        Uplink::Spot(spot) => spot::start(setup, *spot),
        Uplink::Persys(persys) => persys::start(setup, persys),
    }
}

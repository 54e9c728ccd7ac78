//! The doors: inbound adapters, one folder per wire contract, and the listener under them.
//!
//! A door decodes, authenticates, makes one `Control` call and encodes; no business rule lives here. The
//! doors own no state but that of their connections. What can fail is answered in the contract's own
//! words, from the domain's refusals.
//!
//! A listener has a [`Dialect`]. The main one carries every door; a contract's historic port serves only that
//! contract, and unknown paths are refused in its words.

mod access;
pub mod api;
mod audit;
mod grpc;
pub mod listener;
pub mod orchion;
pub mod persys;
mod reflection;
mod secret;
pub mod session;
pub mod spot;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use hostler_control::Control;
use hostler_kit::Entropy;
use hostler_kit::trust::ClientTls;
use hostler_model::Contract;

pub use self::access::{Access, Auth, Opened, OwnPort};
pub use self::api::{Backups, OPENAPI, described, miaas};
pub use self::audit::Audit;
pub use self::listener::{
    Accept, BindError, Bound, Caps, Crowd, CrowdCounts, Listener, Peer, serve, serve_through,
};
use self::session::SessionDoor;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Everything, in our words where contracts collide: the main listener.
    Hostler,
    /// Orchion's gRPC and its HTTP gateway.
    Orchion,
    /// Persys's control service.
    Persys,
    /// Persys's metrics and health over HTTP.
    PersysFigures,
    /// The spot manager's HTTP.
    Spot,
}

/// What every door is made of.
#[derive(Clone)]
pub struct Parts {
    pub control: Control,
    /// Makes request ids, tickets and tokens.
    pub entropy: Arc<dyn Entropy>,
    pub miaas: miaas::Config,
    /// Sign the tokens of MIaaS's nodes.
    pub miaas_keys: miaas::Keys,
    pub orchion: orchion::Config,
    /// Who may do what.
    pub access: Access,
    /// What copies all that is kept; without it no backup can be had.
    pub backups: Option<Arc<dyn Backups>>,
    /// The connections of the main listener, for the figures; without it they are not told.
    pub crowd: Option<Crowd>,
    /// Persys's listeners and its agents share one door.
    persys: Arc<persys::Door>,
}

impl Parts {
    /// The doors of one control plane, as they behave unless told otherwise.
    #[must_use]
    pub fn new(control: &Control, entropy: &Arc<dyn Entropy>) -> Self {
        Self {
            control: control.clone(),
            entropy: Arc::clone(entropy),
            miaas: miaas::Config::default(),
            miaas_keys: miaas::Keys::public(),
            orchion: orchion::Config::default(),
            access: Access::open(control),
            backups: None,
            crowd: None,
            persys: persys::Door::new(control, entropy, None),
        }
    }

    /// Persys's agents are dialled over TLS. To be said before any router is made.
    pub fn dial_persys_agents_over(&mut self, tls: ClientTls) {
        self.persys = persys::Door::new(&self.control, &self.entropy, Some(tls));
    }

    /// What a listener of that dialect serves.
    pub fn router(&self, dialect: Dialect) -> Router {
        match dialect {
            Dialect::Hostler => self.everything(),
            Dialect::Orchion => audit::watched(&self.access, "orchion", orchion::alone(self)),
            Dialect::Persys => audit::watched(&self.access, "persys", persys::alone(self)),
            Dialect::PersysFigures => persys::figures(self),
            Dialect::Spot => audit::watched(&self.access, "spot", spot::alone(self)),
        }
    }

    fn everything(&self) -> Router {
        let entropy = Arc::clone(&self.entropy);
        let session = SessionDoor::new(self.control.clone(), entropy, self.access.clone());
        let api = api::Api::new(self).router();
        // The session's own dispatch refuses unknown methods in gRPC's words, and none of the API's time-outs
        // and limits may touch its streams.
        let session = Router::new()
            .route_service(
                "/hostler.session.v1.Session/{*method}",
                session.into_server(),
            )
            .route_layer(from_fn(grpc::hurry_strangers))
            .route_layer(from_fn(grpc::only_calls));
        let watched = |door, routes| audit::watched(&self.access, door, routes);
        let (mut all, mut told) = (api.merge(session), vec![session::TOLD]);
        // Of a server with login, other contracts' doors are open by name alone. MIaaS's are routes of the API.
        if self.access.opens(Contract::Orchion) {
            told.push(orchion::TOLD);
            all = all.merge(watched("orchion", orchion::beside(self)));
        }
        if self.access.opens(Contract::Persys) {
            told.push(persys::TOLD);
            all = all.merge(watched("persys", persys::beside_others(self)));
        }
        if self.access.opens(Contract::Spot) {
            all = all.merge(watched("spot", spot::beside(self)));
        }
        all.merge(watched("reflection", reflection::beside(self, &told)))
    }
}

/// Every door, as the main listener serves them.
pub fn router(control: &Control, entropy: &Arc<dyn Entropy>) -> Router {
    Parts::new(control, entropy).router(Dialect::Hostler)
}

//! The doors of other systems' contracts on a server with login: which are open, and what each of their routes needs.
//!
//! ```text
//!   not opened by name ──► its routes are not there
//!   auth = token       ──► each route needs a role, or the contract's own credential for what is its holder's
//!   auth = contract    ──► open where the contract leaves it open, but for what costs money or hands out tokens
//! ```
//!
//! One table for each contract. A route that it does not name needs an admin, so that one that was forgotten is shut.
//! Plain data: owns nothing, and nothing can fail.

use std::collections::BTreeMap;

use hostler_model::{AccessRole, Contract};
use hostler_wire::api;
use http::Method;

use super::Need;

/// Who may use an opened door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// As the contract documents it.
    Contract,
    /// Whoever shows who they are, on every route.
    Token,
}

/// A port of a contract's own, as it is told to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPort {
    pub contract: Contract,
    pub addr: String,
    /// `on`, `off` or `sniff`.
    pub tls: &'static str,
}

/// The doors of other contracts that a server with login opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    pub doors: BTreeMap<Contract, Auth>,
    /// Whether the contract's word holds also for what costs money, and for what hands out tokens for that.
    pub open_replica_routes: bool,
    pub ports: Vec<OwnPort>,
}

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Nothing: it tells nothing about the fleet.
    Nothing,
    /// This role, or the contract's credential for what is its holder's; the contract leaves it open.
    Own(AccessRole),
    /// This role, for it is about all; the contract leaves it open.
    Whole(AccessRole),
    /// The contract's credential, which the door reads in the contract's order; or this role.
    Judged(AccessRole),
    /// The same where the contract's key is set; the contract leaves it open where there is none.
    Keyed(AccessRole),
    /// As `Own`, and it costs money.
    Costly(AccessRole),
    /// An admin: it decides who comes in.
    Admits,
}

use AccessRole::{Operator, Viewer};
use Asks::{Admits, Costly, Judged, Keyed, Nothing, Own, Whole};

/// Method, the route as the router knows it, and what it asks for.
type Rule = (&'static str, &'static str, Asks);

const ANY: &str = "*";

/// MIaaS's routes. Nothing is placed on a node that registers there, so that letting one in takes an operator.
const MIAAS: &[Rule] = &[
    ("POST", "/api/v1/nodes/register", Whole(Operator)),
    ("POST", "/api/v1/nodes/{id}/heartbeat", Judged(Operator)),
    ("GET", "/api/v1/nodes", Whole(Viewer)),
    ("GET", "/api/v1/nodes/{id}", Whole(Viewer)),
    ("GET", "/api/v1/deployments", Whole(Viewer)),
    ("POST", "/api/v1/deployments", Whole(Operator)),
    ("GET", "/api/v1/deployments/{id}", Whole(Viewer)),
    ("DELETE", "/api/v1/deployments/{id}", Whole(Operator)),
    ("GET", "/ws/logs", Whole(Viewer)),
];

/// Those of them that are ours as well, and stay where MIaaS's door is shut.
const SHARED: &[&str] = &["/api/v1/nodes", "/api/v1/nodes/{id}"];

const ORCHION: &[Rule] = &[
    ("OPTIONS", "/api/nodes", Nothing),
    ("OPTIONS", "/api/logs", Nothing),
    ("OPTIONS", "/v1/chat/completions", Nothing),
    ("OPTIONS", "/v1/embeddings", Nothing),
    (ANY, "/api/nodes", Own(Viewer)),
    (ANY, "/api/logs", Own(Viewer)),
    (ANY, "/v1/chat/completions", Keyed(Operator)),
    (ANY, "/v1/embeddings", Keyed(Operator)),
    (ANY, "/orchion.v1.Orchestrator/RegisterNode", Own(Operator)),
    (ANY, "/orchion.v1.Orchestrator/UpdateNode", Own(Operator)),
    (ANY, "/orchion.v1.Orchestrator/Heartbeat", Own(Operator)),
    (ANY, "/orchion.v1.Orchestrator/ListNodes", Own(Viewer)),
    (ANY, "/orchion.v1.Orchestrator/SubmitJob", Own(Operator)),
    (ANY, "/orchion.v1.Orchestrator/GetJobStatus", Own(Viewer)),
    (ANY, "/orchion.v1.OrchionLLM/ChatCompletion", Own(Operator)),
    (ANY, "/orchion.v1.OrchionLLM/Embeddings", Own(Operator)),
    (ANY, "/orchion.v1.LogStreamer/StreamLogs", Own(Viewer)),
];

/// Persys knows its callers by their certificates alone, so that nothing is left open here.
const PERSYS: &[Rule] = &[
    (ANY, "RegisterNode", Whole(Operator)),
    (ANY, "Heartbeat", Whole(Operator)),
    (ANY, "ControlStream", Whole(Operator)),
    (ANY, "ApplyWorkload", Whole(Operator)),
    (ANY, "DeleteWorkload", Whole(Operator)),
    (ANY, "RetryWorkload", Whole(Operator)),
    (ANY, "SubmitAutomationSuggestion", Whole(Operator)),
    (ANY, "ListNodes", Whole(Viewer)),
    (ANY, "GetNode", Whole(Viewer)),
    (ANY, "ListWorkloads", Whole(Viewer)),
    (ANY, "GetWorkload", Whole(Viewer)),
    (ANY, "GetClusterSummary", Whole(Viewer)),
];

/// Under which Persys's methods are found.
const PERSYS_SERVICE: &str = "/persys.control.v1.AgentControl/";

/// Agents about themselves.
const SPOT_AGENTS: &[Rule] = &[
    ("GET", "/health", Nothing),
    ("GET", "/api/agents", Own(Viewer)),
    ("POST", "/api/agents/register", Judged(Operator)),
    ("GET", "/api/agents/{id}", Own(Viewer)),
    ("POST", "/api/agents/{id}/heartbeat", Judged(Operator)),
    ("GET", "/api/agents/{id}/config", Judged(Viewer)),
    ("POST", "/api/agents/{id}/termination", Judged(Operator)),
    ("GET", "/api/agents/{id}/pending-commands", Judged(Viewer)),
    (
        "POST",
        "/api/agents/{id}/commands/{command}/executed",
        Judged(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/issue-switch-command",
        Judged(Operator),
    ),
    ("POST", "/api/agents/{id}/pricing-report", Judged(Operator)),
    ("POST", "/api/agents/{id}/switch-report", Judged(Operator)),
    ("POST", "/api/agents/{id}/cleanup-report", Judged(Operator)),
    (
        "POST",
        "/api/agents/{id}/termination-report",
        Judged(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/register-instance",
        Judged(Operator),
    ),
    (
        "GET",
        "/api/agents/{id}/instances-to-terminate",
        Judged(Viewer),
    ),
    ("POST", "/api/agents/{id}/decide", Judged(Operator)),
    (
        "GET",
        "/api/agents/{id}/switch-recommendation",
        Judged(Viewer),
    ),
    ("GET", "/api/agents/{id}/statistics", Judged(Viewer)),
    ("GET", "/api/agents/{id}/replica-config", Judged(Viewer)),
    (
        "POST",
        "/api/agents/{id}/rebalance-recommendation",
        Judged(Operator),
    ),
    ("GET", "/api/agents/{id}/replicas", Own(Viewer)),
    ("POST", "/api/agents/{id}/replicas", Costly(Operator)),
    (
        "PUT",
        "/api/agents/{id}/replicas/{replica}",
        Costly(Operator),
    ),
    (
        "DELETE",
        "/api/agents/{id}/replicas/{replica}",
        Costly(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/replicas/{replica}/status",
        Costly(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/replicas/{replica}/sync-status",
        Costly(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/replicas/{replica}/promote",
        Costly(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/create-emergency-replica",
        Costly(Operator),
    ),
    (
        "POST",
        "/api/agents/{id}/termination-imminent",
        Costly(Operator),
    ),
];

/// The dashboard of one client.
const SPOT_CLIENTS: &[Rule] = &[
    ("GET", "/api/client/validate", Judged(Viewer)),
    ("GET", "/api/client/pricing-history", Own(Viewer)),
    ("GET", "/api/client/{client}", Own(Viewer)),
    ("GET", "/api/client/{client}/agents", Own(Viewer)),
    ("GET", "/api/client/{client}/agents/history", Own(Viewer)),
    ("GET", "/api/client/{client}/agents/decisions", Own(Viewer)),
    ("GET", "/api/client/{client}/instances", Own(Viewer)),
    ("GET", "/api/client/{client}/replicas", Own(Viewer)),
    ("GET", "/api/client/{client}/savings", Own(Viewer)),
    ("GET", "/api/client/{client}/switch-history", Own(Viewer)),
    ("GET", "/api/client/{client}/stats/charts", Own(Viewer)),
    ("GET", "/api/client/{client}/export/savings", Own(Viewer)),
    (
        "GET",
        "/api/client/{client}/export/switch-history",
        Own(Viewer),
    ),
    (
        "POST",
        "/api/client/agents/{id}/toggle-enabled",
        Own(Operator),
    ),
    ("POST", "/api/client/agents/{id}/settings", Own(Operator)),
    ("POST", "/api/client/agents/{id}/config", Own(Operator)),
    ("DELETE", "/api/client/agents/{id}", Own(Operator)),
    ("GET", "/api/notifications", Own(Viewer)),
    ("POST", "/api/notifications/{id}/mark-read", Own(Operator)),
    ("POST", "/api/notifications/mark-all-read", Own(Operator)),
    ("GET", "/api/events/stream/{client}", Own(Viewer)),
    ("GET", "/api/client/instances/{id}/pricing", Own(Viewer)),
    ("GET", "/api/client/instances/{id}/metrics", Own(Viewer)),
    (
        "GET",
        "/api/client/instances/{id}/price-history",
        Own(Viewer),
    ),
    (
        "GET",
        "/api/client/instances/{id}/available-options",
        Own(Viewer),
    ),
    (
        "POST",
        "/api/client/instances/{id}/force-switch",
        Costly(Operator),
    ),
    ("GET", "/api/client/instances/{id}/logs", Own(Viewer)),
];

/// The whole of it.
const SPOT_ADMIN: &[Rule] = &[
    ("GET", "/api/admin/clients", Whole(Viewer)),
    ("POST", "/api/admin/clients/create", Admits),
    ("GET", "/api/admin/clients/growth", Whole(Viewer)),
    ("DELETE", "/api/admin/clients/{client}", Admits),
    (
        "POST",
        "/api/admin/clients/{client}/regenerate-token",
        Admits,
    ),
    ("GET", "/api/admin/clients/{client}/token", Admits),
    ("GET", "/api/admin/stats", Whole(Viewer)),
    ("GET", "/api/admin/instances", Whole(Viewer)),
    ("GET", "/api/admin/agents", Whole(Viewer)),
    ("GET", "/api/admin/agents/health-summary", Whole(Viewer)),
    ("GET", "/api/admin/activity", Whole(Viewer)),
    ("GET", "/api/admin/system-health", Whole(Viewer)),
    ("GET", "/api/admin/search", Whole(Viewer)),
    ("GET", "/api/admin/pools/statistics", Whole(Viewer)),
    ("GET", "/api/admin/export/global-stats", Whole(Viewer)),
    ("POST", "/api/admin/decision-engine/upload", Whole(Operator)),
    ("POST", "/api/admin/ml-models/upload", Whole(Operator)),
    ("POST", "/api/admin/ml-models/activate", Whole(Operator)),
    ("POST", "/api/admin/ml-models/fallback", Whole(Operator)),
    ("GET", "/api/admin/ml-models/sessions", Whole(Viewer)),
];

fn tables(contract: Contract) -> &'static [&'static [Rule]] {
    match contract {
        Contract::Session => &[],
        Contract::Miaas => &[MIAAS],
        Contract::Orchion => &[ORCHION],
        Contract::Persys => &[PERSYS],
        Contract::Spot => &[SPOT_AGENTS, SPOT_CLIENTS, SPOT_ADMIN],
    }
}

fn asked(contract: Contract, method: &Method, route: &str) -> Option<Asks> {
    let route = route.strip_prefix(PERSYS_SERVICE).unwrap_or(route);
    // Whatever answers GET answers HEAD, without its body.
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    let mut rules = tables(contract).iter().copied().flatten();
    let is_meant = |rule: &&Rule| (rule.0 == ANY || rule.0 == method) && rule.1 == route;
    rules.find(is_meant).map(|rule| rule.2)
}

impl Opened {
    pub(crate) fn has(&self, contract: Contract) -> bool {
        self.doors.contains_key(&contract)
    }

    /// What a contract's route needs; none if its door is shut.
    pub(super) fn need(&self, contract: Contract, method: &Method, route: &str) -> Option<Need> {
        let auth = *self.doors.get(&contract)?;
        let asks = asked(contract, method, route);
        Some(asks.map_or(Need::Role(AccessRole::Admin), |asks| {
            self.under((contract, auth), asks)
        }))
    }

    fn under(&self, (contract, auth): (Contract, Auth), asks: Asks) -> Need {
        let is_open = auth == Auth::Contract && contract != Contract::Persys;
        let is_wide_open = is_open && self.open_replica_routes;
        match asks {
            Nothing => Need::Nothing,
            Judged(role) => Need::Judged(role),
            Keyed(role) if is_open => Need::Judged(role),
            Own(_) | Whole(_) if is_open => Need::Open,
            Costly(_) | Admits if is_wide_open => Need::Open,
            Own(role) | Keyed(role) | Costly(role) => Need::Own(role),
            Whole(role) => Need::Role(role),
            Admits => Need::Role(AccessRole::Admin),
        }
    }

    /// What a route of MIaaS needs that our own router serves. None: it is none of them, or its door is shut and it is
    /// ours as well.
    pub(super) fn need_beside(&self, method: &Method, route: &str) -> Option<Beside> {
        asked(Contract::Miaas, method, route)?;
        match self.need(Contract::Miaas, method, route) {
            Some(need) => Some(Beside::Open(need)),
            None => (!SHARED.contains(&route)).then_some(Beside::Shut),
        }
    }

    /// Each opened door, and what it relaxes.
    pub(crate) fn told(&self, chosen: Chosen) -> Vec<api::Door> {
        let doors = self.doors.iter();
        doors
            .map(|(contract, auth)| self.door((*contract, *auth), chosen))
            .collect()
    }

    fn door(&self, (contract, auth): (Contract, Auth), chosen: Chosen) -> api::Door {
        let mut door = api::Door {
            contract: contract.as_str().to_owned(),
            auth: match auth {
                Auth::Contract => "contract",
                Auth::Token => "token",
            }
            .to_owned(),
            ..api::Door::default()
        };
        for (method, route, asks) in tables(contract).iter().copied().flatten() {
            let name = if *method == ANY {
                (*route).to_owned()
            } else {
                format!("{method} {route}")
            };
            let has_credential = match contract {
                Contract::Miaas => !chosen.beats_are_open,
                Contract::Orchion => chosen.has_key,
                Contract::Session | Contract::Persys | Contract::Spot => true,
            };
            match self.under((contract, auth), *asks) {
                Need::Open => door.open.push(name),
                // Where there is nothing to be shown, nothing is asked for.
                Need::Judged(_) if !has_credential => door.open.push(name),
                Need::Own(_) if !has_credential => {}
                Need::Judged(_) | Need::Own(_) => door.own.push(name),
                Need::Nothing | Need::Role(_) => {}
            }
        }
        let ports = self.ports.iter().filter(|port| port.contract == contract);
        door.ports = ports
            .map(|port| api::DoorPort {
                addr: port.addr.clone(),
                tls: port.tls.to_owned(),
            })
            .collect();
        door
    }
}

/// What is chosen where contracts leave a choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    /// MIaaS's beats may come without a token.
    pub beats_are_open: bool,
    /// Orchion's key is set.
    pub has_key: bool,
}

/// A route of MIaaS on our own router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Open(Need),
    Shut,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(contract: Contract, auth: Auth) -> Opened {
        Opened {
            doors: BTreeMap::from([(contract, auth)]),
            ..Opened::default()
        }
    }

    #[test]
    fn what_costs_money_or_hands_out_tokens_is_shut_also_where_the_contract_leaves_it_open() {
        let mut spot = opened(Contract::Spot, Auth::Contract);
        let of = |spot: &Opened, method: Method, route: &str| {
            spot.need(Contract::Spot, &method, route).unwrap()
        };
        let promote = "/api/agents/{id}/replicas/{replica}/promote";
        let token = "/api/admin/clients/{client}/token";
        assert_eq!(of(&spot, Method::POST, promote), Need::Own(Operator));
        assert_eq!(of(&spot, Method::GET, token), Need::Role(AccessRole::Admin));
        assert_eq!(of(&spot, Method::GET, "/api/admin/stats"), Need::Open);
        spot.open_replica_routes = true;
        assert_eq!(of(&spot, Method::POST, promote), Need::Open);
        spot.doors.insert(Contract::Spot, Auth::Token);
        assert_eq!(of(&spot, Method::POST, promote), Need::Own(Operator));
    }

    #[test]
    fn a_route_that_is_not_named_needs_an_admin_and_a_shut_door_is_none() {
        let spot = opened(Contract::Spot, Auth::Contract);
        let forgotten = spot.need(Contract::Spot, &Method::GET, "/api/forgotten");
        assert_eq!(forgotten, Some(Need::Role(AccessRole::Admin)));
        assert_eq!(
            spot.need(Contract::Orchion, &Method::GET, "/api/nodes"),
            None
        );
        let register = "/api/v1/nodes/register";
        assert_eq!(
            spot.need_beside(&Method::POST, register),
            Some(Beside::Shut)
        );
        assert_eq!(spot.need_beside(&Method::GET, "/api/v1/nodes"), None);
        let persys = opened(Contract::Persys, Auth::Contract);
        let apply = format!("{PERSYS_SERVICE}ApplyWorkload");
        assert_eq!(
            persys.need(Contract::Persys, &Method::POST, &apply),
            Some(Need::Role(Operator)),
            "Persys leaves nothing open"
        );
    }
}

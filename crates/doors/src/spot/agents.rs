//! Agents about themselves: they register, beat, read their settings and say that they end.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use hostler_control::fleet::{Arrival, MachineReport, NodeAnnouncement, RentedVerb, Reply, Verb};
use hostler_model::{
    Account, Actor, AliasKey, Code, Contract, Liveness, Money, NodeFacts, NodeId, Policy, PoolId,
    Resources, Standing,
};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::about::{About, Own};
use super::answer::{Answer, No};
use super::body::{Fields, WORD};
use super::who::{Agent, Asker};
use super::{Spot, show};

/// The on-demand price that is assumed where no agent has reported one, in dollars.
const ASSUMED_PRICE: f64 = 0.1;
/// Most bytes of the agent's own word, escaped as it stands in a key of the store.
const LOGICAL_BYTES: usize = 400;

/// A registration that was read.
struct Registration {
    logical: String,
    hostname: String,
    version: String,
    addresses: Vec<String>,
    machine: MachineReport,
}

/// Registers an agent, or the same agent again on whatever machine it is now.
pub(super) async fn register(State(spot): State<Spot>, headers: HeaderMap, body: Fields) -> Answer {
    let account = spot.client(&headers, &body)?;
    let registration = Registration::read(&body)?;
    let identity = identity(&account, &registration.logical);
    let name = if registration.hostname.is_empty() {
        registration.logical.clone()
    } else {
        registration.hostname.clone()
    };
    let arrival = registration.arrival(&spot, &account, (identity.clone(), name.clone()));
    let actor = Actor::Node(name.clone());
    let verb = Verb::Rent(Box::new(arrival));
    match spot.control.submit(actor, verb).await {
        Ok(Reply::Node { id, .. }) => {
            spot.control.poll_beat(id, None).await?;
            tracing::info!(node = %id, name, contract = "spot", "node joined");
            registered(&spot, &account, id, None)
        }
        // A deleted agent, or a machine that the agent has left, is told to do nothing.
        Err(refusal) if matches!(refusal.code, Code::NodeGone | Code::StaleReport) => {
            let node = spot.control.view().node_by_alias(&identity).map(|it| it.id);
            let id = node.ok_or_else(No::no_agent)?;
            tracing::info!(node = %id, name, contract = "spot", why = %refusal, "node told to rest");
            registered(&spot, &account, id, Some(Policy::OFF))
        }
        Ok(other) => Err(unexpected(&other)),
        Err(refusal) => Err(refusal.into()),
    }
}

fn registered(spot: &Spot, account: &Account, id: NodeId, policy: Option<Policy>) -> Answer {
    let rental = spot.control.view().rental(id).cloned();
    let rental = rental.ok_or_else(No::no_agent)?;
    Ok(Json(json!({
        "agent_id": id.to_string(),
        "client_id": account.id.to_string(),
        "config": show::config(&rental, policy.unwrap_or(rental.policy)),
    })))
}

pub(super) fn unexpected(reply: &Reply) -> No {
    tracing::error!(?reply, "the fleet answered otherwise than expected");
    No::new(
        http::StatusCode::INTERNAL_SERVER_ERROR,
        "the server has a bug here",
    )
}

fn identity(account: &Account, logical: &str) -> AliasKey {
    AliasKey {
        contract: Contract::Spot,
        scope: format!("agent/{}", account.id),
        foreign: logical.to_owned(),
    }
}

impl Registration {
    fn read(body: &Fields) -> Result<Self, No> {
        let mut found: BTreeMap<&str, String> = BTreeMap::new();
        let mut word = |key: &'static str, most: usize, is_needed: bool| {
            let word = body.word(key).unwrap_or_else(|_| {
                found.insert(
                    key,
                    format!("a text of at most {WORD} characters is expected"),
                );
                None
            });
            if word.is_none() && is_needed {
                found
                    .entry(key)
                    .or_insert_with(|| "a value is required".to_owned());
            }
            if word.as_ref().is_some_and(|it| it.chars().count() > most) {
                found.insert(key, format!("longer than {most} characters"));
            }
            word.unwrap_or_default()
        };
        let logical = word("logical_agent_id", WORD, true);
        let instance = word("instance_id", 128, true);
        let kind = word("instance_type", 64, true);
        let (region, zone) = (word("region", 64, true), word("az", 64, true));
        let (hostname, image) = (word("hostname", WORD, false), word("ami_id", WORD, false));
        let version = word("agent_version", 32, false);
        let addresses = [word("private_ip", 45, false), word("public_ip", 45, false)];
        let mode = word("mode", 16, false);
        let market = super::body::market(&mode);
        if !mode.is_empty() && market.is_none() {
            found.insert(
                "mode",
                "one of spot, ondemand, unknown is expected".to_owned(),
            );
        }
        if escaped(&logical) > LOGICAL_BYTES {
            found.insert("logical_agent_id", "too long".to_owned());
        }
        if !found.is_empty() {
            let details: Map<String, Value> = found
                .into_iter()
                .map(|(key, finding)| (key.to_owned(), json!([finding])))
                .collect();
            return Err(No::bad("Validation failed").with("details", details));
        }
        let told = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            logical,
            hostname,
            version,
            addresses: addresses.into_iter().filter_map(told).collect(),
            machine: MachineReport {
                id: told(instance),
                pool: PoolId::of(&kind, &zone),
                instance_type: told(kind),
                region: told(region),
                zone: told(zone),
                market: Some(market.unwrap_or_default()),
                image: told(image),
                baseline: None,
            },
        })
    }

    fn arrival(
        self,
        spot: &Spot,
        account: &Account,
        (identity, name): (AliasKey, String),
    ) -> Arrival {
        let mut machine = self.machine;
        if machine.market != Some(hostler_model::Market::Spot) {
            machine.pool = None;
        }
        machine.baseline = on_demand(spot, &machine).or_else(|| Money::from_dollars(ASSUMED_PRICE));
        Arrival {
            account: account.id,
            hello: NodeAnnouncement {
                key: None,
                introduction: Default::default(),
                identity,
                contract: Contract::Spot,
                name,
                facts: NodeFacts {
                    hostname: self.hostname,
                    addresses: self.addresses,
                    agent_version: self.version,
                    ..NodeFacts::default()
                },
                capacity: Resources::ZERO,
                labels: BTreeMap::new(),
                instance: None,
            },
            machine,
        }
    }
}

/// The newest on-demand price of that kind of machine in its region.
fn on_demand(spot: &Spot, machine: &MachineReport) -> Option<Money> {
    let (kind, region) = (machine.instance_type.as_ref()?, machine.region.as_ref()?);
    let view = spot.control.view();
    let priced = view
        .pools_of(kind, region)
        .filter(|it| it.on_demand.is_some());
    priced.max_by_key(|pool| pool.seen_at)?.on_demand
}

/// The length of the text once what could be mistaken for structure is escaped.
fn escaped(text: &str) -> usize {
    let size = |byte: u8| {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if is_plain { 1 } else { 3 }
    };
    text.bytes().map(size).sum()
}

/// A beat. What it says of the machine is written down only if it is new.
pub(super) async fn heartbeat(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let report = MachineReport {
        id: body.word("instance_id")?,
        instance_type: body.word("instance_type")?,
        zone: body.word("az")?,
        market: body.market("mode"),
        ..MachineReport::default()
    };
    let success = Ok(Json(json!({"success": true})));
    // A machine that was left says nothing of the node any more, whatever its agent believes.
    let is_other = body
        .word("instance_status")?
        .is_some_and(|word| word != "running_primary");
    if is_other
        || report
            .id
            .as_deref()
            .is_some_and(|id| !agent.rental.may_speak(id))
    {
        return success;
    }
    let word = body.word("status")?.unwrap_or_default().to_lowercase();
    if word == "offline" {
        if !matches!(agent.node.liveness, Liveness::Lost { .. }) {
            let verb = Verb::Silent { node: agent.id() };
            spot.control.farewell(agent.id(), verb).await?;
        }
        return success;
    }
    spot.control.poll_beat(agent.id(), None).await?;
    if report.is_news(&agent.rental) {
        moved(&spot, &agent, report).await?;
    }
    let standing = match word.as_str() {
        "switching" => Standing::Switching,
        "error" => Standing::Failing,
        "disabled" => Standing::Disabled,
        _ => Standing::Running,
    };
    if standing != agent.rental.standing {
        let verb = RentedVerb::Stands(standing);
        spot.rented(agent.actor(), &agent, verb).await?;
    }
    success
}

/// The agent is on that machine, unless another beat has said meanwhile that it has left it.
async fn moved(spot: &Spot, agent: &Agent, report: MachineReport) -> Result<(), No> {
    let moved = spot.rented(agent.actor(), agent, RentedVerb::Moved(report));
    match moved.await {
        Err(refusal) if refusal.code != Code::StaleReport => Err(refusal.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(super) async fn config(Own(about): Own) -> Answer {
    let About { agent, .. } = about;
    let rental = &agent.rental;
    Ok(Json(show::config(rental, rental.policy)))
}

/// The agent says that its machine ends. A machine that was left may end without a word about the agent.
pub(super) async fn termination(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let success = Ok(Json(json!({"success": true})));
    let machine = body.word("instance_id")?;
    if machine.is_some_and(|machine| !agent.rental.may_speak(&machine)) {
        return success;
    }
    let reason = body.prose("reason").unwrap_or_else(|| "Unknown".to_owned());
    let verb = Verb::Rented {
        node: agent.id(),
        verb: Box::new(RentedVerb::Ends { reason }),
    };
    spot.control.farewell(agent.id(), verb).await?;
    success
}

/// One agent. A later agent takes 404 here, after beats that failed, as the word that it was deleted.
pub(super) async fn show(State(spot): State<Spot>, Path(id): Path<String>) -> Answer {
    let agent = spot.agent(&id)?;
    Ok(Json(show::agent(&spot, &agent)))
}

/// Every agent that is not deleted, the last heard first; of one client, for whose token is good for that one alone.
pub(super) async fn list(State(spot): State<Spot>, Asker(who): Asker) -> Json<Value> {
    let agents = match who.account() {
        Some(account) => spot.agents_of(account),
        None => spot.agents_ever(),
    };
    Json(present_rows(&spot, agents))
}

/// The agents that are not deleted, the last heard first.
pub(super) fn present_rows(spot: &Spot, agents: Vec<Agent>) -> Value {
    let mut present: Vec<_> = agents
        .into_iter()
        .filter(|agent| !agent.node.is_gone())
        .map(|agent| (show::heard(&spot.control, &agent), agent))
        .collect();
    present.sort_by_key(|(heard, agent)| (std::cmp::Reverse(*heard), agent.id()));
    let rows = present.iter().map(|(_, agent)| show::agent(spot, agent));
    rows.collect()
}

//! Nouns in the contract's keys. Agents speak snake_case, the dashboard camelCase; moments have no zone.

use hostler_control::Control;
use hostler_model::{
    Account, Liveness, Machine, Market, Money, Node, Policy, Pool, Rental, Role, Standing,
    Timestamp,
};
use serde_json::{Value, json};

use super::Spot;
use super::who::Agent;

/// What the dashboard shows where no waiting time is known, in minutes.
const WAIT_UNKNOWN: u32 = 30;

/// A moment in UTC without a zone.
pub(super) fn moment(at: Timestamp) -> String {
    at.to_string().trim_end_matches('Z').to_owned()
}

pub(super) fn moment_or_null(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| moment(at).into())
}

pub(super) fn money(amount: Option<Money>) -> Value {
    amount.map_or(Value::Null, |amount| amount.as_dollars().into())
}

pub(super) const fn market(market: Market) -> &'static str {
    match market {
        Market::Spot => "spot",
        Market::OnDemand => "ondemand",
        Market::Unknown => "unknown",
    }
}

/// The contract's word for how an agent stands.
pub(super) const fn status(node: &Node, rental: &Rental) -> &'static str {
    if node.is_gone() {
        return "deleted";
    }
    match (node.liveness, rental.standing) {
        (Liveness::Lost { .. }, _) => "offline",
        (_, Standing::Running) => "online",
        (_, Standing::Switching) => "switching",
        (_, Standing::Failing) => "error",
        (_, Standing::Disabled) => "disabled",
    }
}

pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "running_primary",
        Role::Replica => "running_replica",
        Role::Left => "zombie",
        Role::Ended => "terminated",
    }
}

/// The machine to show: the one that the node is on, else the last one.
pub(super) fn machine(rental: &Rental) -> Option<&Machine> {
    rental.primary().or_else(|| rental.machines.last())
}

/// The settings as agents read them.
pub(super) fn config(rental: &Rental, policy: Policy) -> Value {
    let bounds = rental.bounds;
    let thousandths = |permille: u32| f64::from(permille) / 1000.0;
    json!({
        "enabled": policy.enabled,
        "auto_switch_enabled": policy.auto_switch,
        "auto_terminate_enabled": policy.auto_terminate,
        "terminate_wait_seconds": policy.terminate_wait_seconds,
        "replica_enabled": policy.replica,
        "replica_count": policy.replica_count,
        "manual_replica_enabled": policy.manual_replica,
        "min_savings_percent": f64::from(bounds.least_saving_permille) / 10.0,
        "risk_threshold": thousandths(bounds.most_risk_permille),
        "max_switches_per_week": bounds.switches_per_week,
        "min_pool_duration_hours": bounds.hours_in_pool,
    })
}

/// When the agent was last heard; without a word since this server began, when its record last changed.
pub(super) fn heard(control: &Control, agent: &Agent) -> Timestamp {
    let live = control.live(agent.id()).filter(|live| live.beats > 0);
    match (live, agent.node.gone_at, agent.node.liveness) {
        (Some(live), ..) => live.last_seen,
        (None, Some(gone), _) => gone,
        (None, None, Liveness::Lost { since }) => since,
        (None, None, _) => agent.rental.updated_at,
    }
}

/// A row of the lists of agents.
pub(super) fn agent(spot: &Spot, agent: &Agent) -> Value {
    let (node, rental) = (&agent.node, &agent.rental);
    let policy = rental.policy;
    let shown = machine(rental);
    let text = |of: fn(&Machine) -> &String| shown.map_or("", |it| of(it).as_str());
    let wait = policy.terminate_wait_seconds;
    let active = rental.machines.iter().filter(|it| it.is_active());
    json!({
        "id": node.id.to_string(),
        "logicalAgentId": rental.logical,
        "hostname": node.facts.hostname,
        "instanceId": text(|it| &it.id),
        "instanceType": text(|it| &it.instance_type),
        "region": text(|it| &it.region),
        "az": text(|it| &it.zone),
        "currentMode": market(shown.map_or(Market::Unknown, |it| it.market)),
        "currentPoolId": shown.and_then(|it| it.pool.as_ref()).map(|it| it.as_str()),
        "status": status(node, rental),
        "lastHeartbeat": moment(heard(&spot.control, agent)),
        "instanceCount": active.count(),
        "enabled": policy.enabled,
        "autoSwitchEnabled": policy.auto_switch,
        "autoTerminateEnabled": policy.auto_terminate,
        "manualReplicaEnabled": policy.manual_replica,
        "terminateWaitMinutes": if wait == 0 { WAIT_UNKNOWN } else { wait / 60 },
        "agentVersion": node.facts.agent_version,
        "configVersion": rental.version,
    })
}

/// A row of the history of agents.
pub(super) fn past_agent(spot: &Spot, agent: &Agent) -> Value {
    let mut row = self::agent(spot, agent);
    let (node, rental) = (&agent.node, &agent.rental);
    row["createdAt"] = moment(node.joined_at).into();
    row["updatedAt"] = moment(rental.updated_at.max(node.gone_at.unwrap_or_default())).into();
    row["installedAt"] = moment(rental.installed_at).into();
    row["terminatedAt"] = moment_or_null(node.gone_at.or(rental.ended_at));
    row
}

/// A client with its figures.
pub(super) fn client(spot: &Spot, account: &Account) -> Value {
    let agents = spot.agents_of(account.id);
    let present = || agents.iter().filter(|agent| !agent.node.is_gone());
    let online = present().filter(|it| status(&it.node, &it.rental) == "online");
    let machines = present().flat_map(|it| it.rental.machines.iter());
    let last = present().map(|agent| heard(&spot.control, agent)).max();
    let is_active = account.status == hostler_model::AccountStatus::Active;
    json!({
        "id": account.id.to_string(),
        "name": account.name,
        "email": account.email,
        "status": if is_active { "active" } else { "inactive" },
        "agentsOnline": online.count(),
        "agentsTotal": present().count(),
        "instances": machines.filter(|machine| machine.is_active()).count(),
        "totalSavings": account.savings.total.as_dollars(),
        "lastSync": moment_or_null(last),
        "createdAt": moment(account.created_at),
    })
}

/// A pool, named in short.
pub(super) fn pool(pool: &Pool) -> Value {
    json!({
        "id": pool.id.as_str(),
        "name": pool.title(),
        "instance_type": pool.instance_type,
        "region": pool.region,
        "az": pool.zone,
    })
}

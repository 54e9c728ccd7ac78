//! Registration: what an agent says of its machine becomes an announcement. What it said is kept beside, in its
//! own words; the address to dial is read from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hostler_control::fleet::{Expect, NodeAnnouncement, Reply, Verb};
use hostler_model::spec::{Kind, ManagedVolume};
use hostler_model::{
    Actor, Bytes, Code, Contract, Disk, MilliCpu, Node, NodeFacts, NodeId, Refusal, Resources,
    RuntimeFact,
};
use hostler_wire::persys::control;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::{Door, words};

/// Most bytes of an id; it becomes part of a key of the store.
pub(super) const ID_BYTES: usize = 253;
/// The label that tells which scheduler a node belongs to.
const SHARD: (&str, &str) = ("scheduler_shard", "genesis");
/// The kinds that the contract knows.
const KINDS: [Kind; 3] = [Kind::Container, Kind::Compose, Kind::Vm];

type Labels = BTreeMap<String, String>;

/// What an agent said when it registered, kept with its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    pub cluster_id: String,
    pub grpc_endpoint: String,
    pub agent_version: String,
    pub supported_workload_types: Vec<String>,
    pub supported_storage_drivers: Vec<String>,
    pub storage_pools: Vec<Pool>,
    /// With those that the door adds; so that it is known later which of the node's are its agent's.
    pub labels: Labels,
}

/// A storage pool as the agent named it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    pub name: String,
    pub r#type: String,
    pub total_gb: i64,
}

/// Where an agent can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
}

/// Takes a registration.
pub(super) async fn register(
    door: &Door,
    request: control::RegisterNodeRequest,
) -> Result<control::RegisterNodeResponse, Status> {
    let endpoint = checked(&request)?;
    let announcement = match announcement(request, &endpoint) {
        Ok(announcement) => announcement,
        Err(reason) => return Ok(refused(reason)),
    };
    match admit(door, announcement).await {
        Ok(_) => {
            let rules = door.rules();
            Ok(control::RegisterNodeResponse {
                accepted: true,
                reason: "registered".to_owned(),
                heartbeat_interval_seconds: i32::try_from(rules.beat.as_secs().max(1))
                    .unwrap_or(i32::MAX),
                lease_expires_at: Some(words::stamp(door.now().plus(rules.window))),
            })
        }
        Err(refusal) => Ok(refused(reason(&refusal))),
    }
}

/// What makes a registration an error of the call, not a refusal.
pub(super) fn checked(request: &control::RegisterNodeRequest) -> Result<Endpoint, Status> {
    if request.node_id.is_empty() {
        return Err(Status::invalid_argument("node_id is required"));
    }
    if request.node_id.len() > ID_BYTES {
        return Err(Status::invalid_argument(format!(
            "node_id has more than {ID_BYTES} bytes"
        )));
    }
    if request.grpc_endpoint.trim().is_empty() {
        return Err(Status::invalid_argument("grpc_endpoint is required"));
    }
    Endpoint::parse(&request.grpc_endpoint).ok_or_else(|| {
        let endpoint = &request.grpc_endpoint;
        Status::invalid_argument(format!("grpc_endpoint `{endpoint}` is no host:port"))
    })
}

/// Makes the node known and alive; who speaks to it is told to look.
pub(super) async fn admit(door: &Door, announcement: NodeAnnouncement) -> Result<NodeId, Refusal> {
    follow_labels(door, &announcement).await?;
    let id = announcement.identity.foreign.clone();
    let verb = Verb::Announce(Box::new(announcement));
    let reply = door.control.submit(Actor::Node(id.clone()), verb).await?;
    let Reply::Node { id: node, .. } = reply else {
        tracing::error!(?reply, "an announcement was answered with something else");
        return Err(Refusal::new(
            Code::Internal,
            "the announcement was not understood",
            "look at the server's log",
        ));
    };
    door.control.linked_beat(node, None).await?;
    tracing::info!(%node, name = %id, contract = "persys", "node joined");
    door.look(node);
    Ok(node)
}

/// Brings the labels of a node that is known in step with what its agent says now. What somebody else has set, or
/// taken away, stays so. Before the announcement, which puts on record what was said.
async fn follow_labels(door: &Door, announcement: &NodeAnnouncement) -> Result<(), Refusal> {
    let Some(node) = door.node(&announcement.identity.foreign) else {
        return Ok(());
    };
    let labels = news(&Said::of(&node).labels, &node.labels, &announcement.labels);
    if labels.is_empty() {
        return Ok(());
    }
    let verb = Verb::Label {
        node: node.id,
        labels,
        expect: Expect::Any,
    };
    let actor = Actor::Node(node.name.clone());
    match door.control.submit(actor, verb).await {
        // A word that is no label keeps no node out.
        Err(refusal) if refusal.code == Code::NameInvalid => {
            tracing::warn!(node = %node.id, %refusal, "labels not taken over");
            Ok(())
        }
        submitted => submitted.map(|_| ()),
    }
}

/// Which labels the agent changes: those that still are as it said `before`.
fn news(before: &Labels, has: &Labels, now: &Labels) -> BTreeMap<String, Option<String>> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter()
        .filter(|key| has.get(*key) == before.get(*key) && has.get(*key) != now.get(*key))
        .map(|key| (key.clone(), now.get(key).cloned()))
        .collect()
}

/// The announcement, or why the agent is not accepted.
pub(super) fn announcement(
    request: control::RegisterNodeRequest,
    endpoint: &Endpoint,
) -> Result<NodeAnnouncement, String> {
    let has = request.capabilities.unwrap_or_default();
    let positive = |amount: i64| u64::try_from(amount).ok().filter(|it| *it > 0);
    let cpu = positive(has.cpu_total_millicores)
        .ok_or("capabilities.cpu_total_millicores must be greater than 0")?;
    let memory = positive(has.memory_total_mb)
        .ok_or("capabilities.memory_total_mb must be greater than 0")?;
    let pools = has.storage_pools.iter();
    let disk = pools.filter_map(|pool| positive(pool.total_gb));
    let capacity = Resources {
        cpu: MilliCpu(cpu),
        memory: mebibytes(memory),
        disk: gibibytes(disk.fold(0, u64::saturating_add)),
    };
    let drivers = drivers(&has.supported_storage_drivers);
    let mut labels = request.labels;
    labels.insert(SHARD.0.to_owned(), SHARD.1.to_owned());
    let storage = drivers.iter().map(|driver| ManagedVolume::label(driver));
    labels.extend(storage.map(|label| (label, "true".to_owned())));
    let kinds = kinds(&has.supported_workload_types);
    let said = Said {
        cluster_id: request.cluster_id,
        grpc_endpoint: endpoint.to_string(),
        agent_version: request.agent_version,
        supported_workload_types: kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        supported_storage_drivers: drivers,
        storage_pools: has.storage_pools.into_iter().map(Pool::from).collect(),
        labels: labels.clone(),
    };
    Ok(NodeAnnouncement {
        key: None,
        introduction: Default::default(),
        identity: words::node_key(&request.node_id),
        contract: Contract::Persys,
        facts: facts(&request.node_id, &said, &kinds, capacity, endpoint),
        name: request.node_id,
        capacity,
        labels,
        instance: None,
    })
}

fn facts(
    id: &str,
    said: &Said,
    kinds: &[Kind],
    capacity: Resources,
    endpoint: &Endpoint,
) -> NodeFacts {
    let runtime = |kind: &Kind| RuntimeFact {
        kind: *kind,
        available: true,
        version: String::new(),
        note: String::new(),
    };
    let disk = |pool: &Pool| Disk {
        mount: pool.name.clone(),
        total: gibibytes(u64::try_from(pool.total_gb).unwrap_or_default()),
        free: Bytes(0),
    };
    NodeFacts {
        hostname: id.to_owned(),
        cpu_count: u32::try_from(capacity.cpu.0 / 1_000).unwrap_or(u32::MAX),
        memory: capacity.memory,
        disks: said.storage_pools.iter().map(disk).collect(),
        addresses: vec![endpoint.host.clone()],
        agent_version: said.agent_version.clone(),
        runtimes: kinds.iter().map(runtime).collect(),
        foreign: serde_json::to_string(said).ok(),
        ..NodeFacts::default()
    }
}

/// Without a list an agent runs everything but machines.
fn kinds(words: &[String]) -> Vec<Kind> {
    let named: BTreeSet<Kind> = words.iter().filter_map(|word| words::kind(word)).collect();
    let is_silent = words.iter().all(|word| word.trim().is_empty());
    let has = |kind: &Kind| named.contains(kind) || (is_silent && *kind != Kind::Vm);
    KINDS.into_iter().filter(has).collect()
}

/// `local` first, each once.
fn drivers(words: &[String]) -> Vec<String> {
    let mut drivers = vec![ManagedVolume::LOCAL.to_owned()];
    for driver in words.iter().filter_map(|word| words::storage_driver(word)) {
        if !drivers.contains(&driver) {
            drivers.push(driver);
        }
    }
    drivers
}

fn refused(reason: String) -> control::RegisterNodeResponse {
    tracing::info!(reason, contract = "persys", "registration not accepted");
    control::RegisterNodeResponse {
        accepted: false,
        reason,
        heartbeat_interval_seconds: 0,
        lease_expires_at: None,
    }
}

/// Why an agent is not accepted; a control plane that cannot decide says so in the contract's word.
pub(super) fn reason(refusal: &Refusal) -> String {
    match refusal.code {
        Code::NotLeader | Code::StoreUnavailable | Code::Overloaded => {
            format!("scheduler is degraded: {}", refusal.sentence)
        }
        _ => refusal.sentence.clone(),
    }
}

pub(super) const fn mebibytes(count: u64) -> Bytes {
    Bytes(count.saturating_mul(1 << 20))
}

pub(super) const fn gibibytes(count: u64) -> Bytes {
    Bytes(count.saturating_mul(1 << 30))
}

impl Said {
    /// What the node's agent said, as far as it can be read.
    pub(super) fn of(node: &Node) -> Self {
        let text = node.facts.foreign.as_deref();
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

impl From<control::StoragePool> for Pool {
    fn from(pool: control::StoragePool) -> Self {
        Self {
            name: pool.name,
            r#type: pool.r#type,
            total_gb: pool.total_gb,
        }
    }
}

impl Endpoint {
    /// What stands behind the last colon is the port; without a host it is this machine.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_plain = |c: char| c.is_alphanumeric() || "-._:".contains(c);
        if !host.chars().all(is_plain) {
            return None;
        }
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let endpoint = Self {
            host: host.to_owned(),
            port,
        };
        // What no client can dial is told to whoever registers it, who can do something about it.
        let can_be_dialled = endpoint.url().parse::<http::Uri>().is_ok();
        can_be_dialled.then_some(endpoint)
    }

    /// The address as a client dials it.
    pub(super) fn url(&self) -> String {
        format!("http://{self}")
    }

    /// Host and port; the host without brackets.
    pub(super) fn parts(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_behind_the_last_colon_is_the_port() {
        for (text, meant) in [
            ("10.0.0.5:50051", Some("10.0.0.5:50051")),
            (":50051", Some("127.0.0.1:50051")),
            ("[fe80::1]:7", Some("[fe80::1]:7")),
            ("fe80::1:7", Some("[fe80::1]:7")),
            (" box.lan:7 ", Some("box.lan:7")),
            ("box", None),
            ("box:", None),
            ("box:0", None),
            ("box:70000", None),
            ("http://box:7", None),
            ("a b:7", None),
            ("user@box:7", None),
            ("bücher.lan:7", None),
            ("fe80::1%eth0:7", None),
        ] {
            let read = Endpoint::parse(text).map(|it| it.to_string());
            assert_eq!(read.as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn an_agent_changes_its_own_labels_and_nobody_elses() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let before = labels(&[
            ("moved", "1"),
            ("left", "1"),
            ("set", "1"),
            ("gone", "1"),
            ("same", "1"),
        ]);
        let has = labels(&[
            ("moved", "1"),
            ("left", "1"),
            ("set", "2"),
            ("same", "1"),
            ("own", "1"),
        ]);
        let now = labels(&[
            ("moved", "3"),
            ("set", "3"),
            ("gone", "3"),
            ("same", "1"),
            ("own", "3"),
            ("new", "3"),
        ]);
        let news: Vec<String> = news(&before, &has, &now)
            .into_iter()
            .map(|(key, value)| format!("{key}={}", value.unwrap_or_default()))
            .collect();
        assert_eq!(news, ["left=", "moved=3", "new=3"]);
    }

    #[test]
    fn a_control_plane_that_cannot_decide_says_that_it_is_degraded() {
        let of = |code| reason(&Refusal::new(code, "the store is away", "wait"));
        assert_eq!(
            of(Code::StoreUnavailable),
            "scheduler is degraded: the store is away"
        );
        assert_eq!(of(Code::NodeGone), "the store is away");
    }

    #[test]
    fn types_are_normalised_and_an_agent_that_names_none_runs_all_but_machines() {
        let words = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            kinds(&words(&["docker-container", "CONTAINER", "vm", "pod"])),
            [Kind::Container, Kind::Vm]
        );
        assert_eq!(kinds(&[]), [Kind::Container, Kind::Compose]);
        assert_eq!(
            drivers(&words(&["ceph_rbd", "local", "NFS"])),
            ["local", "ceph-rbd", "nfs"]
        );
    }
}

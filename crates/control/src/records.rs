//! How records lie in the store: one key each, values in JSON.
//!
//! ```text
//! fleet                                  {id, epoch}
//! nodes/<id>                             Node
//! workloads/<id>                         Workload
//! revisions/<workload>/<number:08>       Revision
//! assignments/<id>                       Assignment
//! commands/<id>                          Command
//! aliases/<contract>/<scope>/<foreign>   Alias; scope and foreign id are percent-escaped
//! tokens/<id>                            ApiToken
//! join-tokens/<id>                       JoinToken
//! accounts/<id>                          Account
//! rentals/<node>                         Rental
//! pools/<id>                             Pool
//! quotes/<pool>/<place:04>               Quote; the ring of its pool
//! switches/<id>                          Switch
//! secrets/<name>                         Secret
//! events/<sequence mod capacity:08>      Event
//! ```
//!
//! Nothing here is owned. What can fail: a record that cannot be read, named by its key.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hostler_fleet::Change;
use hostler_model::{AliasKey, FleetId, PoolId, StoreEpoch};
use hostler_store::{Entry, KEY_BYTES, Key};
use serde::{Deserialize, Serialize};

/// The folders of keys, in the order in which they are loaded.
pub(crate) const PREFIXES: [&str; 16] = [
    "fleet",
    "nodes/",
    "workloads/",
    "revisions/",
    "aliases/",
    "assignments/",
    "commands/",
    "tokens/",
    "join-tokens/",
    "accounts/",
    "rentals/",
    "pools/",
    "quotes/",
    "switches/",
    "secrets/",
    "events/",
];

/// More than any assignment without host ports takes, key included.
const ASSIGNMENT_BYTES: usize = 1_024;
/// More than one host port takes.
const PORT_BYTES: usize = 64;
/// More than a key of ids and numbers takes.
const KEY_ROOM: usize = 96;
/// More than a key with the name of a pool takes.
const POOL_ROOM: usize = PoolId::BYTES + 32;

#[derive(Serialize, Deserialize)]
struct FleetRecord {
    id: FleetId,
    epoch: StoreEpoch,
}

/// Why a record cannot be read.
pub(crate) type Unreadable = Box<dyn std::error::Error + Send + Sync>;

/// Where a change is written.
pub(crate) fn key(change: &Change, event_capacity: u64) -> Key {
    match change {
        Change::PutFleet { .. } => "fleet".to_owned(),
        Change::PutNode(node) => format!("nodes/{}", node.id),
        Change::RemoveNode(id) => format!("nodes/{id}"),
        Change::PutWorkload(workload) => format!("workloads/{}", workload.id),
        Change::RemoveWorkload(id) => format!("workloads/{id}"),
        Change::PutRevision(revision) => {
            format!("revisions/{}/{:08}", revision.workload, revision.number)
        }
        Change::RemoveRevision(workload, number) => format!("revisions/{workload}/{number:08}"),
        Change::PutAssignment(assignment) => format!("assignments/{}", assignment.id),
        Change::RemoveAssignment(id) => format!("assignments/{id}"),
        Change::PutCommand(command) => format!("commands/{}", command.id),
        Change::RemoveCommand(id) => format!("commands/{id}"),
        Change::PutAlias(alias) => alias_key(&alias.key),
        Change::RemoveAlias(key) => alias_key(key),
        Change::PutToken(token) => format!("tokens/{}", token.id),
        Change::RemoveToken(id) => format!("tokens/{id}"),
        Change::PutJoinToken(token) => format!("join-tokens/{}", token.id),
        Change::RemoveJoinToken(id) => format!("join-tokens/{id}"),
        Change::PutAccount(account) => format!("accounts/{}", account.id),
        Change::RemoveAccount(id) => format!("accounts/{id}"),
        Change::PutRental(rental) => format!("rentals/{}", rental.node),
        Change::RemoveRental(node) => format!("rentals/{node}"),
        Change::PutPool(pool) => format!("pools/{}", pool.id),
        Change::RemovePool(id) => format!("pools/{id}"),
        Change::PutQuote(quote) => quote_key(&quote.pool, quote.slot()),
        Change::RemoveQuote(pool, slot) => quote_key(pool, *slot),
        Change::PutSwitch(switch) => format!("switches/{}", switch.id),
        Change::RemoveSwitch(id) => format!("switches/{id}"),
        Change::PutSecret(secret) => format!("secrets/{}", secret.name),
        Change::RemoveSecret(name) => format!("secrets/{name}"),
        Change::Append(event) => format!("events/{:08}", event.sequence % event_capacity.max(1)),
    }
}

/// What the change writes under its key; `None` removes it.
pub(crate) fn value(change: &Change) -> Result<Option<Bytes>, serde_json::Error> {
    match change {
        Change::PutFleet { id, epoch } => json(&FleetRecord {
            id: *id,
            epoch: *epoch,
        }),
        Change::PutNode(node) => json(node),
        Change::PutWorkload(workload) => json(workload),
        Change::PutRevision(revision) => json(revision),
        Change::PutAssignment(assignment) => json(assignment),
        Change::PutCommand(command) => json(command),
        Change::PutAlias(alias) => json(alias),
        Change::PutToken(token) => json(token),
        Change::PutJoinToken(token) => json(token),
        Change::PutAccount(account) => json(account),
        Change::PutRental(rental) => json(rental),
        Change::PutPool(pool) => json(pool),
        Change::PutQuote(quote) => json(quote),
        Change::PutSwitch(switch) => json(switch),
        Change::PutSecret(secret) => json(secret),
        Change::Append(event) => json(event),
        Change::RemoveNode(_)
        | Change::RemoveWorkload(_)
        | Change::RemoveRevision(..)
        | Change::RemoveAssignment(_)
        | Change::RemoveCommand(_)
        | Change::RemoveAlias(_)
        | Change::RemoveToken(_)
        | Change::RemoveJoinToken(_)
        | Change::RemoveAccount(_)
        | Change::RemoveRental(_)
        | Change::RemovePool(_)
        | Change::RemoveQuote(..)
        | Change::RemoveSwitch(_)
        | Change::RemoveSecret(_) => Ok(None),
    }
}

/// The record of an entry, as the change that put it there.
pub(crate) fn read(entry: &Entry) -> Result<Change, Unreadable> {
    let value = &entry.value[..];
    let folder = entry.key.split('/').next().unwrap_or_default();
    Ok(match folder {
        "fleet" => {
            let FleetRecord { id, epoch } = serde_json::from_slice(value)?;
            Change::PutFleet { id, epoch }
        }
        "nodes" => Change::PutNode(Arc::new(serde_json::from_slice(value)?)),
        "workloads" => Change::PutWorkload(Arc::new(serde_json::from_slice(value)?)),
        "revisions" => Change::PutRevision(Arc::new(serde_json::from_slice(value)?)),
        "assignments" => Change::PutAssignment(Arc::new(serde_json::from_slice(value)?)),
        "commands" => Change::PutCommand(Arc::new(serde_json::from_slice(value)?)),
        "aliases" => Change::PutAlias(Arc::new(serde_json::from_slice(value)?)),
        "tokens" => Change::PutToken(Arc::new(serde_json::from_slice(value)?)),
        "join-tokens" => Change::PutJoinToken(Arc::new(serde_json::from_slice(value)?)),
        "accounts" => Change::PutAccount(Arc::new(serde_json::from_slice(value)?)),
        "rentals" => Change::PutRental(Arc::new(serde_json::from_slice(value)?)),
        "pools" => Change::PutPool(Arc::new(serde_json::from_slice(value)?)),
        "quotes" => Change::PutQuote(Arc::new(serde_json::from_slice(value)?)),
        "switches" => Change::PutSwitch(Arc::new(serde_json::from_slice(value)?)),
        "secrets" => Change::PutSecret(Arc::new(serde_json::from_slice(value)?)),
        "events" => Change::Append(Arc::new(serde_json::from_slice(value)?)),
        _ => return Err("its kind is not known to this version".into()),
    })
}

/// At least the bytes that the change takes in a commit. Cheap for what comes in thousands; what is
/// large and rare is measured.
pub(crate) fn weight(change: &Change) -> usize {
    match change {
        Change::PutAssignment(assignment) => {
            ASSIGNMENT_BYTES + PORT_BYTES * assignment.claims.ports.len()
        }
        Change::PutFleet { .. } => KEY_ROOM * 2,
        Change::PutNode(node) => KEY_ROOM + measured(node),
        Change::PutWorkload(workload) => KEY_ROOM + measured(workload),
        Change::PutRevision(revision) => KEY_ROOM + measured(revision),
        Change::PutCommand(command) => KEY_ROOM + measured(command),
        Change::PutAlias(alias) => alias_key(&alias.key).len() + measured(alias),
        Change::PutToken(token) => KEY_ROOM + measured(token),
        Change::PutJoinToken(token) => KEY_ROOM + measured(token),
        Change::PutAccount(account) => KEY_ROOM + measured(account),
        Change::PutRental(rental) => KEY_ROOM + measured(rental),
        Change::PutPool(pool) => POOL_ROOM + measured(pool),
        Change::PutQuote(quote) => POOL_ROOM + measured(quote),
        Change::PutSwitch(switch) => KEY_ROOM + measured(switch),
        Change::PutSecret(secret) => KEY_ROOM + secret.name.len() + measured(secret),
        Change::Append(event) => KEY_ROOM + measured(event),
        Change::RemoveAlias(key) => alias_key(key).len(),
        Change::RemoveNode(_)
        | Change::RemoveWorkload(_)
        | Change::RemoveRevision(..)
        | Change::RemoveAssignment(_)
        | Change::RemoveCommand(_)
        | Change::RemoveToken(_)
        | Change::RemoveJoinToken(_)
        | Change::RemoveAccount(_)
        | Change::RemoveRental(_)
        | Change::RemoveSwitch(_) => KEY_ROOM,
        Change::RemoveSecret(name) => KEY_ROOM + name.len(),
        Change::RemovePool(_) | Change::RemoveQuote(..) => POOL_ROOM,
    }
}

/// Whether the change's key is short enough for every engine; only foreign ids can be too long.
pub(crate) fn is_key_short(change: &Change) -> bool {
    match change {
        Change::PutAlias(alias) => alias_key(&alias.key).len() <= KEY_BYTES,
        _ => true,
    }
}

fn quote_key(pool: &PoolId, slot: u64) -> Key {
    format!("quotes/{pool}/{slot:04}")
}

fn alias_key(key: &AliasKey) -> Key {
    let mut text = format!("aliases/{}/", key.contract.as_str());
    escape(&key.scope, &mut text);
    text.push('/');
    escape(&key.foreign, &mut text);
    text
}

/// Percent-escapes everything that could be mistaken for structure, so that two foreign ids never meet.
fn escape(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

fn json<T: Serialize>(record: &T) -> Result<Option<Bytes>, serde_json::Error> {
    serde_json::to_vec(record).map(|text| Some(Bytes::from(text)))
}

/// The length of the record's JSON, without keeping it.
fn measured<T: Serialize>(record: &T) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, record) {
        Ok(()) => count.0,
        // It will be refused when it is encoded.
        Err(_) => usize::MAX / 2,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hostler_model::spec::{Port, Protocol};
    use hostler_model::{
        Alias, AliasOwner, Assignment, AssignmentId, Bytes as Amount, Claims, Contract, Exit,
        Intent, MilliCpu, NodeId, Outcome, Resources, StopCause, Timestamp, WorkloadId,
    };

    use super::*;

    fn largest_assignment(ports: u16) -> Assignment {
        let late = Timestamp::from_millis(u64::MAX);
        let ports: BTreeSet<Port> = (0..ports)
            .map(|at| Port {
                number: u16::MAX - at,
                protocol: Protocol::Tcp,
            })
            .collect();
        let most = Resources {
            cpu: MilliCpu(u64::MAX),
            memory: Amount(u64::MAX),
            disk: Amount(u64::MAX),
        };
        Assignment {
            id: AssignmentId::mint(late, u128::MAX),
            workload: WorkloadId::mint(late, u128::MAX),
            slot: u32::MAX,
            node: NodeId::mint(late, u128::MAX),
            generation: u64::MAX,
            revision: u64::MAX,
            template: u64::MAX,
            restart: u64::MAX,
            intent: Intent::Stop {
                cause: StopCause::ScaledDown,
            },
            claims: Claims {
                resources: most,
                ports,
            },
            created_at: late,
            outcome: Some(Outcome {
                exit: Exit::Code(i32::MIN),
                at: late,
                runs: u32::MAX,
            }),
            fenced: false,
            trial: true,
        }
    }

    #[test]
    fn no_assignment_is_heavier_than_its_estimate() {
        for ports in [0, 1, 100] {
            let change = Change::PutAssignment(Arc::new(largest_assignment(ports)));
            let size = key(&change, 8).len() + value(&change).unwrap().unwrap().len();
            assert!(size <= weight(&change), "{ports} ports: {size}");
        }
    }

    #[test]
    fn foreign_ids_never_meet_and_read_back() {
        let alias = |scope: &str, foreign: &str| AliasKey {
            contract: Contract::Spot,
            scope: scope.to_owned(),
            foreign: foreign.to_owned(),
        };
        let keys = [
            alias("node", "a/b"),
            alias("node/a", "b"),
            alias("node", "a%2Fb"),
            alias("node", "ä"),
        ];
        let texts: BTreeSet<_> = keys.iter().map(alias_key).collect();
        assert_eq!(texts.len(), keys.len());
        assert!(
            texts
                .iter()
                .all(|text| text.is_ascii() && text.matches('/').count() == 3)
        );

        let node = NodeId::mint(Timestamp::from_millis(1), 1);
        let alias = Alias {
            key: keys[0].clone(),
            owner: AliasOwner::Node(node),
            created_at: Timestamp::from_millis(1),
        };
        let put = Change::PutAlias(Arc::new(alias));
        let value = value(&put).unwrap().unwrap();
        assert_eq!(
            read(&Entry {
                key: key(&put, 8),
                value,
                revision: 1
            })
            .unwrap(),
            put
        );
    }

    #[test]
    fn a_record_of_an_unknown_kind_is_not_read() {
        let entry = Entry {
            key: "lakes/x".to_owned(),
            value: Bytes::new(),
            revision: 1,
        };
        assert!(read(&entry).is_err());
    }
}

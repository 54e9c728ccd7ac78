//! Changes: what a decision does to the records. Each is a whole record put or removed, so that applying is
//! simple, applying twice is harmless, and each maps to one key of the store.

use std::sync::Arc;

use hostler_model::{
    Account, AccountId, Alias, AliasKey, ApiToken, Assignment, AssignmentId, Command, CommandId,
    Event, FleetId, JoinToken, JoinTokenId, Node, NodeId, Pool, PoolId, Quote, Rental, ReplicaId,
    Revision, Secret, StoreEpoch, Switch, SwitchId, TokenId, Workload, WorkloadId,
};

/// One record put or removed. Records are shared between the two views, never copied.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    PutFleet {
        id: FleetId,
        epoch: StoreEpoch,
    },
    PutNode(Arc<Node>),
    RemoveNode(NodeId),
    PutWorkload(Arc<Workload>),
    RemoveWorkload(WorkloadId),
    PutRevision(Arc<Revision>),
    RemoveRevision(WorkloadId, u64),
    PutAssignment(Arc<Assignment>),
    RemoveAssignment(AssignmentId),
    PutCommand(Arc<Command>),
    RemoveCommand(CommandId),
    PutAlias(Arc<Alias>),
    RemoveAlias(AliasKey),
    PutToken(Arc<ApiToken>),
    RemoveToken(TokenId),
    PutJoinToken(Arc<JoinToken>),
    RemoveJoinToken(JoinTokenId),
    PutAccount(Arc<Account>),
    RemoveAccount(AccountId),
    PutRental(Arc<Rental>),
    RemoveRental(NodeId),
    PutPool(Arc<Pool>),
    RemovePool(PoolId),
    /// Takes its place in its pool's ring.
    PutQuote(Arc<Quote>),
    /// Empties that place of the pool's ring.
    RemoveQuote(PoolId, u64),
    PutSwitch(Arc<Switch>),
    RemoveSwitch(SwitchId),
    PutSecret(Arc<Secret>),
    RemoveSecret(String),
    /// Appends to the bounded event log.
    Append(Arc<Event>),
}

/// What `decide` answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// To be applied and committed together. Empty means that the verb changes nothing: nothing is written.
    pub changes: Vec<Change>,
    pub reply: Reply,
}

/// What the caller is told once the changes are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Done,
    Fleet {
        id: FleetId,
        epoch: StoreEpoch,
    },
    Node {
        id: NodeId,
        revision: u64,
    },
    /// What became of each spec, in their order.
    Applied(Vec<Applied>),
    /// `changed` is false if it was so already.
    Workload {
        id: WorkloadId,
        revision: u64,
        changed: bool,
    },
    Command {
        id: CommandId,
    },
    Account {
        id: AccountId,
    },
    Secret {
        version: u64,
    },
    Replica {
        id: ReplicaId,
    },
    /// Rented machines, by the provider's ids.
    Machines(Vec<String>),
    /// How many copies `Settle` or records `Prune` touched; `more` asks for another round.
    Touched {
        count: usize,
        more: bool,
    },
}

/// What became of one spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub id: WorkloadId,
    pub name: String,
    pub revision: u64,
    /// False if the spec was applied already.
    pub changed: bool,
    pub created: bool,
}

impl Decision {
    /// Nothing changes.
    #[must_use]
    pub const fn nothing(reply: Reply) -> Self {
        Self {
            changes: Vec::new(),
            reply,
        }
    }
}

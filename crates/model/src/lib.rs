//! The nouns: plain data, units, ids and the codes of refusals and failures.
//!
//! Every other room speaks these words. Nothing here does I/O, reads a clock or knows a wire format;
//! values are made by constructors that refuse what makes no sense, so the rooms behind the doors need
//! not check again.

mod access;
mod account;
mod alias;
mod assignment;
mod command;
mod digest;
mod errand;
mod event;
mod failure;
mod id;
mod node;
mod page;
mod pool;
mod pressure;
mod quantity;
mod refusal;
mod rental;
mod rollout;
mod secret;
mod switch;
mod time;
mod workload;

pub mod spec;

pub use access::{AccessRole, ApiToken, JoinToken, KEY_SCOPE, key_alias};
pub use account::{Account, AccountStatus, Month, ReadMarks, Savings, Token};
pub use alias::{Alias, AliasKey, AliasOwner, Contract, Foreign};
pub use assignment::{
    Assignment, Claims, CrashLoop, Exit, Health, Intent, IntentItem, ObservedUnit, Outcome, Part,
    PartState, StopCause, UnitId, UnitState,
};
pub use command::{Command, CommandKind, CommandState, SwitchTarget};
pub use digest::{digest, unit_digest};
pub use errand::{Errand, ExecCommand, Task, TerminalSize};
pub use event::{Event, EventKind, Level, Subject};
pub use failure::{FailureCode, FailureReason};
pub use id::{
    AccountId, AssignmentId, CommandId, FleetId, JoinTokenId, NodeId, ParseIdError, ReplicaId,
    StoreEpoch, SwitchId, TokenId, WorkloadId,
};
pub use node::{
    Admission, Disk, Instance, Liveness, Market, Node, NodeFacts, NodeState, RuntimeFact,
    StorageFact, UnitUsage, Usage, is_node_name,
};
pub use page::page_of;
pub use pool::{Money, Pool, PoolId, Quote, QuoteSource};
pub use pressure::Pressure;
pub use quantity::{Bytes, MilliCpu, ParseQuantityError, Resources};
pub use refusal::{Code, Refusal};
pub use rental::{
    Bounds, Interruption, InterruptionAnswer, Machine, Policy, Rental, Replica, ReplicaKind,
    ReplicaStatus, Role, Signal, Standing, SyncStatus,
};
pub use rollout::{Base, FIRST_SPARE_SLOT, Rollout, Stage};
pub use secret::{Sealed, Secret};
pub use switch::{Switch, SwitchEnd, SwitchPrices, SwitchStamps};
pub use time::Timestamp;
pub use workload::{Actor, Desired, Revision, Workload};

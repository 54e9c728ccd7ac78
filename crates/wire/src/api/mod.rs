//! The bodies of the REST API under `/api/v1`: what doors write and clients read. `docs/routes.md` says which
//! route takes and gives which.
//!
//! - A moment is RFC 3339 text in UTC, but for [`Node::last_seen`], which keeps MIaaS's form.
//! - Readers ignore keys that they do not know. A word that they do not know reads as `Unknown`, so that an
//!   old client can list what a new server has; servers write it only where its own text says so.
//! - Lists are bare arrays. A `Link` header with `rel="next"` leads to the next page.

mod access;
mod apply;
mod assignment;
mod audit;
mod errand;
mod event;
mod job;
mod node;
mod problem;
mod secret;
mod status;
mod why;
mod workload;

pub use access::{
    AccessRole, Authority, BrowserSession, Door, DoorPort, IssuedJoinToken, IssuedToken, JoinToken,
    MiaasKeys, NewJoinToken, NewToken, RotateKeyQuery, Token, Whoami,
};
pub use apply::{
    Action, ApplyQuery, ApplyResult, Plan, PlannedChange, PlannedPlacement, PlannedWorkload,
};
pub use assignment::{
    Assignment, AssignmentFilter, AssignmentState, Claims, CrashLoop, Intent, Outcome, Part, Port,
    StateWord, UnitUsage,
};
pub use audit::{
    AuditActor, AuditGap, AuditLine, AuditOutcome, AuditPage, AuditQuery, AuditRecord,
};
pub use errand::{ErrandExit, ErrandWord, ExecQuery, FilesQuery, ForwardQuery, output};
pub use event::{Event, EventGap, EventQuery, Level, LogLine, LogQuery, LogStream, Subject};
pub use job::Job;
pub use node::{
    AdoptableQuery, Capabilities, Command, CommandProgress, CommandState, DiskFact, DrainState,
    GcWish, Instance, LabelPatch, Lease, Metrics, Node, NodeFacts, NodeFilter, NodeState,
    NodeStatus, Resources, RuntimeFact, StorageFact,
};
pub use problem::Problem;
pub use secret::{Rekeyed, Secret, SecretQuery, SecretSet};
pub use status::{BackupQuery, Check, Health, Live, Ready, SessionVersions, Version};
pub use why::{CopyGroup, NodeGroup, Reason, Why};
pub use workload::{
    Desired, Revision, RollbackQuery, Rollout, RolloutStage, Standing, WaitQuery, Workload,
    WorkloadStatus,
};

/// Names of the server-sent events. A comment at least every [`stream::KEEP_ALIVE_SECONDS`] keeps a stream
/// that has nothing to say alive.
pub mod stream {
    /// One [`Event`](super::Event); its id is the sequence number.
    pub const EVENT: &str = "event";
    /// An [`EventGap`](super::EventGap): events between the resume id and this place are forgotten.
    pub const GAP: &str = "gap";
    /// One [`LogLine`](super::LogLine).
    pub const LINE: &str = "line";
    /// The stream is complete; nothing follows.
    pub const END: &str = "end";
    /// A [`Problem`](super::Problem) that ended the stream.
    pub const PROBLEM: &str = "problem";
    /// The longest silence of a living stream, in seconds.
    pub const KEEP_ALIVE_SECONDS: u64 = 15;
}

/// The media types of the API.
pub mod media {
    pub const JSON: &str = "application/json";
    /// A spec; JSON is YAML too.
    pub const YAML: &str = "application/yaml";
    pub const PROBLEM: &str = "application/problem+json";
    /// Files of a copy.
    pub const TAR: &str = "application/x-tar";
    pub const EVENT_STREAM: &str = "text/event-stream";
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests;

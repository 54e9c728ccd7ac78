//! Events: what happened, to whom, why. One per transition or chunk, never one per copy.

use serde::{Deserialize, Serialize};

use crate::{AssignmentId, NodeId, Timestamp, WorkloadId};

/// How much a person should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The ordinary course of things.
    Info,
    /// Something to look at.
    Warning,
}

/// The stable names of what can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    FleetCreated,
    StoreEpochChanged,
    NodeJoined,
    NodeApproved,
    NodeKeyBound,
    NodeCloned,
    NodeDoubled,
    NodeReady,
    NodeSuspect,
    NodeLost,
    NodeReturned,
    NodeRebooted,
    NodeLabelled,
    NodeCordoned,
    NodeUncordoned,
    NodeDraining,
    NodeDrained,
    NodeUndrained,
    NodeRemoved,
    NodeHeldBack,
    NodeDriverLost,
    NodeDriverReady,
    NodePressed,
    NodeRelieved,
    WorkloadApplied,
    WorkloadStopped,
    WorkloadStarted,
    WorkloadRestarted,
    WorkloadRolledBack,
    WorkloadDeleted,
    WorkloadRemoved,
    RolloutPromoted,
    RolloutFinished,
    RolloutFailed,
    CopiesPlaced,
    CopiesStopping,
    CopiesReplaced,
    CopiesRemoved,
    CopyFinished,
    CopyUnhealthy,
    CopyHealthy,
    CopyCrashing,
    CopyRecovered,
    JobStarted,
    JobSkipped,
    CommandIssued,
    CommandFinished,
    AccountOpened,
    AccountChanged,
    AccountClosed,
    InstanceChanged,
    InstanceEnded,
    PolicyChanged,
    SwitchCompleted,
    ReplicaChanged,
    InterruptionNoticed,
    CleanupReported,
    TokenIssued,
    TokenRevoked,
    AuthorityRotated,
    AuthorityRetired,
    SecretSet,
    SecretRemoved,
    SecretsResealed,
    /// A program of a later version wrote it down.
    #[serde(other)]
    Unknown,
}

/// What an event is about; everything that is known is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subject {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<AssignmentId>,
}

/// One entry of the fleet's bounded log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts up by one over the life of the fleet; the resume id of event streams.
    pub sequence: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// How much a person should care.
    pub level: Level,
    /// To whom.
    pub subject: Subject,
    /// One sentence for a person.
    pub message: String,
    /// Who caused it: a user, a keeper or a node.
    pub actor: String,
}

impl EventKind {
    /// The stable name on every wire, such as `node-lost`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FleetCreated => "fleet-created",
            Self::StoreEpochChanged => "store-epoch-changed",
            Self::NodeJoined => "node-joined",
            Self::NodeApproved => "node-approved",
            Self::NodeKeyBound => "node-key-bound",
            Self::NodeCloned => "node-cloned",
            Self::NodeDoubled => "node-doubled",
            Self::NodeReady => "node-ready",
            Self::NodeSuspect => "node-suspect",
            Self::NodeLost => "node-lost",
            Self::NodeReturned => "node-returned",
            Self::NodeRebooted => "node-rebooted",
            Self::NodeLabelled => "node-labelled",
            Self::NodeCordoned => "node-cordoned",
            Self::NodeUncordoned => "node-uncordoned",
            Self::NodeDraining => "node-draining",
            Self::NodeDrained => "node-drained",
            Self::NodeUndrained => "node-undrained",
            Self::NodeRemoved => "node-removed",
            Self::NodeHeldBack => "node-held-back",
            Self::NodeDriverLost => "node-driver-lost",
            Self::NodeDriverReady => "node-driver-ready",
            Self::NodePressed => "node-pressed",
            Self::NodeRelieved => "node-relieved",
            Self::WorkloadApplied => "workload-applied",
            Self::WorkloadStopped => "workload-stopped",
            Self::WorkloadStarted => "workload-started",
            Self::WorkloadRestarted => "workload-restarted",
            Self::WorkloadRolledBack => "workload-rolled-back",
            Self::WorkloadDeleted => "workload-deleted",
            Self::WorkloadRemoved => "workload-removed",
            Self::RolloutPromoted => "rollout-promoted",
            Self::RolloutFinished => "rollout-finished",
            Self::RolloutFailed => "rollout-failed",
            Self::CopiesPlaced => "copies-placed",
            Self::CopiesStopping => "copies-stopping",
            Self::CopiesReplaced => "copies-replaced",
            Self::CopiesRemoved => "copies-removed",
            Self::CopyFinished => "copy-finished",
            Self::CopyUnhealthy => "copy-unhealthy",
            Self::CopyHealthy => "copy-healthy",
            Self::CopyCrashing => "copy-crashing",
            Self::CopyRecovered => "copy-recovered",
            Self::JobStarted => "job-started",
            Self::JobSkipped => "job-skipped",
            Self::CommandIssued => "command-issued",
            Self::CommandFinished => "command-finished",
            Self::AccountOpened => "account-opened",
            Self::AccountChanged => "account-changed",
            Self::AccountClosed => "account-closed",
            Self::InstanceChanged => "instance-changed",
            Self::InstanceEnded => "instance-ended",
            Self::PolicyChanged => "policy-changed",
            Self::SwitchCompleted => "switch-completed",
            Self::ReplicaChanged => "replica-changed",
            Self::InterruptionNoticed => "interruption-noticed",
            Self::CleanupReported => "cleanup-reported",
            Self::TokenIssued => "token-issued",
            Self::TokenRevoked => "token-revoked",
            Self::AuthorityRotated => "authority-rotated",
            Self::AuthorityRetired => "authority-retired",
            Self::SecretSet => "secret-set",
            Self::SecretRemoved => "secret-removed",
            Self::SecretsResealed => "secrets-resealed",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_program_wrote_down_is_read_as_unknown() {
        let event = |kind: &str| -> Event {
            let text = format!(
                r#"{{"sequence":7,"at":0,"kind":"{kind}","level":"info","subject":{{}},"message":"","actor":""}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let later = event("moon-eclipsed");
        assert_eq!((later.sequence, later.kind.as_str()), (7, "unknown"));
        assert_eq!(event("secrets-resealed").kind, EventKind::SecretsResealed);
    }
}

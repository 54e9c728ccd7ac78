//! Refusals: the domain's typed "no". A stable code, a sentence for a person, and advice.
//!
//! Every code has a page under `docs/errors`, with its cause and its remedy.

use serde::{Deserialize, Serialize};

use crate::page::codes;

codes! {
    /// The stable codes of refusals. A code is never renamed or reused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Code {
        /// The request's text is not of the expected form.
        BadRequest = "bad-request",
        /// A spec could not be read or makes no sense.
        SpecInvalid = "spec-invalid",
        /// A label, name or constraint breaks the rules for such text.
        NameInvalid = "name-invalid",
        /// No node has this id, prefix or name.
        NodeNotFound = "node-not-found",
        /// No workload has this id, prefix or name.
        WorkloadNotFound = "workload-not-found",
        /// No assignment has this id or prefix.
        AssignmentNotFound = "assignment-not-found",
        /// No command has this id.
        CommandNotFound = "command-not-found",
        /// No account has this id.
        AccountNotFound = "account-not-found",
        /// Another account has the name.
        AccountNameTaken = "account-name-taken",
        /// The node has no replica with this id.
        ReplicaNotFound = "replica-not-found",
        /// The verb does not fit how far the replica has come, or the node's settings.
        ReplicaStateConflict = "replica-state-conflict",
        /// The node is not on a rented machine.
        NotRented = "not-rented",
        /// No secret has this name.
        SecretNotFound = "secret-not-found",
        /// A workload names the secret.
        SecretInUse = "secret-in-use",
        /// The key of the secrets is not here, or does not open them.
        SecretsLocked = "secrets-locked",
        /// No revision of that number is kept.
        RevisionNotFound = "revision-not-found",
        /// No rollout is under way that could be promoted.
        NoRollout = "no-rollout",
        /// The rollout waits for a person to promote it or to roll it back.
        RolloutHeld = "rollout-held",
        /// A prefix fits more than one thing.
        Ambiguous = "ambiguous",
        /// The thing changed since it was read (If-Match).
        RevisionConflict = "revision-conflict",
        /// The name is taken by another node.
        NodeNameTaken = "node-name-taken",
        /// Another machine is connected with the same identity.
        NodeIdentityInUse = "node-identity-in-use",
        /// The node was removed; its identity cannot come back.
        NodeGone = "node-gone",
        /// The node waits for a person to approve it.
        NodePending = "node-pending",
        /// The node has told no key, so a machine cannot prove to be it.
        NodeUnproven = "node-unproven",
        /// No node of the fleet has this key.
        NodeKeyUnknown = "node-key-unknown",
        /// The join token is none of this fleet, or its secret is wrong.
        JoinTokenInvalid = "join-token-invalid",
        /// The join token's time is over, or as many machines have joined with it as may.
        JoinTokenSpent = "join-token-spent",
        /// Nodes believe only what is to be retired.
        AuthorityInUse = "authority-in-use",
        /// No token has this id or name.
        TokenNotFound = "token-not-found",
        /// Another token has the name.
        TokenNameTaken = "token-name-taken",
        /// The node still has copies and cannot be removed.
        NodeBusy = "node-busy",
        /// The verb does not fit the node's state.
        NodeStateConflict = "node-state-conflict",
        /// The workload is being deleted.
        WorkloadDeleting = "workload-deleting",
        /// No node can take it, and placement was required.
        NoPlacement = "no-placement",
        /// The driver cannot enforce what the spec asks for.
        DriverUnsupported = "driver-unsupported",
        /// A report or beat is older than what is known.
        StaleReport = "stale-report",
        /// This server does not decide now.
        NotLeader = "not-leader",
        /// The store did not take the change.
        StoreUnavailable = "store-unavailable",
        /// The server is stopping or too busy to take the request.
        Overloaded = "overloaded",
        /// The node cannot be reached for this.
        NodeUnreachable = "node-unreachable",
        /// There is no log of that run.
        LogNotFound = "log-not-found",
        /// The server writes no audit.
        AuditMissing = "audit-missing",
        /// No command can be run inside units of this kind.
        ExecUnsupported = "exec-unsupported",
        /// The ports of this unit cannot be reached from its node.
        ForwardUnsupported = "forward-unsupported",
        /// No files can be copied from and to units of this kind.
        CopyUnsupported = "copy-unsupported",
        /// Nothing of the copy runs.
        UnitNotRunning = "unit-not-running",
        /// The copy has no such part, or several and none was named.
        PartNotFound = "part-not-found",
        /// The command cannot be begun.
        CommandNotRunnable = "command-not-runnable",
        /// Nothing of the copy listens on the port.
        PortUnreachable = "port-unreachable",
        /// The copy has no such file or directory.
        FileNotFound = "file-not-found",
        /// The files could not be read or written.
        CopyFailed = "copy-failed",
        /// The node's owner forbids it.
        RefusedByNode = "refused-by-node",
        /// The caller did not say who it is.
        Unauthenticated = "unauthenticated",
        /// The caller may not do this.
        Forbidden = "forbidden",
        /// No such route.
        RouteNotFound = "route-not-found",
        /// The route exists, but not for this method.
        MethodNotAllowed = "method-not-allowed",
        /// This has been tried too often in a short time.
        TooManyAttempts = "too-many-attempts",
        /// The body is larger than the route takes.
        BodyTooLarge = "body-too-large",
        /// The two sides speak no common version.
        VersionUnsupported = "version-unsupported",
        /// A bug of ours; the log says more.
        Internal = "internal",
    }
}

/// The domain's typed "no". Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// What is wrong, for a person; lower case, no full stop.
    pub sentence: String,
    /// What to do about it; empty if there is nothing to do.
    pub advice: String,
    /// Each single finding, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Refusal {
    /// A refusal with its advice; there is no way to make one without thinking of it.
    #[must_use]
    pub fn new(code: Code, sentence: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
            advice: advice.into(),
            details: Vec::new(),
        }
    }

    /// The same, with each single finding.
    #[must_use]
    pub fn with_details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_written_as_it_is_shown() {
        for code in Code::ALL {
            let written = serde_json::to_string(code).unwrap();
            assert_eq!(written, format!("\"{code}\""));
        }
    }
}

//! The table from the typed causes of our drivers to Persys's codes and failure reasons. Pure.
//!
//! A cause is known by its stable code, never by the words of its message.

use hostler_model::{Exit, FailureCode, FailureReason as Reason};
use hostler_wire::persys::control::FailureReason;

/// A cause in Persys's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause {
    /// Of the agents' taxonomy.
    pub(super) code: &'static str,
    pub(super) reason: FailureReason,
    /// Whether trying the same again may help.
    pub(super) retryable: bool,
}

const fn passing(code: &'static str, reason: FailureReason) -> Cause {
    Cause {
        code,
        reason,
        retryable: true,
    }
}

const fn lasting(code: &'static str, reason: FailureReason) -> Cause {
    Cause {
        code,
        reason,
        retryable: false,
    }
}

pub(super) const INVALID: Cause = lasting("INVALID_SPECIFICATION", FailureReason::InvalidSpec);
pub(super) const QUOTA: Cause = passing(
    "RESOURCE_QUOTA_EXCEEDED",
    FailureReason::InsufficientResources,
);
/// Our own code beside those of the drivers.
pub(super) const NODE_BUSY: &str = "node-busy";
pub(super) const NOT_AVAILABLE: Cause =
    passing("RUNTIME_NOT_AVAILABLE", FailureReason::RuntimeError);
pub(super) const CLOUD_INIT: Cause = lasting("CLOUD_INIT_INVALID", FailureReason::InvalidSpec);
pub(super) const STORAGE: Cause = passing("STORAGE_FAILED", FailureReason::StorageError);
pub(super) const DRAINING: Cause = passing("NODE_DRAINING", FailureReason::InsufficientResources);
const RUNTIME: Cause = passing("RUNTIME_ERROR", FailureReason::RuntimeError);

/// What a driver, or the reconciler beside it, says of a unit that could not be prepared or started.
pub(super) fn of_driver(code: &str) -> Cause {
    match FailureCode::parse(code) {
        Some(failure) => of_failure(failure),
        None if code == NODE_BUSY => QUOTA,
        // Records of another version of the agent may name it.
        None => passing("UNKNOWN_ERROR", FailureReason::RuntimeError),
    }
}

/// A failure in Persys's words: the reason and whether it may pass are those of our table.
pub(super) const fn of_failure(failure: FailureCode) -> Cause {
    Cause {
        code: taxonomy(failure),
        reason: reason(failure.reason()),
        retryable: failure.is_passing(),
    }
}

/// The agents' finer code, where their taxonomy has one; else that of the reason.
const fn taxonomy(failure: FailureCode) -> &'static str {
    match failure {
        FailureCode::ImageDigestMismatch => "INVALID_IMAGE",
        FailureCode::RegistryUnauthorized => "IMAGE_PULL_AUTH_FAILED",
        FailureCode::VolumesUnsupported
        | FailureCode::VolumeInvalid
        | FailureCode::VolumeDriverMissing
        | FailureCode::VolumeQuotaUnsupported
        | FailureCode::VolumeProvisionFailed => "STORAGE_PROVISION_FAILED",
        FailureCode::VolumeInUse
        | FailureCode::VolumeAttachFailed
        | FailureCode::VolumeDetachFailed
        | FailureCode::VolumeTimeout => "STORAGE_ATTACH_FAILED",
        FailureCode::CloudInitInvalid => CLOUD_INIT.code,
        FailureCode::PortInUse => "PORT_BIND_CONFLICT",
        FailureCode::DiskFull => "STORAGE_FULL",
        FailureCode::EngineDown
        | FailureCode::DriverMissing
        | FailureCode::ComposeMissing
        | FailureCode::GitMissing => NOT_AVAILABLE.code,
        FailureCode::UnitNotFound | FailureCode::LogNotFound => "RUNTIME_RESOURCE_MISSING",
        FailureCode::UnitUnkillable => "RUNTIME_UNHEALTHY",
        _ => match failure.reason() {
            Reason::ImagePullFailed => "IMAGE_PULL_FAILED",
            Reason::ImageNotFound => "INVALID_IMAGE",
            Reason::InsufficientResources => "INSUFFICIENT_RESOURCES",
            Reason::NetworkError => "NETWORK_FAILED",
            Reason::StorageError => "STORAGE_FAILED",
            Reason::InvalidSpec => "INVALID_CONFIGURATION",
            Reason::RuntimeError => RUNTIME.code,
            Reason::VmBootFailed => "VM_BOOT_FAILED",
        },
    }
}

const fn reason(reason: Reason) -> FailureReason {
    match reason {
        Reason::ImagePullFailed => FailureReason::ImagePullFailed,
        Reason::ImageNotFound => FailureReason::ImageNotFound,
        Reason::InsufficientResources => FailureReason::InsufficientResources,
        Reason::NetworkError => FailureReason::NetworkError,
        Reason::StorageError => FailureReason::StorageError,
        Reason::InvalidSpec => FailureReason::InvalidSpec,
        Reason::RuntimeError => FailureReason::RuntimeError,
        Reason::VmBootFailed => FailureReason::VmBootFailed,
    }
}

/// What an end says that was no success.
pub(super) const fn of_exit(exit: Exit) -> Cause {
    match exit {
        Exit::OutOfMemory => passing("INSUFFICIENT_MEMORY", FailureReason::InsufficientResources),
        Exit::Unhealthy => passing("RUNTIME_UNHEALTHY", FailureReason::RuntimeError),
        Exit::Code(_) | Exit::Signal(_) | Exit::Unknown | Exit::TimedOut => RUNTIME,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_failure_has_a_code_and_a_reason_of_the_contract() {
        let told = |it: &FailureCode| {
            let cause = of_driver(it.as_str());
            let again = if cause.retryable { "again" } else { "lasting" };
            let reason = cause.reason.as_str_name();
            // The contract's names are those of our reasons, written its way.
            let ours = it.reason().as_str().to_ascii_uppercase().replace('-', "_");
            assert_eq!(reason, ours, "{it}");
            format!("{} {reason} {again}", cause.code)
        };
        let all: BTreeSet<String> = FailureCode::ALL.iter().map(told).collect();
        assert_eq!(
            all.iter().map(String::as_str).collect::<Vec<_>>(),
            [
                "CLOUD_INIT_INVALID INVALID_SPEC lasting",
                "IMAGE_PULL_AUTH_FAILED IMAGE_PULL_FAILED lasting",
                "IMAGE_PULL_FAILED IMAGE_PULL_FAILED again",
                "INSUFFICIENT_RESOURCES INSUFFICIENT_RESOURCES lasting",
                "INVALID_CONFIGURATION INVALID_SPEC lasting",
                "INVALID_IMAGE IMAGE_NOT_FOUND lasting",
                "INVALID_IMAGE IMAGE_PULL_FAILED lasting",
                "NETWORK_FAILED NETWORK_ERROR again",
                "NETWORK_FAILED NETWORK_ERROR lasting",
                "PORT_BIND_CONFLICT NETWORK_ERROR lasting",
                "RUNTIME_ERROR RUNTIME_ERROR again",
                "RUNTIME_NOT_AVAILABLE RUNTIME_ERROR again",
                "RUNTIME_RESOURCE_MISSING RUNTIME_ERROR again",
                "RUNTIME_UNHEALTHY RUNTIME_ERROR again",
                "STORAGE_ATTACH_FAILED STORAGE_ERROR again",
                "STORAGE_FAILED STORAGE_ERROR again",
                "STORAGE_FAILED STORAGE_ERROR lasting",
                "STORAGE_FULL STORAGE_ERROR again",
                "STORAGE_PROVISION_FAILED STORAGE_ERROR again",
                "STORAGE_PROVISION_FAILED STORAGE_ERROR lasting",
                "VM_BOOT_FAILED VM_BOOT_FAILED again",
            ]
        );
    }

    #[test]
    fn what_no_table_has_is_an_error_of_the_runtime_that_may_pass() {
        let unknown = of_driver("something-of-tomorrow");
        assert_eq!(
            unknown,
            passing("UNKNOWN_ERROR", FailureReason::RuntimeError)
        );
        assert_eq!(of_driver(NODE_BUSY), QUOTA);
        assert_eq!(of_exit(Exit::Code(3)).reason, FailureReason::RuntimeError);
        assert_eq!(
            of_exit(Exit::OutOfMemory).reason,
            FailureReason::InsufficientResources
        );
    }
}

//! The table from the typed causes of our drivers to Persys's codes and failure reasons. Pure.
//!
//! A cause is known by its stable code, never by the words of its message.

use hostler_model::Exit;
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
pub(super) const NO_VOLUME: Cause =
    lasting("STORAGE_PROVISION_FAILED", FailureReason::StorageError);
pub(super) const CLOUD_INIT: Cause = lasting("CLOUD_INIT_INVALID", FailureReason::InvalidSpec);
pub(super) const STORAGE: Cause = passing("STORAGE_FAILED", FailureReason::StorageError);
pub(super) const DRAINING: Cause = passing("NODE_DRAINING", FailureReason::InsufficientResources);
const RUNTIME: Cause = passing("RUNTIME_ERROR", FailureReason::RuntimeError);

/// What a driver, or the reconciler beside it, says of a unit that could not be prepared or started.
pub(super) fn of_driver(code: &str) -> Cause {
    match code {
        "image-unavailable" => passing("IMAGE_PULL_FAILED", FailureReason::ImagePullFailed),
        "image-not-found" => lasting("INVALID_IMAGE", FailureReason::ImageNotFound),
        "image-digest-mismatch" => lasting("INVALID_IMAGE", FailureReason::ImagePullFailed),
        "registry-unauthorized" => {
            lasting("IMAGE_PULL_AUTH_FAILED", FailureReason::ImagePullFailed)
        }
        "image-corrupt" | "disk-corrupt" | "disk-missing" => {
            lasting("STORAGE_FAILED", FailureReason::StorageError)
        }
        "volumes-unsupported" => NO_VOLUME,
        "cloud-init-invalid" => CLOUD_INIT,
        "vm-boot-failed" => passing("VM_BOOT_FAILED", FailureReason::VmBootFailed),
        "bridge-missing" => passing("NETWORK_FAILED", FailureReason::NetworkError),
        "compose-invalid"
        | "compose-variable-missing"
        | "compose-file-missing"
        | "compose-build-failed"
        | "git-ref-not-found"
        | "git-token-unreadable"
        | "command-not-runnable"
        | "container-refused"
        | "vm-refused"
        | "image-elsewhere"
        | "image-not-permitted"
        | "disk-too-small"
        | "pool-unknown"
        | "user-unknown"
        | "device-not-found"
        | "network-not-found"
        | "refused-by-node"
        | "user-not-permitted"
        | "working-dir-missing" => lasting("INVALID_CONFIGURATION", FailureReason::InvalidSpec),
        "limits-refused" | "accelerator-missing" => lasting(
            "INSUFFICIENT_RESOURCES",
            FailureReason::InsufficientResources,
        ),
        "port-in-use" => lasting("PORT_BIND_CONFLICT", FailureReason::NetworkError),
        NODE_BUSY => QUOTA,
        "disk-full" => passing("STORAGE_FULL", FailureReason::StorageError),
        "engine-down" | "driver-missing" | "compose-missing" | "git-missing" => NOT_AVAILABLE,
        "git-unreachable" => passing("NETWORK_FAILED", FailureReason::NetworkError),
        "git-unauthorized" => lasting("NETWORK_FAILED", FailureReason::NetworkError),
        "unit-not-found" | "log-not-found" => {
            passing("RUNTIME_RESOURCE_MISSING", FailureReason::RuntimeError)
        }
        "unit-unkillable" => passing("RUNTIME_UNHEALTHY", FailureReason::RuntimeError),
        "node-io" | "compose-failed" | "compose-project-busy" => RUNTIME,
        _ => passing("UNKNOWN_ERROR", FailureReason::RuntimeError),
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
    use std::io;

    use hostler_model::{AssignmentId, UnitId};
    use hostler_runtime::RuntimeError;

    use super::*;

    /// One of each cause that a driver can give.
    fn every_error() -> Vec<RuntimeError> {
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let unit = UnitId {
            assignment: AssignmentId::LEAST,
            generation: 1,
        };
        let text = || "words".to_owned();
        let refused = |code| RuntimeError::Unsatisfiable {
            code,
            message: text(),
        };
        vec![
            RuntimeError::Image {
                image: text(),
                message: text(),
            },
            RuntimeError::Command {
                program: text(),
                source: io(),
            },
            RuntimeError::PortInUse { port: 80 },
            RuntimeError::DiskFull,
            RuntimeError::EngineDown {
                engine: "docker",
                message: text(),
            },
            RuntimeError::Unkillable(unit),
            RuntimeError::NotFound(unit),
            RuntimeError::NoLog,
            RuntimeError::Io {
                context: text(),
                source: io(),
            },
            refused("image-not-found"),
            refused("image-digest-mismatch"),
            refused("registry-unauthorized"),
            refused("network-not-found"),
            refused("device-not-found"),
            refused("refused-by-node"),
            refused("container-refused"),
            refused("user-unknown"),
            refused("user-not-permitted"),
            refused("working-dir-missing"),
            refused("limits-refused"),
            RuntimeError::Boot { message: text() },
            refused("cloud-init-invalid"),
            refused("image-not-found"),
            refused("image-corrupt"),
            refused("disk-corrupt"),
            refused("disk-missing"),
            refused("disk-too-small"),
            refused("image-elsewhere"),
            refused("image-not-permitted"),
            refused("pool-unknown"),
            refused("vm-refused"),
            refused("volumes-unsupported"),
            refused("bridge-missing"),
            refused("accelerator-missing"),
            refused("compose-invalid"),
            refused("compose-variable-missing"),
            refused("compose-file-missing"),
            refused("compose-build-failed"),
            refused("git-ref-not-found"),
            refused("git-token-unreadable"),
            refused("compose-missing"),
            refused("git-missing"),
            refused("git-unreachable"),
            refused("git-unauthorized"),
            refused("compose-failed"),
            refused("compose-project-busy"),
            refused("something-of-tomorrow"),
        ]
    }

    #[test]
    fn each_typed_cause_has_its_failure_reason() {
        let rows = every_error().into_iter().map(|error| {
            let cause = of_driver(error.code());
            let again = if cause.retryable { "again" } else { "lasting" };
            format!(
                "{} -> {} {} {again}",
                error.code(),
                cause.code,
                cause.reason.as_str_name()
            )
        });
        let rows: Vec<String> = rows.collect();
        assert_eq!(
            rows,
            [
                "image-unavailable -> IMAGE_PULL_FAILED IMAGE_PULL_FAILED again",
                "command-not-runnable -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "port-in-use -> PORT_BIND_CONFLICT NETWORK_ERROR lasting",
                "disk-full -> STORAGE_FULL STORAGE_ERROR again",
                "engine-down -> RUNTIME_NOT_AVAILABLE RUNTIME_ERROR again",
                "unit-unkillable -> RUNTIME_UNHEALTHY RUNTIME_ERROR again",
                "unit-not-found -> RUNTIME_RESOURCE_MISSING RUNTIME_ERROR again",
                "log-not-found -> RUNTIME_RESOURCE_MISSING RUNTIME_ERROR again",
                "node-io -> RUNTIME_ERROR RUNTIME_ERROR again",
                "image-not-found -> INVALID_IMAGE IMAGE_NOT_FOUND lasting",
                "image-digest-mismatch -> INVALID_IMAGE IMAGE_PULL_FAILED lasting",
                "registry-unauthorized -> IMAGE_PULL_AUTH_FAILED IMAGE_PULL_FAILED lasting",
                "network-not-found -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "device-not-found -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "refused-by-node -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "container-refused -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "user-unknown -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "user-not-permitted -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "working-dir-missing -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "limits-refused -> INSUFFICIENT_RESOURCES INSUFFICIENT_RESOURCES lasting",
                "vm-boot-failed -> VM_BOOT_FAILED VM_BOOT_FAILED again",
                "cloud-init-invalid -> CLOUD_INIT_INVALID INVALID_SPEC lasting",
                "image-not-found -> INVALID_IMAGE IMAGE_NOT_FOUND lasting",
                "image-corrupt -> STORAGE_FAILED STORAGE_ERROR lasting",
                "disk-corrupt -> STORAGE_FAILED STORAGE_ERROR lasting",
                "disk-missing -> STORAGE_FAILED STORAGE_ERROR lasting",
                "disk-too-small -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "image-elsewhere -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "image-not-permitted -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "pool-unknown -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "vm-refused -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "volumes-unsupported -> STORAGE_PROVISION_FAILED STORAGE_ERROR lasting",
                "bridge-missing -> NETWORK_FAILED NETWORK_ERROR again",
                "accelerator-missing -> INSUFFICIENT_RESOURCES INSUFFICIENT_RESOURCES lasting",
                "compose-invalid -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "compose-variable-missing -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "compose-file-missing -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "compose-build-failed -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "git-ref-not-found -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "git-token-unreadable -> INVALID_CONFIGURATION INVALID_SPEC lasting",
                "compose-missing -> RUNTIME_NOT_AVAILABLE RUNTIME_ERROR again",
                "git-missing -> RUNTIME_NOT_AVAILABLE RUNTIME_ERROR again",
                "git-unreachable -> NETWORK_FAILED NETWORK_ERROR again",
                "git-unauthorized -> NETWORK_FAILED NETWORK_ERROR lasting",
                "compose-failed -> RUNTIME_ERROR RUNTIME_ERROR again",
                "compose-project-busy -> RUNTIME_ERROR RUNTIME_ERROR again",
                "something-of-tomorrow -> UNKNOWN_ERROR RUNTIME_ERROR again",
            ]
        );
        assert_eq!(of_exit(Exit::Code(3)).reason, FailureReason::RuntimeError);
        assert_eq!(
            of_exit(Exit::OutOfMemory).reason,
            FailureReason::InsufficientResources
        );
    }
}

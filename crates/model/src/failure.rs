//! Failures: why a node could not prepare or start a copy, or do what was asked of one. A stable code, and the
//! broader reason that it belongs to.
//!
//! This table is the only place where the codes are made. Each has a page under `docs/errors` with its cause and
//! its remedy, which every surface shows: a code without a page does not compile.

use std::fmt;

use crate::Exit;
use crate::page::{codes, remedy};

/// What kind of thing failed: the eight reasons that every finer code comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureReason {
    /// The image could not be fetched.
    ImagePullFailed,
    /// There is no such image.
    ImageNotFound,
    /// The node has not what it takes.
    InsufficientResources,
    /// A port, a network or another machine.
    NetworkError,
    /// A disk, a volume or an image's file.
    StorageError,
    /// The spec asks for what makes no sense on the node.
    InvalidSpec,
    /// The runtime behind the driver, or the program itself.
    RuntimeError,
    /// A machine ended before it was up.
    VmBootFailed,
}

/// Whether trying the same again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Passing,
    /// Not before the spec or the node is changed.
    Lasting,
}

/// Each code with its text, its reason and its nature.
macro_rules! failures {
    ($($name:ident = $text:literal, $reason:ident, $nature:ident;)*) => {
        codes! {
            /// The stable codes of failures, by which people and programs look them up.
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum FailureCode { $($name = $text,)* }
        }

        impl FailureCode {
            /// The broader reason.
            #[must_use]
            pub const fn reason(self) -> FailureReason {
                match self { $(Self::$name => FailureReason::$reason),* }
            }

            const fn nature(self) -> Nature {
                match self { $(Self::$name => Nature::$nature),* }
            }
        }
    };
}

failures! {
    ImageUnavailable = "image-unavailable", ImagePullFailed, Passing;
    ImageNotFound = "image-not-found", ImageNotFound, Lasting;
    ImageDigestMismatch = "image-digest-mismatch", ImagePullFailed, Lasting;
    RegistryUnauthorized = "registry-unauthorized", ImagePullFailed, Lasting;
    ImageElsewhere = "image-elsewhere", InvalidSpec, Lasting;
    ImageNotPermitted = "image-not-permitted", InvalidSpec, Lasting;
    ImageCorrupt = "image-corrupt", StorageError, Lasting;
    CommandNotRunnable = "command-not-runnable", InvalidSpec, Lasting;
    ContainerRefused = "container-refused", InvalidSpec, Lasting;
    VmRefused = "vm-refused", InvalidSpec, Lasting;
    AdoptNotFound = "adopt-not-found", InvalidSpec, Lasting;
    AdoptNotRunning = "adopt-not-running", InvalidSpec, Lasting;
    AdoptManaged = "adopt-managed", InvalidSpec, Lasting;
    DeviceNotFound = "device-not-found", InvalidSpec, Lasting;
    NetworkNotFound = "network-not-found", InvalidSpec, Lasting;
    MountNotFound = "mount-not-found", StorageError, Lasting;
    UserUnknown = "user-unknown", InvalidSpec, Lasting;
    UserNotPermitted = "user-not-permitted", InvalidSpec, Lasting;
    GroupUnknown = "group-unknown", InvalidSpec, Lasting;
    WorkingDirMissing = "working-dir-missing", InvalidSpec, Lasting;
    EnvFileMissing = "env-file-missing", InvalidSpec, Lasting;
    EnvFileInvalid = "env-file-invalid", InvalidSpec, Lasting;
    LimitsRefused = "limits-refused", InsufficientResources, Lasting;
    IsolationRefused = "isolation-refused", InvalidSpec, Lasting;
    SeccompRefused = "seccomp-refused", InvalidSpec, Lasting;
    PortInUse = "port-in-use", NetworkError, Lasting;
    BridgeMissing = "bridge-missing", NetworkError, Passing;
    DiskFull = "disk-full", StorageError, Passing;
    DiskCorrupt = "disk-corrupt", StorageError, Lasting;
    DiskMissing = "disk-missing", StorageError, Lasting;
    DiskTooSmall = "disk-too-small", InvalidSpec, Lasting;
    PoolUnknown = "pool-unknown", InvalidSpec, Lasting;
    VolumesUnsupported = "volumes-unsupported", StorageError, Lasting;
    VolumeInvalid = "volume-invalid", StorageError, Lasting;
    VolumeDriverMissing = "volume-driver-missing", StorageError, Lasting;
    VolumeQuotaUnsupported = "volume-quota-unsupported", StorageError, Lasting;
    VolumeInUse = "volume-in-use", StorageError, Passing;
    VolumeProvisionFailed = "volume-provision-failed", StorageError, Passing;
    VolumeAttachFailed = "volume-attach-failed", StorageError, Passing;
    VolumeDetachFailed = "volume-detach-failed", StorageError, Passing;
    VolumeTimeout = "volume-timeout", StorageError, Passing;
    CloudInitInvalid = "cloud-init-invalid", InvalidSpec, Lasting;
    VmBootFailed = "vm-boot-failed", VmBootFailed, Passing;
    AcceleratorMissing = "accelerator-missing", InsufficientResources, Lasting;
    ComposeInvalid = "compose-invalid", InvalidSpec, Lasting;
    ComposeVariableMissing = "compose-variable-missing", InvalidSpec, Lasting;
    ComposeFileMissing = "compose-file-missing", InvalidSpec, Lasting;
    ComposeBuildFailed = "compose-build-failed", InvalidSpec, Lasting;
    ComposeFailed = "compose-failed", RuntimeError, Passing;
    ComposeProjectBusy = "compose-project-busy", RuntimeError, Passing;
    ComposeMissing = "compose-missing", RuntimeError, Passing;
    GitMissing = "git-missing", RuntimeError, Passing;
    GitRefNotFound = "git-ref-not-found", InvalidSpec, Lasting;
    GitTokenUnreadable = "git-token-unreadable", InvalidSpec, Lasting;
    GitUnreachable = "git-unreachable", NetworkError, Passing;
    GitUnauthorized = "git-unauthorized", NetworkError, Lasting;
    SecretMissing = "secret-missing", RuntimeError, Passing;
    SecretsUnsupported = "secrets-unsupported", InvalidSpec, Lasting;
    EngineDown = "engine-down", RuntimeError, Passing;
    DriverMissing = "driver-missing", RuntimeError, Passing;
    RefusedByNode = "refused-by-node", InvalidSpec, Lasting;
    UnitNotFound = "unit-not-found", RuntimeError, Passing;
    UnitNotRunning = "unit-not-running", RuntimeError, Passing;
    PartNotFound = "part-not-found", InvalidSpec, Lasting;
    FileNotFound = "file-not-found", InvalidSpec, Lasting;
    CopyFailed = "copy-failed", StorageError, Passing;
    ExecUnsupported = "exec-unsupported", InvalidSpec, Lasting;
    CopyUnsupported = "copy-unsupported", InvalidSpec, Lasting;
    PortUnreachable = "port-unreachable", NetworkError, Passing;
    ForwardUnsupported = "forward-unsupported", InvalidSpec, Lasting;
    LogNotFound = "log-not-found", RuntimeError, Passing;
    UnitUnkillable = "unit-unkillable", RuntimeError, Passing;
    NodeIo = "node-io", RuntimeError, Passing;
}

impl FailureCode {
    /// Whether trying the same again may help.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        matches!(self.nature(), Nature::Passing)
    }

    /// What to do about it, as its page says.
    #[must_use]
    pub fn remedy(self) -> String {
        remedy(self.page())
    }
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::ImagePullFailed,
        Self::ImageNotFound,
        Self::InsufficientResources,
        Self::NetworkError,
        Self::StorageError,
        Self::InvalidSpec,
        Self::RuntimeError,
        Self::VmBootFailed,
    ];

    /// The word on every wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImagePullFailed => "image-pull-failed",
            Self::ImageNotFound => "image-not-found",
            Self::InsufficientResources => "insufficient-resources",
            Self::NetworkError => "network-error",
            Self::StorageError => "storage-error",
            Self::InvalidSpec => "invalid-spec",
            Self::RuntimeError => "runtime-error",
            Self::VmBootFailed => "vm-boot-failed",
        }
    }

    /// Why a run ended that was no success; none if it was one.
    #[must_use]
    pub const fn of_exit(exit: Exit) -> Option<Self> {
        match exit {
            Exit::Code(0) => None,
            Exit::OutOfMemory => Some(Self::InsufficientResources),
            Exit::Code(_) | Exit::Signal(_) | Exit::Unknown | Exit::TimedOut | Exit::Unhealthy => {
                Some(Self::RuntimeError)
            }
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_code_and_every_code_is_found_by_its_text() {
        let reasons: BTreeSet<_> = FailureCode::ALL.iter().map(|code| code.reason()).collect();
        assert_eq!(reasons.len(), FailureReason::ALL.len());
        for code in FailureCode::ALL {
            assert_eq!(FailureCode::parse(code.as_str()), Some(*code));
        }
        assert_eq!(FailureCode::parse("IMAGE_PULL_FAILED"), None);
    }

    #[test]
    fn the_remedy_is_the_one_on_the_page() {
        let remedy = FailureCode::DiskFull.remedy();
        assert_eq!(remedy, "free space on the node's disk");
        for code in FailureCode::ALL {
            assert!(!code.remedy().is_empty(), "{code}");
        }
    }
}

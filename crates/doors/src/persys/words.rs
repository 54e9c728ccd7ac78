//! Persys's words and numbers to ours and back. Pure.

use hostler_model::spec::{Kind, ManagedVolume};
use hostler_model::{AliasKey, Contract, Desired, Timestamp};
use tonic::Code;

/// The alias scope of nodes.
const NODE: &str = "node";
/// The alias scope of workloads.
const WORKLOAD: &str = "workload";

/// What a node's id stands under.
pub(super) fn node_key(id: &str) -> AliasKey {
    key(NODE, id)
}

/// What a workload's id stands under.
pub(super) fn workload_key(id: &str) -> AliasKey {
    key(WORKLOAD, id)
}

fn key(scope: &str, id: &str) -> AliasKey {
    AliasKey {
        contract: Contract::Persys,
        scope: scope.to_owned(),
        foreign: id.to_owned(),
    }
}

/// A moment as protobuf has it.
pub(super) fn stamp(at: Timestamp) -> prost_types::Timestamp {
    let millis = at.as_millis();
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1_000 * 1_000_000).unwrap_or_default(),
    }
}

/// Seconds since 1970 as the agent contract has them; nothing for what is no moment after it.
pub(super) fn from_seconds(seconds: i64) -> Option<Timestamp> {
    let millis = u64::try_from(seconds).ok().filter(|it| *it > 0)?;
    Some(Timestamp::from_millis(millis.saturating_mul(1_000)))
}

/// A desired state: what is neither stopped nor deleted runs.
pub(super) fn desired(word: &str) -> Desired {
    match word.trim().to_ascii_lowercase().as_str() {
        "stopped" | "stop" => Desired::Stopped,
        "deleted" | "delete" => Desired::Deleted,
        _ => Desired::Running,
    }
}

pub(super) const fn desired_word(desired: Desired) -> &'static str {
    match desired {
        Desired::Running => "Running",
        Desired::Stopped => "Stopped",
        Desired::Deleted => "Deleted",
    }
}

/// A workload type, also by its older names.
pub(super) fn kind(word: &str) -> Option<Kind> {
    match word.trim().to_ascii_lowercase().as_str() {
        "container" | "docker-container" | "docker_container" => Some(Kind::Container),
        "compose" | "docker-compose" | "docker_compose" => Some(Kind::Compose),
        "vm" => Some(Kind::Vm),
        _ => None,
    }
}

/// A storage driver in its one spelling; nothing for an empty word.
pub(super) fn storage_driver(word: &str) -> Option<String> {
    let word = word.trim().to_ascii_lowercase().replace('_', "-");
    (!word.is_empty()).then_some(word)
}

/// Whether the driver is one that specs may name.
pub(super) fn is_known_driver(driver: &str) -> bool {
    ManagedVolume::DRIVERS.contains(&driver)
}

/// gRPC codes as Go names them.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// A name of ours for a foreign id: a DNS label that still reads like it.
pub(super) fn name_of(id: &str) -> String {
    const LONGEST: usize = 63;
    let mut name = String::new();
    for c in id.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(LONGEST);
    let name = name.trim_end_matches('-');
    if name.is_empty() {
        "workload".to_owned()
    } else {
        name.to_owned()
    }
}

/// Whether a filter lets the word through: an empty one lets everything.
pub(super) fn passes(filter: &str, word: &str) -> bool {
    let filter = filter.trim();
    filter.is_empty() || filter.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::is_dns_label;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_desired_state_that_is_not_known_runs() {
        for (word, meant) in [
            ("", Desired::Running),
            ("RUNNING", Desired::Running),
            ("whatever", Desired::Running),
            ("Stopped", Desired::Stopped),
            ("stop", Desired::Stopped),
            ("DELETED", Desired::Deleted),
            ("delete", Desired::Deleted),
        ] {
            assert_eq!(desired(word), meant, "{word}");
        }
    }

    #[test]
    fn types_and_drivers_have_one_spelling() {
        assert_eq!(kind("Docker-Compose"), Some(Kind::Compose));
        assert_eq!(kind("docker-container"), Some(Kind::Container));
        assert_eq!(kind("pod"), None);
        assert_eq!(storage_driver(" CEPH_RBD ").as_deref(), Some("ceph-rbd"));
        assert_eq!(storage_driver(" "), None);
    }

    proptest! {
        #[test]
        fn every_id_gives_a_name(id in ".{0,80}") {
            prop_assert!(is_dns_label(&name_of(&id)), "{}", name_of(&id));
        }
    }
}

//! A scheduler's spec as one of ours. Pure.
//!
//! What our spec has no place for (the number of retries of a restart policy, swap) stays in the request, which is
//! kept as it came; what would change what runs and cannot be done is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostler_model::spec::{
    ComposeSpec, ContainerSpec, GitSource, Kind, ManagedVolume, Mount, PortMapping, Protocol,
    RestartPolicy, WorkloadSpec,
};
use hostler_model::{AssignmentId, Bytes, MilliCpu, Timestamp, WorkloadId};
use hostler_wire::persys::agent;
use hostler_wire::persys::agent::workload_spec::Spec;
use serde::{Deserialize, Serialize};

use super::causes::{self, Cause};
use super::machine;

/// Longest id of a workload, in bytes.
const LONGEST_ID: usize = 512;
/// Longest readable part of a unit's name.
const LONGEST_NAME: usize = 40;

/// Why a request makes no sense, or cannot be met here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct No {
    pub(super) cause: Cause,
    pub(super) message: String,
}

impl No {
    pub(super) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
        }
    }
}

pub(super) fn invalid(message: impl Into<String>) -> No {
    No::new(causes::INVALID, message)
}

/// The assignment of a workload, always the same one.
pub(super) fn assignment_of(id: &str) -> AssignmentId {
    AssignmentId::mint(Timestamp::from_millis(0), hash(id))
}

pub(super) fn workload_of(id: &str) -> WorkloadId {
    WorkloadId::mint(Timestamp::from_millis(0), hash(id))
}

/// FNV-1a of 128 bits, folded so that the bits that an id keeps depend on all of them. The records on disk are
/// found by it, so it never changes; two ids of one hash are told apart by the records.
fn hash(id: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let sum = id.bytes().fold(BASIS, |sum, byte| {
        (sum ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    sum ^ (sum >> 64)
}

/// A name that units may carry: lower-case letters, digits and inner dashes.
pub(super) fn name_of(id: &str) -> String {
    let plain = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() { c } else { '-' }
    };
    let name: String = id.chars().map(plain).take(LONGEST_NAME).collect();
    match name.trim_matches('-') {
        "" => "workload".to_owned(),
        name => name.to_owned(),
    }
}

/// Reads the id, the kind and the spec of a request.
pub(super) fn read(request: &agent::ApplyWorkloadRequest) -> Result<(Kind, WorkloadSpec), No> {
    let id = &request.id;
    if id.is_empty() {
        return Err(invalid("id: a workload needs one"));
    }
    if id.len() > LONGEST_ID || id.contains('\0') {
        return Err(invalid(format!(
            "id: more than {LONGEST_ID} bytes, or a NUL character in it"
        )));
    }
    let spec = request.spec.as_ref().and_then(|spec| spec.spec.as_ref());
    let spec = spec.ok_or_else(|| invalid("spec: one of container, compose and vm is needed"))?;
    let kind = match spec {
        Spec::Container(_) => Kind::Container,
        Spec::Compose(_) => Kind::Compose,
        Spec::Vm(_) => Kind::Vm,
    };
    let named = request.r#type;
    if named != agent::WorkloadType::Unspecified as i32 && named != super::type_of(kind) as i32 {
        return Err(invalid(format!(
            "type: {named} does not agree with the {kind} in the spec"
        )));
    }
    let spec = match spec {
        Spec::Container(theirs) => container(request, theirs)?,
        Spec::Compose(theirs) => compose(id, theirs)?,
        Spec::Vm(theirs) => machine::read(id, theirs)?,
    };
    spec.check().map_err(|refusal| invalid(refusal.sentence))?;
    Ok((kind, spec))
}

/// The words that a scheduler looks for to take the type from the node.
pub(super) fn missing(kind: Kind) -> String {
    format!("runtime not available: this node has no driver for {kind} workloads")
}

fn container(
    request: &agent::ApplyWorkloadRequest,
    theirs: &agent::ContainerSpec,
) -> Result<WorkloadSpec, No> {
    if theirs.image.trim().is_empty() {
        return Err(invalid("container.image: no image is named"));
    }
    // The image's entrypoint stays; both lists are what it is given.
    let command = theirs.command.iter().chain(&theirs.args).cloned().collect();
    let mut spec = WorkloadSpec::of_container(&name_of(&request.id), theirs.image.trim(), command);
    spec.env.clone_from(&theirs.env);
    spec.ports = theirs.ports.iter().map(port).collect::<Result<_, _>>()?;
    spec.restart.policy = restart(theirs.restart_policy.as_ref())?;
    let resources = theirs.resources.unwrap_or_default();
    spec.resources.cpu = MilliCpu(amount("resources.cpu_shares", resources.cpu_shares)?);
    spec.resources.memory = Bytes(amount("resources.memory_bytes", resources.memory_bytes)?);
    if let Some(container) = &mut spec.container {
        fill(container, request, theirs);
        container.volumes = volumes(&theirs.managed_volumes)?;
    }
    Ok(spec)
}

pub(super) fn volumes(theirs: &[agent::ManagedVolumeSpec]) -> Result<Vec<ManagedVolume>, No> {
    theirs.iter().map(volume).collect()
}

fn volume(theirs: &agent::ManagedVolumeSpec) -> Result<ManagedVolume, No> {
    const GIB: u64 = 1 << 30;
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let driver = theirs.driver.trim().to_ascii_lowercase().replace('_', "-");
    let retain = match theirs.retain_policy.trim().to_ascii_lowercase().as_str() {
        "" | "delete" => false,
        "retain" => true,
        other => {
            let name = &theirs.name;
            let message = format!("managed volume `{name}`: no retain_policy is `{other}`");
            return Err(invalid(message));
        }
    };
    let size = amount("managed_volumes.size_gb", theirs.size_gb)?;
    Ok(ManagedVolume {
        name: theirs.name.clone(),
        driver: said(&driver).unwrap_or_else(|| ManagedVolume::LOCAL.to_owned()),
        target: theirs.mount_path.clone(),
        size: (size > 0).then_some(Bytes(size.saturating_mul(GIB))),
        access_mode: said(&theirs.access_mode),
        fs_type: said(&theirs.fs_type),
        read_only: theirs.read_only,
        retain,
    })
}

fn fill(
    container: &mut ContainerSpec,
    request: &agent::ApplyWorkloadRequest,
    theirs: &agent::ContainerSpec,
) {
    container.mounts = theirs.volumes.iter().map(mount).collect();
    let own = [
        ("persys.managed", "true"),
        ("persys.workload_id", &request.id),
        ("persys.revision_id", &request.revision_id),
    ];
    let own: BTreeMap<String, String> = own
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    container.labels.clone_from(&theirs.labels);
    container.labels.extend(own);
}

fn mount(theirs: &agent::VolumeMount) -> Mount {
    Mount {
        source: theirs.host_path.clone(),
        target: theirs.container_path.clone(),
        read_only: theirs.read_only,
    }
}

fn port(theirs: &agent::PortMapping) -> Result<PortMapping, No> {
    let number = |of: &str, number: i32| {
        u16::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| invalid(format!("ports: {number} is no {of} port from 1 to 65535")))
    };
    let protocol = match theirs.protocol.trim().to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(invalid(format!("ports: `{other}` is neither tcp nor udp"))),
    };
    Ok(PortMapping {
        name: None,
        host: number("host", theirs.host_port)?,
        target: Some(number("container", theirs.container_port)?),
        protocol,
    })
}

fn restart(theirs: Option<&agent::RestartPolicy>) -> Result<RestartPolicy, No> {
    let policy = theirs.map(|theirs| theirs.policy.trim().to_ascii_lowercase());
    match policy.unwrap_or_default().as_str() {
        "" | "no" => Ok(RestartPolicy::No),
        "always" => Ok(RestartPolicy::Always),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        other => Err(invalid(format!(
            "restart_policy: `{other}` is none of no, always, on-failure and unless-stopped"
        ))),
    }
}

pub(super) fn amount(key: &str, amount: i64) -> Result<u64, No> {
    u64::try_from(amount).map_err(|_| invalid(format!("{key}: {amount} is below zero")))
}

fn compose(id: &str, theirs: &agent::ComposeSpec) -> Result<WorkloadSpec, No> {
    let text = theirs.compose_yaml.trim();
    if text.is_empty() {
        return Err(invalid("compose.compose_yaml: there is no text"));
    }
    if let Ok(FromGit { git }) = serde_json::from_str::<FromGit>(text) {
        return project(
            id,
            theirs,
            ComposeSpec {
                git: Some(git),
                ..ComposeSpec::default()
            },
        );
    }
    // No compose file is without a colon, and no base64 has one.
    let file = if text.contains(':') {
        theirs.compose_yaml.clone()
    } else {
        let packed: String = text.split_ascii_whitespace().collect();
        let bytes = STANDARD.decode(packed).ok();
        bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| invalid("compose.compose_yaml: neither YAML nor base64 of it"))?
    };
    project(id, theirs, ComposeSpec::of_text(file))
}

fn project(
    id: &str,
    theirs: &agent::ComposeSpec,
    compose: ComposeSpec,
) -> Result<WorkloadSpec, No> {
    let mut spec = WorkloadSpec::bare(&name_of(id));
    spec.compose = Some(compose);
    spec.env.clone_from(&theirs.env);
    Ok(spec)
}

/// The agents' contract has no words for a repository; the control contract has. One that comes from there is kept in
/// the place of the text, as an extension that no compose file has alone.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromGit {
    #[serde(rename = "x-hostler-git")]
    git: GitSource,
}

/// The text that stands for a repository.
pub(super) fn from_git(repo: &str, reference: &str) -> String {
    let git = GitSource {
        repo: repo.trim().to_owned(),
        reference: (!reference.is_empty()).then(|| reference.to_owned()),
        ..GitSource::default()
    };
    serde_json::to_string(&FromGit { git }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn request(spec: Spec) -> agent::ApplyWorkloadRequest {
        agent::ApplyWorkloadRequest {
            id: "Shop/Web_1".to_owned(),
            revision_id: "r1".to_owned(),
            spec: Some(agent::WorkloadSpec { spec: Some(spec) }),
            ..agent::ApplyWorkloadRequest::default()
        }
    }

    fn web() -> agent::ContainerSpec {
        agent::ContainerSpec {
            image: "nginx:1".to_owned(),
            command: vec!["serve".to_owned()],
            args: vec!["--fast".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
            volumes: vec![agent::VolumeMount {
                host_path: "/srv".to_owned(),
                container_path: "/data".to_owned(),
                read_only: true,
            }],
            ports: vec![agent::PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: String::new(),
            }],
            resources: Some(agent::ResourceLimits {
                cpu_shares: 250,
                memory_bytes: 64 << 20,
                memory_swap_bytes: 1,
            }),
            restart_policy: Some(agent::RestartPolicy {
                policy: "on-failure".to_owned(),
                max_retry_count: 3,
            }),
            labels: BTreeMap::from([("team".to_owned(), "shop".to_owned())]),
            managed_volumes: Vec::new(),
        }
    }

    fn refused(spec: Spec) -> No {
        read(&request(spec)).unwrap_err()
    }

    #[test]
    fn a_container_is_taken_over_with_all_that_our_spec_can_hold() {
        let (kind, spec) = read(&request(Spec::Container(web()))).unwrap();
        assert_eq!((kind, spec.name.as_str()), (Kind::Container, "shop-web-1"));
        assert_eq!(spec.resources.cpu, MilliCpu(250));
        assert_eq!(spec.resources.memory, Bytes(64 << 20));
        assert_eq!(spec.restart.policy, RestartPolicy::OnFailure);
        assert_eq!((spec.ports[0].host, spec.ports[0].target), (8080, Some(80)));
        assert_eq!(spec.env["A"], "1");
        let container = spec.container.unwrap();
        assert_eq!(container.command, ["serve", "--fast"]);
        assert_eq!(container.mounts[0].source, "/srv");
        assert!(container.mounts[0].read_only);
        assert_eq!(container.labels["team"], "shop");
        assert_eq!(container.labels["persys.workload_id"], "Shop/Web_1");
        assert_eq!(container.labels["persys.revision_id"], "r1");
        assert_eq!(container.labels["persys.managed"], "true");
    }

    #[test]
    fn what_makes_no_sense_is_an_invalid_spec() {
        let wrong = |change: fn(&mut agent::ContainerSpec)| {
            let mut spec = web();
            change(&mut spec);
            refused(Spec::Container(spec))
        };
        for (no, part) in [
            (wrong(|it| it.image.clear()), "container.image"),
            (wrong(|it| it.ports[0].host_port = 0), "0 is no host port"),
            (wrong(|it| it.ports[0].container_port = 70_000), "70000"),
            (wrong(|it| it.ports[0].protocol = "sctp".into()), "sctp"),
            (
                wrong(|it| it.volumes[0].host_path = "srv/x".into()),
                "absolute",
            ),
            (
                wrong(|it| it.restart_policy.as_mut().unwrap().policy = "maybe".into()),
                "maybe",
            ),
            (
                wrong(|it| it.resources.as_mut().unwrap().memory_bytes = -1),
                "below zero",
            ),
        ] {
            assert_eq!(no.cause, causes::INVALID, "{part}");
            assert!(no.message.contains(part), "{part}: {}", no.message);
        }
        let mut nothing = request(Spec::Container(web()));
        nothing.spec = None;
        assert_eq!(read(&nothing).unwrap_err().cause, causes::INVALID);
        let mut other = request(Spec::Container(web()));
        other.r#type = agent::WorkloadType::Vm as i32;
        assert!(read(&other).unwrap_err().message.contains("agree"));
    }

    #[test]
    fn managed_volumes_are_ours_and_what_makes_no_sense_in_them_is_refused() {
        let with = |change: fn(&mut agent::ManagedVolumeSpec)| {
            let mut volume = agent::ManagedVolumeSpec {
                name: "data".to_owned(),
                driver: "Ceph_RBD".to_owned(),
                size_gb: 3,
                access_mode: "ReadWriteOnce".to_owned(),
                mount_path: "/data".to_owned(),
                retain_policy: "Retain".to_owned(),
                ..agent::ManagedVolumeSpec::default()
            };
            change(&mut volume);
            let mut container = web();
            container.managed_volumes.push(volume);
            read(&request(Spec::Container(container)))
        };
        let (_, spec) = with(|_| {}).unwrap();
        let volume = &spec.volumes()[0];
        assert_eq!((volume.driver.as_str(), volume.retain), ("ceph-rbd", true));
        assert_eq!(
            (volume.size, volume.target.as_str()),
            (Some(Bytes(3 << 30)), "/data")
        );
        let (_, usual) = with(|it| (it.driver, it.size_gb) = (String::new(), 0)).unwrap();
        assert_eq!(
            (usual.volumes()[0].driver.as_str(), usual.volumes()[0].size),
            ("local", None)
        );
        for wrong in [
            with(|it| it.driver = "tape".to_owned()),
            with(|it| it.mount_path.clear()),
            with(|it| it.size_gb = -1),
            with(|it| it.retain_policy = "Burn".to_owned()),
            with(|it| it.access_mode = "often".to_owned()),
        ] {
            assert_eq!(wrong.unwrap_err().cause, causes::INVALID);
        }
    }

    #[test]
    fn compose_text_is_plain_or_packed() {
        let yaml = "services:\n  web:\n    image: nginx\n";
        let packed = STANDARD.encode(yaml);
        for text in [yaml, packed.as_str()] {
            let spec = agent::ComposeSpec {
                compose_yaml: text.to_owned(),
                ..agent::ComposeSpec::default()
            };
            let (kind, spec) = read(&request(Spec::Compose(spec))).unwrap();
            assert_eq!(kind, Kind::Compose);
            assert_eq!(spec.compose.unwrap().file, yaml);
        }
        for text in ["", "%%%"] {
            let spec = agent::ComposeSpec {
                compose_yaml: text.to_owned(),
                ..agent::ComposeSpec::default()
            };
            assert_eq!(refused(Spec::Compose(spec)).cause, causes::INVALID);
        }
    }

    #[test]
    fn a_repository_takes_the_place_of_the_text_and_shows_no_credential() {
        let of = |repo: &str| {
            let spec = agent::ComposeSpec {
                compose_yaml: from_git(repo, "v1"),
                env: BTreeMap::from([("A".to_owned(), "1".to_owned())]),
                ..agent::ComposeSpec::default()
            };
            read(&request(Spec::Compose(spec)))
        };
        let (_, spec) = of("https://host/r.git").unwrap();
        let git = spec.compose.unwrap().git.unwrap();
        assert_eq!(git.repo, "https://host/r.git");
        assert_eq!(git.reference.as_deref(), Some("v1"));
        assert_eq!(spec.env["A"], "1");
        let no = of("https://s3cret@host/r.git").unwrap_err();
        assert_eq!(no.cause, causes::INVALID);
        assert!(no.message.contains("credential"), "{}", no.message);
        assert!(!no.message.contains("s3cret"), "{}", no.message);
        assert_eq!(of("").unwrap_err().cause, causes::INVALID);
    }

    #[test]
    fn an_id_always_has_the_same_assignment() {
        let id = assignment_of("web");
        assert_eq!(id.to_string(), "00000000-0000-7822-a5e0-1fe9e954b43b");
        assert_ne!(id, assignment_of("Web"));
        assert_eq!(name_of("///"), "workload");
        assert_eq!(name_of("Ä web"), "web");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reading_fail_badly(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(request) = agent::ApplyWorkloadRequest::decode(&bytes[..]) {
                let _ = read(&request);
            }
        }

        #[test]
        fn every_id_has_a_name_that_units_may_carry(id in ".{0,80}") {
            prop_assert!(hostler_model::spec::is_dns_label(&name_of(&id)));
        }

        #[test]
        fn any_container_is_read_or_refused(
            image in ".{0,12}", port in any::<i32>(), memory in any::<i64>(), policy in "[a-z-]{0,10}",
        ) {
            let mut spec = web();
            spec.image = image;
            spec.ports[0].host_port = port;
            spec.resources.as_mut().unwrap().memory_bytes = memory;
            spec.restart_policy.as_mut().unwrap().policy = policy;
            if let Ok((_, spec)) = read(&request(Spec::Container(spec))) {
                prop_assert!(spec.check().is_ok());
            }
        }
    }
}

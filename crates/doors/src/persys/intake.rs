//! A workload spec of the control contract as ours. Pure and deterministic: the same message gives the same spec,
//! so that it can be told later whether a kept payload still is what our spec says.
//!
//! What our spec has no word for stays in the payload. What makes no sense is refused with the field's name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hostler_model::spec::{
    CloudInit, ComposeSpec, ContainerSpec, GitSource, Kind, ManagedVolume, Mount, PortMapping,
    Protocol, RestartPolicy, VmDisk, VmNetwork, VmSpec, WorkloadSpec,
};
use hostler_model::{Bytes, MilliCpu, Resources};
use hostler_wire::persys::control::{self, workload_spec::Workload};

use super::register::{gibibytes, mebibytes};
use super::{full_vm, words};

/// What a disk has of which nothing is said, and where the guest finds the first.
const USUAL_DISK: Bytes = Bytes(20 << 30);
const USUAL_TARGET: &str = "vda";

/// Our spec for what came under that id, not yet checked by the domain.
pub(super) fn spec(id: &str, told: &control::WorkloadSpec) -> Result<WorkloadSpec, String> {
    let workload = told
        .workload
        .as_ref()
        .ok_or("spec: one of container, compose and vm is required")?;
    check_type(&told.r#type, workload)?;
    let mut spec = WorkloadSpec::bare(&words::name_of(id));
    spec.resources = resources(told.resources.as_ref())?;
    spec.labels = told.metadata.clone();
    spec.labels.remove(full_vm::KEY);
    match workload {
        Workload::Container(it) => container(&mut spec, it)?,
        Workload::Compose(it) => compose(&mut spec, it)?,
        Workload::Vm(it) => machine(&mut spec, it, told)?,
    }
    Ok(spec)
}

fn check_type(word: &str, workload: &Workload) -> Result<(), String> {
    let is = match workload {
        Workload::Container(_) => Kind::Container,
        Workload::Compose(_) => Kind::Compose,
        Workload::Vm(_) => Kind::Vm,
    };
    if word.trim().is_empty() || words::kind(word) == Some(is) {
        return Ok(());
    }
    Err(format!("spec.type `{word}` does not agree with spec.{is}"))
}

fn resources(told: Option<&control::ResourceRequirements>) -> Result<Resources, String> {
    let told = told.copied().unwrap_or_default();
    let amount = |field: &str, it: i64| {
        u64::try_from(it).map_err(|_| format!("resources.{field}: {it} is less than nothing"))
    };
    Ok(Resources {
        cpu: MilliCpu(amount("cpu_millicores", told.cpu_millicores)?),
        memory: mebibytes(amount("memory_mb", told.memory_mb)?),
        disk: gibibytes(amount("disk_gb", told.disk_gb)?),
    })
}

fn container(spec: &mut WorkloadSpec, told: &control::ContainerSpec) -> Result<(), String> {
    let mount = |it: &control::VolumeMount| Mount {
        source: it.host_path.clone(),
        target: it.container_path.clone(),
        read_only: it.read_only,
    };
    let volumes = volumes(&told.managed_volumes)?;
    spec.env = told.env.clone();
    spec.ports = told.ports.iter().map(port).collect::<Result<_, _>>()?;
    spec.restart.policy = restart(&told.restart_policy)?;
    spec.container = Some(ContainerSpec {
        mounts: told.volumes.iter().map(mount).collect(),
        labels: spec.labels.clone(),
        privileged: told.privileged,
        volumes,
        ..ContainerSpec::new(told.image.trim(), told.command.clone())
    });
    Ok(())
}

fn port(told: &control::Port) -> Result<PortMapping, String> {
    let number = |field: &str, it: i32| {
        let number = u16::try_from(it).ok().filter(|it| *it > 0);
        number.ok_or_else(|| format!("container.ports: {field} {it} is no port"))
    };
    let protocol = match told.protocol.trim().to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(format!("container.ports: protocol `{other}` is not known")),
    };
    Ok(PortMapping {
        name: None,
        host: number("host_port", told.host_port)?,
        target: Some(number("container_port", told.container_port)?),
        protocol,
    })
}

/// The scheduler keeps up what its spec says nothing about.
fn restart(word: &str) -> Result<RestartPolicy, String> {
    match word.trim().to_ascii_lowercase().as_str() {
        "" | "always" => Ok(RestartPolicy::Always),
        "no" => Ok(RestartPolicy::No),
        "on-failure" => Ok(RestartPolicy::OnFailure),
        "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        other => Err(format!("container.restart_policy `{other}` is not known")),
    }
}

fn compose(spec: &mut WorkloadSpec, told: &control::ComposeSpec) -> Result<(), String> {
    spec.env = told.env.clone();
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    spec.compose = Some(if told.source_type.trim().eq_ignore_ascii_case("git") {
        if told.git_repo.trim().is_empty() {
            return Err("compose.git_repo is required for source_type git".to_owned());
        }
        ComposeSpec {
            git: Some(GitSource {
                repo: told.git_repo.trim().to_owned(),
                reference: some(&told.git_ref),
                ..GitSource::default()
            }),
            ..ComposeSpec::default()
        }
    } else {
        if told.inline_yaml.trim().is_empty() {
            return Err("compose.inline_yaml is required".to_owned());
        }
        ComposeSpec::of_text(plain_yaml(&told.inline_yaml))
    });
    Ok(())
}

/// The text itself, or what it holds as base64: YAML of a project has colons, base64 has none.
fn plain_yaml(text: &str) -> String {
    let compact: String = text.split_whitespace().collect();
    let decoded = BASE64.decode(compact).ok().filter(|_| !text.contains(':'));
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.unwrap_or_else(|| text.to_owned())
}

fn machine(
    spec: &mut WorkloadSpec,
    told: &control::VmSpec,
    whole: &control::WorkloadSpec,
) -> Result<(), String> {
    let vm = match full_vm::of(&whole.metadata)? {
        Some(full) => full_vm::ours(&full)?,
        None => reduced(told)?,
    };
    // What the machine has is what it takes, if nothing else is said.
    if spec.resources.cpu == MilliCpu(0) {
        spec.resources.cpu = MilliCpu(u64::from(vm.cpus.unwrap_or_default()) * 1_000);
    }
    if spec.resources.memory == Bytes(0) {
        spec.resources.memory = vm.memory.unwrap_or_default();
    }
    spec.vm = Some(vm);
    Ok(())
}

fn reduced(told: &control::VmSpec) -> Result<VmSpec, String> {
    let disks = told.disks.iter().enumerate().map(|(number, it)| {
        let usual = (number == 0).then(|| USUAL_TARGET.to_owned());
        let told = size("vm.disks: size_gb", it.size_gb)?;
        Ok(VmDisk {
            pool: some(&it.pool_name),
            size: told.or(Some(USUAL_DISK)),
            target: some(&it.mount_point).or(usual),
            ..VmDisk::default()
        })
    });
    let network = |it: &control::NetworkConfig| VmNetwork {
        dhcp: it.dhcp,
        ..network(&it.bridge, &it.static_ip)
    };
    Ok(VmSpec {
        image: told.os_image.clone(),
        cpus: cpus(told.vcpus)?,
        memory: memory(told.memory_mb)?,
        disks: disks.collect::<Result<_, String>>()?,
        networks: told.networks.iter().map(network).collect(),
        cloud_init: told.cloud_init.as_ref().map(|it| CloudInit {
            user_data: it.user_data.clone(),
            meta_data: it.meta_data.clone(),
            network_config: it.network_config.clone(),
            vendor_data: it.vendor_data.clone(),
        }),
        volumes: volumes(&told.managed_volumes)?,
        ..VmSpec::default()
    })
}

/// An address counts on a network of the node's own only: on the one that every machine has it is not applied.
pub(super) fn network(name: &str, ip: &str) -> VmNetwork {
    let bridge = some(name).filter(|name| name != "default");
    let ip = some(ip).filter(|_| bridge.is_some());
    VmNetwork {
        bridge,
        ip,
        ..VmNetwork::default()
    }
}

/// Nothing for an empty text.
pub(super) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn cpus(told: i32) -> Result<Option<u32>, String> {
    let count =
        u32::try_from(told).map_err(|_| format!("vm.vcpus: {told} is less than nothing"))?;
    Ok((count > 0).then_some(count))
}

pub(super) fn memory(told: i64) -> Result<Option<Bytes>, String> {
    let count =
        u64::try_from(told).map_err(|_| format!("vm.memory_mb: {told} is less than nothing"))?;
    Ok((count > 0).then(|| mebibytes(count)))
}

/// An amount in GiB; nothing if it is zero.
pub(super) fn size(field: &str, told: i64) -> Result<Option<Bytes>, String> {
    let count = u64::try_from(told).map_err(|_| format!("{field} {told} is less than nothing"))?;
    Ok((count > 0).then(|| gibibytes(count)))
}

fn volumes(told: &[control::ManagedVolumeSpec]) -> Result<Vec<ManagedVolume>, String> {
    told.iter().map(volume).collect()
}

fn volume(told: &control::ManagedVolumeSpec) -> Result<ManagedVolume, String> {
    let name = &told.name;
    if name.is_empty() {
        return Err("managed_volumes: name is required".to_owned());
    }
    let local = || ManagedVolume::LOCAL.to_owned();
    let driver = words::storage_driver(&told.driver).unwrap_or_else(local);
    if !words::is_known_driver(&driver) {
        return Err(format!(
            "managed_volumes: driver `{driver}` of {name} is not known"
        ));
    }
    let retain = match told.retain_policy.trim().to_ascii_lowercase().as_str() {
        "" | "delete" => false,
        "retain" => true,
        other => {
            return Err(format!(
                "managed_volumes: retain_policy `{other}` of {name} is not known"
            ));
        }
    };
    Ok(ManagedVolume {
        name: name.clone(),
        driver,
        target: told.mount_path.clone(),
        size: size("managed_volumes: size_gb", told.size_gb)?,
        access_mode: some(&told.access_mode),
        fs_type: some(&told.fs_type),
        read_only: told.read_only,
        retain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(workload: Workload) -> control::WorkloadSpec {
        control::WorkloadSpec {
            workload: Some(workload),
            ..control::WorkloadSpec::default()
        }
    }

    fn container_of(image: &str) -> control::ContainerSpec {
        control::ContainerSpec {
            image: image.to_owned(),
            ..control::ContainerSpec::default()
        }
    }

    #[test]
    fn a_container_keeps_every_part() {
        let told = control::WorkloadSpec {
            r#type: "docker-container".to_owned(),
            resources: Some(control::ResourceRequirements {
                cpu_millicores: 250,
                memory_mb: 64,
                disk_gb: 1,
            }),
            metadata: [("team".to_owned(), "a".to_owned())].into(),
            ..of(Workload::Container(control::ContainerSpec {
                command: vec!["sh".to_owned()],
                env: [("A".to_owned(), "b".to_owned())].into(),
                volumes: vec![control::VolumeMount {
                    host_path: "/srv/a:b".to_owned(),
                    container_path: "/a".to_owned(),
                    read_only: true,
                }],
                ports: vec![control::Port {
                    host_port: 8081,
                    container_port: 80,
                    protocol: "UDP".to_owned(),
                }],
                restart_policy: "on-failure".to_owned(),
                privileged: true,
                managed_volumes: vec![control::ManagedVolumeSpec {
                    name: "data".to_owned(),
                    driver: "ceph_rbd".to_owned(),
                    size_gb: 3,
                    mount_path: "/data".to_owned(),
                    retain_policy: "Retain".to_owned(),
                    ..control::ManagedVolumeSpec::default()
                }],
                ..container_of("busybox:1")
            }))
        };
        let spec = spec("Team/Web 1", &told).unwrap();
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(spec.name, "team-web-1");
        assert_eq!(spec.resources.memory, Bytes(64 << 20));
        assert_eq!(spec.restart.policy, RestartPolicy::OnFailure);
        assert_eq!(spec.ports[0].protocol, Protocol::Udp);
        assert_eq!(spec.volumes()[0].driver, "ceph-rbd");
        let container = spec.container.unwrap();
        assert!(container.privileged && container.volumes[0].retain);
        assert_eq!(container.mounts[0].source, "/srv/a:b");
        assert_eq!(container.labels["team"], "a");
    }

    #[test]
    fn a_project_is_read_plain_from_base64_and_from_git() {
        let yaml = "services: {web: {image: a}}\n";
        let project = |inline: &str, source: &str| {
            of(Workload::Compose(control::ComposeSpec {
                source_type: source.to_owned(),
                inline_yaml: inline.to_owned(),
                git_repo: "https://git.example/x".to_owned(),
                ..control::ComposeSpec::default()
            }))
        };
        for inline in [yaml.to_owned(), BASE64.encode(yaml)] {
            let read = spec("x", &project(&inline, "inline")).unwrap();
            assert_eq!(read.compose.unwrap().file, yaml);
        }
        let read = spec("x", &project("", "GIT")).unwrap();
        let git = read.compose.unwrap().git.unwrap();
        assert_eq!(
            (git.repo.as_str(), git.reference),
            ("https://git.example/x", None)
        );
    }

    #[test]
    fn a_machine_takes_what_it_has() {
        let told = of(Workload::Vm(control::VmSpec {
            vcpus: 2,
            memory_mb: 512,
            disks: vec![control::DiskConfig {
                pool_name: "fast".to_owned(),
                size_gb: 5,
                mount_point: "vdb".to_owned(),
            }],
            networks: vec![control::NetworkConfig {
                bridge: "br0".to_owned(),
                dhcp: true,
                static_ip: "10.0.0.5".to_owned(),
            }],
            os_image: "debian".to_owned(),
            ..control::VmSpec::default()
        }));
        let spec = spec("x", &told).unwrap();
        assert_eq!(spec.check(), Ok(()));
        assert_eq!(spec.resources.cpu, MilliCpu(2_000));
        assert_eq!(spec.resources.memory, Bytes(512 << 20));
        let vm = spec.vm.unwrap();
        assert_eq!((vm.image.as_str(), vm.networks[0].dhcp), ("debian", true));
        assert_eq!(vm.disks[0].pool.as_deref(), Some("fast"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_mapping_panic(
            bytes in proptest::collection::vec(0_u8..=255, 0..200),
            text in "[ -~]{0,60}",
        ) {
            use prost::Message as _;
            if let Ok(told) = control::WorkloadSpec::decode(&*bytes) {
                if let Ok(spec) = spec("x", &told) {
                    let _ = spec.check();
                }
                let _ = crate::persys::outgo::to_agent("x", "x", &told);
            }
            let metadata = [(full_vm::KEY.to_owned(), BASE64.encode(&text))].into();
            let _ = full_vm::of(&metadata).map(|it| it.map(|it| full_vm::ours(&it)));
            let metadata = [(full_vm::KEY.to_owned(), text)].into();
            let _ = full_vm::of(&metadata);
        }

        #[test]
        fn messages_of_any_content_map_without_panic(
            numbers in proptest::collection::vec(proptest::num::i64::ANY, 5),
            text in ".{0,20}",
        ) {
            let small = |at: usize| i32::try_from(numbers[at] >> 32).unwrap_or_default();
            let mut told = of(Workload::Vm(control::VmSpec {
                vcpus: small(0),
                memory_mb: numbers[1],
                disks: vec![control::DiskConfig {
                    size_gb: numbers[2],
                    mount_point: text.clone(),
                    ..control::DiskConfig::default()
                }],
                ..control::VmSpec::default()
            }));
            told.resources = Some(control::ResourceRequirements {
                cpu_millicores: numbers[3],
                memory_mb: numbers[4],
                disk_gb: numbers[0],
            });
            let _ = spec(&text, &told).map(|it| it.check());
            let _ = crate::persys::outgo::to_agent(&text, &text, &told);
            let container = control::ContainerSpec {
                ports: vec![control::Port {
                    host_port: small(1),
                    container_port: small(2),
                    protocol: text.clone(),
                }],
                ..container_of(&text)
            };
            let _ = spec(&text, &of(Workload::Container(container))).map(|it| it.check());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        let container = |change: fn(&mut control::ContainerSpec)| {
            let mut it = container_of("a");
            change(&mut it);
            of(Workload::Container(it))
        };
        let typed = control::WorkloadSpec {
            r#type: "vm".to_owned(),
            ..of(Workload::Container(container_of("a")))
        };
        let hungry = control::WorkloadSpec {
            resources: Some(control::ResourceRequirements {
                memory_mb: -1,
                ..control::ResourceRequirements::default()
            }),
            ..of(Workload::Container(container_of("a")))
        };
        for (told, field) in [
            (control::WorkloadSpec::default(), "one of container"),
            (typed, "spec.type"),
            (hungry, "memory_mb"),
            (
                container(|it| it.restart_policy = "maybe".to_owned()),
                "restart_policy",
            ),
            (
                container(|it| it.ports = vec![control::Port::default()]),
                "host_port",
            ),
            (
                of(Workload::Compose(control::ComposeSpec::default())),
                "inline_yaml",
            ),
            (
                of(Workload::Vm(control::VmSpec {
                    vcpus: -1,
                    ..control::VmSpec::default()
                })),
                "vcpus",
            ),
        ] {
            let refused = spec("x", &told).unwrap_err();
            assert!(refused.contains(field), "{field}: {refused}");
        }
    }
}

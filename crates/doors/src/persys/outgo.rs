//! What an agent is given to run: a kept payload replayed, or our own spec in the contract's words. Pure and
//! deterministic: the same input gives the same bytes.

use hostler_model::spec::{
    CloudInit, ComposeSpec, ContainerSpec, ManagedVolume, Protocol, PullPolicy, RestartPolicy,
    VmSpec, WorkloadSpec,
};
use hostler_wire::persys::agent::{self, workload_spec::Spec};
use hostler_wire::persys::control::{self, workload_spec::Workload};

use super::{full_vm, words};

/// Size of a disk that names none, in GiB.
const DISK_GB: i64 = 20;
/// Where the agent keeps disks.
const IMAGES: &str = "/var/lib/libvirt/images";
/// Device of a disk that names none.
const DEVICE: &str = "vda";

/// The kind of a spec as the agent contract numbers it.
pub(super) const fn workload_type(spec: &agent::WorkloadSpec) -> i32 {
    match &spec.spec {
        Some(Spec::Container(_)) => agent::WorkloadType::Container as i32,
        Some(Spec::Compose(_)) => agent::WorkloadType::Compose as i32,
        Some(Spec::Vm(_)) => agent::WorkloadType::Vm as i32,
        None => agent::WorkloadType::Unspecified as i32,
    }
}

/// A spec of the control contract for the agent, under the id that the agent knows it by.
pub(super) fn to_agent(
    id: &str,
    name: &str,
    told: &control::WorkloadSpec,
) -> Result<agent::WorkloadSpec, String> {
    let spec = match &told.workload {
        Some(Workload::Container(it)) => Spec::Container(container(it, told)),
        Some(Workload::Compose(it)) => Spec::Compose(compose(name, it)?),
        Some(Workload::Vm(it)) => Spec::Vm(machine(id, name, it, told)?),
        None => return Err("the spec has no workload".to_owned()),
    };
    Ok(agent::WorkloadSpec { spec: Some(spec) })
}

/// Our own spec for the agent.
pub(super) fn ours_to_agent(id: &str, spec: &WorkloadSpec) -> Result<agent::WorkloadSpec, String> {
    let mut mapped = to_agent(id, &spec.name, &to_control(spec)?)?;
    if let (Some(Spec::Container(out)), Some(container)) = (&mut mapped.spec, &spec.container)
        && let Some(entrypoint) = &container.entrypoint
    {
        out.command.clone_from(entrypoint);
        out.args.clone_from(&container.command);
    }
    Ok(mapped)
}

/// Our own spec in the control contract's words; what they cannot say is refused, never left out.
pub(super) fn to_control(spec: &WorkloadSpec) -> Result<control::WorkloadSpec, String> {
    let amount = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    let memory = spec.limits.memory.unwrap_or(spec.resources.memory);
    let resources = control::ResourceRequirements {
        cpu_millicores: amount(spec.resources.cpu.0),
        memory_mb: amount(memory.0 >> 20),
        disk_gb: amount(spec.resources.disk.0 >> 30),
    };
    let workload = match (&spec.container, &spec.compose, &spec.vm) {
        (Some(it), _, _) => Workload::Container(control_container(spec, it)?),
        (_, Some(it), _) => Workload::Compose(control_project(spec, it)?),
        (_, _, Some(it)) => Workload::Vm(control_machine(it)),
        _ => return Err(format!("a Persys agent runs no {}", spec.kind())),
    };
    let labels = spec.container.as_ref().map(|it| it.labels.clone());
    Ok(control::WorkloadSpec {
        r#type: spec.kind().as_str().to_owned(),
        resources: Some(resources),
        metadata: labels.unwrap_or_default(),
        workload: Some(workload),
    })
}

fn control_container(
    spec: &WorkloadSpec,
    it: &ContainerSpec,
) -> Result<control::ContainerSpec, String> {
    check_sayable(spec, it)?;
    let mount = |mount: &hostler_model::spec::Mount| control::VolumeMount {
        host_path: mount.source.clone(),
        container_path: mount.target.clone(),
        read_only: mount.read_only,
    };
    let port = |port: &hostler_model::spec::PortMapping| control::Port {
        host_port: i32::from(port.host),
        container_port: i32::from(port.target.unwrap_or(port.host)),
        protocol: match port.protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
        },
    };
    let entrypoint = it.entrypoint.iter().flatten();
    Ok(control::ContainerSpec {
        image: it.image.clone(),
        command: entrypoint.chain(&it.command).cloned().collect(),
        env: spec.env.clone(),
        volumes: it.mounts.iter().map(mount).collect(),
        ports: spec.ports.iter().map(port).collect(),
        restart_policy: match spec.restart.policy {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::UnlessStopped => "unless-stopped",
            RestartPolicy::No => "no",
        }
        .to_owned(),
        privileged: false,
        managed_volumes: it.volumes.iter().map(managed).collect(),
    })
}

/// The contract has no words for these, and a copy without them would not be what was asked for.
fn check_sayable(spec: &WorkloadSpec, it: &ContainerSpec) -> Result<(), String> {
    let unsayable = [
        ("container.working_dir", it.working_dir.is_some()),
        ("container.user", it.user.is_some()),
        ("container.pull", it.pull != PullPolicy::Missing),
        (
            "container.network",
            it.network.as_deref().is_some_and(|it| it != "bridge"),
        ),
        ("container.privileged", it.privileged),
        ("limits.cpu", spec.limits.cpu.is_some()),
        ("limits.pids", spec.limits.pids.is_some()),
        ("limits.open_files", spec.limits.open_files.is_some()),
        ("stop.signal", spec.stop.signal != "TERM"),
    ];
    match unsayable.iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((key, _)) => Err(format!("a Persys agent cannot be told `{key}`")),
    }
}

fn control_machine(it: &VmSpec) -> control::VmSpec {
    let gigabytes = |size: Option<hostler_model::Bytes>| {
        let size = size.unwrap_or_default().0.div_ceil(1 << 30);
        i64::try_from(size).unwrap_or(i64::MAX)
    };
    let disk = |disk: &hostler_model::spec::VmDisk| control::DiskConfig {
        pool_name: disk.pool.clone().unwrap_or_default(),
        size_gb: gigabytes(disk.size),
        mount_point: disk.target.clone().unwrap_or_default(),
    };
    let network = |network: &hostler_model::spec::VmNetwork| control::NetworkConfig {
        bridge: network.bridge.clone().unwrap_or_default(),
        dhcp: network.dhcp,
        static_ip: network.ip.clone().unwrap_or_default(),
    };
    let init = |it: &CloudInit| control::CloudInitConfig {
        user_data: it.user_data.clone(),
        meta_data: it.meta_data.clone(),
        network_config: it.network_config.clone(),
        vendor_data: it.vendor_data.clone(),
    };
    let memory = it.memory.unwrap_or_default().0 >> 20;
    control::VmSpec {
        vcpus: i32::try_from(it.cpus.unwrap_or_default()).unwrap_or(i32::MAX),
        memory_mb: i64::try_from(memory).unwrap_or(i64::MAX),
        disks: it.disks.iter().map(disk).collect(),
        networks: it.networks.iter().map(network).collect(),
        cloud_init: it.cloud_init.as_ref().map(init),
        os_image: it.image.clone(),
        managed_volumes: it.volumes.iter().map(managed).collect(),
    }
}

fn managed(it: &ManagedVolume) -> control::ManagedVolumeSpec {
    let size = it.size.unwrap_or_default().0.div_ceil(1 << 30);
    control::ManagedVolumeSpec {
        name: it.name.clone(),
        driver: it.driver.clone(),
        size_gb: i64::try_from(size).unwrap_or(i64::MAX),
        access_mode: it.access_mode.clone().unwrap_or_default(),
        fs_type: it.fs_type.clone().unwrap_or_default(),
        mount_path: it.target.clone(),
        read_only: it.read_only,
        retain_policy: if it.retain { "Retain" } else { "Delete" }.to_owned(),
    }
}

fn container(it: &control::ContainerSpec, told: &control::WorkloadSpec) -> agent::ContainerSpec {
    let resources = told.resources.unwrap_or_default();
    let mount = |it: &control::VolumeMount| agent::VolumeMount {
        host_path: it.host_path.clone(),
        container_path: it.container_path.clone(),
        read_only: it.read_only,
    };
    let port = |it: &control::Port| agent::PortMapping {
        host_port: it.host_port,
        container_port: it.container_port,
        protocol: it.protocol.clone(),
    };
    let mut labels = told.metadata.clone();
    // The agent contract has no field for it; an agent that knows the label can honour it.
    if it.privileged {
        labels.insert("persys.privileged".to_owned(), "true".to_owned());
    }
    agent::ContainerSpec {
        image: it.image.clone(),
        command: it.command.clone(),
        args: Vec::new(),
        env: it.env.clone(),
        volumes: it.volumes.iter().map(mount).collect(),
        ports: it.ports.iter().map(port).collect(),
        resources: told.resources.is_some().then(|| agent::ResourceLimits {
            cpu_shares: resources.cpu_millicores,
            memory_bytes: resources.memory_mb.saturating_mul(1 << 20),
            memory_swap_bytes: 0,
        }),
        restart_policy: (!it.restart_policy.is_empty()).then(|| agent::RestartPolicy {
            policy: it.restart_policy.clone(),
            max_retry_count: 0,
        }),
        labels,
        managed_volumes: it.managed_volumes.iter().map(volume).collect(),
    }
}

fn compose(name: &str, it: &control::ComposeSpec) -> Result<agent::ComposeSpec, String> {
    if it.source_type.trim().eq_ignore_ascii_case("git") {
        return Err("a Persys agent cannot fetch a compose project from git".to_owned());
    }
    Ok(agent::ComposeSpec {
        project_name: name.to_owned(),
        compose_yaml: it.inline_yaml.clone(),
        env: it.env.clone(),
    })
}

fn control_project(spec: &WorkloadSpec, it: &ComposeSpec) -> Result<control::ComposeSpec, String> {
    let env = spec.env.clone();
    let Some(git) = &it.git else {
        return Ok(control::ComposeSpec {
            source_type: "inline".to_owned(),
            inline_yaml: it.text()?.unwrap_or_default(),
            env,
            ..control::ComposeSpec::default()
        });
    };
    if git.path.is_some() || git.token_file.is_some() {
        return Err(
            "compose.git.path and compose.git.token_file have no place in Persys's words"
                .to_owned(),
        );
    }
    Ok(control::ComposeSpec {
        source_type: "git".to_owned(),
        git_repo: git.repo.clone(),
        git_ref: git.reference.clone().unwrap_or_default(),
        env,
        ..control::ComposeSpec::default()
    })
}

fn machine(
    id: &str,
    name: &str,
    it: &control::VmSpec,
    told: &control::WorkloadSpec,
) -> Result<agent::VmSpec, String> {
    if let Some(full) = full_vm::of(&told.metadata)? {
        return Ok(full);
    }
    let network = |it: &control::NetworkConfig| agent::NetworkConfig {
        network: it.bridge.clone(),
        mac_address: String::new(),
        ip_address: it.static_ip.clone(),
    };
    let init = |it: &control::CloudInitConfig| agent::CloudInitConfig {
        user_data: it.user_data.clone(),
        meta_data: it.meta_data.clone(),
        network_config: it.network_config.clone(),
        vendor_data: it.vendor_data.clone(),
    };
    let mut metadata = told.metadata.clone();
    metadata.remove(full_vm::KEY);
    keep_unsaid(&mut metadata, it);
    Ok(agent::VmSpec {
        name: name.to_owned(),
        vcpus: it.vcpus,
        memory_mb: it.memory_mb,
        disks: it.disks.iter().map(|it| disk(id, it)).collect(),
        networks: it.networks.iter().map(network).collect(),
        cloud_init: String::new(),
        metadata,
        cloud_init_config: it.cloud_init.as_ref().map(init),
        managed_volumes: it.managed_volumes.iter().map(volume).collect(),
    })
}

/// What the agent contract has no field for goes along as labels: nothing is dropped on the way.
fn keep_unsaid(metadata: &mut std::collections::BTreeMap<String, String>, it: &control::VmSpec) {
    if !it.os_image.is_empty() {
        metadata.insert("persys.os_image".to_owned(), it.os_image.clone());
    }
    for disk in it.disks.iter().filter(|disk| !disk.pool_name.is_empty()) {
        let key = format!("persys.pool_name.{}", device(disk));
        metadata.insert(key, disk.pool_name.clone());
    }
    for (number, _) in it.networks.iter().enumerate().filter(|(_, it)| it.dhcp) {
        metadata.insert(format!("persys.dhcp.{number}"), "true".to_owned());
    }
}

fn device(disk: &control::DiskConfig) -> &str {
    if disk.mount_point.is_empty() {
        DEVICE
    } else {
        &disk.mount_point
    }
}

fn disk(id: &str, it: &control::DiskConfig) -> agent::DiskConfig {
    let device = device(it);
    agent::DiskConfig {
        path: format!("{IMAGES}/{id}-{device}.qcow2"),
        device: device.to_owned(),
        format: "qcow2".to_owned(),
        size_gb: if it.size_gb > 0 { it.size_gb } else { DISK_GB },
        r#type: "disk".to_owned(),
        boot: false,
    }
}

fn volume(it: &control::ManagedVolumeSpec) -> agent::ManagedVolumeSpec {
    agent::ManagedVolumeSpec {
        name: it.name.clone(),
        driver: words::storage_driver(&it.driver).unwrap_or_default(),
        size_gb: it.size_gb,
        access_mode: it.access_mode.clone(),
        fs_type: it.fs_type.clone(),
        mount_path: it.mount_path.clone(),
        read_only: it.read_only,
        retain_policy: it.retain_policy.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persys::intake;

    #[test]
    fn disks_get_a_path_of_their_own_and_what_has_no_field_goes_along() {
        let told = control::WorkloadSpec {
            workload: Some(Workload::Vm(control::VmSpec {
                vcpus: 2,
                disks: vec![control::DiskConfig {
                    pool_name: "fast".to_owned(),
                    ..control::DiskConfig::default()
                }],
                networks: vec![control::NetworkConfig {
                    bridge: "br0".to_owned(),
                    dhcp: true,
                    static_ip: "10.0.0.5".to_owned(),
                }],
                os_image: "debian".to_owned(),
                ..control::VmSpec::default()
            })),
            ..control::WorkloadSpec::default()
        };
        let Some(Spec::Vm(vm)) = to_agent("vm-1", "vm", &told).unwrap().spec else {
            panic!("a machine")
        };
        assert_eq!(vm.disks[0].path, "/var/lib/libvirt/images/vm-1-vda.qcow2");
        assert_eq!(
            (vm.disks[0].size_gb, vm.disks[0].format.as_str()),
            (20, "qcow2")
        );
        assert_eq!(
            (
                vm.networks[0].network.as_str(),
                vm.networks[0].ip_address.as_str()
            ),
            ("br0", "10.0.0.5")
        );
        assert_eq!(vm.metadata["persys.os_image"], "debian");
        assert_eq!(vm.metadata["persys.pool_name.vda"], "fast");
        assert_eq!(vm.metadata["persys.dhcp.0"], "true");
    }

    #[test]
    fn our_own_spec_comes_back_as_it_was() {
        let text = "name: web
container: {image: a, command: [b], mounts: [{source: /a, target: /b}], volumes: [{name: v, target: /v, retain: true}]}
env: {A: b}
resources: {cpu: 100m, memory: 64MiB, disk: 1GiB}
ports: [{host: 8081, target: 80, protocol: udp}]
restart: {policy: on-failure}
";
        let spec = hostler_model::spec::parse_one(text).unwrap();
        assert_eq!(intake::spec("web", &to_control(&spec).unwrap()), Ok(spec));
    }

    #[test]
    fn what_the_contract_cannot_say_is_refused_and_never_left_out() {
        for (text, key) in [
            ("container: {image: a, user: nobody}", "container.user"),
            ("container: {image: a, network: host}", "container.network"),
            ("container: {image: a}\nlimits: {pids: 5}", "limits.pids"),
            ("process: {command: [a]}", "process"),
        ] {
            let spec = hostler_model::spec::parse_one(&format!("name: x\n{text}\n")).unwrap();
            let refused = ours_to_agent("x", &spec).unwrap_err();
            assert!(refused.contains(key), "{refused}");
        }
    }
}

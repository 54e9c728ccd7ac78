use bollard::models::{
    EndpointSettings, Mount as EngineMount, MountPoint, MountTmpfsOptions, MountType,
    NetworkSettings, PortBinding,
};
use hostler_model::spec::Tmpfs;

use super::*;

fn of(host: HostConfig) -> Adoptable {
    let seen = ContainerInspectResponse {
        id: Some("abc123".to_owned()),
        name: Some("/web".to_owned()),
        host_config: Some(host),
        config: Some(ContainerConfig {
            image: Some("web:1".to_owned()),
            hostname: Some("abc".to_owned()),
            cmd: Some(vec!["serve".to_owned()]),
            ..ContainerConfig::default()
        }),
        ..ContainerInspectResponse::default()
    };
    adoptable(seen, &ImageConfig::default())
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn list(value: &str) -> Option<Vec<String>> {
    Some(vec![value.to_owned()])
}

#[test]
fn a_plain_container_has_nothing_to_note_and_shares_nothing() {
    let plain = of(HostConfig {
        ipc_mode: text("private"),
        pid_mode: text(""),
        runtime: text("runc"),
        shm_size: Some(64 << 20),
        memory_reservation: Some(0),
        masked_paths: list("/proc/kcore"),
        ..HostConfig::default()
    });
    assert!(plain.notes.is_empty(), "{:?}", plain.notes);
    assert!(!plain.shares_node);
    let container = plain.spec.container.unwrap();
    assert_eq!((container.shm_size, container.hostname), (None, None));
}

#[test]
fn what_no_spec_can_say_of_the_node_counts_as_privileges() {
    let plain = HostConfig::default;
    for host in [
        HostConfig {
            pid_mode: text("host"),
            ..plain()
        },
        HostConfig {
            ipc_mode: text("container:db"),
            ..plain()
        },
        HostConfig {
            userns_mode: text("host"),
            ..plain()
        },
        HostConfig {
            network_mode: text("container:db"),
            ..plain()
        },
        HostConfig {
            security_opt: list("seccomp=unconfined"),
            ..plain()
        },
        HostConfig {
            device_cgroup_rules: list("a *:* rwm"),
            ..plain()
        },
        HostConfig {
            cgroup_parent: text("/all"),
            ..plain()
        },
        HostConfig {
            masked_paths: Some(Vec::new()),
            ..plain()
        },
    ] {
        let told = format!("{host:?}");
        let it = of(host);
        assert!(it.shares_node, "{told}");
        assert!(it.judged().container.unwrap().privileged, "{told}");
        assert!(!it.spec.container.unwrap().privileged, "{told}");
    }
    let modest = of(HostConfig {
        security_opt: list("no-new-privileges:true"),
        ..plain()
    });
    assert!(!modest.shares_node);
}

#[test]
fn what_the_next_container_will_not_have_is_told() {
    let binding = PortBinding {
        host_ip: text("127.0.0.1"),
        host_port: text("8080"),
    };
    let it = of(HostConfig {
        security_opt: list("apparmor=mine"),
        pid_mode: text("host"),
        group_add: list("video"),
        runtime: text("nvidia"),
        sysctls: Some([("net.core.somaxconn".to_owned(), "9".to_owned())].into()),
        device_requests: Some(vec![bollard::models::DeviceRequest::default()]),
        memory_reservation: Some(1024),
        port_bindings: Some([("80/tcp".to_owned(), Some(vec![binding]))].into()),
        tmpfs: Some([("/run".to_owned(), "rw,size=64m,mode=1777,uid=7".to_owned())].into()),
        ..HostConfig::default()
    });
    for word in [
        "apparmor=mine",
        "pid namespace",
        "video",
        "nvidia",
        "net.core.somaxconn",
        "GPUs",
        "1024 bytes",
        "127.0.0.1",
        "uid=7",
    ] {
        let told = it.notes.iter().filter(|note| note.contains(word)).count();
        assert_eq!(told, 1, "{word}: {:?}", it.notes);
    }
    assert_eq!(it.spec.resources.memory, Bytes(0), "it would be a limit");
}

#[test]
fn a_second_network_is_told() {
    let networks = ["bridge", "back"].map(|name| (name.to_owned(), EndpointSettings::default()));
    let seen = ContainerInspectResponse {
        host_config: Some(HostConfig::default()),
        network_settings: Some(NetworkSettings {
            networks: Some(networks.into()),
            ..NetworkSettings::default()
        }),
        ..ContainerInspectResponse::default()
    };
    let notes = unsaid::notes(&seen);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("`back`"), "{notes:?}");
}

#[test]
fn bounds_volumes_and_file_systems_in_memory_are_carried_over() {
    let in_memory = EngineMount {
        typ: Some(MountType::TMPFS),
        target: text("/tmp"),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: Some(4096),
            mode: Some(0o700),
            options: None,
        }),
        ..EngineMount::default()
    };
    let host = HostConfig {
        shm_size: Some(1 << 20),
        cpu_quota: Some(50_000),
        memory: Some(2048),
        memory_reservation: Some(1024),
        tmpfs: Some([("/run".to_owned(), "rw,noexec,size=64m,mode=1777".to_owned())].into()),
        mounts: Some(vec![in_memory]),
        ..HostConfig::default()
    };
    let it = of(host);
    assert!(it.notes.is_empty(), "{:?}", it.notes);
    assert_eq!(it.spec.limits.cpu, Some(MilliCpu(500)));
    assert_eq!(it.spec.limits.memory, Some(Bytes(2048)));
    assert_eq!(it.spec.resources.memory, Bytes(1024));
    let mut container = it.spec.container.unwrap();
    assert_eq!(container.shm_size, Some(Bytes(1 << 20)));
    let tmpfs = |target: &str, size, mode: &str| Tmpfs {
        target: target.to_owned(),
        size: Some(Bytes(size)),
        mode: text(mode),
    };
    let expected = [tmpfs("/run", 64 << 20, "1777"), tmpfs("/tmp", 4096, "700")];
    assert_eq!(container.tmpfs, expected);

    let volume = MountPoint {
        typ: text("volume"),
        name: text("data"),
        source: text("/var/lib/docker/volumes/data/_data"),
        destination: text("/data"),
        ..MountPoint::default()
    };
    let mut notes = Vec::new();
    mounts(vec![volume], &mut container, &mut notes);
    assert_eq!(container.mounts[0].source, "data");
    assert!(notes.is_empty(), "{notes:?}");
}

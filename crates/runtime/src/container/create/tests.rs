use std::sync::Arc;

use hostler_model::spec::{Limits, PortMapping};
use hostler_model::{AssignmentId, Bytes, MilliCpu, Timestamp, UnitId, WorkloadId};

use super::*;
use crate::Place;

#[test]
fn a_spec_becomes_the_engines_words() {
    let mut spec = WorkloadSpec::of_container("web", "busybox:local", vec!["sh".to_owned()]);
    spec.resources.cpu = MilliCpu(500);
    spec.resources.memory = Bytes(64 << 20);
    spec.limits = Limits {
        cpu: Some(MilliCpu(1500)),
        ..Limits::default()
    };
    let mapping = |host, target, protocol| PortMapping {
        name: None,
        host,
        target,
        protocol,
    };
    spec.ports = vec![
        mapping(8081, Some(80), Protocol::Tcp),
        mapping(8082, Some(80), Protocol::Tcp),
    ];
    spec.env
        .insert("HOSTLER_SLOT".to_owned(), "mine".to_owned());
    let now = Timestamp::from_millis(1_700_000_000_000);
    let unit = Unit {
        id: UnitId {
            assignment: AssignmentId::mint(now, 7),
            generation: 3,
        },
        workload: WorkloadId::mint(now, 8),
        workload_name: "web".to_owned(),
        slot: 2,
        spec: Arc::new(spec),
        volumes: Vec::new(),
    };
    assert_eq!(name_of(&unit), "hostler-web-2-00000007-g3");
    let body = body_of(&unit, "busybox:local", "node");
    let host = body.host_config.unwrap();
    assert_eq!(
        (host.nano_cpus, host.cpu_shares),
        (Some(1_500_000_000), Some(512))
    );
    assert_eq!(
        (host.memory, host.memory_swap),
        (Some(64 << 20), Some(64 << 20))
    );
    assert_eq!(
        host.restart_policy.unwrap().name,
        Some(RestartPolicyNameEnum::NO)
    );
    let published = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
    assert_eq!(published.len(), 2, "two host ports lead to one");
    let environment = body.env.unwrap();
    assert!(
        environment.contains(&"HOSTLER_SLOT=mine".to_owned()),
        "{environment:?}"
    );
    assert_eq!(body.labels.unwrap()["hostler.owner"], "node");
}

#[test]
fn a_managed_volume_is_refused_and_never_left_out() {
    let mut spec = WorkloadSpec::of_container("web", "busybox:local", Vec::new());
    let now = Timestamp::from_millis(1);
    let unit = |spec: &WorkloadSpec| Unit {
        id: UnitId {
            assignment: AssignmentId::mint(now, 7),
            generation: 1,
        },
        workload: WorkloadId::mint(now, 8),
        workload_name: "web".to_owned(),
        slot: 0,
        spec: Arc::new(spec.clone()),
        volumes: Vec::new(),
    };
    assert!(unit(&spec).check_volumes().is_ok());
    let text = r#"{"name": "data", "target": "/data"}"#;
    let volume = serde_json::from_str(text).unwrap();
    spec.container.as_mut().unwrap().volumes.push(volume);
    let refused = unit(&spec).check_volumes().unwrap_err();
    assert!(refused.to_string().contains("`data`"), "{refused}");

    let mut attached = unit(&spec);
    attached.volumes.push(Attached {
        name: "data".to_owned(),
        target: "/data".to_owned(),
        read_only: true,
        place: Place::Directory("/srv/data".into()),
    });
    assert!(attached.check_volumes().is_ok());
    let body = body_of(&attached, "busybox:local", "node");
    let mounts = body.host_config.unwrap().mounts.unwrap();
    let mount = (&mounts[0].source, &mounts[0].target, mounts[0].read_only);
    let expected = (Some("/srv/data".to_owned()), Some("/data".to_owned()));
    assert_eq!(mount, (&expected.0, &expected.1, Some(true)));
}

#[test]
fn a_mount_of_no_path_is_a_volume_of_the_engine_that_is_kept() {
    let told = |source: &str| {
        let mut spec = WorkloadSpec::of_container("web", "busybox:local", Vec::new());
        spec.container.as_mut().unwrap().mounts = vec![hostler_model::spec::Mount {
            source: source.to_owned(),
            target: "/data".to_owned(),
            read_only: false,
        }];
        let body = body_of(&unit_of(spec), "busybox:local", "node");
        let mount = body.host_config.unwrap().mounts.unwrap().remove(0);
        let is_kept = body.labels.unwrap().contains_key(LABEL_VOLUMES);
        (mount.typ, mount.source, is_kept)
    };
    let (bind, volume) = (Some(MountType::BIND), Some(MountType::VOLUME));
    assert_eq!(told("/data"), (bind, Some("/data".to_owned()), false));
    assert_eq!(told("data"), (volume, Some("data".to_owned()), true));
}

#[test]
fn a_container_is_privileged_only_if_its_spec_says_so() {
    let privileged = |asked: bool| {
        let mut spec = WorkloadSpec::of_container("web", "busybox:local", Vec::new());
        spec.container.as_mut().unwrap().privileged = asked;
        host_config(&spec, spec.container.as_ref()).privileged
    };
    assert_eq!(
        (privileged(true), privileged(false)),
        (Some(true), Some(false))
    );
}

fn unit_of(spec: WorkloadSpec) -> Unit {
    let now = Timestamp::from_millis(1_700_000_000_000);
    Unit {
        id: UnitId {
            assignment: AssignmentId::mint(now, 7),
            generation: 3,
        },
        workload: WorkloadId::mint(now, 8),
        workload_name: spec.name.clone(),
        slot: 2,
        spec: Arc::new(spec),
        volumes: Vec::new(),
    }
}

/// Every key of the section, none as it is if left out.
const EVERY_KEY: &str = r#"
name: web
container:
  image: registry.example/web:1
  command: [serve, --fast]
  entrypoint: [/bin/web]
  working_dir: /srv
  user: "1000:1000"
  pull: always
  mounts: [{ source: /srv/www, target: /srv, read_only: true }]
  tmpfs: [{ target: /run, size: 1MiB, mode: "1777" }, { target: /scratch }]
  network: back
  aliases: [web, www]
  hostname: box
  dns: [10.0.0.1]
  extra_hosts: { db: 10.0.0.2, me: host-gateway }
  labels: { team: a, hostler.owner: "not theirs to say" }
  privileged: true
  capabilities: { add: [cap_net_admin], drop: [ALL] }
  devices: [{ source: /dev/null }, { source: /dev/zero, target: /dev/nought, permissions: r }]
  read_only: true
  ulimits: { core: { soft: 0 }, memlock: { soft: 5, hard: -1 } }
  shm_size: 8MiB
  init: true
  healthcheck: { command: [/bin/ask, me], interval_ms: 1500, timeout_ms: 50, start_period_ms: 10, retries: 2 }
  log: { driver: local, options: { max-size: 1m } }
env: { GREETING: hello }
resources: { cpu: 250m, memory: 64MiB }
limits: { cpu: 500m, memory: 128MiB, pids: 100, open_files: 1024 }
ports: [{ host: 8081, target: 80 }, { host: 53, protocol: udp }]
stop: { signal: INT, grace_ms: 1500 }
"#;

#[test]
fn every_key_of_a_spec_is_in_the_request_as_the_engine_words_it() {
    let spec = hostler_model::spec::parse_one(EVERY_KEY).unwrap();
    let body =
        serde_json::to_value(body_of(&unit_of(spec), "registry.example/web:1", "node")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("every_key.json")).unwrap();
    // The engine takes the environment in any order; ours is sorted.
    assert_eq!(body, golden, "{body:#}");
}

#[test]
fn a_spec_without_extras_asks_for_nothing_that_its_image_does_not_say() {
    let spec = WorkloadSpec::of_container("web", "busybox:local", Vec::new());
    let body = serde_json::to_value(body_of(&unit_of(spec), "busybox:local", "node")).unwrap();
    for key in [
        "Cmd",
        "Entrypoint",
        "User",
        "WorkingDir",
        "Healthcheck",
        "Hostname",
        "NetworkingConfig",
    ] {
        assert!(
            body.get(key).is_none_or(serde_json::Value::is_null),
            "{key}: {body:#}"
        );
    }
    let host = &body["HostConfig"];
    for key in [
        "CapAdd",
        "CapDrop",
        "Devices",
        "Dns",
        "ExtraHosts",
        "Init",
        "NetworkMode",
        "ShmSize",
        "Ulimits",
    ] {
        assert!(
            host.get(key).is_none_or(serde_json::Value::is_null),
            "{key}: {host:#}"
        );
    }
    assert_eq!(
        host["LogConfig"]["Config"]["max-size"], "8m",
        "a container cannot fill the disk with words"
    );
}

#[test]
fn an_images_own_check_is_left_alone_changed_in_part_or_switched_off() {
    let test = |check: &Healthcheck| healthcheck(check).test;
    let part = Healthcheck {
        retries: Some(5),
        ..Healthcheck::default()
    };
    assert_eq!((test(&part), healthcheck(&part).retries), (None, Some(5)));
    let off = Healthcheck {
        disabled: true,
        ..Healthcheck::default()
    };
    assert_eq!(test(&off), Some(vec!["NONE".to_owned()]));
}

//! The settings from data: no test touches the process's own environment.

use super::super::file::FILE;
use super::super::line::{Apply, Verb};
use super::*;
use crate::status::ExitStatus;

fn given(line: &str) -> Result<Given, Failure> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Given::parse(&words)
}

fn resolve(line: &str, variables: &[(&str, &str)]) -> Result<Settings, Failure> {
    Settings::resolve(&given(line)?, &Environment::of(variables))
}

#[test]
fn flags_take_one_dash_or_two() {
    for line in [
        "-standalone -insecure -config a.yaml",
        "--standalone --insecure --config=a.yaml",
        "--insecure=true -config=a.yaml -standalone=1",
    ] {
        let given = given(line).unwrap();
        assert!(given.standalone && given.insecure, "{line}");
        assert_eq!(given.config, Some(PathBuf::from("a.yaml")), "{line}");
    }
    for (line, part) in [
        ("-nothing", "-nothing"),
        ("--config", "needs a value"),
        ("-standalone=maybe", "neither true nor false"),
        ("--id web", "--id says nothing"),
        ("apply", "--id"),
        ("frob --id web", "frob"),
        ("delete --id web more", "more"),
        ("delete --id web --type x", "--type"),
    ] {
        let refused = given(line).unwrap_err();
        assert_eq!(refused.status, ExitStatus::Usage);
        assert!(
            refused.sentence.contains(part),
            "{line}: {}",
            refused.sentence
        );
    }
}

#[test]
fn a_request_to_pass_on_is_read_from_the_line() {
    let read = |line| given(line).unwrap().verb.unwrap();
    let id = "web".to_owned();
    assert_eq!(read("delete --id web"), Verb::Delete { id: id.clone() });
    assert_eq!(
        read("-insecure retry -id=web"),
        Verb::Retry { id: id.clone() }
    );
    let apply = Apply {
        id,
        kind: Some("container".to_owned()),
        spec_file: Some(PathBuf::from("web.json")),
        revision: "r2".to_owned(),
        desired_state: "Stopped".to_owned(),
    };
    let line = "apply --id web --type container --spec-file web.json --revision r2 --desired-state Stopped";
    assert_eq!(read(line), Verb::Apply(apply));
}

#[test]
fn tls_is_on_both_ways_unless_it_is_said_otherwise() {
    const ON: (&str, &str) = ("PERSYS_TLS_ENABLED", "true");
    const OFF: (&str, &str) = ("PERSYS_TLS_ENABLED", "FALSE");
    const PLAIN: (&str, &str) = ("PERSYS_SCHEDULER_INSECURE", "true");
    const SECURE: (&str, &str) = ("PERSYS_SCHEDULER_INSECURE", "false");
    for (line, variables, serves, calls) in [
        ("", &[][..], true, true),
        ("", &[ON], true, true),
        ("-insecure", &[ON, SECURE], false, false),
        ("", &[PLAIN], true, false),
        ("", &[OFF], false, false),
        ("", &[OFF, SECURE], false, true),
    ] {
        let tls = resolve(line, variables).unwrap().tls;
        let is_on = (tls.service.is_some(), tls.scheduler.is_some());
        assert_eq!(is_on, (serves, calls), "{line} {variables:?}");
    }
}

#[test]
fn certificates_are_where_the_contract_has_them() {
    let files = |variables: &[(&str, &str)], line: &str| {
        let tls = resolve(line, variables).unwrap().tls;
        assert_eq!(tls.service, tls.scheduler);
        let files = tls.service.unwrap();
        [files.certificate, files.key, files.authority].map(|path| path.display().to_string())
    };
    let usual = ["compute-agent.pem", "compute-agent-key.pem", "ca.pem"];
    let usual = usual.map(|name| format!("/etc/persys/certs/agent/{name}"));
    assert_eq!(files(&[], ""), usual);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("agent.yaml");
    std::fs::write(&path, "tls_cert_path: /of/file.pem\ntls_key: /of/key.pem\n").unwrap();
    let line = format!("--config {}", path.display());
    let told = files(&[("PERSYS_TLS_CA", "/of/ca.pem")], &line);
    assert_eq!(told, ["/of/file.pem", "/of/key.pem", "/of/ca.pem"]);
    let told = files(&[("PERSYS_TLS_CERT", "/own.pem")], &line);
    assert_eq!(told[0], "/own.pem");
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = resolve("-insecure", &[]).unwrap();
    assert_eq!(settings.grpc.to_string(), "0.0.0.0:50051");
    assert_eq!(settings.metrics.to_string(), "0.0.0.0:8089");
    assert_eq!(settings.scheduler, "127.0.0.1:8085");
    assert_eq!(
        settings.data_dir,
        PathBuf::from("/var/lib/persys/state.db.d")
    );
    assert_eq!(settings.docker_socket, "unix:///var/run/docker.sock");
    assert_eq!(settings.kinds.len(), 3);
    assert_eq!(settings.log, "info");
    assert!(!settings.node_id.is_empty() && !settings.standalone && !settings.control_stream);
    assert!(settings.notes.is_empty() && settings.grpc_endpoint.is_none());
}

#[test]
fn every_documented_variable_counts() {
    let settings = resolve(
        "-insecure -standalone",
        &[
            ("PERSYS_GRPC_ADDR", "127.0.0.1"),
            ("PERSYS_GRPC_PORT", "1234"),
            ("PERSYS_METRICS_PORT", "0"),
            ("PERSYS_STATE_PATH", "/tmp/nowhere/state.db"),
            ("PERSYS_DOCKER_ENABLED", "false"),
            ("PERSYS_VM_ENABLED", "0"),
            ("DOCKER_HOST", "unix:///run/other.sock"),
            ("PERSYS_SCHEDULER_ADDR", "10.0.0.1:8085"),
            ("PERSYS_AGENT_GRPC_ENDPOINT", "node.example:50051"),
            ("PERSYS_NODE_ID", "node-7"),
            ("PERSYS_NODE_REGION", "eu"),
            ("PERSYS_NODE_ENV", "prod"),
            ("PERSYS_NODE_LABELS", "zone=a, region=us"),
            ("PERSYS_LOG_LEVEL", "Warning"),
            ("PERSYS_VERSION", "1.2"),
            ("PERSYS_VAULT_ENABLED", "true"),
            ("PERSYS_RECONCILE_INTERVAL", "30s"),
            ("PERSYS_LIBVIRT_URI", "qemu:///system"),
        ],
    )
    .unwrap();
    assert_eq!(settings.grpc.to_string(), "127.0.0.1:1234");
    assert_eq!(settings.metrics.to_string(), "127.0.0.1:0");
    assert_eq!(settings.data_dir, PathBuf::from("/tmp/nowhere/state.db.d"));
    assert_eq!(settings.kinds, BTreeSet::from([Kind::Compose]));
    assert_eq!(settings.docker_socket, "unix:///run/other.sock");
    assert_eq!(settings.scheduler, "10.0.0.1:8085");
    assert_eq!(
        settings.grpc_endpoint.as_deref(),
        Some("node.example:50051")
    );
    assert_eq!(settings.node_id, "node-7");
    let labels: Vec<String> = settings
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(labels, ["env=prod", "region=eu", "zone=a"]);
    assert_eq!(
        (settings.log.as_str(), settings.version.as_str()),
        ("warn", "1.2")
    );
    assert!(settings.standalone);
    assert_eq!(settings.notes.len(), 3, "{:?}", settings.notes);
}

#[test]
fn what_makes_no_sense_is_refused_by_its_name() {
    for (name, value) in [
        ("PERSYS_GRPC_PORT", "many"),
        ("PERSYS_METRICS_PORT", "70000"),
        ("PERSYS_GRPC_ADDR", "nowhere in particular"),
        ("PERSYS_AGENT_GRPC_ENDPOINT", "node"),
        ("PERSYS_NODE_LABELS", "zone"),
        ("PERSYS_VM_ENABLED", "perhaps"),
    ] {
        let refused = resolve("-insecure", &[(name, value)]).unwrap_err();
        assert_eq!(refused.status, ExitStatus::Usage);
        assert!(refused.sentence.contains(name), "{}", refused.sentence);
    }
}

#[test]
fn the_file_counts_less_than_variables_and_what_it_does_not_mean_is_said() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("agent.yaml");
    let text = "node_id: from-file\ngrpc_port: 7\nmetrics_port: 8\ntls_enabled: false\n\
                node_labels: { zone: a }\nversion:\nstorage_nfs_server: x\nvault_mood: y\n\
                admission_cpu_percent: 99.5\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let settings = resolve(&format!("--config {path}"), &[("PERSYS_GRPC_PORT", "9")]).unwrap();
    assert_eq!(
        (settings.node_id.as_str(), settings.labels["zone"].as_str()),
        ("from-file", "a")
    );
    assert_eq!((settings.grpc.port(), settings.metrics.port()), (9, 8));
    assert!((settings.admission.cpu - 99.5).abs() < f64::EPSILON);
    assert_eq!(settings.notes.len(), 1, "{:?}", settings.notes);
    assert_eq!(settings.volumes.nfs.server.as_deref(), Some("x"));

    let named = resolve("", &[("PERSYS_CONFIG_FILE", path)]).unwrap();
    assert_eq!(named.node_id, "from-file");
    let of_home = home.path().join(".persys");
    std::fs::create_dir(&of_home).unwrap();
    std::fs::copy(path, of_home.join(FILE)).unwrap();
    let found = resolve("", &[("HOME", home.path().to_str().unwrap())]).unwrap();
    assert_eq!(found.node_id, "from-file");

    let missing = resolve("-insecure --config /nonexistent/x.yaml", &[]).unwrap_err();
    assert!(
        missing.sentence.contains("/nonexistent/x.yaml"),
        "{}",
        missing.sentence
    );
    for wrong in ["- a\n- b\n", "a: [1, 2]\n", "a: b: c\n"] {
        std::fs::write(path, wrong).unwrap();
        let refused = resolve(&format!("-insecure --config {path}"), &[]).unwrap_err();
        assert_eq!(refused.status, ExitStatus::Usage, "{wrong}");
    }
}

#[test]
fn a_directory_at_the_state_path_is_taken_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    let settings = resolve("-insecure", &[("PERSYS_STATE_STORE_PATH", path)]).unwrap();
    assert_eq!(settings.data_dir, home.path());
    let local = settings.volumes.local_root.unwrap();
    assert_eq!(local, home.path().join("volumes/local"));
}

#[test]
fn storage_is_where_the_contract_has_it() {
    let usual = resolve("-insecure", &[]).unwrap().volumes;
    let local = usual.local_root.unwrap();
    assert_eq!(local.to_str(), Some("/var/lib/persys/volumes/local"));
    assert_eq!((usual.nfs.server, usual.ceph.pool), (None, None));
    let told = [
        ("PERSYS_STORAGE_LOCAL_ROOT", "/srv/local"),
        ("PERSYS_STORAGE_CEPH_USER", "node"),
    ];
    let told = resolve("-insecure", &told).unwrap().volumes;
    assert_eq!(told.local_root.unwrap().to_str(), Some("/srv/local"));
    assert_eq!(told.ceph.pool.as_deref(), Some("rbd"));
}

#[test]
fn a_node_is_named_after_its_machine() {
    assert_eq!(named("web", "0123456789abcdef", None), "web-0123456789ab");
    let by_card = named("web", "", Some("02:00:00:00:00:01"));
    assert_eq!(by_card.len(), "web-".len() + 12, "{by_card}");
    assert_eq!(by_card, named("web", "short", Some("02:00:00:00:00:01")));
    assert_eq!(named("web", "", None), "web");
    assert_eq!(named("", "", None), "node");
}

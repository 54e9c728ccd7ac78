//! The program called `miaas-agent`.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::foreign::{Asked, Front, Plane, called, get, in_order};
use crate::program::{Ended, Running, eventually, free_port, hostler, signal};

const REGISTER: &str = "POST /api/v1/nodes/register";
const BEAT: &str = "POST /api/v1/nodes/n-1/heartbeat";

fn rule(asked: &Asked) -> (u16, Value) {
    match asked.line.as_str() {
        REGISTER => (
            201,
            json!({"node_id": "n-1", "node_token": "t-1", "control_plane_url": "http://x:1"}),
        ),
        BEAT => (200, json!({"status": "ok", "timestamp": 1.0})),
        _ => (404, json!({"detail": "Not Found"})),
    }
}

fn refused(command: &mut Command) -> Ended {
    Ended::from(command.output().unwrap()).with_code(2)
}

#[test]
fn it_registers_and_beats_in_every_time_zone_and_ends_with_0() {
    for zone in ["UTC", "America/New_York", "Asia/Kolkata"] {
        let home = tempfile::tempdir().unwrap();
        let plane = Plane::start(rule);
        let mut command = called("miaas-agent", home.path());
        command
            .env("CONTROL_PLANE_URL", plane.url())
            .env("HEARTBEAT_INTERVAL", "1")
            .env("TZ", zone);
        let mut agent = Running::start(&mut command);
        let beats = plane.until_asked(BEAT, 2);
        assert_eq!(beats[0].headers["authorization"], "Bearer t-1");
        let registered = &plane.asked(REGISTER)[0].body;
        let capabilities = &registered["capabilities"];
        assert_eq!(capabilities["os"], "linux");
        for figure in ["cpu_count", "mem_mb", "disk_mb"] {
            assert!(
                capabilities[figure]
                    .as_u64()
                    .is_some_and(|figure| figure > 0),
                "{registered}"
            );
        }
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(registered["name"], hostname.trim());
        agent.line("Heartbeat sent: CPU ");
        assert_eq!(agent.terminate(), Some(0));
        let lines = agent.data();
        let told = [
            "Starting MIaaS agent...",
            "Detected capabilities: {'os': 'linux', 'cpu_count': ",
            "Registering with control plane...",
            "Registered successfully. Node ID: n-1",
            "Starting heartbeat loop (interval: 1s)",
            "Heartbeat sent: CPU ",
        ];
        for (line, start) in lines.iter().zip(told) {
            assert!(line.starts_with(start), "{line}: {start}");
        }
        assert!(lines.len() >= told.len(), "{lines:#?}");
    }
}

#[test]
fn it_waits_for_a_control_plane_that_comes_later() {
    let home = tempfile::tempdir().unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = called("miaas-agent", home.path());
    command
        .env("CONTROL_PLANE_URL", format!("http://{addr}"))
        .env("HEARTBEAT_INTERVAL", "1");
    let mut agent = Running::start(&mut command);
    agent.line("Failed to register with control plane");
    agent.line(&format!("curl http://{addr}/health"));
    agent.line("CONTROL_PLANE_URL may be wrong");
    agent.line("There may be no network");
    agent.line(&format!("A firewall may close port {}", addr.port()));
    let plane = Plane::on(TcpListener::bind(addr).unwrap(), rule);
    plane.until_asked(BEAT, 1);
    signal(agent.pid(), Signal::INT);
    assert_eq!(agent.code(), Some(0));
}

#[test]
fn it_is_a_node_of_our_own_control_plane_through_restarts_of_it() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let mut command = called("miaas-agent", fleet.path());
    command
        .env("CONTROL_PLANE_URL", fleet.addr())
        .env("HEARTBEAT_INTERVAL", "1");
    let mut agent = Running::start(&mut command);
    let line = agent.line("Registered successfully. Node ID: ");
    let id = line.rsplit(' ').next().unwrap().to_owned();
    agent.line("Heartbeat sent: ");
    let shown = |fleet: &Fleet| {
        let host = fleet.addr().replace("http://", "");
        let answer = get(&host, "/api/v1/nodes");
        let body = answer
            .split("\r\n\r\n")
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        let nodes: Value = serde_json::from_str(&body).unwrap_or_default();
        nodes[0].clone()
    };
    eventually("the figures are in the list", || {
        shown(&fleet)["metrics"]["mem_usage"].as_f64().is_some()
    });
    let node = shown(&fleet);
    assert_eq!(
        (&node["id"], &node["status"]),
        (&json!(id), &json!("online"))
    );
    assert!(
        node["capabilities"]["disk_mb"]
            .as_u64()
            .is_some_and(|disk| disk > 0),
        "{node}"
    );
    let server = fleet.server.as_mut().unwrap();
    assert!(
        server.line("node joined").contains(&id),
        "the id is in the server's log"
    );
    fleet.kill_server();
    agent.line("Heartbeat failed: ");
    fleet.start_server();
    eventually("it beats again", || {
        shown(&fleet)["metrics"]["mem_usage"].as_f64().is_some()
    });
    assert_eq!(shown(&fleet)["id"], json!(id));
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn what_makes_no_sense_ends_with_2_and_one_clear_sentence() {
    let home = tempfile::tempdir().unwrap();
    let agent = || called("miaas-agent", home.path());
    for (key, value, part) in [
        (
            "HEARTBEAT_INTERVAL",
            "often",
            "HEARTBEAT_INTERVAL is `often`",
        ),
        ("HEARTBEAT_INTERVAL", "0", "HEARTBEAT_INTERVAL is `0`"),
        ("CONTROL_PLANE_URL", "plane", "`plane` is no server address"),
    ] {
        let ended = refused(agent().env(key, value));
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains(part),
            "{}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "");
    }
    assert!(
        refused(agent().arg("-nonsense"))
            .stderr
            .contains("not defined: -nonsense")
    );
    assert!(
        refused(agent().arg("start"))
            .stderr
            .contains("takes no arguments")
    );
    let help = Ended::from(agent().arg("--help").output().unwrap()).with_code(0);
    assert!(help.stdout.contains("-data-dir string"), "{}", help.stdout);
}

#[test]
fn it_tells_about_itself_where_a_variable_says_so() {
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::start(rule);
    let mut command = called("miaas-agent", home.path());
    command
        .env("CONTROL_PLANE_URL", plane.url())
        .env("HOSTLER_AGENT_LISTEN", "127.0.0.1:0");
    let mut agent = Running::start(&mut command);
    let line = agent.line("listening on http://");
    let host = line.rsplit("http://").next().unwrap().to_owned();
    eventually("it is ready", || get(&host, "/readyz").contains("200 OK"));
    assert!(get(&host, "/readyz").contains("registered as n-1"));
    assert!(get(&host, "/metrics").contains("\nhostler_agent_joined 1\n"));
    assert!(
        !agent.data().iter().any(|line| line.contains("listening")),
        "stdout is the contract's"
    );
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn the_dialect_of_our_own_agent_leads_to_the_same() {
    let home = tempfile::tempdir().unwrap();
    let plane = Plane::start(rule);
    let mut command = hostler(home.path());
    command.args([
        "agent",
        "--dialect",
        "miaas",
        "--name",
        "box",
        "--server",
        &plane.url(),
    ]);
    command
        .args(["--docker-socket", "/nonexistent/docker.sock"])
        .env("HEARTBEAT_INTERVAL", "1")
        .env("HOSTLER_DATA_DIR", home.path());
    let mut agent = Running::start(&mut command);
    plane.until_asked(BEAT, 1);
    assert_eq!(plane.asked(REGISTER)[0].body["name"], "box");
    agent.line("Heartbeat sent: CPU ");
    assert_eq!(agent.terminate(), Some(0));
    in_order(
        &agent.data(),
        &[
            "Starting MIaaS agent...",
            "Registered successfully. Node ID: n-1",
        ],
    );
    let mut command = hostler(home.path());
    command.args(["agent"]).env("HOSTLER_DIALECT", "klingon");
    assert!(
        refused(&mut command)
            .stderr
            .contains("`klingon`, which is no contract")
    );
}

#[test]
fn over_https_it_believes_only_whom_it_is_told_to_believe() {
    let plane = Plane::start(rule);
    let (front, other) = (Front::before(&plane.url()), Front::before(&plane.url()));
    let agent_of = |home: &Path, ca: Option<&Path>| {
        let mut command = called("miaas-agent", home);
        command.env("CONTROL_PLANE_URL", &front.url);
        command.env("HEARTBEAT_INTERVAL", "1");
        if let Some(ca) = ca {
            command.env("HOSTLER_CA", ca);
        }
        Running::start(&mut command)
    };
    for ca in [None, Some(other.ca.as_path())] {
        let home = tempfile::tempdir().unwrap();
        let mut agent = agent_of(home.path(), ca);
        agent.line("certificate");
        assert!(plane.asked(REGISTER).is_empty(), "{}", agent.said());
    }
    let home = tempfile::tempdir().unwrap();
    let _agent = agent_of(home.path(), Some(&front.ca));
    let beats = plane.until_asked(BEAT, 2);
    assert_eq!(beats[0].headers["authorization"], "Bearer t-1");
}

//! The spot agent's installer and uninstaller, by the scripts of `deploy/spot-agent`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::foreign::{Asked, Front, Plane};
use crate::machine::Machine;
use crate::program::Ended;

const REGISTER: &str = "POST /api/agents/register";

/// A server that gives each logical agent an id of its own, and may be told to refuse.
fn plane(refuses: &Arc<AtomicBool>) -> Plane {
    let (known, refuses) = (Mutex::new(BTreeMap::new()), Arc::clone(refuses));
    Plane::start(move |asked: &Asked| match asked.line.as_str() {
        REGISTER if refuses.load(Ordering::SeqCst) => (200, json!({"agent_id": null})),
        REGISTER if bearer(asked) != Some("Bearer token-1") => {
            (401, json!({"error": "Invalid client token"}))
        }
        REGISTER => {
            let mut known = known.lock().unwrap();
            let next = format!("id-{}", known.len() + 1);
            let logical = asked.body["logical_agent_id"].to_string();
            (
                200,
                json!({"agent_id": known.entry(logical).or_insert(next)}),
            )
        }
        line if line.ends_with("/pending-commands") => (200, json!([])),
        _ => (200, json!({"success": true})),
    })
}

fn bearer(asked: &Asked) -> Option<&str> {
    asked.headers.get("authorization").map(String::as_str)
}

/// The metadata service of a cloud machine: plain text, and nothing without its token.
fn metadata(life_cycle: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut text = Vec::new();
            while !text.ends_with(b"\r\n\r\n") {
                let mut more = [0; 1024];
                match stream.read(&mut more) {
                    Ok(count) if count > 0 => text.extend_from_slice(&more[..count]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&text).to_lowercase();
            let has = |header: &str| text.contains(&format!("\r\n{header}\r\n"));
            let line = text.lines().next().unwrap_or_default();
            let line = line.trim_end_matches(" http/1.1");
            let (status, body) = match line.strip_prefix("get /latest/meta-data/") {
                None if has("x-aws-ec2-metadata-token-ttl-seconds: 60") => (200, "secret-7"),
                Some(_) if !has("x-aws-ec2-metadata-token: secret-7") => (401, ""),
                Some("instance-id") => (200, "i-0456"),
                Some("instance-type") => (200, "m5.large"),
                Some("placement/availability-zone") => (200, "eu-west-1c"),
                Some("ami-id") => (200, "ami-9"),
                Some("local-ipv4") => (200, "172.31.0.9"),
                Some("instance-life-cycle") => (200, life_cycle),
                _ => (404, "<html>no</html>"),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
            let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
        }
    });
    format!("http://{addr}")
}

fn script(machine: &Machine, name: &str, variables: &[(&str, &str)]) -> Ended {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy/spot-agent")
        .join(name);
    let mut command = Command::new("/bin/sh");
    command
        .arg(script)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOSTLER", env!("CARGO_BIN_EXE_hostler"))
        .env("HOSTLER_INSTALL_ROOT", machine.root());
    let variables = variables.iter().copied();
    Ended::from(command.envs(variables).output().unwrap())
}

const INSTANCE: [(&str, &str); 7] = [
    ("INSTANCE_ID", "i-0123"),
    ("INSTANCE_TYPE", "t3.medium"),
    ("AZ", "ap-south-1a"),
    ("AMI_ID", "ami-1"),
    ("CURRENT_MODE", "spot"),
    ("PRIVATE_IP", "10.0.0.5"),
    ("CLIENT_TOKEN", "token-1"),
];

fn lines(ended: &Ended) -> Vec<&str> {
    ended.stdout.lines().collect()
}

fn conf(machine: &Machine) -> Vec<(String, String)> {
    let text = machine.read("opt/spot-agent/config/agent.conf");
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn it_is_installed_as_its_contract_says_and_again_without_a_change() {
    let machine = Machine::new();
    let plane = plane(&Arc::default());
    let url = plane.url();
    let variables = [&INSTANCE[..], &[("SERVER_URL", url.as_str())]].concat();
    let ended = script(&machine, "install.sh", &variables).with_code(0);
    let asked = plane.asked(REGISTER).remove(0);
    let logical = asked.body["logical_agent_id"].as_str().unwrap().to_owned();
    assert_eq!(
        lines(&ended),
        [
            "Installing Spot Agent...",
            "Registering agent with server...",
            "✓ Agent registered with ID: id-1",
            "✓ Agent installed and running successfully",
            "Agent ID: id-1",
            &format!("Logical Agent ID: {logical}"),
        ]
    );
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let epoch = logical.strip_prefix(&format!("agent-{host}-")).unwrap();
    assert!(epoch.parse::<u64>().unwrap() > 1_700_000_000, "{logical}");
    let expected = json!({
        "logical_agent_id": logical, "instance_id": "i-0123", "instance_type": "t3.medium",
        "region": "ap-south-1", "az": "ap-south-1a", "ami_id": "ami-1", "mode": "spot",
        "hostname": host, "private_ip": "10.0.0.5", "public_ip": "", "agent_version": "2.0.0",
    });
    assert_eq!(asked.body, expected);
    assert_eq!(bearer(&asked), Some("Bearer token-1"));

    let keys = conf(&machine);
    let ten = [
        ("SERVER_URL", url.as_str()),
        ("CLIENT_TOKEN", "token-1"),
        ("LOGICAL_AGENT_ID", &logical),
        ("INSTANCE_ID", "i-0123"),
        ("INSTANCE_TYPE", "t3.medium"),
        ("REGION", "ap-south-1"),
        ("AZ", "ap-south-1a"),
        ("AMI_ID", "ami-1"),
        ("CURRENT_MODE", "spot"),
        ("AGENT_VERSION", "2.0.0"),
    ];
    assert_eq!(
        keys,
        ten.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    for (path, text, mode) in [
        ("agent_id.txt", "id-1\n".to_owned(), 0o644),
        ("client_token.txt", "token-1\n".to_owned(), 0o600),
        ("server_url.txt", format!("{url}\n"), 0o644),
    ] {
        let path = format!("opt/spot-agent/{path}");
        assert_eq!(
            (machine.read(&path), machine.mode(&path)),
            (text, mode),
            "{path}"
        );
    }
    assert_eq!(machine.mode("opt/spot-agent/config/agent.conf"), 0o600);
    for dir in ["bin", "config", "logs", "data"] {
        assert!(
            machine.at(&format!("opt/spot-agent/{dir}")).is_dir(),
            "{dir}"
        );
    }
    assert_eq!(machine.mode("opt/spot-agent/bin/spot-agent"), 0o755);
    assert_eq!(
        machine.told(),
        ["daemon-reload", "enable spot-agent", "start spot-agent"]
    );
    plane.until_asked("POST /api/agents/id-1/heartbeat", 1);

    let first = machine.pid("spot-agent");
    let again = script(&machine, "install.sh", &INSTANCE).with_code(0);
    assert!(
        lines(&again).contains(&"Agent ID: id-1"),
        "{}",
        again.stdout
    );
    assert_eq!(machine.told(), ["enable spot-agent"]);
    assert_eq!(machine.pid("spot-agent"), first);
    assert_eq!(conf(&machine), keys, "the server and who it is stay");
}

#[test]
fn over_https_the_installer_believes_only_whom_it_is_told_to_believe() {
    let machine = Machine::new();
    let plane = plane(&Arc::default());
    let (front, other) = (Front::before(&plane.url()), Front::before(&plane.url()));
    let install = |front: &Front, ca: &Front| {
        let ca = ca.ca.display().to_string();
        let more = [
            ("SERVER_URL", front.url.as_str()),
            ("HOSTLER_CA", ca.as_str()),
        ];
        script(&machine, "install.sh", &[&INSTANCE[..], &more].concat())
    };
    let ended = install(&front, &other).with_code(1);
    let told = lines(&ended);
    assert_eq!(told[2], "Error: Failed to register agent");
    assert!(plane.asked(REGISTER).is_empty() && !machine.has("opt"));
    let ended = install(&front, &front);
    let registered = "✓ Agent registered with ID: id-1";
    assert!(lines(&ended).contains(&registered), "{ended:?}");
    assert_eq!(plane.asked(REGISTER).len(), 1);
}

#[test]
fn the_machine_is_asked_what_it_is() {
    for (life_cycle, mode) in [("spot", "spot"), ("on-demand", "ondemand")] {
        let machine = Machine::new();
        let (plane, service) = (plane(&Arc::default()), metadata(life_cycle));
        let url = plane.url();
        let variables = [
            ("CLIENT_TOKEN", "token-1"),
            ("SERVER_URL", url.as_str()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.as_str()),
        ];
        script(&machine, "install.sh", &variables).with_code(0);
        let body = plane.asked(REGISTER).remove(0).body;
        for (key, value) in [
            ("instance_id", "i-0456"),
            ("instance_type", "m5.large"),
            ("az", "eu-west-1c"),
            ("region", "eu-west-1"),
            ("ami_id", "ami-9"),
            ("mode", mode),
            ("private_ip", "172.31.0.9"),
            ("public_ip", ""),
        ] {
            assert_eq!(body[key], value, "{key}");
        }
        let keys: BTreeMap<_, _> = conf(&machine).into_iter().collect();
        assert_eq!((keys.len(), keys["CURRENT_MODE"].as_str()), (10, mode));
        assert_eq!(keys["REGION"], "eu-west-1");
    }
}

#[test]
fn what_the_installer_lacks_ends_it_with_1_and_changes_nothing() {
    let machine = Machine::new();
    let refuses = Arc::new(AtomicBool::new(true));
    let plane = plane(&refuses);
    let url = plane.url();
    let with = |server: &'static str| [&INSTANCE[..], &[("SERVER_URL", server)]].concat();
    let ended = script(&machine, "install.sh", &INSTANCE[..6]).with_code(1);
    assert!(
        ended
            .stderr
            .contains("CLIENT_TOKEN environment variable required"),
        "{}",
        ended.stderr
    );

    let named = [&INSTANCE[..], &[("SERVER_URL", url.as_str())]].concat();
    let ended = script(&machine, "install.sh", &named).with_code(1);
    let told = lines(&ended);
    assert_eq!(told[2], "Error: Failed to register agent");
    assert!(
        told[3].starts_with("Response: ") && told[3].contains(r#""agent_id":null"#),
        "{told:?}"
    );
    refuses.store(false, Ordering::SeqCst);
    let wrong = [
        &INSTANCE[..6],
        &[("SERVER_URL", url.as_str()), ("CLIENT_TOKEN", "x")],
    ]
    .concat();
    let ended = script(&machine, "install.sh", &wrong).with_code(1);
    assert!(
        lines(&ended)[3].contains("Invalid client token"),
        "{}",
        ended.stdout
    );
    let ended = script(&machine, "install.sh", &with("http://127.0.0.1:9")).with_code(1);
    assert!(
        lines(&ended)[3].starts_with("Response: cannot connect"),
        "{}",
        ended.stdout
    );

    // The service of no cloud: nobody knows what this machine is.
    let nowhere = [
        ("CLIENT_TOKEN", "t"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9"),
    ];
    let ended = script(&machine, "install.sh", &nowhere).with_code(1);
    assert!(
        ended.stderr.contains("INSTANCE_ID, INSTANCE_TYPE, AZ"),
        "{}",
        ended.stderr
    );
    assert!(!machine.has("opt") && !machine.has("etc/systemd"));
    assert_eq!(machine.told(), [""; 0]);
}

#[test]
fn a_service_that_does_not_stay_is_told_with_the_place_of_its_log() {
    let machine = Machine::new();
    let plane = plane(&Arc::default());
    let url = plane.url();
    let variables = [&INSTANCE[..], &[("SERVER_URL", url.as_str())]].concat();
    // The agent has no place for its identity.
    machine.write("opt/spot-agent/data/agent", "no directory");
    let ended = script(&machine, "install.sh", &variables).with_code(1);
    let told = lines(&ended);
    let last = &told[told.len() - 2..];
    assert_eq!(
        last,
        [
            "✗ Agent failed to start. Check logs:",
            "journalctl -u spot-agent -n 50"
        ]
    );
}

#[test]
fn uninstalling_tells_the_server_keeps_logs_and_gives_a_new_agent_next_time() {
    let machine = Machine::new();
    let plane = plane(&Arc::default());
    let url = plane.url();
    let variables = [&INSTANCE[..], &[("SERVER_URL", url.as_str())]].concat();
    script(&machine, "install.sh", &variables).with_code(0);
    plane.until_asked("POST /api/agents/id-1/heartbeat", 1);
    // What others have written there is no UTF-8, and stays as it is.
    let table = b"1 * * * * /opt/spot-agent/bin/spot-agent tidy\n2 * * * * caf\xe9 \n";
    std::fs::write(machine.at("state/crontab"), table).unwrap();
    machine.write("opt/spot-agent/logs/old.log", "old");
    machine.write("opt/spot-agent/logs/young.log", "young");
    for (name, days) in [("old.log", 8), ("young.log", 6)] {
        let now = std::fs::metadata(machine.at("opt/spot-agent/logs/young.log"));
        let moment = now.unwrap().modified().unwrap() - Duration::from_secs(days * 86_400);
        let file = std::fs::File::options()
            .append(true)
            .open(machine.at(&format!("opt/spot-agent/logs/{name}")));
        file.unwrap().set_modified(moment).unwrap();
    }
    machine.told();
    let ended = script(&machine, "uninstall.sh", &[]).with_code(0);
    assert_eq!(
        lines(&ended),
        [
            "Uninstalling Spot Agent...",
            "✓ Agent uninstalled successfully",
            "Note: Logs retained in /opt/spot-agent/logs",
            "To complete removal, delete agent from server dashboard",
        ]
    );
    assert_eq!(
        machine.told(),
        ["stop spot-agent", "disable spot-agent", "daemon-reload"]
    );
    let offline = |asked: &&Asked| asked.body == json!({"status": "offline"});
    let beats = plane.asked("POST /api/agents/id-1/heartbeat");
    // The uninstaller's word, and the agent's own when it was stopped.
    assert_eq!(beats.iter().filter(offline).count(), 2);
    for path in ["bin", "config", "logs/old.log"] {
        assert!(!machine.has(&format!("opt/spot-agent/{path}")), "{path}");
    }
    for path in [
        "logs/young.log",
        "logs/agent.log",
        "agent_id.txt",
        "data/agent_state.json",
    ] {
        assert!(machine.has(&format!("opt/spot-agent/{path}")), "{path}");
    }
    let log = machine.read("opt/spot-agent/logs/agent.log");
    assert!(log.contains(" - INFO - Received signal 15\n"), "{log}");
    let said = machine.read("state/spot-agent.log");
    assert!(
        log.lines().all(|line| said.contains(line)),
        "what is in the file is on stdout: {said}"
    );
    assert!(!machine.has("etc/systemd/system/spot-agent.service"));
    let left = std::fs::read(machine.at("state/crontab")).unwrap();
    assert_eq!(left, b"2 * * * * caf\xe9 \n");

    // A second time, with nothing to tell and nobody to tell it to: done all the same.
    std::fs::remove_file(machine.at("opt/spot-agent/server_url.txt")).unwrap();
    let again = script(&machine, "uninstall.sh", &[]).with_code(0);
    assert!(
        again.stderr.contains("the server was not told"),
        "{}",
        again.stderr
    );

    // Installed anew it is somebody else. The second of a logical id is that of the clock.
    std::thread::sleep(Duration::from_millis(1100));
    let ended = script(&machine, "install.sh", &variables).with_code(0);
    assert!(
        lines(&ended).contains(&"Agent ID: id-2"),
        "{}",
        ended.stdout
    );
    plane.until_asked("POST /api/agents/id-2/heartbeat", 1);
    machine
        .run(&["uninstall", "spot-agent", "--purge", "--yes"])
        .with_code(0);
    assert!(!machine.has("opt/spot-agent"));
}

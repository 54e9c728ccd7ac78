//! `hostler install` and `uninstall` on a machine that is a folder, with services that really run.

use std::path::Path;
use std::process::Command;

use crate::machine::Machine;
use crate::program::{Ended, Running, eventually, hostler, is_alive, processes, signal};
use rustix::process::Signal;

const UNITS: [&str; 6] = [
    "hostler-server",
    "hostler-agent",
    "miaas-agent",
    "node-agent",
    "persys-agent",
    "spot-agent",
];

fn deploy(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(path)
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(deploy(&format!("systemd/{name}.service"))).unwrap()
}

/// A server of the test's own, in this directory.
fn server(home: &Path) -> (Running, String) {
    let mut command = hostler(home);
    command.args([
        "server",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    let mut server = Running::start(command.arg(home.join("plane")));
    let url = server.line("listening on ").replace("listening on ", "");
    (server, url)
}

fn ask(home: &Path, url: &str, words: &[&str]) -> Ended {
    let mut command = hostler(home);
    Ended::from(
        command
            .env("HOSTLER_ADDR", url)
            .args(words)
            .output()
            .unwrap(),
    )
}

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_takes_every_unit() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![deploy("systemd/hostler-work.slice")];
    for name in UNITS {
        // It looks whether there is such a program.
        let text = unit(name)
            .replace("/usr/local/bin/hostler", "/bin/true")
            .replace("/opt/spot-agent/bin/spot-agent", "/bin/true");
        let text = ["miaas-agent", "node-agent", "persys-agent"]
            .into_iter()
            .fold(text, |text, name| {
                text.replace(&format!("/usr/local/bin/{name}"), "/bin/true")
            });
        let file = folder.path().join(format!("{name}.service"));
        std::fs::write(&file, text).unwrap();
        files.push(file);
    }
    std::fs::copy(&files[0], folder.path().join("hostler-work.slice")).unwrap();
    files[0] = folder.path().join("hostler-work.slice");
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]);
    let ended = Ended::from(verify.args(&files).output().unwrap()).with_code(0);
    assert_eq!(ended.stderr, "", "no unit has a key that systemd ignores");
    // The verifier is no rubber stamp.
    let wrong = folder.path().join("wrong.service");
    std::fs::write(&wrong, "[Service]\nType=notfy\nExecStart=/nonexistent\n").unwrap();
    let mut verify = Command::new("systemd-analyze");
    let ended = Ended::from(verify.arg("verify").arg(&wrong).output().unwrap());
    assert!(
        ended.code != Some(0) && ended.stderr.contains("notfy"),
        "{ended:?}"
    );
}

#[test]
fn every_unit_says_how_it_starts_reloads_and_stops() {
    for name in UNITS {
        let text = unit(name);
        let has = |line: &str| text.lines().any(|it| it == line);
        for line in ["KillMode=mixed", "KillSignal=SIGTERM", "TimeoutStopSec=30"] {
            assert!(has(line), "{name}: {line}");
        }
        assert!(
            has("Restart=on-failure") && has("WantedBy=multi-user.target"),
            "{name}"
        );
        assert!(text.contains("\nWatchdogSec="), "{name}");
        if name != "spot-agent" {
            assert!(has("Type=notify"), "{name}");
            assert!(has("ExecReload=/bin/kill -HUP $MAINPID"), "{name}");
        }
        let has_slice = text.contains("Wants=network-online.target hostler-work.slice")
            || text.contains("Wants=hostler-work.slice");
        assert_eq!(has_slice, name != "hostler-server", "{name}");
        // The walls of an agent would be those of its work.
        assert_eq!(
            text.contains("ProtectSystem=strict"),
            name == "hostler-server",
            "{name}"
        );
    }
}

#[test]
fn the_spot_agents_unit_is_that_of_its_contract() {
    let text = unit("spot-agent");
    for line in [
        "Type=simple",
        "User=root",
        "WorkingDirectory=/opt/spot-agent",
        "EnvironmentFile=/opt/spot-agent/config/agent.conf",
        "ExecStart=/opt/spot-agent/bin/spot-agent start",
        "ExecStop=/opt/spot-agent/bin/spot-agent shutdown",
        "Restart=on-failure",
        "RestartSec=10",
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        "TimeoutStopSec=30",
        "WantedBy=multi-user.target",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}");
    }
    assert!(text.contains("\nAfter=network.target "), "{text}");
}

#[test]
fn a_server_becomes_a_service_and_installing_again_changes_nothing() {
    let machine = Machine::new();
    let install = ["install", "server", "--listen", "127.0.0.1:0"];
    let ended = machine.run(&install).with_code(0);
    assert!(
        ended.stderr.contains("hostler-server is active"),
        "{}",
        ended.stderr
    );
    assert!(
        ended
            .stderr
            .contains("log: journalctl -u hostler-server -f"),
        "{}",
        ended.stderr
    );
    for part in [
        "login: /var/lib/hostler-server/admin.toml",
        "hostler token create",
    ] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    assert_eq!(
        machine.told(),
        [
            "daemon-reload",
            "enable hostler-server",
            "start hostler-server"
        ]
    );
    let toml = machine.read("etc/hostler/server.toml");
    assert!(toml.contains("listen = \"127.0.0.1:0\"\n"), "{toml}");
    assert!(
        toml.contains("data_dir = \"/var/lib/hostler-server\"\n"),
        "{toml}"
    );
    assert!(machine.read("etc/passwd").contains("\nhostler:x:"));
    assert_eq!(
        machine.read("etc/systemd/system/hostler-server.service"),
        unit("hostler-server")
    );
    assert!(
        !machine.has("etc/systemd/system/hostler-work.slice"),
        "it runs no work"
    );
    let first = machine.pid("hostler-server");
    eventually("it listens", || {
        machine
            .read("state/hostler-server.log")
            .contains("listening on")
    });

    let ended = machine.run(&["install", "server"]).with_code(0);
    assert!(
        ended.stderr.contains("there was nothing to change"),
        "{}",
        ended.stderr
    );
    assert_eq!(machine.told(), ["enable hostler-server"]);
    assert_eq!(machine.pid("hostler-server"), first);
    assert_eq!(machine.read("etc/hostler/server.toml"), toml);
    assert_eq!(machine.read("etc/passwd").matches("hostler:x:").count(), 1);

    // A line that somebody wrote stays; what is asked for changes.
    machine.write(
        "etc/hostler/server.toml",
        &format!("# mine\nlog_level = \"debug\"\n{toml}"),
    );
    machine
        .run(&["install", "server", "--listen", "localhost:0"])
        .with_code(0);
    let changed = machine.read("etc/hostler/server.toml");
    assert!(
        changed.starts_with("# mine\nlog_level = \"debug\"\n"),
        "{changed}"
    );
    assert!(changed.contains("listen = \"localhost:0\"\n"), "{changed}");
    assert_eq!(
        machine.told(),
        ["enable hostler-server", "restart hostler-server"]
    );
    assert!(machine.pid("hostler-server") != first);

    // A refusal changes nothing.
    machine
        .run(&["install", "server", "--listen", "nonsense"])
        .with_code(2);
    assert_eq!(machine.read("etc/hostler/server.toml"), changed);
    assert_eq!(machine.told(), [""; 0]);

    let ended = machine.run(&["uninstall", "server"]).with_code(0);
    assert!(
        ended
            .stderr
            .contains("its data stays in /var/lib/hostler-server"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        machine.told(),
        [
            "stop hostler-server",
            "disable hostler-server",
            "daemon-reload"
        ]
    );
    assert_eq!(machine.pid("hostler-server"), None);
    assert!(!machine.has("etc/systemd/system/hostler-server.service"));
    assert!(machine.has("etc/hostler/server.toml") && machine.has("usr/local/bin/hostler"));
    machine.run(&["uninstall", "server"]).with_code(0);
    machine.write("var/lib/hostler-server/hostler.db", "");
    machine
        .run(&["uninstall", "server", "--purge"])
        .with_code(2);
    assert!(
        machine.has("var/lib/hostler-server/hostler.db"),
        "data goes only by a word"
    );
    machine
        .run(&["uninstall", "server", "--purge", "--yes"])
        .with_code(0);
    for path in [
        "var/lib/hostler-server",
        "etc/hostler/server.toml",
        "usr/local/bin/hostler",
    ] {
        assert!(!machine.has(path), "{path}");
    }
}

#[test]
fn an_upgrade_in_place_and_an_uninstallation_leave_workloads_running() {
    let machine = Machine::new();
    let (_server, url) = server(machine.root());
    let here = |words: &[&str]| ask(machine.root(), &url, words);
    // The version before: the same program with a byte more.
    let program = machine.at("usr/local/bin/hostler");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let mut make = Command::new("/bin/sh");
    make.args(["-c", "cp \"$1\" \"$2\" && printf x >> \"$2\"", "sh"]);
    let made = make
        .arg(env!("CARGO_BIN_EXE_hostler"))
        .arg(&program)
        .status();
    assert!(made.unwrap().success());
    let old = std::fs::read(&program).unwrap();
    let mut before = Command::new(&program);
    before
        .env_clear()
        .env("HOSTLER_INSTALL_ROOT", machine.root());
    before.args(["install", "agent", "--server", &url, "--name", "box"]);
    Ended::from(before.arg("--label").arg("disk=ssd").output().unwrap()).with_code(0);
    assert!(!machine.has("usr/local/bin/hostler.previous"));
    let toml = machine.read("etc/hostler/agent.toml");
    for line in [
        format!("server = \"{url}\""),
        "name = \"box\"".to_owned(),
        "labels = { \"disk\" = \"ssd\" }".to_owned(),
    ] {
        assert!(toml.contains(&line), "{line} is not in {toml}");
    }
    let slice = "etc/systemd/system/hostler-work.slice";
    assert!(machine.read(slice).contains("[Slice]"));

    here(&["run", "web", "--", "sleep", "86399"]).with_code(0);
    let work = || {
        let is_work = |pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let dir = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            line == b"sleep\x0086399\0" && dir.starts_with(machine.root())
        };
        processes(is_work)
    };
    let mut began = Vec::new();
    eventually("it has become its program", || {
        began = work();
        began.len() == 1
    });
    let agent = machine.pid("hostler-agent").unwrap();
    machine.told();

    let ended = machine.run(&["install", "agent"]).with_code(0);
    assert!(
        ended.stderr.contains("hostler-agent is active"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        machine.told(),
        ["enable hostler-agent", "restart hostler-agent"]
    );
    assert!(!is_alive(agent));
    assert!(machine.pid("hostler-agent").is_some_and(|now| now != agent));
    let new = std::fs::read(env!("CARGO_BIN_EXE_hostler")).unwrap();
    assert!(std::fs::read(&program).unwrap() == new);
    let previous = machine.at("usr/local/bin/hostler.previous");
    assert!(std::fs::read(previous).unwrap() == old);
    assert_eq!(work(), began, "the same process, not another one");
    eventually("the new agent looks after it", || {
        let shown = here(&["ps", "web", "-o", "json"]).stdout;
        shown.contains("\"running\"")
    });

    let ended = machine.run(&["uninstall", "agent"]).with_code(0);
    assert!(
        ended.stderr.contains("left 1 processes at work"),
        "{}",
        ended.stderr
    );
    assert_eq!(machine.pid("hostler-agent"), None);
    assert!(!machine.has(slice) && machine.has("etc/hostler/agent.toml"));
    assert_eq!(work(), began);
    let refused = machine
        .run(&["uninstall", "agent", "--purge", "--yes"])
        .with_code(1);
    assert!(
        refused
            .stderr
            .contains("1 processes of this node are at work"),
        "{}",
        refused.stderr
    );
    assert_eq!(work(), began);
    signal(began[0], Signal::KILL);
    eventually("its shim ends as well", || {
        machine
            .run(&["uninstall", "agent", "--purge", "--yes"])
            .code
            == Some(0)
    });
    for path in ["etc/hostler/agent.toml", "var/lib/hostler/units"] {
        assert!(!machine.has(path), "{path}");
    }
}

/// One that is whole, and of no fleet.
fn join_token() -> String {
    format!("hostler-join_a_secret_{}", "0".repeat(64))
}

#[test]
fn a_join_token_is_kept_for_root_alone_and_said_nowhere() {
    let (machine, token) = (Machine::new(), join_token());
    let words = ["install", "agent", "--server", "https://127.0.0.1:9"];
    let ended = machine
        .run(&[&words[..], &["--token", token.as_str()]].concat())
        .with_code(0);
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    assert_eq!(
        machine.read("etc/hostler/agent.token"),
        format!("{token}\n")
    );
    assert_eq!(machine.mode("/etc/hostler/agent.token"), 0o600);
    let toml = machine.read("etc/hostler/agent.toml");
    assert!(!toml.contains("secret"), "{toml}");
    let line = "token_file = \"/etc/hostler/agent.token\"";
    assert!(toml.contains(line), "{toml}");
    machine.run(&["uninstall", "agent"]).with_code(0);
    assert!(machine.has("etc/hostler/agent.token"));
    machine
        .run(&["uninstall", "agent", "--purge", "--yes"])
        .with_code(0);
    assert!(!machine.has("etc/hostler/agent.token"));
}

#[test]
fn agents_of_other_contracts_are_services_under_their_own_names() {
    let machine = Machine::new();
    let silent = "http://127.0.0.1:9";
    machine
        .run(&["install", "miaas-agent", "--server", silent])
        .with_code(0);
    assert!(
        machine
            .read("etc/hostler/miaas-agent.env")
            .contains("CONTROL_PLANE_URL=http://127.0.0.1:9\n")
    );
    eventually("it tells of its start", || {
        let log = machine.read("state/miaas-agent.log");
        log.contains("Starting MIaaS agent...")
    });
    // Any port that is free.
    machine.write("etc/hostler/node-agent.yaml", "agent_port: 0\n");
    machine
        .run(&["install", "node-agent", "--server", "127.0.0.1:9"])
        .with_code(0);
    assert!(
        machine
            .read("etc/hostler/node-agent.yaml")
            .contains("orchestrator: \"127.0.0.1:9\"\n")
    );
    for name in ["miaas-agent", "node-agent"] {
        let link = std::fs::read_link(machine.at(&format!("usr/local/bin/{name}"))).unwrap();
        assert_eq!(link, Path::new("hostler"));
        assert!(machine.pid(name).is_some(), "{name}");
        assert!(
            machine
                .read("state/loaded")
                .contains(&format!("{name}.service\n"))
        );
    }
    // An agent without TLS says so; where it cannot start, the log is named.
    let words = ["install", "persys-agent", "--server", "127.0.0.1:9"];
    let failed = machine.run(&words).with_code(1);
    for part in [
        "persys-agent is not active after 3 seconds",
        "journalctl -u persys-agent -n 50",
    ] {
        assert!(failed.stderr.contains(part), "{}", failed.stderr);
    }
    machine.run(&["uninstall", "miaas-agent"]).with_code(0);
    assert!(!machine.has("usr/local/bin/miaas-agent"));
    assert!(machine.pid("node-agent").is_some());
    assert!(
        machine.has("etc/systemd/system/hostler-work.slice"),
        "others have work"
    );
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let (machine, token) = (Machine::new(), join_token());
    for (words, part) in [
        (
            &["server", "--server", "http://a:1"][..],
            "--server says nothing to the server",
        ),
        (
            &["agent", "--listen", "127.0.0.1:1"],
            "--listen says nothing to the agent",
        ),
        (&["miaas-agent", "--token", "x"], "--token says nothing"),
        (
            &["agent", "--server", "http://a:1\nname = \"x\""],
            "control character",
        ),
        (&["agent", "--token", " "], "the token is empty"),
        (
            &["agent", "--server", "https://a:1", "--token", "secret"],
            "the join token is incomplete",
        ),
        (
            &["agent", "--server", "http://a:1", "--token", token.as_str()],
            "address is plain text",
        ),
        (
            &["agent", "--token", token.as_str()],
            "address is plain text",
        ),
        (&["agent", "--server", "https://a"], "names no port"),
        (
            &["agent", "--token-file", "/nonexistent/token"],
            "cannot read the token file",
        ),
        (
            &["server", "--listen", "nonsense"],
            "is no address to listen on",
        ),
    ] {
        let refused = machine.run(&[&["install"], words].concat()).with_code(2);
        assert!(
            refused.stderr.contains(part),
            "{words:?}: {}",
            refused.stderr
        );
    }
    machine.run(&["install", "everything"]).with_code(2);
    assert!(!machine.has("etc/hostler") && !machine.has("usr/local") && !machine.has("opt"));
    assert_eq!(machine.told(), [""; 0]);
    std::fs::remove_dir_all(machine.at("run")).unwrap();
    let refused = machine.run(&["install", "server"]).with_code(1);
    assert!(
        refused.stderr.contains("does not run systemd"),
        "{}",
        refused.stderr
    );
}

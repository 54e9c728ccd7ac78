//! Machines on a network: namespaces of this machine's kernel, joined by a bridge that is in one of them. What is typed
//! is what the README says.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{Ended, Running, end_units, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hostler");

/// A network with a server's machine, two others, and one of a stranger.
struct Network {
    /// Names of the namespaces; the first has the bridge.
    names: Vec<String>,
}

impl Network {
    fn new() -> Self {
        let mark = std::process::id();
        let names: Vec<String> = (1..=4).map(|number| format!("ht{mark}-{number}")).collect();
        for name in &names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let first = &names[0];
        ip(&["-n", first, "link", "add", "bridge0", "type", "bridge"]);
        ip(&["-n", first, "addr", "add", "10.97.0.1/24", "dev", "bridge0"]);
        ip(&["-n", first, "link", "set", "bridge0", "up"]);
        for (number, name) in (2..).zip(&names[1..]) {
            let port = format!("port{number}");
            let pair = [
                "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", name,
            ];
            ip(&[&["-n", first][..], &pair].concat());
            ip(&["-n", first, "link", "set", &port, "master", "bridge0", "up"]);
            let addr = format!("10.97.0.{number}/24");
            ip(&["-n", name, "addr", "add", &addr, "dev", "eth0"]);
            ip(&["-n", name, "link", "set", "eth0", "up"]);
        }
        Self { names }
    }

    /// A shell on one of the machines, with a home of its own and the program on its path.
    fn shell(&self, machine: usize, home: &Path, line: &str) -> Command {
        let bin = Path::new(PROGRAM).parent().unwrap();
        let name = &self.names[machine];
        // A server looks its addresses up in /sys, which `ip` mounts anew; an agent needs the control groups below it.
        let mut command = if machine == 0 {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", name]);
            command
        } else {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{name}"));
            command
        };
        command.args(["sh", "-c", line]).env_clear();
        command
            .env("HOME", home)
            .env("HOSTLER_DATA_DIR", home.join("data"));
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.env("HOSTLER_DOCKER_SOCKET", "/nonexistent/docker.sock");
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(words: &[&str]) {
    let told: Ended = Command::new("ip").args(words).output().unwrap().into();
    told.with_code(0);
}

#[test]
#[ignore = "needs root"]
fn three_commands_make_a_fleet_with_login_that_a_stranger_cannot_enter() {
    let network = Network::new();
    let homes: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let start = |machine: usize, line: &str| {
        Running::start(&mut network.shell(machine, homes[machine].path(), line))
    };
    let run = |machine: usize, line: &str| -> Ended {
        let mut command = network.shell(machine, homes[machine].path(), line);
        command.output().unwrap().into()
    };
    // The three commands. The second and third are what the first has shown, given a name.
    let mut server = start(0, "exec hostler server");
    let join = server.line("--token-file FILE");
    let command = join.strip_suffix(" --token-file FILE").unwrap();
    assert_eq!(command, "hostler agent --server https://10.97.0.1:8080");
    // The token is carried over, as the line behind it says; at a terminal it stands in the command.
    let token = std::fs::read_to_string(homes[0].path().join("data/join-token")).unwrap();
    let token = format!("HOSTLER_JOIN_TOKEN={token}");
    let agents: Vec<Running> = ["one", "two"]
        .into_iter()
        .zip(1..)
        .map(|(name, machine)| {
            start(
                machine,
                &format!("export {token}; exec {command} --name {name}"),
            )
        })
        .collect();
    let ready = || -> Vec<String> {
        let listed = run(0, "hostler node ls --output json");
        let nodes: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
        let is_ready = |node: &&Value| node["state"] == "ready";
        let names = nodes
            .iter()
            .filter(is_ready)
            .map(|node| node["name"].to_string());
        names.collect()
    };
    eventually("both are ready", || ready().len() == 2);
    run(0, "hostler run sleeper --count 2 -- sleep 1000").with_code(0);
    // The stranger reaches the port, and nothing more.
    for line in [
        "HOSTLER_ADDR=https://10.97.0.1:8080 hostler node ls",
        "HOSTLER_ADDR=http://10.97.0.1:8080 hostler logs sleeper",
    ] {
        let refused = run(3, line);
        assert!(matches!(refused.code, Some(1 | 4)), "{line}: {refused:?}");
        assert!(!refused.stdout.contains("one"), "{refused:?}");
    }
    let mut stranger = start(3, &format!("exec {command} --name stranger"));
    stranger.line("(unauthenticated)");
    assert_eq!(ready().len(), 2);
    drop((stranger, agents, server));
    homes.iter().for_each(|home| end_units(home.path()));
}

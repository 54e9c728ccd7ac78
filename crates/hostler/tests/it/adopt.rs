//! `hostler node adopt`, end to end: a container that runs becomes a workload without a restart, outlives the agent,
//! is replaced by a change and goes with the workload.

use std::process::Command;

use serde_json::Value;

use crate::fleet::Fleet;
use crate::needs_docker::{docker, socket};
use crate::program::eventually;

const SCRIPT: &str = "echo $GREETING; trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// A fleet, and a container that it did not make.
struct Yard {
    fleet: Fleet,
    name: String,
}

impl Yard {
    fn start() -> Self {
        let fleet = Fleet::start_with(&socket());
        let name = format!("theirs-{}", std::process::id());
        let words = [
            "run",
            "-d",
            "--name",
            &name,
            "--restart",
            "always",
            "-e",
            "GREETING=hello",
        ];
        docker(&[&words[..], &["busybox:local", "sh", "-c", SCRIPT]].concat());
        Self { fleet, name }
    }

    /// Its id, process and start.
    fn life(&self) -> String {
        docker(&[
            "inspect",
            "--format",
            "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}",
            &self.name,
        ])
    }

    fn copy(&self) -> Value {
        let copies = self.fleet.copies(&self.name);
        assert_eq!(copies.len(), 1, "{copies:?}");
        copies[0].clone()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.fleet.remove_all();
        docker(&["rm", "-f", &self.name]);
    }
}

#[test]
#[ignore = "needs docker"]
fn a_running_container_is_adopted_without_a_restart_and_lives_as_a_workload() {
    let mut yard = Yard::start();
    let life = yard.life();
    let listed = yard
        .fleet
        .run(&["node", "adopt", "box", &yard.name])
        .with_code(0)
        .stdout;
    assert!(
        listed.contains(&format!("adopt: {}", yard.name)),
        "{listed}"
    );
    assert!(
        listed.contains("GREETING: hello") && listed.contains("node.name == box"),
        "{listed}"
    );
    let nobody = yard
        .fleet
        .run(&["node", "adopt", "box", "nobody"])
        .with_code(1);
    assert!(
        nobody.stderr.contains("is called nobody"),
        "{}",
        nobody.stderr
    );
    yard.fleet
        .run(&["node", "adopt", "box", "--apply"])
        .with_code(2);

    let taken = ["node", "adopt", "box", &yard.name, "--apply"];
    let said = yard.fleet.run(&taken).with_code(0).stdout;
    assert_eq!(said, format!("{} created, revision 1\n", yard.name));
    assert_eq!(yard.life(), life, "it was not started anew");
    assert_eq!(
        (&yard.copy()["runs"], &yard.copy()["state"]["word"]),
        (&1.into(), &"running".into())
    );
    eventually("its log goes on", || {
        yard.fleet.run(&["logs", &yard.name]).stdout == "hello\n"
    });
    let again = yard.fleet.run(&taken).with_code(1).stderr;
    assert!(again.contains("that could be adopted"), "{again}");

    yard.fleet.kill_agent();
    yard.fleet.start_agent();
    yard.fleet.wait_ready();
    eventually("the next agent knows it", || {
        yard.copy()["state"]["word"] == "running"
    });
    assert_eq!(yard.life(), life, "nor is it now");

    let changed = listed.replace("GREETING: hello", "GREETING: changed");
    std::fs::write(yard.fleet.path().join("changed.yaml"), changed).unwrap();
    yard.fleet
        .run(&["apply", "-f", "changed.yaml"])
        .with_code(0);
    eventually("the adopted container is gone", || {
        yard.life().trim().is_empty()
    });
    eventually("the one in its place is as the spec says", || {
        yard.fleet.run(&["logs", &yard.name]).stdout == "changed\n"
    });
    yard.fleet.run(&["stop", &yard.name]).with_code(0);
    yard.fleet.run(&["start", &yard.name]).with_code(0);
    let id = yard.fleet.run(&["show", &yard.name, "-o", "json"]).json()["id"].clone();
    yard.fleet.run(&["rm", "-y", &yard.name]).with_code(0);
    let label = format!("label=hostler.workload={}", id.as_str().unwrap());
    assert_eq!(docker(&["ps", "-aq", "--filter", &label]), "");
}

#[test]
#[ignore = "needs docker"]
fn an_adopted_container_goes_with_its_workload() {
    let yard = Yard::start();
    yard.fleet
        .run(&["node", "adopt", "box", &yard.name, "--apply"])
        .with_code(0);
    yard.fleet.run(&["rm", "-y", &yard.name]).with_code(0);
    assert_eq!(yard.life().trim(), "");
    let mut gone = Command::new("docker");
    gone.args(["-H", &socket(), "start", &yard.name]);
    assert!(
        !gone.output().unwrap().status.success(),
        "there is nothing to start"
    );
}

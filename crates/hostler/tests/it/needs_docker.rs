//! The same with real containers. The engine's socket comes in `HOSTLER_TEST_DOCKER`, its image is
//! `busybox:local`; `cargo xtask test` prepares both.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hostler_kit::{Entropy as _, SeededEntropy};

use crate::crash::{kill_under_load, number, restart, until_it_shows};
use crate::fleet::Fleet;
use crate::program::{eventually, free_port};

#[expect(clippy::disallowed_methods, reason = "the engine is prepared outside")]
pub(crate) fn socket() -> String {
    std::env::var("HOSTLER_TEST_DOCKER").expect("HOSTLER_TEST_DOCKER names the engine's socket")
}

#[expect(
    clippy::print_stdout,
    reason = "says what the engine refused when a test fails"
)]
pub(crate) fn docker(words: &[&str]) -> String {
    let mut command = std::process::Command::new("docker");
    let output = command.args(["-H", &socket()]).args(words).output();
    let output = output.unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        println!("docker {words:?}: {said}");
    }
    String::from_utf8(output.stdout).unwrap()
}

/// What a web server of this machine says; empty if there is none.
pub(crate) fn page(port: u16) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return String::new();
    };
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let mut page = String::new();
    let _ = stream.read_to_string(&mut page);
    page
}

/// Removes the workload, and its container with it, whatever the test did.
struct Web {
    fleet: Fleet,
    port: u16,
}

impl Web {
    fn start() -> Self {
        let fleet = Fleet::start_with(&socket());
        let port = free_port();
        let text = port.to_string();
        let words = [
            "run",
            "web",
            "busybox:local",
            "--port",
            &text,
            "--env",
            "GREETING=hello",
        ];
        let command = "echo $GREETING > /tmp/index.html; echo serving; exec httpd -f -h /tmp -p $0";
        let web = Self { fleet, port };
        web.fleet
            .run(&[&words[..], &["--", "sh", "-c", command, &text]].concat())
            .with_code(0);
        web
    }

    fn page(&self) -> String {
        page(self.port)
    }

    fn copy(&self) -> serde_json::Value {
        self.fleet.copies("web").remove(0)
    }

    /// All containers that the workload ever had and that are still there, each with its last start, as the
    /// engine says.
    fn containers(&self) -> String {
        let shown = self.fleet.run(&["show", "web", "-o", "json"]);
        let id = shown.with_code(0).json()["id"].as_str().unwrap().to_owned();
        let label = format!("label=hostler.workload={id}");
        let listed = docker(&["ps", "-aq", "--no-trunc", "--filter", &label]);
        let ids: Vec<&str> = listed.split_whitespace().collect();
        assert!(!ids.is_empty(), "{id} has a container");
        let format = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}"];
        docker(&[&format[..], &ids].concat())
    }

    /// The same container runs, known as running, and there is no other. On a machine so busy that a lease
    /// ran out, copies are replaced by right; then it shows nothing and says so.
    fn assert_same(&self, before: &serde_json::Value, containers: &str) -> bool {
        let was_lost = || self.fleet.happened().iter().any(|kind| kind == "node-lost");
        eventually("it is seen running", || {
            was_lost() || self.copy()["state"]["word"] == "running"
        });
        if was_lost() {
            return false;
        }
        let after = self.copy();
        for key in ["id", "generation", "runs"] {
            assert_eq!(after[key], before[key], "{key}");
        }
        let since = |copy: &serde_json::Value| copy["state"]["since"].clone();
        assert_eq!(since(&after), since(before), "it was not started anew");
        assert_eq!(self.containers(), containers, "nor is there another");
        assert!(self.page().contains("hello"));
        true
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if self.fleet.server.is_none() {
            self.fleet.start_server();
        }
        if self.fleet.agent.is_none() {
            self.fleet.start_agent();
        }
        self.fleet.run(&["rm", "-y", "web"]);
    }
}

#[test]
#[ignore = "needs docker"]
fn a_container_runs_serves_logs_and_goes() {
    let web = Web::start();
    eventually("the page is served", || web.page().contains("hello"));
    eventually("the log can be read", || {
        web.fleet.run(&["logs", "web"]).stdout == "serving\n"
    });
    web.fleet.run(&["rm", "-y", "web"]).with_code(0);
    assert_eq!(web.page(), "");
}

#[test]
#[ignore = "needs docker"]
fn a_command_after_two_dashes_is_the_containers_command() {
    let web = Web::start();
    web.fleet.run(&["rm", "-y", "web"]).with_code(0);
    let port = web.port.to_string();
    let line = [
        "run",
        "web",
        "busybox:local",
        "-p",
        &port,
        "--",
        "httpd",
        "-f",
        "-p",
        &port,
    ];
    web.fleet.run(&line).with_code(0);
    eventually("it answers, if only that there is no page", || {
        web.page().contains("404")
    });
}

#[test]
#[ignore = "needs docker"]
fn kill_9_at_random_points_loses_nothing_and_leaves_the_container_to_be_adopted() {
    let seed = number("HOSTLER_TEST_SEED", 1);
    println!("repeat with HOSTLER_TEST_SEED={seed}");
    until_it_shows(|| kill_at_random_points(&SeededEntropy::new(seed)));
}

/// Whether it shows something.
fn kill_at_random_points(random: &SeededEntropy) -> bool {
    let mut web = Web::start();
    eventually("the page is served", || web.page().contains("hello"));
    let (before, containers) = (web.copy(), web.containers());
    let mut acknowledged = BTreeMap::new();
    for round in 0..number("HOSTLER_TEST_ROUNDS", 3) {
        for (turn, victim) in victims(random).iter().enumerate() {
            let moment = Duration::from_millis(random.next_u64() % 400);
            let load = |fleet: &Fleet, is_over: &AtomicBool| {
                write_until(fleet, is_over, &format!("{round}-{turn}"))
            };
            acknowledged.extend(kill_under_load(&mut web.fleet, (*victim, moment), load));
            assert!(web.page().contains("hello"), "it serves without them");
        }
        if web.fleet.agent.is_none() && random.next_u64().is_multiple_of(2) {
            web.fleet.start_agent();
        }
        restart(&mut web.fleet);
        for (name, revision) in &acknowledged {
            let shown = web.fleet.run(&["show", name, "-o", "json"]);
            let shown = shown.with_code(0).json();
            assert!(
                shown["revision"].as_u64() >= Some(*revision),
                "{name}: {shown}"
            );
        }
        if !web.assert_same(&before, &containers) {
            return false;
        }
    }
    true
}

/// Who is killed in a round, in which order: the server (0), the agent (1), or both.
fn victims(random: &SeededEntropy) -> &'static [u64] {
    match random.next_u64() % 4 {
        0 => &[0],
        1 => &[1],
        2 => &[0, 1],
        _ => &[1, 0],
    }
}

/// Writes all the while, and notes what was acknowledged.
fn write_until(fleet: &Fleet, is_over: &AtomicBool, round: &str) -> Vec<(String, u64)> {
    let mut acknowledged = Vec::new();
    for count in 0.. {
        let name = format!("note-{round}-{count}");
        let words = ["run", &name, "--count", "0", "-d", "-o", "json"];
        let ended = fleet.run(&[&words[..], &["--", "true"]].concat());
        if ended.code == Some(0) {
            acknowledged.push((name, ended.json()[0]["revision"].as_u64().unwrap()));
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[test]
#[ignore = "needs docker"]
fn the_demo_runs_its_container_too() {
    let home = tempfile::tempdir().unwrap();
    let mut command = crate::program::hostler(home.path());
    command.args([
        "up",
        "--demo",
        "--listen",
        "127.0.0.1:0",
        "--docker-socket",
        &socket(),
    ]);
    let mut up =
        crate::program::Running::start(command.arg("--data-dir").arg(home.path().join("data")));
    up.line("the API is at");
    let addr = up.line("listening on ").replace("listening on ", "");
    let mut command = crate::program::hostler(home.path());
    let words = ["rm", "-y", "demo-ticker", "demo-web", "--addr", &addr];
    let removed: crate::program::Ended = command.args(words).output().unwrap().into();
    removed.with_code(0);
    let said = up.said();
    assert!(said.contains("demo-web: running on"), "{said}");
    assert_eq!(up.terminate(), Some(0));
}

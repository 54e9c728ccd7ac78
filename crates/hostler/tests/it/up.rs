//! `up`: what a newcomer types.

use std::path::Path;

use crate::program::{Ended, Running, end_units, hostler};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn up(&self, words: &[&str]) -> Running {
        let mut command = hostler(self.path());
        command.args(["up", "--listen", "127.0.0.1:0", "--name", "box"]);
        command.args(["--docker-socket", "/nonexistent/docker.sock", "--data-dir"]);
        Running::start(command.arg(self.path().join("data")).args(words))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        end_units(self.path());
    }
}

#[test]
fn the_demo_runs_shows_its_work_and_finds_it_again() {
    let home = Home::new();
    let mut first = home.up(&["--demo"]);
    first.line("no Docker engine answers at /nonexistent/docker.sock");
    first.line("the API is at http://127.0.0.1:");
    // What is shown is on the other stream, which is read beside this one.
    for part in ["demo-ticker: running on box", "1/1", "tick 1"] {
        first.line(part);
    }
    assert_eq!(first.terminate(), Some(0));

    let mut second = home.up(&["--demo"]);
    second.line("found 1 workload of an earlier start, and 1 copy of it still running");
    second.line("the API is at");
    let addr = second.line("listening on ").replace("listening on ", "");
    let mut command = hostler(home.path());
    let shown: Ended = command
        .args(["ps", "demo-ticker", "--addr", &addr, "-o", "json"])
        .output()
        .unwrap()
        .into();
    assert_eq!(
        shown.with_code(0).json()[0]["runs"],
        1,
        "the same process goes on"
    );
    let ask = |words: &[&str]| -> Ended {
        let mut command = hostler(home.path());
        command
            .args(words)
            .args(["--addr", &addr])
            .output()
            .unwrap()
            .into()
    };
    let shown = ask(&["ps", "demo-ticker", "-o", "json"]).with_code(0);
    assert_eq!(shown.json()[0]["runs"], 1, "the same process goes on");
    ask(&["rm", "-y", "demo-ticker"]).with_code(0);
    assert_eq!(second.terminate(), Some(0));
}

#[test]
fn up_without_the_demo_is_an_empty_fleet_of_one_node() {
    let home = Home::new();
    let mut up = home.up(&[]);
    up.line("the API is at");
    let addr = up.line("listening on ").replace("listening on ", "");
    let mut command = hostler(home.path());
    let listed: Ended = command
        .args(["node", "ls", "--addr", &addr, "-o", "json"])
        .output()
        .unwrap()
        .into();
    let nodes = listed.with_code(0).json();
    assert_eq!(nodes.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (nodes[0]["name"].as_str(), nodes[0]["state"].as_str()),
        (Some("box"), Some("ready"))
    );
    assert_eq!(up.terminate(), Some(0));
}

#[test]
fn a_socket_at_which_nobody_answers_is_said_in_the_drivers_words() {
    let home = Home::new();
    let socket = home.path().join("engine.sock");
    // Its file stays when its listener is gone.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let mut command = hostler(home.path());
    command.args(["up", "--listen", "127.0.0.1:0", "--docker-socket"]);
    command.arg(&socket).arg("--data-dir");
    let mut up = Running::start(command.arg(home.path().join("data")));
    let line = up.line("neither containers nor compose projects can run here: at ");
    let named = format!(
        "at {} the container engine is out of reach",
        socket.display()
    );
    assert!(line.contains(&named), "{line}");
    assert!(line.contains("Connection refused"), "{line}");
    assert_eq!(up.terminate(), Some(0));
}

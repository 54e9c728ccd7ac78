//! The same with real containers. The engine's socket comes in `HOSTLER_TEST_DOCKER`, its image is
//! `busybox:local`; `cargo xtask test` prepares both.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::fleet::Fleet;
use crate::program::eventually;

#[expect(clippy::disallowed_methods, reason = "the engine is prepared outside")]
fn socket() -> String {
    std::env::var("HOSTLER_TEST_DOCKER").expect("HOSTLER_TEST_DOCKER names the engine's socket")
}

/// Removes the workload, and its container with it, whatever the test did.
struct Web {
    fleet: Fleet,
    port: u16,
}

impl Web {
    fn start() -> Self {
        let fleet = Fleet::start_with(&socket());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
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
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return String::new();
        };
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let mut page = String::new();
        let _ = stream.read_to_string(&mut page);
        page
    }

    fn copy(&self) -> serde_json::Value {
        self.fleet.copies("web").remove(0)
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
fn kill_9_of_the_agent_and_of_the_server_leaves_the_container_and_adopts_it() {
    let mut web = Web::start();
    eventually("the page is served", || web.page().contains("hello"));
    let before = web.copy();
    web.fleet.kill_agent();
    assert!(web.page().contains("hello"), "it serves without its agent");
    web.fleet.kill_server();
    assert!(web.page().contains("hello"), "and without the server");
    web.fleet.start_server();
    web.fleet.start_agent();
    web.fleet.wait_ready();
    eventually("it is seen running", || {
        web.copy()["state"]["word"] == "running"
    });
    let after = web.copy();
    for key in ["id", "generation", "runs"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(
        after["state"]["since"], before["state"]["since"],
        "it was not started anew"
    );
    assert!(web.page().contains("hello"));
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

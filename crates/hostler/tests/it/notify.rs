//! What a service manager hears from the program: the test is the service manager.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::foreign::called;
use crate::program::{Running, hostler, signal};

struct Manager {
    home: tempfile::TempDir,
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self {
            home,
            socket,
            heard: Vec::new(),
        }
    }

    fn start(&self, command: &mut Command) -> Running {
        command
            .env("NOTIFY_SOCKET", self.home.path().join("notify"))
            .env("WATCHDOG_USEC", "400000");
        Running::start(command)
    }

    /// Everything up to the next message that begins so.
    fn until(&mut self, start: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let count = self.socket.recv(&mut buffer);
            let count = count.unwrap_or_else(|error| panic!("{start}: {error}: {:?}", self.heard));
            let message = String::from_utf8(buffer[..count].to_vec()).unwrap();
            self.heard.push(message.clone());
            if message.starts_with(start) {
                return message;
            }
        }
    }

    fn follow(&mut self, mut program: Running) {
        self.until("READY=1");
        for _ in 0..3 {
            self.until("WATCHDOG=1");
        }
        signal(program.pid(), Signal::HUP);
        let message = self.until("RELOADING=1");
        let micros = message
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{message}");
        self.until("READY=1");
        self.until("WATCHDOG=1");
        assert_eq!(program.terminate(), Some(0), "{}", program.said());
        self.until("STOPPING=1");
    }
}

#[test]
fn a_server_says_that_it_is_ready_works_reloads_and_stops() {
    let mut manager = Manager::new();
    let mut command = hostler(manager.home.path());
    command.args([
        "server",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    let server = manager.start(command.arg(manager.home.path().join("data")));
    manager.follow(server);
    let status = |line: &&String| line.starts_with("STATUS=serves on http://127.0.0.1:");
    assert!(
        manager.heard.iter().any(|line| status(&line)),
        "{:?}",
        manager.heard
    );
}

#[test]
fn an_agent_is_ready_without_its_control_plane_and_says_how_it_stands() {
    let mut manager = Manager::new();
    let mut command = hostler(manager.home.path());
    command.args(["agent", "--server", "http://127.0.0.1:9", "--data-dir"]);
    let agent = manager.start(command.arg(manager.home.path().join("data")));
    manager.follow(agent);
    let status = "STATUS=connecting";
    assert!(
        manager.heard.iter().any(|line| line.starts_with(status)),
        "{:?}",
        manager.heard
    );
    let mut command = called("miaas-agent", manager.home.path());
    let agent = manager.start(command.env("CONTROL_PLANE_URL", "http://127.0.0.1:9"));
    manager.follow(agent);
}

#[test]
fn nobody_is_told_anything_where_there_is_no_service_manager() {
    let mut manager = Manager::new();
    let mut command = hostler(manager.home.path());
    command.args([
        "server",
        "--insecure",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
    ]);
    let mut server = Running::start(command.arg(manager.home.path().join("data")));
    server.line("listening on");
    signal(server.pid(), Signal::HUP);
    server.line("the configuration was read again");
    assert_eq!(server.terminate(), Some(0));
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0; 64]).is_err());
    manager.heard.clear();
}

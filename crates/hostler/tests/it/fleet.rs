//! A fleet of separate processes: one server and its agents, in a directory of their own.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{self, Ended, Running, against_nodes, eventually, free_port, hostler};

/// One server and one agent, each of which can be killed and started again.
pub(crate) struct Fleet {
    directory: TempDir,
    /// Kept over restarts of the server.
    listen: String,
    docker_socket: String,
    pub(crate) server: Option<Running>,
    pub(crate) agent: Option<Running>,
    /// A second node, where a test wants one.
    spare: Option<Running>,
    /// Further nodes.
    more: Vec<Running>,
    /// A socket that outlives the server, as a service manager keeps it.
    kept: Option<TcpListener>,
    /// What server and agents are started from, if not this program.
    program: Option<PathBuf>,
}

impl Fleet {
    /// A server and an agent that has joined. No container engine is in reach.
    pub(crate) fn start() -> Self {
        Self::start_with("/nonexistent/docker.sock")
    }

    pub(crate) fn start_with(docker_socket: &str) -> Self {
        let mut fleet = Self::without_agent(docker_socket);
        fleet.start_agent();
        fleet.wait_ready();
        fleet
    }

    pub(crate) fn without_agent(docker_socket: &str) -> Self {
        let mut fleet = Self::to_be_started(docker_socket);
        fleet.start_server();
        fleet
    }

    /// Directories, and nothing that runs.
    pub(crate) fn to_be_started(docker_socket: &str) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            listen: format!("127.0.0.1:{}", free_port()),
            docker_socket: docker_socket.to_owned(),
            server: None,
            agent: None,
            spare: None,
            more: Vec::new(),
            kept: None,
            program: None,
        }
    }

    /// A server of another program, whose command line is this one's.
    pub(crate) fn of_program(program: &Path) -> Self {
        let mut fleet = Self::to_be_started("/nonexistent/docker.sock");
        fleet.use_program(Some(program));
        fleet.start_server();
        fleet
    }

    /// What is started from now on is started from that program, or from this one again.
    pub(crate) fn use_program(&mut self, program: Option<&Path>) {
        self.program = program.map(Path::to_owned);
    }

    fn of_its_program(&self, command: Command) -> Command {
        let Some(program) = &self.program else {
            return command;
        };
        let mut other = Command::new(program);
        other.env_clear();
        for (name, value) in command.get_envs() {
            other.env(name, value.unwrap_or_default());
        }
        other.args(command.get_args()).stdin(Stdio::null());
        other
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn server_dir(&self) -> PathBuf {
        self.path().join("server")
    }

    pub(crate) fn agent_dir(&self) -> PathBuf {
        self.path().join("agent")
    }

    pub(crate) fn spare_dir(&self) -> PathBuf {
        self.path().join("spare")
    }

    pub(crate) fn addr(&self) -> String {
        format!("http://{}", self.listen)
    }

    pub(crate) fn start_server(&mut self) {
        let mut command = hostler(self.path());
        command
            .args(["server", "--insecure", "--listen"])
            .args([&self.listen, "--data-dir"])
            .arg(self.server_dir());
        command = self.with_kept_socket(self.of_its_program(command));
        let mut server = Running::start(&mut command);
        let line = server.line("listening on http://");
        self.listen = line.rsplit("http://").next().unwrap().to_owned();
        self.server = Some(server);
    }

    /// The agent of `box`.
    pub(crate) fn agent_command(&self) -> Command {
        self.agent_of("box", &self.agent_dir())
    }

    fn agent_of(&self, name: &str, data_dir: &Path) -> Command {
        let mut command = hostler(self.path());
        command.args(["agent", "--name", name, "--server", &self.addr()]);
        command.args(["--docker-socket", &self.docker_socket, "--data-dir"]);
        command.arg(data_dir);
        self.of_its_program(command)
    }

    /// Adds a second node, `spare`, with all its room free.
    pub(crate) fn add_spare(&mut self) {
        self.add_second("spare");
    }

    /// The same under another name.
    pub(crate) fn add_second(&mut self, name: &str) {
        let mut command = self.agent_of(name, &self.spare_dir());
        self.spare = Some(Running::start(&mut command));
        eventually("the spare is ready", || self.state_of(name) == "ready");
    }

    /// Adds a node under that name, ready.
    pub(crate) fn add_node(&mut self, name: &str) {
        let mut command = self.agent_of(name, &self.path().join(name));
        self.more.push(Running::start(&mut command));
        eventually("the node is ready", || self.state_of(name) == "ready");
    }

    /// The same command, passed the socket that is kept, if one is.
    pub(crate) fn with_kept_socket(&self, command: Command) -> Command {
        match &self.kept {
            Some(kept) => passing(kept, &command),
            None => command,
        }
    }

    /// From the next start on the server is passed a socket that stays open while it is away.
    pub(crate) fn keep_socket(&mut self) {
        self.kept = Some(TcpListener::bind(&self.listen).unwrap());
    }

    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(Running::start(&mut self.agent_command()));
    }

    /// The first node under another name than `box`, ready.
    pub(crate) fn start_agent_as(&mut self, name: &str) {
        let mut command = self.agent_of(name, &self.agent_dir());
        self.agent = Some(Running::start(&mut command));
        eventually("the node is ready", || self.state_of(name) == "ready");
    }

    pub(crate) fn kill_server(&mut self) {
        self.server.take().unwrap().kill();
    }

    pub(crate) fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill();
    }

    /// Waits until `box` takes copies.
    pub(crate) fn wait_ready(&self) {
        eventually("the node is ready", || self.state_of("box") == "ready");
    }

    /// Waits until a node can run that kind: the old compose program takes its time to tell its version.
    pub(crate) fn wait_runs(&self, node: &str, kind: &str) {
        eventually("the node has the driver", || {
            let node = self.node_of(node).unwrap_or_default();
            let runtimes = node["facts"]["runtimes"].as_array().cloned();
            let mut runtimes = runtimes.unwrap_or_default().into_iter();
            runtimes.any(|it| it["kind"] == kind && it["available"] == true)
        });
    }

    /// The node `box`, if there is one.
    pub(crate) fn node(&self) -> Option<Value> {
        self.node_of("box")
    }

    fn node_of(&self, name: &str) -> Option<Value> {
        let shown = self.run(&["node", "show", name, "-o", "json"]);
        serde_json::from_str(&shown.stdout).ok()
    }

    /// The word for a node; empty if there is none.
    pub(crate) fn state_of(&self, node: &str) -> String {
        let node = self.node_of(node);
        let state = node.and_then(|node| node["state"].as_str().map(str::to_owned));
        state.unwrap_or_default()
    }

    /// Removes every workload, whatever becomes of it.
    pub(crate) fn remove_all(&self) {
        let listed = self.run(&["ps", "-o", "name"]).stdout;
        for name in listed.lines() {
            self.run(&["rm", "-y", name]);
        }
    }

    /// The kinds of everything that has happened.
    pub(crate) fn happened(&self) -> Vec<String> {
        let events = self.run(&["events", "-o", "name"]).with_code(0).stdout;
        events.lines().map(str::to_owned).collect()
    }

    /// What was said against nodes.
    pub(crate) fn against_nodes(&self) -> Vec<String> {
        against_nodes(&self.run(&["events", "-o", "json"]).with_code(0).stdout)
    }

    /// Runs a command of the command line to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        let mut command = hostler(self.path());
        command
            .env("HOSTLER_ADDR", self.addr())
            .args(words)
            .current_dir(self.path());
        command.output().unwrap().into()
    }

    /// The copies of a workload.
    pub(crate) fn copies(&self, workload: &str) -> Vec<Value> {
        let shown = self
            .run(&["ps", workload, "-o", "json"])
            .with_code(0)
            .json();
        shown.as_array().cloned().unwrap_or_default()
    }

    /// Runs a process that leaves a file named by its pid each time it starts, once it has written a line, and
    /// then sleeps.
    pub(crate) fn run_sleeper(&self, name: &str, flags: &[&str]) -> Ended {
        let marks = self.marks(name);
        std::fs::create_dir_all(&marks).unwrap();
        let script = format!(
            "echo started; touch {}/$$; exec sleep 100000",
            marks.display()
        );
        let command = ["run", name, "--kind", "process"];
        let ended = self.run(&[&command[..], flags, &["--", "sh", "-c", &script]].concat());
        if ended.code == Some(0) && !flags.contains(&"-d") {
            // A process runs before its script has come to leave the mark.
            let copies = self.copies(name).len();
            eventually("every copy leaves its mark", || {
                self.starts(name).len() >= copies
            });
        }
        ended
    }

    /// The pids of all starts of a sleeper, dead or alive.
    pub(crate) fn starts(&self, name: &str) -> Vec<u32> {
        let pid = |entry: std::io::Result<std::fs::DirEntry>| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .parse()
                .unwrap()
        };
        std::fs::read_dir(self.marks(name))
            .unwrap()
            .map(pid)
            .collect()
    }

    fn marks(&self, name: &str) -> PathBuf {
        self.path().join("starts").join(name)
    }
}

/// The same command, with the socket as its first passed file: a shell puts it there and becomes the command.
fn passing(kept: &TcpListener, command: &Command) -> Command {
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 0</dev/null";
    let mut shell = Command::new("sh");
    shell.env_clear();
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    shell
        .args(["-c", script])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(OwnedFd::from(kept.try_clone().unwrap()));
    shell
}

impl Drop for Fleet {
    #[expect(
        clippy::print_stdout,
        reason = "says what the programs said when a test fails"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said =
                |program: &Option<Running>| program.as_ref().map(Running::said).unwrap_or_default();
            println!(
                "--- server\n{}\n--- agent\n{}\n--- spare\n{}",
                said(&self.server),
                said(&self.agent),
                said(&self.spare)
            );
            for program in &self.more {
                println!("--- process {}\n{}", program.pid(), program.said());
            }
        }
        drop(self.agent.take());
        drop(self.spare.take());
        self.more.clear();
        drop(self.server.take());
        program::end_units(self.directory.path());
    }
}

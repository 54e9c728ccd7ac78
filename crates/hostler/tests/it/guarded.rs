//! A server with login and machines that join it, as separate processes, in a directory of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use hostler_kit::trust::{Anchors, ClientTls};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::program::{
    Ended, Running, against_nodes, end_units, eventually, free_port, hostler, runtime,
};

/// How beats were taken.
pub(crate) struct Beats {
    pub(crate) accepted: u64,
    pub(crate) stale: u64,
}

/// A server with login. The command line finds the admin's login in its data directory.
pub(crate) struct Guarded {
    pub(crate) directory: TempDir,
    pub(crate) listen: String,
    pub(crate) server: Option<Running>,
    pub(crate) agents: Vec<Running>,
    /// What the first start has told.
    pub(crate) join_token: String,
    /// What the server is started with beside what it needs.
    pub(crate) environment: Vec<(String, String)>,
    /// What the server is told beside where to listen and where its data is.
    pub(crate) words: Vec<String>,
}

impl Guarded {
    pub(crate) fn start() -> Self {
        Self::start_in(Vec::new())
    }

    /// With that in the server's environment.
    pub(crate) fn start_in(environment: Vec<(String, String)>) -> Self {
        Self::begin(environment, &[])
    }

    /// Told that.
    pub(crate) fn with(words: &[&str]) -> Self {
        Self::begin(Vec::new(), words)
    }

    /// Both.
    pub(crate) fn begin(environment: Vec<(String, String)>, words: &[&str]) -> Self {
        let mut guarded = Self {
            directory: tempfile::tempdir().unwrap(),
            listen: format!("127.0.0.1:{}", free_port()),
            server: None,
            agents: Vec::new(),
            join_token: String::new(),
            environment,
            words: words.iter().map(|&word| word.to_owned()).collect(),
        };
        guarded.start_server();
        guarded.join_token = guarded.first_join_token();
        guarded
    }

    /// What was told is how machines join, and where the token is: a log is read by many.
    pub(crate) fn first_join_token(&mut self) -> String {
        let server = self.server.as_mut().unwrap();
        let line = server.line("--token-file FILE");
        assert!(
            line.starts_with("hostler agent --server https://"),
            "{line}"
        );
        let path = self.server_dir().join("join-token");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let token = std::fs::read_to_string(path).unwrap();
        let server = self.server.as_mut().unwrap();
        server.line("join-token of this machine");
        assert!(!server.said().contains(&token), "{}", server.said());
        token
    }

    pub(crate) fn start_server(&mut self) {
        let mut command = hostler(self.path());
        command.args(["server", "--listen", &self.listen, "--data-dir"]);
        command.envs(self.environment.iter().cloned());
        command.arg(self.server_dir()).args(&self.words);
        let mut server = Running::start(&mut command);
        let line = server.line("listening on https://");
        self.listen = line.rsplit("https://").next().unwrap().to_owned();
        self.server = Some(server);
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn server_dir(&self) -> PathBuf {
        self.path().join("server")
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.listen)
    }

    pub(crate) fn agent_command(&self, name: &str, token: Option<&str>) -> Command {
        let mut command = hostler(self.path());
        command.args(["agent", "--name", name, "--server", &self.url()]);
        command.args(["--docker-socket", "/nonexistent/docker.sock", "--data-dir"]);
        command.arg(self.path().join(name));
        if let Some(token) = token {
            command.env("HOSTLER_JOIN_TOKEN", token);
        }
        command
    }

    pub(crate) fn start_agent(&mut self, name: &str, token: Option<&str>) {
        let agent = Running::start(&mut self.agent_command(name, token));
        self.agents.push(agent);
    }

    /// A token with which machines join, made with these flags.
    pub(crate) fn token(&self, flags: &[&str]) -> String {
        let words = [&["token", "create", "--output", "name"][..], flags].concat();
        let made = self.admin(&words).with_code(0).stdout;
        made.trim().to_owned()
    }

    /// A node as `node show` has it.
    pub(crate) fn node(&self, name: &str) -> Value {
        let words = ["node", "show", name, "--output", "json"];
        self.admin(&words).with_code(0).json()
    }

    /// The kinds of all events.
    pub(crate) fn happened(&self) -> Vec<String> {
        let told = self.admin(&["events", "--output", "name"]).with_code(0);
        told.stdout.lines().map(str::to_owned).collect()
    }

    /// What was said against nodes.
    pub(crate) fn against_nodes(&self) -> Vec<String> {
        let told = self.admin(&["events", "--output", "json"]).with_code(0);
        against_nodes(&told.stdout)
    }

    /// How beats were taken in all.
    pub(crate) fn beats(&self) -> Beats {
        let token = std::fs::read_to_string(self.server_dir().join("admin.toml")).unwrap();
        let token = token.lines().find_map(|line| line.strip_prefix("token = "));
        let token = token.unwrap().trim_matches('"').to_owned();
        let anchors = Anchors::from_file(&self.server_dir().join("trust/ca.pem")).unwrap();
        let tls = ClientTls::new(&anchors, None).unwrap();
        let told = runtime().block_on(async {
            let stream = tokio::net::TcpStream::connect(&self.listen).await.unwrap();
            let mut stream = tls
                .connect("127.0.0.1", stream, &[b"http/1.1"])
                .await
                .unwrap();
            let asked = format!(
                "GET /metrics HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
                 connection: close\r\n\r\n",
                self.listen
            );
            stream.write_all(asked.as_bytes()).await.unwrap();
            let mut told = Vec::new();
            // A server that ends without a farewell of TLS has told all the same.
            let _ = stream.read_to_end(&mut told).await;
            String::from_utf8_lossy(&told).into_owned()
        });
        let count = |result: &str| {
            let name = format!("hostler_beats_total{{result=\"{result}\"}} ");
            let value = told.lines().find_map(|line| line.strip_prefix(&name));
            value
                .unwrap_or_else(|| panic!("no {name}in {told}"))
                .parse()
                .unwrap()
        };
        Beats {
            accepted: count("accepted"),
            stale: count("stale"),
        }
    }

    /// A process that leaves its pid behind and runs on, as a spec of that name; more of the spec follows.
    pub(crate) fn run_marked(&self, name: &str, more: &str) {
        let marks = self.marks(name);
        std::fs::create_dir_all(&marks).unwrap();
        let script = format!("touch {}/$$; exec sleep 100000", marks.display());
        let spec = format!("name: {name}\nprocess: {{ command: [sh, -c, '{script}'] }}\n{more}\n");
        let path = self.path().join(format!("{name}.yaml"));
        std::fs::write(&path, spec).unwrap();
        let words = ["apply", "-f", path.to_str().unwrap()];
        self.admin(&words).with_code(0);
    }

    /// The pids of everything that has started of it.
    pub(crate) fn starts(&self, name: &str) -> Vec<u32> {
        let entries = std::fs::read_dir(self.marks(name)).unwrap();
        let pid = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let mut pids: Vec<u32> = entries.flatten().filter_map(pid).collect();
        pids.sort_unstable();
        pids
    }

    fn marks(&self, name: &str) -> PathBuf {
        self.path().join("marks").join(name)
    }

    /// A copy of a machine's disk, as it is now. The machines of a test share one kernel and its processes: that what ran
    /// there ran under another one, and that the machine was booted since, is written into the copy.
    pub(crate) fn copy_disk(&self, of: &str, to: &str) {
        const SCRIPT: &str = "cp -a \"$0\" \"$1\"; \
             boot=$(cat /proc/sys/kernel/random/boot_id); \
             find \"$1\" '(' -name '*.start' -o -name machine.json ')' -exec sed -i \"s/$boot/of-another-machine/\" {} +";
        let mut command = Command::new("sh");
        command.args(["-euc", SCRIPT]);
        command.args([self.path().join(of), self.path().join(to)]);
        let told: Ended = command.output().unwrap().into();
        told.with_code(0);
    }

    /// An agent on a machine of that mark.
    pub(crate) fn start_agent_on(&mut self, machine: &str, name: &str, token: Option<&str>) {
        let mut command = self.agent_command(name, token);
        command.env("HOSTLER_MACHINE_ID", machine);
        self.agents.push(Running::start(&mut command));
    }

    /// As the admin, whose login the server has written.
    pub(crate) fn admin(&self, words: &[&str]) -> Ended {
        let mut command = hostler(self.path());
        command.env("HOSTLER_DATA_DIR", self.server_dir());
        command.args(words).output().unwrap().into()
    }

    /// As the bearer of a token.
    pub(crate) fn bearer(&self, token: &str, words: &[&str]) -> Ended {
        let mut command = hostler(self.path());
        command
            .env("HOSTLER_TOKEN", token)
            .env("HOSTLER_ADDR", self.url());
        command.env("HOSTLER_CA", self.server_dir().join("trust/ca.pem"));
        command.args(words).output().unwrap().into()
    }

    pub(crate) fn nodes(&self) -> Vec<(String, String)> {
        let listed = self.admin(&["node", "ls", "--output", "json"]);
        let nodes: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap_or_default();
        let text = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
        nodes
            .iter()
            .map(|node| (text(node, "name"), text(node, "state")))
            .collect()
    }

    pub(crate) fn wait_for(&self, name: &str, state: &str) {
        let awaited = (name.to_owned(), state.to_owned());
        eventually(&format!("{name} is {state}"), || {
            self.nodes().contains(&awaited)
        });
    }
}

impl Drop for Guarded {
    #[expect(
        clippy::print_stdout,
        reason = "says what the programs said when a test fails"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in self.server.iter().chain(&self.agents) {
                println!("--- process {}\n{}", program.pid(), program.said());
            }
        }
        self.agents.clear();
        self.server = None;
        end_units(self.path());
    }
}

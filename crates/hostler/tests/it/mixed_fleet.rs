//! One control plane and five agents of five contracts, each on the port that its contract expects, each under its
//! own name: all are nodes of one fleet, and each runs what it can.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::foreign::{called, persys_agent};
use crate::program::{Ended, Running, end_units, eventually, hostler};

const NO_ENGINE: &str = "/nonexistent/docker.sock";

struct Mixed {
    directory: TempDir,
    /// Where the main listener and each contract's own are.
    addrs: BTreeMap<String, String>,
    running: Vec<Running>,
}

impl Mixed {
    fn start(docker_socket: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = hostler(directory.path());
        command.args(["server", "--insecure", "--listen", "127.0.0.1:0"]);
        command.args(["-insecure", "--compat"]);
        command.args(["orchion=127.0.0.1:0", "--compat", "persys=127.0.0.1:0"]);
        command.args(["--compat", "persys-metrics=127.0.0.1:0"]);
        command.args(["--compat", "spot=127.0.0.1:0", "--data-dir"]);
        command.arg(directory.path().join("server"));
        let mut server = Running::start(&mut command);
        let mut addrs = BTreeMap::new();
        for word in ["orchion", "persys", "persys-metrics", "spot", ""] {
            let end = format!(" for {word}");
            let line = server.line(if word.is_empty() {
                "listening on "
            } else {
                &end
            });
            let addr = line.rsplit("http://").next().unwrap();
            addrs.insert(word.to_owned(), addr.trim_end_matches(&end).to_owned());
        }
        let mut mixed = Self {
            directory,
            addrs,
            running: vec![server],
        };
        mixed.start_agents(docker_socket);
        mixed
    }

    fn start_agents(&mut self, docker_socket: &str) {
        let directory = self.directory.path();
        let home = |name: &str| {
            let home = directory.join(name);
            std::fs::create_dir(&home).unwrap();
            home
        };
        let url = format!("http://{}", self.addrs[""]);
        let mut ours = hostler(directory);
        ours.args(["agent", "--name", "ours", "--server", &url]);
        ours.args(["--docker-socket", NO_ENGINE, "--data-dir"]);
        ours.arg(home("ours"));

        let mut miaas = called("miaas-agent", &home("miaas"));
        miaas.env("CONTROL_PLANE_URL", &url);
        miaas.env("HEARTBEAT_INTERVAL", "1");

        let mut orchion = called("node-agent", &home("orchion"));
        orchion.args([
            "-orchestrator",
            &self.addrs["orchion"],
            "--hostname=orchion",
        ]);
        orchion.args([
            "-heartbeat-interval",
            "1s",
            "-agent-port",
            "0",
            "-node-id",
            "o-1",
        ]);

        let spot_home = home("spot");
        std::fs::create_dir(spot_home.join("config")).unwrap();
        let conf = format!(
            "SERVER_URL=http://{}\nCLIENT_TOKEN={}\nLOGICAL_AGENT_ID=agent-spot-1\nINSTANCE_ID=i-1\n\
             INSTANCE_TYPE=t3.medium\nREGION=ap-south-1\nAZ=ap-south-1a\nAMI_ID=ami-1\nCURRENT_MODE=spot\n\
             AGENT_VERSION=2.0.0\n",
            self.addrs["spot"],
            self.account(),
        );
        std::fs::write(spot_home.join("config/agent.conf"), conf).unwrap();
        let mut spot = called("spot-agent", &spot_home);
        spot.args(["start", "--root"]).arg(&spot_home);

        let mut persys = persys_agent(&home("persys"), "persys");
        persys
            .arg("-insecure")
            .env("PERSYS_SCHEDULER_ADDR", &self.addrs["persys"])
            .env("PERSYS_SCHEDULER_INSECURE", "true")
            .env("DOCKER_HOST", docker_socket);
        for mut agent in [ours, miaas, orchion, spot, persys] {
            self.running.push(Running::start(&mut agent));
        }
    }

    /// A client of the spot manager, by its token.
    fn account(&self) -> String {
        let answer = self.post(
            "spot",
            "/api/admin/clients/create",
            &json!({"name": "acme"}),
        );
        answer["client"]["token"].as_str().unwrap().to_owned()
    }

    /// What is answered to a request at a contract's own port.
    fn ask(&self, at: &str, request: &str, body: &str) -> String {
        let host = &self.addrs[at];
        let mut stream = TcpStream::connect(host).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn post(&self, at: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(at, &format!("POST {path}"), &body.to_string());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    fn run(&self, words: &[&str]) -> Ended {
        let mut command = hostler(self.directory.path());
        command.env("HOSTLER_ADDR", format!("http://{}", self.addrs[""]));
        command.args(words).output().unwrap().into()
    }

    /// The nodes' states by contract.
    fn states(&self) -> BTreeMap<String, String> {
        let nodes = self.run(&["node", "ls", "-o", "json"]).with_code(0).json();
        let nodes = nodes.as_array().unwrap().iter();
        let word = |node: &Value, key: &str| node[key].as_str().unwrap_or_default().to_owned();
        nodes
            .map(|node| (word(node, "contract"), word(node, "state")))
            .collect()
    }

    /// The name of the contract's node.
    fn name_of(&self, contract: &str) -> String {
        let nodes = self.run(&["node", "ls", "-o", "json"]).json();
        let mut nodes = nodes.as_array().unwrap().iter();
        let node = nodes.find(|node| node["contract"] == contract).unwrap();
        node["name"].as_str().unwrap().to_owned()
    }

    fn wait_for_all(&self) {
        eventually("five contracts, five nodes that are ready", || {
            let states = self.states();
            states.len() == 5 && states.values().all(|state| state == "ready")
        });
    }

    /// Applies a spec with this section to run on that node only.
    fn apply(&self, name: &str, section: &str, node: &str, words: &[&str]) -> Ended {
        let file = self.directory.path().join(format!("{name}.yaml"));
        let spec = format!(
            "name: {name}\n{section}\nplacement: {{ constraints: [\"node.name == {node}\"] }}\n"
        );
        std::fs::write(&file, spec).unwrap();
        self.run(&[&["apply", "-f", file.to_str().unwrap()], words].concat())
    }
}

impl Drop for Mixed {
    #[expect(
        clippy::print_stdout,
        reason = "says what the programs said when a test fails"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for program in &self.running {
                println!("--- process {}\n{}", program.pid(), program.said());
            }
        }
        self.running.clear();
        end_units(self.directory.path());
    }
}

#[test]
fn agents_of_five_contracts_are_nodes_of_one_fleet() {
    let mixed = Mixed::start(NO_ENGINE);
    mixed.wait_for_all();
    let sleeper = "process: { command: [sleep, \"600\"] }";
    mixed.apply("sleeper", sleeper, "ours", &[]).with_code(0);
    let shown = mixed.run(&["ps", "sleeper", "-o", "json"]).json();
    assert_eq!(shown[0]["state"]["word"], "running", "{shown}");
    for contract in ["miaas", "orchion", "spot", "persys"] {
        let node = mixed.name_of(contract);
        let name = format!("on-{contract}");
        mixed
            .apply(&name, sleeper, &node, &["--detach"])
            .with_code(0);
        let why = mixed.run(&["why", &name]).with_code(0).stdout;
        assert!(why.contains("process"), "{contract}: {why}");
    }
    assert_eq!(mixed.states().len(), 5);
    let doctor = mixed.run(&["doctor"]).stdout;
    assert!(!doctor.contains("problem: node"), "{doctor}");
}

#[test]
fn each_port_serves_its_contract_and_no_other() {
    let mixed = Mixed::start(NO_ENGINE);
    mixed.wait_for_all();
    let status = |at: &str, path: &str| {
        let answer = mixed.ask(at, &format!("GET {path}"), "");
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for (at, path) in [
        ("orchion", "/api/nodes"),
        ("persys-metrics", "/health"),
        ("persys-metrics", "/metrics"),
        ("spot", "/health"),
        ("spot", "/api/agents"),
        ("", "/api/nodes"),
        ("", "/api/agents"),
        ("", "/api/v1/nodes"),
    ] {
        assert_eq!(status(at, path), "200", "{at} {path}");
    }
    for at in ["orchion", "persys-metrics", "spot"] {
        assert_eq!(status(at, "/api/v1/nodes"), "404", "{at}");
    }
    assert_eq!(status("orchion", "/api/agents"), "404");
    assert_eq!(status("spot", "/api/nodes"), "404");
    assert_eq!(status("persys-metrics", "/api/nodes"), "404");
    let listed = mixed.ask("orchion", "GET /api/nodes", "");
    let body = listed.split_once("\r\n\r\n").unwrap().1;
    let nodes: Value = serde_json::from_str(body).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 5, "{nodes:#}");
    let health = mixed.ask("persys-metrics", "GET /health", "");
    assert!(health.contains("modeChangedAt"), "{health}");
}

#[test]
#[ignore = "needs docker"]
fn needs_docker_a_container_runs_on_the_persys_node_of_a_mixed_fleet() {
    let socket = crate::needs_docker::socket();
    let mixed = Mixed::start(&socket);
    mixed.wait_for_all();
    let container = "container: { image: \"busybox:local\", command: [sleep, \"600\"] }";
    mixed.apply("boxed", container, "persys", &[]).with_code(0);
    let copies = mixed.run(&["ps", "boxed", "-o", "json"]).with_code(0);
    let copy = copies.json()[0]["id"].as_str().unwrap().to_owned();
    // Other tests beside this one have workloads of Persys's, too.
    let containers = || {
        let label = "{{.Label \"persys.workload_id\"}}";
        let listed = crate::needs_docker::docker(&["ps", "--format", label]);
        listed.lines().filter(|id| id.ends_with(&copy)).count()
    };
    assert_eq!(containers(), 1);
    mixed
        .run(&["node", "drain", "persys", "--wait-timeout", "2s"])
        .with_code(5);
    assert_eq!(containers(), 1, "there is no other place, so it stays");
    mixed.run(&["rm", "--yes", "boxed"]).with_code(0);
    eventually("its container is gone", || containers() == 0);
}

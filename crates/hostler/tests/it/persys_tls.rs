//! Persys's contract over TLS, both ways, under an authority of Persys's own: the program as control plane and as
//! `persys-agent`, who may talk to them, and the way there from plain text.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use hostler_kit::trust::{Anchors, ClientTls, MemberFiles, certificates};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::foreign::{apply, get, persys_agent};
use crate::program::{
    Ended, Running, end_units, eventually, free_port, hostler, is_alive, processes, runtime,
};

/// What a client that speaks HTTP/2 says first.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    Tls,
}

/// Whether the main listener asks for a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Login {
    None,
    Asked,
}

/// Somebody's authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A control plane, a node, and the files of both.
struct Place {
    directory: TempDir,
    authority: Authority,
    login: Login,
    /// Kept over restarts.
    main: String,
    persys: String,
    figures: String,
    /// Where the node serves.
    service: String,
    server: Option<Running>,
    agent: Option<Running>,
}

impl Authority {
    fn found() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, root }
    }

    /// A member's files, as Persys's own tool makes them.
    fn issue(&self, files: &MemberFiles) {
        self.issue_for(&["localhost", "127.0.0.1", "::1"], files);
    }

    fn issue_for(&self, names: &[&str], files: &MemberFiles) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        std::fs::write(&files.authority, &self.root).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
    }

    fn anchors(&self) -> Anchors {
        Anchors::Called(certificates(self.root.as_bytes()).unwrap())
    }
}

impl Place {
    fn new(login: Login) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
            authority: Authority::found(),
            login,
            main: format!("127.0.0.1:{}", free_port()),
            persys: format!("127.0.0.1:{}", free_port()),
            figures: String::new(),
            service: String::new(),
            server: None,
            agent: None,
        };
        place.authority.issue(&place.files("scheduler"));
        place.authority.issue(&place.files("agent"));
        place
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn server_dir(&self) -> PathBuf {
        self.path().join("server")
    }

    fn files(&self, name: &str) -> MemberFiles {
        let path = |end: &str| self.path().join(format!("{name}{end}"));
        MemberFiles {
            certificate: path(".pem"),
            key: path("-key.pem"),
            authority: path("-ca.pem"),
        }
    }

    /// The variables in which Persys names the files.
    fn name_files(&self, command: &mut Command, name: &str) {
        let files = self.files(name);
        command.env("PERSYS_TLS_CERT", files.certificate);
        command.env("PERSYS_TLS_KEY", files.key);
        command.env("PERSYS_TLS_CA", files.authority);
    }

    fn start(&mut self, way: Way) {
        let mut command = hostler(self.path());
        command.args(["server", "--listen", &self.main, "--data-dir"]);
        command.arg(self.server_dir());
        command.args(["--compat", &format!("persys={}", self.persys)]);
        command.args(["--compat", "persys-metrics=127.0.0.1:0"]);
        if self.login == Login::None {
            command.arg("--insecure");
        }
        match way {
            Way::Plain => _ = command.arg("-insecure"),
            Way::Tls => self.name_files(&mut command, "scheduler"),
        }
        let mut server = Running::start(&mut command);
        let mut addr = |end: &str| {
            let line = server.line(end);
            let (_, rest) = line.split_once("://").unwrap();
            rest.split(' ').next().unwrap().to_owned()
        };
        (self.persys, self.figures) = (addr(" for persys"), addr(" for persys-metrics"));
        self.main = addr("listening on http");
        self.server = Some(server);
        let mut agent = Running::start(&mut self.agent(way));
        let line = agent.line("serving persys.agent.v1 on ");
        self.service = line.rsplit(' ').next().unwrap().to_owned();
        agent.line("registered as node-1");
        self.agent = Some(agent);
    }

    fn agent(&self, way: Way) -> Command {
        let mut command = persys_agent(self.path(), "node-1");
        command
            .env("PERSYS_SCHEDULER_ADDR", &self.persys)
            .env("HOSTLER_VM_ACCELERATOR", "tcg");
        match way {
            Way::Plain => _ = command.arg("-insecure"),
            Way::Tls => self.name_files(&mut command, "agent"),
        }
        command
    }

    fn stop(&mut self) {
        assert_eq!(self.agent.take().unwrap().terminate(), Some(0));
        assert_eq!(self.server.take().unwrap().terminate(), Some(0));
    }

    /// Has the node pass a request on to the scheduler.
    fn ask(&self, way: Way, words: &[&str]) -> Ended {
        self.agent(way).args(words).output().unwrap().into()
    }

    fn run(&self, words: &[&str]) -> Ended {
        let mut command = hostler(self.path());
        match self.login {
            Login::None => command.env("HOSTLER_ADDR", format!("http://{}", self.main)),
            Login::Asked => command.env("HOSTLER_DATA_DIR", self.server_dir()),
        };
        command.args(words).output().unwrap().into()
    }

    fn nodes(&self) -> Vec<Value> {
        let listed = self.run(&["node", "ls", "-o", "json"]).with_code(0).json();
        listed.as_array().cloned().unwrap()
    }

    /// Waits until the node is ready, was dialled, and beats; answers who it is.
    fn until_driven(&self) -> Value {
        let has = |figures: &str, parts: [&str; 2]| {
            let all = |line: &str| parts.iter().all(|part| line.contains(part));
            figures.lines().any(all)
        };
        eventually("calls go both ways", || {
            let figures = get(&self.figures, "/metrics");
            has(&figures, ["rpc=\"ListWorkloads\"", "code=\"OK\""])
                && has(&figures, ["/Heartbeat\"", "code=\"OK\""])
        });
        eventually("the node is ready", || {
            let nodes = self.nodes();
            assert_eq!(nodes.len(), 1, "{nodes:?}");
            nodes[0]["state"] == "ready" && nodes[0]["held_back"].is_null()
        });
        self.nodes()[0]["id"].clone()
    }

    /// The only copy of a workload.
    fn copy(&self, workload: &str) -> Value {
        let copies = self
            .run(&["ps", workload, "-o", "json"])
            .with_code(0)
            .json();
        let copies = copies.as_array().cloned().unwrap();
        assert_eq!(copies.len(), 1, "{copies:?}");
        copies[0].clone()
    }

    /// The machines that were started for this node.
    fn machines(&self) -> Vec<u32> {
        let directory = self.path().as_os_str().as_encoded_bytes();
        processes(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let is_here = line.windows(directory.len()).any(|part| part == directory);
            String::from_utf8_lossy(first).contains("qemu-system") && is_here
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.agent = None;
        self.server = None;
        end_units(self.path());
    }
}

/// Whether who listens there talks to a client with that: it answers the first words of HTTP/2 with its own.
fn is_let_in(addr: &str, tls: &ClientTls) -> bool {
    runtime().block_on(async {
        let stream = TcpStream::connect(addr).await.unwrap();
        let Ok(mut stream) = tls.connect("127.0.0.1", stream, &[b"h2"]).await else {
            return false;
        };
        let mut answer = [0; 4];
        let said = stream.write_all(HELLO).await;
        said.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer[3] == 4
    })
}

/// What is answered to plain text.
fn plain(addr: &str) -> String {
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.write_all(HELLO).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn only_members_of_persys_authority_are_let_in_on_both_ports() {
    let mut place = Place::new(Login::Asked);
    place.start(Way::Tls);
    place.until_driven();
    let (member, other) = (place.files("member"), place.files("other"));
    place.authority.issue(&member);
    let next = Authority::found();
    next.issue(&other);
    let ours = || place.authority.anchors();
    let shown = |files: &MemberFiles, anchors: &Anchors| {
        ClientTls::from_files(anchors, (&files.certificate, &files.key)).unwrap()
    };
    for addr in [&place.persys, &place.service] {
        let own = ClientTls::of_files(member.clone()).unwrap();
        assert!(is_let_in(addr, &own), "{addr}");
        let nobody = ClientTls::new(&ours(), None).unwrap();
        assert!(!is_let_in(addr, &nobody), "no certificate at {addr}");
        let stranger = shown(&other, &ours());
        assert!(!is_let_in(addr, &stranger), "another's at {addr}");
        let distrustful = shown(&member, &next.anchors());
        assert!(!is_let_in(addr, &distrustful), "{addr} is no other's");
        assert!(plain(addr).contains("this port speaks TLS"), "{addr}");
    }

    // The files are replaced under the running programs.
    for name in ["scheduler", "agent"] {
        next.issue(&place.files(name));
    }
    for addr in [&place.persys, &place.service] {
        let new = ClientTls::of_files(other.clone()).unwrap();
        eventually(&format!("the new authority's at {addr}"), || {
            is_let_in(addr, &new)
        });
        let own = ClientTls::of_files(member.clone()).unwrap();
        assert!(!is_let_in(addr, &own), "of the former authority at {addr}");
    }
    place.stop();
}

#[test]
fn a_node_that_came_up_without_tls_is_the_same_node_with_it() {
    let mut place = Place::new(Login::None);
    place.start(Way::Plain);
    let node = place.until_driven();
    std::fs::write(place.path().join("web.json"), r#"{"image":"nginx"}"#).unwrap();
    let words = apply("web", "container", "web.json");
    let words = [&words[..], &["--revision", "r1"]].concat();
    place.ask(Way::Plain, &words).with_code(0);
    let workload = |place: &Place| {
        place
            .run(&["show", "web", "-o", "json"])
            .with_code(0)
            .json()
    };
    let before = workload(&place);
    place.stop();

    place.start(Way::Tls);
    assert_eq!(place.until_driven(), node);
    assert_eq!(workload(&place)["id"], before["id"]);
    assert_eq!(workload(&place)["revision"], before["revision"]);
    let words = ["apply", "--id", "web", "--desired-state", "Stopped"];
    place.ask(Way::Tls, &words).with_code(0);
    place.ask(Way::Plain, &words).with_code(1);
    place.stop();
}

#[test]
fn a_node_whose_certificate_names_another_address_is_heard_and_not_driven() {
    let mut place = Place::new(Login::Asked);
    let files = place.files("agent");
    place.authority.issue_for(&["elsewhere.example"], &files);
    place.start(Way::Tls);
    let reason = || {
        let reason = place.nodes()[0]["held_back"].as_str().map(str::to_owned);
        reason.unwrap_or_default()
    };
    let mut told = String::new();
    eventually("it says why", || {
        told = reason();
        told.contains("cannot be reached")
    });
    assert!(told.contains("certificate not valid for name"), "{told}");
    // What is put right is taken up without a restart.
    place.authority.issue(&files);
    place.until_driven();
    place.stop();
}

#[test]
fn a_file_that_is_missing_is_named_by_server_and_agent() {
    let place = Place::new(Login::Asked);
    std::fs::remove_file(place.files("scheduler").key).unwrap();
    std::fs::remove_file(place.files("agent").authority).unwrap();
    let mut server = hostler(place.path());
    server.args([
        "server",
        "--listen",
        "127.0.0.1:0",
        "--compat",
        "persys=127.0.0.1:0",
    ]);
    server.arg("--data-dir").arg(place.server_dir());
    place.name_files(&mut server, "scheduler");
    // Our own agent is told by its own flags.
    let mut ours = hostler(place.path());
    ours.args(["agent", "--dialect", "persys", "--server", "127.0.0.1:1"]);
    ours.arg("--data-dir").arg(place.path().join("ours"));
    let files = place.files("scheduler");
    ours.args(["--tls-cert", "/nonexistent/own.pem", "--tls-key"]);
    ours.arg(&files.key).arg("--ca").arg(&files.authority);
    for (mut command, name) in [
        (ours, "/nonexistent/own.pem cannot be read: "),
        (server, "scheduler-key.pem cannot be read: "),
        (place.agent(Way::Tls), "agent-ca.pem cannot be read: "),
    ] {
        let ended = Ended::from(command.output().unwrap()).with_code(2);
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
        assert!(ended.stderr.contains("-insecure"), "{}", ended.stderr);
    }
}

#[test]
#[ignore = "needs qemu"]
fn needs_qemu_a_machine_runs_on_while_its_node_switches_to_tls() {
    let mut place = Place::new(Login::None);
    place.start(Way::Plain);
    let node = place.until_driven();
    let spec = r#"{"vcpus":1,"memory_mb":64,"disks":[{"size_gb":1,"mount_point":"vda"}]}"#;
    std::fs::write(place.path().join("vm.json"), spec).unwrap();
    let words = apply("box", "vm", "vm.json");
    place.ask(Way::Plain, &words).with_code(0);
    eventually("it runs", || {
        place.copy("box")["state"]["word"] == "running"
    });
    let (before, machines) = (place.copy("box"), place.machines());
    assert_eq!(machines.len(), 1, "{machines:?}");
    place.stop();
    assert!(is_alive(machines[0]));

    place.start(Way::Tls);
    assert_eq!(place.until_driven(), node);
    eventually("it runs", || {
        place.copy("box")["state"]["word"] == "running"
    });
    let after = place.copy("box");
    for key in ["id", "generation", "node_id"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(place.machines(), machines, "the same process");
    // What is told over TLS is done.
    place.run(&["rm", "-y", "box"]).with_code(0);
    eventually("it ends", || place.machines().is_empty());
    place.stop();
}

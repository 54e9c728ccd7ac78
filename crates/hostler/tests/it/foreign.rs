//! Control planes of other fleets on loopback: over HTTP, as text, with a state and faults; and this program under the
//! name of their agents.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hostler_kit::trust::{Authority, Believed, Credentials, ServerTls};
use hostler_kit::{Clock as _, SystemClock};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{eventually, hostler, runtime};

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

type Rule = dyn Fn(&Asked) -> (u16, Value) + Send + Sync;

/// A control plane. It serves until the test ends.
pub(crate) struct Plane {
    pub(crate) addr: SocketAddr,
    /// By the order in which they came: one that is broken off may be read after the next.
    asked: Arc<Mutex<BTreeMap<u64, Asked>>>,
}

impl Plane {
    pub(crate) fn start(rule: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), rule)
    }

    pub(crate) fn on(
        listener: TcpListener,
        rule: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(BTreeMap::new()));
        let (kept, rule): (_, Arc<Rule>) = (Arc::clone(&asked), Arc::new(rule));
        std::thread::spawn(move || {
            for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let (kept, rule) = (Arc::clone(&kept), Arc::clone(&rule));
                std::thread::spawn(move || serve(stream, (&kept, number), rule.as_ref()));
            }
        });
        Self { addr, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Everything that was asked whose method and path begin so.
    pub(crate) fn asked(&self, line: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        let is_meant = |asked: &&Asked| asked.line.starts_with(line);
        asked.values().filter(is_meant).cloned().collect()
    }

    /// Waits until something was asked so often.
    pub(crate) fn until_asked(&self, line: &str, times: usize) -> Vec<Asked> {
        eventually(&format!("{times} times `{line}`"), || {
            self.asked(line).len() >= times
        });
        self.asked(line)
    }
}

fn serve(mut stream: TcpStream, (kept, number): (&Mutex<BTreeMap<u64, Asked>>, u64), rule: &Rule) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let Some(asked) = read(&mut stream) else {
        return;
    };
    let (status, body) = rule(&asked);
    kept.lock().unwrap().insert(number, asked);
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Some\r\nContent-Type: application/json\r\nContent-Length: {length}"
    );
    // An agent that was killed reads nothing.
    let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes());
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut text = Vec::new();
    loop {
        let mut more = [0; 4096];
        let count = stream.read(&mut more).ok().filter(|count| *count > 0)?;
        text.extend_from_slice(&more[..count]);
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(text[..end].to_vec()).ok()?;
        let headers: BTreeMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers
            .get("content-length")
            .map_or(0, |length| length.parse().unwrap());
        if text.len() >= end + 4 + length {
            let words: Vec<&str> = head.lines().next()?.split(' ').collect();
            return Some(Asked {
                line: format!("{} {}", words[0], words[1]),
                headers,
                body: serde_json::from_slice(&text[end + 4..]).unwrap_or_default(),
            });
        }
    }
}

/// This program, called by the name of another fleet's agent.
pub(crate) fn called(name: &str, home: &Path) -> Command {
    let link = home.join(name);
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_hostler"), &link).unwrap();
    }
    let mut command = Command::new(link);
    let clean = hostler(home);
    command.env_clear().stdin(std::process::Stdio::null());
    for (key, value) in clean.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    command.env("HOSTLER_DOCKER_SOCKET", "/nonexistent/docker.sock");
    command.env("HOSTLER_DATA_DIR", home.join("data"));
    command
}

/// Persys's agent under its name, as that node, on loopback and free ports, with nothing of the machine's own.
pub(crate) fn persys_agent(home: &Path, node: &str) -> Command {
    // Whatever else runs on the machine is no reason to refuse anything.
    let config =
        "admission_cpu_percent: 101\nadmission_memory_percent: 101\nadmission_disk_percent: 101\n";
    std::fs::write(home.join("agent_config.yaml"), config).unwrap();
    let mut command = called("persys-agent", home);
    command.current_dir(home);
    for (name, value) in [
        ("PERSYS_GRPC_ADDR", "127.0.0.1"),
        ("PERSYS_GRPC_PORT", "0"),
        ("PERSYS_METRICS_PORT", "0"),
        ("PERSYS_NODE_ID", node),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
    ] {
        command.env(name, value);
    }
    command.env("PERSYS_STATE_PATH", home.join("state.db"));
    command
}

/// How it is told to pass a workload of that kind on, from a file.
pub(crate) fn apply<'a>(id: &'a str, kind: &'a str, file: &'a str) -> [&'a str; 7] {
    ["apply", "--id", id, "--type", kind, "--spec-file", file]
}

/// Places of lines that begin so, each behind the one before.
#[track_caller]
pub(crate) fn in_order(lines: &[String], starts: &[&str]) {
    let mut rest = lines.iter();
    for start in starts {
        let is_there = rest.any(|line| line.contains(start));
        assert!(is_there, "`{start}` does not follow in: {lines:#?}");
    }
}

/// What is answered to a plain GET, head and body; empty if nothing is.
pub(crate) fn get(host: &str, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(host) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

/// TLS before a control plane that speaks plain text, with an authority of its own.
pub(crate) struct Front {
    pub(crate) url: String,
    /// Whom to believe.
    pub(crate) ca: PathBuf,
    _directory: TempDir,
}

impl Front {
    pub(crate) fn before(plane: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = Duration::from_millis(SystemClock::new().wall_millis());
        let authority = Authority::open(&directory.path().join("authority.pem"), now).unwrap();
        let key = Credentials::open(&directory.path().join("server.key")).unwrap();
        let shown = authority.certify_server(&key, &[], now).unwrap();
        let tls = ServerTls::of(&authority, shown, Believed::Offered).unwrap();
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, authority.roots_pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let plane = plane.trim_start_matches("http://").to_owned();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, plane) = (tls.clone(), plane.clone());
                std::thread::spawn(move || pass(&tls, stream, &plane));
            }
        });
        Self {
            url,
            ca,
            _directory: directory,
        }
    }
}

/// Carries one connection; one that does not come to stand is the test's business.
fn pass(tls: &ServerTls, stream: TcpStream, plane: &str) {
    let _ = runtime().block_on(async {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let mut secured = tls.accept(stream).await?.stream;
        let mut behind = tokio::net::TcpStream::connect(plane).await?;
        tokio::io::copy_bidirectional(&mut secured, &mut behind).await
    });
}

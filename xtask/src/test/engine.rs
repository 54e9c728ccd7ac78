//! A Docker engine of our own: everything of it lives in one temporary folder and behind one bridge, and goes
//! when it is dropped. The machine's own engine, if it has one, is left alone.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{image, provision};

/// An engine starts within seconds; a loaded machine may need longer.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Its containers are asked to stop first.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How often its socket is tried and its end is looked for.
const PATIENCE: Duration = Duration::from_millis(100);

/// The running engine.
pub(crate) struct Engine {
    daemon: Child,
    folder: TempDir,
    bridge: Option<String>,
    version: String,
}

impl Engine {
    /// Starts it and gives it the image `busybox:local`.
    pub(crate) fn start() -> Result<Self> {
        let dockerd = provision::program("dockerd").context("there is no program `dockerd`")?;
        let busybox = provision::static_busybox().context("there is no static busybox")?;
        ensure!(
            rustix::process::getuid().is_root(),
            "an engine of our own needs root"
        );
        // Sockets have short paths, so not below the target folder.
        let folder = tempfile::Builder::new()
            .prefix("hostler-test-")
            .tempdir_in("/tmp")?;
        let bridge = Bridge::make();
        let daemon = spawn(&dockerd, folder.path(), bridge.as_deref())?;
        let version = String::new();
        let mut engine = Self {
            daemon,
            folder,
            bridge,
            version,
        };
        engine.wait_until_ready()?;
        engine.version = engine.request("GET", "/version", "application/json", &[])?;
        let archive = image::archive(&busybox, &engine.folder.path().join("image"))?;
        let path = "/images/create?fromSrc=-&repo=busybox&tag=local";
        let answer = engine.request("POST", path, "application/x-tar", &archive)?;
        ensure!(!answer.contains("\"error\""), "import the image: {answer}");
        Ok(engine)
    }

    /// As a client wants it: `unix:///…`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// For people.
    pub(crate) fn description(&self) -> String {
        let version = serde_json::from_str::<serde_json::Value>(&self.version).unwrap_or_default();
        let version = version["Version"].as_str().unwrap_or("of unknown version");
        format!("an engine of our own, Docker {version}")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while self.request("GET", "/_ping", "text/plain", &[]).is_err() {
            if let Some(status) = self.daemon.try_wait()? {
                bail!("dockerd ended at once ({status}): {}", self.last_words());
            }
            if begin.elapsed() > START_TIMEOUT {
                bail!("dockerd does not get ready: {}", self.last_words());
            }
            std::thread::sleep(PATIENCE);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").to_owned()
    }

    fn request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<String> {
        request(&self.socket(), method, path, kind, body)
    }

    fn stop(&mut self) -> Result<()> {
        // Read before it ends: containerd is its child and goes with it, unless it has to be killed.
        let containerd = pid_in(&self.folder.path().join("exec/containerd/containerd.pid"));
        let pid = Pid::from_child(&self.daemon);
        if self.daemon.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM)?;
        }
        let begin = Instant::now();
        while self.daemon.try_wait()?.is_none() {
            if begin.elapsed() > STOP_TIMEOUT {
                self.daemon.kill()?;
                self.daemon.wait()?;
                if let Some(containerd) = containerd {
                    kill_process(containerd, Signal::TERM).ok();
                }
                break;
            }
            std::thread::sleep(PATIENCE);
        }
        unmount_below(self.folder.path())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let folder = self.folder.path().display().to_string();
        if let Err(error) = self.stop() {
            eprintln!("could not stop the engine in {folder}: {error:#}");
        }
        if let Some(bridge) = &self.bridge {
            Bridge::remove(bridge);
        }
    }
}

/// The network of its containers, apart from that of any other engine.
struct Bridge;

impl Bridge {
    /// None where bridges cannot be made; the engine then uses its default one.
    fn make() -> Option<String> {
        let number = std::process::id();
        let name = format!("hostler{}", number % 100_000);
        // 198.18.0.0/15 is set aside for tests of networks.
        let address = format!("198.18.{}.1/24", number % 250);
        let is_made = ip(&["link", "add", "name", &name, "type", "bridge"])
            && ip(&["addr", "add", &address, "dev", &name])
            && ip(&["link", "set", &name, "up"]);
        if !is_made {
            Self::remove(&name);
        }
        is_made.then_some(name)
    }

    fn remove(name: &str) {
        ip(&["link", "delete", name, "type", "bridge"]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let Some(ip) = provision::program("ip") else {
        return false;
    };
    let output = Command::new(ip).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn spawn(dockerd: &Path, folder: &Path, bridge: Option<&str>) -> Result<Child> {
    let log = File::create(folder.join("log"))?;
    // If we are killed, the engine is told to stop; setpriv becomes the engine and keeps its pid.
    let mut command = match provision::program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM"]).arg(dockerd);
            command
        }
        None => Command::new(dockerd),
    };
    command
        .arg("--data-root")
        .arg(folder.join("data"))
        .arg("--exec-root")
        .arg(folder.join("exec"))
        .arg("--pidfile")
        .arg(folder.join("pid"))
        .arg("--host")
        .arg(format!("unix://{}", folder.join("docker.sock").display()))
        // Ports are published by its proxy, so that no rule of the machine's firewall is touched.
        .args(["--iptables=false", "--ip-masq=false", "--ip-forward=false"])
        .args(["--shutdown-timeout", "5"]);
    if let Some(bridge) = bridge {
        command.args(["--bridge", bridge]);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on the terminal reaches us, not the engine; we stop it when the tests have ended.
        .process_group(0)
        .spawn()
        .context("start dockerd")
}

fn pid_in(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// One request to an engine; the body of its answer.
pub(super) fn request(
    socket: &Path,
    method: &str,
    path: &str,
    kind: &str,
    body: &[u8],
) -> Result<String> {
    let mut connection = UnixStream::connect(socket)?;
    connection.set_read_timeout(Some(START_TIMEOUT))?;
    let length = body.len();
    write!(
        connection,
        "{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n"
    )?;
    connection.write_all(body)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "{method} {path}: {body}");
    Ok(body.to_owned())
}

/// Whatever is still mounted below the folder would keep it from being removed.
pub(super) fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|place| Path::new(place).starts_with(folder))
        .collect();
    below.reverse();
    for place in below {
        Command::new("umount")
            .args(["--lazy", place])
            .status()
            .context("run umount")?;
    }
    Ok(())
}

//! A Podman of our own behind its Docker-compatible socket: everything of it lives in one temporary folder and
//! goes when it is dropped.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::engine::{request, unmount_below};
use super::{image, provision};

/// The service starts within a second; a loaded machine may need longer.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// It only has to close its connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often its socket is tried and its end is looked for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Needs nothing of the machine: no systemd, no cgroups of version 2, no limits above those of this process.
const SETTINGS: &str = r#"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
"#;

/// The running service.
pub(crate) struct Podman {
    service: Child,
    folder: TempDir,
    version: String,
}

impl Podman {
    /// Starts it and gives it the image `busybox:local`.
    pub(crate) fn start() -> Result<Self> {
        let podman = provision::program("podman").context("there is no program `podman`")?;
        ensure!(
            provision::program("runc").is_some(),
            "there is no program `runc`"
        );
        let busybox = provision::static_busybox().context("there is no static busybox")?;
        ensure!(
            rustix::process::getuid().is_root(),
            "a Podman of our own needs root"
        );
        // Sockets have short paths, so not below the target folder.
        let folder = tempfile::Builder::new()
            .prefix("hostler-podman-")
            .tempdir_in("/tmp")?;
        std::fs::write(folder.path().join("containers.conf"), SETTINGS)?;
        let archive = folder.path().join("image.tar");
        let content = image::archive(&busybox, &folder.path().join("image"))?;
        std::fs::write(&archive, content)?;
        let imported = command(&podman, folder.path())
            .arg("import")
            .arg(&archive)
            .arg("docker.io/library/busybox:local")
            .output()?;
        ensure!(
            imported.status.success(),
            "import the image: {}",
            String::from_utf8_lossy(&imported.stderr).trim()
        );
        let service = serve(&podman, folder.path())?;
        let version = String::new();
        let mut started = Self {
            service,
            folder,
            version,
        };
        started.wait_until_ready()?;
        started.version = request(
            &started.socket(),
            "GET",
            "/version",
            "application/json",
            &[],
        )?;
        Ok(started)
    }

    /// As a client wants it: `unix:///…`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// For people.
    pub(crate) fn description(&self) -> String {
        let version = serde_json::from_str::<serde_json::Value>(&self.version).unwrap_or_default();
        let version = version["Version"].as_str().unwrap_or("of unknown version");
        format!("a service of our own, Podman {version}")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let begin = Instant::now();
        while request(&self.socket(), "GET", "/_ping", "text/plain", &[]).is_err() {
            if let Some(status) = self.service.try_wait()? {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                let last = log.lines().last().unwrap_or("it said nothing");
                bail!("podman ended at once ({status}): {last}");
            }
            ensure!(begin.elapsed() < START_TIMEOUT, "podman does not get ready");
            std::thread::sleep(PATIENCE);
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        // Containers of a test that failed.
        if let Some(podman) = provision::program("podman") {
            let all = ["rm", "--all", "--force", "--time", "0"];
            command(&podman, self.folder.path()).args(all).output()?;
        }
        if self.service.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.service), Signal::TERM)?;
        }
        let begin = Instant::now();
        while self.service.try_wait()?.is_none() {
            if begin.elapsed() > STOP_TIMEOUT {
                self.service.kill()?;
                self.service.wait()?;
                break;
            }
            std::thread::sleep(PATIENCE);
        }
        unmount_below(self.folder.path())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            let folder = self.folder.path().display();
            eprintln!("could not stop Podman in {folder}: {error:#}");
        }
    }
}

/// Podman, with all that it keeps in the folder.
fn command(podman: &Path, folder: &Path) -> Command {
    let mut command = Command::new(podman);
    command
        .env("CONTAINERS_CONF", folder.join("containers.conf"))
        .args(["--storage-driver", "vfs", "--root"])
        .arg(folder.join("root"))
        .arg("--runroot")
        .arg(folder.join("run"))
        .arg("--tmpdir")
        .arg(folder.join("tmp"))
        .stdin(Stdio::null());
    command
}

fn serve(podman: &Path, folder: &Path) -> Result<Child> {
    let log = File::create(folder.join("log"))?;
    let socket = folder.join("podman.sock");
    command(podman, folder)
        .args(["system", "service", "--time", "0"])
        .arg(format!("unix://{}", socket.display()))
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C on the terminal reaches us, not the service; we stop it when the tests have ended.
        .process_group(0)
        .spawn()
        .context("start podman")
}

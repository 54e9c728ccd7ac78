//! The measured programs: a server, an agent, and what the agent leaves on the machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostler_wire::api::{ApplyQuery, Workload};
use hostler_wire::client::{Client, Expect};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::cores::Core;
use crate::meter::{self, Id};
use crate::spawned::{Spawned, signal};

/// How often the API is asked while something is awaited.
const ASK: Duration = Duration::from_micros(500);
/// How long anything that is awaited may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// `hostler server` on the first core.
pub(crate) struct Server {
    pub(crate) process: Spawned,
    pub(crate) url: String,
    pub(crate) data: PathBuf,
    /// Removed after the process has ended.
    _dir: Option<TempDir>,
}

/// `hostler agent` on the last core.
pub(crate) struct Agent {
    process: Option<Spawned>,
    /// From exec to the line that says so.
    pub(crate) joined_after: Duration,
    dir: TempDir,
}

impl Server {
    /// With an empty store.
    pub(crate) fn start(bench: &Bench) -> Result<Self> {
        Self::start_with(bench, &[])
    }

    /// With an empty store and these variables.
    pub(crate) fn start_with(bench: &Bench, variables: &[(&str, &str)]) -> Result<Self> {
        let dir = bench.scratch()?;
        let data = dir.path().to_owned();
        let mut server = Self::start_as(bench, data, variables, &["--insecure"])?;
        server._dir = Some(dir);
        Ok(server)
    }

    /// With the store that is there.
    pub(crate) fn start_on(bench: &Bench, data: PathBuf) -> Result<Self> {
        Self::start_as(bench, data, &[], &["--insecure"])
    }

    /// With an empty store, TLS and a login.
    pub(crate) fn start_secured(bench: &Bench) -> Result<Self> {
        let dir = bench.scratch()?;
        let mut server = Self::start_as(bench, dir.path().to_owned(), &[], &[])?;
        server._dir = Some(dir);
        Ok(server)
    }

    fn start_as(
        bench: &Bench,
        data: PathBuf,
        variables: &[(&str, &str)],
        flags: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(&bench.hostler);
        command.envs(variables.iter().copied());
        command.args([
            "server",
            "--listen",
            "127.0.0.1:0",
            "--log-level",
            "warn",
            "--data-dir",
        ]);
        command.arg(&data).args(flags);
        let process = Spawned::start(command, Core::Server, &data)?;
        let url = process.told("listening on ")?;
        Ok(Self {
            process,
            url,
            data,
            _dir: None,
        })
    }

    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.url, None)?)
    }
}

impl Agent {
    /// With an empty data directory; returns when it has joined.
    pub(crate) fn start(bench: &Bench, server: &str) -> Result<Self> {
        Self::start_with(bench, server, "/nonexistent/docker.sock")
    }

    pub(crate) fn start_with(bench: &Bench, server: &str, docker: &str) -> Result<Self> {
        let dir = bench.scratch()?;
        let mut command = Command::new(&bench.hostler);
        command.args([
            "agent",
            "--server",
            server,
            "--docker-socket",
            docker,
            "--log-level",
            "warn",
        ]);
        command
            .args(["--name", "bench", "--data-dir"])
            .arg(dir.path());
        let process = Spawned::start(command, Core::Client, dir.path())?;
        process.told("joined as ")?;
        let joined_after = process.begun.elapsed();
        Ok(Self {
            process: Some(process),
            joined_after,
            dir,
        })
    }

    pub(crate) fn id(&self) -> Id {
        self.process.as_ref().map_or(-1, Spawned::id)
    }

    /// The shims of its units.
    pub(crate) fn shims(&self) -> Vec<Id> {
        let dir = self.dir.path().display().to_string();
        meter::find(|line| line.contains(" shim ") && line.contains(&dir))
    }
}

impl Drop for Agent {
    /// Ends the agent first, so that it starts nothing again, then what rows left running.
    fn drop(&mut self) {
        drop(self.process.take());
        for shim in self.shims() {
            for child in meter::children(shim) {
                signal(child, Signal::KILL);
            }
        }
        // A shim records the end of its process and then ends by itself.
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && !self.shims().is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
        for shim in self.shims() {
            signal(shim, Signal::KILL);
        }
    }
}

/// Applies a spec and waits until all its copies run; gives the time that took.
pub(crate) async fn run_up(
    client: &Client,
    name: &str,
    spec: &str,
    count: u32,
) -> Result<Duration> {
    let begun = Instant::now();
    client
        .apply(spec, ApplyQuery::default(), Expect::Any)
        .await?;
    until(client, name, |workload| {
        workload.is_some_and(|workload| workload.running >= count)
    })
    .await?;
    Ok(begun.elapsed())
}

/// Deletes a workload and waits until nothing of it is left.
pub(crate) async fn take_down(client: &Client, name: &str) -> Result<()> {
    client.delete(name, Expect::Any).await?;
    until(client, name, |workload| workload.is_none()).await
}

async fn until(
    client: &Client,
    name: &str,
    is_so: impl Fn(Option<&Workload>) -> bool,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let seen = match client.workload(name).await {
            Ok(workload) => Some(workload),
            Err(error) if error.code() == Some("workload-not-found") => None,
            Err(error) => return Err(error).context("ask the API"),
        };
        if is_so(seen.as_ref()) {
            return Ok(());
        }
        let status = seen
            .map(|workload| format!("{:?}", workload.status))
            .unwrap_or_default();
        ensure!(
            begun.elapsed() < PATIENCE,
            "`{name}` does not get there, it is {status}"
        );
        tokio::time::sleep(ASK).await;
    }
}

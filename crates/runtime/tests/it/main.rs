//! The drivers on a real machine. What needs root or Docker is ignored unless asked for.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

mod adopt;
mod apart;
mod bad_input;
mod compose;
mod compose_git;
mod compose_survival;
mod container;
mod engine;
mod errands;
mod limits;
mod options;
mod podman;
mod ports;
mod process;
mod pulls;
mod registry;
mod rounds;
mod secrets;
mod survival;
mod vm;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{Entropy as _, SystemClock, SystemEntropy, Tasks};
use hostler_model::UnitId;
use hostler_model::spec::WorkloadSpec;
use hostler_runtime::process::{ProcessConfig, ProcessRuntime, ShimCommand};
use hostler_runtime::{Data, Found, FoundState, LogQuery, Runtime, Unit, contract};

/// A directory of units that ends all of them when the test is over, however it ends.
pub(crate) struct Home {
    dir: PathBuf,
    _temp: Option<tempfile::TempDir>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self {
            dir: temp.path().join("process"),
            _temp: Some(temp),
        }
    }

    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir, _temp: None }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// A driver, as each life of an agent makes one.
    pub(crate) fn driver(&self) -> ProcessRuntime {
        driver(self.dir.clone())
    }

    pub(crate) fn unit_dir(&self, id: UnitId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// The shim of the unit's latest run, by its own record.
    pub(crate) fn shim_pid(&self, id: UnitId, run: u32) -> i32 {
        let path = self.unit_dir(id).join(format!("runs/{run}.start"));
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        i32::try_from(record["shim"]["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let dir = self.dir.clone();
        let cleaning = std::thread::spawn(move || {
            let tokio = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tokio.block_on(async {
                let driver = driver(dir);
                for unit in driver.observe().await.unwrap_or_default() {
                    let _ = driver.remove(unit.id, Data::Delete).await;
                }
            });
        });
        let _ = cleaning.join();
    }
}

pub(crate) fn driver(dir: PathBuf) -> ProcessRuntime {
    driver_with_shim(dir, example("shim"))
}

pub(crate) fn driver_with_shim(dir: PathBuf, shim: PathBuf) -> ProcessRuntime {
    ProcessRuntime::new(ProcessConfig {
        dir,
        shim: ShimCommand {
            program: shim,
            args: Vec::new(),
        },
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
    })
}

/// An example of this crate, which cargo builds before the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

pub(crate) fn quiet(_: String) {}

pub(crate) fn shell(script: &str) -> WorkloadSpec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    WorkloadSpec::of_process("test", command)
}

/// A unit that was prepared and started.
pub(crate) async fn started(runtime: &dyn Runtime, spec: WorkloadSpec) -> Unit {
    let unit = contract::unit(spec);
    runtime.prepare(&unit, &quiet).await.unwrap();
    runtime.start(unit.id).await.unwrap();
    unit
}

pub(crate) async fn is_running(runtime: &dyn Runtime, id: UnitId) -> bool {
    let found = contract::find(runtime, id).await;
    matches!(
        found,
        Some(Found {
            state: FoundState::Running { .. },
            ..
        })
    )
}

/// The log's lines, once there are `count`.
pub(crate) async fn lines(runtime: &dyn Runtime, id: UnitId, count: usize) -> Vec<String> {
    contract::texts(runtime, id, &LogQuery::default(), count).await
}

/// Long enough for a guest or an engine on a busy machine; nothing waits this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}

/// A port that nobody has now. It is none of those that the kernel gives away by itself, so that no connection of
/// another test takes it before it is used.
pub(crate) fn free_port() -> u16 {
    const GIVEN_AWAY_FROM: u16 = 32_768;
    let is_free = |port: &u16| {
        let tcp = std::net::TcpListener::bind(("0.0.0.0", *port));
        let udp = std::net::UdpSocket::bind(("0.0.0.0", *port));
        tcp.is_ok() && udp.is_ok()
    };
    let drawn = (0..1000).map(|_| u16::try_from(SystemEntropy.next_u64() % 12_000).unwrap());
    drawn
        .map(|offset| GIVEN_AWAY_FROM - 1 - offset)
        .find(is_free)
        .expect("a port is free")
}

/// Whether a process of that number runs (a zombie does not).
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

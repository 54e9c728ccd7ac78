//! The container driver on a real engine. `HOSTLER_TEST_DOCKER` says where it listens; the image
//! `busybox:local` has to be there.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hostler_kit::{SystemClock, Tasks};
use hostler_model::spec::{Mount, PortMapping, Protocol, PullPolicy, WorkloadSpec};
use hostler_model::{Bytes, Exit, MilliCpu};
use hostler_runtime::container::{ContainerConfig, ContainerRuntime, Registries};
use hostler_runtime::contract::{self, Behaviour};
use hostler_runtime::{Data, FoundState, LogQuery, NativeVerdict, Run, Runtime as _, RuntimeError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{PATIENCE, free_port, is_alive, is_running, quiet, started, until};

/// An owner of its own on the engine; its containers are removed when the test is over.
pub(crate) struct Yard {
    engine: String,
    dir: tempfile::TempDir,
    owner: String,
}

impl Yard {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        Self {
            engine: engine(),
            dir,
            owner,
        }
    }

    pub(crate) fn driver(&self) -> ContainerRuntime {
        driver(engine(), self.dir.path().to_owned(), &self.owner)
    }

    /// What the engine's own client says of our only container.
    pub(crate) fn inspect(&self, format: &str) -> String {
        let listed = self.docker(&["ps", "-aq", "--filter", &self.filter()]);
        self.docker(&["inspect", "--format", format, listed.trim()])
            .trim()
            .to_owned()
    }

    /// The driver's own directory.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// How many containers are on record as adopted.
    pub(crate) fn records(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("adopted")).map_or(0, Iterator::count)
    }

    pub(crate) fn filter(&self) -> String {
        format!("label=hostler.owner={}", self.owner)
    }

    pub(crate) fn docker(&self, words: &[&str]) -> String {
        let output = Command::new("docker")
            .arg("-H")
            .arg(&self.engine)
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let listed = self.docker(&["ps", "-aq", "--filter", &self.filter()]);
        for container in listed.lines() {
            self.docker(&["rm", "-f", "-v", container]);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment says where the test's engine is"
)]
pub(crate) fn engine() -> String {
    std::env::var("HOSTLER_TEST_DOCKER").expect("HOSTLER_TEST_DOCKER says where the engine listens")
}

pub(crate) fn driver(engine: String, dir: PathBuf, owner: &str) -> ContainerRuntime {
    ContainerRuntime::new(ContainerConfig {
        engine,
        dir,
        owner: owner.to_owned(),
        registries: Registries::default(),
        clock: Arc::new(SystemClock::new()),
        tasks: Tasks::new(),
    })
}

pub(crate) fn busybox(script: &str) -> WorkloadSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut spec = WorkloadSpec::of_container("test", "busybox:local", command);
    spec.container.as_mut().unwrap().pull = PullPolicy::Never;
    spec
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_container_driver_keeps_the_contract() {
    let yard = Yard::new();
    let (dir, owner) = (yard.dir.path().to_owned(), yard.owner.clone());
    contract::run(&contract::Subject {
        remake: Box::new(move || Arc::new(driver(engine(), dir.clone(), &owner))),
        spec: Box::new(|behaviour: &Behaviour| busybox(&contract::script(behaviour))),
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn two_agents_on_one_engine_leave_each_others_containers_alone() {
    let (ours, theirs) = (Yard::new(), Yard::new());
    let driver = ours.driver();
    let unit = started(&driver, busybox("sleep 1000")).await;
    let other = theirs.driver();
    assert!(other.observe().await.unwrap().is_empty());
    other.remove(unit.id, Data::Delete).await.unwrap();
    assert!(is_running(&driver, unit.id).await);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_engine_is_told_limits_mounts_environment_and_no_restart() {
    let yard = Yard::new();
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("note"), "from the node").unwrap();
    let driver = yard.driver();
    let mut spec =
        busybox("cat /shared/note; echo; echo $HOSTLER_WORKLOAD $GREETING; ulimit -n; sleep 1000");
    spec.limits.cpu = Some(MilliCpu(500));
    spec.limits.memory = Some(Bytes(64 << 20));
    spec.limits.pids = Some(50);
    spec.limits.open_files = Some(77);
    spec.env.insert("GREETING".to_owned(), "hello".to_owned());
    spec.container.as_mut().unwrap().mounts = vec![Mount {
        source: shared.path().to_str().unwrap().to_owned(),
        target: "/shared".to_owned(),
        read_only: true,
    }];
    let unit = started(&driver, spec).await;
    let said = contract::texts(&driver, unit.id, &LogQuery::default(), 3).await;
    assert_eq!(said, ["from the node", "test hello", "77"]);
    let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} \
                  {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(
        yard.inspect(format),
        format!("500000000 {} 50 no", 64 << 20)
    );
    let stats = driver.stats().unwrap();
    until("it is measured", async || {
        let used = stats.measure(unit.id).await.unwrap();
        used.memory > 0 && used.pids > 0 && used.cpu_nanos > 0
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_is_measured_in_full_and_counted_among_all_that_run() {
    let yard = Yard::new();
    let driver = yard.driver();
    let spec = busybox("head -c 3000000 /dev/urandom > /tmp/x; sleep 1000");
    let unit = started(&driver, spec).await;
    let stats = driver.stats().unwrap();
    until("it is measured", async || {
        let used = stats.measure(unit.id).await.unwrap();
        used.cpu_nanos > 0 && used.memory > 0
    })
    .await;
    // Whether writes reach a disk that is counted is the machine's affair.
    let used = stats.measure(unit.id).await.unwrap();
    assert!(used.received.is_some() && used.sent.is_some(), "{used:?}");

    let theirs = yard.docker(&["run", "-d", "busybox:local", "sleep", "1000"]);
    let name = yard.docker(&["inspect", "--format", "{{.Name}}", theirs.trim()]);
    let running = driver.census().unwrap().running().await.unwrap();
    yard.docker(&["rm", "-f", theirs.trim()]);
    assert!(
        running.contains(&name.trim().trim_start_matches('/').to_owned()),
        "{running:?}"
    );
    assert!(
        running
            .iter()
            .any(|name| name.starts_with("hostler-test-0-")),
        "{running:?}"
    );
    driver.stop(unit.id).await.unwrap();
    let ours = yard.inspect("{{.Name}}");
    let running = driver.census().unwrap().running().await.unwrap();
    assert!(
        !running.contains(&ours.trim_start_matches('/').to_owned()),
        "only what runs"
    );
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_published_port_answers_on_the_node_and_a_taken_one_is_named() {
    let yard = Yard::new();
    let driver = yard.driver();
    let port = free_port();
    let mut spec = busybox("mkdir /www; echo hello > /www/index.html; httpd -f -p 8000 -h /www");
    let protocol = Protocol::Tcp;
    spec.ports = vec![PortMapping {
        name: None,
        host: port,
        target: Some(8000),
        protocol,
    }];
    let unit = started(&driver, spec.clone()).await;
    until("the port answers", async || {
        let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else {
            return false;
        };
        let mut answer = String::new();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        let _ = stream.read_to_string(&mut answer).await;
        answer.contains("hello")
    })
    .await;

    let second = contract::unit(spec);
    driver.prepare(&second, &quiet).await.unwrap();
    let error = driver.start(second.id).await.unwrap_err();
    assert!(
        matches!(error, RuntimeError::PortInUse { port: named } if named == port),
        "{error}"
    );
    let found = contract::find(&driver, second.id).await.unwrap();
    assert_eq!(
        (found.state, found.runs),
        (FoundState::Prepared, 0),
        "it never ran"
    );
    driver.stop(unit.id).await.unwrap();
    driver.start(second.id).await.unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_out_of_memory_is_told_apart_from_a_killed_one() {
    let yard = Yard::new();
    let driver = yard.driver();
    let mut spec = busybox("exec tail /dev/zero");
    spec.limits.memory = Some(Bytes(16 << 20));
    let unit = started(&driver, spec).await;
    assert_eq!(contract::ended(&driver, unit.id).await, Exit::OutOfMemory);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_container_that_somebody_else_removed_is_gone_and_can_be_made_again() {
    let yard = Yard::new();
    let driver = yard.driver();
    let unit = started(&driver, busybox("sleep 1000")).await;
    driver.observe().await.unwrap();
    let listed = yard.docker(&["ps", "-aq", "--filter", &yard.filter()]);
    yard.docker(&["rm", "-f", listed.trim()]);
    let waking = async {
        while contract::find(&driver, unit.id).await.is_some() {
            driver.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, waking)
        .await
        .expect("the removal wakes");
    assert!(matches!(
        driver.start(unit.id).await,
        Err(RuntimeError::NotFound(_))
    ));
    driver.prepare(&unit, &quiet).await.unwrap();
    driver.start(unit.id).await.unwrap();
    assert_eq!(contract::find(&driver, unit.id).await.unwrap().runs, 1);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn lost_records_of_the_driver_lose_no_container() {
    let yard = Yard::new();
    let unit = started(&yard.driver(), busybox("echo hello; sleep 1000")).await;
    for entry in std::fs::read_dir(yard.dir.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let driver = yard.driver();
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert_eq!((found.runs, found.workload), (1, unit.workload));
    assert!(matches!(found.state, FoundState::Running { .. }));
    assert_eq!(
        contract::texts(&driver, unit.id, &LogQuery::default(), 1).await,
        ["hello"]
    );
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_line_that_the_engine_cuts_is_followed_whole() {
    let yard = Yard::new();
    let driver = yard.driver();
    // Begins when the reader is there, so that the parts come to one who follows.
    let script = "sleep 1; head -c 100000 /dev/zero | tr '\\0' x; echo; sleep 1000";
    let unit = started(&driver, busybox(script)).await;
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let mut lines = driver.logs(unit.id, query).await.unwrap();
    let mut text = String::new();
    let reading = async {
        while let Some(line) = lines.next().await {
            let line = line.unwrap();
            text.push_str(&line.text);
            if !line.is_partial {
                break;
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
    assert!(read.is_ok(), "only {} bytes came", text.len());
    assert_eq!(text.len(), 100_000);
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_down_and_no_empty_list() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("no.sock").to_str().unwrap().to_owned();
    let driver = driver(nowhere, dir.path().to_owned(), "test");
    let unit = contract::unit(busybox("true"));
    let observed = driver.observe().await.unwrap_err();
    let prepared = driver.prepare(&unit, &quiet).await.unwrap_err();
    let removed = driver.remove(unit.id, Data::Delete).await.unwrap_err();
    for error in [observed, prepared, removed] {
        assert_eq!(error.code(), "engine-down", "{error}");
    }
    let fact = driver.probe().await;
    assert!(!fact.available && !fact.note.is_empty(), "{fact:?}");
}

/// An engine of the test's own, so that it can be killed.
pub(crate) struct OwnEngine {
    dir: tempfile::TempDir,
    process: Option<std::process::Child>,
}

impl OwnEngine {
    pub(crate) fn new() -> Self {
        let mut engine = Self {
            dir: tempfile::tempdir().unwrap(),
            process: None,
        };
        engine.start();
        engine
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// With live restore, containers survive the daemon, as careful people set it up.
    pub(crate) fn start(&mut self) {
        let at = |name: &str| self.dir.path().join(name);
        // In a network of its own, or it would take the other engine's bridge away.
        let process = Command::new("unshare")
            .args(["--net", "dockerd"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("-H")
            .arg(self.address())
            .args(["--live-restore", "--bridge=none", "--iptables=false"])
            .stdout(std::process::Stdio::null())
            .stderr(std::fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
            let _ = std::fs::remove_file(self.dir.path().join("pid"));
            // Its containerd dies with it, but a number that is not yet forgotten misleads the next daemon.
            let file = self.dir.path().join("exec/containerd/containerd.pid");
            let pid = std::fs::read_to_string(&file)
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            while is_alive(pid) {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::fs::remove_file(file).unwrap();
        }
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = rustix::process::Pid::from_child(&process);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = process.wait();
        }
    }

    pub(crate) fn docker(&self, words: &[&str]) -> std::process::Output {
        Command::new("docker")
            .arg("-H")
            .arg(self.address())
            .args(words)
            .output()
            .unwrap()
    }

    pub(crate) fn import_busybox(&self) {
        let archive = self.dir.path().join("busybox.tar");
        let archive = archive.to_str().unwrap();
        let saving = ["-H", &engine(), "save", "-o", archive, "busybox:local"].map(str::to_owned);
        let saved = Command::new("docker").args(saving).status().unwrap();
        let loaded = self.docker(&["load", "-i", archive]);
        assert!(saved.success());
        assert!(loaded.status.success());
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        let listed = self.docker(&["ps", "-aq"]);
        for container in String::from_utf8_lossy(&listed.stdout).lines() {
            self.docker(&["rm", "-f", container]);
        }
        self.end();
        self.unmount();
    }
}

impl OwnEngine {
    /// The machine goes down under it: what the engine keeps in memory and in the folder of running things is lost.
    /// What it runs, told by the engine's folder, ends by the given deed, when the engine can see it no more.
    pub(crate) fn lose_power(&mut self, end_all: impl FnOnce(&str)) {
        self.kill();
        end_all(&self.dir.path().display().to_string());
        self.unmount();
        std::fs::remove_dir_all(self.dir.path().join("exec")).unwrap();
    }

    /// The daemon leaves its directories mounted, which would keep them from being deleted.
    fn unmount(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let below = self.dir.path().to_str().unwrap();
        let ours: Vec<&str> = targets.filter(|target| target.starts_with(below)).collect();
        for target in ours.into_iter().rev() {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn an_engine_that_dies_is_down_and_what_it_ran_is_adopted_when_it_is_back() {
    let mut engine = OwnEngine::new();
    let dir = tempfile::tempdir().unwrap();
    let driver = driver(engine.address(), dir.path().to_owned(), "test");
    until("the engine answers", async || {
        driver.probe().await.available
    })
    .await;
    engine.import_busybox();
    let mut spec = busybox("n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done");
    spec.container.as_mut().unwrap().network = Some("none".to_owned());
    let unit = started(&driver, spec).await;
    assert!(is_running(&driver, unit.id).await);

    engine.kill();
    until("the engine is seen to be down", async || {
        matches!(driver.observe().await, Err(RuntimeError::EngineDown { .. }))
    })
    .await;
    assert!(matches!(
        driver.stop(unit.id).await,
        Err(RuntimeError::EngineDown { .. })
    ));
    engine.start();
    let waking = async {
        while driver.observe().await.is_err() {
            driver.changed().await;
        }
    };
    tokio::time::timeout(PATIENCE, waking)
        .await
        .expect("its return wakes");
    let found = contract::find(&driver, unit.id).await.unwrap();
    assert!(
        matches!(found.state, FoundState::Running { .. }),
        "{found:?}"
    );
    assert_eq!(found.runs, 1);
    let latest = LogQuery {
        run: Run::Latest,
        ..LogQuery::default()
    };
    let before = contract::texts(&driver, unit.id, &latest, 1).await.len();
    contract::texts(&driver, unit.id, &latest, before + 2).await;
    driver.remove(unit.id, Data::Delete).await.unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_healthcheck_of_an_image_is_told_in_the_engines_words() {
    let yard = Yard::new();
    let image = format!(
        "{}:health",
        yard.owner.trim_start_matches('.').to_lowercase()
    );
    let check =
        "HEALTHCHECK --interval=1s --retries=1 CMD test ! -f /sick || { echo no database; false; }";
    let made = yard.docker(&["create", "busybox:local", "true"]);
    yard.docker(&["commit", "--change", check, made.trim(), &image]);
    yard.docker(&["rm", made.trim()]);
    let driver = yard.driver();
    let engine = driver.native_health().unwrap();
    let verdict = async |id| engine.native_verdict(id).await.unwrap();

    let plain = started(&driver, busybox("sleep 1000")).await;
    assert_eq!(verdict(plain.id).await, NativeVerdict::Absent);
    let mut spec = busybox("sleep 1000");
    spec.container.as_mut().unwrap().image.clone_from(&image);
    let unit = started(&driver, spec).await;
    let healthy = NativeVerdict::Healthy;
    until("healthy", async || verdict(unit.id).await == healthy).await;
    let words = ["touch", "/sick"].map(str::to_owned).to_vec();
    let command = hostler_runtime::ExecCommand::new(words);
    let bounds = (Duration::from_secs(60), 64);
    let inside = driver.exec().unwrap();
    let done = hostler_runtime::exec::run(inside, unit.id, &command, bounds).await;
    assert_eq!(done.unwrap().exit, Exit::Code(0));
    let sick = NativeVerdict::Unhealthy("no database".to_owned());
    until("unhealthy", async || verdict(unit.id).await == sick).await;
    driver.remove(unit.id, Data::Delete).await.unwrap();
    yard.docker(&["rmi", &image]);
}

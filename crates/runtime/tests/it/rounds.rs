//! Rounds of what can die in the middle of its work, for each driver on its real component: the agent, the engine, the
//! whole machine. After each, one reconcile leaves every unit that is wanted running once and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{Exit, UnitId};
use hostler_runtime::{Data, FoundState, Runtime, RuntimeError, Unit, contract};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::container::{OwnEngine, busybox, driver as container_driver};
use crate::vm::Lab;
use crate::{Home, compose, example, is_alive, quiet, shell, until};

const FEW: u64 = 3;
/// Of a reconcile, as an agent tries: an engine may be busy for a while with what nobody waits for any more.
const MOST_TRIES: u32 = 120;

/// How many rounds; a night has more.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment says how long the campaign is"
)]
fn count() -> u64 {
    let told = std::env::var("HOSTLER_DRIVER_ROUNDS").ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(FEW)
}

/// A node with one driver.
trait Ground {
    /// A driver, as each life of an agent makes one.
    fn driver(&self) -> Arc<dyn Runtime>;

    /// The same for the agent that is a process of its own.
    fn told(&self) -> Value;

    /// The driver's own directory.
    fn dir(&self) -> PathBuf;

    /// What runs until it is stopped.
    fn spec(&self) -> WorkloadSpec;

    /// How long the agent's orders take, roughly: it is killed within.
    fn span(&self) -> u64;

    /// Of how many running things a unit consists.
    fn parts(&self) -> usize {
        1
    }

    /// What really is there of these units, whoever knows of it.
    fn census(&self, made: &[UnitId]) -> BTreeMap<String, usize>;

    /// The engine dies and comes back; nothing for drivers without one.
    fn restart_engine(&mut self) {}

    /// All that runs ends at once, and nobody sees it.
    fn cut_power(&mut self, made: &[UnitId]);
}

/// What ends a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Agent,
    AgentAndEngine,
    Machine,
}

const ENDS: [End; 3] = [End::Agent, End::AgentAndEngine, End::Machine];

/// What an agent does once: what is not wanted goes, what is wanted runs.
async fn reconcile(driver: &dyn Runtime, wanted: &[Unit]) -> Result<(), RuntimeError> {
    for found in driver.observe().await? {
        if wanted.iter().all(|unit| unit.id != found.id) {
            driver.remove(found.id, Data::Keep).await?;
        }
    }
    for unit in wanted {
        driver.prepare(unit, &quiet).await?;
        driver.start(unit.id).await?;
    }
    Ok(())
}

/// An agent that gives the first unit its next generation and starts the second anew.
fn begin_agent(ground: &dyn Ground, old: UnitId, wanted: &[Unit]) -> Child {
    let run = |unit: &Unit| json!({"id": unit.id, "workload": unit.workload, "spec": *unit.spec});
    let orders = json!({
        "driver": ground.told(),
        "dir": ground.dir(),
        "remove": [old],
        "stop": [wanted[1].id],
        "run": wanted.iter().map(run).collect::<Vec<_>>(),
    });
    Command::new(example("agent"))
        .arg(orders.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn play(ground: &mut dyn Ground) {
    let first = ground.driver();
    let mut wanted: Vec<Unit> = (0..3).map(|_| contract::unit(ground.spec())).collect();
    let mut made: Vec<UnitId> = wanted.iter().map(|unit| unit.id).collect();
    reconcile(&*first, &wanted).await.unwrap();
    for round in 0..count() {
        let end = ENDS[usize::try_from(round).unwrap() % ENDS.len()];
        let kept = contract::find(&*first, wanted[2].id).await.unwrap();
        let old = wanted[0].id;
        wanted[0].id.generation += 1;
        made.push(wanted[0].id);
        let mut agent = begin_agent(ground, old, &wanted);
        let moment = round.wrapping_mul(7919).wrapping_add(311) % ground.span();
        tokio::time::sleep(Duration::from_millis(moment)).await;
        agent.kill().unwrap();
        agent.wait().unwrap();
        match end {
            End::Agent => {}
            End::AgentAndEngine => ground.restart_engine(),
            End::Machine => {
                ground.cut_power(&made);
                forget_boot(&ground.dir());
            }
        }

        let driver = ground.driver();
        let what = format!("round {round}, killed after {moment} ms: {end:?}");
        until("the engine answers", async || {
            driver.observe().await.is_ok()
        })
        .await;
        if end == End::Machine {
            let state = contract::find(&*driver, kept.id).await.unwrap().state;
            let is_over = matches!(
                state,
                FoundState::Exited {
                    exit: Exit::Unknown,
                    ..
                }
            );
            assert!(is_over, "{what}: {state:?}");
        }
        let mut last = reconcile(&*driver, &wanted).await;
        for _ in 0..MOST_TRIES {
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            last = reconcile(&*driver, &wanted).await;
        }
        last.unwrap_or_else(|error| panic!("{what}: {error}"));
        let expected: BTreeMap<String, usize> = wanted
            .iter()
            .map(|unit| (unit.id.to_string(), ground.parts()))
            .collect();
        // What was started just now may not be its program yet.
        until(&format!("each is there once: {what}"), async || {
            ground.census(&made) == expected
        })
        .await;
        let found = driver.observe().await.unwrap();
        assert_eq!(found.len(), wanted.len(), "{what}: {found:?}");
        let runs = |state: &FoundState| matches!(state, FoundState::Running { .. });
        assert!(found.iter().all(|it| runs(&it.state)), "{what}: {found:?}");
        let now = contract::find(&*driver, kept.id).await.unwrap();
        match end {
            End::Machine => assert_eq!(now.runs, kept.runs + 1, "{what}: started anew"),
            _ => assert_eq!(now, kept, "{what}: what nobody touched runs on"),
        }
    }
    let last = ground.driver();
    for unit in &wanted {
        last.remove(unit.id, Data::Delete).await.unwrap();
    }
    assert_eq!(ground.census(&made), BTreeMap::new());
    assert_eq!(
        files(&ground.dir()),
        Vec::<PathBuf>::new(),
        "nor is a record left"
    );
}

/// Every file below the directory; neither sockets nor pipes, which would keep their readers.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// The machine was started anew: its records are of a boot that is over.
fn forget_boot(dir: &Path) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    for file in files(dir) {
        // Disks hold no such text.
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        if text.contains(boot.trim()) {
            std::fs::write(&file, text.replace(boot.trim(), "an earlier boot")).unwrap();
        }
    }
}

/// The processes for which it holds, by what the kernel tells of each.
fn processes(is_meant: impl Fn(&str, &str) -> bool) -> Vec<i32> {
    let read = |pid: i32, name: &str| {
        let text = std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|&pid| is_meant(&read(pid, "cmdline"), &read(pid, "environ")))
        .collect()
}

pub(crate) fn marked(id: UnitId) -> Vec<i32> {
    let mark = format!("HOSTLER_UNIT={id}\0");
    processes(|_, environment| environment.contains(&mark))
}

/// Processes of the units, by the mark that each carries.
fn census_of_processes(made: &[UnitId]) -> BTreeMap<String, usize> {
    let counted = made.iter().map(|id| (id.to_string(), marked(*id).len()));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// Shims first, or they would put the end on record.
fn cut_power_of_processes(dir: &Path, made: &[UnitId]) {
    let below = format!("{}/", dir.display());
    let shims = processes(|line, _| line.contains(&below) && line.contains("examples/shim"));
    for pid in shims {
        end(pid);
    }
    made.iter().flat_map(|id| marked(*id)).for_each(end);
}

/// Kills a process and waits until it is over.
fn end(pid: i32) {
    while is_alive(pid) {
        // It may end by itself meanwhile.
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes, each with its shim.
struct Processes(Home);

impl Ground for Processes {
    fn driver(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.driver())
    }

    fn told(&self) -> Value {
        json!({"process": {"shim": example("shim")}})
    }

    fn dir(&self) -> PathBuf {
        self.0.dir()
    }

    fn spec(&self) -> WorkloadSpec {
        shell("exec sleep 100000")
    }

    fn span(&self) -> u64 {
        200
    }

    fn census(&self, made: &[UnitId]) -> BTreeMap<String, usize> {
        census_of_processes(made)
    }

    fn cut_power(&mut self, made: &[UnitId]) {
        cut_power_of_processes(&self.0.dir(), made);
    }
}

#[tokio::test]
async fn rounds_of_processes_leave_one_of_each_and_no_orphan() {
    play(&mut Processes(Home::new())).await;
}

/// Machines, around a double of QEMU or the real one.
struct Machines(Lab);

impl Ground for Machines {
    fn driver(&self) -> Arc<dyn Runtime> {
        Arc::new(self.0.driver())
    }

    fn told(&self) -> Value {
        json!({"vm": {"shim": example("shim"), "qemu": self.0.settings.qemu}})
    }

    fn dir(&self) -> PathBuf {
        self.0.dir()
    }

    fn spec(&self) -> WorkloadSpec {
        let mut spec = self.0.guest("hostler.end=wait");
        spec.stop.grace_ms = 300;
        spec
    }

    fn span(&self) -> u64 {
        1200
    }

    fn census(&self, made: &[UnitId]) -> BTreeMap<String, usize> {
        census_of_processes(made)
    }

    fn cut_power(&mut self, made: &[UnitId]) {
        cut_power_of_processes(&self.0.dir(), made);
    }
}

#[tokio::test]
async fn rounds_of_machines_around_a_double_leave_one_of_each_and_no_orphan() {
    play(&mut Machines(Lab::double())).await;
}

#[tokio::test]
#[ignore = "needs qemu"]
async fn rounds_of_real_machines_leave_one_of_each_and_no_orphan() {
    play(&mut Machines(Lab::real())).await;
}

/// An engine of the test's own, with one of the two drivers that use it.
struct OnEngine {
    engine: OwnEngine,
    dir: tempfile::TempDir,
    is_compose: bool,
}

impl OnEngine {
    async fn new(is_compose: bool) -> Self {
        let ground = Self {
            engine: OwnEngine::new(),
            dir: tempfile::tempdir().unwrap(),
            is_compose,
        };
        let driver = ground.driver();
        until("the engine answers", async || {
            driver.probe().await.available
        })
        .await;
        ground.engine.import_busybox();
        ground
    }
}

impl Ground for OnEngine {
    fn driver(&self) -> Arc<dyn Runtime> {
        let (engine, dir) = (self.engine.address(), self.dir());
        if self.is_compose {
            let programs = compose::old_program();
            let owner = "test".to_owned();
            return Arc::new(compose::driver(&engine, dir, owner, programs));
        }
        Arc::new(container_driver(engine, dir, "test"))
    }

    fn told(&self) -> Value {
        let engine = self.engine.address();
        if self.is_compose {
            let environment: BTreeMap<String, String> =
                compose::environment().into_iter().collect();
            return json!({"compose": {"engine": engine, "environment": environment}});
        }
        json!({"container": {"engine": engine}})
    }

    fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    fn spec(&self) -> WorkloadSpec {
        if self.is_compose {
            return compose::services(&[
                compose::service("a", compose::IDLE, ""),
                compose::service("b", compose::IDLE, ""),
            ]);
        }
        // A first process that sleeps would ignore the stop signal and take the whole grace.
        let mut spec = busybox(compose::IDLE);
        spec.container.as_mut().unwrap().network = Some("none".to_owned());
        spec
    }

    fn span(&self) -> u64 {
        if self.is_compose { 9000 } else { 1500 }
    }

    fn parts(&self) -> usize {
        if self.is_compose { 2 } else { 1 }
    }

    fn census(&self, _: &[UnitId]) -> BTreeMap<String, usize> {
        let label = if self.is_compose {
            "hostler.compose.unit"
        } else {
            "hostler.unit"
        };
        let format = format!("{{{{.Label \"{label}\"}}}}");
        let listed = self.engine.docker(&["ps", "-a", "--format", &format]);
        let mut counts = BTreeMap::new();
        for unit in String::from_utf8_lossy(&listed.stdout).lines() {
            *counts.entry(unit.to_owned()).or_default() += 1;
        }
        counts
    }

    fn restart_engine(&mut self) {
        self.engine.kill();
        self.engine.start();
    }

    fn cut_power(&mut self, _: &[UnitId]) {
        self.engine.lose_power(|below| {
            // What the engine was just starting for nobody is among them.
            let shims =
                processes(|line, _| line.contains("containerd-shim") && line.contains(below));
            for shim in shims {
                let kept = format!("/proc/{shim}/task/{shim}/children");
                let children = std::fs::read_to_string(kept).unwrap_or_default();
                end(shim);
                let pids = children.split_whitespace();
                pids.filter_map(|pid| pid.parse().ok()).for_each(end);
            }
        });
        self.engine.start();
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn rounds_of_containers_leave_one_of_each_and_no_orphan() {
    play(&mut OnEngine::new(false).await).await;
}

#[tokio::test]
#[ignore = "needs compose"]
async fn rounds_of_projects_leave_one_container_of_each_service_and_no_orphan() {
    play(&mut OnEngine::new(true).await).await;
}

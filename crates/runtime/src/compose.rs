//! The compose driver: compose projects on a Docker-compatible engine, by the node's own compose program.
//!
//! The program reads the files, and creates and starts what they describe; everything else goes through the engine.
//! The engine keeps the state, and the disk what it does not know: the files (see `project`) and when each run began.
//! Everything of ours carries labels, so that it is found again whatever became of the agent:
//!
//! ```text
//!   hostler.compose.owner      which agent made it: two agents on one machine leave each other's alone
//!   hostler.compose.unit       <assignment>.<generation>
//!   hostler.compose.workload   the workload's id
//!   hostler.compose.grace-ms   how long it may take to stop, if its service says nothing
//! ```
//!
//! They are not the labels of the container driver: each of the two sees its own. The project's name derives from the
//! assignment; a generation finds the named volumes of the one before it, which is gone when it starts.
//!
//! What can fail has stable codes: `compose-missing`, `compose-invalid`, `compose-variable-missing`, `compose-failed`,
//! `compose-build-failed`, `compose-file-missing`, `compose-project-busy`, `git-missing`, `git-unreachable`,
//! `git-unauthorized`, `git-ref-not-found`, `git-token-unreadable`, and those of containers.

mod drive;
mod end;
mod errands;
mod file;
mod found;
mod git;
mod given;
mod leftovers;
mod output;
mod program;
mod project;
mod resolved;
mod state;
mod tool;
mod watch;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::StatsOptions;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_kit::{Clock, Tasks};
use hostler_model::spec::Kind;
use hostler_model::{Exit, Part, RuntimeFact, Timestamp, UnitId};
use tokio::sync::Semaphore;

use crate::container::engine::{Attempt as _, Engine, Refused};
use crate::container::images::Images;
use crate::container::pull::{self, Pulls};
use crate::container::registry::Registries;
use crate::container::starts::Starts;
use crate::container::watch::Watch;
use crate::logs::{LogLine, LogQuery};
use crate::secrets::{Given, Pouch};
use crate::turns::{Turns, lock};
use crate::whose::Whose;
use crate::{
    Data, Exec, Files, Found, Judge, Judged, Leftovers, Ports, Progress, Runtime, RuntimeError,
    Secrets, Stats, Unit, UnitStats, fact,
};

pub use file::{FileSet, resolve};
use program::Program;
pub use program::Programs;
use project::Places;
pub use resolved::{Variable, millis, variables};
use state::Piece;

const LABEL_OWNER: &str = "hostler.compose.owner";
const LABEL_UNIT: &str = "hostler.compose.unit";
const LABEL_WORKLOAD: &str = "hostler.compose.workload";
const LABEL_GRACE: &str = "hostler.compose.grace-ms";
/// Compose's own label on all that it makes.
const PROJECT: &str = "com.docker.compose.project";
/// Files that are read, fetched or built at once; the old program takes a second of a core to begin.
const PREPARATIONS_AT_ONCE: usize = 4;

/// What the driver is made of.
pub struct ComposeConfig {
    /// Where the engine listens: `unix:///var/run/docker.sock`, a path, or `tcp://host:port`.
    pub engine: String,
    /// The driver's own directory, for the projects' files.
    pub dir: PathBuf,
    /// Names this agent among those of the machine. Projects of other owners are neither seen nor touched.
    pub owner: String,
    pub programs: Programs,
    /// The whole environment of the programs, as `PATH`, `HOME` and the address of a proxy. Projects can read it.
    pub environment: Vec<(String, String)>,
    pub clock: Arc<dyn Clock>,
    /// The watch over the engine's events belongs to this family.
    pub tasks: Tasks,
}

/// Runs compose projects.
pub struct ComposeRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pulls: Pulls,
    whose: Whose,
    preparations: Semaphore,
    starts: Starts,
    places: Places,
    owner: String,
    secrets: Pouch,
    judge: OnceLock<Arc<dyn Judge>>,
    programs: Programs,
    env: Vec<(String, String)>,
    /// When a program was looked for last, by uptime, and what was found.
    program: Mutex<Option<(Duration, Option<Program>)>>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    watch: Watch<String, Piece>,
    /// As the last observation found them.
    parts: Mutex<HashMap<UnitId, Vec<Part>>>,
    /// Projects whose rest is being ended.
    ending: Mutex<HashSet<UnitId>>,
    is_swept: AtomicBool,
    turns: Turns,
}

impl ComposeRuntime {
    /// Makes the driver; connects to nothing and looks for nothing yet.
    #[must_use]
    pub fn new(config: ComposeConfig) -> Self {
        let secrets = Pouch::of(&config.dir);
        let places = Places::new(config.dir, &config.owner);
        let mut env = config.environment;
        env.push(("DOCKER_HOST".to_owned(), address(&config.engine)));
        // The old program speaks an old version of the API unless it is told to ask.
        env.push(("COMPOSE_API_VERSION".to_owned(), "auto".to_owned()));
        let images = Images::new(places.images(), Arc::clone(&config.clock));
        let inner = Inner {
            engine: Engine::at(config.engine),
            pulls: Pulls::new(Registries::default(), pull::PATIENCE, images),
            whose: Whose::in_dir(places.whose()),
            preparations: Semaphore::new(PREPARATIONS_AT_ONCE),
            starts: Starts::in_dir(places.starts()),
            places,
            owner: config.owner,
            secrets,
            judge: OnceLock::new(),
            programs: config.programs,
            env,
            program: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            clock: config.clock,
            tasks: config.tasks,
            watch: Watch::default(),
            parts: Mutex::default(),
            ending: Mutex::default(),
            is_swept: AtomicBool::new(false),
            turns: Turns::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

#[async_trait]
impl Runtime for ComposeRuntime {
    fn kind(&self) -> Kind {
        Kind::Compose
    }

    async fn probe(&self) -> RuntimeFact {
        let answer = async {
            let program = self.inner.program().await?;
            let docker = self.inner.engine.docker().await?;
            docker.version().await.or_down()?;
            Ok(program.version)
        };
        fact(Kind::Compose, answer.await)
    }

    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(unit.id).await;
        self.inner.prepare(unit, progress).await
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.start(id).await
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        self.inner.stop(id).await
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        let turn = self.inner.turns.take(id).await;
        let removed = self.inner.remove(id, data).await;
        drop(turn);
        if removed.is_ok() {
            self.inner.turns.forget(id);
            lock(&self.inner.parts).remove(&id);
        }
        // Whoever follows its log learns that it is gone, also if it never had a container.
        self.inner.watch.touch();
        removed
    }

    async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        self.inner.watch_events();
        let holders = self.inner.secrets.holders();
        let found = self.inner.observe().await?;
        let units = found.iter().map(|unit| unit.id);
        self.inner.secrets.sweep(holders, units).await;
        Ok(found)
    }

    fn parts(&self, id: UnitId) -> Vec<Part> {
        lock(&self.inner.parts)
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    async fn changed(&self) {
        self.inner.watch_events();
        self.inner.watch.wake().await;
    }

    async fn logs(
        &self,
        id: UnitId,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        output::read(Arc::clone(&self.inner), id, query).await
    }

    fn stats(&self) -> Option<&dyn Stats> {
        Some(self)
    }

    fn leftovers(&self) -> Option<&dyn Leftovers> {
        Some(self)
    }

    fn judged(&self) -> Option<&dyn Judged> {
        Some(self)
    }

    fn exec(&self) -> Option<&dyn Exec> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }

    fn ports(&self) -> Option<&dyn Ports> {
        Some(self)
    }

    fn secrets(&self) -> Option<&dyn Secrets> {
        Some(self)
    }
}

impl Secrets for ComposeRuntime {
    fn give(&self, id: UnitId, secrets: Vec<Given>) {
        self.inner.secrets.give(id, secrets);
    }
}

impl Judged for ComposeRuntime {
    fn judge_by(&self, judge: Arc<dyn Judge>) {
        // The first one stays.
        let _ = self.inner.judge.set(judge);
    }
}

/// The sum over the project's containers.
#[async_trait]
impl Stats for ComposeRuntime {
    async fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError> {
        let seen = self.inner.seen_of(id).await?;
        let docker = self.inner.engine.docker().await?;
        let mut sum = UnitStats::default();
        for piece in seen.pieces.iter().filter(|piece| piece.is_alive()) {
            let options = StatsOptions {
                stream: false,
                one_shot: true,
            };
            let first = docker.stats(&piece.container, Some(options)).next().await;
            let stats = match first.transpose().attempt()? {
                Ok(Some(stats)) => stats,
                Ok(None) => continue,
                // It ended in between.
                Err(refused) if refused.is_not_found() || refused.is_conflict() => continue,
                Err(refused) => return Err(Refused::of_engine(refused)),
            };
            let usage = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage);
            sum.cpu_nanos += usage.and_then(|usage| usage.total_usage).unwrap_or(0);
            sum.memory += stats
                .memory_stats
                .and_then(|memory| memory.usage)
                .unwrap_or(0);
            let pids = stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
            sum.pids += u32::try_from(pids).unwrap_or(0);
        }
        Ok(sum)
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }
}

/// As the programs want it.
fn address(engine: &str) -> String {
    if engine.starts_with('/') {
        format!("unix://{engine}")
    } else {
        engine.to_owned()
    }
}

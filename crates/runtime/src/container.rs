//! The container driver: containers of a Docker-compatible engine, through its API (1.40 or later). Podman's
//! compatible socket works too; where it differs, we make up for it.
//!
//! The engine keeps the state; what it does not know is in one small file per unit (see `starts`): when each
//! run began, because a container that is started again keeps one log. Everything of ours carries labels, so
//! that it is found again whatever became of the agent:
//!
//! ```text
//!   hostler.owner      which agent made it: two agents on one machine leave each other's alone
//!   hostler.unit       <assignment>.<generation>
//!   hostler.workload   the workload's id
//!   hostler.grace-ms   how long it may take to stop, which the engine knows only in whole seconds
//!   hostler.volumes    `kept`, if it mounts volumes by their names
//! ```
//!
//! A container that was adopted has none of these; a record on disk stands for them (see `adopt`).
//!
//! The engine's own restart policy is always `no`: it would revive what has moved away. An engine that does
//! not answer is an error of its own; its containers may well run.

mod adopt;
mod adoptable;
mod create;
pub(crate) mod engine;
mod exec;
mod files;
pub(crate) mod found;
pub(crate) mod images;
mod leftovers;
mod output;
pub(crate) mod places;
pub(crate) mod pull;
pub(crate) mod reading;
pub(crate) mod registry;
pub(crate) mod requests;
pub(crate) mod starts;
mod usage;
pub(crate) mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
    StartContainerOptions, StatsOptions,
};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hostler_kit::{Clock, Tasks};
use hostler_model::spec::Kind;
use hostler_model::{Exit, FailureCode, RuntimeFact, Timestamp, UnitId};

use crate::logs::{LogLine, LogQuery};
use crate::secrets::{Given, Pouch};
use crate::turns::{Turn, Turns, lock, to_the_end};
use crate::{
    Adoptable, Adoption, Census, Data, Exec, Files, Found, FoundState, Leftovers, NativeHealth,
    Ports, Progress, Runtime, RuntimeError, Secrets, Stats, Unit, UnitStats, fact,
};
use adopt::Adoptions;
use engine::{Attempt as _, Engine, NETWORK_MISSING, readable};
use images::Images;
use pull::{Pulls, Ready};
pub use registry::{Login, Registries, Registry};
use requests::{KILL_PATIENCE, LOOK_PAUSE};
use starts::Starts;
use tokio::sync::Semaphore;
use watch::Watch;

const LABEL_OWNER: &str = "hostler.owner";
const LABEL_UNIT: &str = "hostler.unit";
const LABEL_WORKLOAD: &str = "hostler.workload";
const LABEL_GRACE: &str = "hostler.grace-ms";
const LABEL_VOLUMES: &str = "hostler.volumes";
/// Containers that are created at once.
const CREATIONS_AT_ONCE: usize = 8;

/// What the driver is made of.
pub struct ContainerConfig {
    /// Where the engine listens: `unix:///var/run/docker.sock`, a path, or `tcp://host:port`.
    pub engine: String,
    /// The driver's own directory, for its small files.
    pub dir: PathBuf,
    /// Names this agent among those of the machine, such as its node id. Containers of other owners are
    /// neither seen nor touched.
    pub owner: String,
    /// Where images come from, and who the node is there.
    pub registries: Registries,
    pub clock: Arc<dyn Clock>,
    /// The watch over the engine's events belongs to this family.
    pub tasks: Tasks,
}

/// Runs containers.
pub struct ContainerRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    pulls: Pulls,
    creations: Semaphore,
    starts: Starts,
    adoptions: Adoptions,
    secrets: Pouch,
    owner: String,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    watch: Watch<UnitId, Found>,
    /// The engine's ids of units that were met before.
    ids: Mutex<HashMap<UnitId, String>>,
    turns: Turns,
}

impl ContainerRuntime {
    /// Makes the driver; connects to nothing yet.
    #[must_use]
    pub fn new(config: ContainerConfig) -> Self {
        Self::with_pull_patience(config, pull::PATIENCE)
    }

    /// The same, with another span for which a pull may be silent.
    #[must_use]
    pub fn with_pull_patience(config: ContainerConfig, patience: Duration) -> Self {
        let ContainerConfig {
            engine,
            dir,
            owner,
            registries,
            clock,
            tasks,
        } = config;
        let images = Images::new(dir.join("images"), Arc::clone(&clock));
        let inner = Inner {
            engine: Engine::at(engine),
            pulls: Pulls::new(registries, patience, images),
            creations: Semaphore::new(CREATIONS_AT_ONCE),
            adoptions: Adoptions::in_dir(dir.join("adopted")),
            secrets: Pouch::of(&dir),
            starts: Starts::in_dir(dir),
            owner,
            clock,
            tasks,
            watch: Watch::default(),
            ids: Mutex::default(),
            turns: Turns::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Tells it anew where images come from.
    pub fn set_registries(&self, registries: Registries) {
        self.inner.pulls.set_registries(registries);
    }

    /// Whether the engine has the image already.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn has_image(&self, image: &str) -> Result<bool, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        pull::is_here(&docker, image).await
    }
}

#[async_trait]
impl Runtime for ContainerRuntime {
    fn kind(&self) -> Kind {
        Kind::Container
    }

    async fn probe(&self) -> RuntimeFact {
        let answer = async {
            let docker = self.inner.engine.docker().await?;
            let version = docker.version().await.or_down()?;
            Ok(version.version.unwrap_or_default())
        };
        fact(Kind::Container, answer.await)
    }

    async fn prepare(&self, unit: &Unit, progress: Progress<'_>) -> Result<(), RuntimeError> {
        unit.check_volumes()?;
        let turn = self.inner.turns.take(unit.id).await;
        let turn = self.inner.take_over(unit, turn).await?;
        let Some((docker, image)) = self.inner.fetch(unit, progress).await? else {
            return Ok(());
        };
        let _permit = self.inner.creations.acquire().await;
        // An engine carries a request out even if nobody waits for it any more, so the turn ends with it:
        // a removal that comes next finds what was made.
        let (inner, unit) = (Arc::clone(&self.inner), unit.clone());
        let created = to_the_end(&self.inner.tasks, "create a container", async move {
            let answer = inner.create(&docker, &unit, &image.name).await;
            drop(image);
            drop(turn);
            answer
        });
        let lost = || Err(engine::down("the creation was broken off".to_owned()));
        created.await.unwrap_or_else(lost)
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        let started = self.inner.start(id).await;
        self.inner.watch.forget(&id);
        started
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let _turn = self.inner.turns.take(id).await;
        let stopped = self.inner.stop(id).await;
        self.inner.watch.forget(&id);
        stopped
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        let turn = self.inner.turns.take(id).await;
        let removed = self.inner.remove(id, data).await;
        self.inner.watch.forget(&id);
        drop(turn);
        if removed.is_ok() {
            self.inner.turns.forget(id);
            lock(&self.inner.ids).remove(&id);
        }
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

    fn census(&self) -> Option<&dyn Census> {
        Some(self)
    }

    fn leftovers(&self) -> Option<&dyn Leftovers> {
        Some(self)
    }

    fn adoption(&self) -> Option<&dyn Adoption> {
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

    fn native_health(&self) -> Option<&dyn NativeHealth> {
        Some(self)
    }

    fn secrets(&self) -> Option<&dyn Secrets> {
        Some(self)
    }
}

impl Secrets for ContainerRuntime {
    fn give(&self, id: UnitId, secrets: Vec<Given>) {
        self.inner.secrets.give(id, secrets);
    }
}

#[async_trait]
impl Stats for ContainerRuntime {
    async fn measure(&self, id: UnitId) -> Result<UnitStats, RuntimeError> {
        let container = self.inner.known(id).await?;
        let docker = self.inner.engine.docker().await?;
        let options = StatsOptions {
            stream: false,
            one_shot: true,
        };
        let first = docker.stats(&container, Some(options)).next().await;
        let stats = first
            .transpose()
            .or_refused(|refused| refused.of_unit(id))?;
        Ok(stats.map(usage::of).unwrap_or_default())
    }
}

#[async_trait]
impl Census for ContainerRuntime {
    async fn running(&self) -> Result<Vec<String>, RuntimeError> {
        let docker = self.inner.engine.docker().await?;
        let running = readable(|| docker.list_containers(None::<ListContainersOptions>)).await;
        let names = running
            .or_down()?
            .into_iter()
            .filter_map(|it| it.names?.into_iter().next());
        Ok(names
            .map(|name| name.trim_start_matches('/').to_owned())
            .collect())
    }
}

#[async_trait]
impl Adoption for ContainerRuntime {
    async fn adoptable(&self) -> Result<Vec<Adoptable>, RuntimeError> {
        self.inner.strangers().await
    }
}

impl Inner {
    /// Adopts what the spec names, if it names something: to the end, from the engine to the record, even if who asked
    /// goes meanwhile. The turn comes back when it is done.
    async fn take_over(self: &Arc<Self>, unit: &Unit, turn: Turn) -> Result<Turn, RuntimeError> {
        let spec = unit.spec.container.as_ref();
        if spec.is_none_or(|spec| spec.adopt.is_none()) {
            return Ok(turn);
        }
        let (inner, unit) = (Arc::clone(self), unit.clone());
        let adopted = to_the_end(&self.tasks, "adopt a container", async move {
            inner.adopt(&unit).await.map(|()| turn)
        });
        let lost = || Err(engine::down("the adoption was broken off".to_owned()));
        adopted.await.unwrap_or_else(lost)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.wall_millis())
    }

    /// Brings the image, unless there is a container already.
    async fn fetch(
        &self,
        unit: &Unit,
        progress: Progress<'_>,
    ) -> Result<Option<(Docker, Ready)>, RuntimeError> {
        if self.find_container(unit.id).await?.is_some() {
            return Ok(None);
        }
        let Some(spec) = &unit.spec.container else {
            return Err(RuntimeError::Unsatisfiable {
                code: FailureCode::ContainerRefused,
                message: "the spec has no container section".to_owned(),
            });
        };
        let docker = self.engine.docker().await?;
        if let Some(network) = spec.named_network() {
            check_network(&docker, network).await?;
        }
        let image = self.pulls.ensure(&docker, spec, progress).await?;
        progress(format!("creating a container of {}", spec.image));
        Ok(Some((docker, image)))
    }

    async fn create(&self, docker: &Docker, unit: &Unit, image: &str) -> Result<(), RuntimeError> {
        // Of an earlier container of the unit, removed behind our back.
        self.starts.forget(unit.id).await?;
        if self.engine.is_podman().await? {
            check_mounts(unit).await?;
        }
        let options = CreateContainerOptions {
            name: Some(create::name_of(unit)),
            ..CreateContainerOptions::default()
        };
        let _preparing = self.secrets.preparing(unit.id);
        let given = self.secrets.take(unit.id, &unit.spec)?;
        // The engine looks for the files when it makes the container.
        self.secrets.write(unit.id, &given).await?;
        let body = create::body_of(unit, image, &self.owner);
        let body = create::with_secrets(body, &self.secrets.mounts(unit)?, &given)?;
        match docker
            .create_container(Some(options), body)
            .await
            .attempt()?
        {
            Ok(created) => {
                lock(&self.ids).insert(unit.id, created.id);
                Ok(())
            }
            // The name derives from the unit: an earlier try got this far although its answer was lost.
            Err(refused) if refused.is_conflict() => match self.find_container(unit.id).await? {
                Some(_) => Ok(()),
                None => Err(refused.of_spec(&unit.spec)),
            },
            Err(refused) => Err(refused.of_spec(&unit.spec)),
        }
    }

    async fn start(&self, id: UnitId) -> Result<(), RuntimeError> {
        let container = self.container(id).await?;
        let seen = self.inspect(id, &container).await?;
        if matches!(seen.found.state, FoundState::Running { .. }) {
            return Ok(());
        }
        let docker = self.engine.docker().await?;
        // Its variables are those that it was made with; files are as new as the start.
        self.secrets.write(id, &self.secrets.take_all(id)).await?;
        // On record before it begins: an engine that starts it although its answer is lost has a run that
        // is known, and a start that failed is told by its moment, which the engine never saw.
        self.starts
            .begin(id, seen.found.runs + 1, self.now())
            .await?;
        let started = docker
            .start_container(&container, None::<StartContainerOptions>)
            .await;
        match started.attempt()? {
            Ok(()) => Ok(()),
            // It can never be started: it is made anew, unless somebody else made it.
            Err(refused) if refused.is_stuck() && !self.adoptions.has(&container).await? => {
                self.delete(id, &container).await?;
                Err(RuntimeError::NotFound(id))
            }
            Err(refused) => Err(refused.of_start(id, &seen)),
        }
    }

    async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let container = self.container(id).await?;
        let seen = self.inspect(id, &container).await?;
        if let Some(exit) = exit_of(&seen.found.state) {
            return Ok(exit);
        }
        if self.kill(id, &container, &seen.stop_signal).await? {
            self.wait(id, &container, seen.grace).await?;
        }
        let seen = self.inspect(id, &container).await?;
        if let Some(exit) = exit_of(&seen.found.state) {
            return Ok(exit);
        }
        self.kill(id, &container, "SIGKILL").await?;
        self.wait(id, &container, KILL_PATIENCE).await?;
        let seen = self.inspect(id, &container).await?;
        exit_of(&seen.found.state).ok_or(RuntimeError::Unkillable(id))
    }

    async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        match self.stop(id).await {
            Ok(_) | Err(RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.secrets.remove(id).await?;
        // The records first: an agent that dies in between is led back here by the container, by a record it is not.
        self.starts.forget(id).await?;
        if let Some(container) = self.find_container(id).await? {
            self.delete(id, &container).await?;
        }
        self.adoptions.end(id, data == Data::Delete).await
    }

    async fn delete(&self, id: UnitId, container: &str) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = RemoveContainerOptions {
            v: self.owns_volumes(&docker, container).await?,
            force: true,
            link: false,
        };
        let removed = docker.remove_container(container, Some(options)).await;
        match removed.attempt()? {
            Ok(()) => Ok(()),
            Err(refused) if refused.is_not_found() => Ok(()),
            // Somebody else removes it already.
            Err(refused) if refused.is_conflict() => self.wait_until_gone(id).await,
            Err(refused) => Err(refused.of_unit(id)),
        }
    }

    /// Whether the container's nameless volumes go with it. Those of one that somebody else made are not ours to
    /// delete, and Podman takes even one that was given by its name for the container's own.
    async fn owns_volumes(&self, docker: &Docker, container: &str) -> Result<bool, RuntimeError> {
        if self.adoptions.has(container).await? {
            return Ok(false);
        }
        if !self.engine.is_podman().await? {
            return Ok(true);
        }
        let options = None::<InspectContainerOptions>;
        let answer = readable(|| docker.inspect_container(container, options.clone())).await;
        // One that is not there has nothing to keep.
        let config = answer.attempt()?.ok().and_then(|seen| seen.config);
        let labels = config.and_then(|config| config.labels);
        Ok(labels.is_none_or(|labels| !labels.contains_key(LABEL_VOLUMES)))
    }

    /// Sends a signal. Answers whether there was something to send it to.
    async fn kill(&self, id: UnitId, container: &str, signal: &str) -> Result<bool, RuntimeError> {
        let sent = self.engine.signal(container, signal).await?;
        sent.ok_or(RuntimeError::NotFound(id))
    }

    /// Waits until the container does not run, at most so long.
    async fn wait(&self, id: UnitId, container: &str, most: Duration) -> Result<(), RuntimeError> {
        let is_over = || async move {
            let seen = self.inspect(id, container).await?;
            Ok(exit_of(&seen.found.state).is_some())
        };
        self.engine.wait(container, most, is_over).await
    }

    async fn wait_until_gone(&self, id: UnitId) -> Result<(), RuntimeError> {
        let waiting = async {
            while self.find_container(id).await?.is_some() {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            Ok(())
        };
        let gone = tokio::time::timeout(KILL_PATIENCE, waiting).await;
        gone.unwrap_or(Err(RuntimeError::Unkillable(id)))
    }
}

/// How it ended, if it does not run. What has never run has not ended in any way that is known.
const fn exit_of(state: &FoundState) -> Option<Exit> {
    match state {
        FoundState::Running { .. } => None,
        FoundState::Exited { exit, .. } => Some(*exit),
        FoundState::Prepared => Some(Exit::Unknown),
    }
}

/// Whether the labels are those of a unit of any agent of ours.
fn is_ours(labels: &HashMap<String, String>) -> bool {
    labels.keys().any(|key| key.starts_with("hostler."))
}

/// The engine would look for it only at the start, and leave a container behind.
async fn check_network(docker: &Docker, network: &str) -> Result<(), RuntimeError> {
    match docker.inspect_network(network, None).await.attempt()? {
        Ok(_) => Ok(()),
        Err(refused) if refused.is_not_found() => Err(refused.unsatisfiable(NETWORK_MISSING)),
        Err(refused) => Err(refused.of_engine()),
    }
}

/// Podman makes a mount's source that is not there, where Docker refuses it.
async fn check_mounts(unit: &Unit) -> Result<(), RuntimeError> {
    let mounts = unit.spec.container.iter().flat_map(|spec| &spec.mounts);
    for mount in mounts.filter(|mount| !mount.is_volume()) {
        if !tokio::fs::try_exists(&mount.source).await.unwrap_or(true) {
            return Err(RuntimeError::Unsatisfiable {
                code: FailureCode::MountNotFound,
                message: format!("the mount's source {} is not on the node", mount.source),
            });
        }
    }
    Ok(())
}

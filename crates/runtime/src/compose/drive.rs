//! The verbs: a project is made ready, begun, ended and removed.
//!
//! Compose itself reads the files and creates and starts the containers. Ending and removing go through the engine
//! alone, by labels: they work as well where the files, or the program, are gone.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::query_parameters::{
    KillContainerOptions, ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions,
    RemoveVolumeOptions, StartContainerOptions, WaitContainerOptions,
};
use futures::StreamExt as _;
use hostler_model::spec::{ComposeSpec, ContainerSpec, PullPolicy};
use hostler_model::{Exit, UnitId};

use super::found::Seen;
use super::git::Fetch;
use super::program::Program;
use super::project::Project;
use super::resolved::{NeededImage, Resolved, invalid, missing_variables};
use super::state::{self, Piece};
use super::{Inner, LABEL_UNIT, PROJECT, lock};
use crate::container::engine::{Attempt as _, Refused, start_failure};
use crate::{Data, FoundState, Progress, RuntimeError, Unit};

const CONFIG_PATIENCE: Duration = Duration::from_secs(120);
const BUILD_PATIENCE: Duration = Duration::from_secs(3600);
/// Services may wait for others to become healthy.
const UP_PATIENCE: Duration = Duration::from_secs(900);
/// How long a killed container may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a container whose end could not be waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

impl Inner {
    // --- prepare ---

    pub(super) async fn prepare(
        self: &Arc<Self>,
        unit: &Unit,
        progress: Progress<'_>,
    ) -> Result<(), RuntimeError> {
        let Some(spec) = &unit.spec.compose else {
            return Err(invalid("the spec has no compose section"));
        };
        if self.places.read(unit.id).await?.is_some() {
            return Ok(());
        }
        let made = self.make(unit, spec, progress).await;
        if made.is_err() {
            // What is half made is no unit, and nothing of it stays.
            self.places.remove(unit.id, false).await?;
        }
        made
    }

    async fn make(
        self: &Arc<Self>,
        unit: &Unit,
        spec: &ComposeSpec,
        progress: Progress<'_>,
    ) -> Result<(), RuntimeError> {
        let program = self.program().await?;
        let mut project = self.places.project_of(unit);
        project.make().await?;
        match (spec.text().map_err(invalid)?, &spec.git) {
            (None, Some(source)) => {
                progress("waiting for other projects to fetch".to_owned());
                let _turn = self.preparations.acquire().await;
                progress("fetching the project's repository".to_owned());
                let (git, env) = (&*self.programs.git, &*self.env);
                let fetch = Fetch { git, env, source };
                let checkout = fetch.fill(&project.checkout()).await?;
                tracing::info!(unit = %unit.id, commit = checkout.commit, "fetched the project");
                project.record.checkout = Some(checkout);
            }
            (text, _) => project.write_text(text.unwrap_or_default()).await?,
        }
        progress("reading the compose file".to_owned());
        let resolved = self.resolve(&program, &project).await?;
        project.record.services = resolved.services(project.record.env.get("COMPOSE_PROFILES"));
        project
            .write_override(resolved.covered(unit, &self.owner))
            .await?;
        let wanted: HashSet<&str> = project.wanted().collect();
        let images = resolved.images().into_iter();
        for needed in images.filter(|it| wanted.contains(it.service.as_str())) {
            self.ensure(&needed, progress).await?;
        }
        let built = resolved.built().into_iter();
        let built: Vec<String> = built.filter(|it| wanted.contains(it.as_str())).collect();
        if !built.is_empty() {
            self.build(&program, &project, &built, progress).await?;
        }
        project.put_on_record().await
    }

    async fn resolve(
        &self,
        program: &Program,
        project: &Project,
    ) -> Result<Resolved, RuntimeError> {
        let _turn = self.preparations.acquire().await;
        let read = program
            .run(project, &self.env, &["config"], CONFIG_PATIENCE)
            .await?;
        if read.is_success() {
            return Resolved::read(&read.text());
        }
        let missing = self.missing_variables(project).await;
        // Where the node keeps the files is of no use to whoever wrote them.
        let words = read
            .words()
            .replace(&format!("{}/", project.dir.display()), "");
        if missing.is_empty() {
            return Err(invalid(words));
        }
        Err(RuntimeError::Unsatisfiable {
            code: "compose-variable-missing",
            message: format!(
                "the compose file needs {}, which neither `env` nor its `.env` gives: {words}",
                missing.join(", ")
            ),
        })
    }

    async fn missing_variables(&self, project: &Project) -> Vec<String> {
        let mut text = String::new();
        for file in project.files() {
            text.push_str(&tokio::fs::read_to_string(file).await.unwrap_or_default());
        }
        let own = tokio::fs::read_to_string(project.env_file())
            .await
            .unwrap_or_default();
        let is_given = |name: &str| {
            let of_file = |line: &str| {
                let line = line.trim_start();
                let line = line.strip_prefix("export ").unwrap_or(line);
                line.split_once('=')
                    .is_some_and(|(key, _)| key.trim() == name)
            };
            project.record.env.contains_key(name)
                || self.env.iter().any(|(key, _)| key == name)
                || own.lines().any(of_file)
        };
        missing_variables(&text, is_given)
    }

    async fn ensure(
        &self,
        needed: &NeededImage,
        progress: Progress<'_>,
    ) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let mut image = ContainerSpec::new(&needed.image, Vec::new());
        image.pull = match needed.policy.as_str() {
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            _ => PullPolicy::Missing,
        };
        self.pulls.ensure(&docker, &image, progress).await?;
        Ok(())
    }

    async fn build(
        &self,
        program: &Program,
        project: &Project,
        services: &[String],
        progress: Progress<'_>,
    ) -> Result<(), RuntimeError> {
        let _turn = self.preparations.acquire().await;
        progress(format!("building {}", services.join(", ")));
        let mut verb = vec!["build"];
        verb.extend(services.iter().map(String::as_str));
        let built = program
            .run(project, &self.env, &verb, BUILD_PATIENCE)
            .await?;
        if built.is_success() {
            return Ok(());
        }
        Err(RuntimeError::Unsatisfiable {
            code: "compose-build-failed",
            message: format!("building {}: {}", services.join(", "), built.words()),
        })
    }

    // --- start ---

    pub(super) async fn start(self: &Arc<Self>, id: UnitId) -> Result<(), RuntimeError> {
        let seen = self.find(id).await?.ok_or(RuntimeError::NotFound(id))?;
        if matches!(seen.standing.state, FoundState::Running { .. }) {
            return Ok(());
        }
        self.refuse_others(id).await?;
        // On record before it begins: what an engine starts although nobody waits for it is a run that is known.
        let run = seen.standing.runs + 1;
        self.starts.begin(id, run, self.now()).await?;
        let begun = match &seen.project {
            Some(project) => self.up(project).await,
            None => self.start_containers(&seen).await,
        };
        let Err(error) = begun else { return Ok(()) };
        if !matches!(error, RuntimeError::EngineDown { .. }) {
            return Err(self.give_up(id, run, &seen, error).await);
        }
        Err(error)
    }

    /// Compose would take over the containers of another generation of the project, or of another agent.
    async fn refuse_others(&self, id: UnitId) -> Result<(), RuntimeError> {
        let others = self.of_project(id).await?.into_iter();
        let mut others = others.filter(|it| !is_of(it, id));
        let Some(other) = others.next() else {
            return Ok(());
        };
        let name = other.names.unwrap_or_default().join(", ");
        Err(RuntimeError::Unsatisfiable {
            code: "compose-project-busy",
            message: format!("{name} is there of another generation of the project"),
        })
    }

    async fn up(self: &Arc<Self>, project: &Project) -> Result<(), RuntimeError> {
        let program = self.program().await?;
        // A container that is there is started as it is, so that its log goes on.
        let verb = ["up", "--detach", "--no-recreate", "--quiet-pull"];
        let up = program.run(project, &self.env, &verb, UP_PATIENCE).await?;
        if up.is_success() {
            return Ok(());
        }
        // An engine that is down has its own name.
        self.engine.docker().await?.ping().await.or_down()?;
        Err(RuntimeError::Unsatisfiable {
            code: "compose-failed",
            message: up.words(),
        })
    }

    /// Where the files are lost, what the engine has of the project is started.
    async fn start_containers(&self, seen: &Seen) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        for piece in seen.pieces.iter().filter(|piece| !piece.is_alive()) {
            let options = None::<StartContainerOptions>;
            let started = docker.start_container(&piece.container, options).await;
            started.or_refused(Refused::of_engine)?;
        }
        Ok(())
    }

    /// A start that failed leaves nothing running that did not run before, and is no run. Answers why it failed, by
    /// the engine's own word on each service where there is one.
    async fn give_up(
        &self,
        id: UnitId,
        run: u32,
        before: &Seen,
        error: RuntimeError,
    ) -> RuntimeError {
        let now = match self.find(id).await {
            Ok(Some(now)) => now,
            Ok(None) => return error,
            Err(error) => return error,
        };
        let cause = cause_of(&now.pieces).unwrap_or(error);
        let ran: HashSet<&str> = before
            .pieces
            .iter()
            .filter(|piece| piece.is_alive())
            .map(|piece| piece.container.as_str())
            .collect();
        let begun = now
            .pieces
            .iter()
            .filter(|piece| !ran.contains(piece.container.as_str()));
        let ended = self.end(
            id,
            begun.filter(|piece| piece.is_alive()).collect(),
            now.project.as_ref(),
        );
        let taken_back = async {
            ended.await?;
            self.starts.take_back(id, run).await
        };
        if let Err(error) = taken_back.await {
            tracing::warn!(unit = %id, %error, "what a failed start began could not be ended");
        }
        cause
    }

    // --- stop ---

    pub(super) async fn stop(&self, id: UnitId) -> Result<Exit, RuntimeError> {
        let seen = self.find(id).await?.ok_or(RuntimeError::NotFound(id))?;
        let alive: Vec<&Piece> = seen
            .pieces
            .iter()
            .filter(|piece| piece.is_alive())
            .collect();
        if !alive.is_empty() {
            self.end(id, alive, seen.project.as_ref()).await?;
        }
        let seen = self.find(id).await?.ok_or(RuntimeError::NotFound(id))?;
        match seen.standing.state {
            FoundState::Exited { exit, .. } if !seen.pieces.iter().any(Piece::is_alive) => Ok(exit),
            // What has never run has not ended in any way that is known.
            FoundState::Prepared => Ok(Exit::Unknown),
            FoundState::Exited { .. } | FoundState::Running { .. } => {
                Err(RuntimeError::Unkillable(id))
            }
        }
    }

    /// Ends containers: those that depend on others first.
    async fn end(
        &self,
        id: UnitId,
        pieces: Vec<&Piece>,
        project: Option<&Project>,
    ) -> Result<(), RuntimeError> {
        let services = project.map(|project| &project.record.services);
        let dependencies = |piece: &Piece| -> Vec<String> {
            let service = services.and_then(|services| services.get(&piece.service));
            service.map(|it| it.depends_on.clone()).unwrap_or_default()
        };
        let mut left = pieces;
        while !left.is_empty() {
            let needed: HashSet<String> =
                left.iter().flat_map(|piece| dependencies(piece)).collect();
            let (later, now): (Vec<&Piece>, Vec<&Piece>) = left
                .iter()
                .partition(|piece| needed.contains(&piece.service));
            // Those that depend on each other end together.
            let (later, now) = if now.is_empty() {
                (now, later)
            } else {
                (later, now)
            };
            let ends = now.into_iter().map(|piece| {
                let own = services.and_then(|services| services.get(&piece.service)?.grace_ms);
                let grace = own.map_or(piece.grace, Duration::from_millis);
                self.end_one(id, piece, grace)
            });
            futures::future::try_join_all(ends).await?;
            left = later;
        }
        Ok(())
    }

    async fn end_one(
        &self,
        id: UnitId,
        piece: &Piece,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        if self.kill(piece, &piece.stop_signal).await? {
            self.wait(id, piece, grace).await?;
        }
        let is_alive = async || {
            let piece = self.inspect(id, &piece.container).await?;
            Ok::<bool, RuntimeError>(piece.is_some_and(|piece| piece.is_alive()))
        };
        if !is_alive().await? {
            return Ok(());
        }
        self.kill(piece, "SIGKILL").await?;
        self.wait(id, piece, KILL_PATIENCE).await?;
        if is_alive().await? {
            return Err(RuntimeError::Unkillable(id));
        }
        Ok(())
    }

    /// Sends a signal. Answers whether there was something to send it to.
    async fn kill(&self, piece: &Piece, signal: &str) -> Result<bool, RuntimeError> {
        let docker = self.engine.docker().await?;
        let signal = signal.to_owned();
        let options = Some(KillContainerOptions { signal });
        match docker
            .kill_container(&piece.container, options)
            .await
            .attempt()?
        {
            Ok(()) => Ok(true),
            // It ended, or went, in between.
            Err(refused) if refused.is_conflict() || refused.is_not_found() => Ok(false),
            Err(refused) => Err(refused.of_engine()),
        }
    }

    /// Waits until the container does not run, at most so long.
    async fn wait(&self, id: UnitId, piece: &Piece, most: Duration) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let waiting = async {
            loop {
                let options = WaitContainerOptions {
                    condition: "not-running".to_owned(),
                };
                // How it ended is read afterwards; here it only matters that it has.
                let _ = docker
                    .wait_container(&piece.container, Some(options))
                    .next()
                    .await;
                let seen = self.inspect(id, &piece.container).await?;
                if !seen.is_some_and(|seen| seen.is_alive()) {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        tokio::time::timeout(most, waiting).await.unwrap_or(Ok(()))
    }

    /// Ends what runs of a project that is not to go on after a part of it has failed.
    pub(super) fn end_the_rest(self: &Arc<Self>, id: UnitId) {
        if !lock(&self.ending).insert(id) {
            return;
        }
        tracing::info!(unit = %id, "a service has failed and nothing restarts it: ending the others");
        let inner = Arc::clone(self);
        self.tasks.spawn_until_stop("end a project", async move {
            let turn = inner.turn(id).await;
            if let Err(error) = inner.stop(id).await {
                tracing::warn!(unit = %id, %error, "the rest of a project could not be ended");
            }
            drop(turn);
            lock(&inner.ending).remove(&id);
            inner.watch.touch();
        });
    }

    // --- remove ---

    pub(super) async fn remove(&self, id: UnitId, data: Data) -> Result<(), RuntimeError> {
        match self.stop(id).await {
            Ok(_) | Err(RuntimeError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let (ours, others): (Vec<_>, Vec<_>) = self
            .of_project(id)
            .await?
            .into_iter()
            .partition(|it| is_of(it, id));
        let docker = self.engine.docker().await?;
        for container in ours.iter().filter_map(|it| it.id.as_deref()) {
            let options = RemoveContainerOptions {
                v: true,
                force: true,
                link: false,
            };
            let removed = docker.remove_container(container, Some(options)).await;
            match removed.attempt()? {
                Ok(()) => {}
                // Gone, or somebody else removes it already.
                Err(refused) if refused.is_not_found() || refused.is_conflict() => {}
                Err(refused) => return Err(refused.of_unit(id)),
            }
        }
        // Networks and volumes are shared between generations.
        if others.is_empty() {
            self.remove_networks(id).await?;
            if data == Data::Delete {
                self.remove_volumes(id).await?;
            }
        }
        self.starts.forget(id).await?;
        self.places.remove(id, data == Data::Delete).await
    }

    async fn remove_networks(&self, id: UnitId) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = ListNetworksOptions {
            filters: Some(self.project_filter(id)),
        };
        for network in docker.list_networks(Some(options)).await.or_down()? {
            let Some(network) = network.id else { continue };
            match docker.remove_network(&network).await.attempt()? {
                Ok(()) => {}
                Err(refused) if refused.is_not_found() => {}
                Err(refused) => return Err(refused.of_engine()),
            }
        }
        Ok(())
    }

    async fn remove_volumes(&self, id: UnitId) -> Result<(), RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = ListVolumesOptions {
            filters: Some(self.project_filter(id)),
        };
        let listed = docker.list_volumes(Some(options)).await.or_down()?;
        for volume in listed.volumes.unwrap_or_default() {
            let options = Some(RemoveVolumeOptions { force: false });
            match docker
                .remove_volume(&volume.name, options)
                .await
                .attempt()?
            {
                Ok(()) => {}
                Err(refused) if refused.is_not_found() => {}
                Err(refused) => return Err(refused.of_engine()),
            }
        }
        Ok(())
    }

    fn project_filter(&self, id: UnitId) -> HashMap<String, Vec<String>> {
        let label = format!("{PROJECT}={}", self.places.name_of(id.assignment));
        HashMap::from([("label".to_owned(), vec![label])])
    }

    /// Removes what an agent that died in a preparation left, once in a life of the driver.
    pub(super) async fn sweep(&self, halves: Vec<UnitId>) {
        if self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        for id in halves {
            // A verb that works on it knows better.
            if let Ok(_turn) = self.turn_of(id).try_lock_owned()
                && let Err(error) = self.places.remove(id, false).await
            {
                tracing::warn!(unit = %id, %error, "what is left of a preparation cannot be removed");
            }
        }
    }
}

/// Whether a container of the project belongs to the unit; one without our label came of a person's own command.
fn is_of(container: &bollard::models::ContainerSummary, id: UnitId) -> bool {
    let label = container
        .labels
        .as_ref()
        .and_then(|labels| labels.get(LABEL_UNIT));
    label.is_none_or(|label| *label == id.to_string())
}

/// Why services do not start, by the engine's word on each, or by how they ended.
fn cause_of(pieces: &[Piece]) -> Option<RuntimeError> {
    let mut code = None;
    let mut message = String::new();
    let mut add = |piece: &Piece, of: &'static str, why: &str| {
        code.get_or_insert(of);
        let between = if message.is_empty() { "" } else { "; " };
        let _ = write!(
            message,
            "{between}service {}: {why}",
            state::name_of(piece, pieces)
        );
    };
    for piece in pieces.iter().filter(|piece| !piece.is_alive()) {
        if !piece.problem.is_empty() {
            match start_failure(&piece.problem, &piece.ports, &piece.program) {
                Some(error) => add(piece, error.code(), &error.to_string()),
                None => add(piece, "compose-failed", &piece.problem),
            }
        } else if let Some((exit, _)) = piece.failure() {
            add(piece, "compose-failed", &exit.to_string());
        }
    }
    code.map(|code| RuntimeError::Unsatisfiable { code, message })
}

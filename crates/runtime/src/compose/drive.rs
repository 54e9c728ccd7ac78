//! Making projects ready and beginning them: compose reads the files, and creates and starts the containers.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::StartContainerOptions;
use hostler_model::spec::{ComposeSpec, ContainerSpec, PullPolicy, SecretUse};
use hostler_model::{FailureCode, UnitId};

use super::Inner;
use super::end::is_of;
use super::found::Seen;
use super::git::Fetch;
use super::given;
use super::program::Program;
use super::project::Project;
use super::resolved::{NeededImage, Resolved, invalid, missing_variables};
use super::state::{self, Piece};
use crate::container::engine::{Attempt as _, Refused, mount_failure, start_failure};
use crate::{FoundState, Progress, RuntimeError, Unit, disk};

const CONFIG_PATIENCE: Duration = Duration::from_secs(120);
const BUILD_PATIENCE: Duration = Duration::from_secs(3600);
/// Services may wait for others to become healthy.
const UP_PATIENCE: Duration = Duration::from_secs(900);

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
        let assignment = unit.id.assignment;
        let _hold = self.whose.hold(assignment).await;
        let is_first = self.whose.note(assignment, unit.workload, self.now());
        let is_first = is_first.await?;
        let _preparing = self.secrets.preparing(unit.id);
        let made = self.make(unit, spec, progress).await;
        if made.is_err() {
            // What is half made is no unit, and nothing of it stays.
            self.places.remove(unit.id, false).await?;
            self.secrets.remove(unit.id).await?;
            if is_first {
                self.whose.forget(assignment).await?;
            }
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
        if !unit.spec.secrets.is_empty() {
            let given = self.secrets.take(unit.id, &unit.spec)?;
            self.secrets.write(unit.id, &given).await?;
            project.record.secrets = Some(self.secrets.dir(unit.id)?);
        }
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
        let mut resolved = self.resolve(&program, &project).await?;
        if let Some(judge) = self.judge.get() {
            note_files(&project, &mut resolved).await?;
            judge.judge(project.asks(&resolved).await?).await?;
        }
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
            code: FailureCode::ComposeVariableMissing,
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
                || (name == SecretUse::DIRECTORY_VARIABLE && project.record.secrets.is_some())
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
            code: FailureCode::ComposeBuildFailed,
            message: format!("building {}: {}", services.join(", "), built.words()),
        })
    }

    // --- start ---

    pub(super) async fn start(self: &Arc<Self>, id: UnitId) -> Result<(), RuntimeError> {
        let seen = self.seen_of(id).await?;
        if matches!(seen.standing.state, FoundState::Running { .. }) {
            return Ok(());
        }
        self.refuse_others(id).await?;
        self.secrets.write(id, &self.secrets.take_all(id)).await?;
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
            code: FailureCode::ComposeProjectBusy,
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
        let message = up.words();
        let failed = |message| RuntimeError::Unsatisfiable {
            code: FailureCode::ComposeFailed,
            message,
        };
        Err(mount_failure(&message).unwrap_or_else(|| failed(message)))
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
}

/// What is judged beside what compose makes of the files.
async fn note_files(project: &Project, resolved: &mut Resolved) -> Result<(), RuntimeError> {
    let (files, dir) = (project.files(), project.directory());
    let behind = move || Ok(given::files_behind(&files, &dir));
    resolved.note_files(disk::off_thread("read the compose file", behind).await?);
    Ok(())
}

/// Why services do not start, by the engine's word on each, or by how they ended.
fn cause_of(pieces: &[Piece]) -> Option<RuntimeError> {
    let mut code = None;
    let mut message = String::new();
    let mut add = |piece: &Piece, of: FailureCode, why: &str| {
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
                Some(error) => add(piece, error.failure(), &error.to_string()),
                None => add(piece, FailureCode::ComposeFailed, &piece.problem),
            }
        } else if let Some((exit, _)) = piece.failure() {
            add(piece, FailureCode::ComposeFailed, &exit.to_string());
        }
    }
    code.map(|code| RuntimeError::Unsatisfiable { code, message })
}

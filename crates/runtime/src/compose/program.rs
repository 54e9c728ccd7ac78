//! Which compose program the node has, and how it is spoken to.
//!
//! `docker compose` (version 2) is preferred; `docker-compose` is 1.29, or version 2 as a program of its own. Both
//! know all that is asked of them here under the same names. The engine's address goes through `DOCKER_HOST`,
//! which counts more than a project's own `.env`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use hostler_model::FailureCode;
use hostler_model::spec::SecretUse;

use super::Inner;
use super::project::Project;
use super::tool::{Call, Ended, Lost};
use crate::RuntimeError;
use crate::turns::lock;

/// How long a program may take to tell its version; the old one is slow to begin.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// How long a look counts that found a program, and one that found none.
const FOUND_LASTS: Duration = Duration::from_secs(600);
const MISSING_LASTS: Duration = Duration::from_secs(60);

/// Where the programs are looked for: names, or paths.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The engine's client, of which compose is a part.
    pub docker: PathBuf,
    /// Compose as a program of its own.
    pub docker_compose: PathBuf,
    pub git: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self {
            docker: "docker".into(),
            docker_compose: "docker-compose".into(),
            git: "git".into(),
        }
    }
}

/// A compose program that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// What comes before compose's own words.
    pub(super) begin: &'static [&'static str],
    pub(super) version: String,
}

/// Looks for a compose program.
pub(super) async fn find(programs: &Programs, env: &[(String, String)]) -> Option<Program> {
    let places: [(&Path, &'static [&'static str]); 2] = [
        (&programs.docker, &["compose"]),
        (&programs.docker_compose, &[]),
    ];
    for (path, begin) in places {
        let call = Call::new(path, env, PROBE_PATIENCE)
            .args(begin.iter().copied())
            .args(["version", "--short"]);
        if let Ok(ended) = call.run().await
            && ended.is_success()
        {
            return Some(Program {
                path: path.to_owned(),
                begin,
                version: ended.text().trim_start_matches('v').to_owned(),
            });
        }
    }
    None
}

impl Inner {
    /// The program by the last look, or by a new one when that is long ago. A look goes on when nobody waits for it
    /// any more, because the old program may need longer to begin than a probe may last.
    pub(super) async fn program(self: &Arc<Self>) -> Result<Program, RuntimeError> {
        if let Some(known) = self.known() {
            return known.ok_or_else(missing);
        }
        let inner = Arc::clone(self);
        let (sender, looked) = oneshot::channel();
        self.tasks.spawn_until_stop("look for compose", async move {
            let _one = inner.looking.lock().await;
            let found = match inner.known() {
                // Found by the look before.
                Some(known) => known,
                None => {
                    let found = find(&inner.programs, &inner.env).await;
                    *lock(&inner.program) = Some((inner.clock.uptime(), found.clone()));
                    found
                }
            };
            // Whoever asked may have gone.
            let _ = sender.send(found);
        });
        looked.await.ok().flatten().ok_or_else(missing)
    }

    /// What the last look found, unless it was too long ago.
    fn known(&self) -> Option<Option<Program>> {
        let (at, found) = lock(&self.program).clone()?;
        let lasts = if found.is_some() {
            FOUND_LASTS
        } else {
            MISSING_LASTS
        };
        let age = self.clock.uptime().saturating_sub(at);
        (age < lasts).then_some(found)
    }
}

pub(super) fn missing() -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::ComposeMissing,
        message: "neither `docker compose` nor `docker-compose` works on this node; install one of them for \
                  the agent's user (the package is `docker-compose-plugin`, `docker-compose-v2` or \
                  `docker-compose`)"
            .to_owned(),
    }
}

impl Program {
    /// Runs one of its verbs on the project.
    pub(super) async fn run(
        &self,
        project: &Project,
        env: &[(String, String)],
        verb: &[&str],
        patience: Duration,
    ) -> Result<Ended, RuntimeError> {
        let mut call = Call::new(&self.path, env, patience);
        for (name, value) in &project.record.env {
            call = call.env(name, value);
        }
        if let Some(dir) = &project.record.secrets {
            call = call.env(SecretUse::DIRECTORY_VARIABLE, &dir.to_string_lossy());
        }
        let call = call
            .args(self.begin.iter().copied())
            .args(words(project))
            .args(verb.iter().copied())
            .within(&project.dir);
        call.run().await.map_err(|lost| match lost {
            Lost::Missing => missing(),
            Lost::TimedOut(patience) => RuntimeError::Unsatisfiable {
                code: FailureCode::ComposeFailed,
                message: format!(
                    "`compose {}` has not ended for {} s",
                    verb.join(" "),
                    patience.as_secs()
                ),
            },
            Lost::Io(source) => crate::disk::error("run compose", source),
        })
    }
}

/// What tells the project, its files and its variables.
fn words(project: &Project) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--project-name".into(), project.name.clone().into()];
    words.extend(["--project-directory".into(), project.directory().into()]);
    words.extend(["--env-file".into(), project.env_file().into()]);
    for file in project.files() {
        words.extend(["--file".into(), file.into()]);
    }
    words
}

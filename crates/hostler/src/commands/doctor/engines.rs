//! The container engine and the compose program, by the words of the agent's own drivers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{Clock, SystemClock, Tasks};
use hostler_model::RuntimeFact;
use hostler_runtime::Runtime;
use hostler_runtime::compose::{ComposeConfig, ComposeRuntime, Programs};
use hostler_runtime::container::{ContainerConfig, ContainerRuntime, Registries};

use super::finding::{Finding, Gravity, here};
use crate::compose::shut_down;
use crate::settings::Environment;

/// How long a driver may take to say what it can do.
const ASKING: Duration = Duration::from_secs(15);

pub(super) async fn examine(socket: &str, environment: &Environment) -> Vec<Finding> {
    let tasks = Tasks::new();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    // A probe writes nothing there.
    let dir = PathBuf::from("/nonexistent");
    let container = ContainerRuntime::new(ContainerConfig {
        engine: socket.to_owned(),
        dir: dir.clone(),
        clock: Arc::clone(&clock),
        tasks: tasks.clone(),
        owner: String::new(),
        registries: Registries::default(),
    });
    let compose = ComposeRuntime::new(ComposeConfig {
        engine: socket.to_owned(),
        dir,
        owner: String::new(),
        programs: Programs::default(),
        environment: environment.of_tools(),
        clock,
        tasks: tasks.clone(),
    });
    let mut findings = Vec::new();
    let engine = ask(&container).await;
    findings.extend(judge_engine(socket, engine.as_ref()));
    // Without an engine there is nothing more to say.
    if engine.is_some_and(|engine| engine.available) {
        findings.extend(judge_compose(ask(&compose).await.as_ref()));
    }
    shut_down(&tasks).await;
    findings
}

async fn ask(runtime: &dyn Runtime) -> Option<RuntimeFact> {
    tokio::time::timeout(ASKING, runtime.probe()).await.ok()
}

fn judge_engine(socket: &str, fact: Option<&RuntimeFact>) -> Option<Finding> {
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    let is_absent = path.starts_with('/') && !Path::new(path).exists();
    match fact {
        Some(fact) if fact.available => None,
        _ if is_absent => Some(here(
            Gravity::Note,
            format!(
                "there is no container engine at {socket}: neither containers nor compose projects can run here"
            ),
            "start Docker, or name its socket with --docker-socket, if they should",
        )),
        Some(fact) => Some(here(
            Gravity::Warning,
            format!(
                "the container engine at {socket} cannot be used: {}",
                fact.note
            ),
            "look at `docker info` as the agent's user",
        )),
        None => Some(here(
            Gravity::Warning,
            format!(
                "the container engine at {socket} does not answer within {} s",
                ASKING.as_secs()
            ),
            "look at its log, and restart it: what runs in it mostly goes on",
        )),
    }
}

fn judge_compose(fact: Option<&RuntimeFact>) -> Option<Finding> {
    let note = match fact {
        Some(fact) if fact.available => return None,
        Some(fact) => fact.note.clone(),
        None => format!("no answer within {} s", ASKING.as_secs()),
    };
    Some(here(
        Gravity::Note,
        format!("compose projects cannot run here: {note}"),
        "install `docker compose` or docker-compose 1.29 if they should",
    ))
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::Kind;

    use super::*;

    fn fact(available: bool) -> RuntimeFact {
        RuntimeFact {
            kind: Kind::Container,
            available,
            version: String::new(),
            note: "it is asleep".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_good_to_know_and_no_more() {
        let found = examine("/nonexistent/docker.sock", &Environment::of(&[])).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].gravity, Gravity::Note);
    }

    #[test]
    fn an_engine_that_is_there_and_unwell_is_a_warning() {
        assert_eq!(judge_engine("/dev/null", Some(&fact(true))), None);
        let found = judge_engine("unix:///dev/null", Some(&fact(false))).unwrap();
        assert_eq!(found.gravity, Gravity::Warning);
        assert!(
            found.sentence.contains("it is asleep"),
            "{}",
            found.sentence
        );
        assert_eq!(
            judge_engine("/dev/null", None).unwrap().gravity,
            Gravity::Warning
        );
        assert_eq!(judge_compose(Some(&fact(true))), None);
        assert_eq!(judge_compose(None).unwrap().gravity, Gravity::Note);
    }
}

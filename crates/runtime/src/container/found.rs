//! What the engine has of ours, and what its events mean for that.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerSummary, EventMessage, HostConfig,
};
use bollard::query_parameters::InspectContainerOptions;
use futures::StreamExt as _;
use hostler_model::{Exit, Timestamp, UnitId};

use super::adopt::Record;
use super::engine::{Attempt as _, Engine, readable};
use super::starts::History;
use super::watch::{Listener, Watch, listen};
use super::{Inner, LABEL_GRACE, LABEL_OWNER, LABEL_UNIT, LABEL_WORKLOAD};
use crate::turns::lock;
use crate::{Found, FoundState, RuntimeError};

/// Looks at containers that go on at the same time.
pub(crate) const LOOKS_AT_ONCE: usize = 8;
/// The exit code that the engine gives what it did not see end.
const CODE_UNSEEN: i64 = 255;
const CODE_KILLED: i64 = 137;
pub(crate) const DEFAULT_GRACE_MILLIS: u64 = 10_000;

/// What a look at a container told.
pub(super) struct Inspected {
    pub(super) found: Found,
    pub(super) stop_signal: String,
    pub(super) grace: Duration,
    /// The node's ports that it publishes.
    pub(super) ports: Vec<u16>,
    pub(super) program: String,
}

impl Inner {
    /// Everything of ours that the engine has.
    pub(super) async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        let label = format!("{LABEL_OWNER}={}", self.owner);
        let containers = self.engine.list("label", vec![label]).await?;
        let labelled = containers.into_iter().filter_map(|summary| {
            let unit = summary.labels.as_ref()?.get(LABEL_UNIT)?.parse().ok()?;
            Some((unit, summary))
        });
        let adopted = self.adopted().await?;
        let looks = labelled.chain(adopted);
        let looks = looks.map(|(id, container)| self.look(id, container));
        let looks: Vec<_> = futures::stream::iter(looks)
            .buffer_unordered(LOOKS_AT_ONCE)
            .collect()
            .await;
        let found: Result<Vec<Option<Found>>, RuntimeError> = looks.into_iter().collect();
        let mut found: Vec<Found> = found?.into_iter().flatten().collect();
        found.sort_by_key(|found| found.id);
        let ids: HashSet<UnitId> = found.iter().map(|found| found.id).collect();
        self.watch.retain(|id| ids.contains(id));
        Ok(found)
    }

    async fn look(
        &self,
        id: UnitId,
        summary: ContainerSummary,
    ) -> Result<Option<Found>, RuntimeError> {
        let Some(container) = summary.id.clone() else {
            return Ok(None);
        };
        let word = format!("{container} {:?}", summary.state);
        let (kept, events) = self.watch.recall(&id, &word);
        if kept.is_some() {
            return Ok(kept);
        }
        match self.inspect(id, &container).await {
            Ok(seen) => {
                self.watch.keep(&id, (word, &seen.found), events);
                lock(&self.ids).insert(id, container);
                Ok(Some(seen.found))
            }
            // Removed since it was listed.
            Err(RuntimeError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The engine's id of the unit's container, or that the unit is not here.
    pub(super) async fn container(&self, id: UnitId) -> Result<String, RuntimeError> {
        self.find_container(id)
            .await?
            .ok_or(RuntimeError::NotFound(id))
    }

    /// The same, without a look where the unit was met before: what is asked of it next tells whether it is here.
    pub(super) async fn known(&self, id: UnitId) -> Result<String, RuntimeError> {
        let known = lock(&self.ids).get(&id).cloned();
        match known {
            Some(container) => Ok(container),
            None => self.container(id).await,
        }
    }

    /// The engine's id of the unit's container, if there is one.
    pub(super) async fn find_container(&self, id: UnitId) -> Result<Option<String>, RuntimeError> {
        let known = lock(&self.ids).get(&id).cloned();
        let known = match known {
            Some(known) => Some(known),
            None => self
                .adoptions
                .of_unit(id)
                .await?
                .and_then(|it| it.container),
        };
        if let Some(container) = known {
            let docker = self.engine.docker().await?;
            let options = None::<InspectContainerOptions>;
            let answer = readable(|| docker.inspect_container(&container, options.clone())).await;
            match answer.attempt()? {
                Ok(_) => {
                    lock(&self.ids).insert(id, container.clone());
                    return Ok(Some(container));
                }
                Err(refused) if refused.is_not_found() => {}
                Err(refused) => return Err(refused.of_unit(id)),
            }
        }
        let label = format!("{LABEL_UNIT}={id}");
        let found = self.engine.list("label", vec![label]).await?;
        let container = found.into_iter().find_map(|summary| {
            let owner = summary
                .labels
                .as_ref()
                .and_then(|labels| labels.get(LABEL_OWNER));
            (owner == Some(&self.owner)).then_some(summary.id).flatten()
        });
        let mut ids = lock(&self.ids);
        match &container {
            Some(container) => ids.insert(id, container.clone()),
            None => ids.remove(&id),
        };
        Ok(container)
    }

    /// Looks at one container.
    pub(super) async fn inspect(
        &self,
        id: UnitId,
        container: &str,
    ) -> Result<Inspected, RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = None::<InspectContainerOptions>;
        let answer = readable(|| docker.inspect_container(container, options.clone())).await;
        let answer = answer.or_refused(|refused| refused.of_unit(id))?;
        let history = self.starts.history(id).await?;
        let adopted = self.adoptions.of_unit(id).await?;
        let adopted = adopted.filter(|record| record.container == answer.id);
        // Without our labels or a record it is no unit of ours, whatever its name.
        inspected(id, answer, &history, adopted.as_ref()).ok_or(RuntimeError::NotFound(id))
    }

    /// Begins to listen to the engine's events, once.
    pub(super) fn watch_events(self: &Arc<Self>) {
        listen(self, &self.tasks, "watch container events");
    }
}

#[async_trait]
impl Listener for Inner {
    type Key = UnitId;
    type Seen = Found;

    fn watch(&self) -> &Watch<UnitId, Found> {
        &self.watch
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// An adopted container has none.
    fn label(&self) -> Option<String> {
        None
    }

    async fn hear(&self, event: EventMessage) {
        // What is run inside, such as each try of a check, changes no state.
        let action = event.action.unwrap_or_default();
        if action.starts_with("exec_") {
            return;
        }
        let actor = event.actor.unwrap_or_default();
        if let Some(id) = self.unit_of(&actor).await {
            self.watch.forget(&id);
            self.watch.touch();
        }
    }
}

fn inspected(
    id: UnitId,
    answer: ContainerInspectResponse,
    history: &History,
    adopted: Option<&Record>,
) -> Option<Inspected> {
    let config = answer.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let label = |key: &str| labels.get(key);
    let (workload, grace) = match adopted {
        Some(record) => (Some(record.workload), Some(record.grace_ms)),
        None => (
            label(LABEL_WORKLOAD).and_then(|text| text.parse().ok()),
            label(LABEL_GRACE).and_then(|text| text.parse().ok()),
        ),
    };
    let grace = Duration::from_millis(grace.unwrap_or(DEFAULT_GRACE_MILLIS));
    let state = answer.state.unwrap_or_default();
    let started_at = state.started_at.as_deref().and_then(moment);
    let (state, runs) = state_of(&state, started_at, history);
    Some(Inspected {
        found: Found {
            id,
            workload: workload?,
            state,
            runs,
        },
        stop_signal: config.stop_signal.unwrap_or_else(|| "SIGTERM".to_owned()),
        grace,
        ports: published(answer.host_config),
        program: answer.path.unwrap_or_default(),
    })
}

fn state_of(
    state: &ContainerState,
    started_at: Option<Timestamp>,
    history: &History,
) -> (FoundState, u32) {
    let Some(started_at) = started_at else {
        return (FoundState::Prepared, 0);
    };
    let last = history.last_until(started_at);
    // A container that runs was started at least once, also when the record of it is lost.
    let runs = last.map_or(1, |start| start.run);
    if is_alive(state) {
        return (FoundState::Running { since: started_at }, runs);
    }
    let was_rebooted = last.is_some_and(|start| start.boot_id != crate::disk::boot_id());
    let exit = exit_of(state, was_rebooted);
    let at = ended_at(state).unwrap_or(started_at);
    (FoundState::Exited { exit, at }, runs)
}

pub(crate) fn is_alive(state: &ContainerState) -> bool {
    [state.running, state.paused, state.restarting].contains(&Some(true))
}

pub(crate) fn ended_at(state: &ContainerState) -> Option<Timestamp> {
    state.finished_at.as_deref().and_then(moment)
}

/// The node's ports that it publishes.
pub(crate) fn published(host: Option<HostConfig>) -> Vec<u16> {
    let bindings = host.and_then(|host| host.port_bindings).unwrap_or_default();
    let bindings = bindings.into_values().flatten().flatten();
    bindings
        .filter_map(|binding| binding.host_port?.parse().ok())
        .collect()
}

/// The engine has one number for both: a process killed by a signal counts as 128 and the signal's number,
/// as in a shell.
pub(crate) fn exit_of(state: &ContainerState, was_rebooted: bool) -> Exit {
    let code = state.exit_code.unwrap_or(CODE_UNSEEN);
    if was_rebooted && code == CODE_UNSEEN {
        return Exit::Unknown;
    }
    if state.oom_killed.unwrap_or(false) && code == CODE_KILLED {
        return Exit::OutOfMemory;
    }
    let code = i32::try_from(code).unwrap_or(i32::MAX);
    if (129..=128 + 64).contains(&code) {
        Exit::Signal(code - 128)
    } else {
        Exit::Code(code)
    }
}

/// The engine writes year 1 for "never".
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    if text.starts_with("0001-") {
        None
    } else {
        Timestamp::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::starts::Start;

    fn state(code: i64, oom: bool) -> ContainerState {
        ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom),
            ..ContainerState::default()
        }
    }

    #[test]
    fn one_number_is_told_apart_into_codes_signals_and_memory() {
        for (code, oom, expected) in [
            (0, false, Exit::Code(0)),
            (3, false, Exit::Code(3)),
            (128, false, Exit::Code(128)),
            (137, false, Exit::Signal(9)),
            (143, false, Exit::Signal(15)),
            (137, true, Exit::OutOfMemory),
            (0, true, Exit::Code(0)),
            (255, false, Exit::Code(255)),
        ] {
            assert_eq!(exit_of(&state(code, oom), false), expected, "{code}");
        }
        assert_eq!(exit_of(&state(255, false), true), Exit::Unknown);
        assert_eq!(
            exit_of(&state(3, false), true),
            Exit::Code(3),
            "it ended before the reboot"
        );
    }

    #[test]
    fn runs_are_counted_by_starts_that_were_carried_out() {
        let start = |run, at| Start {
            run,
            at: Timestamp::from_millis(at),
            boot_id: crate::disk::boot_id(),
        };
        let history = History {
            starts: vec![start(1, 1000), start(2, 2000)],
        };
        let runs = |at| state_of(&state(0, false), at, &history).1;
        assert_eq!(runs(None), 0);
        assert_eq!(
            runs(Some(Timestamp::from_millis(1500))),
            1,
            "the second came to nothing"
        );
        assert_eq!(runs(Some(Timestamp::from_millis(2500))), 2);
        let lost = state_of(
            &state(0, false),
            Some(Timestamp::from_millis(9)),
            &History::default(),
        );
        assert_eq!(lost.1, 1, "the record is lost");
    }

    #[test]
    fn never_is_no_moment() {
        assert_eq!(moment("0001-01-01T00:00:00Z"), None);
        assert!(moment("2026-01-31T08:00:00.123456789Z").is_some());
    }
}

//! What the engine has of ours, and how one learns that it changed.
//!
//! A look at a container is kept until an event says that something happened to it, so that a hundred
//! containers do not cost a hundred looks at each change. While the events do not come, nothing is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerSummary};
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use futures::StreamExt as _;
use hostler_kit::{Backoff, SystemEntropy};
use hostler_model::{Exit, Timestamp, UnitId};
use tokio::sync::{Notify, watch};

use super::adopt::Record;
use super::engine::{Attempt as _, readable};
use super::starts::History;
use super::{Inner, LABEL_GRACE, LABEL_OWNER, LABEL_UNIT, LABEL_WORKLOAD, lock};
use crate::{Found, FoundState, RuntimeError};

/// Looks at containers that go on at the same time.
const LOOKS_AT_ONCE: usize = 8;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// The exit code that the engine gives what it did not see end.
const CODE_UNSEEN: i64 = 255;
const CODE_KILLED: i64 = 137;
const DEFAULT_GRACE_MILLIS: u64 = 10_000;

/// What a look at a container told.
pub(super) struct Inspected {
    pub(super) found: Found,
    pub(super) stop_signal: String,
    pub(super) grace: Duration,
    /// The node's ports that it publishes.
    pub(super) ports: Vec<u16>,
    pub(super) program: String,
}

/// Wakes those who wait, and remembers what has not changed.
pub(super) struct Changes {
    wake: Notify,
    /// Goes up with every event, for those who follow logs.
    version: watch::Sender<u64>,
    is_watching: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Whether events come, so that what is kept can be believed.
    is_live: bool,
    looks: HashMap<UnitId, Look>,
}

#[derive(Default)]
struct Look {
    /// How many changes were seen; a look that began before the last is not kept.
    changes: u64,
    found: Option<(String, Found)>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            wake: Notify::new(),
            version: watch::Sender::new(0),
            is_watching: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }
}

impl Changes {
    pub(super) async fn wake(&self) {
        self.wake.notified().await;
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What is known of the unit may have changed.
    pub(super) fn forget(&self, id: UnitId) {
        let mut kept = lock(&self.kept);
        let look = kept.looks.entry(id).or_default();
        look.changes += 1;
        look.found = None;
    }

    fn touch(&self) {
        self.version.send_modify(|version| *version += 1);
        self.wake.notify_one();
    }

    fn set_live(&self, is_live: bool) {
        let mut kept = lock(&self.kept);
        kept.is_live = is_live;
        kept.looks.values_mut().for_each(|look| {
            look.changes += 1;
            look.found = None;
        });
    }

    /// What was found of the unit when the engine's word for it was the same, and the count of changes.
    fn recall(&self, id: UnitId, word: &str) -> (Option<Found>, u64) {
        let mut kept = lock(&self.kept);
        let look = kept.looks.entry(id).or_default();
        let found = look.found.as_ref().filter(|(then, _)| then == word);
        (found.map(|(_, found)| found.clone()), look.changes)
    }

    fn keep(&self, found: &Found, word: &str, changes: u64) {
        let mut kept = lock(&self.kept);
        let is_live = kept.is_live;
        let look = kept.looks.entry(found.id).or_default();
        if is_live && look.changes == changes {
            look.found = Some((word.to_owned(), found.clone()));
        }
    }

    fn retain(&self, found: &[Found]) {
        let ids: std::collections::HashSet<UnitId> = found.iter().map(|found| found.id).collect();
        lock(&self.kept).looks.retain(|id, _| ids.contains(id));
    }
}

impl Inner {
    /// Everything of ours that the engine has.
    pub(super) async fn observe(&self) -> Result<Vec<Found>, RuntimeError> {
        let label = format!("{LABEL_OWNER}={}", self.owner);
        let containers = self.list("label", vec![label]).await?;
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
        self.changes.retain(&found);
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
        let (kept, changes) = self.changes.recall(id, &word);
        if kept.is_some() {
            return Ok(kept);
        }
        match self.inspect(id, &container).await {
            Ok(seen) => {
                self.changes.keep(&seen.found, &word, changes);
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
        let found = self.list("label", vec![label]).await?;
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

    /// All containers of which one of the values holds.
    pub(super) async fn list(
        &self,
        filter: &str,
        values: Vec<String>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let docker = self.engine.docker().await?;
        let filters = HashMap::from([(filter.to_owned(), values)]);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..ListContainersOptions::default()
        };
        let answer = readable(|| docker.list_containers(Some(options.clone()))).await;
        answer.or_down()
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
        if self.changes.is_watching.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(self);
        self.tasks
            .spawn_until_stop("watch container events", async move {
                let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
                loop {
                    if inner.listen().await {
                        backoff.reset();
                    }
                    inner.changes.set_live(false);
                    // Whoever waits should see for himself that the engine is down, or back.
                    inner.changes.touch();
                    tokio::time::sleep(backoff.next(&SystemEntropy)).await;
                }
            });
    }

    /// Listens until the connection ends. Answers whether it ever began.
    async fn listen(&self) -> bool {
        let Ok(docker) = self.engine.docker().await else {
            return false;
        };
        // From a second that is surely past on: what happens before the engine has the request is told too.
        // Those of everybody: an adopted container has no label to ask for.
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        let since = self.now().as_millis() / 1000;
        let options = EventsOptions {
            since: Some(since.to_string()),
            filters: Some(filters),
            ..EventsOptions::default()
        };
        // A stream of events is silent both when all is quiet and when nobody answers.
        if docker.version().await.is_err() {
            return false;
        }
        let mut events = docker.events(Some(options));
        self.changes.set_live(true);
        self.changes.touch();
        while let Some(Ok(event)) = events.next().await {
            // What is run inside, such as each try of a check, changes no state.
            if event
                .action
                .is_some_and(|action| action.starts_with("exec_"))
            {
                continue;
            }
            let actor = event.actor.unwrap_or_default();
            if let Some(id) = self.unit_of(&actor).await {
                self.changes.forget(id);
                self.changes.touch();
            }
        }
        true
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
    let bindings = answer
        .host_config
        .and_then(|host| host.port_bindings)
        .unwrap_or_default();
    let bindings = bindings.into_values().flatten().flatten();
    Some(Inspected {
        found: Found {
            id,
            workload: workload?,
            state,
            runs,
        },
        stop_signal: config.stop_signal.unwrap_or_else(|| "SIGTERM".to_owned()),
        grace,
        ports: bindings
            .filter_map(|binding| binding.host_port?.parse().ok())
            .collect(),
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
    let is_alive = state.running.unwrap_or(false)
        || state.paused.unwrap_or(false)
        || state.restarting.unwrap_or(false);
    if is_alive {
        return (FoundState::Running { since: started_at }, runs);
    }
    let was_rebooted = last.is_some_and(|start| start.boot_id != crate::disk::boot_id());
    let exit = exit_of(state, was_rebooted);
    let at = state
        .finished_at
        .as_deref()
        .and_then(moment)
        .unwrap_or(started_at);
    (FoundState::Exited { exit, at }, runs)
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

//! What the engine and the disk have of our projects. The engine tells by labels, never by a tool's words.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerSummary, HealthStatusEnum};
use bollard::query_parameters::InspectContainerOptions;
use futures::StreamExt as _;
use hostler_model::spec::RestartPolicy;
use hostler_model::{UnitId, WorkloadId};

use super::project::Project;
use super::state::{self, Piece, PieceState, Standing};
use super::{Inner, LABEL_GRACE, LABEL_OWNER, LABEL_UNIT, LABEL_WORKLOAD, PROJECT};
use crate::container::engine::{Attempt as _, readable};
use crate::container::found::{
    DEFAULT_GRACE_MILLIS, LOOKS_AT_ONCE, ended_at, exit_of, is_alive, moment, published,
};
use crate::container::starts::History;
use crate::turns::lock;
use crate::{Found, RuntimeError, disk};

const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";

/// All that is known of a unit.
pub(super) struct Seen {
    /// None if its record is lost.
    pub(super) project: Option<Project>,
    pub(super) pieces: Vec<Piece>,
    pub(super) history: History,
    pub(super) standing: Standing,
}

/// A container as it is listed, with our labels.
struct Listed {
    unit: UnitId,
    workload: WorkloadId,
    summary: ContainerSummary,
}

impl Inner {
    /// Everything of ours.
    pub(super) async fn observe(self: &Arc<Self>) -> Result<Vec<Found>, RuntimeError> {
        // The disk first: a unit that is removed in between is missing in both, or found whole.
        let (projects, halves) = self.places.all().await?;
        self.sweep(halves).await;
        let listed = self.list(format!("{LABEL_OWNER}={}", self.owner)).await?;
        let ids: HashSet<String> = listed
            .iter()
            .filter_map(|it| it.summary.id.clone())
            .collect();
        self.watch.retain(|id| ids.contains(id));
        let workloads: BTreeMap<UnitId, WorkloadId> = listed
            .iter()
            .map(|it| (it.unit, it.workload))
            .chain(projects.iter().map(|it| (it.record.id, it.record.workload)))
            .collect();
        let mut pieces = self.look_at(listed).await?;
        let mut projects: BTreeMap<UnitId, Project> =
            projects.into_iter().map(|it| (it.record.id, it)).collect();
        let (mut found, mut parts) = (Vec::new(), HashMap::new());
        for (id, workload) in workloads {
            let pieces = pieces.remove(&id).unwrap_or_default();
            let seen = self.seen(id, projects.remove(&id), pieces).await?;
            parts.insert(id, seen.parts());
            if seen.is_to_end() {
                self.end_the_rest(id);
            }
            found.push(Found {
                id,
                workload,
                state: seen.standing.state,
                runs: seen.standing.runs,
            });
        }
        *lock(&self.parts) = parts;
        Ok(found)
    }

    /// One unit, if there is anything of it.
    pub(super) async fn find(&self, id: UnitId) -> Result<Option<Seen>, RuntimeError> {
        let project = self.places.read(id).await?;
        let listed = self.list(format!("{LABEL_UNIT}={id}")).await?;
        let listed: Vec<Listed> = listed.into_iter().filter(|it| it.unit == id).collect();
        if project.is_none() && listed.is_empty() {
            return Ok(None);
        }
        let mut pieces = self.look_at(listed).await?;
        let pieces = pieces.remove(&id).unwrap_or_default();
        self.seen(id, project, pieces).await.map(Some)
    }

    /// One unit that has to be here.
    pub(super) async fn seen_of(&self, id: UnitId) -> Result<Seen, RuntimeError> {
        self.find(id).await?.ok_or(RuntimeError::NotFound(id))
    }

    async fn seen(
        &self,
        id: UnitId,
        project: Option<Project>,
        pieces: Vec<Piece>,
    ) -> Result<Seen, RuntimeError> {
        let history = self.starts.history(id).await?;
        let standing = state::standing(&pieces, wanted(project.as_ref()), &history);
        Ok(Seen {
            project,
            pieces,
            history,
            standing,
        })
    }

    /// Containers of ours that carry the label.
    async fn list(&self, label: String) -> Result<Vec<Listed>, RuntimeError> {
        let listed = self.engine.list("label", vec![label]).await?;
        let ours = listed.into_iter().filter_map(|summary| {
            let labels = summary.labels.as_ref()?;
            let is_ours = *labels.get(LABEL_OWNER)? == self.owner;
            let unit = labels.get(LABEL_UNIT)?.parse().ok()?;
            let workload = labels.get(LABEL_WORKLOAD)?.parse().ok()?;
            is_ours.then_some(Listed {
                unit,
                workload,
                summary,
            })
        });
        Ok(ours.collect())
    }

    /// The containers of the assignment's project, of any generation.
    pub(super) async fn of_project(
        &self,
        id: UnitId,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let name = self.places.name_of(id.assignment);
        self.engine
            .list("label", vec![format!("{PROJECT}={name}")])
            .await
    }

    async fn look_at(
        &self,
        listed: Vec<Listed>,
    ) -> Result<HashMap<UnitId, Vec<Piece>>, RuntimeError> {
        let looks = listed.into_iter().map(|listed| async move {
            let piece = self.look(listed.unit, &listed.summary).await?;
            Ok(piece.map(|piece| (listed.unit, piece)))
        });
        let looks: Vec<Result<Option<(UnitId, Piece)>, RuntimeError>> =
            futures::stream::iter(looks)
                .buffer_unordered(LOOKS_AT_ONCE)
                .collect()
                .await;
        let mut pieces: HashMap<UnitId, Vec<Piece>> = HashMap::new();
        for look in looks {
            if let Some((unit, piece)) = look? {
                pieces.entry(unit).or_default().push(piece);
            }
        }
        for of_unit in pieces.values_mut() {
            of_unit.sort_by(|a, b| (&a.service, a.number).cmp(&(&b.service, b.number)));
        }
        Ok(pieces)
    }

    async fn look(
        &self,
        unit: UnitId,
        summary: &ContainerSummary,
    ) -> Result<Option<Piece>, RuntimeError> {
        let Some(container) = &summary.id else {
            return Ok(None);
        };
        let word = format!("{:?}", summary.state);
        let (kept, events) = self.watch.recall(container, &word);
        if kept.is_some() {
            return Ok(kept);
        }
        let piece = self.inspect(unit, container).await?;
        if let Some(piece) = &piece {
            self.watch.keep(container, (word, piece), events);
        }
        Ok(piece)
    }

    /// Looks at one container; none if it is gone.
    pub(super) async fn inspect(
        &self,
        unit: UnitId,
        container: &str,
    ) -> Result<Option<Piece>, RuntimeError> {
        let docker = self.engine.docker().await?;
        let options = None::<InspectContainerOptions>;
        let answer = readable(|| docker.inspect_container(container, options.clone())).await;
        let answer = match answer.attempt()? {
            Ok(answer) => answer,
            Err(refused) if refused.is_not_found() => return Ok(None),
            Err(refused) => return Err(refused.of_engine()),
        };
        let history = self.starts.history(unit).await?;
        let last = history.starts.last();
        let was_rebooted = last.is_some_and(|start| start.boot_id != disk::boot_id());
        Ok(Some(piece_of(container, answer, was_rebooted)))
    }
}

impl Seen {
    pub(super) fn parts(&self) -> Vec<hostler_model::Part> {
        state::parts(&self.pieces, wanted(self.project.as_ref()))
    }

    /// Whether nothing is to run of it although something does: a part has failed, and nobody starts it again.
    fn is_to_end(&self) -> bool {
        let restart = self.project.as_ref().map(|project| project.record.restart);
        self.standing.is_partial && restart == Some(RestartPolicy::No)
    }
}

fn wanted(project: Option<&Project>) -> impl Iterator<Item = &str> {
    let wanted: BTreeSet<&str> = project.into_iter().flat_map(Project::wanted).collect();
    wanted.into_iter()
}

fn piece_of(container: &str, answer: ContainerInspectResponse, was_rebooted: bool) -> Piece {
    let config = answer.config.unwrap_or_default();
    let labels = config.labels.unwrap_or_default();
    let number = |key: &str| labels.get(key).and_then(|text| text.parse::<u64>().ok());
    let state = answer.state.unwrap_or_default();
    let since = state.started_at.as_deref().and_then(moment);
    let health = state.health.as_ref().and_then(|health| health.status);
    let piece_state = match since {
        None => PieceState::Created,
        Some(since) if is_alive(&state) => PieceState::Alive {
            since,
            is_unhealthy: health == Some(HealthStatusEnum::UNHEALTHY),
        },
        Some(since) => PieceState::Ended {
            since,
            exit: exit_of(&state, was_rebooted),
            at: ended_at(&state).unwrap_or(since),
        },
    };
    let grace = number(LABEL_GRACE).unwrap_or(DEFAULT_GRACE_MILLIS);
    Piece {
        container: container.to_owned(),
        service: labels.get(SERVICE).cloned().unwrap_or_default(),
        number: number(NUMBER)
            .and_then(|it| u32::try_from(it).ok())
            .unwrap_or(1),
        state: piece_state,
        problem: state.error.unwrap_or_default(),
        ports: published(answer.host_config),
        program: answer.path.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_else(|| "SIGTERM".to_owned()),
        grace: Duration::from_millis(grace),
    }
}

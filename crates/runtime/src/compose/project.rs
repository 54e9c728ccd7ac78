//! The files of a project on the node, and what they say of it.
//!
//! ```text
//!   <assignment>/data/                  `./` of a project that is given as text: kept with its named volumes
//!   <assignment>/<generation>/
//!       compose.yaml or checkout/       the project as it was given
//!       override.yaml                   what we put over it: see `resolved`
//!       env                             empty: without it compose would read a file that a service wrote
//!       unit.json                       the record, written last: what has none is no unit
//!   starts/<unit>.json                  when each run began
//!   whose/<assignment>.json             whose its data is
//!   images/<id>.json                    images that were pulled
//! ```
//!
//! The project's name derives from the assignment, so that every generation finds the same named volumes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hostler_model::spec::RestartPolicy;
use hostler_model::{AssignmentId, UnitId, WorkloadId};
use serde::{Deserialize, Serialize};

use super::resolved::Resolved;
use crate::{Asks, RuntimeError, Unit, disk};

const RECORD: &str = "unit.json";
const COMPOSE: &str = "compose.yaml";
const OVERRIDE: &str = "override.yaml";
const ENV: &str = "env";
const DATA: &str = "data";
const CHECKOUT: &str = "checkout";
/// Tools that were killed may write for another moment.
const REMOVALS: u32 = 40;
const REMOVAL_PAUSE: Duration = Duration::from_millis(25);

/// The driver's directory.
#[derive(Clone)]
pub(super) struct Places {
    dir: PathBuf,
    /// Tells the projects of two agents on one engine apart.
    mark: String,
}

/// A project of one generation: what is known of it, and where it is.
#[derive(Clone)]
pub(super) struct Project {
    pub(super) record: Record,
    pub(super) name: String,
    /// Of the generation.
    pub(super) dir: PathBuf,
    data: PathBuf,
}

/// What the node keeps of a unit. It may hold secrets, as its variables do.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: UnitId,
    pub(super) workload: WorkloadId,
    /// What the file's variables stand for.
    pub(super) env: BTreeMap<String, String>,
    pub(super) grace_ms: u64,
    pub(super) restart: RestartPolicy,
    /// Within the checkout, if there is one.
    pub(super) checkout: Option<Checkout>,
    #[serde(default)]
    pub(super) services: BTreeMap<String, Service>,
    /// Where the files of its secrets are, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secrets: Option<PathBuf>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Checkout {
    pub(super) file: PathBuf,
    pub(super) commit: String,
}

/// A service as its project's file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Service {
    /// Whether it is to have a container.
    pub(super) is_wanted: bool,
    pub(super) grace_ms: Option<u64>,
    pub(super) depends_on: Vec<String>,
}

impl Places {
    pub(super) fn new(dir: PathBuf, owner: &str) -> Self {
        let letters = owner.chars().filter(char::is_ascii_alphanumeric).take(8);
        let mark = letters.collect::<String>().to_ascii_lowercase();
        Self { dir, mark }
    }

    pub(super) fn starts(&self) -> PathBuf {
        self.dir.join("starts")
    }

    pub(super) fn whose(&self) -> PathBuf {
        self.dir.join("whose")
    }

    pub(super) fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// What `./` of projects that are given as text is, in every generation.
    pub(super) fn data(&self, assignment: AssignmentId) -> PathBuf {
        self.of(assignment).join(DATA)
    }

    /// Whose project of that name is, if it is one of ours.
    pub(super) fn assignment_of(&self, project: &str) -> Option<AssignmentId> {
        let own = format!("hostler-{}-", self.mark);
        project.strip_prefix(&own)?.parse().ok()
    }

    /// Removes what an assignment without a unit has left.
    pub(super) async fn remove_data(&self, assignment: AssignmentId) -> Result<(), RuntimeError> {
        let (dir, data) = (self.of(assignment), self.data(assignment));
        disk::off_thread("remove the project's data", move || {
            remove_dir(&data)?;
            // Whatever else is there is not data.
            let _ = fs::remove_dir(dir);
            Ok(())
        })
        .await
    }

    /// The name of the assignment's project, for the engine.
    pub(super) fn name_of(&self, assignment: AssignmentId) -> String {
        format!("hostler-{}-{assignment}", self.mark)
    }

    /// The project that a unit is to be.
    pub(super) fn project_of(&self, unit: &Unit) -> Project {
        let ours = [
            ("HOSTLER_WORKLOAD", unit.workload_name.clone()),
            ("HOSTLER_SLOT", unit.slot.to_string()),
            ("HOSTLER_ASSIGNMENT", unit.id.assignment.to_string()),
            ("HOSTLER_GENERATION", unit.id.generation.to_string()),
        ];
        let mut env: BTreeMap<String, String> =
            ours.map(|(name, value)| (name.to_owned(), value)).into();
        env.extend(unit.spec.env.clone());
        self.project(Record {
            id: unit.id,
            workload: unit.workload,
            env,
            grace_ms: unit.spec.stop.grace_ms,
            restart: unit.spec.restart.policy,
            checkout: None,
            services: BTreeMap::new(),
            secrets: None,
        })
    }

    fn project(&self, record: Record) -> Project {
        let assignment = self.of(record.id.assignment);
        Project {
            name: self.name_of(record.id.assignment),
            dir: assignment.join(record.id.generation.to_string()),
            data: assignment.join(DATA),
            record,
        }
    }

    fn of(&self, assignment: AssignmentId) -> PathBuf {
        self.dir.join(assignment.to_string())
    }

    fn generation(&self, id: UnitId) -> PathBuf {
        self.of(id.assignment).join(id.generation.to_string())
    }

    /// The unit's project, if there is a record of it.
    pub(super) async fn read(&self, id: UnitId) -> Result<Option<Project>, RuntimeError> {
        let path = self.generation(id).join(RECORD);
        let record = disk::off_thread("read the project", move || readable(&path)).await?;
        Ok(record.map(|record| self.project(record)))
    }

    /// Every project that there is a record of, and the units of which there is less.
    pub(super) async fn all(&self) -> Result<(Vec<Project>, Vec<UnitId>), RuntimeError> {
        let dir = self.dir.clone();
        let found = disk::off_thread("read the projects", move || units(&dir)).await?;
        let (mut projects, mut halves) = (Vec::new(), Vec::new());
        for (id, record) in found {
            match record {
                Some(record) => projects.push(self.project(record)),
                None => halves.push(id),
            }
        }
        Ok((projects, halves))
    }

    /// Removes what the node keeps of a unit: its record last, and the data only if so told.
    pub(super) async fn remove(&self, id: UnitId, is_data_too: bool) -> Result<(), RuntimeError> {
        let (assignment, generation) = (self.of(id.assignment), self.generation(id));
        for _ in 1..REMOVALS {
            let (assignment, generation) = (assignment.clone(), generation.clone());
            let removed =
                tokio::task::spawn_blocking(move || remove(&assignment, &generation, is_data_too));
            match removed.await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    tokio::time::sleep(REMOVAL_PAUSE).await;
                }
                Ok(removed) => return removed.map_err(|it| disk::error("remove the project", it)),
                Err(panicked) => {
                    return Err(disk::error(
                        "remove the project",
                        io::Error::other(panicked),
                    ));
                }
            }
        }
        let work = move || remove(&assignment, &generation, is_data_too);
        disk::off_thread("remove the project", work).await
    }
}

impl Project {
    /// Begins anew: what an earlier try left is gone.
    pub(super) async fn make(&self) -> Result<(), RuntimeError> {
        let (dir, data) = (self.dir.clone(), self.data.clone());
        disk::off_thread("make the project's directory", move || {
            remove_dir(&dir)?;
            fs::create_dir_all(&dir)?;
            // Variables and what is made of them may be secret.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            fs::set_permissions(&dir, mode)?;
            fs::create_dir_all(&data)?;
            fs::write(dir.join(ENV), "")
        })
        .await
    }

    pub(super) async fn write_text(&self, text: String) -> Result<(), RuntimeError> {
        let path = self.dir.join(COMPOSE);
        disk::off_thread("write the compose file", move || fs::write(path, text)).await
    }

    pub(super) async fn write_override(&self, text: String) -> Result<(), RuntimeError> {
        let path = self.dir.join(OVERRIDE);
        disk::off_thread("write the override", move || fs::write(path, text)).await
    }

    /// From here on the unit is there.
    pub(super) async fn put_on_record(&self) -> Result<(), RuntimeError> {
        let (path, record) = (self.dir.join(RECORD), self.record.clone());
        disk::off_thread("record the project", move || {
            disk::write_durably(&path, &record)
        })
        .await
    }

    pub(super) fn checkout(&self) -> PathBuf {
        self.dir.join(CHECKOUT)
    }

    /// The project's own file, and ours once it is there.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let own = match &self.record.checkout {
            Some(checkout) => self.checkout().join(&checkout.file),
            None => self.dir.join(COMPOSE),
        };
        let ours = self.dir.join(OVERRIDE);
        let mut files = vec![own];
        if ours.exists() {
            files.push(ours);
        }
        files
    }

    /// What `./` means in the project's file.
    pub(super) fn directory(&self) -> PathBuf {
        match &self.record.checkout {
            Some(checkout) => {
                let file = self.checkout().join(&checkout.file);
                file.parent()
                    .map_or_else(|| self.checkout(), Path::to_owned)
            }
            None => self.data.clone(),
        }
    }

    /// The project's own `.env`, if its repository has one beside the file.
    pub(super) fn env_file(&self) -> PathBuf {
        let own = self.directory().join(".env");
        if self.record.checkout.is_some() && own.is_file() {
            own
        } else {
            self.dir.join(ENV)
        }
    }

    /// What the services ask of the node; what the project brings along itself is no part of it.
    pub(super) async fn asks(&self, resolved: &Resolved) -> Result<Vec<Asks>, RuntimeError> {
        let mut asks = resolved.asks(&self.name);
        let own = [self.data.clone(), self.checkout()];
        let own: Vec<PathBuf> = own.into_iter().chain(self.record.secrets.clone()).collect();
        disk::off_thread("follow the project's mounts", move || {
            let real = |dir: PathBuf| fs::canonicalize(&dir).unwrap_or(dir);
            let own: Vec<PathBuf> = own.into_iter().map(real).collect();
            // A link that the project has made may lead anywhere.
            let is_own = |mount: &String| {
                let lead = fs::canonicalize(mount).unwrap_or_else(|_| PathBuf::from(mount));
                let goes_up = lead.components().any(|it| it == Component::ParentDir);
                !goes_up && own.iter().any(|dir| lead.starts_with(dir))
            };
            for of_service in &mut asks {
                of_service.mounts.retain(|mount| !is_own(mount));
            }
            Ok(asks)
        })
        .await
    }

    /// The services that are to have a container.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &str> {
        let wanted = self.record.services.iter();
        wanted
            .filter(|(_, service)| service.is_wanted)
            .map(|(name, _)| name.as_str())
    }
}

/// A record that cannot be read counts as none: the unit is prepared again.
fn readable(path: &Path) -> io::Result<Option<Record>> {
    match disk::read(path) {
        Err(error) if disk::is_damage(&error) => {
            tracing::warn!(path = %path.display(), %error, "the record of a project cannot be read");
            Ok(None)
        }
        read => read,
    }
}

/// Every generation that has a directory.
fn units(dir: &Path) -> io::Result<Vec<(UnitId, Option<Record>)>> {
    let mut found = Vec::new();
    for (assignment, name) in disk::entries(dir)? {
        let Ok(assignment_id) = name.parse::<AssignmentId>() else {
            continue;
        };
        for (generation, name) in disk::entries(&assignment)? {
            if let Ok(number) = name.parse() {
                let id = UnitId {
                    assignment: assignment_id,
                    generation: number,
                };
                found.push((id, readable(&generation.join(RECORD))?));
            }
        }
    }
    Ok(found)
}

fn remove(assignment: &Path, generation: &Path, is_data_too: bool) -> io::Result<()> {
    for (path, name) in disk::entries(generation)? {
        if name != RECORD {
            remove_any(&path)?;
        }
    }
    let data = assignment.join(DATA);
    if is_data_too {
        remove_dir(&data)?;
    } else {
        // Where nothing was written there is nothing to keep.
        let _ = fs::remove_dir(&data);
    }
    remove_dir(generation)?;
    // Other generations, or data that is kept, keep it.
    let _ = fs::remove_dir(assignment);
    Ok(())
}

fn remove_any(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|it| it.is_dir()) {
        return remove_dir(path);
    }
    disk::gone(fs::remove_file(path))
}

fn remove_dir(path: &Path) -> io::Result<()> {
    disk::gone(fs::remove_dir_all(path))
}

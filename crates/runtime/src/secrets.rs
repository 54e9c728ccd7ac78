//! Secrets of units, as they are given: values in the agent's memory, and files in the node's.
//!
//! Who drives a runtime gives the values before a preparation and before each start; the driver keeps them until then
//! and no longer. A variable goes to the process or the engine. A file is written below a directory of a file system
//! in memory that only the agent's user can enter, and the unit sees it at its own place:
//!
//! ```text
//!   /run/hostler/<driver>/<unit>/0          of an agent that is root, where /run is in memory
//!   /dev/shm/hostler-<user>/<driver>/<unit>/0
//! ```
//!
//! A file goes with its unit, with the machine's boot, and, if the agent died in between, at the next look. What runs
//! keeps the file that it began with: a new value is another file of the same name. What can fail: a node without such
//! a file system, or one where the directory is somebody else's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hostler_kit::sealed::Clear;
use hostler_model::spec::{Mount, SecretPlace, SecretUse, WorkloadSpec};
use hostler_model::{FailureCode, UnitId};
use sha2::{Digest as _, Sha256};

use crate::{RuntimeError, Unit, disk};

/// The kernel's numbers of file systems that are in memory.
const IN_MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6];

/// One secret of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub name: String,
    pub place: SecretPlace,
    pub value: Clear,
}

/// Takes the secrets of units.
pub trait Secrets: Send + Sync {
    /// For the unit's next preparation or start, in the order of its spec. They replace what was given before.
    fn give(&self, id: UnitId, secrets: Vec<Given>);
}

/// What a driver keeps of secrets.
pub(crate) struct Pouch {
    /// Tells drivers and agents of one machine apart.
    scope: String,
    given: Mutex<HashMap<UnitId, Arc<[Given]>>>,
    under_way: Mutex<UnderWay>,
}

/// Preparations that may write files of what is no unit yet.
#[derive(Default)]
struct UnderWay {
    units: HashSet<UnitId>,
    /// How many have begun so far.
    begun: u64,
}

/// A preparation, until it is dropped.
pub(crate) struct Preparation<'a> {
    pouch: &'a Pouch,
    id: UnitId,
}

/// Units of which there are files, but for those that are being prepared.
pub(crate) struct Holders {
    units: Vec<UnitId>,
    begun: u64,
}

impl Drop for Preparation<'_> {
    fn drop(&mut self) {
        self.pouch.under_way().units.remove(&self.id);
    }
}

impl Pouch {
    /// For the driver whose own directory that is.
    pub(crate) fn of(driver: &Path) -> Self {
        let path = std::path::absolute(driver).unwrap_or_else(|_| driver.to_owned());
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        Self {
            scope: digest
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            given: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    /// To be held from before the values are taken until there is a unit, or none will be.
    pub(crate) fn preparing(&self, id: UnitId) -> Preparation<'_> {
        let mut under_way = self.under_way();
        under_way.units.insert(id);
        under_way.begun += 1;
        drop(under_way);
        Preparation { pouch: self, id }
    }

    pub(crate) fn give(&self, id: UnitId, secrets: Vec<Given>) {
        if secrets.is_empty() {
            self.lock().remove(&id);
        } else {
            self.lock().insert(id, secrets.into());
        }
    }

    /// What was given for a unit of that spec, once.
    pub(crate) fn take(
        &self,
        id: UnitId,
        spec: &WorkloadSpec,
    ) -> Result<Arc<[Given]>, RuntimeError> {
        let given = self.lock().remove(&id).unwrap_or_default();
        match spec.secrets.get(given.len()) {
            None => Ok(given),
            Some(missing) => Err(missing_value(&missing.name)),
        }
    }

    /// What was given, once, where the spec is not at hand.
    pub(crate) fn take_all(&self, id: UnitId) -> Arc<[Given]> {
        self.lock().remove(&id).unwrap_or_default()
    }

    /// How the unit sees its files; nothing if it has none.
    pub(crate) fn mounts(&self, unit: &Unit) -> Result<Vec<Mount>, RuntimeError> {
        let kind = unit.spec.kind();
        let places = unit.spec.secrets.iter().map(|secret| secret.place(kind));
        let files = places.enumerate().filter_map(|(at, place)| match place {
            SecretPlace::Env(_) => None,
            SecretPlace::File { path, .. } => Some((at, path)),
        });
        let mut mounts = Vec::new();
        for (at, target) in files {
            let source = self.dir(unit.id)?.join(file_name(at, &target));
            mounts.push(Mount {
                source: source.to_string_lossy().into_owned(),
                target,
                read_only: true,
            });
        }
        Ok(mounts)
    }

    /// The directory of the unit's files.
    pub(crate) fn dir(&self, id: UnitId) -> Result<PathBuf, RuntimeError> {
        let home = home().map_err(|why| RuntimeError::Unsatisfiable {
            code: FailureCode::SecretsUnsupported,
            message: format!("the node has no place in memory for files of secrets: {why}"),
        })?;
        Ok(home.join(&self.scope).join(id.to_string()))
    }

    /// Writes the unit's files; those that are there are replaced, not changed.
    pub(crate) async fn write(&self, id: UnitId, given: &Arc<[Given]>) -> Result<(), RuntimeError> {
        let is_file = |it: &Given| matches!(it.place, SecretPlace::File { .. });
        if !given.iter().any(is_file) {
            return Ok(());
        }
        let (dir, given) = (self.dir(id)?, Arc::clone(given));
        disk::off_thread("write the secrets' files", move || write(&dir, &given)).await
    }

    /// Forgets all of the unit.
    pub(crate) async fn remove(&self, id: UnitId) -> Result<(), RuntimeError> {
        self.lock().remove(&id);
        let Ok(dir) = self.dir(id) else {
            return Ok(());
        };
        disk::off_thread("remove the secrets' files", move || {
            disk::gone(fs::remove_dir_all(dir))
        })
        .await
    }

    /// Units of which there are files. To be asked for before the units are: what comes between is not swept.
    pub(crate) fn holders(&self) -> Holders {
        let listed = match home_if_there() {
            Ok(home) => disk::entries(&home.join(&self.scope)).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let ids = listed.iter().filter_map(|(_, name)| name.parse().ok());
        let mut units: Vec<UnitId> = ids.collect();
        let under_way = self.under_way();
        units.retain(|id| !under_way.units.contains(id));
        Holders {
            units,
            begun: under_way.begun,
        }
    }

    /// Removes the files of those that are no units, as an agent that died has left them.
    pub(crate) async fn sweep(&self, holders: Holders, units: impl Iterator<Item = UnitId>) {
        if holders.units.is_empty() {
            return;
        }
        let units: HashSet<UnitId> = units.collect();
        let begun = holders.begun;
        for id in holders.units.into_iter().filter(|id| !units.contains(id)) {
            // What has begun meanwhile may be a unit by now that nobody has seen; the next look sweeps.
            if self.under_way().begun != begun {
                return;
            }
            // What was given for it may be for a preparation that begins now.
            let Ok(dir) = self.dir(id) else { continue };
            if self.lock().contains_key(&id) {
                continue;
            }
            let removed = disk::off_thread("remove the secrets' files", move || {
                disk::gone(fs::remove_dir_all(dir))
            });
            match removed.await {
                Ok(()) => tracing::info!(unit = %id, "removed files of secrets that no unit has"),
                Err(error) => {
                    tracing::warn!(unit = %id, %error, "files of secrets are not removed")
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UnitId, Arc<[Given]>>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The variables among the secrets, for whoever takes text alone.
pub(crate) fn variables(given: &[Given]) -> Result<BTreeMap<String, Clear>, RuntimeError> {
    let mut variables = BTreeMap::new();
    for it in given {
        let SecretPlace::Env(variable) = &it.place else {
            continue;
        };
        let is_text = std::str::from_utf8(it.value.reveal()).is_ok_and(|text| !text.contains('\0'));
        if !is_text {
            let name = &it.name;
            return Err(RuntimeError::Unsatisfiable {
                code: FailureCode::SecretsUnsupported,
                message: format!(
                    "the secret `{name}` is no text, so it can be a file and no variable"
                ),
            });
        }
        variables.insert(variable.clone(), it.value.clone());
    }
    Ok(variables)
}

/// The value is not here, and what names it cannot begin.
#[must_use]
pub fn missing_value(name: &str) -> RuntimeError {
    RuntimeError::Unsatisfiable {
        code: FailureCode::SecretMissing,
        message: format!(
            "the value of the secret `{name}` is not on this node; it comes from the control plane while the node \
             is connected"
        ),
    }
}

/// Of a compose project it is the name that its file knows.
fn file_name(at: usize, target: &str) -> String {
    if target.starts_with('/') {
        at.to_string()
    } else {
        target.to_owned()
    }
}

fn write(dir: &Path, given: &[Given]) -> io::Result<()> {
    home().map_err(io::Error::other)?;
    private_dir(dir, true)?;
    for (at, it) in given.iter().enumerate() {
        let SecretPlace::File { path, mode } = &it.place else {
            continue;
        };
        let path = dir.join(file_name(at, path));
        let beside = dir.join(format!(".{at}.new"));
        disk::gone(fs::remove_file(&beside))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(it.value.reveal())?;
        file.set_permissions(fs::Permissions::from_mode(*mode))?;
        fs::rename(&beside, &path)?;
    }
    Ok(())
}

/// The agent's own directory in memory, made if it is missing.
fn home() -> Result<PathBuf, String> {
    let mut why = String::new();
    for path in candidates() {
        match in_memory(&path).and_then(|()| private_dir(&path, false)) {
            Ok(()) => return Ok(path),
            Err(error) => why = format!("{}: {error}", path.display()),
        }
    }
    Err(why)
}

fn home_if_there() -> io::Result<PathBuf> {
    let mut there = candidates().into_iter().filter(|path| path.is_dir());
    there
        .find(|path| in_memory(path).is_ok())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn candidates() -> Vec<PathBuf> {
    let user = rustix::process::geteuid();
    let shared = PathBuf::from(format!("/dev/shm/hostler-{}", user.as_raw()));
    if user.is_root() {
        vec![PathBuf::from("/run/hostler"), shared]
    } else {
        vec![shared]
    }
}

/// Whether what is below the parent never reaches a disk, but for swap.
fn in_memory(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    let kind = rustix::fs::statfs(parent)?.f_type;
    if IN_MEMORY.contains(&kind) {
        return Ok(());
    }
    Err(io::Error::other("it is not in memory"))
}

/// Makes the directory for its owner alone, or sees that it is so: others may have been there first.
fn private_dir(path: &Path, with_parents: bool) -> io::Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(with_parents)
        .mode(0o700)
        .create(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    let is_own = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if is_own && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other("it is open to others, or somebody else's"))
}

/// What a unit of that spec is given, if all values are there.
///
/// # Errors
/// `secret-missing` for the first that `value` does not know.
pub fn gather(
    spec: &WorkloadSpec,
    value: impl Fn(&str) -> Option<Clear>,
) -> Result<Vec<Given>, RuntimeError> {
    let kind = spec.kind();
    let given = |secret: &SecretUse| {
        Ok(Given {
            name: secret.name.clone(),
            place: secret.place(kind),
            value: value(&secret.name).ok_or_else(|| missing_value(&secret.name))?,
        })
    };
    spec.secrets.iter().map(given).collect()
}

#[cfg(test)]
mod tests {
    use hostler_model::{AssignmentId, Timestamp};

    use super::*;

    fn unit(number: u128) -> UnitId {
        UnitId {
            assignment: AssignmentId::mint(Timestamp::from_millis(1), number),
            generation: 1,
        }
    }

    fn file(at: &str, mode: u32, value: &str) -> Given {
        Given {
            name: "db".to_owned(),
            place: SecretPlace::File {
                path: at.to_owned(),
                mode,
            },
            value: Clear::new(value.as_bytes().to_vec()),
        }
    }

    #[tokio::test]
    async fn files_lie_in_memory_for_their_owner_and_go_with_their_unit() {
        let driver = tempfile::tempdir().unwrap();
        let pouch = Pouch::of(driver.path());
        let id = unit(1);
        let given: Arc<[Given]> = vec![file("/run/secrets/db", 0o440, "canary")].into();
        pouch.write(id, &given).await.unwrap();
        let dir = pouch.dir(id).unwrap();
        in_memory(dir.parent().unwrap()).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let path = dir.join("0");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o440);
        assert_eq!(fs::read_to_string(&path).unwrap(), "canary");

        // Whoever has it open keeps what it has.
        let before = fs::metadata(&path).unwrap().ino();
        let held = fs::File::open(&path).unwrap();
        pouch
            .write(id, &vec![file("/run/secrets/db", 0o400, "next")].into())
            .await
            .unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), before);
        assert_eq!(io::read_to_string(held).unwrap(), "canary");
        assert_eq!(fs::read_to_string(&path).unwrap(), "next");

        pouch.remove(id).await.unwrap();
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn files_of_no_unit_are_swept_and_those_of_units_are_not() {
        let driver = tempfile::tempdir().unwrap();
        let pouch = Pouch::of(driver.path());
        let given: Arc<[Given]> = vec![file("/x", 0o400, "canary")].into();
        for number in 1..=2 {
            pouch.write(unit(number), &given).await.unwrap();
        }
        let again = Pouch::of(driver.path());
        again.sweep(again.holders(), [unit(1)].into_iter()).await;
        assert_eq!(again.holders().units, [unit(1)]);
        again.remove(unit(1)).await.unwrap();
    }

    #[tokio::test]
    async fn files_of_a_preparation_are_not_swept_though_it_is_no_unit_yet() {
        let driver = tempfile::tempdir().unwrap();
        let pouch = Pouch::of(driver.path());
        let given: Arc<[Given]> = vec![file("/x", 0o400, "canary")].into();
        let preparation = pouch.preparing(unit(1));
        pouch.write(unit(1), &given).await.unwrap();
        pouch.sweep(pouch.holders(), std::iter::empty()).await;
        assert!(pouch.dir(unit(1)).unwrap().exists(), "under way");
        drop(preparation);
        let before = pouch.holders();
        assert_eq!(before.units, [unit(1)]);
        drop(pouch.preparing(unit(1)));
        pouch.sweep(before, std::iter::empty()).await;
        assert!(pouch.dir(unit(1)).unwrap().exists(), "prepared meanwhile");
        pouch.sweep(pouch.holders(), std::iter::empty()).await;
        assert!(!pouch.dir(unit(1)).unwrap().exists());
    }

    #[test]
    fn a_directory_that_others_can_enter_or_own_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let open = home.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_dir(&open, false).is_err());
        let link = home.path().join("link");
        std::os::unix::fs::symlink(home.path(), &link).unwrap();
        assert!(private_dir(&link, false).is_err());
        private_dir(&home.path().join("own"), false).unwrap();
        assert!(in_memory(Path::new("/proc/self")).is_err());
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_given_is_not_printed() {
        let mut spec = WorkloadSpec::of_process("web", vec!["true".to_owned()]);
        spec.secrets = serde_json::from_str(r#"[{"name":"a"},{"name":"b","env":"B"}]"#).unwrap();
        let value = |name: &str| (name == "a").then(|| Clear::new(b"canary".to_vec()));
        let error = gather(&spec, value).unwrap_err();
        assert_eq!(error.code(), "secret-missing");
        assert!(error.to_string().contains("`b`"), "{error}");
        let all = gather(&spec, |_| Some(Clear::new(b"canary".to_vec()))).unwrap();
        assert!(!format!("{all:?}").contains("canary"));
        let binary = Given {
            value: Clear::new(vec![0xff]),
            ..all[1].clone()
        };
        let error = variables(&[binary]).unwrap_err();
        assert_eq!(error.code(), "secrets-unsupported");
    }
}

//! The double of a storage driver: directories and files of its own, and failures on demand.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

use async_trait::async_trait;
use hostler_model::FailureCode;

use super::super::{Form, Place, Storage, Volume, filesystem, refused};
use crate::RuntimeError;

pub(super) struct Fake {
    home: tempfile::TempDir,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    attached: BTreeSet<String>,
    /// Volumes that cannot be attached.
    stuck: BTreeSet<String>,
    /// Volumes that cannot be detached.
    busy: BTreeSet<String>,
}

impl Fake {
    pub(super) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            state: Mutex::default(),
        }
    }

    pub(super) fn reboot(&self) {
        self.state.lock().unwrap().attached.clear();
    }

    pub(super) fn attached(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap()
            .attached
            .iter()
            .cloned()
            .collect()
    }

    /// The volumes that exist.
    pub(super) fn volumes(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A person makes it, for whatever it is.
    pub(super) fn put(&self, volume: &str) {
        fs::create_dir(self.home.path().join(volume)).unwrap();
    }

    pub(super) fn set_stuck(&self, volume: &str) {
        self.state.lock().unwrap().stuck.insert(volume.to_owned());
    }

    pub(super) fn set_busy(&self, volume: &str, is_busy: bool) {
        let mut state = self.state.lock().unwrap();
        if is_busy {
            state.busy.insert(volume.to_owned());
        } else {
            state.busy.remove(volume);
        }
    }

    fn place(&self, volume: &Volume) -> Place {
        let path = self.home.path().join(&volume.name);
        match volume.form {
            Form::Directory => Place::Directory(path),
            Form::Disk => Place::Image(path),
        }
    }
}

#[async_trait]
impl Storage for Fake {
    fn probe(&self) -> Result<(), String> {
        Ok(())
    }

    async fn provision(&self, volume: &Volume) -> Result<bool, RuntimeError> {
        let path = self.place(volume).path().to_owned();
        let is_new = !path.exists();
        match volume.form {
            Form::Directory => filesystem::make_dir(&path).unwrap(),
            Form::Disk => fs::write(&path, "").unwrap(),
        }
        Ok(is_new)
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError> {
        let mut state = self.state.lock().unwrap();
        if state.stuck.contains(&volume.name) {
            return Err(refused(
                FailureCode::VolumeAttachFailed,
                "it is stuck".to_owned(),
            ));
        }
        let place = self.place(volume);
        assert!(place.path().exists(), "it was provisioned before");
        if let Place::Directory(dir) = &place {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        state.attached.insert(volume.name.clone());
        Ok(place)
    }

    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let mut state = self.state.lock().unwrap();
        if state.busy.contains(&volume.name) {
            return Err(refused(
                FailureCode::VolumeDetachFailed,
                "it is busy".to_owned(),
            ));
        }
        state.attached.remove(&volume.name);
        Ok(())
    }

    async fn delete(&self, volume: &Volume) -> Result<(), RuntimeError> {
        assert!(!self.attached().contains(&volume.name), "it is attached");
        let path = self.place(volume).path().to_owned();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.exists() {
            fs::remove_file(path).unwrap();
        }
        Ok(())
    }
}

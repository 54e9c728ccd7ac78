//! The double of a storage driver: directories and files of its own, and failures on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;

use async_trait::async_trait;
use hostler_model::FailureCode;

use super::super::marker::Marker;
use super::super::{Claim, Form, Leaver, Parting, Place, Provisioned, Storage, Volume};
use super::super::{filesystem, in_use, refused};
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
    /// Of storage that nodes share.
    markers: BTreeMap<String, Marker>,
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

    /// A person removes the marker.
    pub(super) fn unmark(&self, volume: &str) {
        self.state.lock().unwrap().markers.remove(volume);
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

    async fn provision(&self, volume: &Volume, claim: &Claim) -> Result<Provisioned, RuntimeError> {
        let path = self.place(volume).path().to_owned();
        let is_new = !path.exists();
        let mut is_new_owner = false;
        if !volume.is_local() {
            let mut state = self.state.lock().unwrap();
            let mut marker = state.markers.get(&volume.name).cloned().unwrap_or_default();
            marker.is_ours |= is_new;
            let entered = marker.enter(claim, volume.is_exclusive());
            is_new_owner = entered.map_err(|conflict| in_use(volume, &conflict))?;
            state.markers.insert(volume.name.clone(), marker);
        }
        match volume.form {
            Form::Directory => filesystem::make_dir(&path).unwrap(),
            Form::Disk => fs::write(&path, "").unwrap(),
        }
        Ok(Provisioned {
            is_new,
            is_new_owner,
        })
    }

    async fn renew(&self, volume: &Volume, claim: &Claim) -> Result<(), RuntimeError> {
        if volume.is_local() {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap();
        let marker = state.markers.entry(volume.name.clone()).or_default();
        let entered = marker.enter(claim, volume.is_exclusive());
        entered
            .map(drop)
            .map_err(|conflict| in_use(volume, &conflict))
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

    async fn part(
        &self,
        volume: &Volume,
        leaver: &Leaver,
        parting: Parting,
    ) -> Result<(), RuntimeError> {
        let goes = match volume.is_local() {
            true => parting == Parting::Delete,
            false => {
                let mut state = self.state.lock().unwrap();
                let marker = state.markers.entry(volume.name.clone()).or_default();
                let goes = marker.leave(leaver, parting);
                if marker.is_over() {
                    state.markers.remove(&volume.name);
                }
                goes
            }
        };
        if !goes {
            return Ok(());
        }
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

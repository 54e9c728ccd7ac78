//! Volumes on an NFS server: each is a directory of one export, mounted by itself.
//!
//! ```text
//!   <stage>/.export     the export, mounted only while a volume is made or deleted
//!   <stage>/<name>      an attached volume
//!   …/<name>/disk.img   the disk of a machine, in a volume of its own
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hostler_model::FailureCode;

use super::tool::{Call, Tools, Trouble};
use super::{Form, Place, Storage, Volume, attach_failed, detach_failed, filesystem};
use super::{provision_failed, refused};
use crate::RuntimeError;

const EXPORT: &str = ".export";
const DISK: &str = "disk.img";

/// Which server, and how it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NfsSettings {
    /// Name or address; without one the node has no such volumes.
    pub server: Option<String>,
    /// The exported directory on the server.
    pub export: Option<String>,
    /// As `mount -o` takes them.
    pub options: Option<String>,
    /// Where volumes are mounted; `volumes/nfs` of the data directory if left out.
    pub stage_dir: Option<PathBuf>,
}

pub(super) struct Nfs {
    settings: NfsSettings,
    stage: PathBuf,
    tools: Tools,
    /// One at a time has the export mounted.
    export: tokio::sync::Mutex<()>,
}

impl Nfs {
    pub(super) fn new(settings: NfsSettings, stage: PathBuf, tools: Tools) -> Self {
        Self {
            settings,
            stage,
            tools,
            export: tokio::sync::Mutex::default(),
        }
    }

    fn stage(&self) -> io::Result<PathBuf> {
        filesystem::make_dir(&self.stage)?;
        self.stage.canonicalize()
    }

    fn at(&self, volume: &Volume) -> io::Result<PathBuf> {
        Ok(self.stage()?.join(&volume.name))
    }

    /// Does something inside the export. Whatever becomes of it, the export is unmounted again.
    async fn inside<T, F>(&self, what: &'static str, work: F) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let _turn = self.export.lock().await;
        let at = self.stage()?.join(EXPORT);
        filesystem::mount(&self.tools, &mount_call(&self.settings, None, &at), &at).await?;
        let inside = at.clone();
        let done = self.tools.files(what, move || work(&inside)).await;
        let unmounted = filesystem::unmount(&self.tools, &at).await;
        let done = done?;
        unmounted?;
        Ok(done)
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, Trouble> {
        let at = self.at(volume)?;
        let call = mount_call(&self.settings, Some(&volume.name), &at);
        filesystem::mount(&self.tools, &call, &at).await?;
        match (volume.form, volume.size) {
            (Form::Disk, Some(size)) => {
                let disk = at.join(DISK);
                let made = disk.clone();
                self.tools
                    .files("make the disk", move || filesystem::make_image(&made, size))
                    .await?;
                Ok(Place::Image(disk))
            }
            _ => {
                filesystem::open_to_all(&self.tools, at.clone()).await?;
                Ok(Place::Directory(at))
            }
        }
    }
}

/// Mounts a volume, or the whole export.
fn mount_call(settings: &NfsSettings, volume: Option<&str>, at: &Path) -> Call {
    let server = settings.server.as_deref().unwrap_or_default();
    let export = settings.export.as_deref().unwrap_or_default();
    let export = export.trim_end_matches('/');
    let source = match volume {
        Some(volume) => format!("{server}:{export}/{volume}"),
        None if export.is_empty() => format!("{server}:/"),
        None => format!("{server}:{export}"),
    };
    let options = settings.options.as_deref().unwrap_or_default();
    filesystem::mount_call("nfs", options, source, at)
}

#[async_trait]
impl Storage for Nfs {
    fn probe(&self) -> Result<(), String> {
        if self.settings.server.is_none() || self.settings.export.is_none() {
            return Err("no server and export are named".to_owned());
        }
        if !self.tools.has("mount.nfs") {
            return Err("`mount.nfs` is not there; Debian has it in nfs-common".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only an agent that is root can mount".to_owned());
        }
        Ok(())
    }

    async fn provision(&self, volume: &Volume) -> Result<bool, RuntimeError> {
        let name = volume.name.clone();
        let made = self.inside("make the volume", move |export| {
            match fs::create_dir(export.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                made => made.map(|()| true),
            }
        });
        made.await.map_err(provision_failed(volume))
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError> {
        let attached = self.attach(volume).await;
        attached.map_err(attach_failed(volume))
    }

    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let detached = async { filesystem::unmount(&self.tools, &self.at(volume)?).await };
        detached.await.map_err(detach_failed(volume))
    }

    async fn delete(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let name = volume.name.clone();
        if name.is_empty() {
            return Err(refused(
                FailureCode::VolumeInvalid,
                "a volume without a name".to_owned(),
            ));
        }
        let deleted = self.inside("delete the volume", move |export| {
            filesystem::absent_is_fine(fs::remove_dir_all(export.join(name)))
        });
        deleted.await.map_err(detach_failed(volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_mounted_from_its_directory_of_the_export() {
        let settings = NfsSettings {
            server: Some("files.lan".to_owned()),
            export: Some("/srv/volumes/".to_owned()),
            options: Some("nfsvers=4.2,hard".to_owned()),
            stage_dir: None,
        };
        let at = Path::new("/var/stage/data");
        assert_eq!(
            mount_call(&settings, Some("data"), at).to_string(),
            "mount -t nfs -o nfsvers=4.2,hard files.lan:/srv/volumes/data /var/stage/data"
        );
        assert_eq!(
            mount_call(&settings, None, at).to_string(),
            "mount -t nfs -o nfsvers=4.2,hard files.lan:/srv/volumes /var/stage/data"
        );
        let whole = NfsSettings {
            export: Some("/".to_owned()),
            options: None,
            ..settings
        };
        assert_eq!(
            mount_call(&whole, None, at).to_string(),
            "mount -t nfs files.lan:/ /var/stage/data"
        );
    }
}

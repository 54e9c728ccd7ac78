//! Volumes on an NFS server: each is a directory of one export, mounted by itself.
//!
//! ```text
//!   <stage>/.export     the export, mounted only while a volume is made or let go of, or its marker looked at
//!   <stage>/<name>      an attached volume
//!   …/<name>/disk.img   the disk of a machine, in a volume of its own
//!   <export>/.hostler/<name>.json   its marker; beside it <name>.lock, empty, which stays
//! ```
//!
//! Who looks at a marker has the lock, which the server takes back from a node that dies. A marker of which neither
//! data nor a holder is there counts as none: somebody has deleted the volume by hand.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use hostler_model::FailureCode;

use rustix::fs::{FlockOperation, flock};

use super::marker::Marker;
use super::tool::{Call, Tools, Trouble};
use super::{Claim, Conflict, Form, Leaver, Parting, Place, Provisioned, Storage, Volume};
use super::{attach_failed, detach_failed, filesystem, in_use, provision_failed, refused};
use crate::{RuntimeError, disk};

const EXPORT: &str = ".export";
const DISK: &str = "disk.img";
const MARKERS: &str = ".hostler";
/// Another node has a marker for moments, unless it deletes much.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// Of the mount in which markers are read: what was looked up before may have been replaced by another node.
const UNCACHED: &str = "lookupcache=none";

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

    /// Does something inside the export, again while a lock is in the way. Whatever becomes of it, the export is
    /// unmounted again. What is done stays done if that fails: an error would say of a marker that it is not written.
    async fn inside<T, F>(&self, what: &'static str, work: F) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: Fn(&Path) -> io::Result<T> + Clone + Send + 'static,
    {
        let _turn = self.export.lock().await;
        let at = self.stage()?.join(EXPORT);
        filesystem::mount(&self.tools, &mount_call(&self.settings, None, &at), &at).await?;
        let mut tries = 0;
        let done = loop {
            let (inside, work) = (at.clone(), work.clone());
            match self.tools.files(what, move || work(&inside)).await {
                Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => tries += 1,
                done => break done,
            }
            if tries >= LOCK_TRIES {
                let call = format!("{what} (another node has its lock)");
                let patience = LOCK_PAUSE * LOCK_TRIES;
                break Err(Trouble::TimedOut { call, patience });
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        };
        if let Err(trouble) = filesystem::unmount(&self.tools, &at).await {
            tracing::warn!(at = %at.display(), %trouble, "the export stays mounted until a volume is next made or let go of");
        }
        done
    }

    /// Enters the unit in the marker; then makes the volume, where it may.
    async fn enter(
        &self,
        volume: &Volume,
        claim: &Claim,
        does_make: bool,
    ) -> Result<Result<Provisioned, Conflict>, Trouble> {
        let (volume, claim) = (volume.clone(), claim.clone());
        let entered = self.inside("make the volume", move |export| {
            enter(export, &volume, &claim, does_make)
        });
        entered.await
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
    let told = settings.options.as_deref();
    let uncached = volume.is_none().then_some(UNCACHED);
    let options: Vec<&str> = told.into_iter().chain(uncached).collect();
    let options = &options.join(",");
    filesystem::mount_call("nfs", options, source, at)
}

/// A volume's marker, while no other node looks at it.
struct Marked {
    /// The lock goes with it.
    _lock: fs::File,
    file: PathBuf,
}

impl Marked {
    /// None where nothing can be written: nobody can change the data there, either.
    fn of(export: &Path, volume: &Volume) -> io::Result<Option<Self>> {
        let dir = export.join(MARKERS);
        let lock = filesystem::make_dir(&dir).and_then(|()| {
            let mut options = fs::OpenOptions::new();
            let options = options.write(true).create(true).truncate(false);
            options.open(dir.join(format!("{}.lock", volume.name)))
        });
        let lock = match lock {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(None),
            lock => lock?,
        };
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Some(Self {
            _lock: lock,
            file: dir.join(format!("{}.json", volume.name)),
        }))
    }

    fn read(&self) -> io::Result<Option<Marker>> {
        disk::read(&self.file).map_err(|error| {
            let name = self.file.file_name().unwrap_or_default();
            let name = name.to_string_lossy();
            io::Error::new(error.kind(), format!("{MARKERS}/{name}: {error}"))
        })
    }

    /// What nobody has to do with has no marker.
    fn write(&self, marker: &Marker) -> io::Result<()> {
        match marker.is_over() {
            true => filesystem::absent_is_fine(fs::remove_file(&self.file)),
            false => disk::write_durably(&self.file, marker),
        }
    }
}

fn enter(
    export: &Path,
    volume: &Volume,
    claim: &Claim,
    does_make: bool,
) -> io::Result<Result<Provisioned, Conflict>> {
    let at = export.join(&volume.name);
    let marked = Marked::of(export, volume)?;
    // Behind the lock: another node may have made it while this one waited.
    let is_there = at.try_exists()?;
    let Some(marked) = marked else {
        let made = if is_there {
            Ok(())
        } else {
            fs::create_dir(&at)
        };
        return made.map(|()| Ok(Provisioned::default()));
    };
    let before = marked.read()?;
    let found = before.clone();
    let found = found.filter(|it| is_there || !it.holders.is_empty());
    let mut marker = found.unwrap_or_else(|| Marker {
        is_ours: does_make && !is_there,
        ..Marker::default()
    });
    let is_new_owner = match marker.enter(claim, volume.is_exclusive()) {
        Ok(is_new_owner) => is_new_owner,
        Err(conflict) => return Ok(Err(conflict)),
    };
    let is_new = does_make && !is_there;
    // Before the data is there: what is made and not marked would be a person's.
    let written = marked.write(&marker);
    let made = written.and_then(|()| if is_new { fs::create_dir(&at) } else { Ok(()) });
    if let Err(error) = made {
        if let Err(stays) = marked.write(&before.unwrap_or_default()) {
            tracing::warn!(volume = volume.name, error = %stays, "the marker may say what did not come about");
        }
        return Err(error);
    }
    Ok(Ok(Provisioned {
        is_new,
        is_new_owner,
    }))
}

/// Without a marker nobody can tell whose the data is: it stays.
fn part(export: &Path, volume: &Volume, leaver: &Leaver, parting: Parting) -> io::Result<()> {
    let Some(marked) = Marked::of(export, volume)? else {
        return Ok(());
    };
    let Some(found) = marked.read()? else {
        return Ok(());
    };
    let mut marker = found.clone();
    if marker.leave(leaver, parting) {
        filesystem::absent_is_fine(fs::remove_dir_all(export.join(&volume.name)))?;
    }
    if marker == found {
        return Ok(());
    }
    marked.write(&marker)
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

    async fn provision(&self, volume: &Volume, claim: &Claim) -> Result<Provisioned, RuntimeError> {
        let made = self.enter(volume, claim, true).await;
        let made = made.map_err(provision_failed(volume))?;
        made.map_err(|conflict| in_use(volume, &conflict))
    }

    async fn renew(&self, volume: &Volume, claim: &Claim) -> Result<(), RuntimeError> {
        let entered = self.enter(volume, claim, false).await;
        let entered = entered.map_err(attach_failed(volume))?;
        let renewed = entered.map_err(|conflict| in_use(volume, &conflict));
        renewed.map(drop)
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError> {
        let attached = self.attach(volume).await;
        attached.map_err(attach_failed(volume))
    }

    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let detached = async { filesystem::unmount(&self.tools, &self.at(volume)?).await };
        detached.await.map_err(detach_failed(volume))
    }

    async fn part(
        &self,
        volume: &Volume,
        leaver: &Leaver,
        parting: Parting,
    ) -> Result<(), RuntimeError> {
        if volume.name.is_empty() {
            return Err(refused(
                FailureCode::VolumeInvalid,
                "a volume without a name".to_owned(),
            ));
        }
        let (gone, leaver) = (volume.clone(), leaver.clone());
        let parted = self.inside("let go of the volume", move |export| {
            part(export, &gone, &leaver, parting)
        });
        parted.await.map_err(detach_failed(volume))
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
            "mount -t nfs -o nfsvers=4.2,hard,lookupcache=none files.lan:/srv/volumes /var/stage/data"
        );
        let whole = NfsSettings {
            export: Some("/".to_owned()),
            options: None,
            ..settings
        };
        assert_eq!(
            mount_call(&whole, None, at).to_string(),
            "mount -t nfs -o lookupcache=none files.lan:/ /var/stage/data"
        );
    }
}

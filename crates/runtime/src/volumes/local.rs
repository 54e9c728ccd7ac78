//! Volumes on the node's own disk.
//!
//! ```text
//!   <root>/<name>/        a volume without a size: a plain directory
//!   <root>/<name>.img     one with a size: a file system of that size in a file, mounted at <name>/;
//!                         for a machine, the disk itself
//! ```
//!
//! A file system of its own is what enforces a size on every kind of disk. It takes room as it is written to. A
//! directory that is there already with files in it stays a directory, and is said not to be bounded.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hostler_model::FailureCode;

use super::tool::{Call, Tools, Trouble};
use super::{Claim, Form, Leaver, Parting, Place, Provisioned, Storage, Volume, filesystem};
use super::{attach_failed, detach_failed, provision_failed, refused};
use crate::{RuntimeError, disk};

pub(super) struct Local {
    root: PathBuf,
    tools: Tools,
}

impl Local {
    pub(super) const fn at(root: PathBuf, tools: Tools) -> Self {
        Self { root, tools }
    }

    /// The root as the kernel names it.
    fn root(&self) -> io::Result<PathBuf> {
        filesystem::make_dir(&self.root)?;
        self.root.canonicalize()
    }

    fn dir(&self, volume: &Volume) -> io::Result<PathBuf> {
        Ok(self.root()?.join(&volume.name))
    }

    fn image(&self, volume: &Volume) -> io::Result<PathBuf> {
        Ok(self.root()?.join(format!("{}.img", volume.name)))
    }

    /// Makes the file with its file system beside its place; only a whole one gets there.
    async fn format(&self, volume: &Volume, image: &Path, size: u64) -> Result<(), Trouble> {
        let beside = image.with_extension("new");
        filesystem::absent_is_fine(fs::remove_file(&beside))?;
        filesystem::make_image(&beside, size)?;
        let formatted = self
            .tools
            .run(&filesystem::format_call(&beside, &volume.fs_type))
            .await;
        if let Err(trouble) = formatted {
            let _ = fs::remove_file(&beside);
            return Err(trouble);
        }
        Ok(fs::rename(&beside, image)?)
    }

    /// Lets a file that is smaller than the volume's size grow, with the file system in it.
    async fn grow(&self, volume: &Volume, image: &Path, size: u64) -> Result<(), Trouble> {
        if fs::metadata(image)?.len() >= size || self.tools.is_mounted(&self.dir(volume)?)? {
            return Ok(());
        }
        filesystem::make_image(image, size)?;
        if volume.fs_type == "ext4" {
            // It insists on a check; one that mended something says so with its exit.
            let check = Call::new("e2fsck").args(["-f", "-p"]).arg(image);
            let checked = self.tools.ask(&check).await?;
            if checked.code().is_none_or(|code| code > 1) {
                return Err(checked.trouble(&check));
            }
            self.tools.run(&Call::new("resize2fs").arg(image)).await?;
        }
        Ok(())
    }

    async fn provision(&self, volume: &Volume) -> Result<bool, Trouble> {
        let (dir, image) = (self.dir(volume)?, self.image(volume)?);
        let has_image = image.try_exists()?;
        match (volume.size, volume.form) {
            (_, Form::Disk) if !is_empty(&dir)? => Err(Trouble::Unfit(format!(
                "{} is a directory with data in it and cannot be a machine's disk",
                dir.display()
            ))),
            (Some(size), Form::Disk) => Ok(filesystem::make_image(&image, size)?),
            (Some(size), Form::Directory) if has_image => {
                self.grow(volume, &image, size).await?;
                Ok(false)
            }
            (Some(size), Form::Directory) if is_empty(&dir)? => {
                self.format(volume, &image, size).await?;
                Ok(true)
            }
            (Some(_), Form::Directory) => {
                tracing::warn!(volume = volume.name, "a directory from before has no bound");
                Ok(false)
            }
            (None, _) => {
                let is_new = !has_image && !dir.try_exists()?;
                filesystem::make_dir(&dir)?;
                Ok(is_new)
            }
        }
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, Trouble> {
        let (dir, image) = (self.dir(volume)?, self.image(volume)?);
        if volume.form == Form::Disk {
            return Ok(Place::Image(image));
        }
        if image.try_exists()? {
            let fs = filesystem::ensure(&self.tools, &image, &volume.fs_type).await?;
            let call = filesystem::mount_call(&fs, "loop", &image, &dir);
            filesystem::mount(&self.tools, &call, &dir).await?;
        }
        filesystem::open_to_all(&self.tools, dir.clone()).await?;
        Ok(Place::Directory(dir))
    }
}

#[async_trait]
impl Storage for Local {
    fn probe(&self) -> Result<(), String> {
        Ok(())
    }

    async fn provision(
        &self,
        volume: &Volume,
        _claim: &Claim,
    ) -> Result<Provisioned, RuntimeError> {
        let is_bounded = volume.size.is_some() && volume.form == Form::Directory;
        if is_bounded && !rustix::process::geteuid().is_root() {
            let message = format!(
                "volume `{}`: only an agent that is root can hold it to its size",
                volume.name
            );
            return Err(refused(FailureCode::VolumeQuotaUnsupported, message));
        }
        let is_new = self.provision(volume).await;
        Ok(Provisioned {
            is_new: is_new.map_err(provision_failed(volume))?,
            is_new_owner: false,
        })
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError> {
        let attached = self.attach(volume).await;
        attached.map_err(attach_failed(volume))
    }

    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let detached = async {
            let (dir, image) = (self.dir(volume)?, self.image(volume)?);
            if volume.form == Form::Directory && image.try_exists()? {
                filesystem::unmount(&self.tools, &dir).await?;
            }
            Ok(())
        };
        detached.await.map_err(detach_failed(volume))
    }

    async fn part(
        &self,
        volume: &Volume,
        _leaver: &Leaver,
        parting: Parting,
    ) -> Result<(), RuntimeError> {
        if parting != Parting::Delete {
            return Ok(());
        }
        let deleted = async {
            let (dir, image) = (self.dir(volume)?, self.image(volume)?);
            let has_dir = volume.form == Form::Directory;
            if has_dir {
                // Never into what is mounted.
                filesystem::unmount_if_mounted(&self.tools, &dir).await?;
            }
            let gone = self.tools.files("delete the volume", move || {
                if has_dir {
                    filesystem::absent_is_fine(fs::remove_dir_all(&dir))?;
                }
                filesystem::absent_is_fine(fs::remove_file(&image))
            });
            gone.await
        };
        deleted.await.map_err(detach_failed(volume))
    }

    fn usage(&self, volume: &Volume) -> u64 {
        let dir = self.dir(volume).map_or(0, |dir| disk::usage(&dir));
        let image = self.image(volume).and_then(fs::metadata);
        dir + image.map_or(0, |image| image.blocks() * 512)
    }
}

/// Whether nothing is in the directory, or there is none.
fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

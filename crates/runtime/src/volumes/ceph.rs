//! Volumes that are images of a Ceph cluster, through the `rbd` tool and the kernel's client.
//!
//! ```text
//!   create ──► map ──► /dev/rbd0 ──formatted if blank──► mounted at <stage>/<name>
//!                          └── <stage>/<name>.dev, a link to the disk itself, for a machine
//! ```
//!
//! A machine's command is on record, and the device may have another name after a reboot: the link is what stays.
//!
//! An image that one copy may write to is mapped with the cluster's exclusive lock, so that a node which was cut off
//! and another cannot both write.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hostler_model::FailureCode;
use hostler_model::spec::AccessMode;
use serde::Deserialize;

use super::tool::{Call, Tools, Trouble};
use super::{Form, Place, Storage, Volume, attach_failed, detach_failed, filesystem};
use super::{provision_failed, refused};
use crate::RuntimeError;

/// How `rbd` ends where there is no such image.
const ABSENT: i32 = 2;
const MEBIBYTE: u64 = 1 << 20;

/// Which cluster, and who the node is there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CephSettings {
    /// The cluster's name; the tool's own default if left out.
    pub cluster: Option<String>,
    /// The pool that holds the images; without one the node has no such volumes.
    pub pool: Option<String>,
    /// The user without `client.`.
    pub user: Option<String>,
    pub keyring: Option<PathBuf>,
    /// Where volumes are mounted; `volumes/ceph-rbd` of the data directory if left out.
    pub stage_dir: Option<PathBuf>,
}

pub(super) struct Ceph {
    settings: CephSettings,
    stage: PathBuf,
    tools: Tools,
}

/// One line of what is mapped here.
#[derive(Deserialize)]
struct Mapped {
    pool: String,
    name: String,
    device: PathBuf,
}

impl Ceph {
    pub(super) const fn new(settings: CephSettings, stage: PathBuf, tools: Tools) -> Self {
        Self {
            settings,
            stage,
            tools,
        }
    }

    fn at(&self, volume: &Volume) -> std::io::Result<PathBuf> {
        filesystem::make_dir(&self.stage)?;
        Ok(self.stage.canonicalize()?.join(&volume.name))
    }

    async fn exists(&self, volume: &Volume) -> Result<bool, Trouble> {
        let call = self.settings.info(&volume.name);
        let answer = self.tools.ask(&call).await?;
        match answer.code() {
            Some(0) => Ok(true),
            Some(ABSENT) => Ok(false),
            _ => Err(answer.trouble(&call)),
        }
    }

    /// The device that the image is mapped to.
    async fn device(&self, volume: &Volume) -> Result<Option<PathBuf>, Trouble> {
        let call = self.settings.mapped();
        let text = self.tools.run(&call).await?;
        let mapped: Vec<Mapped> = serde_json::from_str(&text).map_err(|error| Trouble::Failed {
            call: call.to_string(),
            said: error.to_string(),
        })?;
        let pool = self.settings.pool();
        let mut ours = mapped
            .into_iter()
            .filter(|it| it.pool == pool && it.name == volume.name);
        Ok(ours.next().map(|it| it.device))
    }

    async fn map(&self, volume: &Volume) -> Result<PathBuf, Trouble> {
        if let Some(device) = self.device(volume).await? {
            return Ok(device);
        }
        let call = self.settings.map(&volume.name, volume.access);
        let said = self.tools.run(&call).await?;
        match said.lines().next_back().map(str::trim) {
            Some(device) if !device.is_empty() => Ok(PathBuf::from(device)),
            _ => Err(Trouble::Failed {
                call: call.to_string(),
                said: "it names no device".to_owned(),
            }),
        }
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, Trouble> {
        let device = self.map(volume).await?;
        let placed = match volume.form {
            Form::Disk => self.point(volume, &device).map(Place::Device),
            Form::Directory => {
                let mounted = self.mount(volume, &device).await;
                mounted.map(Place::Directory)
            }
        };
        if placed.is_err() {
            // Another node could not have it while it is mapped here.
            if let Err(trouble) = self.unmap(volume).await {
                tracing::warn!(volume = volume.name, %trouble, "the image stays mapped");
            }
        }
        placed
    }

    /// Names hold no dots: no volume is called so.
    fn link(&self, volume: &Volume) -> std::io::Result<PathBuf> {
        Ok(self.at(volume)?.with_extension("dev"))
    }

    /// Lets the volume's link point to the device.
    fn point(&self, volume: &Volume, device: &Path) -> Result<PathBuf, Trouble> {
        let link = self.link(volume)?;
        let beside = link.with_extension("new");
        filesystem::absent_is_fine(fs::remove_file(&beside))?;
        symlink(device, &beside)?;
        fs::rename(&beside, &link)?;
        Ok(link)
    }

    async fn mount(&self, volume: &Volume, device: &Path) -> Result<PathBuf, Trouble> {
        let at = self.at(volume)?;
        let fs = filesystem::ensure(&self.tools, device, &volume.fs_type).await?;
        let is_read_only = volume.access == AccessMode::ReadOnlyMany;
        let options = if is_read_only { "ro" } else { "" };
        let call = filesystem::mount_call(&fs, options, device, &at);
        filesystem::mount(&self.tools, &call, &at).await?;
        if !is_read_only {
            filesystem::open_to_all(&self.tools, at.clone()).await?;
        }
        Ok(at)
    }

    async fn unmap(&self, volume: &Volume) -> Result<(), Trouble> {
        if let Some(device) = self.device(volume).await? {
            self.tools.run(&self.settings.unmap(&device)).await?;
        }
        Ok(())
    }
}

impl CephSettings {
    fn pool(&self) -> &str {
        self.pool.as_deref().unwrap_or_default()
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.pool())
    }

    fn call(&self) -> Call {
        let mut call = Call::new("rbd");
        for (flag, value) in [("--cluster", &self.cluster), ("--id", &self.user)] {
            if let Some(value) = value {
                call = call.args([flag, value.as_str()]);
            }
        }
        match &self.keyring {
            Some(keyring) => call.arg("--keyring").arg(keyring),
            None => call,
        }
    }

    fn info(&self, name: &str) -> Call {
        self.call().args(["info", &self.image(name)])
    }

    fn create(&self, name: &str, size: u64) -> Call {
        let size = format!("{}M", size.div_ceil(MEBIBYTE));
        self.call()
            .args(["create", "--size", &size, &self.image(name)])
    }

    fn map(&self, name: &str, access: AccessMode) -> Call {
        let how: &[&str] = match access {
            AccessMode::ReadOnlyMany => &["--read-only"],
            AccessMode::ReadWriteOnce => &["-o", "exclusive"],
            AccessMode::ReadWriteMany => &[],
        };
        self.call()
            .arg("map")
            .args(how.iter().copied())
            .arg(self.image(name))
    }

    fn mapped(&self) -> Call {
        self.call().args(["device", "list", "--format", "json"])
    }

    fn unmap(&self, device: &Path) -> Call {
        self.call().arg("unmap").arg(device)
    }

    fn remove(&self, name: &str) -> Call {
        self.call().args(["rm", "--no-progress", &self.image(name)])
    }
}

#[async_trait]
impl Storage for Ceph {
    fn probe(&self) -> Result<(), String> {
        if self.settings.pool.is_none() {
            return Err("no pool is named".to_owned());
        }
        if !self.tools.has("rbd") {
            return Err("`rbd` is not there; Debian has it in ceph-common".to_owned());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("only an agent that is root can map images".to_owned());
        }
        Ok(())
    }

    async fn provision(&self, volume: &Volume) -> Result<bool, RuntimeError> {
        if self
            .exists(volume)
            .await
            .map_err(provision_failed(volume))?
        {
            return Ok(false);
        }
        let Some(size) = volume.size else {
            let name = &volume.name;
            let message = format!("volume `{name}`: a new image needs a `size`");
            return Err(refused(FailureCode::VolumeInvalid, message));
        };
        let create = self.settings.create(&volume.name, size);
        let created = self.tools.run(&create).await;
        created.map_err(provision_failed(volume))?;
        Ok(true)
    }

    async fn attach(&self, volume: &Volume) -> Result<Place, RuntimeError> {
        let attached = self.attach(volume).await;
        attached.map_err(attach_failed(volume))
    }

    async fn detach(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let detached = async {
            filesystem::unmount(&self.tools, &self.at(volume)?).await?;
            filesystem::absent_is_fine(fs::remove_file(self.link(volume)?))?;
            self.unmap(volume).await
        };
        detached.await.map_err(detach_failed(volume))
    }

    async fn delete(&self, volume: &Volume) -> Result<(), RuntimeError> {
        let deleted = async {
            if self.exists(volume).await? {
                self.tools.run(&self.settings.remove(&volume.name)).await?;
            }
            Ok(())
        };
        deleted.await.map_err(detach_failed(volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_finds_its_disk_at_one_path_whatever_the_device_is_called() {
        let home = tempfile::tempdir().unwrap();
        let stage = home.path().join("stage");
        let ceph = Ceph::new(CephSettings::default(), stage, Tools::default());
        let volume = Volume {
            driver: "ceph-rbd".to_owned(),
            name: "data".to_owned(),
            form: Form::Disk,
            size: Some(MEBIBYTE),
            fs_type: "ext4".to_owned(),
            access: AccessMode::ReadWriteOnce,
        };
        let first = ceph.point(&volume, Path::new("/dev/rbd0")).unwrap();
        let again = ceph.point(&volume, Path::new("/dev/rbd1")).unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::read_link(again).unwrap(), Path::new("/dev/rbd1"));
    }

    #[test]
    fn every_call_names_the_cluster_the_user_and_the_image() {
        let plain = CephSettings {
            pool: Some("rbd".to_owned()),
            ..CephSettings::default()
        };
        let named = CephSettings {
            cluster: Some("east".to_owned()),
            user: Some("hostler".to_owned()),
            keyring: Some(PathBuf::from("/etc/ceph/k")),
            ..plain.clone()
        };
        for (call, words) in [
            (plain.info("a"), "rbd info rbd/a"),
            (
                named.info("a"),
                "rbd --cluster east --id hostler --keyring /etc/ceph/k info rbd/a",
            ),
            (
                plain.create("a", (3 << 20) + 1),
                "rbd create --size 4M rbd/a",
            ),
            (
                plain.map("a", AccessMode::ReadWriteOnce),
                "rbd map -o exclusive rbd/a",
            ),
            (
                plain.map("a", AccessMode::ReadOnlyMany),
                "rbd map --read-only rbd/a",
            ),
            (plain.mapped(), "rbd device list --format json"),
            (plain.unmap(Path::new("/dev/rbd0")), "rbd unmap /dev/rbd0"),
            (plain.remove("a"), "rbd rm --no-progress rbd/a"),
        ] {
            assert_eq!(call.to_string(), words);
        }
    }
}

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
//!
//! Its marker is metadata of the image. The cluster knows no change on condition, so a node writes first and looks
//! then. Of two that come at the same time at least one sees the other, and whoever does takes back what it wrote:
//! never both get in, and where neither does, each can later. Nobody writes what is another's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hostler_model::FailureCode;
use hostler_model::spec::AccessMode;
use serde::Deserialize;

use super::marker::{self, Marker, Pairs};
use super::tool::{Call, Tools, Trouble};
use super::{Claim, Conflict, Form, Leaver, Parting, Place, Provisioned, Storage, Volume};
use super::{attach_failed, detach_failed, filesystem, in_use, provision_failed, refused};
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

    async fn marks(&self, volume: &Volume) -> Result<(Pairs, Marker), Trouble> {
        let call = self.settings.marks(&volume.name);
        let text = self.tools.run(&call).await?;
        let failed = |said: String| Trouble::Failed {
            call: call.to_string(),
            said,
        };
        let pairs = match text.trim() {
            // An image without metadata.
            "" => Pairs::new(),
            text => serde_json::from_str(text).map_err(|error| failed(error.to_string()))?,
        };
        let marker = Marker::of_pairs(&pairs).map_err(failed)?;
        Ok((pairs, marker))
    }

    /// Writes what the claim has to say, its hold first, which says how the rest is taken back. Then takes off what it
    /// makes void.
    async fn mark(
        &self,
        volume: &Volume,
        claim: &Claim,
        was: &Pairs,
        marker: &Marker,
    ) -> Result<(), Trouble> {
        let is = marker.to_pairs().map_err(std::io::Error::from)?;
        let is_other = |key: &str, value| was.get(key) != Some(value);
        for (key, value) in &is {
            if is_other(key, value) && !marker::is_of_others(key, claim) {
                let call = self.settings.mark(&volume.name, key, value);
                self.tools.run(&call).await?;
            }
        }
        self.clear(volume, was, &is).await
    }

    /// Takes off what is no more: first that the image is ours, so that what is to stay is never deleted by a second
    /// try; holds last, so that nobody takes the image for free before, and a broken off removal can be repeated.
    async fn clear(&self, volume: &Volume, was: &Pairs, is: &Pairs) -> Result<(), Trouble> {
        let gone = was.keys().rev().filter(|key| marker::is_ours(key));
        let mut gone: Vec<&String> = gone.filter(|key| !is.contains_key(*key)).collect();
        gone.sort_by_key(|key| *key != marker::OURS);
        for key in gone {
            let call = self.settings.unmark(&volume.name, key);
            let answer = self.tools.ask(&call).await?;
            if !answer.is_success() && answer.code() != Some(ABSENT) {
                return Err(answer.trouble(&call));
            }
        }
        Ok(())
    }

    /// Enters the unit in the marker of an image; one that is new is ours. Answers whether its copy is a new owner. If
    /// it is not let in, or anything fails, what was not there before is taken back.
    async fn enter(
        &self,
        volume: &Volume,
        claim: &Claim,
        is_new: bool,
    ) -> Result<Result<bool, Conflict>, Trouble> {
        let is_exclusive = volume.is_exclusive();
        let (was, mut marker) = self.marks(volume).await?;
        let was_held = marker.is_held_by(claim.unit);
        marker.is_ours |= is_new;
        let is_new_owner = match marker.enter(claim, is_exclusive) {
            Ok(is_new_owner) => is_new_owner,
            Err(conflict) => return Ok(Err(conflict)),
        };
        let entered = async {
            self.mark(volume, claim, &was, &marker).await?;
            let (_, mut seen) = self.marks(volume).await?;
            Ok(seen.enter(claim, is_exclusive).map(|_| is_new_owner))
        };
        let entered = entered.await;
        if !matches!(entered, Ok(Ok(_)))
            && !was_held
            && let Err(trouble) = self.take_back(volume, claim).await
        {
            tracing::warn!(volume = volume.name, %trouble, "the marker says what did not come about");
        }
        entered
    }

    /// Only takes off: what others write meanwhile stays. So does the image, because another may be about to enter it,
    /// and the word that it is ours: nothing has been written to it, unless by one that wanted it to stay.
    async fn take_back(&self, volume: &Volume, claim: &Claim) -> Result<(), Trouble> {
        let (was, mut marker) = self.marks(volume).await?;
        let leaver = Leaver {
            node: claim.node.clone(),
            unit: Some(claim.unit),
            owner: claim.owner,
        };
        marker.leave(&leaver, Parting::TakeBack);
        let mut is = marker.to_pairs().map_err(std::io::Error::from)?;
        let ours = was.get_key_value(marker::OURS);
        let ours = ours.filter(|_| !marker.is_retained());
        is.extend(ours.map(|(key, value)| (key.clone(), value.clone())));
        self.clear(volume, &was, &is).await
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

    fn marks(&self, name: &str) -> Call {
        let words = ["image-meta", "list", "--format", "json"];
        self.call().args(words).arg(self.image(name))
    }

    fn mark(&self, name: &str, key: &str, value: &str) -> Call {
        let words = ["image-meta", "set", &self.image(name), key, value];
        self.call().args(words)
    }

    fn unmark(&self, name: &str, key: &str) -> Call {
        let words = ["image-meta", "remove", &self.image(name), key];
        self.call().args(words)
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

    async fn provision(&self, volume: &Volume, claim: &Claim) -> Result<Provisioned, RuntimeError> {
        let is_there = self.exists(volume).await;
        let is_new = !is_there.map_err(provision_failed(volume))?;
        if is_new {
            let Some(size) = volume.size else {
                let name = &volume.name;
                let message = format!("volume `{name}`: a new image needs a `size`");
                return Err(refused(FailureCode::VolumeInvalid, message));
            };
            let create = self.settings.create(&volume.name, size);
            let created = self.tools.run(&create).await;
            created.map_err(provision_failed(volume))?;
        }
        let entered = self.enter(volume, claim, is_new).await;
        let entered = entered.map_err(provision_failed(volume))?;
        let is_new_owner = entered.map_err(|conflict| in_use(volume, &conflict))?;
        Ok(Provisioned {
            is_new,
            is_new_owner,
        })
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
        let detached = async {
            filesystem::unmount(&self.tools, &self.at(volume)?).await?;
            filesystem::absent_is_fine(fs::remove_file(self.link(volume)?))?;
            self.unmap(volume).await
        };
        detached.await.map_err(detach_failed(volume))
    }

    async fn part(
        &self,
        volume: &Volume,
        leaver: &Leaver,
        parting: Parting,
    ) -> Result<(), RuntimeError> {
        let parted = async {
            if !self.exists(volume).await? {
                return Ok(());
            }
            let (was, mut marker) = self.marks(volume).await?;
            if marker.leave(leaver, parting) {
                let remove = self.settings.remove(&volume.name);
                return self.tools.run(&remove).await.map(drop);
            }
            let is = marker.to_pairs().map_err(std::io::Error::from)?;
            self.clear(volume, &was, &is).await
        };
        parted.await.map_err(detach_failed(volume))
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
            (plain.marks("a"), "rbd image-meta list --format json rbd/a"),
            (
                named.mark("a", "k", "v"),
                "rbd --cluster east --id hostler --keyring /etc/ceph/k image-meta set rbd/a k v",
            ),
            (plain.unmark("a", "k"), "rbd image-meta remove rbd/a k"),
        ] {
            assert_eq!(call.to_string(), words);
        }
    }
}

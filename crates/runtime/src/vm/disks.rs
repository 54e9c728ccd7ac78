//! A machine's disks: which there are, what each begins as, and making those that are not here yet.
//!
//! They are the data of the assignment. Each is a file in a directory that all generations share, and its name
//! follows from where the guest finds it and from the image that it began as: a generation with the same image
//! finds the disk again, one with another image begins a new disk beside it, and going back finds the old one.
//!
//! ```text
//!   disks/<assignment>/vdb.qcow2                        began empty
//!   disks/<assignment>/vda-debian-12-1f0c2b3a.qcow2     began as an image, which it refers to
//! ```
//!
//! A file is complete or absent: it is made beside its place and moved there. Images are never written to.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hostler_model::FailureCode;
use hostler_model::spec::{DiskFormat, DiskMedia, VmDisk, VmSpec};

use super::images::{Images, refused};
use super::networks::fnv;
use super::qemu_img::QemuImg;
use super::record::Disk;
use crate::{Attached, Place, RuntimeError, disk};

/// A disk that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    target: String,
    /// None for an image that the guest gets as it is.
    file: Option<String>,
    image: Option<PathBuf>,
    size: u64,
    format: DiskFormat,
    boot: Option<u32>,
}

/// What the spec asks for, in the order in which the guest gets it.
pub(super) fn plan(vm: &VmSpec, images: &Images) -> Result<Vec<Wanted>, RuntimeError> {
    let listed = with_boot_image(vm);
    let mut targets: BTreeSet<String> = listed.iter().filter_map(|it| it.target.clone()).collect();
    // Without a word, what boots is the first disk.
    let says_boot = listed.iter().any(|disk| disk.boot);
    let mut order = 0;
    let mut wanted = Vec::new();
    for (number, disk) in listed.iter().enumerate() {
        if let Some(pool) = &disk.pool {
            let message = format!("this node has no pool `{pool}`");
            return Err(refused(FailureCode::PoolUnknown, message));
        }
        let target = match &disk.target {
            Some(target) => target.clone(),
            None => free_target(&mut targets, disk.media),
        };
        let image = disk.image.as_deref().filter(|image| !image.is_empty());
        let is_cdrom = disk.media == DiskMedia::Cdrom;
        let boots = disk.boot || (!says_boot && number == 0);
        order += u32::from(boots);
        wanted.push(Wanted {
            file: (!is_cdrom).then(|| file_name(&target, image, disk.format)),
            image: image.map(|image| images.find(image)).transpose()?,
            size: disk.size.unwrap_or_default().0,
            format: if is_cdrom {
                DiskFormat::Raw
            } else {
                disk.format
            },
            boot: boots.then_some(order),
            target,
        });
    }
    Ok(wanted)
}

/// The machine's own image is that of the disk at `vda`, or a disk of its own before all others.
fn with_boot_image(vm: &VmSpec) -> Vec<VmDisk> {
    const FIRST: &str = "vda";
    let mut listed = vm.disks.clone();
    if vm.image.is_empty() {
        return listed;
    }
    let image = Some(vm.image.clone());
    let first = listed.iter_mut().find(|disk| {
        disk.target.as_deref() == Some(FIRST)
            && disk.image.is_none()
            && disk.media == DiskMedia::Disk
    });
    match first {
        Some(disk) => disk.image = image,
        None => listed.insert(
            0,
            VmDisk {
                image,
                ..VmDisk::default()
            },
        ),
    }
    listed
}

fn free_target(targets: &mut BTreeSet<String>, media: DiskMedia) -> String {
    let word = match media {
        DiskMedia::Disk => "vd",
        DiskMedia::Cdrom => "sr",
    };
    let letters = ('a'..='z').map(|letter| format!("{word}{letter}"));
    let more = (0..).map(|number| format!("{word}-{number}"));
    let mut free = letters.chain(more);
    loop {
        // There is always one more.
        let target = free.next().unwrap_or_default();
        if targets.insert(target.clone()) {
            return target;
        }
    }
}

fn file_name(target: &str, image: Option<&str>, format: DiskFormat) -> String {
    let ending = super::qemu_img::word(format);
    let target = plain(target);
    match image {
        None => format!("{target}.{ending}"),
        Some(image) => {
            let stem = Path::new(image).file_stem().unwrap_or_default();
            let stem = letters(&stem.to_string_lossy());
            format!(
                "{target}-{stem}-{:08x}.{ending}",
                fnv(image.as_bytes()) >> 32
            )
        }
    }
}

/// A device keeps its name; a mount point becomes one that no other has.
fn plain(target: &str) -> String {
    let plain = letters(target);
    if plain == target {
        return plain;
    }
    format!("{plain}-{:08x}", fnv(target.as_bytes()) >> 32)
}

fn letters(text: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    text.chars().map(letter).take(40).collect()
}

/// Makes the disks that are not here yet. If it fails, it leaves nothing that was not there before.
pub(super) async fn make(
    wanted: Vec<Wanted>,
    dir: &Path,
    tool: &QemuImg,
) -> Result<Vec<Disk>, RuntimeError> {
    let mut made = Vec::new();
    let answer = make_each(wanted, dir, tool, &mut made).await;
    if answer.is_err() {
        for file in made {
            let _ = fs::remove_file(file);
        }
        // Fails where there are disks of another generation.
        let _ = fs::remove_dir(dir);
    }
    answer
}

async fn make_each(
    wanted: Vec<Wanted>,
    dir: &Path,
    tool: &QemuImg,
    made: &mut Vec<PathBuf>,
) -> Result<Vec<Disk>, RuntimeError> {
    let mut disks = Vec::new();
    for disk in wanted {
        let file = disk.file.as_ref().map(|name| dir.join(name));
        let path = match (&file, &disk.image) {
            (None, Some(image)) => {
                if !image.is_file() {
                    let message = format!("{} is no file", image.display());
                    return Err(refused(FailureCode::ImageNotFound, message));
                }
                image.clone()
            }
            (None, None) => {
                return Err(refused(
                    FailureCode::ImageNotFound,
                    "a cdrom without one".to_owned(),
                ));
            }
            (Some(file), _) => {
                if !exists(file)? {
                    make_one(&disk, file, tool, made).await?;
                }
                file.clone()
            }
        };
        disks.push(Disk {
            target: disk.target,
            path,
            format: disk.format,
            size: disk.size,
            is_cdrom: file.is_none(),
            is_device: false,
            is_read_only: false,
            boot: disk.boot,
        });
    }
    Ok(disks)
}

async fn make_one(
    disk: &Wanted,
    file: &Path,
    tool: &QemuImg,
    made: &mut Vec<PathBuf>,
) -> Result<(), RuntimeError> {
    let beside = file.with_extension("new");
    let image = match &disk.image {
        Some(image) => Some((
            image,
            tool.examine(image, None, FailureCode::ImageCorrupt).await?,
        )),
        None => None,
    };
    if let Some((image, info)) = &image
        && disk.size > 0
        && disk.size < info.size
    {
        let message = format!(
            "disk `{}` is to have {} bytes, and {} has {}",
            disk.target,
            disk.size,
            image.display(),
            info.size
        );
        return Err(refused(FailureCode::DiskTooSmall, message));
    }
    if let Some(dir) = file.parent() {
        let making = disk::make_dir(dir, 0o700);
        making.map_err(|error| disk::error(format!("make {}", dir.display()), error))?;
    }
    made.push(beside.clone());
    match (&image, disk.format) {
        (None, format) => tool.create(&beside, format, disk.size).await?,
        (Some((image, info)), DiskFormat::Qcow2) => {
            let size = disk.size.max(info.size);
            tool.overlay(&beside, (image, &info.format), size).await?;
        }
        (Some((image, info)), DiskFormat::Raw) => {
            tool.copy(&beside, (image, &info.format)).await?;
            if disk.size > info.size {
                tool.grow(&beside, DiskFormat::Raw, disk.size).await?;
            }
        }
    }
    let moved = fs::rename(&beside, file);
    moved.map_err(|error| disk::error(format!("make {}", file.display()), error))?;
    made.push(file.to_owned());
    Ok(())
}

/// The unit's volumes as further disks, by which name the guest finds them.
pub(super) fn of_volumes(volumes: &[Attached]) -> impl Iterator<Item = Disk> + '_ {
    volumes.iter().map(|volume| Disk {
        target: volume.name.clone(),
        path: volume.place.path().to_owned(),
        format: DiskFormat::Raw,
        size: 0,
        is_cdrom: false,
        is_device: matches!(volume.place, Place::Device(_)),
        is_read_only: volume.read_only,
        boot: None,
    })
}

/// Looks the disks over before a start, when no other generation uses them, and lets them grow.
pub(super) async fn ready(disks: &[Disk], tool: &QemuImg) -> Result<(), RuntimeError> {
    for disk in disks {
        if !exists(&disk.path)? {
            let code = if disk.is_cdrom {
                FailureCode::ImageNotFound
            } else {
                FailureCode::DiskMissing
            };
            let message = format!("{} is not there any more", disk.path.display());
            return Err(refused(code, message));
        }
        if disk.is_cdrom {
            continue;
        }
        let info = tool
            .examine(&disk.path, Some(disk.format), FailureCode::DiskCorrupt)
            .await?;
        if disk.size > info.size {
            tool.grow(&disk.path, disk.format, disk.size).await?;
        }
    }
    Ok(())
}

fn exists(file: &Path) -> Result<bool, RuntimeError> {
    file.try_exists()
        .map_err(|error| disk::error(format!("look for {}", file.display()), error))
}

/// Deletes the disks of an assignment.
pub(super) fn delete(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

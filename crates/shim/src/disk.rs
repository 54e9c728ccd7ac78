//! Records on disk.
//!
//! A record is complete or absent: it is written beside its place and moved there. The exception is
//! [`write_new`], whose name alone says enough.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Room for a small record, taken early so that a full disk cannot keep it from being written.
const RECORD_ROOM: u64 = 512;

/// The machine's present boot; empty if the kernel does not say.
pub fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Reads a record; none if there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a record that outlives a power cut.
pub fn write_durably<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let beside = beside(path);
    let mut file = create(&beside)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

/// Writes a record that was not there, at the price of one sync. It outlives a power cut, by its name if not
/// whole: the file systems in use keep the name of a new file that is synced, and the directories above it.
pub fn write_new<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()
}

/// Writes a record that outlives every process, but not a power cut.
pub fn write_whole<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let beside = beside(path);
    create(&beside)?.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&beside, path)
}

/// Takes the room on disk that [`write_reserved`] will need.
pub fn reserve(path: &Path) -> io::Result<()> {
    let file = create(&beside(path))?;
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(&file, flags, 0, RECORD_ROOM) {
        // A file system that cannot reserve is no reason not to run.
        Err(rustix::io::Errno::NOTSUP) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes a durable record into the room taken before, so that it needs no new block.
pub fn write_reserved<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let beside = beside(path);
    let bytes = serde_json::to_vec(record)?;
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_parent(path)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

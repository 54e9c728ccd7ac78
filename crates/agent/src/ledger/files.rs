//! Single files of the ledger: replaced as a whole or not at all, set aside when they cannot be understood.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Files that are being written carry this prefix; after a crash they mean nothing.
const UNFINISHED: &str = ".unfinished-";

/// The file was there but could not be understood, and was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Opens without emptying: while another agent holds the lock, the file names its pid.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

pub(super) fn overwrite(mut file: &File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

/// A file that is written beside the one it is to replace.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    beside: PathBuf,
    path: PathBuf,
}

/// Replaces a file by plain text.
pub(crate) fn write_text(path: &Path, text: &str) -> io::Result<()> {
    stage_bytes(path, text.as_bytes())?.settle()
}

/// Replaces a file; it is durable under its name once its directory is synced, too.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    stage(path, value)?.settle()
}

/// Writes a file beside the one it is to replace. Several that are staged before the first is settled cost
/// the disk little more than one. Only the owner may read it.
pub(super) fn stage<T: Serialize>(path: &Path, value: &T) -> io::Result<Staged> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    stage_bytes(path, &text)
}

fn stage_bytes(path: &Path, text: &[u8]) -> io::Result<Staged> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!("{UNFINISHED}{name}"));
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    let mut staged = Staged {
        file,
        beside,
        path: path.to_owned(),
    };
    match staged.file.write_all(text) {
        Ok(()) => Ok(staged),
        Err(error) => {
            staged.abandon();
            Err(error)
        }
    }
}

impl Staged {
    /// Syncs the content and gives it its name.
    pub(super) fn settle(self) -> io::Result<()> {
        let settled = self
            .file
            .sync_data()
            .and_then(|()| fs::rename(&self.beside, &self.path));
        if settled.is_err() {
            self.abandon();
        }
        settled
    }

    /// A full disk needs the room.
    fn abandon(self) {
        let _ = fs::remove_file(&self.beside);
    }
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(crate) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file; none if it is not there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Damaged> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read a file of the ledger");
            return Err(Damaged);
        }
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let aside = path.with_extension("json.corrupt");
        let moved = fs::rename(path, &aside).is_ok();
        tracing::error!(
            path = %path.display(), moved, %error, "a file of the ledger is corrupt and was set aside"
        );
        Damaged
    })
}

/// The finished JSON files of a directory.
pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let is_json = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_json)
        .filter(|path| !is_unfinished(path))
        .collect()
}

/// Deletes what a crash left half-written.
pub(crate) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_unfinished(path))
    {
        let _ = fs::remove_file(path);
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED))
}

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
pub(super) struct Damaged;

pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Opens without emptying: while another agent holds the lock, the file names its pid.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
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

/// Replaces a file; it is synced under its name once its directory is, too. Only the owner may read it.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!("{UNFINISHED}{name}"));
    let written = write_synced(&beside, &text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_data()
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn delete(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file; none if it is not there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Damaged> {
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
pub(super) fn list(dir: &Path) -> Vec<PathBuf> {
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
pub(super) fn sweep(dir: &Path) {
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

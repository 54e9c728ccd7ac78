//! File work off the async threads, waiting for descriptors, and the records of [`hostler_shim::disk`] for the drivers.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

pub(crate) use hostler_shim::disk::{boot_id, read, write_durably, write_reserved, write_whole};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::RuntimeError;

/// Runs file work where it may block.
pub(crate) async fn off_thread<T, F>(context: &'static str, work: F) -> Result<T, RuntimeError>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|source| error(context, source)),
        Err(panicked) => Err(error(context, io::Error::other(panicked))),
    }
}

/// A full disk is told apart from other failures.
pub(crate) fn error(context: impl Into<String>, source: io::Error) -> RuntimeError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RuntimeError::DiskFull,
        _ => RuntimeError::Io {
            context: context.into(),
            source,
        },
    }
}

/// Lets the async runtime wait until the handle is ready for that.
#[expect(
    deprecated,
    reason = "the constructor is unsound for types whose descriptor may change; an owned one does not"
)]
pub(crate) fn readiness(handle: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, interest)
}

/// Whether a record's text makes no sense, as after a power cut.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Makes a directory, and those above it, unless they are there.
pub(crate) fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir)
}

/// What is in a directory, with names; nothing if there is none.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let listed = match fs::read_dir(dir) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        entries.push((entry.path(), name));
    }
    Ok(entries)
}

/// What is not there is removed already.
pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// What the files below a directory take of the disk. It follows no links, and what goes meanwhile counts for nothing.
pub(crate) fn usage(dir: &Path) -> u64 {
    let Ok(listed) = fs::read_dir(dir) else {
        return 0;
    };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(it) if it.is_dir() => it.blocks() * 512 + usage(&entry.path()),
        Ok(it) => it.blocks() * 512,
        Err(_) => 0,
    };
    listed.filter_map(Result::ok).map(of).sum()
}

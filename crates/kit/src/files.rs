//! Small files that are replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Files that are being written carry this prefix; after a crash they mean nothing.
const UNFINISHED: &str = ".unfinished-";

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Nobody but its owner: mode 0600.
    Owner,
    /// Everybody: mode 0644.
    All,
}

impl Readers {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

/// Writes a file beside the one it replaces, syncs it, renames it, and syncs its directory.
///
/// # Errors
/// What the file system says. Unless the directory alone could not be synced, the old file is still there.
pub fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!("{UNFINISHED}{name}"));
    let written = write(&beside, bytes, readers).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // What was begun means nothing to anybody; that it lies there is no second failure.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true);
    let mut file = options.mode(readers.mode()).open(path)?;
    // One of an earlier attempt keeps its mode when it is opened.
    file.set_permissions(fs::Permissions::from_mode(readers.mode()))?;
    file.write_all(bytes)?;
    file.sync_all()
}

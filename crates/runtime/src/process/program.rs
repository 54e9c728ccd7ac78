//! The shim's program on the node's disk: written there by the agent that carries it, under a name that its bytes
//! give, so that agents of several versions never write into each other's.
//!
//! A shim may run for months, so nothing that was put here is deleted or written over: a program in use is replaced by
//! name. What can fail: the disk, and a file system from which nothing may be started. Then nothing is left behind
//! that looks whole.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

const MODE: u32 = 0o755;

/// Puts the program into the directory, unless it is there whole, and makes sure that it can be started.
///
/// # Errors
/// The disk's, and the kernel's where nothing may be started from there.
pub fn place(dir: &Path, program: &[u8]) -> io::Result<PathBuf> {
    // Shims have another working directory than the agent.
    let dir = std::path::absolute(dir)?;
    let path = dir.join(name_of(program));
    if !is_whole(&path, program) {
        fs::create_dir_all(&dir)?;
        write(&path, program)?;
    }
    let tried = Command::new(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if tried.success() {
        return Ok(path);
    }
    Err(io::Error::other(format!("it does not run here: {tried}")))
}

fn name_of(program: &[u8]) -> String {
    let digest = Sha256::digest(program);
    let hex: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("shim-{hex}")
}

fn is_whole(path: &Path, program: &[u8]) -> bool {
    let has_mode = |it: fs::Metadata| it.permissions().mode() & 0o777 == MODE;
    fs::metadata(path).is_ok_and(has_mode) && fs::read(path).is_ok_and(|there| there == program)
}

/// Beside its place and then moved there. The name of the process keeps two agents apart that both begin.
fn write(path: &Path, program: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = write_beside(&beside, program).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What cannot be removed either is not taken for the program.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_beside(beside: &Path, program: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(beside)?;
    file.write_all(program)?;
    // The process may mask the mode that it asked for.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"#!/bin/sh\nexit 0\n";

    #[test]
    fn a_program_is_written_once_and_mended_when_it_was_damaged() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("shim");
        let path = place(&dir, GOOD).unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(place(&dir, GOOD).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
        fs::write(&path, "#!/bin/sh\nexit 7\n").unwrap();
        assert_eq!(place(&dir, GOOD).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), GOOD);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        place(&dir, GOOD).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            MODE
        );
    }

    #[test]
    fn another_version_lies_beside_the_one_that_shims_still_run() {
        let home = tempfile::tempdir().unwrap();
        let old = place(home.path(), GOOD).unwrap();
        let new = place(home.path(), b"#!/bin/sh\ntrue\n").unwrap();
        assert!(old != new && old.exists() && new.exists());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_does_not_run_here_and_a_place_that_takes_nothing_are_errors() {
        let home = tempfile::tempdir().unwrap();
        assert!(place(home.path(), b"\x7fELF of another machine").is_err());
        let error = place(home.path(), b"#!/bin/sh\nexit 3\n").unwrap_err();
        assert!(error.to_string().contains("does not run here"), "{error}");
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(place(&file, GOOD).is_err());
    }
}

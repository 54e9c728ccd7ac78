//! The image `busybox:local`: a root file system of one static program and a link for each of its names.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds it in a folder and gives it as a tar archive.
pub(crate) fn archive(busybox: &Path, folder: &Path) -> Result<Vec<u8>> {
    lay_out(busybox, busybox, folder)?;
    let tar = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-c", "-C"])
        .arg(folder)
        .arg(".")
        .output()
        .context("run tar")?;
    ensure!(
        tar.status.success(),
        "tar: {}",
        String::from_utf8_lossy(&tar.stderr)
    );
    Ok(tar.stdout)
}

/// The root file system as a folder. Its names are those of another busybox where this machine cannot ask that one.
pub(crate) fn lay_out(busybox: &Path, named: &Path, folder: &Path) -> Result<()> {
    let bin = folder.join("bin");
    for part in ["bin", "etc", "root", "tmp", "var"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    std::fs::set_permissions(folder.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    std::fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(folder.join("etc/group"), "root:x:0:\n")?;
    std::fs::copy(busybox, bin.join("busybox")).context("copy busybox")?;
    let names = Command::new(named)
        .arg("--list")
        .output()
        .context("run busybox --list")?;
    for name in String::from_utf8_lossy(&names.stdout).lines() {
        if name != "busybox" {
            symlink("busybox", bin.join(name)).with_context(|| format!("link {name}"))?;
        }
    }
    Ok(())
}

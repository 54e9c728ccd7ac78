//! A machine that systemd runs: the distribution's smallest system with systemd, on a disk that guests boot from. It is
//! kept below `target/` for the next time; no guest writes to it. As an archive it is the base of an image, too.
//!
//! The guest unpacks the archive that is its second disk into `/root` and runs `check.sh` of it as a service; what that
//! says stands on the serial console.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::machine::Machine;
use super::provision;
use crate::tree::run;

/// The disk, beside the kernel and the first system of [`Machine`].
const DISK: &str = "system.disk";
/// The same as an archive, of which an engine makes an image.
const ARCHIVE: &str = "system.tar";
const PACKAGES: &str = "systemd,systemd-sysv,procps";
const CHECK: &str = "[Unit]\nAfter=multi-user.target\n\n[Service]\nType=oneshot\n\
    ExecStart=/bin/sh -c 'cd /root && tar -x </dev/vdb && exec bash check.sh'\n\
    ExecStopPost=/bin/systemctl poweroff --force\n\
    StandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n";

/// Makes the disk, if it is not there.
pub(crate) fn prepare(machine: &Machine) -> Result<()> {
    for program in ["debootstrap", "mke2fs", "tar"] {
        ensure!(
            provision::program(program).is_some(),
            "there is no program `{program}`"
        );
    }
    ensure!(
        rustix::process::getuid().is_root(),
        "we are not root, who alone can make a system"
    );
    let folder = PathBuf::from(machine.folder());
    let (disk, archive) = (folder.join(DISK), folder.join(ARCHIVE));
    if disk.is_file() && archive.is_file() {
        return Ok(());
    }
    let root = folder.join("system");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    let (source, suite) = distribution()?;
    run(Command::new("debootstrap")
        .arg("--variant=minbase")
        .arg(format!("--include={PACKAGES}"))
        .arg(suite)
        .arg(&root)
        .arg(source))?;
    settle(&root)?;
    // Complete or absent, both.
    let beside = folder.join("system.tar.new");
    run(Command::new("tar")
        .arg("-cf")
        .arg(&beside)
        .arg("-C")
        .args([root.as_path(), Path::new(".")]))?;
    fs::rename(&beside, &archive).context("keep the archive")?;
    let beside = folder.join("system.disk.new");
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-d"])
        .args([&root, &beside])
        .arg("1500M"))?;
    fs::rename(&beside, &disk).context("keep the disk")?;
    fs::remove_dir_all(&root)?;
    Ok(())
}

/// Where this machine gets its own packages, and of which release.
fn distribution() -> Result<(String, String)> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME) $(COMPONENT)",
        ])
        .arg("Created-By: Packages")
        .output()
        .context("run apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let main = text.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (source, suite) = (words.next()?, words.next()?);
        let is_release = words.next() == Some("main") && !suite.contains('-');
        is_release.then(|| (source.to_owned(), suite.to_owned()))
    });
    main.context("apt-get names no source of packages")
}

/// What is the guest's own.
fn settle(root: &Path) -> Result<()> {
    let units = root.join("etc/systemd/system");
    fs::write(units.join("check.service"), CHECK)?;
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    std::os::unix::fs::symlink("../check.service", wants.join("check.service"))?;
    fs::write(root.join("etc/hostname"), "guest\n")?;
    for part in [
        "usr/share/doc",
        "usr/share/locale",
        "var/cache/apt",
        "var/lib/apt/lists",
    ] {
        fs::remove_dir_all(root.join(part)).with_context(|| part.to_owned())?;
    }
    Ok(())
}

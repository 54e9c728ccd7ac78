//! The lane `arm`: a small board, which is QEMU's, and what it boots from: Debian's kernel for that family, unpacked and
//! not installed, and a first system of a static busybox and of our program, built statically for it.
//!
//! apt reads lists of packages that are kept here for that family alone, so that this machine goes on knowing none but
//! its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::lanes::Lane;
use super::{image, machine, provision};
use crate::build::{self, Profile};
use crate::cross::Target;
use crate::tree::{self, run};

/// Where tests find the folder with `kernel`, `initrd` and `hostler`.
pub(crate) const VARIABLE: &str = "HOSTLER_TEST_ARM";
const NAME: &str = "arm";
const KERNEL: &str = "linux-image-cloud-arm64";
const BUSYBOX: &str = "busybox-static";

/// The lane, and its folder if it is on.
pub(crate) fn lane() -> (Lane, Option<PathBuf>) {
    if let Some(given) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        let with = format!("QEMU, emulating, with what is in {}", given.display());
        return (Lane::on(NAME, with), Some(given));
    }
    let folder = tree::root().join("target/test-arm");
    match prepare(&folder) {
        Ok(kernel) => {
            let with = format!("a board of QEMU's with {kernel}");
            (Lane::on(NAME, with), Some(folder))
        }
        Err(error) => (Lane::off(NAME, format!("{error:#}")), None),
    }
}

/// Answers the kernel's file name.
fn prepare(folder: &Path) -> Result<String> {
    for program in [
        "qemu-system-aarch64",
        "readelf",
        "cpio",
        "dpkg-deb",
        "apt-get",
        "python3",
    ] {
        ensure!(
            provision::program(program).is_some(),
            "there is no program `{program}`"
        );
    }
    let own = provision::static_busybox().context("there is no static busybox")?;
    let unpacked = folder.join("unpacked");
    if !unpacked.is_dir() {
        fetch(folder, &unpacked)?;
    }
    let program = build::program(Profile::Dev, Some(Target::Arm))?;
    let root = machine::empty_root(folder)?;
    image::lay_out(&unpacked.join("bin/busybox"), &own, &root)?;
    fs::copy(&program, folder.join("hostler")).context("copy the program")?;
    fs::copy(&program, root.join("bin/hostler")).context("copy the program")?;
    std::os::unix::fs::symlink("hostler", root.join("bin/node-agent"))?;
    machine::settle(&unpacked, &machine::MODULES, folder)?;
    let kernel = machine::only(&unpacked.join("boot"), "vmlinuz-")?;
    let name = kernel.file_name().context("a kernel has a name")?;
    Ok(name.display().to_string())
}

fn fetch(folder: &Path, place: &Path) -> Result<()> {
    let kept = folder.join("apt");
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(kept.join(part))?;
    }
    let kept = kept.display();
    let settings = [
        "APT::Architecture=arm64".to_owned(),
        "APT::Architectures::=arm64".to_owned(),
        format!("Dir::State::lists={kept}/lists"),
        format!("Dir::Cache={kept}/cache"),
        // Nothing of that family is installed.
        "Dir::State::status=/dev/null".to_owned(),
        "Acquire::Retries=3".to_owned(),
    ];
    let apt: Vec<String> = settings
        .into_iter()
        .flat_map(|it| ["-o".to_owned(), it])
        .collect();
    run(Command::new("apt-get").args(&apt).arg("update"))?;
    let kernel = machine::newest_kernel(KERNEL, &apt)?;
    machine::fetch(&[&kernel, BUSYBOX], &apt, place)
}

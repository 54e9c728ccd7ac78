//! What guests boot from: a kernel out of the distribution's cloud package, unpacked and not installed, and a small
//! system of one static program with the script `init.sh`. Both are kept below `target/` for the next time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{image, provision};
use crate::tree::{self, run};

const INIT: &str = include_str!("init.sh");
/// Its newest kernel is what this package depends on.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// The modules that `init.sh` loads; the kernel has none of them built in.
pub(super) const MODULES: [&str; 8] = [
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];
/// Those for what only the guests of the lane `qemu` do.
const MORE_MODULES: [&str; 9] = [
    "drivers/acpi/button",
    "drivers/input/evdev",
    "drivers/block/virtio_blk",
    "fs/fat/fat",
    "fs/fat/vfat",
    "fs/nls/nls_cp437",
    "fs/nls/nls_ascii",
    "drivers/misc/pvpanic/pvpanic",
    "drivers/misc/pvpanic/pvpanic-pci",
];

/// The folder with `kernel` and `initrd`.
pub(crate) struct Machine {
    folder: PathBuf,
    kernel: String,
}

impl Machine {
    pub(crate) fn prepare() -> Result<Self> {
        for program in [
            "qemu-system-x86_64",
            "qemu-img",
            "cpio",
            "dpkg-deb",
            "apt-get",
        ] {
            ensure!(
                provision::program(program).is_some(),
                "there is no program `{program}`"
            );
        }
        let busybox = provision::static_busybox().context("there is no static busybox")?;
        let kernel = newest_kernel(PACKAGE, &[])?;
        let folder = tree::root().join("target/test-machine");
        let unpacked = folder.join(&kernel);
        if !unpacked.is_dir() {
            fetch(&[&kernel], &[], &unpacked)?;
        }
        // The folders of an image, with a link for each name of the program.
        let root = empty_root(&folder)?;
        image::lay_out(&busybox, &busybox, &root)?;
        let modules = [&MODULES[..], &MORE_MODULES].concat();
        settle(&unpacked, &modules, &folder)?;
        Ok(Self { folder, kernel })
    }

    pub(crate) fn folder(&self) -> String {
        self.folder.display().to_string()
    }

    /// For people.
    pub(crate) fn description(&self) -> String {
        format!("QEMU, emulating, with the kernel of {}", self.kernel)
    }
}

/// The kernel that a package stands for, by the lists of packages that apt is told to read.
pub(super) fn newest_kernel(package: &str, apt: &[String]) -> Result<String> {
    let output = Command::new("apt-cache")
        .args(apt)
        .args(["depends", "--no-recommends", "--no-suggests", package])
        .output()
        .context("run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let depends = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = depends.with_context(|| format!("apt-cache knows no {package}"))?;
    Ok(kernel.trim().to_owned())
}

/// Unpacks packages into a folder. Complete or absent: it is done beside its place and moved there.
pub(super) fn fetch(packages: &[&str], apt: &[String], place: &Path) -> Result<()> {
    let beside = place.with_extension("unpacking");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir_all(&beside)?;
    run(Command::new("apt-get")
        .args(apt)
        .args(["-o", "Acquire::Retries=3", "download"])
        .args(packages)
        .current_dir(&beside))?;
    let content = beside.join("content");
    for package in packages {
        let archive = only(&beside, package)?;
        run(Command::new("dpkg-deb")
            .arg("-x")
            .args([&archive, &content]))?;
    }
    fs::rename(&content, place).context("keep what was unpacked")?;
    fs::remove_dir_all(&beside)?;
    Ok(())
}

/// Where the first system is laid out.
pub(super) fn empty_root(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    Ok(root)
}

/// Adds what the guest does and what its kernel needs for that to the first system, and packs it beside the kernel.
pub(super) fn settle(unpacked: &Path, needed: &[&str], folder: &Path) -> Result<()> {
    let image = only(&unpacked.join("boot"), "vmlinuz-")?;
    fs::copy(image, folder.join("kernel")).context("copy the kernel")?;
    let root = folder.join("root");
    for part in ["dev", "proc", "sys", "mnt", "www", "modules"] {
        fs::create_dir_all(root.join(part))?;
    }
    let versions = unpacked.join("lib/modules");
    let modules = only(&versions, "")?.join("kernel");
    for module in needed {
        let file = modules.join(format!("{module}.ko"));
        let name = file.file_name().context("a module has a name")?;
        fs::copy(&file, root.join("modules").join(name))
            .with_context(|| format!("copy {}", file.display()))?;
    }
    fs::write(root.join("init"), INIT)?;
    run(Command::new("chmod").arg("755").arg(root.join("init")))?;
    let pack = "find . | cpio --quiet -o -H newc >../initrd";
    run(Command::new("sh").args(["-c", pack]).current_dir(&root))
}

/// The one entry whose name begins so.
pub(super) fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("there is no {prefix}* in {}", folder.display())
}

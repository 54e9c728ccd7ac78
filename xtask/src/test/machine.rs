//! What guests boot from: a kernel out of the distribution's cloud package, unpacked and not installed, and a small
//! system of one static program with the script `init.sh`. Both are kept below `target/` for the next time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{image, provision};
use crate::tree;

/// Its newest kernel is what this package depends on.
const PACKAGE: &str = "linux-image-cloud-amd64";
const INIT: &str = include_str!("init.sh");
/// The modules that `init.sh` loads; the kernel has none of them built in.
const MODULES: [&str; 17] = [
    "drivers/acpi/button",
    "drivers/input/evdev",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
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
        let kernel = newest_kernel()?;
        let folder = tree::root().join("target/test-machine");
        let unpacked = folder.join(&kernel);
        if !unpacked.is_dir() {
            fetch(&kernel, &folder)?;
        }
        let boot = unpacked.join("boot");
        let image = only(&boot, "vmlinuz-")?;
        fs::copy(image, folder.join("kernel")).context("copy the kernel")?;
        initrd(&busybox, &unpacked, &folder)?;
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

fn newest_kernel() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", "--no-recommends", "--no-suggests", PACKAGE])
        .output()
        .context("run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let depends = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    let kernel = depends.with_context(|| format!("apt-cache knows no {PACKAGE}"))?;
    Ok(kernel.trim().to_owned())
}

/// Complete or absent: unpacked beside its place and moved there.
fn fetch(package: &str, folder: &Path) -> Result<()> {
    let beside = folder.join("unpacking");
    if beside.exists() {
        fs::remove_dir_all(&beside)?;
    }
    fs::create_dir_all(&beside)?;
    run(Command::new("apt-get")
        .args(["download", package])
        .current_dir(&beside))?;
    let archive = only(&beside, package)?;
    let content = beside.join("content");
    run(Command::new("dpkg-deb")
        .arg("-x")
        .args([&archive, &content]))?;
    fs::rename(&content, folder.join(package)).context("keep the kernel")?;
    fs::remove_dir_all(&beside)?;
    Ok(())
}

fn initrd(busybox: &Path, unpacked: &Path, folder: &Path) -> Result<()> {
    let root = folder.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    // The folders of an image, with a link for each name of the program.
    image::lay_out(busybox, &root)?;
    for part in ["dev", "proc", "sys", "mnt", "www", "modules"] {
        fs::create_dir_all(root.join(part))?;
    }
    let versions = unpacked.join("lib/modules");
    let modules = only(&versions, "")?.join("kernel");
    for module in MODULES {
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
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("there is no {prefix}* in {}", folder.display())
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", text.trim());
    Ok(())
}

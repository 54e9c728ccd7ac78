//! What the tests need from the machine: which programs are here, and on Debian the packages that bring them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::package::deb;

/// Programs that some lane needs and the Debian packages that they come from.
const PACKAGES: [(&str, &str); 20] = [
    ("dockerd", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("docker-registry", "docker-registry"),
    ("podman", "podman"),
    ("busybox", "busybox-static"),
    ("strace", "strace"),
    ("ip", "iproute2"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-system-aarch64", "qemu-system-arm"),
    ("qemu-img", "qemu-utils"),
    ("readelf", "binutils"),
    ("cpio", "cpio"),
    ("systemd-analyze", "systemd"),
    ("debootstrap", "debootstrap"),
    ("mke2fs", "e2fsprogs"),
    ("mandoc", "mandoc"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("faketime", "faketime"),
    ("chromium", "chromium"),
    ("chromedriver", "chromium-driver"),
];

/// Where a program is, looked up where root's programs are too.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    std::env::split_paths(&path)
        .chain(system.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A busybox that runs without libraries, as a container has none.
pub(crate) fn static_busybox() -> Option<PathBuf> {
    program("busybox").filter(|file| is_static(file))
}

fn is_static(file: &Path) -> bool {
    // A dynamic executable names its loader: /lib64/ld-linux-x86-64.so.2, /lib/ld-musl-x86_64.so.1, …
    std::fs::read(file).is_ok_and(|bytes| {
        let loaders = [
            b"/ld-linux".as_slice(),
            b"/ld-musl".as_slice(),
            b"/ld64.so".as_slice(),
        ];
        let head = &bytes[..bytes.len().min(8192)];
        !loaders
            .iter()
            .any(|loader| head.windows(loader.len()).any(|window| window == *loader))
    })
}

/// Installs what is missing where that is possible; says in one line where it is not.
pub(crate) fn install_what_is_missing() {
    // What is installed may take the place of another package that is needed as well.
    for _ in 0..2 {
        install_once();
    }
    // What makes Debian packages is a crate; where there is no Debian nobody reads what it makes.
    if program("dpkg-shlibdeps").is_some()
        && let Err(error) = deb::tool()
    {
        println!("could not install {} ({error:#})", deb::TOOL);
    }
}

fn install_once() {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(name, _)| match *name {
            "busybox" => static_busybox().is_none(),
            other => program(other).is_none(),
        })
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return;
    }
    if let Err(error) = may_install() {
        return say_missing(&missing, &error);
    }
    if install(&missing).is_ok() {
        println!("installed {}", missing.join(" "));
        return;
    }
    // One that is not to be had here leaves out no other.
    for package in missing.chunks(1) {
        if let Err(error) = install(package) {
            say_missing(package, &error);
        }
    }
}

fn say_missing(packages: &[&str], error: &anyhow::Error) {
    let packages = packages.join(" ");
    println!("could not install {packages} ({error:#}); the lanes below say what that leaves out");
}

fn may_install() -> Result<()> {
    if program("apt-get").is_none() {
        bail!("this is no Debian");
    }
    if !rustix::process::getuid().is_root() {
        bail!("we are not root");
    }
    Ok(())
}

fn install(packages: &[&str]) -> Result<()> {
    println!("installing {}", packages.join(" "));
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    if apt_get(&arguments).is_ok() {
        return Ok(());
    }
    // The lists of packages may be missing or old.
    apt_get(&["update"])?;
    apt_get(&arguments)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("run apt-get")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    bail!("apt-get {}: {}", arguments[0], last.unwrap_or("it failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program").is_none());
    }

    #[test]
    fn an_executable_with_a_loader_is_not_static() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x");
        std::fs::write(&file, b"ELF..../lib64/ld-linux-x86-64.so.2\0").expect("a file");
        assert!(!is_static(&file));
        std::fs::write(&file, b"ELF....").expect("a file");
        assert!(is_static(&file));
    }
}

//! The libraries that a program is linked with, for an image that has nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::copy;

/// Older C libraries load these by name when they look up a host; newer ones have them inside.
const LOADED_LATER: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// Copies them below a folder, each at its own place, and the licence of each as Debian keeps it.
pub(super) fn copy_all(program: &Path, root: &Path) -> Result<()> {
    for library in of(program)? {
        copy(&library, &below(root, &library))?;
        copy_licence(&library, root)?;
    }
    Ok(())
}

fn of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("run ldd")?;
    let mut found = listed(&String::from_utf8_lossy(&output.stdout));
    let beside = |library: &PathBuf| {
        let is_c = library.file_name().is_some_and(|name| name == "libc.so.6");
        is_c.then(|| library.parent().map(Path::to_owned)).flatten()
    };
    if let Some(folder) = found.iter().find_map(beside) {
        let later = LOADED_LATER.iter().map(|name| folder.join(name));
        found.extend(later.filter(|path| path.exists()));
    }
    Ok(found)
}

/// The paths in what ldd prints: none for a program that needs no library.
fn listed(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let line = line.rsplit("=> ").next()?.trim();
        let path = line.split_whitespace().next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    text.lines()
        .filter(|line| line.contains("(0x"))
        .filter_map(path)
        .collect()
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// On other systems than Debian there is nothing to be found at this place.
fn copy_licence(library: &Path, root: &Path) -> Result<()> {
    // The package knows its file by one of its two names where /lib leads to /usr/lib.
    let names = [library.to_owned(), library.canonicalize()?];
    let owner = names.iter().find_map(|name| {
        let output = Command::new("dpkg").arg("-S").arg(name).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.split_once(':').map(|(package, _)| package.to_owned())
    });
    let Some(package) = owner else {
        return Ok(());
    };
    let licence = PathBuf::from(format!("/usr/share/doc/{package}/copyright"));
    if licence.is_file() {
        copy(&licence, &below(root, &licence))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_listed_and_what_the_kernel_brings_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007fff)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(listed(text), found.map(PathBuf::from));
        assert!(listed("\tstatically linked\n").is_empty());
    }
}

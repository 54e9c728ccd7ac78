//! What the figures were measured on.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) system: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// Of the folder that the rows write to.
    pub(crate) file_system: String,
}

impl Machine {
    pub(crate) fn look(data_dir: &Path) -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let memory = field(&read("/proc/meminfo"), "MemTotal:").unwrap_or_default();
        let kib = memory
            .split_whitespace()
            .next()
            .and_then(|number| number.parse::<u64>().ok());
        let cpu = read("/proc/cpuinfo");
        let cpu = field(&cpu, "model name").unwrap_or_default();
        let system = field(&read("/etc/os-release"), "PRETTY_NAME=").unwrap_or_default();
        Ok(Self {
            system: system.trim_matches('"').to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: cpu.trim_start_matches(':').trim().to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kib.unwrap_or_default() / 1024,
            file_system: file_system(&mounts, data_dir),
        })
    }

    /// Whether what is written there outlives the machine's memory.
    pub(crate) fn is_real_disk(&self) -> bool {
        !matches!(
            self.file_system.as_str(),
            "tmpfs" | "ramfs" | "devtmpfs" | ""
        )
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, kernel {}; ", self.system, self.kernel)?;
        write!(
            f,
            "{} cores of {}; {} MiB; ",
            self.cores, self.cpu, self.memory_mib
        )?;
        write!(f, "data on {}", self.file_system)
    }
}

/// The rest of the first line that begins so.
fn field(text: &str, name: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim().to_owned())
}

/// The type of the mount that the path is on: the one with the longest matching mount point, the last of
/// several.
fn file_system(mounts: &str, path: &Path) -> String {
    let mount = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    let matching = mounts
        .lines()
        .filter_map(mount)
        .filter(|(point, _)| path.starts_with(point));
    matching
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_says_the_file_system() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/x xfs rw 0 0\n";
        for (path, kind) in [("/home", "ext4"), ("/tmp/y", "tmpfs"), ("/tmp/x/z", "xfs")] {
            assert_eq!(file_system(mounts, Path::new(path)), kind);
        }
    }
}

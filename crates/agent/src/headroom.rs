//! What is left of what a machine can run out of. Read at each look, with a few small files and one question to the
//! kernel per file system; what cannot be read is not known, and nothing here fails.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hostler_model::Bytes;

/// What is free of so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub free: u64,
    pub total: u64,
}

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Tells it from the others of the machine.
    pub id: u64,
    /// As an ordinary user has them.
    pub bytes: Share,
    /// None for one that makes inodes as it needs them.
    pub inodes: Option<Share>,
}

/// What is left of the machine as a whole; none of what is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headroom {
    pub memory: Option<Share>,
    pub pids: Option<Share>,
}

impl Share {
    /// Hundredths that are used, rounded up: a share is full before it is over.
    #[must_use]
    pub fn percent_used(self) -> u64 {
        let used = u128::from(self.total.saturating_sub(self.free));
        let percent = (used * 100).div_ceil(u128::from(self.total.max(1)));
        u64::try_from(percent).unwrap_or(100)
    }

    pub(crate) fn used(self) -> Bytes {
        Bytes(self.total.saturating_sub(self.free))
    }

    fn of(free: u64, total: u64) -> Option<Self> {
        (total > 0).then_some(Self { free, total })
    }
}

/// The file system under a path.
pub(crate) fn file_system(path: &Path) -> Option<FileSystem> {
    let id = std::fs::metadata(path).ok()?.dev();
    let told = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
    Some(FileSystem {
        id,
        bytes: Share::of(bytes(told.f_bavail), bytes(told.f_blocks))?,
        inodes: Share::of(told.f_favail, told.f_files),
    })
}

/// Of this machine; `memory` is what is available of all.
pub(crate) fn headroom(memory: (Bytes, Bytes)) -> Headroom {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let most = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"]
        .iter()
        .filter_map(|path| read(path).trim().parse::<u64>().ok())
        .min();
    let pids = threads(&read("/proc/loadavg")).zip(most);
    Headroom {
        memory: Share::of(memory.0.0, memory.1.0),
        pids: pids.and_then(|(used, most)| Share::of(most.saturating_sub(used), most)),
    }
}

/// `0.20 0.18 0.12 1/80 11206`: the number behind the slash is that of all processes and threads.
fn threads(loadavg: &str) -> Option<u64> {
    let running = loadavg.split_ascii_whitespace().nth(3)?;
    running.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_used_by_hundredths_that_are_rounded_up() {
        let used = |free, total| Share { free, total }.percent_used();
        assert_eq!((used(100, 100), used(0, 100), used(5, 100)), (0, 100, 95));
        assert_eq!(used(999, 1000), 1);
        assert_eq!(used(u64::MAX, u64::MAX), 0);
        assert_eq!(used(9, 0), 0, "nothing of nothing");
    }

    #[test]
    fn threads_are_counted_behind_the_slash() {
        assert_eq!(threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(threads(""), None);
        assert_eq!(threads("0 0 0 80 1"), None);
    }

    #[test]
    fn this_machine_has_something_left() {
        let root = file_system(Path::new("/")).unwrap();
        assert!(root.bytes.total >= root.bytes.free);
        assert_eq!(file_system(Path::new("/no/such/place")), None);
        let left = headroom((Bytes(1), Bytes(2)));
        assert_eq!(left.memory, Some(Share { free: 1, total: 2 }));
        assert!(left.pids.is_some_and(|pids| pids.free < pids.total));
    }
}

//! What the kernel says of processes: read from `/proc`, and locks that die with their holder.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use hostler_model::UnitId;
use rustix::process::{Flock, FlockOffsetType, FlockType, Pid, PidfdFlags, Signal};

use crate::record::ProcessName;

/// Marks every process of a unit, in its environment.
pub const UNIT_VARIABLE: &str = "HOSTLER_UNIT";

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    pub parent: i32,
    pub cpu_ticks: u64,
    pub start_ticks: u64,
    pub resident_pages: u64,
}

impl Stat {
    /// What has ended keeps its number until it is collected.
    pub const fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Who holds the shim's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    Shim(Pid),
    /// Somebody whom this process cannot see, in another pid namespace.
    Unseen,
}

/// Takes the shim's lock for the life of this process, or answers `WouldBlock`. It must be opened only once
/// in a process: closing any other handle of the file gives the lock back.
pub fn take_lock(path: &Path) -> io::Result<File> {
    let file = open_lock(path)?;
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Asks who holds the lock, without taking it.
pub fn lock_holder(path: &Path) -> io::Result<Holder> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    let asked = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    Ok(match rustix::process::fcntl_getlk(&file, &asked)? {
        None => Holder::Nobody,
        Some(lock) => lock.pid.map_or(Holder::Unseen, Holder::Shim),
    })
}

/// A handle on the process that holds the lock, certainly on it and on no later one of its number.
pub fn holder_handle(path: &Path) -> io::Result<Option<OwnedFd>> {
    let Holder::Shim(pid) = lock_holder(path)? else {
        return Ok(None);
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(handle) if lock_holder(path)? == Holder::Shim(pid) => Ok(Some(handle)),
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The process's full name, if it is there.
pub fn name_of(pid: Pid) -> Option<ProcessName> {
    let pid = pid.as_raw_nonzero().get();
    stat(pid).map(|stat| ProcessName {
        pid,
        ticks: stat.start_ticks,
    })
}

/// What the kernel says of the process, if it is there.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether the process of that full name runs.
pub fn lives(name: ProcessName) -> bool {
    stat(name.pid).is_some_and(|stat| stat.start_ticks == name.ticks && stat.lives())
}

/// Every process that runs (zombies do not).
pub fn processes() -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let seen = pids.filter_map(|pid: i32| Some((pid, stat(pid)?)));
    seen.filter(|(_, stat)| stat.lives()).collect()
}

/// The processes that carry the unit's mark.
pub fn marked(id: UnitId) -> Vec<(i32, Stat)> {
    let mark = format!("{UNIT_VARIABLE}={id}");
    let is_marked = |(pid, _): &(i32, Stat)| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ
                .split(|&byte| byte == 0)
                .any(|it| it == mark.as_bytes())
        })
    };
    processes().into_iter().filter(is_marked).collect()
}

/// Kills the process of that full name; one that is gone is fine.
pub fn kill(name: ProcessName) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(name.pid) else {
        return Ok(());
    };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        // The handle is on whoever has the number now, so the name is compared after it was opened.
        Ok(handle) if name_of(pid) == Some(name) => {
            let killed = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
            accept_gone(killed)
        }
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(_) if name_of(pid) == Some(name) => {
            accept_gone(rustix::process::kill_process(pid, Signal::KILL))
        }
        Err(_) => Ok(()),
    }
}

/// Sends the signal to a process group; one that is gone is fine.
pub fn signal_group(leader: Pid, signal: Signal) -> io::Result<()> {
    accept_gone(rustix::process::kill_process_group(leader, signal))
}

fn accept_gone(sent: rustix::io::Result<()>) -> io::Result<()> {
    match sent {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Field numbers as in proc(5), counted behind the name, which may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks: number(14)? + number(15)?,
        start_ticks: number(22)?,
        resident_pages: number(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_process_with_a_strange_name_is_read() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 11 22 0 0 20 0 1 0 777 1024 33 0";
        let expected = Stat {
            state: b'S',
            parent: 7,
            cpu_ticks: 33,
            start_ticks: 777,
            resident_pages: 33,
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn this_process_knows_itself_and_nobody_holds_a_fresh_lock() {
        let me = name_of(rustix::process::getpid()).unwrap();
        assert!(processes().iter().any(|(pid, _)| *pid == me.pid));
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        assert_eq!(lock_holder(&path).unwrap(), Holder::Nobody);
        let held = take_lock(&path).unwrap();
        drop(held);
        assert_eq!(lock_holder(&path).unwrap(), Holder::Nobody);
        assert!(!crate::disk::boot_id().is_empty());
    }
}

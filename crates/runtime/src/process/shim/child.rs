//! The unit's main process: its environment, user, directory and limits.
//!
//! Its environment is the spec's and a handful of variables of ours, and nothing of the agent's. Resource
//! limits are inherited, so the shim sets them on itself for the moment of the spawn.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit};

use super::{Failure, Unsatisfiable};
use crate::process::kernel::UNIT_VARIABLE;
use crate::process::record::{UnitDir, UnitRecord};
use crate::process::user::{self, Identity};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that runs.
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Ready to be spawned: everything that can be refused has been looked at.
pub(super) struct Prepared {
    command: Command,
    open_files: Option<u64>,
}

/// Turns the spec into a command, or says what the machine cannot give.
pub(super) fn prepare(record: &UnitRecord, dir: &UnitDir) -> Result<Prepared, Failure> {
    let spec = &record.spec;
    let words = spec
        .process
        .as_ref()
        .map(|process| process.command.as_slice());
    let Some((program, arguments)) = words.and_then(<[String]>::split_first) else {
        let errno = rustix::io::Errno::NOENT.raw_os_error();
        return Err(Failure::Command {
            program: String::new(),
            errno,
        });
    };
    let wanted = spec
        .process
        .as_ref()
        .and_then(|process| process.user.as_deref());
    let identity = wanted.map(identity).transpose()?;
    let working_dir = working_dir(record, dir, identity.as_ref())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&working_dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    set_environment(&mut command, record, identity.as_ref(), &working_dir);
    if let Some(identity) = identity
        && rustix::process::geteuid().is_root()
    {
        command.uid(identity.uid).gid(identity.gid);
    }
    Ok(Prepared {
        command,
        open_files: spec.limits.open_files,
    })
}

impl Prepared {
    /// Spawns it. The error is that of the program itself.
    pub(super) fn spawn(mut self) -> io::Result<Child> {
        let own = rustix::process::getrlimit(Resource::Nofile);
        if let Some(most) = self.open_files {
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            rustix::process::setrlimit(Resource::Nofile, limit)?;
        }
        let spawned = self.command.spawn();
        // Only root can raise it again; others need no more than the few that are open.
        let _ = rustix::process::setrlimit(Resource::Nofile, own);
        let mut child = spawned?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        match (pid, stdout, stderr) {
            (Some(pid), Some(stdout), Some(stderr)) => {
                let (stdout, stderr) = (OwnedFd::from(stdout), OwnedFd::from(stderr));
                for pipe in [&stdout, &stderr] {
                    rustix::io::ioctl_fionbio(pipe, true)?;
                }
                Ok(Child {
                    pid,
                    stdout,
                    stderr,
                })
            }
            _ => Err(io::ErrorKind::Other.into()),
        }
    }
}

fn identity(user: &str) -> Result<Identity, Failure> {
    let refused = |code, message| Failure::Unsatisfiable { code, message };
    let identity = user::resolve(user).map_err(|why| refused(Unsatisfiable::UserUnknown, why))?;
    let own = rustix::process::geteuid();
    if own.is_root() || own.as_raw() == identity.uid {
        return Ok(identity);
    }
    let message = format!("only an agent that is root can run as `{user}`");
    Err(refused(Unsatisfiable::UserNotPermitted, message))
}

/// A missing directory would look like a missing program, so it is looked for first.
fn working_dir(
    record: &UnitRecord,
    dir: &UnitDir,
    identity: Option<&Identity>,
) -> Result<String, Failure> {
    let named = record
        .spec
        .process
        .as_ref()
        .and_then(|process| process.working_dir.clone());
    let (path, is_ours) = match named {
        Some(path) => (path, false),
        None => (dir.work().to_string_lossy().into_owned(), true),
    };
    if !Path::new(&path).is_dir() {
        return Err(Failure::Unsatisfiable {
            code: Unsatisfiable::WorkingDirMissing,
            message: format!("there is no directory `{path}` on the node"),
        });
    }
    if let Some(identity) = identity
        && is_ours
        && fs::metadata(&path).is_ok_and(|now| {
            use std::os::unix::fs::MetadataExt as _;
            now.uid() != identity.uid
        })
    {
        let owned = std::os::unix::fs::chown(&path, Some(identity.uid), Some(identity.gid));
        owned.map_err(|error| Failure::Io {
            context: format!("give {path} to the user"),
            errno: super::errno(&error),
        })?;
    }
    Ok(path)
}

fn set_environment(
    command: &mut Command,
    record: &UnitRecord,
    identity: Option<&Identity>,
    working_dir: &str,
) {
    let home = match identity {
        Some(identity) => identity.home.clone(),
        None => user::home_of(rustix::process::geteuid().as_raw()),
    };
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", home.as_deref().unwrap_or(working_dir))
        .env("HOSTLER_WORKLOAD", &record.workload_name)
        .env("HOSTLER_SLOT", record.slot.to_string())
        .env("HOSTLER_ASSIGNMENT", record.unit.assignment.to_string())
        .env("HOSTLER_GENERATION", record.unit.generation.to_string())
        .envs(&record.spec.env)
        .env(UNIT_VARIABLE, record.unit.to_string());
}

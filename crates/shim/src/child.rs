//! The unit's main process: its environment, user, directory and limits.
//!
//! Its environment is the spec's and a handful of variables of ours, and nothing of the agent's. The limit of open
//! files is inherited, so the shim sets it on itself for the moment of the spawn; that nothing may gain privileges
//! it takes on for good, for it needs none. What the shim must not have itself is the launcher's business.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use hostler_model::spec::ProcessSpec;
use hostler_model::{ExecCommand, UnitId};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit, Signal, Uid};

use super::command::COMMAND_VARIABLE;
use super::launch::{self, Launch};
use super::{Failure, Unsatisfiable, env_file};
use crate::kernel::UNIT_VARIABLE;
use crate::record::{UnitDir, UnitRecord};
use crate::user::{self, Identity};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that runs.
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Ready to be spawned: everything that can be refused has been looked at.
pub(super) struct Prepared {
    program: String,
    command: Command,
    launch: Option<Launch>,
    open_files: Option<u64>,
    no_new_privileges: bool,
    /// Who is to own the inputs and outputs that were made for it.
    owner: Option<u32>,
    /// Whom a command becomes if no launch says so.
    identity: Option<Identity>,
}

/// Turns the spec into a command, or says what the machine cannot give.
pub(super) fn prepare(
    record: &UnitRecord,
    dir: &UnitDir,
    secrets: &BTreeMap<String, String>,
) -> Result<Prepared, Failure> {
    let spec = &record.spec;
    let process = spec.process.as_ref().ok_or_else(no_program)?;
    let (program, arguments) = process.command.split_first().ok_or_else(no_program)?;
    let host_name = format!("{}-{}", record.workload_name, record.slot);
    let mut launch = Launch::of(process, host_name, &record.mounts);
    let mut command = if launch.is_some() {
        // This program once more, whatever lies under its name by now.
        let mut command = Command::new("/proc/self/exe");
        command.args(std::env::args_os().skip(1));
        command
    } else {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command
    };
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let furnished = furnish(&mut command, record, (process, dir))?;
    command.current_dir(&furnished.working_dir);
    if let Some(Identity { uid, gid, .. }) = furnished.hand_over(launch.as_mut()) {
        command.uid(uid).gid(gid);
    }
    command
        .envs(secrets)
        .env(UNIT_VARIABLE, record.unit.to_string())
        .env_remove(COMMAND_VARIABLE);
    if let Some(launch) = launch.as_mut() {
        hand_over_environment(&mut command, launch, record.unit);
    }
    Ok(Prepared {
        program: program.clone(),
        command,
        launch,
        open_files: spec.limits.open_files,
        no_new_privileges: process.no_new_privileges,
        owner: None,
        identity: None,
    })
}

/// The launcher has the unit's mark alone, so that it is found as the program is.
fn hand_over_environment(command: &mut Command, launch: &mut Launch, unit: UnitId) {
    // All of it was text before.
    let text = |it: &OsStr| it.to_string_lossy().into_owned();
    launch.environment = command
        .get_envs()
        .filter_map(|(key, value)| Some((text(key), text(value?))))
        .collect();
    command.env_clear().env(UNIT_VARIABLE, unit.to_string());
}

/// Another command with the user, directory, environment and limits of the unit's own, as far as it asks for no others.
pub(super) fn prepare_command(
    asked: &ExecCommand,
    record: &UnitRecord,
    dir: &UnitDir,
) -> Result<(Prepared, Place), Failure> {
    let spec = &record.spec;
    let process = spec.process.as_ref().ok_or_else(no_program)?;
    let (program, arguments) = asked.words.split_first().ok_or_else(no_program)?;
    let mut launch = Launch::of(process, String::new(), &record.mounts);
    let mut command = Command::new(program);
    command.args(arguments);
    let mut furnished = furnish(&mut command, record, (process, dir))?;
    if let Some(user) = &asked.user {
        let identity = identity(user)?;
        command.env("HOME", identity.home.as_deref().unwrap_or("/"));
        (furnished.identity, furnished.groups) = (Some(identity), Vec::new());
    }
    command.envs(&asked.env);
    let place = match &asked.directory {
        Some(directory) => Place::Named(directory.clone()),
        None => Place::open(&furnished.working_dir)?,
    };
    let owner = furnished.identity.as_ref().map(|owner| owner.uid);
    let prepared = Prepared {
        program: program.clone(),
        command,
        open_files: spec.limits.open_files,
        no_new_privileges: process.no_new_privileges,
        owner,
        identity: furnished.hand_over(launch.as_mut()),
        launch,
    };
    Ok((prepared, place))
}

/// What ends a command early.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tie {
    /// Whoever waits for it, by a signal or by closing its terminal.
    None,
    /// The end of the process that started it, too, which has that number if it is told.
    Parent(Option<i32>),
}

impl Tie {
    /// Taking on another user takes it off again, so it comes late.
    pub(super) fn take_on(self) -> Result<(), Failure> {
        let Self::Parent(parent) = self else {
            return Ok(());
        };
        let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // Of a parent that ended before no signal comes any more.
        let is_orphan =
            parent.is_some() && rustix::process::getppid() != parent.and_then(Pid::from_raw);
        let tied = tied.and(if is_orphan {
            Err(rustix::io::Errno::SRCH)
        } else {
            Ok(())
        });
        tied.map_err(|error| Failure::Io {
            context: "tie the command to whoever waits for it".to_owned(),
            errno: error.raw_os_error(),
        })
    }
}

/// Where a command begins.
pub(super) enum Place {
    /// The unit's own directory. What the unit mounts may hide its name, as from the unit itself.
    Own(OwnedFd),
    /// Another, as the unit sees it.
    Named(String),
}

impl Place {
    fn open(path: &str) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened.map(Self::Own).map_err(|error| missing(path, error))
    }

    fn enter(&self) -> Result<(), Failure> {
        match self {
            Self::Own(directory) => {
                rustix::process::fchdir(directory).map_err(|error| missing("its own", error))
            }
            Self::Named(path) => rustix::process::chdir(path).map_err(|error| missing(path, error)),
        }
    }
}

fn missing(path: &str, error: rustix::io::Errno) -> Failure {
    Failure::Unsatisfiable {
        code: Unsatisfiable::WorkingDirMissing,
        message: format!("there is no directory `{path}` for the command: {error}"),
    }
}

fn no_program() -> Failure {
    Failure::Command {
        program: String::new(),
        errno: rustix::io::Errno::NOENT.raw_os_error(),
    }
}

/// What a program has of its unit besides the environment.
struct Furnished {
    working_dir: String,
    identity: Option<Identity>,
    groups: Vec<u32>,
}

/// Sets the environment, and finds user and directory, which may have to be made.
fn furnish(
    command: &mut Command,
    record: &UnitRecord,
    (process, dir): (&ProcessSpec, &UnitDir),
) -> Result<Furnished, Failure> {
    let identity = process.user.as_deref().map(identity).transpose()?;
    let groups = groups(process)?;
    let working_dir = working_dir(process, dir, identity.as_ref())?;
    let of_copy = (identity.as_ref(), working_dir.as_str());
    set_environment(command, record, process, of_copy)?;
    Ok(Furnished {
        working_dir,
        identity,
        groups,
    })
}

impl Furnished {
    /// The launch takes on the user. Without one it is left to whoever starts the program.
    fn hand_over(self, launch: Option<&mut Launch>) -> Option<Identity> {
        let own = rustix::process::geteuid();
        let Self {
            identity, groups, ..
        } = self;
        match (launch, identity) {
            // Only root can, and others were refused unless they are that user already.
            _ if !own.is_root() => return None,
            (None, identity) => return identity,
            (Some(launch), Some(Identity { uid, gid, .. })) => {
                launch.identity = Some((uid, gid, groups));
            }
            (Some(launch), None) if !groups.is_empty() => {
                let gid = rustix::process::getegid().as_raw();
                launch.identity = Some((own.as_raw(), gid, groups));
            }
            (Some(_), None) => {}
        }
        None
    }
}

impl Prepared {
    /// Spawns it.
    pub(super) fn spawn(self) -> Result<Child, Failure> {
        let failed = |error: io::Error| Failure::Command {
            program: self.program.clone(),
            errno: super::errno(&error),
        };
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(|error| failed(error.into()))?;
        }
        let own = rustix::process::getrlimit(Resource::Nofile);
        if let Some(most) = self.open_files {
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            rustix::process::setrlimit(Resource::Nofile, limit)
                .map_err(|error| failed(error.into()))?;
        }
        let mut command = self.command;
        let spawned = match self.launch {
            None => command.spawn().map_err(&failed),
            Some(launch) => launch.spawn(command),
        };
        // Only root can raise it again; others need no more than the few that are open.
        let _ = rustix::process::setrlimit(Resource::Nofile, own);
        child(spawned?).map_err(failed)
    }
}

fn child(mut child: std::process::Child) -> io::Result<Child> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (Some(pid), Some(stdout), Some(stderr)) = (pid, stdout, stderr) else {
        return Err(io::ErrorKind::Other.into());
    };
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

impl Prepared {
    /// Becomes it, with the input and outputs of this process, among the namespaces of the unit's process if there is
    /// one to join. Answers only if that fails.
    pub(super) fn exec(mut self, place: &Place, beside: Option<Pid>, tie: Tie) -> Failure {
        self.own_streams();
        // A missing directory would look like a missing program, so it is entered before.
        let ready = self
            .limit(beside)
            .and_then(|()| place.enter())
            .and_then(|()| self.become_user())
            .and_then(|()| tie.take_on());
        if let Err(failure) = ready {
            return failure;
        }
        let error = self
            .command
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit())
            .exec();
        Failure::Command {
            program: self.program,
            errno: super::errno(&error),
        }
    }

    /// Terminals and pipes belong to whom the command runs as, so that it can open them by name too. One that cannot be
    /// given is usable all the same.
    fn own_streams(&self) {
        let Some(owner) = self.owner.filter(|_| rustix::process::geteuid().is_root()) else {
            return;
        };
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        for stream in [input.as_fd(), output.as_fd(), error.as_fd()] {
            let is_pipe = rustix::fs::fstat(stream)
                .is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Fifo);
            if is_pipe || stream.is_terminal() {
                let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(owner)), None);
            }
        }
    }

    fn become_user(&self) -> Result<(), Failure> {
        match &self.identity {
            Some(Identity { uid, gid, .. }) => launch::take_identity(*uid, *gid, &[]),
            None => Ok(()),
        }
    }

    fn limit(&self, beside: Option<Pid>) -> Result<(), Failure> {
        let failed = |context: &str, error: rustix::io::Errno| Failure::Io {
            context: context.to_owned(),
            errno: error.raw_os_error(),
        };
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|error| failed("give up new privileges", error))?;
        }
        if let Some(most) = self.open_files {
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            rustix::process::setrlimit(Resource::Nofile, limit)
                .map_err(|error| failed("limit open files", error))?;
        }
        match &self.launch {
            Some(launch) => launch.confine(beside),
            None => Ok(()),
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

fn groups(process: &ProcessSpec) -> Result<Vec<u32>, Failure> {
    let refused = |code, message| Failure::Unsatisfiable { code, message };
    if !process.groups.is_empty() && !rustix::process::geteuid().is_root() {
        let message = "only an agent that is root can set groups".to_owned();
        return Err(refused(Unsatisfiable::UserNotPermitted, message));
    }
    let numbers = process.groups.iter().map(|name| user::group(name));
    numbers
        .collect::<Result<_, String>>()
        .map_err(|why| refused(Unsatisfiable::GroupUnknown, why))
}

/// A missing directory would look like a missing program, so it is looked for first.
fn working_dir(
    process: &ProcessSpec,
    dir: &UnitDir,
    identity: Option<&Identity>,
) -> Result<String, Failure> {
    let (path, mut is_ours) = match process.working_dir.clone() {
        Some(path) => (path, false),
        None => (dir.work().to_string_lossy().into_owned(), true),
    };
    if process.make_working_dir && !Path::new(&path).exists() {
        make_dir(&path)?;
        is_ours = true;
    }
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

fn make_dir(path: &str) -> Result<(), Failure> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path);
    made.map_err(|error| Failure::Unsatisfiable {
        code: Unsatisfiable::WorkingDirMissing,
        message: format!("the directory `{path}` cannot be made: {error}"),
    })
}

fn set_environment(
    command: &mut Command,
    record: &UnitRecord,
    process: &ProcessSpec,
    (identity, working_dir): (Option<&Identity>, &str),
) -> Result<(), Failure> {
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
        .env("HOSTLER_GENERATION", record.unit.generation.to_string());
    for path in &process.env_files {
        command.envs(env_file::read(path)?);
    }
    command
        .envs(&record.spec.env)
        .env(UNIT_VARIABLE, record.unit.to_string())
        // An order to this program is nothing that a spec could give.
        .env_remove(COMMAND_VARIABLE);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hostler_model::spec::WorkloadSpec;
    use hostler_model::{AssignmentId, Timestamp, WorkloadId};

    use super::*;

    #[test]
    fn what_a_spec_puts_into_the_environment_steers_no_launcher() {
        let home = tempfile::tempdir().unwrap();
        let mut spec = WorkloadSpec::of_process("one", vec!["true".to_owned()]);
        spec.process.as_mut().unwrap().umask = Some("022".to_owned());
        spec.process.as_mut().unwrap().working_dir = Some("/".to_owned());
        let env = [("LD_PRELOAD", "/evil.so"), (COMMAND_VARIABLE, "{}")];
        spec.env = BTreeMap::from(env.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let record = UnitRecord {
            unit: UnitId {
                assignment: AssignmentId::mint(Timestamp::from_millis(1), 2),
                generation: 3,
            },
            workload: WorkloadId::mint(Timestamp::from_millis(1), 2),
            workload_name: "one".to_owned(),
            slot: 0,
            spec: Arc::new(spec),
            mounts: Vec::new(),
        };
        let secrets = BTreeMap::from(
            [("TOKEN", "canary"), (UNIT_VARIABLE, "another")]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let prepared = prepare(&record, &UnitDir::at(home.path()), &secrets).unwrap();
        let keys: Vec<_> = prepared.command.get_envs().map(|(key, _)| key).collect();
        assert_eq!(keys, [UNIT_VARIABLE]);
        let of_program = prepared.launch.unwrap().environment;
        assert_eq!(of_program["LD_PRELOAD"], "/evil.so");
        assert_eq!(of_program["TOKEN"], "canary");
        assert_eq!(of_program[UNIT_VARIABLE], record.unit.to_string());
        assert!(of_program.contains_key("PATH"));
        assert!(!of_program.contains_key(COMMAND_VARIABLE));
    }
}

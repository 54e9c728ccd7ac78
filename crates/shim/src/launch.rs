//! The launcher: what a process that is kept apart is before it is its program.
//!
//! Umask, limits, namespaces, groups and filters of system calls are inherited through an exec, but taking them on
//! between fork and exec would need unsafe code, and the shim itself must not have them. So the shim starts
//! itself once more, in the unit's place, with an order on its standard input instead of a run's number; that
//! process takes everything on and becomes the program. Its number, its group and its cgroup are the unit's from
//! the start, and there is no process more afterwards.
//!
//! ```text
//!   shim ──spawn──► launcher ──order read──► confined ──exec──► the program      (the socket closes: it began)
//!                                   └──────refused──────┴──► failure on the socket, end
//! ```
//!
//! A command inside the unit takes the same on, but joins the namespaces of the unit's process (see `command`).

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use hostler_model::spec::{
    Isolation, Mount, ProcessNetwork, ProcessSpec, Seccomp, Ulimit, UlimitValue,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::{Deserialize, Serialize};

use super::{Failure, Unsatisfiable, filter};

/// What the launcher is told. Its directory is the program's already; its environment is not: it begins as root, and
/// what a spec says must steer neither it nor the loader of its libraries. It may hold secrets, so it is not printed.
#[derive(Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// User, group and supplementary groups; none leaves all as they are.
    pub(super) identity: Option<(u32, u32, Vec<u32>)>,
    umask: Option<u32>,
    nice: Option<i32>,
    ulimits: BTreeMap<Ulimit, UlimitValue>,
    isolation: Isolation,
    host_name: String,
    seccomp: Seccomp,
    mounts: Vec<Mount>,
}

impl Launch {
    /// What the spec asks for, if it is more than a plain process.
    pub(super) fn of(spec: &ProcessSpec, host_name: String, mounts: &[Mount]) -> Option<Self> {
        let is_plain = spec.groups.is_empty()
            && spec.umask.is_none()
            && spec.nice.is_none()
            && spec.ulimits.is_empty()
            && spec.isolation.is_none()
            && spec.seccomp == Seccomp::Off
            && mounts.is_empty();
        (!is_plain).then(|| Self {
            command: spec.command.clone(),
            environment: BTreeMap::new(),
            identity: None,
            umask: spec.umask_bits(),
            nice: spec.nice,
            ulimits: spec.ulimits.clone(),
            isolation: spec.isolation.clone(),
            host_name,
            seccomp: spec.seccomp,
            mounts: mounts.to_vec(),
        })
    }

    /// Starts the launcher with what `command` says of directory and output. Answers once the
    /// program runs in its place.
    pub(super) fn spawn(&self, mut command: Command) -> Result<Child, Failure> {
        let failed = |context: &str| {
            let context = context.to_owned();
            move |error: io::Error| Failure::Io {
                context,
                errno: super::errno(&error),
            }
        };
        if self.isolation.pid {
            // Holds for children only: the next one is process 1.
            unshare(UnshareFlags::NEWPID).map_err(refused("a pid namespace"))?;
        }
        let order = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .map_err(failed("write the launcher's order"))?;
        let (mut ours, theirs) = UnixStream::pair().map_err(failed("talk to the launcher"))?;
        command.stdin(OwnedFd::from(theirs));
        let mut child = command.spawn().map_err(failed("start the launcher"))?;
        // The command holds the launcher's end too, and the end of the talk is what is waited for.
        drop(command);
        let mut said = Vec::new();
        let told = ours
            .write_all(&order)
            .and_then(|()| ours.shutdown(std::net::Shutdown::Write))
            .and_then(|()| ours.read_to_end(&mut said));
        let failure = match told {
            Ok(0) => return Ok(child),
            Ok(_) => serde_json::from_slice(&said)
                .unwrap_or_else(|error| failed("understand the launcher")(error.into())),
            Err(error) => failed("talk to the launcher")(error),
        };
        let _ = child.kill();
        let _ = child.wait();
        Err(failure)
    }

    /// Becomes the program, or says why not.
    pub(super) fn run(self) -> ExitCode {
        // Standard input becomes the program's, so what could still be said needs a handle that ends with it.
        let Ok(report) = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3) else {
            return ExitCode::FAILURE;
        };
        let failure = match self.confine(None) {
            Ok(()) => self.exec(),
            Err(failure) => failure,
        };
        if let Ok(said) = serde_json::to_vec(&failure) {
            let _ = rustix::io::write(&report, &said);
        }
        ExitCode::FAILURE
    }

    /// Takes everything on: namespaces of its own, or those of a process that has them already. The order matters: the
    /// user's rights are the last that go, and the filter could refuse what comes before.
    pub(super) fn confine(&self, beside: Option<Pid>) -> Result<(), Failure> {
        match beside {
            None => self.separate()?,
            Some(process) => self.join(process)?,
        }
        self.limit()?;
        if let Some(bits) = self.umask {
            rustix::process::umask(Mode::from_bits_truncate(bits));
        }
        if let Some((uid, gid, groups)) = &self.identity {
            take_identity(*uid, *gid, groups)?;
        }
        match self.seccomp {
            Seccomp::Off => Ok(()),
            Seccomp::Default => filter::apply(),
        }
    }

    fn separate(&self) -> Result<(), Failure> {
        let Isolation {
            tmp,
            pid,
            ipc,
            uts,
            network,
        } = self.isolation;
        if ipc {
            unshare(UnshareFlags::NEWIPC).map_err(refused("a namespace for ipc"))?;
        }
        if uts {
            let named = unshare(UnshareFlags::NEWUTS)
                .and_then(|()| rustix::system::sethostname(self.host_name.as_bytes()));
            named.map_err(refused("a host name"))?;
        }
        match network {
            ProcessNetwork::Host => {}
            ProcessNetwork::None => {
                unshare(UnshareFlags::NEWNET).map_err(refused("a network namespace"))?;
            }
            ProcessNetwork::Private => {
                unshare(UnshareFlags::NEWNET).map_err(refused("a network namespace"))?;
                raise_loopback().map_err(refused("a loopback interface"))?;
            }
        }
        if tmp || pid || !self.mounts.is_empty() {
            mounts(tmp, pid, &self.mounts).map_err(refused("mounts of its own"))?;
        }
        Ok(())
    }

    /// All but the pid namespace, which a process cannot enter itself. Mounts come last: they hide the rest.
    fn join(&self, process: Pid) -> Result<(), Failure> {
        let Isolation {
            tmp,
            pid,
            ipc,
            uts,
            network,
        } = self.isolation;
        let spaces = [
            (ipc, NameSpace::Ipc),
            (uts, NameSpace::HostName),
            (network != ProcessNetwork::Host, NameSpace::Network),
            (tmp || pid || !self.mounts.is_empty(), NameSpace::Mounts),
        ];
        let spaces = spaces.iter().filter(|(is_own, _)| *is_own);
        let opened: io::Result<Vec<_>> = spaces.map(|(_, space)| space.open(process)).collect();
        let joined = opened.and_then(|opened| {
            opened.iter().try_for_each(|(space, kind)| {
                Ok(rustix::thread::move_into_link_name_space(
                    space.as_fd(),
                    Some(*kind),
                )?)
            })
        });
        joined.map_err(not_joined)
    }

    fn limit(&self) -> Result<(), Failure> {
        let refused = |what: String| {
            move |error: rustix::io::Errno| Failure::Unsatisfiable {
                code: Unsatisfiable::LimitsRefused,
                message: format!("the kernel refuses {what}: {error}"),
            }
        };
        if let Some(nice) = self.nice {
            rustix::process::setpriority_process(None, nice)
                .map_err(refused(format!("nice {nice}")))?;
        }
        for (limit, value) in &self.ulimits {
            let both = Rlimit {
                current: value.most(),
                maximum: value.most(),
            };
            rustix::process::setrlimit(resource(*limit), both)
                .map_err(refused(format!("the limit `{}`", limit.as_str())))?;
        }
        Ok(())
    }

    fn exec(&self) -> Failure {
        let (program, arguments) = match self.command.split_first() {
            Some((program, arguments)) => (program.as_str(), arguments),
            None => ("", &[][..]),
        };
        let error = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .exec();
        Failure::Command {
            program: program.to_owned(),
            errno: super::errno(&error),
        }
    }
}

/// A namespace of another process that can be joined.
#[derive(Debug, Clone, Copy)]
enum NameSpace {
    Ipc,
    HostName,
    Network,
    Mounts,
    Pids,
}

impl NameSpace {
    fn open(self, process: Pid) -> io::Result<(std::fs::File, LinkNameSpaceType)> {
        let (name, kind) = match self {
            Self::Ipc => ("ipc", LinkNameSpaceType::InterProcessCommunication),
            Self::HostName => ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
            Self::Network => ("net", LinkNameSpaceType::Network),
            Self::Mounts => ("mnt", LinkNameSpaceType::Mount),
            Self::Pids => ("pid", LinkNameSpaceType::ProcessID),
        };
        let path = format!("/proc/{}/ns/{name}", process.as_raw_nonzero());
        Ok((std::fs::File::open(path)?, kind))
    }
}

/// What this process starts from now on is in the pid namespace of that one.
pub(super) fn join_pids(process: Pid) -> Result<(), Failure> {
    let joined = NameSpace::Pids.open(process).and_then(|(space, kind)| {
        Ok(rustix::thread::move_into_link_name_space(
            space.as_fd(),
            Some(kind),
        )?)
    });
    joined.map_err(not_joined)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_joined(error: io::Error) -> Failure {
    Failure::Unsatisfiable {
        code: Unsatisfiable::IsolationRefused,
        message: format!("the unit's namespaces cannot be entered: {error}"),
    }
}

/// Groups first: a user that is not root can set none.
pub(super) fn take_identity(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Failure> {
    let groups: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let taken = rustix::thread::set_thread_groups(&groups)
        .and_then(|()| rustix::thread::set_thread_res_gid(group, group, group))
        .and_then(|()| rustix::thread::set_thread_res_uid(user, user, user));
    taken.map_err(|error| Failure::Unsatisfiable {
        code: Unsatisfiable::UserNotPermitted,
        message: format!("the kernel refuses user {uid}, group {gid}: {error}"),
    })
}

/// What is mounted here stays here; what the node mounts later is seen here too.
fn mounts(tmp: bool, pid: bool, binds: &[Mount]) -> rustix::io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", downstream)?;
    // Held before anything could cover them.
    let hold = |bind: &Mount| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::open(&bind.source, flags, Mode::empty())
    };
    let sources = binds.iter().map(hold).collect::<Result<Vec<_>, _>>()?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    if tmp {
        for place in ["/tmp", "/var/tmp"] {
            if Path::new(place).is_dir() {
                rustix::mount::mount("tmpfs", place, "tmpfs", quiet, c"mode=1777")?;
            }
        }
    }
    for (bind, source) in binds.iter().zip(&sources) {
        bind_at(source, bind)?;
    }
    if pid {
        rustix::mount::mount("proc", "/proc", "proc", quiet | MountFlags::NOEXEC, None)?;
    }
    Ok(())
}

/// A place that is not there yet is made, and stays: a directory, or an empty file for a file.
fn bind_at(source: &OwnedFd, bind: &Mount) -> rustix::io::Result<()> {
    let target = Path::new(&bind.target);
    let is_file =
        FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) == FileType::RegularFile;
    let made = match target.parent().filter(|_| is_file) {
        None => std::fs::create_dir_all(target),
        Some(parent) => std::fs::create_dir_all(parent).and_then(|()| placeholder(target)),
    };
    if made.is_err() {
        return Err(rustix::io::Errno::NOTDIR);
    }
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    rustix::mount::mount_bind(source, target)?;
    if bind.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(target, flags, c"")?;
    }
    Ok(())
}

/// Something for a file to be mounted over. What is there is left as it is.
fn placeholder(target: &Path) -> io::Result<()> {
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(target);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[expect(
    deprecated,
    reason = "it is unsound for tables of file handles alone, which are never given up here"
)]
fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(what)
}

/// A new network has its loopback down. One message to the kernel raises it; the answer is an error number.
fn raise_loopback() -> rustix::io::Result<()> {
    const NEWLINK: u16 = 16;
    const REQUEST_WITH_ANSWER: u16 = 0x1 | 0x4;
    const LENGTH: u32 = 32;
    const LOOPBACK: i32 = 1;
    const UP: u32 = 1;
    const ERRNO_AT: usize = 16;
    let mut message = Vec::with_capacity(32);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(NEWLINK.to_ne_bytes());
    message.extend(REQUEST_WITH_ANSWER.to_ne_bytes());
    // Sequence and port: one question, one answer.
    message.extend([0; 8]);
    // Family and type of device: any.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    // The flags, and which of them count.
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    // Without a protocol's number it is the one for links and routes, which is 0.
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    rustix::net::send(socket.as_fd(), &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (count, _) = rustix::net::recv(socket.as_fd(), &mut answer[..], RecvFlags::empty())?;
    let errno = answer[..count]
        .get(ERRNO_AT..ERRNO_AT + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    match errno {
        0 => Ok(()),
        errno => Err(rustix::io::Errno::from_raw_os_error(-errno)),
    }
}

fn refused(what: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |error| {
        let advice = if rustix::process::geteuid().is_root() {
            "the agent may lack the right to it"
        } else {
            "only an agent that is root can"
        };
        Failure::Unsatisfiable {
            code: Unsatisfiable::IsolationRefused,
            message: format!("the kernel does not give the process {what}: {error}; {advice}"),
        }
    }
}

const fn resource(limit: Ulimit) -> Resource {
    match limit {
        Ulimit::As => Resource::As,
        Ulimit::Core => Resource::Core,
        Ulimit::Cpu => Resource::Cpu,
        Ulimit::Data => Resource::Data,
        Ulimit::Fsize => Resource::Fsize,
        Ulimit::Memlock => Resource::Memlock,
        Ulimit::Nofile => Resource::Nofile,
        Ulimit::Nproc => Resource::Nproc,
        Ulimit::Stack => Resource::Stack,
    }
}

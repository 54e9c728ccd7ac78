//! The shim: the tiny process between the agent and a unit's process. It is why a unit outlives its agent.
//!
//! One shim per run, single-threaded, started as `hostler shim <unit dir>` with the run's number on its
//! standard input, and behind it the variables that are secrets (with an order there it is a launcher, see `launch`). It owns the run's records and
//! log, and the only one who talks to it is the agent, through the unit's `control` pipe. (The same program also brings commands
//! into a unit that runs, see `command`.)
//!
//! ```text
//!   stop <signal> <grace ms>     ask the process group to end; kill it after the grace
//!   extend <ms>                  the dead man's switch has that long again
//!
//!   (number read, lock taken) ──record──► spawn ──report──► Running ──main process ends──► sweep ──► drain ──► record, end
//!                  │                        │                  │ stop, switch                ▲
//!                  └── refused ──report──►  └─► end            └──► Stopping ──grace over────┘ (kill)
//! ```
//!
//! The unit ends when its main process ends; what that leaves behind is killed, which the shim can do
//! because orphans become its children. A write that fails never holds the unit up: log lines are dropped
//! and the gap is marked. Signals to the shim itself are ignored; only `SIGKILL` ends it early, and then
//! the agent cleans up (see `recover`).

mod capture;
pub mod cgroup;
mod child;
mod command;
pub mod disk;
mod env_file;
mod filter;
pub mod kernel;
mod launch;
pub mod line;
mod orders;
pub mod record;
mod user;
mod watch;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hostler_model::spec::WorkloadSpec;
use hostler_model::{FailureCode, Timestamp};
use rustix::process::Signal;
use rustix::time::ClockId;
use serde::{Deserialize, Serialize};

pub use command::{COMMAND_VARIABLE, CommandOrder};
pub use orders::{Order, send};

use cgroup::{Bounds, Cgroups};
use record::{StartRecord, UnitDir, UnitRecord};

/// How long an earlier shim may take to end after it recorded the exit.
const LOCK_TRIES: u32 = 400;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// What the shim tells the agent, as one line of JSON on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    Started,
    /// Another shim has the unit, or the run's number is not the next: look again.
    Busy,
    Failed(Failure),
}

/// Why a run did not begin. Nothing of it is left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Failure {
    Unsatisfiable {
        code: Unsatisfiable,
        message: String,
    },
    Command {
        program: String,
        errno: i32,
    },
    Io {
        context: String,
        errno: i32,
    },
}

/// What of a spec this machine cannot give.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsatisfiable {
    UserUnknown,
    UserNotPermitted,
    GroupUnknown,
    WorkingDirMissing,
    EnvFileMissing,
    EnvFileInvalid,
    LimitsRefused,
    IsolationRefused,
    SeccompRefused,
}

impl Unsatisfiable {
    /// The stable code.
    #[must_use]
    pub const fn failure(self) -> FailureCode {
        match self {
            Self::UserUnknown => FailureCode::UserUnknown,
            Self::UserNotPermitted => FailureCode::UserNotPermitted,
            Self::GroupUnknown => FailureCode::GroupUnknown,
            Self::WorkingDirMissing => FailureCode::WorkingDirMissing,
            Self::EnvFileMissing => FailureCode::EnvFileMissing,
            Self::EnvFileInvalid => FailureCode::EnvFileInvalid,
            Self::LimitsRefused => FailureCode::LimitsRefused,
            Self::IsolationRefused => FailureCode::IsolationRefused,
            Self::SeccompRefused => FailureCode::SeccompRefused,
        }
    }
}

/// Everything about the run that the watch needs.
struct RunOf {
    dir: UnitDir,
    record: UnitRecord,
    run: u32,
    cgroups: Cgroups,
}

/// Runs one run of the unit in that directory, to its end. The binary calls this before it starts any
/// runtime of its own; it is synchronous and takes over the whole process.
#[must_use]
pub fn main(unit_dir: &Path) -> ExitCode {
    if let Some(order) = command::asked() {
        return command::become_it(unit_dir, &order);
    }
    let begun = match told() {
        Ok(Told::Launch(launch)) => return launch.run(),
        Ok(Told::Run(run, secrets)) => begin(unit_dir, run, &secrets),
        Err(refusal) => Err(refusal),
    };
    match begun {
        Ok((run, living)) => {
            report(&Report::Started);
            watch::until_the_end(&run, living);
            ExitCode::SUCCESS
        }
        Err(refusal) => {
            report(&refusal);
            ExitCode::FAILURE
        }
    }
}

/// How the spec wants to be stopped.
#[must_use]
pub fn stop_of(spec: &WorkloadSpec) -> (Signal, Duration) {
    let signal = match spec.stop.signal.as_str() {
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "HUP" => Signal::HUP,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        _ => Signal::TERM,
    };
    (signal, Duration::from_millis(spec.stop.grace_ms))
}

fn begin(unit_dir: &Path, run: u32, secrets: &Secrets) -> Result<(RunOf, watch::Living), Report> {
    // Fails only for a process that leads its session already, which is what is wanted.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    ignore_signals().map_err(failed("ignore signals"))?;
    let dir = UnitDir::at(unit_dir);
    let control = orders::open(&dir.control()).map_err(failed("open the control pipe"))?;
    let lock = lock(&dir)?;
    let unit = dir.unit().map_err(failed("read the unit"))?;
    let record = unit.ok_or_else(|| not_found("unit.json"))?;
    if dir.latest_run().map_err(failed("list the runs"))? + 1 != run {
        return Err(Report::Busy);
    }
    let run = RunOf {
        dir,
        record,
        run,
        cgroups: Cgroups::detect(Path::new(cgroup::ROOT)),
    };
    write_start(&run).map_err(failed("record the start"))?;
    spawn(&run, secrets)
        .map(|child| watch::Living {
            child,
            control,
            lock,
        })
        .inspect_err(|_| take_back_start(&run))
        .map(|living| (run, living))
}

/// The order matters: whoever finds the start on record and no lock knows that the run is over.
fn write_start(run: &RunOf) -> io::Result<()> {
    disk::reserve(&run.dir.exit_file(run.run))?;
    let shim = kernel::name_of(rustix::process::getpid());
    let start = StartRecord {
        at: now(),
        boot_id: disk::boot_id(),
        shim: shim.ok_or(io::ErrorKind::NotFound)?,
    };
    disk::write_new(&run.dir.start_file(run.run), &start)?;
    // The latest run and the one before it are kept.
    run.dir.forget_before(run.run.saturating_sub(1))
}

fn take_back_start(run: &RunOf) {
    let _ = std::fs::remove_file(run.dir.start_file(run.run));
    run.cgroups.remove(run.record.unit);
}

fn spawn(run: &RunOf, secrets: &Secrets) -> Result<child::Child, Report> {
    let prepared = child::prepare(&run.record, &run.dir, secrets).map_err(Report::Failed)?;
    let me = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(me)
        .map_err(io::Error::from)
        .map_err(failed("adopt"))?;
    enter_cgroup(run)?;
    let spawned = prepared.spawn();
    let _ = run.cgroups.leave();
    let child = spawned.map_err(Report::Failed)?;
    if let Some(name) = kernel::name_of(child.pid) {
        // The mark in its environment finds the process too, so this record is only the shorter way.
        let _ = disk::write_whole(&run.dir.child_file(run.run), &name);
    }
    Ok(child)
}

/// Without the right to make cgroups the unit runs without limits, as the driver's note says. A limit that
/// the kernel refuses is another matter.
fn enter_cgroup(run: &RunOf) -> Result<(), Report> {
    let bounds = Bounds::of(&run.record.spec);
    let entered = run
        .cgroups
        .create(run.record.unit, &bounds)
        .and_then(|()| run.cgroups.enter(run.record.unit));
    let Err(error) = entered else { return Ok(()) };
    match error.kind() {
        io::ErrorKind::InvalidInput => Err(Report::Failed(Failure::Unsatisfiable {
            code: Unsatisfiable::LimitsRefused,
            message: format!("the kernel refuses the limits: {error}"),
        })),
        _ => Ok(()),
    }
}

fn lock(dir: &UnitDir) -> Result<std::fs::File, Report> {
    for _ in 0..LOCK_TRIES {
        match kernel::take_lock(&dir.lock_file()) {
            Ok(lock) => return Ok(lock),
            Err(error) if is_busy(&error) => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(failed("lock the unit")(error)),
        }
    }
    Err(Report::Busy)
}

/// POSIX lets a taken lock be refused with either of two numbers.
fn is_busy(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    errno == Some(rustix::io::Errno::ACCESS) || errno == Some(rustix::io::Errno::AGAIN)
}

/// Variables that lie on no disk and are not printed.
type Secrets = BTreeMap<String, String>;

/// What this process is to be.
enum Told {
    /// The shim of that run, which gives its process these variables.
    Run(u32, Secrets),
    /// What a shim starts in its unit's place.
    Launch(Box<launch::Launch>),
}

/// The agent says the number only once it holds the other end of the report; an agent that died before has
/// said nothing, and the shim ends without a trace.
fn told() -> Result<Told, Report> {
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(failed("read what is to be run"))?;
    if text.starts_with('{') {
        let launch = serde_json::from_str(&text).map_err(io::Error::from);
        return launch
            .map(Told::Launch)
            .map_err(failed("read what is to be launched"));
    }
    let (run, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let run = run.trim().parse().map_err(|_| Report::Busy)?;
    let variables = rest.split('\0').filter_map(|it| it.split_once('='));
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    Ok(Told::Run(run, variables.map(owned).collect()))
}

/// `SIGKILL` and `SIGSTOP` remain. Handlers do not outlive an exec, so the unit's process has the defaults.
fn ignore_signals() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let unread = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
        signal_hook::flag::register(signal, Arc::clone(&unread))?;
    }
    Ok(())
}

/// An agent that is gone does not hear it; the records say the same.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let _ = rustix::io::write(io::stdout(), &line);
    }
}

fn failed(context: &'static str) -> impl Fn(io::Error) -> Report {
    move |error| {
        Report::Failed(Failure::Io {
            context: context.to_owned(),
            errno: errno(&error),
        })
    }
}

fn not_found(what: &str) -> Report {
    let errno = rustix::io::Errno::NOENT.raw_os_error();
    Report::Failed(Failure::Io {
        context: what.to_owned(),
        errno,
    })
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| match error.kind() {
        io::ErrorKind::NotFound => rustix::io::Errno::NOENT.raw_os_error(),
        io::ErrorKind::PermissionDenied => rustix::io::Errno::ACCESS.raw_os_error(),
        _ => rustix::io::Errno::IO.raw_os_error(),
    })
}

/// Wall time. The shim is a process of its own, below every seam.
fn now() -> Timestamp {
    let time = rustix::time::clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Timestamp::from_millis(seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}

/// Time since boot. It goes on while the machine sleeps, which a dead man's switch must notice.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

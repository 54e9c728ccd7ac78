//! The system's tools: each call is one process with a time limit, and what is mounted is read from the kernel.
//!
//! A server that hangs must not hang the agent: a call that takes too long is killed with everything that it started,
//! and is an error of its own. Output goes to memory that the calls own, so that a helper which lives on, as those of
//! `mount.nfs` do, keeps nobody waiting.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Command;

use crate::disk;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATIENCE: Duration = Duration::from_secs(60);
/// Most of what a tool says that is told further.
const SAID: usize = 400;
/// Most of what a tool says that is read.
const MOST_OUTPUT: u64 = 1 << 20;

/// Where tools are, and how long each call may take.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The directories that are searched, as in `PATH`.
    pub path: OsString,
    /// The kernel's list of mounts.
    pub mounts: PathBuf,
    pub patience: Duration,
}

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) program: String,
    pub(super) arguments: Vec<OsString>,
}

/// What a call that ended has said.
pub(super) struct Answer {
    status: ExitStatus,
    pub(super) output: String,
    errors: String,
}

/// Why a call did not do what it was for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("`{0}` is not on the node")]
    Missing(String),
    #[error("`{call}` did not end within {patience:?} and was killed")]
    TimedOut { call: String, patience: Duration },
    #[error("`{call}`: {said}")]
    Failed { call: String, said: String },
    /// What is there is no such volume.
    #[error("{0}")]
    Unfit(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            path: PATH.into(),
            mounts: PathBuf::from("/proc/self/mountinfo"),
            patience: PATIENCE,
        }
    }
}

impl Call {
    pub(super) fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
        }
    }

    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args<'a>(self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        self.arguments
            .iter()
            .try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.status.success()
    }

    pub(super) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(super) fn trouble(&self, call: &Call) -> Trouble {
        let lines = self.errors.lines().chain(self.output.lines());
        let lines: Vec<&str> = lines
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let said: String = lines.join("; ").chars().take(SAID).collect();
        Trouble::Failed {
            call: call.to_string(),
            said: if said.is_empty() {
                self.status.to_string()
            } else {
                said
            },
        }
    }
}

impl Tools {
    /// Whether a program of that name is there.
    pub(super) fn has(&self, program: &str) -> bool {
        std::env::split_paths(&self.path).any(|dir| dir.join(program).is_file())
    }

    /// Runs the call to its end.
    pub(super) async fn ask(&self, call: &Call) -> Result<Answer, Trouble> {
        let (mut output, mut errors) = (memory()?, memory()?);
        let spawned = Command::new(&call.program)
            .args(&call.arguments)
            .env_clear()
            .env("PATH", &self.path)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Trouble::Missing(call.program.clone()));
            }
            spawned => spawned?,
        };
        let mut group = Group::of(child.id());
        let status = match tokio::time::timeout(self.patience, child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                return Err(Trouble::TimedOut {
                    call: call.to_string(),
                    patience: self.patience,
                });
            }
        };
        group.is_over();
        Ok(Answer {
            status,
            output: read(&mut output)?,
            errors: read(&mut errors)?,
        })
    }

    /// Runs the call, which has to succeed; answers its output.
    pub(super) async fn run(&self, call: &Call) -> Result<String, Trouble> {
        let answer = self.ask(call).await?;
        if answer.is_success() {
            return Ok(answer.output);
        }
        Err(answer.trouble(call))
    }

    /// Does file work that may hang as a call may. A thread that hangs is left behind, but nobody waits for it.
    pub(super) async fn files<T, F>(&self, what: &'static str, work: F) -> Result<T, Trouble>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let working = disk::off_thread(what, move || Ok(work()));
        match tokio::time::timeout(self.patience, working).await {
            Ok(Ok(done)) => Ok(done?),
            Ok(Err(error)) => Err(io::Error::other(error).into()),
            Err(_) => Err(Trouble::TimedOut {
                call: what.to_owned(),
                patience: self.patience,
            }),
        }
    }

    /// Whether something is mounted at the place; its parents hold no links.
    pub(super) fn is_mounted(&self, place: &Path) -> io::Result<bool> {
        let list = std::fs::read(&self.mounts)?;
        let lines = list.split(|byte| *byte == b'\n');
        let mut places = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
        Ok(places.any(|found| unescaped(found) == place.as_os_str()))
    }
}

/// The call's process and all that it started; killed if this goes before the call is over.
struct Group(Option<Pid>);

impl Group {
    fn of(pid: Option<u32>) -> Self {
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    const fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // What has ended in this moment needs no signal.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

fn memory() -> io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create(c"tool", flags)?.into())
}

fn read(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MOST_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescaped(path: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| byte == b'\\');
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(value.unwrap_or(byte));
        rest = if value.is_some() {
            &behind[3..]
        } else {
            behind
        };
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::new("sh").args(["-c", script])
    }

    #[tokio::test]
    async fn what_a_tool_says_comes_back_and_its_failure_is_told_with_its_words() {
        let tools = Tools::default();
        assert_eq!(
            tools.run(&shell("echo a; echo b >&2")).await.unwrap(),
            "a\n"
        );
        let refused = tools.run(&shell("echo no such thing >&2; exit 3")).await;
        let text = refused.unwrap_err().to_string();
        assert!(text.ends_with(": no such thing"), "{text}");
        let absent = tools.run(&Call::new("no-such-tool")).await.unwrap_err();
        assert!(matches!(absent, Trouble::Missing(_)), "{absent}");
        assert!(tools.has("sh") && !tools.has("no-such-tool"));
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed_with_what_it_started() {
        let place = tempfile::tempdir().unwrap();
        let note = place.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", note.display());
        let tools = Tools {
            // Long enough to write the number down on a busy machine.
            patience: Duration::from_secs(5),
            ..Tools::default()
        };
        let error = tools.run(&shell(&script)).await.unwrap_err();
        assert!(matches!(error, Trouble::TimedOut { .. }), "{error}");
        let pid = std::fs::read_to_string(note).unwrap();
        let stat = PathBuf::from(format!("/proc/{}/stat", pid.trim()));
        let is_gone = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        };
        for _ in 0..6000 {
            if is_gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("what the tool started lives on");
    }

    #[tokio::test]
    async fn a_helper_that_lives_on_keeps_nobody_waiting() {
        let script = "sleep 1000 & echo $!";
        let pid = Tools::default().run(&shell(script)).await.unwrap();
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn mounts_are_found_by_their_place_whatever_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let list = place.path().join("mounts");
        std::fs::write(&list, "43 27 7:0 / /mnt/a\\040b rw - ext4 /dev/loop0 rw\n").unwrap();
        let tools = Tools {
            mounts: list,
            ..Tools::default()
        };
        assert!(tools.is_mounted(Path::new("/mnt/a b")).unwrap());
        assert!(!tools.is_mounted(Path::new("/mnt")).unwrap());
        assert!(Tools::default().is_mounted(Path::new("/proc")).unwrap());
    }
}

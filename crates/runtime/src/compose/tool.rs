//! Running the tools: compose and git, each in a process group of its own that goes when nobody waits for it.
//!
//! A tool sees only the environment that it is given, never the agent's, and nothing of what it is given or of
//! what it answers is logged here: both may hold secrets.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

/// The most of a tool's output that is kept.
const MOST_OUTPUT: u64 = 8 << 20;
/// The most of what a tool complains that people are told.
const MOST_WORDS: usize = 600;

/// A program and what it is given.
pub(super) struct Call {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
    patience: Duration,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Why it never ended by itself.
pub(super) enum Lost {
    /// There is no such program, or it may not be run.
    Missing,
    TimedOut(Duration),
    Io(io::Error),
}

/// Kills the group of a tool that nobody waits for any more.
struct Group(Option<Pid>);

impl Call {
    pub(super) fn new(program: &Path, env: &[(String, String)], patience: Duration) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: env.to_vec(),
            dir: None,
            patience,
        }
    }

    pub(super) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn within(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Runs it to its end. Dropped half-way, it is killed with all that it started.
    pub(super) async fn run(self) -> Result<Ended, Lost> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Lost::Missing,
            _ => Lost::Io(error),
        })?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let mut group = Group(pid.and_then(Pid::from_raw));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ending = async {
            let (stdout, stderr) = tokio::join!(keep(stdout), keep(stderr));
            let status = child.wait().await?;
            io::Result::Ok(Ended {
                code: status.code(),
                stdout: stdout?,
                stderr: stderr?,
            })
        };
        match tokio::time::timeout(self.patience, ending).await {
            Ok(Ok(ended)) => {
                group.0 = None;
                Ok(ended)
            }
            Ok(Err(error)) => Err(Lost::Io(error)),
            Err(_) => Err(Lost::TimedOut(self.patience)),
        }
    }
}

impl Ended {
    pub(super) fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// What it printed, without the line break.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// All that it complained.
    pub(super) fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The end of what it complained, on one line: the cause comes last.
    pub(super) fn words(&self) -> String {
        let complaint = self.complaint();
        let lines = complaint.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.contains("level=warning"));
        let text = lines.collect::<Vec<_>>().join("; ");
        let surplus = text.chars().count().saturating_sub(MOST_WORDS);
        match surplus {
            0 if text.is_empty() => format!("it ended with {:?} and no word", self.code),
            0 => text,
            _ => format!("…{}", text.chars().skip(surplus).collect::<String>()),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // It may have ended by itself.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Reads to the end, and keeps as much as there is room for.
async fn keep<R: AsyncRead + Unpin>(pipe: Option<R>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(MOST_OUTPUT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::new(Path::new("/bin/sh"), &[], Duration::from_secs(60)).args(["-c", script])
    }

    async fn ended(call: Call) -> Ended {
        call.run().await.ok().unwrap()
    }

    #[tokio::test]
    async fn a_tool_sees_only_what_it_is_given() {
        let seen = ended(
            shell("env; pwd; exit 3")
                .env("A", "1")
                .within(Path::new("/")),
        )
        .await;
        let text = seen.text();
        assert!(text.contains("A=1") && text.ends_with('/'), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
        assert_eq!(seen.code, Some(3));
        let missing = Call::new(Path::new("/no/such"), &[], Duration::from_secs(1));
        assert!(matches!(missing.run().await, Err(Lost::Missing)));
    }

    #[tokio::test]
    async fn the_end_of_a_long_complaint_is_told() {
        let complaint = "i=0; while [ $i -lt 300 ]; do echo \"line $i\" >&2; i=$((i+1)); done";
        let words = ended(shell(complaint)).await.words();
        assert!(
            words.starts_with('…') && words.ends_with("line 299"),
            "{words}"
        );
        let silent = ended(shell("exit 7")).await.words();
        assert!(silent.contains('7'), "{silent}");
    }

    #[tokio::test]
    async fn a_tool_that_is_dropped_takes_what_it_started_along() {
        let dir = tempfile::tempdir().unwrap();
        let call = shell("sleep 1000 & echo $! > pid; wait").within(dir.path());
        let pid = dir.path().join("pid");
        let running = call.run();
        let written = async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&pid)
                    && let Ok(pid) = text.trim().parse::<i32>()
                {
                    return pid;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let pid = tokio::select! {
            _ = running => panic!("it ended"),
            pid = written => pid,
        };
        let is_gone = async {
            loop {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                if stat.is_err() || stat.unwrap().contains(") Z ") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), is_gone).await;
        assert!(waited.is_ok(), "{pid} runs on");
    }

    #[tokio::test]
    async fn a_tool_that_does_not_end_is_given_up() {
        let call = Call::new(Path::new("/bin/sh"), &[], Duration::from_millis(50));
        let lost = call.args(["-c", "sleep 1000"]).run().await;
        assert!(matches!(lost, Err(Lost::TimedOut(_))));
    }
}

//! Processes that the harness starts: bound to a core, read line by line, ended by their id.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::cores::{self, Core};
use crate::meter::Id;

/// How long a program may take to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end by itself.
const GRACE: Duration = Duration::from_secs(12);
/// How much of its last words is shown when it fails.
const SHOWN_LINES: usize = 5;

/// A running program; dropping it ends it.
pub(crate) struct Spawned {
    child: Child,
    /// Behind a lock only so that threads can share the handle.
    lines: Mutex<Receiver<String>>,
    stderr: PathBuf,
    /// When it was started.
    pub(crate) begun: Instant,
}

impl Spawned {
    /// Starts the program on the core, with its complaints in a file of the folder.
    pub(crate) fn start(mut command: Command, core: Core, dir: &Path) -> Result<Self> {
        let program = command.get_program().display().to_string();
        let stderr = dir.join("stderr.log");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr)?);
        let (mut child, begun) = cores::on(core, || {
            let begun = Instant::now();
            let child = command
                .spawn()
                .with_context(|| format!("start {program}"))?;
            Ok((child, begun))
        })?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // The program writes on when nobody listens any more.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self {
            child,
            lines: Mutex::new(lines),
            stderr,
            begun,
        })
    }

    pub(crate) fn id(&self) -> Id {
        self.child.id().cast_signed()
    }

    /// Waits for a line that begins so; gives the rest of it.
    pub(crate) fn told(&self, beginning: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if let Some(rest) = line.strip_prefix(beginning) {
                return Ok(rest.to_owned());
            }
        }
        let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(SHOWN_LINES).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!(
            "the program did not say `{beginning}`; its last words: {}",
            last.join(" / ")
        )
    }

    fn end(&mut self) {
        signal(self.id(), Signal::TERM);
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // It is waited for in every case, so that no zombie is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal; a process that has ended already needs none.
pub(crate) fn signal(process: Id, signal: Signal) {
    if let Some(pid) = Pid::from_raw(process) {
        let _ = kill_process(pid, signal);
    }
}

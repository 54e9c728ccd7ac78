//! What the machine charges for the two things that no implementation can avoid: one fsync and one
//! fork+exec. Wall times are read against them.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::samples::{Samples, millis};

const ROUNDS: usize = 40;
/// A page: the least that a journal writes.
const PAGE: usize = 4096;

/// Medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Costs {
    #[serde(serialize_with = "as_millis", rename = "fsync_ms")]
    pub(crate) fsync: Duration,
    #[serde(serialize_with = "as_millis", rename = "fork_exec_ms")]
    pub(crate) fork_exec: Duration,
}

/// Appends to a file and waits until it is on the disk, again and again.
pub(crate) struct Appender {
    file: File,
    bytes: Vec<u8>,
}

impl Costs {
    pub(crate) fn measure(dir: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(dir)?;
        let mut appender = Appender::new(folder.path(), PAGE)?;
        let (mut fsync, mut fork_exec) = (Samples::default(), Samples::default());
        for _ in 0..ROUNDS {
            fsync.add(appender.append()?);
            fork_exec.add(one_process()?);
        }
        Ok(Self {
            fsync: fsync.median(),
            fork_exec: fork_exec.median(),
        })
    }
}

impl Appender {
    pub(crate) fn new(dir: &Path, bytes: usize) -> Result<Self> {
        let file = File::create(dir.join("appended")).context("make a file to append to")?;
        Ok(Self {
            file,
            bytes: vec![0x5a; bytes],
        })
    }

    pub(crate) fn append(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.file.write_all(&self.bytes)?;
        self.file.sync_data()?;
        Ok(begun.elapsed())
    }
}

/// Starts a program that does nothing and waits for its end.
fn one_process() -> Result<Duration> {
    let begun = Instant::now();
    let status = Command::new("/bin/true")
        .status()
        .context("run /bin/true")?;
    anyhow::ensure!(status.success(), "/bin/true: {status}");
    Ok(begun.elapsed())
}

fn as_millis<S: serde::Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(millis(*span))
}

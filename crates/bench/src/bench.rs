//! What every row is given: where to write, what to measure, and how long it may take.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::costs::Costs;
use crate::machine::Machine;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Length {
    /// Shows that everything works; its speeds mean little.
    Short,
    Usual,
    /// Also what takes minutes and gigabytes.
    Long,
}

/// One run of the harness.
pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) costs: Costs,
    pub(crate) length: Length,
    /// The program that is measured.
    pub(crate) hostler: PathBuf,
    /// The address of a Docker engine, if one was given.
    pub(crate) docker: Option<String>,
    data_dir: PathBuf,
}

impl Bench {
    /// Looks at the machine and at the prices of a sync and of a process.
    pub(crate) fn prepare(
        data_dir: &Path,
        hostler: PathBuf,
        length: Length,
        docker: Option<String>,
    ) -> Result<Self> {
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("make {}", data_dir.display()))?;
        let data_dir = data_dir.canonicalize()?;
        let machine = Machine::look(&data_dir)?;
        ensure!(
            machine.is_real_disk(),
            "{} is on {}, which forgets; name a directory on a disk with --data-dir",
            data_dir.display(),
            machine.file_system
        );
        ensure!(
            hostler.is_file(),
            "{} is missing; build it in release",
            hostler.display()
        );
        let costs = Costs::measure(&data_dir)?;
        Ok(Self {
            machine,
            costs,
            length,
            hostler,
            docker,
            data_dir,
        })
    }

    /// A fresh folder on the disk, removed when dropped.
    pub(crate) fn scratch(&self) -> Result<TempDir> {
        let made = tempfile::Builder::new()
            .prefix("row-")
            .tempdir_in(&self.data_dir);
        made.context("make a folder for a row")
    }

    pub(crate) fn is_short(&self) -> bool {
        self.length == Length::Short
    }

    /// One of two sizes: the first in a short run.
    pub(crate) fn sized<T>(&self, short: T, usual: T) -> T {
        if self.is_short() { short } else { usual }
    }
}

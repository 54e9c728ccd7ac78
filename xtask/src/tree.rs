//! The source tree: where it is, and files that are generated into it and committed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Whether a generated file is written, or only compared with what is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    Check,
}

impl From<bool> for Mode {
    fn from(is_check: bool) -> Self {
        if is_check { Self::Check } else { Self::Write }
    }
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .map_or_else(|| here.to_owned(), Path::to_owned)
}

/// Brings a committed file in line with what was generated, or says how to.
pub(crate) fn settle(path: &Path, text: &str, mode: Mode, verb: &str) -> Result<()> {
    let shown = path.strip_prefix(root()).unwrap_or(path).display();
    let present = std::fs::read_to_string(path).unwrap_or_default();
    if present == text {
        return Ok(());
    }
    if mode == Mode::Check {
        bail!("{shown} is not what its source says; run `cargo xtask {verb}` and commit it");
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder of {shown}"))?;
    }
    std::fs::write(path, text).with_context(|| format!("write {shown}"))?;
    println!("wrote {shown}");
    Ok(())
}

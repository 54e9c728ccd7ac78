//! `bench`: measures the release build against its targets. The rows and baselines are in `crates/bench`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::tree;

/// Builds the release and the harness, and hands the arguments on.
pub(crate) fn main(arguments: &[String]) -> Result<ExitCode> {
    build::program(Profile::Release, None)?;
    build::package(&["hostler-bench", "--release"], None)?;
    let program = build::target()?.join("release/hostler-bench");
    let status = Command::new(&program)
        .args(arguments)
        .current_dir(tree::root())
        .status()
        .with_context(|| format!("run {}", tree::shown(&program)))?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

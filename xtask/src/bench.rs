//! `bench`: measures the release build against its targets. The rows and baselines are in `crates/bench`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::tree;

/// The measured program is built by itself: together with the harness it would be given the features that
/// the harness needs, such as fake nodes.
const PACKAGES: [&str; 2] = ["hostler", "hostler-bench"];

/// Builds both in release and hands the arguments on.
pub(crate) fn main(arguments: &[String]) -> Result<ExitCode> {
    for package in PACKAGES {
        let build = [
            "build",
            "--release",
            "--quiet",
            "--locked",
            "--package",
            package,
        ];
        let status = tree::cargo(&build).status().context("run cargo")?;
        ensure!(status.success(), "build {package}: {status}");
    }
    let program = target()?.join("release/hostler-bench");
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

/// Where cargo builds.
fn target() -> Result<PathBuf> {
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ];
    let text = tree::output(&mut tree::cargo(&arguments))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let target = metadata["target_directory"]
        .as_str()
        .context("cargo names its target folder")?;
    Ok(target.into())
}

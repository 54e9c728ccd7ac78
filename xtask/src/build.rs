//! `build`: the release, which is two programs of which the large one carries the small one. A plain `cargo build`
//! makes a program that is its own shim.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::tree;

/// Builds the shim and then the program with the shim's bytes inside; answers where it lies.
pub(crate) fn release() -> Result<PathBuf> {
    let programs = target()?.join("release");
    package(&["hostler-shim"], None)?;
    let shim = programs.join("hostler-shim");
    package(&["hostler", "--features", "small-shim"], Some(&shim))?;
    Ok(programs.join("hostler"))
}

/// Builds one package by itself: together with others it would be given the features that those need.
pub(crate) fn package(words: &[&str], shim: Option<&PathBuf>) -> Result<()> {
    let build = ["build", "--release", "--quiet", "--locked", "--package"];
    let mut cargo = tree::cargo(&[&build[..], words].concat());
    if let Some(shim) = shim {
        cargo.env("HOSTLER_SHIM", shim);
    }
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "build {}: {status}", words[0]);
    Ok(())
}

/// Where cargo builds.
pub(crate) fn target() -> Result<PathBuf> {
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

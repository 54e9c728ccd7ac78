//! `build`: the release, which is two programs of which the large one carries the small one. A plain `cargo build`
//! makes a program that is its own shim.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::cross::{self, Target};
use crate::tree;

/// What is handed to people is small; what is tried is built quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Builds the program, a static one if a target is named; answers where it lies. A release is the shim and then the
/// program with the shim's bytes inside, both of the same target.
pub(crate) fn program(profile: Profile, target: Option<Target>) -> Result<PathBuf> {
    if profile == Profile::Dev {
        package(&["hostler"], None, target)?;
        return Ok(programs(target)?.join("debug/hostler"));
    }
    let programs = programs(target)?.join("release");
    package(&["hostler-shim", "--release"], None, target)?;
    let shim = programs.join("hostler-shim");
    let words = ["hostler", "--release", "--features", "small-shim"];
    package(&words, Some(&shim), target)?;
    Ok(programs.join("hostler"))
}

/// Builds one package by itself: together with others it would be given the features that those need.
pub(crate) fn package(
    words: &[&str],
    shim: Option<&PathBuf>,
    target: Option<Target>,
) -> Result<()> {
    let mut cargo = match target {
        Some(target) => cross::cargo(target)?,
        None => tree::cargo(&["build"]),
    };
    cargo.args(["--quiet", "--locked", "--package"]).args(words);
    if let Some(shim) = shim {
        cargo.env("HOSTLER_SHIM", shim);
    }
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "build {}: {status}", words[0]);
    Ok(())
}

fn programs(target: Option<Target>) -> Result<PathBuf> {
    target.map_or_else(self::target, |target| Ok(cross::programs(target)))
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

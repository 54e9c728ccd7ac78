//! `build`: the release, which is two programs of which the large one carries the small one. A plain `cargo build`
//! makes a program that is its own shim.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::cross::{self, Target};
use crate::link;
use crate::tree;

/// How hard it is tried to pack the shim.
const PACKED_MOST: u8 = 10;

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
        package(&["hostler"], target)?;
        return Ok(programs(target)?.join("debug/hostler"));
    }
    release(target, &[])
}

/// Builds the release of this machine as `program` does, with the names of its functions.
pub(crate) fn with_names() -> Result<PathBuf> {
    release(None, &["-Cstrip=none"])
}

/// Builds both programs, the large one with more words for rustc.
fn release(target: Option<Target>, more: &[&str]) -> Result<PathBuf> {
    let programs = programs(target)?.join("release");
    package(&["hostler-shim", "--release"], target)?;
    let shim = packed(&programs.join("hostler-shim"))?;
    let words = ["hostler", "--release", "--features", "small-shim"];
    let mut link = link::words(target, &programs)?;
    link.extend(more.iter().map(|&word| word.to_owned()));
    run(cargo(&words, target, &link)?.env("HOSTLER_SHIM", shim))?;
    Ok(programs.join("hostler"))
}

/// A program packed as the large one carries it; answers where it lies.
fn packed(program: &Path) -> Result<PathBuf> {
    let bytes = std::fs::read(program).with_context(|| tree::shown(program))?;
    let packed = miniz_oxide::deflate::compress_to_vec(&bytes, PACKED_MOST);
    let path = program.with_extension("packed");
    // One that is as it was is left alone, or cargo would build what carries it anew.
    if std::fs::read(&path).is_ok_and(|there| there == packed) {
        return Ok(path);
    }
    std::fs::write(&path, packed).with_context(|| tree::shown(&path))?;
    Ok(path)
}

/// Builds one package by itself: together with others it would be given the features that those need.
pub(crate) fn package(words: &[&str], target: Option<Target>) -> Result<()> {
    run(&mut cargo(words, target, &[])?)
}

/// A cargo that builds a package, whose own program is linked with these words.
fn cargo(words: &[&str], target: Option<Target>, link: &[String]) -> Result<Command> {
    let verb = if link.is_empty() { "build" } else { "rustc" };
    let mut cargo = match target {
        Some(target) => cross::cargo(target)?,
        None => tree::cargo(&[verb]),
    };
    cargo.args(["--quiet", "--locked", "--package"]).args(words);
    if !link.is_empty() {
        cargo.arg("--").args(link);
    }
    Ok(cargo)
}

fn run(cargo: &mut Command) -> Result<()> {
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "build: {status}");
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

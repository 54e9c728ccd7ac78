//! Static programs: made for machines of this and another family, and run on any Linux of theirs.
//!
//! What that needs of C, a compiler and a linker with musl's library, is zig's; cargo-zigbuild puts it in cargo's hands.
//! Both are pinned, come from PyPI, and are kept with what they build below `target/cross`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::tree;

/// Another version may find other flags to its taste.
const TOOLS: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.1"];

/// What a static program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    #[value(name = "x86_64-unknown-linux-musl")]
    Pc,
    #[value(name = "aarch64-unknown-linux-musl")]
    Arm,
}

impl Target {
    pub(crate) const fn triple(self) -> &'static str {
        match self {
            Self::Pc => "x86_64-unknown-linux-musl",
            Self::Arm => "aarch64-unknown-linux-musl",
        }
    }

    /// The family as `uname -m` says it.
    pub(crate) const fn family(self) -> &'static str {
        match self {
            Self::Pc => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// As engines call the platform of an image.
    pub(crate) const fn platform(self) -> &'static str {
        match self {
            Self::Pc => "linux/amd64",
            Self::Arm => "linux/arm64",
        }
    }

    /// Whether this machine runs such programs.
    pub(crate) fn runs_here(self) -> bool {
        self.family() == std::env::consts::ARCH
    }
}

/// A cargo that builds for the target, with this as its target folder, once what it needs is here.
pub(crate) fn cargo(target: Target) -> Result<Command> {
    let tools = tools()?;
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", target.triple()])
        .current_dir(tree::root());
    tree::run(&mut rustup)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(
        [tools.clone()]
            .into_iter()
            .chain(std::env::split_paths(&path)),
    )?;
    let mut cargo = Command::new(tools.join("cargo-zigbuild"));
    cargo
        .args(["zigbuild", "--target", target.triple()])
        .current_dir(tree::root())
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", folder())
        .env("CARGO_ZIGBUILD_CACHE_DIR", folder().join("cache"))
        .env("ZIG_GLOBAL_CACHE_DIR", folder().join("cache/zig"))
        // Where such a program is tried nobody debugs it, and memory is scarce.
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols");
    Ok(cargo)
}

/// Where programs for this target are, once they are built.
pub(crate) fn programs(target: Target) -> PathBuf {
    folder().join(target.triple())
}

fn folder() -> PathBuf {
    tree::root().join("target/cross")
}

/// The folder with both tools, which are installed if they are not there in these versions.
fn tools() -> Result<PathBuf> {
    let place = folder().join("tools");
    let (programs, complete) = (place.join("bin"), place.join("complete"));
    let pinned = TOOLS.join(" ");
    if std::fs::read_to_string(&complete).is_ok_and(|found| found == pinned) {
        return Ok(programs);
    }
    println!("installing {pinned}");
    let mut python = Command::new("python3");
    tree::run(python.args(["-m", "venv", "--clear"]).arg(&place))?;
    let mut pip = Command::new(programs.join("pip"));
    tree::run(pip.args(["install", "--quiet", "--no-deps"]).args(TOOLS))?;
    std::fs::write(complete, pinned)?;
    Ok(programs)
}

//! The lane `previous`: the program of the version before this one, built from its tag.
//!
//! The sources of the tag are laid out below `target/previous`, and built there as tests are, so that a second run finds
//! them built. A repository without a tag has no version before, and then the lane is off.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::lanes::Lane;
use crate::tree;

/// Where tests find the program.
pub(crate) const VARIABLE: &str = "HOSTLER_PREVIOUS";
const NAME: &str = "previous";

/// The lane, and its program if it is on.
pub(crate) fn lane() -> (Lane, Option<PathBuf>) {
    if let Some(given) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        let with = format!("the program {}", given.display());
        return (Lane::on(NAME, with), Some(given));
    }
    match newest_tag() {
        Ok(None) => {
            let why = "there is no tag v*, so there is no version before this one";
            (Lane::off(NAME, why.to_owned()), None)
        }
        Ok(Some(tag)) => match build(&tag) {
            Ok(program) => (
                Lane::on(NAME, format!("the program of {tag}")),
                Some(program),
            ),
            Err(error) => (
                Lane::off(NAME, format!("{tag} cannot be built: {error:#}")),
                None,
            ),
        },
        Err(error) => (
            Lane::off(NAME, format!("the tags cannot be read: {error:#}")),
            None,
        ),
    }
}

/// By version, not by date.
fn newest_tag() -> Result<Option<String>> {
    let mut git = Command::new("git");
    git.args(["tag", "--list", "v*", "--sort=-version:refname"])
        .current_dir(tree::root());
    Ok(tree::output(&mut git)?.lines().next().map(str::to_owned))
}

fn build(tag: &str) -> Result<PathBuf> {
    let place = tree::root().join("target/previous");
    let sources = place.join(tag);
    std::fs::create_dir_all(&sources).context("make a folder for the sources")?;
    let archive = place.join(format!("{tag}.tar"));
    let mut git = Command::new("git");
    git.args(["archive", "--format=tar", "--output"])
        .arg(&archive)
        .arg(tag)
        .current_dir(tree::root());
    tree::output(&mut git)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&sources);
    tree::output(&mut tar)?;
    let target = place.join("target");
    let mut cargo = tree::cargo(&["build", "--quiet", "--locked", "--package", "hostler"]);
    cargo.current_dir(&sources).env("CARGO_TARGET_DIR", &target);
    tree::output(&mut cargo)?;
    let program = target.join("debug/hostler");
    ensure!(program.is_file(), "it built no program");
    Ok(program)
}

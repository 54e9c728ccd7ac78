//! The Debian package, by cargo-deb; what is in it stands in `crates/hostler/Cargo.toml`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::stage::Stage;
use super::{Effort, run};
use crate::test::provision;
use crate::tree;

/// The tool, pinned: another version may read the metadata otherwise.
pub(crate) const TOOL: &str = "cargo-deb";
const TOOL_VERSION: &str = "3.8.0";

/// Makes the package of what is staged.
pub(super) fn make(stage: &Stage, out: &Path, effort: Effort) -> Result<PathBuf> {
    ensure!(
        provision::program("dpkg-shlibdeps").is_some(),
        "there is no program `dpkg-shlibdeps`, which finds what the package depends on; it is in dpkg-dev"
    );
    let mut deb = Command::new(tool()?);
    deb.args([
        "--no-build",
        "--no-strip",
        "--locked",
        "--package",
        "hostler",
    ])
    .args((effort == Effort::Quick).then_some("--fast"))
    .args(
        stage
            .machine()
            .into_iter()
            .flat_map(|it| ["--target", it.triple()]),
    )
    .arg("--output")
    .arg(out)
    .env("CARGO_TARGET_DIR", stage.target())
    .current_dir(tree::root());
    let said = tree::output(&mut deb)?;
    let path = said
        .lines()
        .map(str::trim)
        .rfind(|line| line.ends_with(".deb"));
    Ok(PathBuf::from(path.context("cargo-deb names no package")?))
}

/// Installs the tool if it is not here in the pinned version; answers where it is.
pub(crate) fn tool() -> Result<PathBuf> {
    if let Some(found) = installed() {
        return Ok(found);
    }
    println!("installing {TOOL} {TOOL_VERSION}");
    let version = format!("={TOOL_VERSION}");
    run(&mut tree::cargo(&[
        "install",
        "--quiet",
        "--locked",
        TOOL,
        "--version",
        &version,
    ]))?;
    installed()
        .with_context(|| format!("{TOOL} was installed, but not where programs are looked for"))
}

/// Where it is, in the pinned version.
pub(crate) fn installed() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let own = home
        .map(|home| home.join("bin").join(TOOL))
        .filter(|it| it.is_file());
    own.into_iter()
        .chain(provision::program(TOOL))
        .find(|program| {
            let said = Command::new(program).arg("--version").output();
            let is_pinned = |text: &str| text.split_whitespace().last() == Some(TOOL_VERSION);
            said.is_ok_and(|said| is_pinned(&String::from_utf8_lossy(&said.stdout)))
        })
}

//! What packages are made of: the program without its symbols, and what it says of itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{PackageArgs, VERSION, copy, fresh, run, sbom};
use crate::cross::Target;
use crate::tree;

/// The other names of the program, under which it is the agent of another fleet.
pub(super) const NAMES: [&str; 4] = ["miaas-agent", "node-agent", "persys-agent", "spot-agent"];

/// Shells, and what each calls the file of a program's completions.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "hostler.bash"),
    ("zsh", "_hostler"),
    ("fish", "hostler.fish"),
];

/// The folder, laid out as cargo lays out what it built: cargo-deb finds it as that.
pub(super) struct Stage {
    target: PathBuf,
    /// What the program is for, if it is a static one.
    machine: Option<Target>,
}

impl Stage {
    pub(super) fn lay_out(arguments: &PackageArgs, out: &Path) -> Result<Self> {
        let stage = Self {
            target: out.join("stage"),
            machine: arguments.target,
        };
        let program = arguments.program()?;
        fresh(&stage.folder())?;
        copy(&program, &stage.program())?;
        let speaker = arguments.speaker(stage.program())?;
        is_of_this_tree(&speaker)?;
        // Where there is no strip for it there are symbols; a release has none in any case.
        let stripped = Command::new("strip").arg(stage.program()).output();
        if !stripped.is_ok_and(|it| it.status.success()) {
            println!("`strip` does not work here, so the program keeps its symbols");
        }
        let pages = stage.folder().join("man");
        run(Command::new(&speaker).arg("man").arg(&pages))?;
        std::fs::create_dir_all(stage.folder().join("completions"))?;
        for (shell, file) in SHELLS {
            let script = Command::new(&speaker)
                .args(["completion", shell])
                .output()?;
            ensure!(script.status.success(), "no completions for {shell}");
            std::fs::write(stage.folder().join("completions").join(file), script.stdout)?;
        }
        sbom::write(&stage.folder(), stage.machine)?;
        Ok(stage)
    }

    /// What cargo would call its target folder.
    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) const fn machine(&self) -> Option<Target> {
        self.machine
    }

    /// Of which machines the program is, as `uname -m` says it.
    pub(super) fn family(&self) -> &'static str {
        self.machine.map_or(std::env::consts::ARCH, Target::family)
    }

    pub(super) fn folder(&self) -> PathBuf {
        let triple = self.machine.map_or("", Target::triple);
        self.target.join(triple).join("release")
    }

    pub(super) fn program(&self) -> PathBuf {
        self.folder().join("hostler")
    }
}

/// A program of another version would go by a wrong name.
fn is_of_this_tree(program: &Path) -> Result<()> {
    let said = tree::output(Command::new(program).arg("--version"))?;
    let version = said
        .split_whitespace()
        .nth(1)
        .context("it says no version")?;
    ensure!(
        version == VERSION,
        "the program is version {version}, and this tree is {VERSION}"
    );
    Ok(())
}

//! The bundle: one archive with everything that a machine without a network needs, and the sums to check it by.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::images::Images;
use super::stage::Stage;
use super::{Effort, VERSION, copy, fresh, run, sbom};
use crate::tree;

/// Puts it together and answers where it is.
pub(super) fn make(
    stage: &Stage,
    images: Option<&Images>,
    deb: Option<&Path>,
    (out, effort): (&Path, Effort),
) -> Result<PathBuf> {
    let name = format!("hostler-{VERSION}-linux-{}", stage.family());
    let folder = stage.target().join("bundle").join(&name);
    fresh(&folder)?;
    fill(&folder, stage)?;
    if let Some(images) = images {
        images.save(&folder.join("images.tar"))?;
    }
    if let Some(deb) = deb {
        let file = deb.file_name().context("a package has a name")?;
        copy(deb, &folder.join(file))?;
    }
    write_sums(&folder)?;
    let archive = out.join(format!("{name}.tar.gz"));
    pack(&folder, &archive, effort)?;
    Ok(archive)
}

fn fill(folder: &Path, stage: &Stage) -> Result<()> {
    let staged = stage.folder();
    copy(&stage.program(), &folder.join("hostler"))?;
    copy(&staged.join(sbom::FILE), &folder.join(sbom::FILE))?;
    for (part, place) in [("man", "man/man1"), ("completions", "completions")] {
        for entry in std::fs::read_dir(staged.join(part))? {
            let entry = entry?;
            copy(&entry.path(), &folder.join(place).join(entry.file_name()))?;
        }
    }
    for (file, place) in [
        ("deploy/bundle/install.sh", "install.sh"),
        ("deploy/compose.yaml", "compose.yaml"),
        ("deploy/compose.login.yaml", "compose.login.yaml"),
        ("docs/guide/packages.md", "README.md"),
        ("LICENSE", "LICENSE"),
    ] {
        copy(&tree::root().join(file), &folder.join(place))?;
    }
    Ok(())
}

/// The sum of every file, as `sha256sum --check` reads them.
fn write_sums(folder: &Path) -> Result<()> {
    let mut files = tree::all_files(folder)?;
    for file in &mut files {
        *file = file.strip_prefix(folder)?.to_owned();
    }
    let mut sums = Command::new("sha256sum");
    let sums = tree::output(sums.arg("--").args(files).current_dir(folder))?;
    std::fs::write(folder.join("SHA256SUMS"), sums)?;
    Ok(())
}

/// The same files make the same archive.
fn pack(folder: &Path, archive: &Path, effort: Effort) -> Result<()> {
    let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else {
        anyhow::bail!("the bundle has no folder");
    };
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--sort=name",
        "--numeric-owner",
        "--use-compress-program",
        match effort {
            Effort::Small => "gzip -9",
            Effort::Quick => "gzip -1",
        },
    ])
    .args([
        "--owner=0",
        "--group=0",
        "--mtime=@0",
        "--mode=u+rw,go=rX",
        "--file",
    ])
    .arg(archive)
    .arg("--directory")
    .arg(above)
    .arg(name);
    run(&mut tar)
}

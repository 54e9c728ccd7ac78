//! `package`: what is handed to people: images, a Debian package, the list of what is inside, and one archive with all of
//! it for machines that reach nothing.
//!
//! Everything is made of one program, the release unless another is named, and of what that program says of
//! itself: its pages and its completions. It lies in `target/package`, and engines are told by `DOCKER_HOST`.

mod bundle;
pub(crate) mod deb;
mod images;
mod libraries;
mod sbom;
mod stage;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};

use self::images::{Images, ImagesArgs};
use self::stage::Stage;
use crate::build::{self, Profile};
use crate::cross::Target;
use crate::tree::{self, run};

/// The version of all that is made.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Args)]
pub(crate) struct PackageArgs {
    #[command(subcommand)]
    what: What,
    /// A program that is built already
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "profile")]
    binary: Option<PathBuf>,
    /// What to build otherwise
    #[arg(long, global = true, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// What the program is for, if it is a static one; it is built so, too
    #[arg(long, global = true, value_enum)]
    target: Option<Target>,
    /// A program of this machine that is asked for pages and completions, if the one for the target does not run here;
    /// it is built otherwise
    #[arg(long, global = true, value_name = "PATH", requires = "target")]
    speaker: Option<PathBuf>,
    /// Where the results go [default: target/package]
    #[arg(long, global = true, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Builds the images with the engine of DOCKER_HOST.
    Images(ImagesArgs),
    /// Makes the Debian package; installs cargo-deb first if it is not here.
    Deb,
    /// Lists every crate that the program is made of, as CycloneDX.
    Sbom,
    /// Puts everything into one archive for machines that reach nothing.
    Bundle {
        #[command(flatten)]
        images: ImagesArgs,
        /// Leave this out; repeatable.
        #[arg(long, value_enum, value_name = "PART")]
        without: Vec<Part>,
    },
}

/// A part of the bundle that needs more than the program.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Images,
    Deb,
}

/// A release is made small, anything else is made quickly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Small,
    Quick,
}

/// Makes what was asked for, and says where each result lies.
pub(crate) fn main(arguments: &PackageArgs) -> Result<()> {
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => build::target()?.join("package"),
    };
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", tree::shown(&out)))?;
    let out = out.canonicalize()?;
    if let What::Sbom = arguments.what {
        return told(&[sbom::write(&out, arguments.target)?]);
    }
    let stage = Stage::lay_out(arguments, &out)?;
    match &arguments.what {
        What::Images(images) => {
            for name in Images::build(&stage, images)?.names() {
                println!("{name}");
            }
            Ok(())
        }
        What::Deb => told(&[deb::make(&stage, &out, arguments.effort())?]),
        What::Bundle { images, without } => {
            let has = |part| !without.contains(&part);
            let images = has(Part::Images)
                .then(|| Images::build(&stage, images))
                .transpose()?;
            let deb = has(Part::Deb)
                .then(|| deb::make(&stage, &out, arguments.effort()))
                .transpose()?;
            told(&[bundle::make(
                &stage,
                images.as_ref(),
                deb.as_deref(),
                (&out, arguments.effort()),
            )?])
        }
        What::Sbom => Ok(()),
    }
}

impl PackageArgs {
    const fn effort(&self) -> Effort {
        match (&self.binary, self.profile) {
            (None, Profile::Release) => Effort::Small,
            _ => Effort::Quick,
        }
    }

    fn program(&self) -> Result<PathBuf> {
        match &self.binary {
            Some(binary) => Ok(binary.clone()),
            None => build::program(self.profile, self.target),
        }
    }

    /// What another family's program says of itself, one of this machine says, too, if it is of the same tree.
    fn speaker(&self, program: PathBuf) -> Result<PathBuf> {
        match (&self.speaker, self.target) {
            (Some(speaker), _) => Ok(speaker.clone()),
            (None, Some(target)) if !target.runs_here() => build::program(Profile::Dev, None),
            (None, _) => Ok(program),
        }
    }
}

fn told(results: &[PathBuf]) -> Result<()> {
    for result in results {
        println!("{}", tree::shown(result));
    }
    Ok(())
}

/// Makes a folder anew, so that nothing of an earlier run is in it.
fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("remove {}", tree::shown(folder)))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", tree::shown(folder)))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(from, to).with_context(|| format!("copy {}", tree::shown(from)))?;
    Ok(())
}

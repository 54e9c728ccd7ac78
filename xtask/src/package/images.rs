//! The images of `deploy/Dockerfile`, from a context that has the program and, for the empty base, the libraries that it
//! is linked with. No registry is asked.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use super::stage::{NAMES, Stage};
use super::{VERSION, copy, fresh, libraries, run};
use crate::tree;

/// The base that has nothing, and needs no registry.
const EMPTY: &str = "scratch";

/// Targets of the Dockerfile, and what their images are called. Names without a slash are the engine makers' own in
/// a public registry, so that a missing image is never fetched from a stranger.
const TARGETS: [(&str, &str); 4] = [
    ("control-plane", "hostler-control-plane"),
    ("miaas-agent", "hostler-miaas-agent"),
    ("node-agent", "hostler-node-agent"),
    ("hostler", "hostler"),
];

/// Where the authorities' certificates are on Debian.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Args)]
pub(crate) struct ImagesArgs {
    /// The image to build on, of the same C library or a later one.
    #[arg(long, default_value = EMPTY)]
    base: String,
    /// What stands behind the colon; repeatable [default: the version, and latest]
    #[arg(long)]
    tag: Vec<String>,
}

/// The images that were built.
pub(super) struct Images {
    tags: Vec<String>,
}

impl Images {
    pub(super) fn build(stage: &Stage, arguments: &ImagesArgs) -> Result<Self> {
        let images = Self {
            tags: match arguments.tag.as_slice() {
                [] => vec![VERSION.to_owned(), "latest".to_owned()],
                tags => tags.to_vec(),
            },
        };
        let context = context(stage, &arguments.base)?;
        for (target, image) in TARGETS {
            let mut docker = Command::new("docker");
            docker
                .args(["build", "--target", target, "--build-arg"])
                .arg(format!("BASE={}", arguments.base))
                .arg("--file")
                .arg(tree::root().join("deploy/Dockerfile"))
                .args(
                    stage
                        .machine()
                        .into_iter()
                        .flat_map(|it| ["--platform", it.platform()]),
                );
            for tag in &images.tags {
                docker.arg("--tag").arg(format!("{image}:{tag}"));
            }
            run(docker.arg(&context)).with_context(|| format!("build the image of {target}"))?;
        }
        Ok(images)
    }

    /// All that can be started.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let of = |image: &'static str| self.tags.iter().map(move |tag| format!("{image}:{tag}"));
        TARGETS.iter().flat_map(move |(_, image)| of(image))
    }

    /// Writes them to a file that `docker load` reads.
    pub(super) fn save(&self, file: &Path) -> Result<()> {
        let mut docker = Command::new("docker");
        run(docker
            .arg("save")
            .arg("--output")
            .arg(file)
            .args(self.names()))
    }
}

/// The folder that the engine gets.
fn context(stage: &Stage, base: &str) -> Result<PathBuf> {
    let context = stage.target().join("context");
    fresh(&context)?;
    let root = context.join("base");
    std::fs::create_dir_all(context.join("state"))?;
    copy(
        &tree::root().join("LICENSE"),
        &root.join("usr/share/doc/hostler/LICENSE"),
    )?;
    let names = context.join("bin");
    copy(&stage.program(), &names.join("hostler"))?;
    for name in NAMES {
        symlink("hostler", names.join(name))?;
    }
    if base == EMPTY {
        fill(&stage.program(), &root)?;
    }
    Ok(context)
}

/// What a program needs of a system: libraries, names of hosts and users, certificates, a place for passing files.
fn fill(program: &Path, root: &Path) -> Result<()> {
    libraries::copy_all(program, root)?;
    let etc = root.join("etc");
    std::fs::create_dir_all(&etc)?;
    std::fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n")?;
    let users = "root:x:0:0:root:/root:\nhostler:x:10001:10001::/var/lib/hostler:\n";
    std::fs::write(etc.join("passwd"), users)?;
    std::fs::write(etc.join("group"), "root:x:0:\nhostler:x:10001:\n")?;
    let authorities = Path::new(AUTHORITIES);
    if authorities.is_file() {
        copy(authorities, &root.join("etc/ssl/certs/ca-certificates.crt"))?;
    } else {
        println!("the images know no authorities: there is no {AUTHORITIES}");
    }
    let passing = root.join("tmp");
    std::fs::create_dir_all(&passing)?;
    std::fs::set_permissions(&passing, PermissionsExt::from_mode(0o1777))?;
    Ok(())
}

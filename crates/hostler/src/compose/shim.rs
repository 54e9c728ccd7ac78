//! Which program stands between the agent and its processes: a small one that builds of `cargo xtask build` carry with
//! them, else this very program.

use std::path::{Path, PathBuf};

use hostler_runtime::process::{ShimCommand, place};

use crate::failure::Failure;

#[cfg(feature = "small-shim")]
const CARRIED: Option<&[u8]> = Some(include_bytes!(env!("HOSTLER_SHIM")));
#[cfg(not(feature = "small-shim"))]
const CARRIED: Option<&[u8]> = None;

/// How shims are started by an agent that keeps its data there.
pub(crate) fn shim(data_dir: &Path) -> Result<ShimCommand, Failure> {
    let dir = data_dir.join("shim");
    let program = match CARRIED.map(|program| place(&dir, program)) {
        Some(Ok(program)) => program,
        Some(Err(error)) => {
            let dir = dir.display();
            tracing::warn!(%dir, %error, "no program starts from here; shims take more memory");
            itself()?
        }
        None => itself()?,
    };
    Ok(ShimCommand {
        program,
        args: vec!["shim".to_owned()],
    })
}

fn itself() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::failed(
            format!("cannot find this program's own file: {error}"),
            "mount /proc",
        )
    })
}

//! Which program stands between the agent and its processes: a small one that builds of `cargo xtask build` carry with
//! them, else this very program.

use std::path::{Path, PathBuf};

use hostler_runtime::process::{ShimCommand, place};

use crate::failure::Failure;

/// The small one, if this build carries it. It is packed, which halves it, and what an agent reads of its own file.
#[cfg(feature = "small-shim")]
fn carried() -> Option<std::io::Result<Vec<u8>>> {
    const PACKED: &[u8] = include_bytes!(env!("HOSTLER_SHIM"));
    let unpacked = miniz_oxide::inflate::decompress_to_vec(PACKED);
    Some(unpacked.map_err(|error| std::io::Error::other(error.to_string())))
}

#[cfg(not(feature = "small-shim"))]
const fn carried() -> Option<std::io::Result<Vec<u8>>> {
    None
}

/// How shims are started by an agent that keeps its data there.
pub(crate) fn shim(data_dir: &Path) -> Result<ShimCommand, Failure> {
    let dir = data_dir.join("shim");
    let program = match carried().map(|program| place(&dir, &program?)) {
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

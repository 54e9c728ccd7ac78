//! The shim alone, as the tests of this crate start it: `shim <unit dir>`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(unit_dir) => hostler_shim::main(&PathBuf::from(unit_dir)),
        None => ExitCode::FAILURE,
    }
}

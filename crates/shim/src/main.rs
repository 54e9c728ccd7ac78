//! The shim as a program of its own: `hostler-shim shim <unit dir>`, in the words in which `hostler` is its own shim.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(2) {
        Some(unit_dir) => hostler_shim::main(Path::new(&unit_dir)),
        // What the agent sees of a program that can be run here.
        None => ExitCode::SUCCESS,
    }
}

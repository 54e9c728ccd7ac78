//! The workshop menu: everything that is done to the project rather than with it. `cargo xtask` lists it.
//!
//! Each verb is one module with one public function. They own no state but what they start and stop
//! themselves; what fails is said in one line, and the exit status is not zero.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a terminal tool: it prints, and reads the environment and the clock of the machine it runs on"
)]

mod proto;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The workshop menu of Hostler")]
struct Menu {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Generates the Rust of the wire contracts from proto/ into crates/wire/src/gen.
    Proto {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = match Menu::parse().verb {
        Verb::Proto { check } => proto::main(check.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

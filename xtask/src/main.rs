//! The workshop menu: everything that is done to the project rather than with it. `cargo xtask` lists it.
//!
//! Each verb is one module with one public function. They own no state but what they start and stop
//! themselves; what fails is said in one line, and the exit status is not zero.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a terminal tool: it prints, and reads the environment and the clock of its machine"
)]

mod arch;
mod bench;
mod build;
mod check;
mod contracts;
mod cross;
mod fuzz;
mod link;
mod openapi;
mod package;
mod proto;
mod size;
mod test;
mod tree;
mod warm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::build::Profile;
use crate::cross::Target;
use crate::test::Length;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The workshop menu of Hostler")]
struct Menu {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prepares what the tests need, runs them all, says what was left out and why.
    Test,
    /// All tests, with the random and simulated campaigns at full length, then the fuzz targets; takes hours.
    Nightly,
    /// What CI runs before the tests: fmt, clippy, arch, size, contracts, proto, openapi, doc.
    Check,
    /// Builds the release: the shim, and the program that carries it.
    Build {
        /// A static program for such machines; installs what that needs first, if it is not here.
        #[arg(long, value_enum)]
        target: Option<Target>,
    },
    /// Makes what is handed to people: images, a Debian package, a list of all parts, a bundle of everything.
    Package(package::PackageArgs),
    /// Measures the release build against its targets; arguments go to the harness, `--help` lists them.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Writes crates/hostler/warm.txt, the functions that an idle agent calls; needs qemu-user.
    Warm,
    /// Runs the fuzz targets of fuzz/; needs a nightly and a C++ compiler.
    Fuzz {
        /// Only these of agent, grpc, http, spec and uplink; all of them if none is named.
        targets: Vec<String>,
        /// Seconds for each.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Compares the edges between crates with the table in ARCHITECTURE.md.
    Arch,
    /// Lists files and functions over budget; fails above the walls.
    Size,
    /// Compares docs/contracts.md and docs/routes.md with the files and tests that they name.
    Contracts,
    /// Generates the Rust of the wire contracts from proto/ into crates/wire/src/gen.
    Proto {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
    },
    /// Writes docs/openapi.json as the binary prints it.
    Openapi {
        /// Only compare with what is committed.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    match run(Menu::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Test => return test::main(Length::Short),
        Verb::Nightly => {
            let tested = test::main(Length::Full)?;
            fuzz::nightly()?;
            return Ok(tested);
        }
        Verb::Build { target } => {
            println!(
                "{}",
                tree::shown(&build::program(Profile::Release, target)?)
            );
        }
        Verb::Package(arguments) => package::main(&arguments)?,
        Verb::Bench { arguments } => return bench::main(&arguments),
        Verb::Warm => warm::main()?,
        Verb::Fuzz { targets, seconds } => fuzz::main(&targets, seconds)?,
        Verb::Check => check::main()?,
        Verb::Arch => arch::main()?,
        Verb::Size => size::main()?,
        Verb::Contracts => contracts::main()?,
        Verb::Proto { check } => proto::main(check.into())?,
        Verb::Openapi { check } => openapi::main(check.into())?,
    }
    Ok(ExitCode::SUCCESS)
}

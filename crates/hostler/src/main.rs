//! The composition root: argv and environment become data here, and nowhere else.
//!
//! Owns the exit code. As `hostler shim …` it is the tiny parent of one unit and never starts a runtime. Under the
//! name of another fleet's agent it is that agent.

mod age;
mod args;
mod backup;
mod commands;
mod compose;
mod failure;
mod import;
mod personality;
mod printer;
mod settings;
mod status;
mod table;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::Cli;
use personality::Personality;
use printer::Printer;
use settings::Environment;
use status::ExitStatus;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    if words.next().is_some_and(|word| word == "shim") {
        let Some(unit) = words.next() else {
            return ExitStatus::Usage.into();
        };
        return hostler_shim::main(Path::new(&unit));
    }
    let environment = Environment::of_process();
    let printer = Printer::of_process(&environment);
    if let Some(personality) = Personality::of(Path::new(&name)) {
        return personality.main(std::env::args_os().skip(1), &environment, &printer);
    }
    let cli = match Cli::try_parse_from(args::spelled(std::env::args_os())) {
        Ok(cli) => cli,
        Err(told) => return explain(&told),
    };
    match commands::execute(cli.command, &environment, &printer) {
        Ok(status) => status.into(),
        Err(failure) => {
            printer.failure(&failure);
            failure.status.into()
        }
    }
}

/// Help and version go to stdout and are no failure; clap knows how to write them.
fn explain(told: &clap::Error) -> ExitCode {
    let is_asked = matches!(
        told.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    // When nobody reads it there is nothing to be done about it.
    let _ = told.print();
    if is_asked {
        ExitStatus::Done.into()
    } else {
        ExitStatus::Usage.into()
    }
}

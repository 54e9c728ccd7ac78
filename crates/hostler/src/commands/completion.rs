//! `completion`: a script for a shell.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionArgs};
use crate::printer::Printer;
use crate::status::ExitStatus;

pub(crate) fn completion(args: &CompletionArgs, printer: &Printer) -> ExitStatus {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hostler", &mut script);
    printer.text(&String::from_utf8_lossy(&script));
    ExitStatus::Done
}

//! `man`: the manual's pages, one for each command, as packages carry them. What fails is writing the files.

use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{Cli, ManArgs};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::status::ExitStatus;

pub(crate) fn man(args: &ManArgs, printer: &Printer) -> Result<ExitStatus, Failure> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    // Each command learns its full name and the options that hold for all.
    cli.build();
    let written = std::fs::create_dir_all(&args.dir).and_then(|()| write(&cli, "", &args.dir));
    let pages = written.map_err(|error| {
        let sentence = format!("cannot write pages to {}: {error}", args.dir.display());
        Failure::failed(sentence, "name a directory that you may write to")
    })?;
    printer.talk(&format!("{pages} pages are in {}", args.dir.display()));
    Ok(ExitStatus::Done)
}

/// Writes the page of a command and those of the commands below it; answers how many there are.
fn write(command: &clap::Command, above: &str, dir: &Path) -> std::io::Result<usize> {
    let name = match above {
        "" => command.get_name().to_owned(),
        above => format!("{above}-{}", command.get_name()),
    };
    let mut page = Vec::new();
    let command = command.clone().display_name(name.clone());
    let version = concat!("hostler ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone())
        .source(version)
        .render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    let below = command.get_subcommands().filter(|it| !it.is_hide_set());
    below
        .map(|it| write(it, &name, dir))
        .sum::<Result<usize, _>>()
        .map(|below| below + 1)
}

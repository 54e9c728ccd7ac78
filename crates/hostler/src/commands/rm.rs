//! `rm`: stops workloads and forgets them. Also asks, for everything that cannot be taken back.

use std::io::{BufRead as _, IsTerminal as _};

use hostler_wire::client::Expect;

use super::wait::{Goal, Target};
use super::{Remote, wait};
use crate::args::RmArgs;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings;
use crate::status::ExitStatus;

pub(crate) async fn rm(remote: &Remote<'_>, args: RmArgs) -> Result<ExitStatus, Failure> {
    let mut targets = Vec::new();
    for name in &args.workloads {
        let workload = remote.client.workload(name).await?;
        targets.push(Target {
            id: workload.id,
            name: workload.name,
            goal: Goal::Gone,
            revision: None,
        });
    }
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    confirm(
        remote,
        args.yes,
        &format!("stop and remove {}", names.join(", ")),
    )?;
    for target in &targets {
        remote.client.delete(&target.id, Expect::Any).await?;
    }
    match settings::wait(&args.wait) {
        Some(most) => wait::wait(remote, &targets, most).await?,
        None => names
            .iter()
            .for_each(|name| remote.printer.talk(&format!("{name} is to go"))),
    }
    Ok(ExitStatus::Done)
}

/// Asks on a terminal; without one `--yes` must have been said.
pub(crate) fn confirm(remote: &Remote<'_>, is_agreed: bool, what: &str) -> Result<(), Failure> {
    agree(remote.printer, is_agreed, what)
}

/// The same for what needs no server.
pub(crate) fn agree(printer: &Printer, is_agreed: bool, what: &str) -> Result<(), Failure> {
    if is_agreed {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let sentence = format!("to {what} needs a word, and there is no terminal to ask on");
        return Err(Failure::usage(sentence, "say it with --yes"));
    }
    printer.ask(&format!("{what}? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::failed(
            "nothing was done",
            "answer `y`, or say it with --yes",
        )),
    }
}

//! `events`: what happened in the fleet, and what still does.

use std::time::Duration;

use futures::StreamExt as _;
use hostler_wire::api::{Event, Level};
use hostler_wire::client::{ClientError, Happening};

use super::Remote;
use crate::args::{EventsArgs, OutputForm};
use crate::failure::Failure;
use crate::printer::{Paint, Printer};
use crate::settings;
use crate::status::ExitStatus;

/// Before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn events(remote: &Remote<'_>, args: EventsArgs) -> Result<ExitStatus, Failure> {
    let form = settings::form(&args.output);
    let mut kept = remote.client.events(args.after).await?;
    let after = kept.last().map(|event| event.sequence).or(args.after);
    if let Some(tail) = args.tail {
        kept.drain(..kept.len().saturating_sub(tail));
    }
    for event in &kept {
        show(remote.printer, form, event)?;
    }
    if args.follow {
        follow(remote, form, after).await?;
    }
    Ok(ExitStatus::Done)
}

async fn follow(remote: &Remote<'_>, form: OutputForm, after: Option<u64>) -> Result<(), Failure> {
    let mut after = after;
    loop {
        let error = match remote.client.follow_events(after).await {
            Err(error) => error,
            Ok(mut stream) => loop {
                match stream.next().await {
                    Some(Ok(Happening::Event(event))) => {
                        show(remote.printer, form, &event)?;
                        after = Some(event.sequence);
                    }
                    Some(Ok(Happening::Gap(gap))) => {
                        remote
                            .printer
                            .talk(&format!("-- events before {} are forgotten", gap.oldest));
                    }
                    Some(Err(error)) => break error,
                    None => return Ok(()),
                }
                if remote.printer.is_closed() {
                    return Ok(());
                }
            },
        };
        go_on(remote, error).await?;
    }
}

async fn go_on(remote: &Remote<'_>, error: ClientError) -> Result<(), Failure> {
    if !error.is_retryable() {
        return Err(error.into());
    }
    remote
        .printer
        .talk("the stream broke off, opening it again");
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

fn show(printer: &Printer, form: OutputForm, event: &Event) -> Result<(), Failure> {
    match form {
        OutputForm::Json | OutputForm::Yaml => printer.record(form, event)?,
        OutputForm::Name => printer.data(&event.kind),
        OutputForm::Table | OutputForm::Wide => {
            let paint = if event.level == Level::Warning {
                Paint::Bad
            } else {
                Paint::Plain
            };
            let kind = printer.paint(paint, &format!("{:<20}", event.kind));
            let actor = if form == OutputForm::Wide {
                format!("  ({})", event.actor)
            } else {
                String::new()
            };
            printer.data(&format!("{}  {kind}  {}{actor}", event.at, event.message));
        }
    }
    Ok(())
}

//! `events`: what happened in the fleet, and what still does.

use futures::StreamExt as _;
use hostler_wire::api::{Event, Level};
use hostler_wire::client::{ClientError, Happening, Stream};

use super::Remote;
use super::reopen::Reopening;
use crate::args::{EventsArgs, OutputForm};
use crate::failure::Failure;
use crate::printer::{Paint, Printer};
use crate::settings;
use crate::status::ExitStatus;

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
    let mut reopening = Reopening::new();
    loop {
        let error = match remote.client.follow_events(after).await {
            Err(error) => error,
            Ok(stream) => {
                reopening.opened();
                match read(remote, form, (stream, &mut after)).await? {
                    Some(error) => error,
                    None => return Ok(()),
                }
            }
        };
        if !error.is_retryable() {
            return Err(error.into());
        }
        reopening.broken(remote.printer).await;
    }
}

/// Shows what comes until the stream breaks, or nobody reads any more.
async fn read(
    remote: &Remote<'_>,
    form: OutputForm,
    (mut stream, after): (Stream<Happening>, &mut Option<u64>),
) -> Result<Option<ClientError>, Failure> {
    let printer = remote.printer;
    while let Some(happening) = stream.next().await {
        match happening {
            Ok(Happening::Event(event)) => {
                show(printer, form, &event)?;
                *after = Some(event.sequence);
            }
            Ok(Happening::Gap(gap)) => {
                printer.talk(&format!("-- events before {} are forgotten", gap.oldest));
            }
            Err(error) => return Ok(Some(error)),
        }
        if printer.is_closed() {
            break;
        }
    }
    Ok(None)
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
